"""What loops add up. LLVM may do that in another order, as reductions of arrays do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from llvmlite import ir

from dflow.ir.core import Block, Value
from dflow.ir.passes.accumulate import count_uses


def sums(body: Block, carried: Sequence[Value]) -> list[Value]:
    """What a loop only adds up: results of the body that are a carried number plus or minus another.

    Neither has another use, so that no partial sum can be seen, and none is needed to make up for another's error.
    """
    candidates = []
    for arg, total in zip(carried, body.results):
        op = total.op
        if op is not None and arg.type.is_scalar and arg in op.operands[:2]:
            adds = op.name == "add" or (op.name == "sub" and op.operands[0] is arg)
            candidates += [(arg, total)] if adds and op in body.ops else []
    uses = count_uses(body) if candidates else Counter()
    return [total for arg, total in candidates if uses[arg] == uses[total] == 1]


def reassociate(value: ir.Value) -> None:
    """Lets LLVM add in another order, as reductions of arrays do, which is what vectorization takes."""
    if getattr(value, "opname", "") in ("fadd", "fsub"):
        value.flags = [*value.flags, "reassoc"]
