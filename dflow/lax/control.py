"""Control flow as functions.

They are written as a user would write them, in plain Python, which is traced like any other. So all of them can be
differentiated in both modes, ``while_loop`` too, and outside of traces they just run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dflow import trees
from dflow.errors import NeedsStatic, TraceError, failure
from dflow.ir.types import kind_of
from dflow.shapes import ShapeDtypeStruct, eval_shape, shape_of
from dflow.tracing.arrays.lift import contains_traced
from dflow.tracing.context import tracing
from dflow.transforms.custom import stop_gradient
from dflow.transforms.recompute import checkpoint as checkpointed
from dflow.transforms.revolve import revolved

Function = Callable[..., Any]


def cond(pred: Any, true_fun: Function, false_fun: Function, *operands: Any) -> Any:
    """``true_fun(*operands)`` where ``pred`` holds, otherwise ``false_fun(*operands)``; one of them is computed."""
    if pred:
        result = true_fun(*operands)
    else:
        result = false_fun(*operands)
    return result


def switch(index: Any, branches: Sequence[Function], *operands: Any) -> Any:
    """``branches[index](*operands)``; an index outside counts as the nearest one inside."""
    if not branches:
        raise failure(TraceError, "switch needs at least one branch")
    return _branch(index, tuple(branches), 0, operands)


def _branch(index: Any, branches: tuple[Function, ...], first: int, operands: tuple[Any, ...]) -> Any:
    if len(branches) == 1:
        return branches[0](*operands)
    half = len(branches) // 2
    if index < first + half:
        result = _branch(index, branches[:half], first, operands)
    else:
        result = _branch(index, branches[half:], first + half, operands)
    return result


def while_loop(cond_fun: Function, body_fun: Function, init_val: Any) -> Any:
    """``val = body_fun(val)``, from ``init_val`` on, as long as ``cond_fun(val)`` holds."""
    val = init_val
    while cond_fun(val):
        val = body_fun(val)
    return val


def fori_loop(lower: Any, upper: Any, body_fun: Function, init_val: Any, *, unroll: Any = None) -> Any:
    """``val = body_fun(i, val)``, from ``init_val`` on, for ``i`` from ``lower`` to ``upper - 1``.

    ``unroll`` is there for programs of JAX, and changes nothing: LLVM decides.
    """
    val = init_val
    for i in range(lower, upper):
        val = body_fun(i, val)
    return val


def map(f: Function, xs: Any, *, batch_size: int | None = None) -> Any:
    """``f`` of each slice of the arrays in ``xs`` along axis 0, one after the other; the results stacked.

    ``batch_size`` is there for programs of JAX, and changes nothing.
    """
    return scan(lambda carry, x: (carry, f(x)), (), xs)[1]


def scan(
    f: Function,
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    checkpoint: bool | int | Sequence[int] = False,
    snapshots: int | None = None,
    *,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """``carry, y = f(carry, x)`` for each slice ``x`` of the arrays in ``xs`` along axis 0, from ``init`` on.

    Returns the last carry and the ``y`` stacked. Without ``xs``, ``length`` says how often. ``reverse`` starts at the
    end; the results stand in the order of ``xs``.

    ``checkpoint`` saves memory in reverse mode: of every segment of so many iterations, the carry at its start alone is
    kept, and the segment is run again when its reverse is due. True takes the square root of the length, so that
    memory grows with that; several numbers are segments of segments (the outermost first), each level one more run.

    ``snapshots`` is a budget instead: so many carries are kept at a time, and iterations are run again as few times as
    that allows: at most ``r`` times each where ``C(snapshots + r, r)`` is the length (with 20: twice for 231, three
    times for 1,771, four times for 10,626).

    ``unroll`` is there for programs of JAX, and changes nothing.

    Raises TraceError when the lengths do not agree.
    """
    for name, x in (("length", length), ("checkpoint", checkpoint), ("snapshots", snapshots)):
        _require_known(name, x)
    leaves, spec = trees.flatten(xs)
    n = _length(leaves, length)
    levels = _levels(checkpoint, n)
    _require_budget(snapshots, checkpoint)

    def item(i: Any) -> Any:
        return trees.unflatten(spec, [x[i] for x in leaves])

    if not tracing():
        return _scan_now(f, init, item, n, reverse, [shape_of(x, 0) for x in leaves], spec)
    slices = trees.unflatten(spec, [shape_of(x, 0) for x in leaves])
    init, ys = _settled(f, init, slices)
    if snapshots is not None and n > 0:
        return revolved(f, init, xs, ys, n, snapshots, lambda k: n - 1 - k if reverse else k)
    types, out_spec = trees.flatten(ys)

    def run(carry: Any, first: Any, count: int, levels: tuple[int, ...]) -> tuple[Any, list[Any]]:
        """``count`` iterations from number ``first`` on; the results in the order of ``xs``."""
        tables = [np.zeros((count, *t.shape), t.dtype) for t in types]
        if not levels:
            for k in range(count):
                at = n - 1 - (first + k) if reverse else first + k
                place = count - 1 - k if reverse else k
                carry, y = f(carry, item(at))
                _store(tables, trees.flatten(y)[0], place)
            return carry, tables
        size = max(1, min(levels[0], count))
        segment = checkpointed(lambda carry, first: run(carry, first, size, levels[1:]))
        for s in range(count // size):
            carry, parts = segment(carry, first + s * size)
            place = count - (s + 1) * size if reverse else s * size
            _store_segment(tables, parts, place, size)
        rest = count % size
        if rest:
            last = checkpointed(lambda carry, first: run(carry, first, rest, levels[1:]))
            carry, parts = last(carry, first + (count - rest))
            _store_segment(tables, parts, 0 if reverse else count - rest, rest)
        return carry, tables

    carry, tables = run(init, 0, n, levels)
    return carry, trees.unflatten(out_spec, tables)


def _store(tables: list[Any], parts: list[Any], place: Any) -> None:
    for table, part in zip(tables, parts):
        table[place] = part


def _store_segment(tables: list[Any], parts: list[Any], place: Any, size: int) -> None:
    for table, part in zip(tables, parts):
        table[place : place + size] = part


def _require_known(name: str, x: Any) -> None:
    if contains_traced(x):
        raise failure(
            NeedsStatic,
            f"scan needs a {name} that is known while tracing",
            seen=repr(x),
            mend=f"make the {name} a static argument (static_argnames), or write a `for` loop, which takes any length",
        )


def _length(leaves: Sequence[Any], length: int | None) -> int:
    lengths = {np.shape(x)[0] if np.ndim(x) else None for x in leaves} | ({length} if length is not None else set())
    if len(lengths) == 1 and None not in lengths:
        (n,) = lengths
        return int(n)  # type: ignore[arg-type]
    raise failure(
        TraceError,
        "scan needs arrays of one length along axis 0, or a length",
        seen=", ".join(str(np.shape(x)) for x in leaves) + (f", length={length}" if length is not None else ""),
        mend="pass what is not scanned over by a closure, or in the carry",
    )


def _levels(checkpoint: bool | int | Sequence[int], n: int) -> tuple[int, ...]:
    """The lengths of segments, the outermost first."""
    if checkpoint is True:
        return (max(1, math.isqrt(n)),)
    sizes = () if checkpoint is False else (checkpoint,) if isinstance(checkpoint, int) else tuple(checkpoint)
    if all(isinstance(s, int) and s > 0 for s in sizes):
        return sizes
    raise failure(TraceError, "checkpoint must be True or lengths of segments", seen=repr(checkpoint))


def _require_budget(snapshots: Any, checkpoint: Any) -> None:
    if snapshots is None or (isinstance(snapshots, int) and snapshots > 0 and checkpoint is False):
        return
    raise failure(
        TraceError,
        "snapshots must be the number of carries that may be kept, 1 or more, and goes without checkpoint",
        seen=f"snapshots={snapshots!r}, checkpoint={checkpoint!r}",
    )


def _settled(f: Function, init: Any, x: Any) -> tuple[Any, Any]:
    """``init`` in the dtypes that the carry comes to have, and the types of the stacked results."""
    for _ in range(8):
        made = eval_shape(f, init, x)
        if not (isinstance(made, tuple | list) and len(made) == 2):
            raise failure(TraceError, "the function of scan must return a pair: carry and result", seen=f"{made}")
        carry, ys = made
        before, spec = trees.flatten(init)
        after, other = trees.flatten(carry)
        shapes = [np.shape(b) == a.shape for b, a in zip(before, after)]
        if spec != other or not all(shapes):
            raise failure(
                TraceError,
                "the function of scan must return a carry of the structure and shapes that it was given",
                seen=f"{carry}",
                wanted=f"{trees.map_leaves(shape_of, init)}",
            )
        wider = [np.result_type(_weak_or_dtype(b), a.dtype) for b, a in zip(before, after)]
        if all(shape_of(b).dtype == w for b, w in zip(before, wider)):
            break
        init = trees.unflatten(
            spec, [np.asarray(b).astype(w) if _is_plain(b) else b.astype(w) for b, w in zip(before, wider)]
        )
    return init, ys


def _is_plain(x: Any) -> bool:
    return isinstance(x, int | float | bool)


def _weak_or_dtype(x: Any) -> Any:
    """What stands for ``x`` in ``np.result_type``: a Python number is weak."""
    weak = getattr(x, "weak", isinstance(x, int | float) and not isinstance(x, bool | np.generic))
    return (0.0 if kind_of(shape_of(x).dtype) == "f" else 0) if weak else shape_of(x).dtype


def _scan_now(
    f: Function, init: Any, item: Function, n: int, reverse: bool, types: list[ShapeDtypeStruct], spec: trees.Spec
) -> tuple[Any, Any]:
    """The same outside of traces."""
    carry, rows = init, []
    for k in reversed(range(n)) if reverse else range(n):
        carry, y = f(carry, item(k))
        rows.append(y)
    if not rows:
        ys = eval_shape(f, init, trees.unflatten(spec, types))[1]
        return carry, trees.map_leaves(lambda t: np.zeros((0, *t.shape), t.dtype), ys)
    if reverse:
        rows.reverse()
    return carry, trees.map_leaves(lambda *parts: np.stack(parts), *rows)


def associative_scan(fn: Function, elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """The running results of an associative function of two trees: ``r[0] = e[0]``, ``r[k] = fn(r[k-1], e[k])``.

    ``fn`` is given slices of length 1 along ``axis``. ``reverse`` starts at the end.
    """
    leaves, spec = trees.flatten(elems)
    moved = [np.moveaxis(x, axis, 0) for x in leaves]
    n = _length(moved, None)
    if n == 0:
        return elems

    def item(i: Any) -> Any:
        return trees.unflatten(spec, [np.expand_dims(x[i], axis) for x in moved])

    def step(carry: Any, k: Any) -> tuple[Any, Any]:
        total = fn(carry, item(k))
        return total, total

    first = item(n - 1 if reverse else 0)
    order = np.arange(n - 1) if reverse else np.arange(1, n)
    _, rest = scan(step, first, order, reverse=reverse)
    joined = []
    for a, b in zip(trees.flatten(first)[0], trees.flatten(rest)[0]):
        parts = (np.moveaxis(b, axis + 1 if axis >= 0 else axis, 1)[:, 0], np.moveaxis(a, axis, 0))
        joined.append(np.moveaxis(np.concatenate(parts if reverse else parts[::-1]), 0, axis))
    return trees.unflatten(spec, joined)


__all__ = ["associative_scan", "cond", "fori_loop", "map", "scan", "stop_gradient", "switch", "while_loop"]
