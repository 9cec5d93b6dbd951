"""Rows of sequences whose address is found once, before the loop that goes over them, and room that is made once.

Every access to a sequence asks whether it reaches as far, and may move it. In a loop over one row, or from row to row,
that would be asked for each element, and nothing could be vectorized.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from dflow.backends.analysis.reserved import ACCESSES
from dflow.backends.emit.core import Emitter
from dflow.backends.emit.types import ZERO, index
from dflow.ir.core import Block, Op, Value, walk
from dflow.ir.passes.linear_forms import Terms, terms
from dflow.ir.passes.rewrite import has_effect
from dflow.ir.types import Dim


@contextmanager
def held_row(e: Emitter, x: Value, start: Value, *, write: bool = False) -> Iterator[None]:
    """While this lasts, the row of ``x`` at ``start`` is where it is now. Nothing else may make ``x`` longer."""
    position = e.env[start]
    with _held(e, [(x, position, e.memory.row(x, position, write=write))] if e.vectorizes else []):
        yield


@contextmanager
def held_rows(e: Emitter, body: Block, sizes: Sequence[Dim | ir.Value]) -> Iterator[None]:
    """The rows that each round of ``body`` reads at positions from around it; ``sizes`` are how often it runs."""
    found = []
    for x, start in _reads(e, body) if e.vectorizes and 0 not in sizes else ():
        position = e.env[start]
        if (e.memory.buffers[x], position) in e.memory.held:
            continue
        for size in sizes:
            if not isinstance(size, int) and not isinstance(size, ir.Constant):
                count = size if isinstance(size, ir.Value) else e.size(size)
                runs = e.builder.icmp_signed(">", count, ZERO)
                position = e.builder.select(runs, position, index(-1))  # which exists always, and is not read
        found.append((x, e.env[start], e.memory.row(x, position, write=False)))
    with _held(e, found):
        yield


@contextmanager
def reserved_rows(e: Emitter, body: Block, first: ir.Value, count: ir.Value) -> Iterator[None]:
    """``count`` rounds of ``body`` from the one with the number ``first`` on, with room made before for the rows that
    each of them reads or writes from position to position. No round may stop at an error."""
    found: dict[tuple[Value, Value], None] = {}
    if e.vectorizes and e.memory.heaps and (rows := _stepping(body)) and not any(map(has_effect, walk(body))):
        b = e.builder
        last = e.add(first, b.sub(count, index(1)))
        for (x, position), place in rows.items():
            if position in e.memory.certain.get(x, ()):
                continue
            found[x, position] = None
            with b.if_then(b.icmp_signed(">", count, ZERO)):
                end = last if place[body.args[0]] > 0 else first
                e.memory.reserve(e.memory.heaps[e.memory.buffers[x]], _sum(e, place, body.args[0], end))
    before = e.memory.reserved
    e.memory.reserved = {**before, **found}
    yield
    e.memory.reserved = before


def _stepping(body: Block) -> dict[tuple[Value, Value], Terms]:
    """Sequences and positions that each round of ``body`` reads or writes: the number of the round, and what is known
    before the loop."""
    inside = {*body.args[1:], *(r for op in body.ops for r in op.results)}
    found = {}
    for op in body.ops:
        if op.name in ACCESSES and op.operands[0].type.grows and op.attrs["index"][0] == "at":
            position = op.operands[1 if op.name == "extract" else 2]
            place = terms(position)
            if body.args[0] in place and inside.isdisjoint(place):
                found[op.operands[0], position] = place
    return found


def _sum(e: Emitter, place: Terms, k: Value, round_: ir.Value) -> ir.Value:
    """The position ``place`` in a round."""
    total: ir.Value = ZERO
    for v, c in place.items():
        number = index(1) if v is None else round_ if v is k else e.env[v]
        total = e.add(total, e.mul(number, index(c)))
    return total


@contextmanager
def _held(e: Emitter, rows: Sequence[tuple[Value, ir.Value, ir.Value]]) -> Iterator[None]:
    if not rows:
        yield
        return
    before = e.memory.held
    e.memory.held = {**before, **{(e.memory.buffers[x], position): row for x, position, row in rows}}
    yield
    e.memory.held = before


def _reads(e: Emitter, body: Block) -> list[tuple[Value, Value]]:
    """Sequences and positions that ``body`` reads, whatever happens in it, and does not change."""
    reads = {(op.operands[0], op.operands[1]): None for op in body.ops if _reads_row(op)}
    if not reads:
        return []
    inside = {*body.args, *(r for op in body.ops for r in op.results)}
    written = {e.memory.buffers.get(r) for op in walk(body) for r in op.results if r.type.grows}
    written |= {e.memory.buffers.get(a) for a in body.args if a.type.grows}
    return [(x, k) for x, k in reads if k not in inside and e.memory.buffers[x] not in written]


def _reads_row(op: Op) -> bool:
    return op.name == "extract" and op.operands[0].type.grows and op.attrs["index"][0] == "at"
