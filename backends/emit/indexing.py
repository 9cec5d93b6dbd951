"""Reading and writing parts of tensors: an index turns the position in the part into a position in the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from llvmlite import ir

from dflow.backends.emit.collapse import collapsed_kernel, collapsed_part
from dflow.backends.emit.core import Emitter, emits, pointwise
from dflow.backends.emit.moves import add as add_row
from dflow.backends.emit.moves import can_add, is_row
from dflow.backends.emit.moves import move as move_row
from dflow.backends.emit.outline import outlined
from dflow.backends.emit.parts import MOVE, add_in_parts, in_parts
from dflow.backends.emit.rows import held_row, held_rows
from dflow.backends.emit.scalar import convert, emit_scalar
from dflow.backends.emit.types import ZERO, index
from dflow.ir.core import Op, Value
from dflow.ir.types import I64

At = list[ir.Value]
ADDITION = 8  # operations for each element of a scatter


def whole_index(e: Emitter, entries: Sequence[Any], starts: Sequence[Value], at: At) -> At:
    """Where in x the element ``at`` of ``x[index]`` is."""
    start, position, out = iter(starts), iter(at), []
    for entry in entries:
        if entry == "all":
            out.append(next(position))
        elif entry == "at":
            out.append(e.env[next(start)])
        else:
            _, _, step = entry
            out.append(e.add(e.env[next(start)], e.mul(next(position), index(step))))
    return out


@pointwise("extract")
def _extract(e: Emitter, op: Op, at: At) -> ir.Value:
    x, *starts = op.operands
    return e.load(x, whole_index(e, op.attrs["index"], starts, at))


def plain(e: Emitter, x: Value, address: ir.Value, value: ir.Value) -> ir.Value:
    return value


def added(e: Emitter, x: Value, address: ir.Value, value: ir.Value) -> ir.Value:
    return emit_scalar(e.builder, "add", {}, [x.type.dtype] * 2, [e.load_at(x, address), value])


Write = Callable[[Emitter, Value, ir.Value, ir.Value], ir.Value]


def _writer(name: str, write: Write) -> None:
    @emits(name)
    @outlined
    def emit_write(e: Emitter, op: Op) -> None:
        x, v, *starts = op.operands
        if not op.regions and is_row(e, x, v, op.attrs["index"]) and (write is plain or can_add(v.type)):
            zeros = [ZERO] * v.type.rank
            target = e.address(x, whole_index(e, op.attrs["index"], starts, zeros), write=True)
            (move_row if write is plain else add_row)(e, e.address(v, zeros), target, v, x)
            return

        def element(at: At) -> ir.Value:
            if not op.regions:
                return e.load(v, at)
            (region,) = op.regions  # see `emit/direct.py`
            e.env.update(zip(region.args, at))
            for inner in region.ops:
                e.op(inner)
            return e.env[region.results[0]]

        def move(at: At) -> None:
            value = element(at)
            address = e.address(x, whole_index(e, op.attrs["index"], starts, at), write=True)
            e.store_at(x, address, write(e, x, address, value))

        domain = collapsed_part(e, x, v, op.attrs["index"])
        if op.regions:
            domain = domain if collapsed_kernel(e, op) == domain else v.type.shape
            with held_rows(e, op.regions[0], domain):
                in_parts(e, op, domain, ops := e.length(op.regions[0]), lambda d: e.nest(d, move, ops))
            return
        fixed = x.type.grows and op.attrs["index"][0] == "at"
        with held_row(e, x, starts[0], write=True) if fixed else nullcontext():
            in_parts(e, op, domain, MOVE, lambda d: e.nest(d, move))


def gathered_index(e: Emitter, indices: Sequence[Value], at: At) -> At:
    """Where in x the element ``at`` of ``x[i, j, ...]`` is."""
    rank = indices[0].type.rank
    return [convert(e.builder, i.type.dtype, I64, e.load(i, at[:rank])) for i in indices] + at[rank:]


@pointwise("gather")
def _gather(e: Emitter, op: Op, at: At) -> ir.Value:
    x, *indices = op.operands
    return e.load(x, gathered_index(e, indices, at))


def _scatterer(name: str, write: Write) -> None:
    @emits(name)
    def emit_scatter(e: Emitter, op: Op) -> None:
        _, v, *indices = op.operands

        def move(at: At) -> None:
            value = e.load(v, at)
            address = e.address(op.result, gathered_index(e, indices, at), write=True)
            e.store_at(op.result, address, write(e, op.result, address, value))

        if write is added:
            add_in_parts(e, op, v.type.shape, ADDITION, lambda domain: e.nest(domain, move))
        else:
            e.nest(v.type.shape, move)  # in order, so that the last of several writes to one place wins


_writer("update", plain)
_writer("update_add", added)
_scatterer("scatter", plain)
_scatterer("scatter_add", added)
