"""NumPy's objects that make arrays when they are indexed: ``mgrid`` and ``ogrid``."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.numpy import support as s
from dflow.numpy.creation import arange, linspace
from dflow.numpy.dispatch import INDEXED, located
from dflow.numpy.joining import stack
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import wrap


def _points(item: slice, dtype: Any) -> Array:
    """``start:stop:step`` as numbers; an imaginary step is a count of points, the last of them the stop."""
    start, step = 0 if item.start is None else item.start, 1 if item.step is None else item.step
    if isinstance(step, complex | np.complexfloating):
        return s.as_dtype(linspace.__wrapped__(start, item.stop, int(abs(complex(step)))), dtype)
    return s.as_dtype(arange.__wrapped__(start, item.stop, step), dtype)


def _numbers(item: slice) -> list[Any]:
    """What tells the dtype of a slice."""
    bounds = [x for x in (item.start, item.stop, item.step) if x is not None]
    return [1.0 if isinstance(x, complex | np.complexfloating) else x for x in bounds]


def _open(index: Any) -> list[Array]:
    """One array for each slice, each along an axis of its own."""
    items = index if isinstance(index, tuple) else (index,)
    dtype = s.result_type(np.int64, *(x for item in items for x in _numbers(item)))
    axes = [_points(item, dtype) for item in items]
    n = len(axes)
    return [wrap(s.reshaped(a.value, (*(1,) * k, *s.dims(a), *(1,) * (n - k - 1)))) for k, a in enumerate(axes)]


def mgrid(index: Any) -> Array:
    axes = _open(index)
    if not isinstance(index, tuple):
        return axes[0]
    return stack.__wrapped__([wrap(v) for v in s.broadcast(*(a.value for a in axes))])


def ogrid(index: Any) -> Any:
    return tuple(_open(index)) if isinstance(index, tuple) else _open(index)[0]


INDEXED.update({type(grid): located(f) for grid, f in ((np.mgrid, mgrid), (np.ogrid, ogrid))})
