"""``scipy.signal`` on traced arrays: convolution, correlation, trends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy
import scipy.signal

from dflow.ir.types import kind_of
from dflow.lax.control import fori_loop
from dflow.numpy.dispatch import implements, refusing
from dflow.tracing.arrays.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


def _two(in1: Any, in2: Any) -> tuple[Any, Any]:
    x, y = lift(in1), lift(in2)
    if x.ndim != y.ndim:
        raise ValueError("in1 and in2 should have the same dimensionality")
    return x, y


def _full(x: Any, y: Any) -> Any:
    """The whole convolution: a loop over the smaller array that adds shifted multiples of the larger one."""
    if x.size < y.size:
        x, y = y, x
    dtype = numpy.result_type(x.dtype, y.dtype)
    shape = tuple(m + n - 1 for m, n in zip(x.shape, y.shape))
    if x.ndim == 0:
        return x * y
    if 0 in (x.size, y.size):
        return lift(numpy.zeros((0,) * x.ndim, dtype))
    flat, x = y.reshape(-1).astype(dtype), x.astype(dtype)
    strides = [prod(y.shape[d + 1 :]) for d in range(y.ndim)]

    def add(k: Any, total: Any) -> Any:
        starts = [k // stride % n for stride, n in zip(strides, y.shape)]
        total[tuple(slice(i, i + m) for i, m in zip(starts, x.shape))] += flat[k] * x
        return total

    return fori_loop(0, y.size, add, lift(numpy.zeros(shape, dtype)).copy())


def _cut(full: Any, x: Any, y: Any, mode: str, axes: Sequence[int], later: int = 0) -> Any:
    """What ``mode`` keeps of the whole convolution; the middle of an even rest is ``later`` by 0 or 1."""
    if mode == "full":
        return full
    if mode == "same":
        sizes = {a: x.shape[a] for a in axes}
    elif mode == "valid":
        larger = [x.shape[a] >= y.shape[a] for a in axes]
        if any(larger) and not all(larger) and any(x.shape[a] > y.shape[a] for a in axes):
            raise ValueError("for 'valid' mode, one must be at least as large as the other in every dimension")
        sizes = {a: abs(x.shape[a] - y.shape[a]) + 1 for a in axes}
    else:
        raise ValueError("acceptable mode flags are 'valid', 'same', or 'full'")
    starts = {a: (full.shape[a] - n + later) // 2 for a, n in sizes.items()}
    return full[tuple(slice(starts[a], starts[a] + sizes[a]) if a in sizes else slice(None) for a in range(full.ndim))]


def _turned(y: Any) -> Any:
    """Backwards along every axis, and conjugate."""
    y = y[(slice(None, None, -1),) * y.ndim]
    return np.conjugate(y) if kind_of(y.dtype) == "c" else y


@implements(scipy.signal.convolve)
def convolve(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    """By its definition, unless ``method`` is "fft"."""
    x, y = _two(in1, in2)
    if method == "fft":
        found, dtype = fftconvolve.__wrapped__(x, y, mode), numpy.result_type(x.dtype, y.dtype)
        return (np.rint(found) if kind_of(dtype) in "iu" else found).astype(dtype)
    return _cut(_full(x, y), x, y, mode, range(x.ndim))


@implements(scipy.signal.correlate)
def correlate(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    x, y = _two(in1, in2)
    return convolve.__wrapped__(x, _turned(y), mode, method)


@implements(scipy.signal.fftconvolve)
def fftconvolve(in1: Any, in2: Any, mode: str = "full", axes: Any = None) -> Any:
    x, y = _two(in1, in2)
    every = range(x.ndim)
    along = sorted(every[a] for a in (every if axes is None else [axes] if isinstance(axes, int) else axes))
    if 0 in (x.size, y.size) or not along:
        return x * y
    sizes = [x.shape[a] + y.shape[a] - 1 for a in along]
    if "c" in (kind_of(x.dtype), kind_of(y.dtype)):
        forth, back = np.fft.fftn, np.fft.ifftn
    else:
        forth, back = np.fft.rfftn, np.fft.irfftn
    full = back(forth(x, sizes, axes=along) * forth(y, sizes, axes=along), sizes, axes=along)
    return _cut(full, x, y, mode, along)


_PADDING = {"wrap": "wrap", "circular": "wrap", "symm": "symmetric", "symmetric": "symmetric"}


def _flat(in1: Any, in2: Any, mode: str, boundary: str, fillvalue: Any, backwards: bool) -> Any:
    """The two-dimensional convolution, or (``backwards``) correlation."""
    x, y = _two(in1, in2)
    if x.ndim != 2:
        raise ValueError("convolve2d inputs must both be 2-D arrays")
    y = _turned(y) if backwards else y
    if mode == "valid":
        return _cut(_full(x, y), x, y, mode, (0, 1))
    widths = [(n - 1, n - 1) for n in y.shape]
    if boundary in ("fill", "pad"):
        around = np.pad(x, widths, constant_values=fillvalue)
    else:
        around = np.pad(x, widths, mode=_PADDING[boundary])
    inner = _full(around, y)
    full = inner[tuple(slice(n - 1, inner.shape[k] - (n - 1)) for k, n in enumerate(y.shape))]
    return _cut(full, x, y, mode, (0, 1), int(backwards))


@implements(scipy.signal.convolve2d)
def convolve2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    return _flat(in1, in2, mode, boundary, fillvalue, False)


@implements(scipy.signal.correlate2d)
def correlate2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    return _flat(in1, in2, mode, boundary, fillvalue, True)


@implements(scipy.signal.detrend)
def detrend(data: Any, axis: int = -1, type: str = "linear", bp: Any = 0, overwrite_data: bool = False) -> Any:
    """The data less its projection on constants, or on lines between the break points ``bp``."""
    x = lift(data)
    if kind_of(x.dtype) not in "fc":
        x = x.astype(numpy.float64)
    if type in ("constant", "c"):
        return x - np.mean(x, axis=axis, keepdims=True)
    if type not in ("linear", "l"):
        raise ValueError("trend type must be 'linear' or 'constant'")
    length = x.shape[axis]
    ends = sorted({0, length, *numpy.atleast_1d(bp).tolist()})
    if ends[-1] > length:
        raise ValueError("breakpoints must be less than length of data along given axis")
    projection = numpy.zeros((length, length))
    for first, last in itertools.pairwise(ends):
        line = numpy.stack([numpy.ones(last - first), numpy.arange(last - first) / (last - first)], axis=1)
        projection[first:last, first:last] = line @ numpy.linalg.pinv(line)
    rest = (numpy.eye(length) - projection).astype(numpy.zeros(0, x.dtype).real.dtype)
    return np.moveaxis(np.tensordot(lift(rest), np.moveaxis(x, axis, 0), axes=1), 0, axis)


_FUNCTIONS = ("convolve", "convolve2d", "correlate", "correlate2d", "detrend", "fftconvolve")


def __getattr__(name: str) -> Any:
    found = getattr(scipy.signal, name)
    return refusing(found) if callable(found) and not isinstance(found, type) else found


__all__ = [*_FUNCTIONS]
