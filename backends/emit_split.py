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

from dflow.backends.emit_core import UNROLL_OPS, Emitter
from dflow.backends.emit_types import I1, index
from dflow.backends.loop_hints import loop_id
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


def split_nest(e: Emitter, split: Split, domain: Sequence[Dim], element: Element, hints: ir.MDValue | None) -> None:
    """``element(index, answers)`` for every index of ``domain``; ``hints`` are for the loops without edges."""
    length = index(split.stop - split.start)
    edges = index(split.size - (split.stop - split.start))
    answers = {op: I1(True) for op in split.asked}
    short = loop_id(e.module, ("llvm.loop.vectorize.enable", 0), ("llvm.loop.unroll.disable",))

    def edge(at: list[ir.Value], t: ir.Value) -> None:
        before = e.builder.icmp_signed("<", t, index(split.start))
        element([*at, e.builder.select(before, t, e.add(t, length))], {})

    def row(at: list[ir.Value]) -> None:
        e.repeat(edges, lambda t: edge(at, t), short)
        e.repeat(length, lambda t: element([*at, e.add(t, index(split.start))], answers), hints)

    e.nest(domain[:-1], row, UNROLL_OPS + 1)
