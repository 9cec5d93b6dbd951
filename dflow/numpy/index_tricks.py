"""``np.r_`` and ``np.c_``: arrays joined by indexing."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from dflow.numpy import dispatch
from dflow.numpy.creation import arange, linspace
from dflow.numpy.joining import concatenate
from dflow.numpy.shapes import transpose
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, result_dtype, wrap
from dflow.tracing.context import builder


def joined(joiner: Any, index: Any) -> Array:
    """``joiner[index]``: ``np.r_``, ``np.c_``, with or without a directive such as ``'0,2,-1'`` in front.

    Raises ValueError for the directives that give a matrix.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    axis, least, place = joiner.axis, joiner.ndmin, joiner.trans1d
    if items and isinstance(items[0], str):
        axis, least, place = _directive(items.pop(0), axis, least, place)
    arrays = [_part(item, least, place) for item in items]
    dtype = result_dtype(*(lift(_range(x) if isinstance(x, slice) else x) for x in items))
    return concatenate.__wrapped__(arrays, axis, dtype=dtype)


def _directive(text: str, axis: int, least: int, place: int) -> tuple[int, int, int]:
    if text in ("r", "c"):
        raise ValueError(f"np.r_ with the directive {text!r} makes a matrix, which has no traced form; use arrays")
    try:
        numbers = [int(part) for part in text.split(",")]
        return (numbers[0], *numbers[1:], *(least, place)[len(numbers) - 1 :])  # type: ignore[return-value]
    except (ValueError, IndexError):
        raise ValueError(f"unknown special directive {text!r}") from None


def _range(item: slice) -> Any:
    start = 0 if item.start is None else item.start
    step = 1 if item.step is None else item.step
    if isinstance(step, complex):
        return linspace.__wrapped__(start, item.stop, int(abs(step)))
    return arange.__wrapped__(start, item.stop, step)


def _part(item: Any, least: int, place: int) -> Array:
    """One item with at least so many axes; those that it brings come at ``place``."""
    x = lift(_range(item) if isinstance(item, slice) else item)
    added = max(0, least - x.ndim)
    shape = (*(1,) * added, *x.type.shape)
    full = wrap(builder().reshape(x.value, shape=shape)) if added else x
    if not added or place == -1 or not x.ndim:
        return full
    first = place if place >= 0 else place + added + 1
    axes = list(range(least))
    return transpose.__wrapped__(full, axes[:first] + axes[added:] + axes[first:added])


for _joiner in (np.r_, np.c_):
    dispatch.INDEXED[type(_joiner)] = dispatch.located(functools.partial(joined, _joiner))
