"""Buffers of a loop that change places in each round, in place of a copy.

    for %n, %x { (%k, %u) ->
        %v = kernel { ... %u[%i - 1] ... %u[%i + 1] ... }
        %w = copy %v                                          # %u and %w have one buffer, %v has another
        yield %w }

Nothing asks for ``%v`` after the copy, nor, until it is written anew, for its buffer. So the loop goes round with the
addresses of the two buffers exchanged, and after it what it has carried is brought back to where it belongs. Each of
the buffers must have its bytes for itself as long as the loop runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from dflow.backends.lowering.liveness import LOOPS, Interval, Liveness
from dflow.backends.lowering.place import STACK_BYTES
from dflow.backends.lowering.plan import Buffer
from dflow.ir.core import Function, Op, Value, walk


class Set(Protocol):
    """What is asked of a set of values with one buffer."""

    fixed: Buffer | None
    reserved: Interval | None

    def overlaps(self, start: int, end: int) -> Collection[int]: ...


def turning(g: Function, live: Liveness, sets: Mapping[Value, Set]) -> dict[Op, list[Op]]:
    """The copies, by the loops around them, that need only exchange addresses. Their sets are reserved there."""
    found: dict[Op, list[Op]] = {}
    for loop in walk(g.body):
        if loop.name not in LOOPS:
            continue
        copies = [op for op in loop.regions[-1].ops if op.name == "copy" and _exchanges(op, live, sets)]
        if copies:
            found[loop] = copies
        for s in (sets[v] for op in copies for v in (*op.operands, op.result)):
            start, end = live.span[loop]
            before = s.reserved or (start, end)
            s.reserved = min(start, before[0]), max(end, before[1])
    return found


def _exchanges(copy: Op, live: Liveness, sets: Mapping[Value, Set]) -> bool:
    (x,) = copy.operands
    if not x.type.rank or not x.type.is_static or sets[x] is sets[copy.result]:
        return False
    if Buffer(x.type, "arena").bytes <= STACK_BYTES or (x.op is not None and x.op.name == "empty"):
        return False
    places = [s.fixed for s in (sets[x], sets[copy.result])]
    _, end = live.span[copy]
    return all(b is None or b.space == "result" for b in places) and not sets[x].overlaps(end, end + 1)
