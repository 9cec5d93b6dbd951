"""Rows of kernels, in which most elements lie inside of every window.

    for j in row:                             for j in the edges of row: element(j), asking
        element(j), asking where j is   ->    for j in the rest: element(j), where all the answers are known

So the loop over the rest is one over vectors. A kernel asks by comparing its last index with constants, see
``windows.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llvmlite import ir

from dflow.backends.emit.core import UNROLL_OPS, Domain, Emitter, Part
from dflow.backends.emit.loop_hints import loop_id
from dflow.backends.emit.types import I1, ZERO, index
from dflow.ir.core import Block, Op, Value
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.types import Dim

Element = Callable[[list[ir.Value], Mapping[Op, ir.Value]], None]
LEAST = 0.5  # of a row; where less has known answers, all is asked


@dataclass(frozen=True)
class Split:
    """From ``start`` to ``stop`` of a row, which has ``size`` elements, all that is asked holds."""

    start: int
    stop: int
    size: int
    asked: list[Op]


def row_split(region: Block, domain: Sequence[Dim]) -> Split | None:
    """How the rows of a kernel are split, if they are."""
    if not domain or not isinstance(size := domain[-1], int):
        return None
    asked = [(op, constant_of(op.operands[1])) for op in region.ops if _asks(op, region.args[-1])]
    if not asked:
        return None
    start = max([0, *(c for op, c in asked if op.name == "ge")])
    stop = min([size, *(c for op, c in asked if op.name == "lt")])
    if stop - start < LEAST * size:
        return None
    return Split(start, stop, size, [op for op, _ in asked])


def _asks(op: Op, position: Value) -> bool:
    return op.name in ("ge", "lt") and op.operands[0] is position and constant_of(op.operands[1]) is not None


def split_nest(e: Emitter, split: Split, domain: Domain, element: Element, hints: ir.MDValue | None) -> None:
    """``element(index, answers)`` for every index of ``domain``; ``hints`` are for the loops without edges."""
    row = domain[-1]
    first, stop = (_inside(e, index(edge), row) for edge in (split.start, split.stop))
    length, size = e.sub(stop, first), e.size(row)
    answers = {op: I1(True) for op in split.asked}
    short = loop_id(e.module, ("llvm.loop.vectorize.enable", 0), ("llvm.loop.unroll.disable",))

    def edge(at: list[ir.Value], t: ir.Value) -> None:
        before = e.builder.icmp_signed("<", t, first)
        element([*at, e.position(row, e.builder.select(before, t, e.add(t, length)))], {})

    def whole(at: list[ir.Value]) -> None:
        e.repeat(e.sub(size, length), lambda t: edge(at, t), short)
        e.repeat(length, lambda t: element([*at, e.position(row, e.add(t, first))], answers), hints)

    e.nest(domain[:-1], whole, UNROLL_OPS + 1)


def _inside(e: Emitter, position: ir.Value, row: Dim | Part) -> ir.Value:
    """How far into a row, or a part of one, a position of the row is."""
    if not isinstance(row, Part):
        return position
    b, k = e.builder, e.sub(position, row.begin)
    k = b.select(b.icmp_signed("<", k, ZERO), ZERO, k)
    return b.select(b.icmp_signed("<", k, row.count), k, row.count)
