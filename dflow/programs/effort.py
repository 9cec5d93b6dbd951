"""How much work a program is, roughly: enough to tell whether other threads should run meanwhile."""

from __future__ import annotations

import math

from dflow.ir.core import Block, Function, Op
from dflow.ir.types import TensorType

LONG = 20_000  # numbers computed: some microseconds
UNKNOWN = 100  # iterations that are supposed where their number is not static


def is_long(f: Function) -> bool:
    """Whether a call takes long against the 50 ns that it costs to give Python's lock back and take it again."""
    return _block(f.body) > LONG


def _block(block: Block) -> float:
    return sum(_op(op) for op in block.ops)


def _op(op: Op) -> float:
    if op.name in ("for", "while"):
        source = op.operands[0].op if op.name == "for" else None
        static = source is not None and source.name == "constant"
        return (source.attrs["value"] if static else UNKNOWN) * sum(map(_block, op.regions))  # type: ignore[union-attr]
    inner = sum(map(_block, op.regions))
    if op.name == "matmul":
        return inner + _size(op.result.type) * math.prod(op.operands[0].type.bound[-1:])
    if op.name in ("extract", "update", "update_add"):  # of these only the part counts
        return inner + _size(op.result.type if op.name == "extract" else op.operands[1].type)
    return inner + max((_size(v.type) for v in (*op.operands, *op.results)), default=1)


def _size(t: TensorType) -> float:
    return UNKNOWN if t.grows else math.prod(t.bound)
