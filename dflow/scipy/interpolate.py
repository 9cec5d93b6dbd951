"""``scipy.interpolate.RegularGridInterpolator`` on traced arrays, with derivatives by points, values and grid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy
import scipy.interpolate

from dflow.ir.types import kind_of
from dflow.numpy.dispatch import CALLABLES, own, refusing
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

METHODS = ("linear", "nearest")


class RegularGridInterpolator:
    """Between values on a grid: ``points`` are the coordinates along each axis, which increase, ``values`` an array
    that begins with these axes. A call takes coordinates with the axes of the grid along their last axis.

    ``method`` is "linear" or "nearest" (a half is taken down). Outside, a ValueError is raised (``bounds_error``),
    ``fill_value`` is taken, or with None for that the outermost cells are continued. Raises ValueError for other
    methods and for shapes that do not fit. An interpolator of SciPy's may be called with traced coordinates, too.
    """

    def __init__(
        self,
        points: Sequence[Any],
        values: Any,
        method: str = "linear",
        bounds_error: bool = True,
        fill_value: Any = numpy.nan,
    ):
        self.grid, self.values, self.method = tuple(points), values, method
        self.bounds_error, self.fill_value = bounds_error, fill_value
        for p in self.grid:
            if not isinstance(p, Array) and not numpy.all(numpy.diff(numpy.asarray(p)) > 0):
                raise ValueError("the points of a grid must increase along each axis")

    def __call__(self, xi: Any, method: str | None = None) -> Any:
        return _call(self, xi, method)


def _call(given: Any, xi: Any, method: str | None = None) -> Any:
    method = given.method if method is None else method
    return _interpolated(given.grid, given.values, xi, method, given.bounds_error, given.fill_value)


@own
def _interpolated(grid: Any, values: Any, xi: Any, method: Any, bounds_error: Any, fill_value: Any) -> Any:
    if method not in METHODS:
        raise ValueError(f"the method of an interpolation on a grid is one of {', '.join(METHODS)}, got {method!r}")
    points, v = [_floats(lift(p)) for p in grid], _floats(lift(values))
    x = _coordinates(xi, len(points))
    shape = tuple(len(p) for p in points)
    if v.shape[: len(shape)] != shape or x.shape[-1] != len(shape) or min(shape) < 2:
        raise ValueError(f"values of shape {v.shape} and coordinates of shape {x.shape} on a grid of shape {shape}")
    at = [x[..., k] for k in range(len(shape))]
    outside: Any = False
    for p, c in zip(points, at):
        outside = (c < p[0]) | (c > p[-1]) | outside
    if bounds_error:
        message = "one of the requested xi is out of bounds"
        builder().check(np.all(~outside).value, error="ValueError", message=message)
    found = _linear(points, v, at) if method == "linear" else _nearest(points, v, at)
    spread = (..., *(None,) * (v.ndim - len(shape)))
    if not bounds_error and fill_value is not None:
        found = np.where(outside[spread], fill_value, found)
    unknown: Any = False
    for c in at:
        unknown = np.isnan(c) | unknown
    return np.where(unknown[spread], np.nan, found)


def _floats(x: Any) -> Any:
    return x if kind_of(x.dtype) in "fc" else x.astype(numpy.float64)


def _coordinates(xi: Any, count: int) -> Any:
    """With one column for each axis; a tuple has an array for each."""
    if isinstance(xi, tuple):
        return np.stack(np.broadcast_arrays(*(_floats(lift(c)) for c in xi)), axis=-1)
    x = _floats(lift(xi))
    if x.ndim < 2:
        return x.reshape((-1, 1)) if count == 1 else x.reshape((1, -1))
    return x


def _cell(p: Any, c: Any) -> tuple[Any, Any]:
    """The number of the cell of a coordinate, and how far through it."""
    i = np.clip(np.searchsorted(p, c, side="right") - 1, 0, len(p) - 2)
    low, high = p[i], p[i + 1]
    return i, (c - low) / (high - low)


def _linear(points: list[Any], v: Any, at: list[Any]) -> Any:
    cells = [_cell(p, c) for p, c in zip(points, at)]
    spread = (..., *(None,) * (v.ndim - len(points)))
    total: Any = None
    for corner in itertools.product((0, 1), repeat=len(cells)):
        weight: Any = 1.0
        for (_, part), high in zip(cells, corner):
            weight = weight * (part if high else 1.0 - part)
        term = v[tuple(i + high for (i, _), high in zip(cells, corner))] * weight[spread]
        total = term if total is None else total + term
    return total


def _nearest(points: list[Any], v: Any, at: list[Any]) -> Any:
    cells = [_cell(p, c) for p, c in zip(points, at)]
    return v[tuple(np.where(part <= 0.5, i, i + 1) for i, part in cells)]


CALLABLES[scipy.interpolate.RegularGridInterpolator] = _call


def __getattr__(name: str) -> Any:
    found = getattr(scipy.interpolate, name)
    return refusing(found) if callable(found) and not isinstance(found, type) else found


__all__ = ["RegularGridInterpolator"]
