"""NumPy's indices, brought into the steps of ``views``: wrapped, checked, resolved against a shape."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow.errors import NeedsStatic, TraceError, TraceIndexError, failure
from dflow.ir.types import I64, Dim
from dflow.tracing.arrays import array as _array
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import masks, sizes
from dflow.tracing.arrays.sizes import Shape
from dflow.tracing.arrays.views import Gather, Index, Position, Reshape, Step, Transpose
from dflow.tracing.arrays.windows import window
from dflow.tracing.context import builder


@dataclass(frozen=True)
class Part:
    """Where an index leads: the steps, the shape there, and whether that is a view (or a copy, or one element)."""

    steps: tuple[Step, ...]
    shape: Shape
    basic: bool


@dataclass
class _Axis:
    """What an index says of one axis. ``kind``: at, slice, stride (a slice with a traced step), all, new (no axis yet)
    or array."""

    kind: str
    start: Any = None
    size: Dim = 1
    step: Any = 1


def resolve(shape: Shape, index: Any) -> Part:
    """Where ``x[index]`` leads for an ``x`` of ``shape``."""
    items = _expanded(shape, index)
    if any(isinstance(i, _Truth) for i in items):
        return _with_truths(shape, items)
    axes = _axes(shape, items)
    if any(a.kind == "array" for a in axes):
        return _advanced(axes)
    if any(a.kind == "stride" for a in axes):
        return _strided(axes)
    kept = [a for a in axes if a.kind != "new"]
    steps: list[Step] = [_basic(kept)]
    before = tuple(a.size for a in kept if a.kind != "at")
    after = tuple(a.size for a in axes if a.kind != "at")
    if before != after:
        steps.append(Reshape(before, after))
    return Part(tuple(steps), after, True)


@dataclass(frozen=True)
class _Truth:
    """A truth value among the indices: a mask of a new axis of size 1. ``positions`` are those where it holds."""

    positions: Any


def _with_truths(shape: Shape, items: list[Any]) -> Part:
    rest = iter(shape)
    wider = tuple(1 if isinstance(i, _Truth) else next(rest) for i in items if i is not None)
    part = _advanced(_axes(wider, [i.positions if isinstance(i, _Truth) else i for i in items]))
    return Part((Reshape(shape, wider), *part.steps), part.shape, False)


def _expanded(shape: Shape, index: Any) -> list[Any]:
    """The index as one entry an axis (and ``None`` for new axes): tuples, Ellipsis and masks spelled out."""
    items: list[Any] = []
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, list | tuple):
            item = _lift.stacked(item) if _lift.contains_traced(item) else np.asarray(item, None if item else np.intp)
        if _is_mask(item):
            items.extend(_mask_indices(item, shape[_taken(items, shape) :]))
        else:
            items.append(item)
    if sum(i is Ellipsis for i in items) > 1:
        raise failure(TraceIndexError, "an index can only have a single ellipsis ('...')")
    axes = sum(_takes_axis(i) for i in items)
    if axes > len(shape):
        raise failure(
            TraceIndexError,
            f"too many indices for array: array is {len(shape)}-dimensional, but {axes} were indexed",
        )
    fill = [slice(None)] * (len(shape) - axes)
    for k, item in enumerate(items):
        if item is Ellipsis:
            return [*items[:k], *fill, *items[k + 1 :]]
    return items + fill


def _takes_axis(item: Any) -> bool:
    return not (item is None or item is Ellipsis or isinstance(item, _Truth))


def _is_mask(item: Any) -> bool:
    return isinstance(item, bool | np.bool_) or (isinstance(item, np.ndarray | _array.Array) and item.dtype == np.bool_)


def _taken(items: list[Any], shape: Shape) -> int:
    """How many axes the entries before a mask take (a mask behind an Ellipsis is fitted when it is used)."""
    return len(shape) if any(i is Ellipsis for i in items) else sum(map(_takes_axis, items))


def _mask_indices(mask: Any, shape: Shape) -> list[Any]:
    static = _lift.static_value(mask)
    if static is None and not mask.ndim:
        return [_Truth(*masks.nonzero(builder().reshape(mask.value, shape=(1,))))]
    if static is None:
        if len(shape) < mask.ndim:
            return masks.nonzero(mask.value)
        fitted = masks.fitted(mask, shape)
        # Masks of one axis by themselves, as masks of arrays of other (equal) sizes give the same positions.
        return masks.inside(masks.nonzero(mask.value if mask.ndim == 1 else fitted), shape)
    return list(np.nonzero(static)) if static.ndim else [_Truth(*np.nonzero(static[None]))]


def _axes(shape: Shape, items: list[Any]) -> list[_Axis]:
    axes, k = [], 0
    for item in items:
        if item is None:
            axes.append(_Axis("new"))
            continue
        axes.append(_axis(item, k, shape[k]))
        k += 1
    return axes


def _axis(item: Any, axis: int, size: Dim) -> _Axis:
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
            mend="divide integers by `//`, or convert: x[int(i)], x[indices.astype(int)]",
        )
    return _Axis("at", position(operator.index(item), axis, size))


def _slice_axis(item: slice, size: Dim) -> _Axis:
    w = window(item, size)
    if w.start == 0 and w.step == 1 and sizes.same(w.size, size):
        return _Axis("all", size=size)
    start = w.start if isinstance(w.start, int) else _lift.wrap(w.start, weak=True)
    return _Axis("slice" if isinstance(w.step, int) else "stride", start, w.size, w.step)


def position(k: int, axis: int, size: Dim) -> Position:
    """A known position, from the front."""
    if not isinstance(size, int):
        return traced_position(_lift.lift(k), axis, size)
    if not -size <= k < size:
        raise failure(TraceIndexError, f"index {k} is out of bounds for axis {axis} with size {size}")
    return k % size


def _outside(axis: int, size: Dim) -> dict[str, str]:
    shown = str(size) if isinstance(size, int) else "{1}"
    return {"error": "IndexError", "message": f"index {{0}} is out of bounds for axis {axis} with size {shown}"}


def traced_position(index: Any, axis: int, size: Dim) -> Position:
    """A traced position, from the front, checked when the program runs unless it is known to lie inside."""
    at = sizes.number(index)
    if sizes.at_most(0, at) and sizes.below(at, sizes.int_of(size)):
        return at if isinstance(at, int) else _lift.wrap(at, weak=True)
    b = builder()
    i, n = b.index(at), b.size(size)
    details = [i] if isinstance(size, int) else [i, n]
    low = b.index(-size) if isinstance(size, int) else b.neg(n)
    b.check(b.and_(b.ge(i, low), b.lt(i, n)), *details, **_outside(axis, size))
    wrapped = b.select(b.lt(i, b.index(0)), b.add(i, n), i)
    return _lift.wrap(wrapped, weak=True)


def checked_array(index: Any, axis: int, size: Dim) -> Any:
    """An integer array as positions from the front, checked now or when the program runs."""
    if isinstance(index, np.ndarray) and isinstance(size, int):
        for k in (index.min(), index.max()) if index.size else ():
            position(int(k), axis, size)
        return _lift.lift(np.where(index < 0, index + size, index).astype(np.int64))
    b = builder()
    i = _lift.convert(_lift.lift(index).value, I64)
    if masks.is_inside(i, size):
        return _lift.wrap(i)
    n = b.size(size)
    if i.type.is_static and 0 not in i.type.shape:
        axes = tuple(range(i.type.rank))
        low, high = (b.reduce(i, kind=kind, axes=axes) for kind in ("min", "max"))
        low_is_inside = b.ge(low, b.index(-size) if isinstance(size, int) else b.neg(n))
        worst = b.select(low_is_inside, high, low)
        details = [worst] if isinstance(size, int) else [worst, n]
        b.check(b.and_(low_is_inside, b.lt(high, n)), *details, **_outside(axis, size))
    elif not i.type.is_static:
        many = b.broadcast_scalar(n, i.type.shape)
        inside = b.and_(b.ge(i, b.neg(many)), b.lt(i, many))
        ok = b.reduce(inside, kind="all", axes=tuple(range(i.type.rank)))
        b.check(ok, n, error="IndexError", message=f"an index is out of bounds for axis {axis} with size {{0}}")
    return _lift.wrap(b.select(b.lt(i, 0), b.add(i, b.broadcast_scalar(n, i.type.shape)), i))


def _basic(axes: list[_Axis]) -> Index:
    entries = tuple(("slice", a.size, a.step) if a.kind == "slice" else a.kind for a in axes)
    return Index(entries, tuple(a.start for a in axes if a.kind in ("at", "slice")))


def _advanced(axes: list[_Axis]) -> Part:
    """Integer arrays among the entries: slices first, the indexed axes moved to the front, then one gather."""
    for a in axes:
        if a.kind == "stride":
            raise failure(
                NeedsStatic,
                "a slice with a traced step beside an index array",
                mend="take the slice first: x[a:b:k][indices]",
            )
        if a.kind == "at":  # beside an array, an integer is an array of rank 0
            a.kind, a.start = "array", _lift.lift(np.int64(a.start)) if isinstance(a.start, int) else a.start
    arrays = [k for k, a in enumerate(axes) if a.kind == "array"]
    shapes = [axes[k].start.type.shape for k in arrays]
    shape = sizes.joint(*shapes)
    if shape is None:
        seen = " ".join(map(sizes.show, shapes))
        raise failure(TraceIndexError, f"index arrays could not be broadcast together with shapes {seen}")
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
    found = (*shape, *(kept[k].size for k in others))
    steps.append(Reshape(tuple(found[p] for p in perm), result))
    return Part(tuple(s for s in steps if not _is_identity(s)), result, False)


def _strided(axes: list[_Axis]) -> Part:
    """Slices whose step is known only when the program runs: the positions one by one, one axis after the other."""
    kept = [a for a in axes if a.kind != "new"]
    steps: list[Step] = [_basic([_Axis("all") if a.kind == "stride" else a for a in kept])]
    rest = [a for a in kept if a.kind != "at"]
    for k, a in enumerate(rest):
        if a.kind == "stride":
            order = (k, *(j for j in range(len(rest)) if j != k))
            steps += [Transpose(order), Gather((_positions(a),)), Transpose(tuple(map(order.index, range(len(rest)))))]
    before, after = tuple(a.size for a in rest), tuple(a.size for a in axes if a.kind != "at")
    steps.append(Reshape(before, after))
    return Part(tuple(s for s in steps if not _is_identity(s)), after, True)


def _positions(a: _Axis) -> Any:
    b, shape = builder(), (a.size,)
    moved = b.mul(b.iota(size=a.size), b.broadcast_scalar(a.step, shape))
    start = b.index(a.start) if isinstance(a.start, int) else a.start.value
    return _lift.wrap(b.add(moved, b.broadcast_scalar(start, shape)))


def _is_identity(step: Step) -> bool:
    if isinstance(step, Transpose):
        return step.perm == tuple(range(len(step.perm)))
    if isinstance(step, Reshape):
        return step.before == step.after
    return isinstance(step, Index) and all(e == "all" for e in step.entries)


def mask_of(index: Any, shape: Shape) -> Any:
    """The mask, when ``index`` is a traced boolean array of the leading axes; else None."""
    if not (isinstance(index, _array.Array) and index.dtype == np.bool_) or _lift.static_value(index) is not None:
        return None
    return _lift.wrap(masks.fitted(index, shape))


def refuse_items(kind: str, seen: Any) -> TraceError:
    """The error for a traced index into something that is not an array."""
    return failure(  # type: ignore[return-value]
        NeedsStatic,
        f"a {kind} is indexed by a value that is known only when the program runs",
        seen=f"index {seen!r}",
        wanted="an array, or a list of numbers of one type or of tuples of such; in a loop, a list of such lists",
        mend="make it an array (np.array) or its numbers alike (1.0, not 1, among floats), or loop over it directly",
    )
