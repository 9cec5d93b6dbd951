"""Integers as sums ``c + c1 * v1 + c2 * v2 + ...`` of other values. Integers wrap around, so this is exact."""

from __future__ import annotations

from collections.abc import Mapping

from dflow.ir.builder import Builder
from dflow.ir.core import Value
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.types import I64, scalar

DEPTH = 12  # operations that are followed

Terms = dict[Value | None, int]  # None stands for 1


def terms(v: Value, depth: int = DEPTH) -> Terms:
    """``v`` as a sum, seen through additions, subtractions, and products by constants."""
    c = constant_of(v)
    if c is not None:
        return {None: int(c)} if c else {}
    op = v.op
    if op is None or not depth or v.type != scalar(I64):
        return {v: 1}
    if op.name in ("add", "sub"):
        first, second = (terms(o, depth - 1) for o in op.operands)
        return plus(first, second, 1 if op.name == "add" else -1)
    if op.name == "neg":
        return plus({}, terms(op.operands[0], depth - 1), -1)
    if op.name == "mul":
        for x, y in (op.operands, op.operands[::-1]):
            if (factor := constant_of(y)) is not None:
                return plus({}, terms(x, depth - 1), int(factor))
    return {v: 1}


def plus(x: Mapping[Value | None, int], y: Mapping[Value | None, int], factor: int = 1) -> Terms:
    """``x + factor * y``"""
    out = dict(x)
    for v, c in y.items():
        out[v] = out.get(v, 0) + factor * c
    return {v: c for v, c in out.items() if c}


def emit(b: Builder, sum_: Mapping[Value | None, int]) -> Value | None:
    """The sum as a value; None when it is zero."""
    total = None
    for v, c in sum_.items():
        term = b.index(c) if v is None else v if c in (1, -1) else b.mul(v, b.index(c))
        if total is None:
            total = b.neg(term) if c == -1 and v is not None else term
        else:
            total = b.sub(total, term) if c == -1 and v is not None else b.add(total, term)
    return total
