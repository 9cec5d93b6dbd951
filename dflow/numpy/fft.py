"""What of ``numpy.fft`` has real arguments and results: frequencies and shifts. The transforms are NumPy's own, for
concrete arrays: traced programs have no complex numbers."""

from __future__ import annotations

from typing import Any

import numpy

from dflow.numpy import dispatch
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.tracing.array import Array
from dflow.tracing.lift import lift

np: Any = numpy


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
