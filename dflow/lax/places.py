"""``gather`` and ``scatter`` of windows at traced places, with the dimension numbers of ``jax.lax`` (which are XLA's).

A window is known by where it begins; a window that is not inside the operand as a whole gives ``fill_value``, and is
not written. Both go through the positions of all elements in the flat operand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy

from dflow.lax.at import At, nothing_of
from dflow.numpy.dispatch import own
from dflow.tracing.arrays.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

Axes = Sequence[int]


class GatherDimensionNumbers(NamedTuple):
    """Which axes of the result are those of a window, which axes of the operand no window has, which axis of the
    operand each index is of, and axes that operand and indices share."""

    offset_dims: Axes
    collapsed_slice_dims: Axes
    start_index_map: Axes
    operand_batching_dims: Axes = ()
    start_indices_batching_dims: Axes = ()


class ScatterDimensionNumbers(NamedTuple):
    """The same for updates: axes of the updates that are those of a window, and so on."""

    update_window_dims: Axes
    inserted_window_dims: Axes
    scatter_dims_to_operand_dims: Axes
    operand_batching_dims: Axes = ()
    scatter_indices_batching_dims: Axes = ()


def _positions(shape: Axes, indices: Any, numbers: GatherDimensionNumbers, sizes: Axes, mode: Any) -> Any:
    """For each window (axes of the indices but the last) and each place in it, its position in the flat operand; that
    behind the last for windows that are not inside."""
    strides = [prod(shape[d + 1 :]) for d in range(len(shape))]
    windows = indices.shape[:-1]
    first: Any = lift(numpy.zeros(windows, numpy.int64))
    inside: Any = True
    for k, d in enumerate(numbers.start_index_map):
        start, last = indices[..., k].astype(np.int64), shape[d] - sizes[d]
        if mode == "clip":
            start = np.clip(start, 0, last)
        inside = (start >= 0) & (start <= last) & inside
        first = first + start * strides[d]
    for d, axis in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        count = numpy.arange(shape[d]) * strides[d]
        first = first + count.reshape([-1 if k == axis else 1 for k in range(len(windows))])
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [d for d in range(len(shape)) if d not in gone]
    grid = numpy.zeros([sizes[d] for d in kept], numpy.int64)
    for k, d in enumerate(kept):
        grid = grid + (numpy.arange(sizes[d]) * strides[d]).reshape([-1 if j == k else 1 for j in range(len(kept))])
    found = first.reshape((*windows, *[1] * grid.ndim)) + grid
    if inside is True:
        return found
    return np.where(inside.reshape((*windows, *[1] * grid.ndim)), found, prod(shape))


def _order(rank: int, of_windows: Axes) -> list[int]:
    """The axes with those of windows last."""
    return [k for k in range(rank) if k not in of_windows] + list(of_windows)


def _mode(mode: Any) -> str:
    name = str(getattr(mode, "name", "fill" if mode is None else mode)).lower()
    return "clip" if name in ("clip", "promise_in_bounds") else "fill"


@own
def gather(
    operand: Any,
    start_indices: Any,
    dimension_numbers: GatherDimensionNumbers,
    slice_sizes: Axes,
    *,
    unique_indices: bool = False,
    indices_are_sorted: bool = False,
    mode: Any = None,
    fill_value: Any = None,
) -> Any:
    """The windows of ``slice_sizes`` that begin at ``start_indices`` (whose last axis has the places of one window).

    A window that is not inside is moved inside (``mode`` "clip") or full of ``fill_value`` ("fill": NaN, of integers
    the least).
    """
    x, indices = lift(operand), lift(start_indices)
    numbers = GatherDimensionNumbers(*dimension_numbers)
    places = _positions(x.shape, indices, numbers, tuple(slice_sizes), _mode(mode))
    nothing = nothing_of(x.dtype) if fill_value is None else fill_value
    flat = np.concatenate([x.reshape(-1), np.full(1, nothing).astype(x.dtype)])
    order = _order(places.ndim, numbers.offset_dims)
    return np.transpose(flat[places], tuple(numpy.argsort(order).tolist()))


def _scattering(name: str, method: str, doc: str) -> Callable[..., Any]:
    def scattered(
        operand: Any,
        scatter_indices: Any,
        updates: Any,
        dimension_numbers: ScatterDimensionNumbers,
        *,
        indices_are_sorted: bool = False,
        unique_indices: bool = False,
        mode: Any = None,
    ) -> Any:
        x, indices, new = lift(operand), lift(scatter_indices), lift(updates)
        numbers = GatherDimensionNumbers(*dimension_numbers)
        gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
        widths = iter([new.shape[d] for d in numbers.offset_dims])
        sizes = [1 if d in gone else next(widths) for d in range(x.ndim)]
        places = _positions(x.shape, indices, numbers, sizes, _mode(mode))
        flat = np.concatenate([x.reshape(-1), np.zeros(1, x.dtype)])
        ordered = np.transpose(new, tuple(_order(new.ndim, numbers.offset_dims)))
        changed = getattr(At(flat)[places], method)(ordered)
        return changed[: prod(x.shape)].reshape(x.shape)

    scattered.__name__ = scattered.__qualname__ = name
    scattered.__doc__ = f"{doc} in the windows that begin at ``scatter_indices``; repeated ones as often as they occur."
    return own(scattered)


scatter = _scattering("scatter", "set", "A copy of ``operand`` with ``updates``")
scatter_add = _scattering("scatter_add", "add", "A copy of ``operand`` with ``updates`` added")
scatter_sub = _scattering("scatter_sub", "subtract", "A copy of ``operand`` with ``updates`` subtracted")
scatter_mul = _scattering("scatter_mul", "multiply", "A copy of ``operand``, times ``updates``")
scatter_min = _scattering("scatter_min", "min", "A copy of ``operand``, or the lesser ``updates``,")
scatter_max = _scattering("scatter_max", "max", "A copy of ``operand``, or the greater ``updates``,")
