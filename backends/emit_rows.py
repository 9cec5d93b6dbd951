"""Rows of sequences whose address is found once, before the loop that goes over them.

Every access to a sequence asks whether it reaches as far, and may move it. In a loop over one row that would be asked
for each element, and nothing could be vectorized.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from dflow.backends.emit_core import Emitter
from dflow.backends.emit_types import ZERO, index
from dflow.ir.core import Block, Op, Value, walk
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
