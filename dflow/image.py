"""Images of another size, under the names of ``jax.image``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from dflow.ir.types import kind_of
from dflow.numpy.dispatch import own
from dflow.tracing.arrays.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


def _triangle(x: Any) -> Any:
    return np.maximum(1.0 - x, 0.0)


def _cubic(x: Any) -> Any:
    """Keys 1981, with a = -1/2."""
    near, far = ((1.5 * x - 2.5) * x) * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(radius: float) -> Callable[[Any], Any]:
    def kernel(x: Any) -> Any:
        return np.where(x < radius, np.sinc(x) * np.sinc(x / radius), 0.0)

    return kernel


KERNELS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("linear", "bilinear", "trilinear", "triangle"), _triangle),
    **dict.fromkeys(("cubic", "bicubic", "tricubic"), _cubic),
    "lanczos3": _lanczos(3.0),
    "lanczos5": _lanczos(5.0),
}


def _kernel(method: Any) -> Callable[[Any], Any]:
    name = str(getattr(method, "name", method)).lower()
    if name not in KERNELS:
        raise ValueError(f"the method is one of nearest, {', '.join(KERNELS)}, got {method!r}")
    return KERNELS[name]


def _weights(old: int, new: int, scale: Any, shift: Any, kernel: Callable[[Any], Any], antialias: bool) -> Any:
    """What each of the ``old`` elements (rows) gives to each of the ``new`` ones (columns); none to those outside."""
    places = (np.arange(new) + 0.5 - shift) / scale - 0.5
    width = np.maximum(1.0 / scale, 1.0) if antialias else 1.0
    found = kernel(np.absolute(places[None] - np.arange(old)[:, None]) / width)
    total = np.sum(found, axis=0)
    enough = np.absolute(total) > 1000 * numpy.finfo(numpy.float32).eps
    inside = enough & (places >= -0.5) & (places <= old - 0.5)
    return np.where(inside, found / np.where(enough, total, 1.0), 0.0)


def _applied(x: Any, axis: int, weights: Any) -> Any:
    return np.moveaxis(np.tensordot(x, lift(weights).astype(x.dtype), axes=((axis,), (0,))), -1, axis)


@own
def resize(image: Any, shape: Sequence[int], method: Any, antialias: bool = True, precision: Any = None) -> Any:
    """The image in another size: by "nearest", "linear", "cubic", "lanczos3" or "lanczos5" (and JAX's other names).

    ``antialias`` widens the kernel where the image becomes smaller. ``precision`` changes nothing. Raises ValueError
    for another number of axes, or another method.
    """
    x = lift(image)
    if len(shape) != x.ndim:
        raise ValueError(f"a shape of {len(shape)} axes for an image of {x.ndim}")
    if str(getattr(method, "name", method)).lower() == "nearest":
        for axis, (old, new) in enumerate(zip(x.shape, shape)):
            if old != new:
                x = np.take(x, numpy.floor((numpy.arange(new) + 0.5) * old / new).astype(int), axis=axis)
        return x
    kernel = _kernel(method)
    x = x if kind_of(x.dtype) in "fc" else x.astype(numpy.float64)
    for axis, (old, new) in enumerate(zip(x.shape, shape)):
        if old != new:
            x = _applied(x, axis, _weights(old, new, new / old, 0.0, kernel, antialias))
    return x


@own
def scale_and_translate(
    image: Any,
    shape: Sequence[int],
    spatial_dims: Sequence[int],
    scale: Any,
    translation: Any,
    method: Any,
    antialias: bool = True,
    precision: Any = None,
) -> Any:
    """The image, larger by ``scale`` and moved by ``translation`` along ``spatial_dims``, in a frame of ``shape``; 0
    outside of it. Derivatives are by scale and translation, too."""
    x, kernel = lift(image), _kernel(method)
    x = x if kind_of(x.dtype) in "fc" else x.astype(numpy.float64)
    scale, translation = lift(scale), lift(translation)
    for k, d in enumerate(spatial_dims):
        axis = range(x.ndim)[d]
        x = _applied(x, axis, _weights(x.shape[axis], shape[axis], scale[k], translation[k], kernel, antialias))
    return x


__all__ = ["resize", "scale_and_translate"]
