"""NumPy's indices, brought into the steps of ``views``: wrapped, checked, resolved against a shape."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow.errors import NeedsStatic, ShapeError, TraceError, TraceIndexError, failure
from dflow.ir.types import I64
from dflow.tracing import array as _array
from dflow.tracing import lift as _lift
from dflow.tracing.context import builder
from dflow.tracing.views import Gather, Index, Position, Reshape, Step, Transpose


@dataclass(frozen=True)
class Part:
    """Where an index leads: the steps, the shape there, and whether that is a view (or a copy, or one element)."""

    steps: tuple[Step, ...]
    shape: tuple[int, ...]
    basic: bool


@dataclass
class _Axis:
    """What an index says of one axis. ``kind``: at, slice, all, new (no axis yet) or array."""

    kind: str
    start: Any = None
    size: int = 1
    step: int = 1


def resolve(shape: tuple[int, ...], index: Any) -> Part:
    """Where ``x[index]`` leads for an ``x`` of ``shape``."""
    axes = _axes(shape, _expanded(shape, index))
    if any(a.kind == "array" for a in axes):
        return _advanced(axes)
    kept = [a for a in axes if a.kind != "new"]
    steps: list[Step] = [_basic(kept)]
    before = tuple(a.size for a in kept if a.kind != "at")
    after = tuple(a.size for a in axes if a.kind != "at")
    if before != after:
        steps.append(Reshape(before, after))
    return Part(tuple(steps), after, True)


def _expanded(shape: tuple[int, ...], index: Any) -> list[Any]:
    """The index as one entry an axis (and ``None`` for new axes): tuples, Ellipsis and masks spelled out."""
    items: list[Any] = []
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, list):
            item = _lift.stacked(item) if _lift.contains_traced(item) else np.asarray(item, None if item else np.intp)
        items.extend(_mask_indices(item) if _is_mask(item) else [item])
    axes = len(items) - sum(i is None for i in items) - sum(i is Ellipsis for i in items)
    if axes > len(shape):
        raise failure(
            TraceIndexError,
            f"too many indices for array: array is {len(shape)}-dimensional, but {axes} were indexed",
        )
    fill = [slice(None)] * (len(shape) - axes)
    for k, item in enumerate(items):
        if item is Ellipsis:
            return [*items[:k], *fill, *(i for i in items[k + 1 :] if i is not Ellipsis)]
    return items + fill


def _is_mask(item: Any) -> bool:
    return isinstance(item, bool | np.bool_) or (isinstance(item, np.ndarray | _array.Array) and item.dtype == np.bool_)


def _mask_indices(mask: Any) -> list[Any]:
    static = _lift.static_value(mask)
    if static is None:
        raise failure(
            NeedsStatic,
            "how many elements a traced mask selects is not known while tracing",
            seen=f"a mask {mask!r}",
            mend="use np.where(mask, x, 0), or assign through it: x[mask] = value",
        )
    return list(np.nonzero(static)) if static.ndim else [None, np.nonzero(static[None])[0]]


def _axes(shape: tuple[int, ...], items: list[Any]) -> list[_Axis]:
    axes, k = [], 0
    for item in items:
        if item is None:
            axes.append(_Axis("new"))
            continue
        axes.append(_axis(item, k, shape[k]))
        k += 1
    return axes


def _axis(item: Any, axis: int, size: int) -> _Axis:
    if isinstance(item, slice):
        return _slice_axis(item, size)
    if isinstance(item, _array.Array) and item.dtype.kind in "iu":
        static = _lift.static_value(item)
        if item.inside and static is None:
            return _Axis("at", _lift.wrap(item.value, weak=True))
        if item.ndim:
            return _Axis("array", checked_array(item if static is None else static, axis, size))
        return _Axis("at", traced_position(item, axis, size) if static is None else position(int(static), axis, size))
    if isinstance(item, np.ndarray) and item.ndim and item.dtype.kind in "iu":
        return _Axis("array", checked_array(item, axis, size))
    if isinstance(item, _array.Array | float | str) or not hasattr(item, "__index__"):
        raise failure(
            TraceIndexError,
            "only integers, slices, None, Ellipsis, integer arrays and boolean arrays are indices",
            seen=f"{item!r}",
        )
    return _Axis("at", position(operator.index(item), axis, size))


def _slice_axis(item: slice, size: int) -> _Axis:
    bounds = []
    for bound in (item.start, item.stop, item.step):
        static = None if bound is None else _lift.static_value(bound)
        if bound is not None and static is None:
            raise failure(
                NeedsStatic,
                "the bounds of a slice must be known while tracing",
                seen=f"{bound!r}",
                mend="select elements with np.where, or loop over single elements",
            )
        bounds.append(None if static is None else operator.index(static[()]))
    start, stop, step = slice(*bounds).indices(size)
    count = len(range(start, stop, step))
    if (start, step, count) == (0, 1, size):
        return _Axis("all", size=size)
    return _Axis("slice", start if count else 0, count, step)


def position(k: int, axis: int, size: int) -> int:
    """A known position, from the front."""
    if not -size <= k < size:
        raise failure(TraceIndexError, f"index {k} is out of bounds for axis {axis} with size {size}")
    return k % size


def _outside(axis: int, size: int) -> dict[str, str]:
    return {"error": "IndexError", "message": f"index {{0}} is out of bounds for axis {axis} with size {size}"}


def traced_position(index: Any, axis: int, size: int) -> Position:
    """A traced position, from the front, checked when the program runs."""
    b = builder()
    i = _lift.convert(index.value, I64)
    b.check(b.and_(b.ge(i, b.index(-size)), b.lt(i, b.index(size))), i, **_outside(axis, size))
    wrapped = b.select(b.lt(i, b.index(0)), b.add(i, b.index(size)), i)
    return _lift.wrap(wrapped, weak=True)


def checked_array(index: Any, axis: int, size: int) -> Any:
    """An integer array as positions from the front, checked now or when the program runs."""
    if isinstance(index, np.ndarray):
        for k in (index.min(), index.max()) if index.size else ():
            position(int(k), axis, size)
        return _lift.lift(np.where(index < 0, index + size, index).astype(np.int64))
    b = builder()
    i = _lift.convert(index.value, I64)
    if index.size:
        axes = tuple(range(index.ndim))
        low, high = (b.reduce(i, kind=kind, axes=axes) for kind in ("min", "max"))
        low_is_inside = b.ge(low, b.index(-size))
        worst = b.select(low_is_inside, high, low)
        b.check(b.and_(low_is_inside, b.lt(high, b.index(size))), worst, **_outside(axis, size))
    return _lift.wrap(b.select(b.lt(i, 0), b.add(i, size), i))


def _basic(axes: list[_Axis]) -> Index:
    entries = tuple(("slice", a.size, a.step) if a.kind == "slice" else a.kind for a in axes)
    return Index(entries, tuple(a.start for a in axes if a.kind in ("at", "slice")))


def _advanced(axes: list[_Axis]) -> Part:
    """Integer arrays among the entries: slices first, the indexed axes moved to the front, then one gather."""
    for a in axes:
        if a.kind == "at":  # beside an array, an integer is an array of rank 0
            a.kind, a.start = "array", _lift.lift(np.int64(a.start)) if isinstance(a.start, int) else a.start
    arrays = [k for k, a in enumerate(axes) if a.kind == "array"]
    try:
        shape = np.broadcast_shapes(*(axes[k].start.shape for k in arrays))
    except ValueError:
        seen = " ".join(str(axes[k].start.shape) for k in arrays)
        raise failure(ShapeError, f"index arrays could not be broadcast together with shapes {seen}") from None
    kept = [a for a in axes if a.kind != "new"]
    first = [k for k, a in enumerate(kept) if a.kind == "array"]
    others = [k for k, a in enumerate(kept) if a.kind != "array"]
    whole = [_Axis("all") if a.kind == "array" else a for a in kept]
    indices = tuple(_lift.wrap(_lift.broadcast_to(axes[k].start.value, shape)) for k in arrays)
    steps: list[Step] = [_basic(whole), Transpose((*first, *others)), Gather(indices)]
    # NumPy puts the arrays' axes where the arrays stood if those stand together, else in front.
    together = arrays == list(range(arrays[0], arrays[-1] + 1))
    leading = [a.size for a in axes[: arrays[0]] if a.kind != "array"] if together else []
    trailing = [a.size for k, a in enumerate(axes) if a.kind != "array" and not (together and k < arrays[0])]
    moved = sum(a.kind != "new" for a in axes[: arrays[0]]) if together else 0
    n, rest = len(shape), len(others)
    perm = (*range(n, n + moved), *range(n), *range(n + moved, n + rest))
    steps.append(Transpose(perm))
    result = (*leading, *shape, *trailing)
    sizes = (*shape, *(kept[k].size for k in others))
    steps.append(Reshape(tuple(sizes[p] for p in perm), result))
    return Part(tuple(s for s in steps if not _is_identity(s)), result, False)


def _is_identity(step: Step) -> bool:
    if isinstance(step, Transpose):
        return step.perm == tuple(range(len(step.perm)))
    if isinstance(step, Reshape):
        return step.before == step.after
    return isinstance(step, Index) and all(e == "all" for e in step.entries)


def mask_of(index: Any, shape: tuple[int, ...]) -> Any:
    """The mask, when ``index`` is a traced boolean array of the leading axes; else None."""
    if not (isinstance(index, _array.Array) and index.dtype == np.bool_) or _lift.static_value(index) is not None:
        return None
    if index.shape != shape[: index.ndim]:
        raise failure(ShapeError, f"a mask of shape {index.shape} does not fit an array of shape {shape}")
    return index


def refuse_items(kind: str, seen: Any) -> TraceError:
    """The error for a traced index into something that is not an array."""
    return failure(  # type: ignore[return-value]
        NeedsStatic,
        f"a {kind} is indexed by a value that is known only when the program runs",
        seen=f"index {seen!r}",
        mend="make it an array (np.array), or loop over it directly",
    )
