"""Reading and writing parts of tensors.

``extract``, ``update`` and ``update_add`` take an ``index``: one entry for each axis,

- ``"at"``: one position, an ``i64`` operand; the axis goes away;
- ``("slice", size, step)``: ``size`` positions from an ``i64`` operand on, ``step`` apart;
- ``"all"``: the whole axis.

The index operands stand last, in the order of the axes. ``gather``, ``scatter`` and ``scatter_add`` take integer
tensors of one shape, one for each leading axis. Positions must lie inside the tensor: the tracer resolves negative ones
and emits checks. In a sequence the leading entry is ``"at"``, and any position from 0 on is inside.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from dflow.ir.registry import Accumulate, Linear, OpDef, OpTypeError, Sample, define, linear_jvp, require
from dflow.ir.types import ALL, I64, INTEGERS, NUMERIC, Size, TensorType

V = [1.0, 2.0, 3.0, 4.0, 5.0]
M = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
SLICE = ("slice", 2, 2)


def index_result(x: TensorType, index: tuple[Any, ...], starts: Any) -> TensorType:
    """The type of ``x[index]``; checks the index and its operands (their types)."""
    if len(index) != x.rank:
        raise OpTypeError(f"index {index} has {len(index)} entries for {x}, which has {x.rank} axes")
    need = sum(e != "all" for e in index)
    if len(starts) != need:
        raise OpTypeError(f"index {index} needs {need} operands, got {len(starts)}")
    if any(t.shape or t.dtype != I64 for t in starts):
        raise OpTypeError(f"index operands must be i64, got {', '.join(map(str, starts))}")
    require(not x.grows or index[0] == "at", "the first axis of a sequence is indexed one position at a time")
    shape = []
    for size, e in zip(x.shape, index):
        if e == "all":
            shape.append(size)
        elif e != "at":
            require(isinstance(e, tuple) and e[0] == "slice", f"{e!r} is not an index entry")
            require(isinstance(e[1], int | Size) and isinstance(e[2], int) and e[2] != 0, f"bad slice {e}")
            shape.append(e[1])
    return x.with_shape(tuple(shape))


def numpy_index(shape: tuple[int, ...], index: tuple[Any, ...], starts: Any) -> tuple[Any, ...]:
    """The index as NumPy takes it. Raises IndexError when a position lies outside (NumPy would clip a slice)."""
    out: list[Any] = []
    it = iter(int(s) for s in starts)
    for size, e in zip(shape, index):
        if e == "all":
            out.append(slice(None))
            continue
        start = next(it)
        positions = np.asarray(start) if e == "at" else start + e[2] * np.arange(e[1])
        if positions.size and not (positions.min() >= 0 and positions.max() < size):
            raise IndexError(f"position {positions} is outside an axis of size {size}")
        stop = start + (0 if e == "at" else e[1] * e[2])
        out.append(start if e == "at" else slice(start, None if stop < 0 else stop, e[2]))
    return tuple(out)


def _grown(x: Any, position: int) -> Any:
    """A sequence's array with room for ``position``."""
    missing = position + 1 - len(x)
    return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing > 0 else x.copy()


def _extract(attrs: Any, x: Any, *starts: Any) -> Any:
    if attrs.get("grows"):
        x = _grown(x, int(starts[0]))
    return np.array(x[numpy_index(np.shape(x), attrs["index"], starts)])


def _written(attrs: Any, x: Any, starts: Any) -> tuple[Any, Any]:
    y = _grown(x, int(starts[0])) if attrs.get("grows") else np.array(x)
    return y, numpy_index(y.shape, attrs["index"], starts)


def _update(attrs: Any, x: Any, v: Any, *starts: Any) -> Any:
    y, where = _written(attrs, x, starts)
    y[where] = v
    return y


def _update_add(attrs: Any, x: Any, v: Any, *starts: Any) -> Any:
    y, where = _written(attrs, x, starts)
    y[where] += v
    return y


def _extract_infer(attrs: Any, types: Any) -> list[TensorType]:
    return [index_result(types[0], attrs["index"], types[1:])]


def _update_infer(attrs: Any, types: Any) -> list[TensorType]:
    x, v, *starts = types
    part = index_result(x, attrs["index"], starts)
    require(v == part, f"writes {v} where x[index] is {part}")
    return [x]


def _extract_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    starts = xs[1:]
    add = Accumulate(lambda run: b.update_add(run, cts[0], *starts, index=attrs["index"]))
    return [add, *(None for _ in starts)]


def _update_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    (x, v, *starts), index = xs, attrs["index"]
    part = index_result(cts[0].type, index, [s.type for s in starts])
    # The part is read before it is zeroed, so that zeroing can happen in place.
    to_v = b.extract(cts[0], *starts, index=index) if isinstance(v, Linear) else None
    to_x = b.update(cts[0], b.zeros(part), *starts, index=index) if isinstance(x, Linear) else None
    return [to_x, to_v, *(None for _ in starts)]


def _update_add_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    x, v, *starts = xs
    to_v = b.extract(cts[0], *starts, index=attrs["index"]) if isinstance(v, Linear) else None
    return [cts[0] if isinstance(x, Linear) else None, to_v, *(None for _ in starts)]


_READ = lambda n: ((0,),)  # noqa: E731
_WRITE = lambda n: ((0, 1), (0,), (1,))  # noqa: E731
_WRITE_JVP = lambda n: ((0, 1),)  # noqa: E731

define(
    OpDef(
        "extract",
        "x[index]",
        _extract_infer,
        _extract,
        linear_jvp("extract", _READ),
        _extract_transpose,
        _READ,
        ALL,
        cheap=True,
        samples=(
            Sample((V, 3), {"index": ("at",)}, integer=(1,)),
            Sample((V, 1), {"index": (SLICE,)}, integer=(1,)),
            Sample((V, 4), {"index": (("slice", 3, -2),)}, integer=(1,)),
            Sample((M, 1), {"index": ("at", "all")}, integer=(1,)),
            Sample((M, 0, 2), {"index": (("slice", 2, 1), "at")}, integer=(1, 2)),
        ),
    )
)
define(
    OpDef(
        "update",
        "x with x[index] replaced by v",
        _update_infer,
        _update,
        linear_jvp("update", _WRITE_JVP),
        _update_transpose,
        _WRITE,
        ALL,
        samples=(
            Sample((V, 9.0, 3), {"index": ("at",)}, integer=(2,)),
            Sample((V, [8.0, 9.0], 1), {"index": (SLICE,)}, integer=(2,)),
            Sample((M, [7.0, 8.0], 1), {"index": ("all", "at")}, integer=(2,)),
        ),
    )
)
define(
    OpDef(
        "update_add",
        "x with v added to x[index]",
        _update_infer,
        _update_add,
        linear_jvp("update_add", _WRITE_JVP),
        _update_add_transpose,
        _WRITE,
        NUMERIC,
        samples=(
            Sample((V, 9.0, 3), {"index": ("at",)}, integer=(2,)),
            Sample((V, [8.0, 9.0], 1), {"index": (SLICE,)}, integer=(2,)),
            Sample((M, [7.0, 8.0, 9.0], 1), {"index": ("at", "all")}, integer=(2,)),
        ),
    )
)


def gather_result(x: TensorType, indices: Any) -> TensorType:
    require(1 <= len(indices) <= x.rank, f"{x} takes 1 to {x.rank} index tensors, got {len(indices)}")
    for t in indices:
        require(t.dtype in INTEGERS, f"index tensors must be integers, got {t}")
        require(t.shape == indices[0].shape, f"index tensors must have one shape, got {indices[0]} and {t}")
    return x.with_shape((*indices[0].shape, *x.shape[len(indices) :]))


def _inside(x: Any, indices: Any) -> tuple[Any, ...]:
    for size, i in zip(np.shape(x), indices):
        if np.size(i) and not (np.min(i) >= 0 and np.max(i) < size):
            raise IndexError(f"positions {np.min(i)} to {np.max(i)} are not all inside an axis of size {size}")
    return tuple(indices)


def _scatter_infer(attrs: Any, types: Any) -> list[TensorType]:
    x, v, *indices = types
    part = gather_result(x, indices)
    require(v == part, f"writes {v} where the indexed part is {part}")
    return [x]


def _scatter(attrs: Any, x: Any, v: Any, *indices: Any) -> Any:
    y = np.array(x)
    flat = [np.reshape(i, -1) for i in _inside(x, indices)]
    values = np.reshape(v, (len(flat[0]), *y.shape[len(indices) :]))
    for k, where in enumerate(zip(*flat)):  # in order, so that the last one wins
        y[where] = values[k]
    return y


def _scatter_add(attrs: Any, x: Any, v: Any, *indices: Any) -> Any:
    y = np.array(x)
    np.add.at(y, _inside(x, indices), v)
    return y


def _scatter_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    (x, v, *indices), ct = xs, cts[0]
    part = gather_result(ct.type, [i.type for i in indices])
    to_v = None
    if isinstance(v, Linear):
        to_v = b.select(_winners(b, ct.type, part, indices), b.gather(ct, *indices), b.zeros(part))
    to_x = b.scatter(ct, b.zeros(part), *indices) if isinstance(x, Linear) else None
    return [to_x, to_v, *(None for _ in indices)]


def _winners(b: Any, x: TensorType, part: TensorType, indices: Any) -> Any:
    """Which elements of a scattered tensor survive: of several writes to one place, only the last one counts."""
    shape = indices[0].type.shape
    order = _order(b, indices[0].type)
    board = b.zeros(TensorType(I64, x.shape[: len(indices)]))
    kept = b.eq(b.gather(b.scatter(board, order, *indices), *indices), order)
    return b.broadcast(kept, shape=part.shape, dims=tuple(range(len(shape))))


def _order(b: Any, t: TensorType) -> Any:
    """A different number for each position, increasing in row-major order."""
    weight, terms = 1, []
    for axis in reversed(range(t.rank)):
        steps = b.iota(size=t.shape[axis])
        terms.append(b.broadcast(b.mul(steps, weight), shape=t.shape, dims=(axis,)))
        weight *= t.bound[axis]
    return reduce(b.add, terms) if terms else b.index(0)


def _scatter_add_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    x, v, *indices = xs
    to_v = b.gather(cts[0], *indices) if isinstance(v, Linear) else None
    return [cts[0] if isinstance(x, Linear) else None, to_v, *(None for _ in indices)]


def _gather_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    indices = xs[1:]
    return [Accumulate(lambda run: b.scatter_add(run, cts[0], *indices)), *(None for _ in indices)]


define(
    OpDef(
        "gather",
        "x[i, j, ...] for integer tensors i, j, ... of one shape, which index the leading axes",
        lambda attrs, types: [gather_result(types[0], types[1:])],
        lambda attrs, x, *indices: np.array(x[_inside(x, indices)]),
        linear_jvp("gather", _READ),
        _gather_transpose,
        _READ,
        ALL,
        cheap=True,
        samples=(
            Sample((V, [0, 3, 3]), integer=(1,)),
            Sample((M, [1, 0, 1]), integer=(1,)),
            Sample((M, [[1, 0]], [[2, 2]]), integer=(1, 2)),
        ),
    )
)
define(
    OpDef(
        "scatter",
        "x with x[i, j, ...] replaced by v; of several writes to one place the last wins",
        _scatter_infer,
        _scatter,
        linear_jvp("scatter", _WRITE_JVP),
        _scatter_transpose,
        _WRITE,
        ALL,
        samples=(
            Sample((V, [7.0, 8.0, 9.0], [0, 3, 3]), integer=(2,)),
            Sample((M, [[7.0, 8.0, 9.0]], [1]), integer=(2,)),
        ),
    )
)
define(
    OpDef(
        "scatter_add",
        "x with v added to x[i, j, ...]; repeated places add up",
        _scatter_infer,
        _scatter_add,
        linear_jvp("scatter_add", _WRITE_JVP),
        _scatter_add_transpose,
        _WRITE,
        NUMERIC,
        samples=(
            Sample((V, [7.0, 8.0, 9.0], [0, 3, 3]), integer=(2,)),
            Sample((M, [7.0, 8.0], [1, 1], [2, 0]), integer=(2, 3)),
        ),
    )
)
