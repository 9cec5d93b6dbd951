"""``numpy.fft`` on traced arrays: transforms over one axis or several, frequencies and shifts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from dflow.numpy import dispatch
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.fourier import of_reals, to_reals, transform
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift

np: Any = numpy
SWAPPED = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}


def _complex(a: Any) -> Array:
    x = lift(a)
    return x if x.dtype.kind == "c" else s.as_dtype(x, np.result_type(_floating(x).dtype, np.complex64))


def _floating(a: Any) -> Array:
    """Real numbers of at least 32 bits; whole ones become the widest."""
    x = lift(a)
    return s.as_dtype(x, np.result_type(x.dtype, np.float32) if x.dtype.kind == "f" else np.float64)


def _scale(n: int, norm: Any, inverse: bool) -> float:
    if norm not in SWAPPED:
        raise ValueError(f'Invalid norm value {norm}; should be "backward", "ortho" or "forward".')
    if norm == "ortho":
        return 1.0 / math.sqrt(n)
    return 1.0 / n if inverse == (norm != "forward") else 1.0


def _resized(x: Array, n: int) -> Array:
    """The first ``n`` elements along the last axis, zeros where there are fewer."""
    if n < 1:
        raise ValueError(f"Invalid number of FFT data points ({n}) specified.")
    size = x.shape[-1]
    return x[..., :n] if n <= size else np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - size)])


def _along(a: Any, n: Any, axis: int, norm: Any, inverse: bool) -> Array:
    x, sign = _complex(a), 1 if inverse else -1
    at = s.one_axis(axis, x.ndim)
    size = x.shape[at] if n is None else s.static_int(n, "n")
    if size is not x.shape[at]:
        x = np.moveaxis(_resized(np.moveaxis(x, at, -1), size), -1, at)
    elif size < 1:
        raise ValueError(f"Invalid number of FFT data points ({size}) specified.")
    return _scaled(transform(x, sign, at), size, norm, inverse)


def _scaled(y: Array, size: int, norm: Any, inverse: bool) -> Array:
    """The result of a transform of ``size`` elements."""
    scale = _scale(size, norm, inverse)
    return y if scale == 1.0 else y * scale


@implements(np.fft.fft)
def fft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Array:
    return s.result(_along(a, n, axis, norm, False).value, out)


@implements(np.fft.ifft)
def ifft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Array:
    return s.result(_along(a, n, axis, norm, True).value, out)


@implements(np.fft.rfft)
def rfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Array:
    """Of real numbers: the frequencies that are not negative."""
    if lift(a).dtype.kind == "c":
        raise TypeError("ufunc 'rfft' takes real numbers; take fft of complex ones")
    x = np.moveaxis(_floating(a), axis, -1)
    x = _resized(x, x.shape[-1] if n is None else s.static_int(n, "n"))
    return s.result(np.moveaxis(_scaled(of_reals(x), x.shape[-1], norm, False), -1, axis).value, out)


@implements(np.fft.irfft)
def irfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Array:
    """From the frequencies that are not negative; the others are their conjugates, and the result is real."""
    x = np.moveaxis(_complex(a), axis, -1)
    size = 2 * (x.shape[-1] - 1) if n is None else s.static_int(n, "n")
    if size < 1:
        raise ValueError(f"Invalid number of FFT data points ({size}) specified.")
    half = _resized(x, size // 2 + 1)
    return s.result(np.moveaxis(_scaled(to_reals(half, size), size, norm, True), -1, axis).value, out)


@implements(np.fft.hfft)
def hfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Array:
    return irfft.__wrapped__(np.conj(_complex(a)), n, axis, SWAPPED[norm], out)


@implements(np.fft.ihfft)
def ihfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Array:
    return s.result(np.conj(rfft.__wrapped__(a, n, axis, SWAPPED[norm])).value, out)


# -- several axes ----------------------------------------------------------------------------------------------------


def _sizes(x: Array, sizes: Any, axes: Any) -> list[tuple[Any, int]]:
    """Pairs of a size (None: as it is) and an axis."""
    if axes is None:
        axes = range(x.ndim) if sizes is None else range(-len(sizes), 0)
    sizes = [None] * len(axes) if sizes is None else [None if n == -1 else n for n in sizes]
    if len(sizes) != len(axes):
        raise ValueError("Shape and axes have different lengths.")
    return list(zip(sizes, axes))


def _over(step: Any, x: Array, pairs: Sequence[tuple[Any, int]], norm: Any) -> Array:
    for n, axis in reversed(pairs):
        x = step.__wrapped__(x, n, axis, norm)
    return x


def _several(step: Any, default: Any) -> Any:
    def call(a: Any, s: Any = None, axes: Any = default, norm: Any = None, out: Any = None) -> Array:
        x = lift(a)
        return _finished(_over(step, x, _sizes(x, s, axes), norm), out)

    return call


def _real_several(default: Any) -> Any:
    def call(a: Any, s: Any = None, axes: Any = default, norm: Any = None, out: Any = None) -> Array:
        x = lift(a)
        *others, (n, axis) = _sizes(x, s, axes)
        return _finished(_over(fft, rfft.__wrapped__(x, n, axis, norm), others, norm), out)

    return call


def _to_real_several(default: Any) -> Any:
    def call(a: Any, s: Any = None, axes: Any = default, norm: Any = None, out: Any = None) -> Array:
        x = lift(a)
        *others, (n, axis) = _sizes(x, s, axes)
        return _finished(irfft.__wrapped__(_over(ifft, x, others, norm), n, axis, norm), out)

    return call


def _finished(x: Array, out: Any) -> Array:
    return s.result(x.value, out)


fftn, fft2 = (implements(f)(_several(fft, d)) for f, d in ((np.fft.fftn, None), (np.fft.fft2, (-2, -1))))
ifftn, ifft2 = (implements(f)(_several(ifft, d)) for f, d in ((np.fft.ifftn, None), (np.fft.ifft2, (-2, -1))))
rfftn, rfft2 = (implements(f)(_real_several(d)) for f, d in ((np.fft.rfftn, None), (np.fft.rfft2, (-2, -1))))
irfftn, irfft2 = (implements(f)(_to_real_several(d)) for f, d in ((np.fft.irfftn, None), (np.fft.irfft2, (-2, -1))))


# -- frequencies and shifts ------------------------------------------------------------------------------------------


def _frequencies(plain: Any) -> Any:
    def call(n: Any, d: Any = 1.0, device: Any = None, *, dtype: Any = None) -> Any:
        """Frequencies of ``n`` samples that are ``d`` apart."""
        found = lift(plain(s.static_int(n, "n"))) / lift(d)
        return found if dtype is None else found.astype(dtype)

    call.__name__ = plain.__name__
    return implements(plain, extra=("dtype",))(call)


fftfreq = _frequencies(np.fft.fftfreq)
rfftfreq = _frequencies(np.fft.rfftfreq)


def _shifted(x: Any, axes: Any, there: bool) -> Array:
    x = lift(x)
    axes = s.some_axes(axes, x.ndim)
    halves = [x.shape[k] // 2 for k in axes]
    return np.roll(x, tuple(halves if there else [-h for h in halves]), axes)


@implements(np.fft.fftshift)
def fftshift(x: Any, axes: Any = None) -> Array:
    """Frequency 0 brought to the middle."""
    return _shifted(x, axes, True)


@implements(np.fft.ifftshift)
def ifftshift(x: Any, axes: Any = None) -> Array:
    return _shifted(x, axes, False)


def __getattr__(name: str) -> Any:
    found = getattr(numpy.fft, name)
    return dispatch.refusing(found) if callable(found) else found
