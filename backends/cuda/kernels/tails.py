"""What is left to do with the numbers that a reduction gives, by the thread that has them.

    %s = kernel {reduced = 1, combine = ("sum",)} ...         the last kernel of the sum
    %m = div %s, 1000.0                                       computes %m, too,
    check %ok ...                                             sees whether it is as it should be,
    return %m                                                 and writes the result

so that no kernel of a single thread is launched for that. Only what is cheap, and needs nothing that comes later, is
done there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dflow.backends.cuda.plan import Pointer
from dflow.backends.emit.types import to_storage
from dflow.ir.core import Block, Op, Value

if TYPE_CHECKING:
    from dflow.backends.cuda.context import Context
    from dflow.backends.cuda.kernels.kernel import KernelEmitter


@dataclass
class Tail:
    """The checks that follow a reduction, and the results of the program that are made of it."""

    checks: list[Op] = field(default_factory=list)
    results: list[tuple[Pointer, Value]] = field(default_factory=list)

    @property
    def values(self) -> list[Value]:
        """All numbers that are wanted."""
        return [*(v for op in self.checks for v in op.operands), *(v for _, v in self.results)]


def find_tails(block: Block, context: Context) -> None:
    """Gives the reductions of a block, and of the loops and branches of the host in it, the checks behind them."""
    for k, op in enumerate(block.ops):
        if _gives_numbers(op, context):
            checks = _checks_behind(op, block.ops[k + 1 :], context)
            if checks:
                context.tails.setdefault(op, Tail()).checks = checks
        elif context.ways.get(op) == "host":
            for r in op.regions:
                find_tails(r, context)


def add_result(p: Pointer, v: Value, block: Block, context: Context) -> bool:
    """Lets the last reduction that a result of the program is made of write it; whether there is one."""
    for op in reversed(block.ops):
        if _gives_numbers(op, context) and _leads_to(op, v, context):
            if not _is_at_hand(v, op, block.ops, context):
                return False
            context.tails.setdefault(op, Tail()).results.append((p, v))
            return True
    return False


def _gives_numbers(op: Op, context: Context) -> bool:
    return context.ways.get(op) == "fold" and all(r.type.is_scalar for r in op.results)


def _checks_behind(op: Op, ops: list[Op], context: Context) -> list[Op]:
    found = []
    for o in ops:
        if o.name == "check" and all(_is_at_hand(v, op, (), context) for v in o.operands):
            found.append(o)
        elif not o.results or not all(context.is_repeated(r) for r in o.results):
            break
    return found


def _leads_to(op: Op, v: Value, context: Context) -> bool:
    if v.op is op:
        return True
    return v.op is not None and context.is_repeated(v) and any(_leads_to(op, x, context) for x in v.op.operands)


def _is_at_hand(v: Value, op: Op, ops: object, context: Context) -> bool:
    """Whether a number is known where the results of ``op`` are; other reductions among ``ops`` are done by then."""
    if v.op is op or (not v.type.rank and (v in context.position or v in context.counters)):
        return True
    if v.op is None:
        return False
    if context.is_repeated(v):
        return all(x.type.rank or _is_at_hand(x, op, ops, context) for x in v.op.operands)
    return isinstance(ops, list) and v.op in ops and context.is_stable(v)


def emit_tail(e: KernelEmitter, op: Op) -> None:
    """Writes what is left to do when the results of ``op`` are known."""
    tail, b = e.context.tails.get(op), e.builder
    if tail is None:
        return
    for p, v in tail.results:
        b.store(to_storage(b, v.type.dtype, e.scalar(v)), e.parameters[p])
    if tail.checks:
        outer, e.joined = e.joined, e.new_block("checked")
        for o in tail.checks:
            for v in o.operands:
                e.scalar(v)
            e.op(o)
        b.branch(e.joined)
        b.position_at_end(e.joined)
        e.joined = outer
