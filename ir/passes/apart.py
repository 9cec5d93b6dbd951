"""Nested loops that could go side by side in the rounds of the loop around: what they take, no other round leaves.

for %n, %zero { (%i, %total) ->                        %s takes nothing that depends on %total, to which the
    %x = extract %xs, %i                               rounds of the outer loop only add
    %s = for %m, %x { (%j, %u) -> ... }
    yield add %total, (mul %s, %s) }
"""

from __future__ import annotations

from collections.abc import Collection

from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.passes.rewrite import UPDATES
from dflow.ir.passes.sums import Sum


def apart(block: Block, linear: Collection[Value]) -> set[Op]:
    """Recurrences and innermost loops in other loops that take nothing, but for what is ``linear``, that depends on
    what these carry other than sums."""
    found = set[Op]()
    for loop in walk(block):
        if loop.name == "for" and any(op.name == "for" for op in walk(loop.regions[0])):
            _find(loop.regions[0], linear, found)
    return found


def _find(body: Block, linear: Collection[Value], found: set[Op]) -> None:
    """Adds those of the loops in ``body``, the region of a loop, that are not in loops inside."""
    sums, states = set[Value](), set[Value]()
    for a, r in zip(body.args[1:], body.results):
        if a not in linear and a is not r:
            total = Sum(a)
            if total.reaches(body, r):
                sums |= total.reached
            else:
                states.add(a)

    def visit(block: Block) -> None:
        for op in block.ops:
            used = {*op.operands, *free_values(*op.regions)} - sums
            if not states.isdisjoint(v for v in used if v not in linear):
                states.update(r for r in op.results if r not in linear)
            elif op.name == "for" and (_is_innermost(op) or _is_recurrence(op, linear)):
                found.add(op)
            if op.name == "if":
                visit(op.regions[0])
                visit(op.regions[1])

    visit(body)


def _is_innermost(loop: Op) -> bool:
    return not any(op.name == "for" for op in walk(loop.regions[0]))


def _is_recurrence(loop: Op, linear: Collection[Value]) -> bool:
    """Whether a round takes numbers that the one before has left."""
    (body,) = loop.regions
    carried = [(a, r) for a, r in zip(body.args[1:], body.results) if a not in linear and a is not r]
    return any(a.type.dtype.is_inexact and not Sum(a).reaches(body, r) and _is_read(body, a) for a, r in carried)


def _is_read(body: Block, a: Value) -> bool:
    """Whether more is done with what is carried than to write to it."""
    states = [a]
    for v in states:
        for op in walk(body):
            if v not in op.operands:
                continue
            if op.name == "for":
                states += [op.regions[0].args[n] for n, x in enumerate(op.operands) if x is v and n]
            elif op.name in UPDATES and v not in op.operands[1:]:
                states.append(op.result)
            else:
                return True
    return False
