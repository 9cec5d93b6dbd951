"""Rules for arithmetic and logic: identities that hold for every value, NaN, infinities and signed zeros included.

``x * 0`` and ``x - x`` are 0 for integers only; ``x + 0.0`` is not ``x`` where ``x`` is -0.0, but ``x - 0.0`` is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dflow.ir.core import Op, Value
from dflow.ir.passes.rewrite import splat_of
from dflow.ir.passes.simplifier import Rules, Simplifier
from dflow.ir.types import BOOL, SIGNIFICAND, DType, finfo

Attrs = Mapping[str, Any]
Found = Value | None

INVERSE = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}
# The largest power that becomes multiplications.
LARGEST_POWER = 8


def is_number(v: Value, number: float) -> bool:
    """Whether ``v`` is (all) ``number``, the sign of a zero included."""
    c = splat_of(v)
    if c is None or c != number:
        return False
    return not isinstance(c, float) or math.copysign(1.0, c) == math.copysign(1.0, number)


def exact(v: Value) -> bool:
    """Whether the values are integers or bools, so that ``v`` equals itself and zero annihilates."""
    return v.type.dtype.is_integer or v.type.dtype == BOOL


def made_by(v: Value, *names: str) -> Op | None:
    op = v.op
    return op if op is not None and op.name in names else None


def _negated(v: Value) -> Found:
    op = made_by(v, "neg")
    return op.operands[0] if op else None


# -- arithmetic ------------------------------------------------------------------------------------------------------


def _add(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    zero = 0 if exact(x) else -0.0
    if is_number(y, zero):
        return x
    if is_number(x, zero):
        return y
    if (z := _negated(y)) is not None:
        return b.sub(x, z)
    if (z := _negated(x)) is not None:
        return b.sub(y, z)
    return _add_constants(b, x, y)


def _add_constants(b: Simplifier, x: Value, y: Value) -> Found:
    """For integers, which wrap: (p + c) + d is p + (c + d), (c - p) + d is (c + d) - p, (p - q) + q is p."""
    if not exact(x):
        return None
    for p, q in ((x, y), (y, x)):
        if (op := made_by(p, "sub")) and op.operands[1] is q:
            return op.operands[0]
    inner = made_by(x, "add", "sub")
    if inner is None or splat_of(y) is None:
        return None
    p, q = inner.operands
    if inner.name == "add":
        return None if splat_of(q) is None else b.add(p, b.add(q, y))
    return None if splat_of(p) is None else b.sub(b.add(p, y), q)


def _add_order(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    """Constants stand second."""
    return b.add(y, x) if splat_of(x) is not None and splat_of(y) is None else None


def _sub(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    if is_number(y, 0):
        return x
    if is_number(x, 0 if exact(x) else -0.0):
        return b.neg(y)
    if exact(x):
        if x is y:
            return b.full(0, x.type)
        return _sub_integers(b, x, y)
    return None if (z := _negated(y)) is None else b.add(x, z)


def _sub_integers(b: Simplifier, x: Value, y: Value) -> Found:
    if (z := _negated(y)) is not None:
        return b.add(x, z)
    if splat_of(y) is not None:
        return b.add(x, b.neg(y))
    if op := made_by(x, "add"):
        p, q = op.operands
        if y is p or y is q:
            return q if y is p else p
    return _sub_nested(b, x, y)


def _sub_nested(b: Simplifier, x: Value, y: Value) -> Found:
    """x - (x - q) is q, c - (d - q) is q + (c - d), c - (p + d) is (c - d) - p."""
    op = made_by(y, "sub", "add")
    if op is None:
        return None
    p, q = op.operands
    constant = splat_of(x) is not None
    if op.name == "add":
        if x is p or x is q:
            return b.neg(q if x is p else p)
        return b.sub(b.sub(x, q), p) if constant and splat_of(q) is not None else None
    if x is p:
        return q
    return b.add(q, b.sub(x, p)) if constant and splat_of(p) is not None else None


def _mul(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    if x.type.dtype.kind == "c":  # one times infinity is not infinity there
        return None
    if is_number(y, 1):
        return x
    if is_number(y, 0) and exact(x):
        return y
    if is_number(y, -1):
        return b.neg(x)
    p, q = _negated(x), _negated(y)
    return b.mul(p, q) if p is not None and q is not None else None


def _mul_order(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    return b.mul(y, x) if splat_of(x) is not None and splat_of(y) is None else None


def _div(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    if is_number(y, 1):
        return x
    if is_number(y, -1):
        return b.neg(x)
    c = splat_of(y)
    if isinstance(c, float) and _has_exact_reciprocal(c, y.type.dtype):
        return b.mul(x, b.full(1.0 / c, y.type))
    return None


def _has_exact_reciprocal(c: float, dtype: DType) -> bool:
    """Whether ``c`` is a power of two whose reciprocal is a normal number."""
    if c == 0 or not math.isfinite(c) or abs(math.frexp(c)[0]) != 0.5:
        return False
    info = finfo(dtype.numpy)
    return float(info.tiny) <= abs(1.0 / c) <= float(info.max)


def _floordiv(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    return x if exact(x) and is_number(y, 1) else None


def _rem(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    return b.full(0, x.type) if exact(x) and is_number(y, 1) else None


def _neg(b: Simplifier, attrs: Attrs, x: Value) -> Found:
    if (z := _negated(x)) is not None:
        return z
    if exact(x) and (op := made_by(x, "sub")):
        return b.sub(op.operands[1], op.operands[0])
    return None


def _abs(b: Simplifier, attrs: Attrs, x: Value) -> Found:
    if made_by(x, "abs"):
        return x
    return None if (z := _negated(x)) is None else b.abs(z)


def _idempotent(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    return x if x is y else None


def _pow(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    c = splat_of(y)
    if c is None or c != int(c if math.isfinite(c) else 0) or abs(c) > LARGEST_POWER:
        return None
    n = int(c)
    if n == 0:
        return b.full(1, x.type)  # of NaN too
    if n < -2:
        return None
    # The reciprocal comes first: x * x may overflow where x ** -2 does not vanish.
    return _product(b, x if n > 0 else b.div(b.full(1, x.type), x), abs(n))


def _product(b: Simplifier, x: Value, n: int) -> Value:
    """``x`` to the ``n`` by squaring."""
    if n == 1:
        return x
    half = _product(b, x, n // 2)
    square = b.mul(half, half)
    return b.mul(square, x) if n % 2 else square


# -- logic and comparison --------------------------------------------------------------------------------------------


def _ones(v: Value) -> bool:
    """Whether every bit is set."""
    c, dtype = splat_of(v), v.type.dtype
    if c is None:
        return False
    return bool(c) if dtype == BOOL else c == (-1 if dtype.kind == "i" else 2**dtype.bits - 1)


def _zeros(v: Value) -> bool:
    c = splat_of(v)
    return c is not None and not c


def _and(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    for p, q in ((x, y), (y, x)):
        if x is y or _ones(q):
            return p
        if _zeros(q):
            return q
    return None


def _or(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    for p, q in ((x, y), (y, x)):
        if x is y or _zeros(q):
            return p
        if _ones(q):
            return q
    return None


def _xor(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    if x is y:
        return b.full(0, x.type)
    for p, q in ((x, y), (y, x)):
        if _zeros(q):
            return p
        if _ones(q):
            return b.not_(p)
    return None


def _shift(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
    return x if _zeros(y) or _zeros(x) else None


def _not(b: Simplifier, attrs: Attrs, x: Value) -> Found:
    op = x.op
    if op is None:
        return None
    if op.name == "not":
        return op.operands[0]
    # Of two floats neither `lt` nor `ge` may hold, but one of `eq` and `ne` does.
    if op.name in INVERSE and (exact(op.operands[0]) or op.name in ("eq", "ne")):
        return b.emit(INVERSE[op.name], *op.operands)
    return None


def _itself(holds: bool) -> Any:
    def rule(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
        return b.full(holds, x.type.with_dtype(BOOL)) if x is y and exact(x) else None

    return rule


def _equal_bool(truth: bool) -> Any:
    """``x == True`` and ``x != False`` are x; ``x == False`` and ``x != True`` its opposite."""

    def rule(b: Simplifier, attrs: Attrs, x: Value, y: Value) -> Found:
        if x.type.dtype != BOOL:
            return None
        for p, q in ((x, y), (y, x)):
            c = splat_of(q)
            if c is not None:
                return p if bool(c) == truth else b.not_(p)
        return None

    return rule


def _select(b: Simplifier, attrs: Attrs, c: Value, x: Value, y: Value) -> Found:
    if x is y:
        return x
    holds = splat_of(c)
    if holds is not None:
        return x if holds else y
    if op := made_by(c, "not"):
        return b.select(op.operands[0], y, x)
    if x.type.dtype == BOOL:
        if _ones(x) and _zeros(y):
            return c
        if _zeros(x) and _ones(y):
            return b.not_(c)
        if _zeros(y):
            return b.and_(c, x)
        if _ones(x):
            return b.or_(c, y)
    return None


# -- conversion ------------------------------------------------------------------------------------------------------


def _convert(b: Simplifier, attrs: Attrs, x: Value) -> Found:
    to = attrs["dtype"]
    if x.type.dtype == to:
        return x
    inner = made_by(x, "convert")
    if inner is None:
        return None
    source, between = inner.operands[0].type.dtype, x.type.dtype
    # A float below zero has no meaning as an unsigned integer, where an integer wraps.
    if not widens(source, between) or (between.is_float and to.kind == "u"):
        return None
    return b.convert(inner.operands[0], dtype=to)


def widens(source: DType, to: DType) -> bool:
    """Whether every value of ``source`` is one of ``to``."""
    if source in (BOOL, to):
        return True
    if source.is_float:
        return to.is_float and to.bits > source.bits
    if not source.is_integer:
        return False
    if to.is_float:
        return source.bits <= SIGNIFICAND[to]
    if source.kind == to.kind:
        return to.bits >= source.bits
    return source.kind == "u" and to.kind == "i" and to.bits > source.bits


ALGEBRA: Rules = {
    "add": (_add_order, _add),
    "sub": (_sub,),
    "mul": (_mul_order, _mul),
    "div": (_div,),
    "floordiv": (_floordiv,),
    "rem": (_rem,),
    "neg": (_neg,),
    "abs": (_abs,),
    "max": (_idempotent,),
    "min": (_idempotent,),
    "pow": (_pow,),
    "and": (_and,),
    "or": (_or,),
    "xor": (_xor,),
    "shl": (_shift,),
    "shr": (_shift,),
    "not": (_not,),
    "eq": (_itself(True), _equal_bool(True)),
    "ne": (_itself(False), _equal_bool(False)),
    "le": (_itself(True),),
    "ge": (_itself(True),),
    "lt": (_itself(False),),
    "gt": (_itself(False),),
    "select": (_select,),
    "convert": (_convert,),
}
