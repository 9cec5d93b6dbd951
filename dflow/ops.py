"""Reductions over segments: of all rows with the same number, under the names of ``jax.ops``."""

from __future__ import annotations

from typing import Any

import numpy

from dflow.errors import NeedsStatic, failure
from dflow.ir.types import kind_of
from dflow.numpy.dispatch import own
from dflow.tracing.arrays.lift import contains_traced, lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


def segment_sum(data: Any, segment_ids: Any, num_segments: int | None = None, **hints: Any) -> Any:
    """The sums of the rows of ``data`` with the same number in ``segment_ids``; 0 where there is none.

    Rows whose number is negative, or ``num_segments`` or more, are left out. Without ``num_segments`` it is one more
    than the largest number. What else JAX takes changes nothing. Raises NeedsStatic where the count of segments
    depends on the run.
    """
    return _sum(data, segment_ids, _count(segment_ids, num_segments))


def segment_prod(data: Any, segment_ids: Any, num_segments: int | None = None, **hints: Any) -> Any:
    """The products, as ``segment_sum``; 1 where there is no row."""
    return _prod(data, segment_ids, _count(segment_ids, num_segments))


def segment_max(data: Any, segment_ids: Any, num_segments: int | None = None, **hints: Any) -> Any:
    """The largest elements, as ``segment_sum``; the least number of the dtype where there is no row."""
    return _max(data, segment_ids, _count(segment_ids, num_segments))


def segment_min(data: Any, segment_ids: Any, num_segments: int | None = None, **hints: Any) -> Any:
    """The least elements, as ``segment_sum``; the largest number of the dtype where there is no row."""
    return _min(data, segment_ids, _count(segment_ids, num_segments))


def _count(segment_ids: Any, given: Any) -> int:
    if given is None and not contains_traced(segment_ids):
        return int(numpy.max(segment_ids, initial=-1)) + 1
    if given is None or contains_traced(given):
        raise failure(
            NeedsStatic,
            "the number of segments must be known when the function is compiled",
            seen=f"num_segments={given!r}",
            mend="give num_segments, as a static argument if it is one",
        )
    return int(given)


def _extreme(dtype: Any, sign: int) -> Any:
    if kind_of(dtype) == "f":
        return sign * np.inf
    if kind_of(dtype) == "b":
        return sign > 0
    return numpy.iinfo(dtype).max if sign > 0 else numpy.iinfo(dtype).min


def _segments(data: Any, segment_ids: Any, count: int, ufunc: Any, start: Any) -> Any:
    """One slot more than there are segments takes what is outside."""
    x, ids = lift(data), lift(segment_ids)
    if ids.ndim != 1 or x.shape[:1] != ids.shape:
        raise ValueError(f"segment_ids of shape {ids.shape} for data of shape {x.shape}: one for each row is needed")
    total = lift(numpy.full((count + 1, *x.shape[1:]), start, x.dtype)).copy()
    ufunc.at(total, np.where((ids < 0) | (ids >= count), count, ids), x)
    return total[:count]


@own
def _sum(data: Any, segment_ids: Any, count: int) -> Any:
    return _segments(data, segment_ids, count, np.add, 0)


@own
def _prod(data: Any, segment_ids: Any, count: int) -> Any:
    return _segments(data, segment_ids, count, np.multiply, 1)


@own
def _max(data: Any, segment_ids: Any, count: int) -> Any:
    return _segments(data, segment_ids, count, np.maximum, _extreme(lift(data).dtype, -1))


@own
def _min(data: Any, segment_ids: Any, count: int) -> Any:
    return _segments(data, segment_ids, count, np.minimum, _extreme(lift(data).dtype, 1))


__all__ = ["segment_max", "segment_min", "segment_prod", "segment_sum"]
