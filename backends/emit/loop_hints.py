"""What LLVM is told about loops that it would otherwise spoil.

A short loop of known length is unrolled before loops are vectorized, and what straight-line vectorization then makes
of it is poor where numbers are added up. So such a loop, when it clearly can be vectorized, is asked to stay one until
then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from dflow.backends.analysis.reserved import ACCESSES
from dflow.backends.emit.core import Domain, Emitter, Part
from dflow.ir.core import Block, Op, Value
from dflow.ir.passes.linear_forms import terms
from dflow.ir.registry import definition
from dflow.ir.types import Dim

SHORTEST, LONGEST = 8, 64  # iterations
VECTOR_BYTES = 32
TINY = 16  # below, LLVM masks the rest of vectors twice as wide, and what is stored under a mask is slow to be read


def hints(e: Emitter, body: Block, count: ir.Value, sums: Sequence[Value]) -> ir.MDValue | None:
    """The metadata for the loop around ``body``; ``sums`` are the numbers that it adds up."""
    if not e.vectorizes:
        return e.hints(body, count)
    carried = [(a, r) for a, r in zip(body.args[1:], body.results) if a.type.is_scalar and a is not r]
    trips = count.constant if isinstance(count, ir.Constant) else None
    return _hints(e, body, body.args[0], trips) if len(carried) == len(sums) else None


def nest_hints(e: Emitter, body: Block, domain: Domain) -> ir.MDValue | None:
    """The metadata for the innermost loop of a nest over ``domain``."""
    return _hints(e, body, body.args[-1], domain[-1]) if domain else None


def _hints(e: Emitter, body: Block, k: Value, trips: Dim | Part | None) -> ir.MDValue | None:
    if (
        not e.vectorizes
        or not isinstance(trips, int)
        or not SHORTEST <= trips <= LONGEST
        or not all(_is_plain(op, k) for op in body.ops)
    ):
        return None
    sizes = [r.type.dtype.itemsize for op in body.ops for r in op.results if r.type.dtype.is_inexact]
    width = VECTOR_BYTES // max(sizes, default=VECTOR_BYTES)
    if width < 2 or trips % width or (2 * width < trips < TINY and trips % (2 * width)):
        return None
    interleaved = next((n for n in (4, 2) if trips % (2 * width * n) == 0), 1)
    # Not the width: LLVM says on standard error when it cannot do what it is asked for.
    return loop_id(e.module, ("llvm.loop.unroll.disable",), ("llvm.loop.interleave.count", interleaved))


def _is_plain(op: Op, k: Value) -> bool:
    """Whether an operation can be one on vectors: arithmetic, or an access that is contiguous or stays in its place."""
    if op.name == "constant":
        return True
    if op.name not in ACCESSES:
        return not op.regions and definition(op).elementwise and all(r.type.is_scalar for r in op.results)
    if any(entry != "at" for entry in op.attrs["index"]) or op.operands[0].type.grows:
        return False
    *others, last = (terms(s).get(k, 0) for s in op.operands[1 if op.name == "extract" else 2 :])
    return not any(others) and (last == 1 or (op.name == "extract" and not last))


def vector_loop(
    e: Emitter, rounds: int, inits: Sequence[ir.Value], body: Callable[..., Sequence[ir.Value]]
) -> list[ir.Value]:
    """A loop of so many rounds, which LLVM makes one of vectors with as many numbers; see `Emitter.loop`.

    That has to be possible, or LLVM says on standard error that it is not. No round may touch what another has written.
    """
    others, group = {*e.function.blocks}, _Group(e.module, [], name=str(len(e.module.metadata)))
    hints = loop_id(
        e.module,
        ("llvm.loop.parallel_accesses", group),
        ("llvm.loop.vectorize.width", rounds),
        ("llvm.loop.interleave.count", 1),
        ("llvm.loop.unroll.disable",),
    )
    made = e.loop(ir.IntType(64)(rounds), inits, body, hints=hints)
    for block in e.function.blocks:
        for instruction in () if block in others else block.instructions:
            if instruction.opname in ("load", "store"):
                instruction.set_metadata("llvm.access.group", group)
    return made


class _LoopId(ir.MDValue):
    """Metadata that names itself, so that no two loops have the same."""

    def descr(self, buf: list[str]) -> None:
        operands = ", ".join(x.get_reference() for x in (self, *self.operands))
        buf.append(f"distinct !{{ {operands} }}\n")


class _Group(ir.MDValue):
    """A name for loads and stores of which a loop may say that they do not meet from round to round; like no other."""

    __eq__, __hash__ = object.__eq__, object.__hash__

    def descr(self, buf: list[str]) -> None:
        buf.append("distinct !{ }\n")


def loop_id(module: ir.Module, *properties: tuple[str | int | ir.MDValue, ...]) -> ir.MDValue:
    nodes = []
    for name, *given in properties:
        values = [v if isinstance(v, ir.MDValue) else ir.IntType(32)(v) for v in given]
        nodes.append(module.add_metadata([ir.MetaDataString(module, name), *values]))
    return _LoopId(module, nodes, name=str(len(module.metadata)))
