"""Which values depend on given ones, through numbers that can carry a derivative.

Used twice: values that depend on the inputs of interest are *active* and get tangents; values that depend on tangents
are *linear* and belong to the linear part.
"""

from __future__ import annotations

from collections.abc import Iterable

from dflow.ir.core import Block, Op, Value


def dependents(block: Block, seeds: Iterable[Value]) -> set[Value]:
    """The inexact values in ``block`` (and in regions inside) that depend on ``seeds``, which are included.

    A loop is visited until nothing new turns up: a carried value depends when its initial or its yielded value does.
    """
    found = set(seeds)
    _visit(block, found)
    return found


def _mark(values: Iterable[Value], found: set[Value]) -> None:
    found.update(v for v in values if v.type.dtype.is_inexact)


def _visit(block: Block, found: set[Value]) -> None:
    for op in block.ops:
        if op.name == "if":
            for region in op.regions:
                _visit(region, found)
            for r, *yields in zip(op.results, *(region.results for region in op.regions)):
                if any(y in found for y in yields):
                    _mark([r], found)
        elif op.name in ("for", "while"):
            _visit_loop(op, found)
        elif any(v in found for v in op.operands) and not (op.name == "custom" and op.attrs["rule"].constant):
            _mark(op.results, found)


def _visit_loop(op: Op, found: set[Value]) -> None:
    body = op.regions[-1]
    carried, inits = carried_values(op)
    while True:
        for arg, init, end in zip(carried, inits, body.results):
            if init in found or end in found:
                _mark([arg], found)
        before = len(found)
        _visit(body, found)
        if not any(end in found and arg not in found for arg, end in zip(carried, body.results)):
            break
        assert len(found) >= before
    for arg, r in zip(carried, op.results):
        if arg in found:
            found.add(r)


def carried_values(loop: Op) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """Block arguments of the carried values of a ``for`` or ``while``, and their initial values."""
    if loop.name == "for":
        return loop.regions[0].args[1:], loop.operands[1:]
    return loop.regions[1].args, loop.operands
