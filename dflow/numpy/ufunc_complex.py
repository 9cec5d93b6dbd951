"""Ufuncs of complex numbers, in terms of their real and imaginary parts.

The formulas are those of any table of functions (DLMF chapter 4); the inverse functions follow Kahan, "Branch cuts for
complex elementary functions" (1987). Comparisons and extrema are in lexicographic order, as NumPy has them. ``abs`` has
derivative 0 at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dflow.ir.core import Value
from dflow.numpy.support import constant_of

Rule = Callable[..., Any]
Pair = tuple[Value, Value]
LN2 = math.log(2.0)
MOST_FACTORS = 100  # whole exponents up to this are products
LARGEST = {32: 40.0, 64: 300.0}  # arguments of hyperbolic functions that stay finite when doubled


def parts(b: Any, z: Value) -> tuple[Value, Value]:
    return b.real(z), b.imag(z)


def joined(b: Any, x: Value, y: Value) -> Value:
    return b.emit("complex", x, y)


def by_parts(name: str) -> Rule:
    return lambda b, z: joined(b, *(b.emit(name, p) for p in parts(b, z)))


def multiply(b: Any, z: Value, w: Value) -> Value:
    return b.mul(z, w)


def divide(b: Any, z: Value, w: Value) -> Value:
    """Smith's method: by the larger part of the divisor first, so that nothing overflows. By zero as NumPy has it."""
    (x, y), (u, v) = parts(b, z), parts(b, w)
    nothing = b.and_(b.eq(u, 0.0), b.eq(v, 0.0))
    one = b.full(1.0, u.type)
    u, v = b.select(nothing, one, u), b.select(nothing, b.zeros(v.type), v)
    first = b.ge(b.abs(u), b.abs(v))
    larger, smaller = b.select(first, u, v), b.select(first, v, u)
    ratio = b.div(smaller, larger)
    scale = b.div(1.0, b.add(larger, b.mul(smaller, ratio)))
    real = b.select(first, b.add(x, b.mul(y, ratio)), b.add(b.mul(x, ratio), y))
    imag = b.select(first, b.sub(y, b.mul(x, ratio)), b.sub(b.mul(y, ratio), x))
    zero = b.zeros(x.type)
    by_zero = [b.select(b.eq(p, 0.0), b.full(math.nan, p.type), b.div(p, zero)) for p in (x, y)]
    real, imag = (b.select(nothing, d, b.mul(p, scale)) for d, p in zip(by_zero, (real, imag)))
    return joined(b, real, imag)


def conjugate(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    return joined(b, x, b.neg(y))


def absolute(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    origin = b.and_(b.eq(x, 0.0), b.eq(y, 0.0))
    one, zero = b.full(1.0, x.type), b.zeros(x.type)
    return b.select(origin, zero, b.hypot(b.select(origin, one, x), b.select(origin, zero, y)))


def sign(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    size = absolute(b, z)
    origin = b.eq(size, 0.0)
    one, zero = b.full(1.0, size.type), b.zeros(size.type)
    far = b.not_(b.eq(b.isinf(x), b.isinf(y)))  # one part is infinite, and the direction is that of an axis
    size = b.select(b.or_(origin, far), one, size)
    x, y = (b.select(far, b.select(b.isinf(p), b.copysign(one, p), zero), p) for p in (x, y))
    nan = b.or_(b.isnan(b.real(z)), b.isnan(b.imag(z)))
    return joined(b, *(b.select(origin, zero, b.select(nan, b.add(x, y), b.div(p, size))) for p in (x, y)))


def reciprocal(b: Any, z: Value) -> Value:
    return divide(b, b.full(1.0, z.type), z)


def square(b: Any, z: Value) -> Value:
    return multiply(b, z, z)


def scaled(b: Any, z: Value, factor: float) -> Value:
    x, y = parts(b, z)
    return joined(b, b.mul(x, factor), b.mul(y, factor))


def rotated(b: Any, z: Value, turns: int) -> Value:
    """i z for 1, -i z for -1."""
    x, y = parts(b, z)
    return joined(b, b.neg(y), x) if turns == 1 else joined(b, y, b.neg(x))


# -- exponentials and logarithms -------------------------------------------------------------------------------------


def _product(b: Any, p: Value, q: Value) -> Value:
    return _zero_stays(b, b.mul(p, q), p, q)


def _zero_stays(b: Any, found: Value, p: Value, q: Value) -> Value:
    """The product (or quotient) ``found`` of ``p`` and ``q``, in which an exact zero in ``q`` stays one."""
    lost = b.and_(b.eq(q, 0.0), b.isnan(found))
    return b.select(lost, b.select(b.lt(p, 0.0), b.neg(q), q), found)


def _circle(b: Any, x: Value, y: Value, sine: Value) -> tuple[Value, Value]:
    """cos y and sin y; 1 and ``sine`` where ``x`` is infinite and ``y`` gives no direction (C99, annex G)."""
    nowhere = b.and_(b.isinf(x), b.not_(b.isfinite(y)))
    return b.select(nowhere, b.full(1.0, y.type), b.cos(y)), b.select(nowhere, sine, b.sin(y))


def _no_direction(b: Any, x: Value) -> Value:
    """0 where the absolute value exp(x) is 0, NaN where it is infinite."""
    return b.select(b.lt(x, 0.0), b.zeros(x.type), b.full(math.nan, x.type))


def exp(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    size, (along, across) = b.exp(x), _circle(b, x, y, _no_direction(b, x))
    return joined(b, b.mul(size, along), _product(b, size, across))


def expm1(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    along, across = _circle(b, x, y, _no_direction(b, x))
    half = b.sin(b.mul(b.select(b.isfinite(y), y, b.zeros(y.type)), 0.5))
    real = b.sub(b.mul(b.expm1(x), along), b.mul(2.0, b.mul(half, half)))
    return joined(b, real, _product(b, b.exp(x), across))


def log(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    return joined(b, b.log(absolute(b, z)), b.atan2(y, x))


def log1p(b: Any, z: Value) -> Value:
    """Near 0 the logarithm of the absolute value is half that of its square, less 1."""
    x, y = parts(b, z)
    near = b.lt(b.add(b.abs(x), b.abs(y)), 0.5)
    small_x, small_y = (b.select(near, p, b.zeros(p.type)) for p in (x, y))
    squared = b.add(b.mul(small_x, b.add(small_x, 2.0)), b.mul(small_y, small_y))
    moved = b.add(x, 1.0)
    size = b.select(near, b.mul(0.5, b.log1p(squared)), b.log(absolute(b, joined(b, moved, y))))
    return joined(b, size, b.atan2(y, moved))


def sqrt(b: Any, z: Value) -> Value:
    """The derivative at 0 is infinite; on the branch cut it is that of the side which the sign of the zero names."""
    x, y = parts(b, z)
    origin, far = b.and_(b.eq(x, 0.0), b.eq(y, 0.0)), b.isinf(y)
    one = b.full(1.0, x.type)
    safe_x = b.select(origin, one, x)
    right, side = b.ge(safe_x, 0.0), b.copysign(one, y)
    size = b.select(right, safe_x, b.neg(safe_x))
    root = b.sqrt(b.mul(0.5, b.add(absolute(b, joined(b, safe_x, y)), size)))
    other = b.div(y, b.mul(2.0, root))
    real, imag = b.select(right, root, b.mul(side, other)), b.select(right, other, b.mul(side, root))
    at_origin = b.add(b.sqrt(b.select(origin, x, one)), 0.0)
    real = b.select(origin, at_origin, b.select(far, _infinity(b, x), real))
    return joined(b, real, b.select(b.or_(origin, far), y, imag))


def power(b: Any, z: Value, w: Value) -> Value:
    exponent = constant_of(w)
    if exponent is not None and exponent == int(exponent.real) and abs(exponent) <= MOST_FACTORS:
        return _whole_power(b, z, int(exponent.real))
    (x, y), (u, v) = parts(b, z), parts(b, w)
    origin = b.and_(b.eq(x, 0.0), b.eq(y, 0.0))
    once = b.and_(b.eq(u, 0.0), b.eq(v, 0.0))
    origin = b.or_(origin, b.and_(once, b.not_(b.and_(b.isfinite(x), b.isfinite(y)))))  # that, too, has no logarithm
    one, zero = b.full(1.0, x.type), b.zeros(x.type)
    base = joined(b, b.select(origin, one, x), b.select(origin, zero, y))
    found = exp(b, multiply(b, w, log(b, base)))
    lost = b.or_(b.not_(b.eq(v, 0.0)), b.not_(b.ge(u, 0.0)))
    undefined = b.select(lost, b.full(math.nan, x.type), zero)
    at_zero = joined(b, b.select(once, one, undefined), undefined)
    return b.select(origin, at_zero, found)


def _whole_power(b: Any, z: Value, n: int) -> Value:
    """By repeated squaring."""
    found, factor, rest = None, z, abs(n)
    while rest:
        if rest & 1:
            found = factor if found is None else multiply(b, found, factor)
        rest >>= 1
        factor = square(b, factor) if rest else factor
    if found is None:
        return b.full(1.0, z.type)
    return reciprocal(b, found) if n < 0 else found


# -- circular and hyperbolic functions -------------------------------------------------------------------------------


def sinh(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    along, across = _circle(b, x, y, b.full(math.nan, x.type))
    return joined(b, _product(b, along, b.sinh(x)), _product(b, b.cosh(x), across))


def cosh(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    along, across = _circle(b, x, y, b.full(math.nan, x.type))
    still = b.and_(b.eq(x, 0.0), b.not_(b.isfinite(y)))  # then the imaginary part is 0
    across = b.select(still, b.zeros(y.type), across)
    return joined(b, b.mul(b.cosh(x), along), _product(b, b.sinh(x), across))


def tanh(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    limit, far = LARGEST[x.type.dtype.bits], b.isinf(x)
    along, across = _circle(b, x, b.mul(2.0, y), b.zeros(y.type))
    across = b.select(far, b.copysign(b.zeros(y.type), y), across)
    x = b.mul(2.0, b.min(b.max(x, -limit), limit))
    below = b.add(b.cosh(x), along)
    return joined(b, *(_zero_stays(b, b.div(p, below), below, p) for p in (b.sinh(x), across)))


def around_i(rule: Rule) -> Rule:
    """f(z) = -i g(i z): sin from sinh, tan from tanh, and their inverses."""
    return lambda b, z: rotated(b, rule(b, rotated(b, z, 1)), -1)


def cos(b: Any, z: Value) -> Value:
    return cosh(b, rotated(b, z, 1))


def _roots(b: Any, z: Value) -> tuple[Value, Value, Value, Value]:
    """The parts of the roots of 1 - z and 1 + z."""
    x, y = parts(b, z)
    one = b.full(1.0, x.type)
    below = sqrt(b, joined(b, b.sub(one, x), b.neg(y)))
    above = sqrt(b, joined(b, b.add(one, x), y))
    return (*parts(b, below), *parts(b, above))


def _far_out(b: Any, x: Value, y: Value, found: Pair, limit: Pair) -> Value:
    """The limits, where one of the parts is infinite (C99, annex G)."""
    infinite = b.or_(b.isinf(x), b.isinf(y))
    return joined(b, *(b.select(infinite, far, near) for near, far in zip(found, limit)))


def _lost(b: Any, x: Value, y: Value) -> Value:
    """Where the real part, 0, is all that is known."""
    return b.and_(b.eq(x, 0.0), b.isnan(y))


def _infinity(b: Any, x: Value) -> Value:
    return b.full(math.inf, x.type)


def arcsin(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    p, q, r, s = _roots(b, z)
    real = b.atan2(x, b.sub(b.mul(p, r), b.mul(q, s)))
    found = b.select(_lost(b, x, y), x, real), b.asinh(b.sub(b.mul(p, s), b.mul(q, r)))
    return _far_out(b, x, y, found, (b.atan2(x, b.abs(y)), b.copysign(_infinity(b, y), y)))


def arccos(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    p, q, r, s = _roots(b, z)
    real = b.select(_lost(b, x, y), b.full(math.pi / 2, x.type), b.mul(2.0, b.atan2(p, r)))
    found = real, b.asinh(b.sub(b.mul(r, q), b.mul(s, p)))
    return _far_out(b, x, y, found, (b.atan2(b.abs(y), x), b.neg(b.copysign(_infinity(b, y), y))))


def arcsinh(b: Any, z: Value) -> Value:
    return rotated(b, arcsin(b, rotated(b, z, 1)), -1)


def arccosh(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    p, q = parts(b, sqrt(b, joined(b, b.sub(x, 1.0), y)))
    r, s = parts(b, sqrt(b, joined(b, b.add(x, 1.0), y)))
    imag = b.select(_lost(b, x, y), b.full(math.pi / 2, x.type), b.mul(2.0, b.atan2(q, r)))
    found = b.asinh(b.add(b.mul(p, r), b.mul(q, s))), imag
    return _far_out(b, x, y, found, (_infinity(b, x), b.atan2(y, x)))


def arctanh(b: Any, z: Value) -> Value:
    x, y = parts(b, z)
    away = b.sub(1.0, x)
    below = b.add(b.mul(away, away), b.mul(y, y))
    real = b.mul(0.25, b.log1p(b.div(b.mul(4.0, x), below)))
    turned = b.sub(b.mul(away, b.add(1.0, x)), b.mul(y, y))
    found = b.select(_lost(b, x, y), x, real), b.mul(0.5, b.atan2(b.mul(2.0, y), turned))
    right_angle = b.select(b.isnan(y), y, b.copysign(b.full(math.pi / 2, y.type), y))
    return _far_out(b, x, y, found, (b.copysign(b.zeros(x.type), x), right_angle))


# -- order -----------------------------------------------------------------------------------------------------------


def compare(strict: str, last: str) -> Rule:
    def rule(b: Any, z: Value, w: Value) -> Value:
        (x, y), (u, v) = parts(b, z), parts(b, w)
        ordered = b.and_(b.eq(y, y), b.eq(v, v))  # a NaN beside it, and a number has no place
        return b.or_(b.and_(b.emit(strict, x, u), ordered), b.and_(b.eq(x, u), b.emit(last, y, v)))

    return rule


def either(name: str, join: str) -> Rule:
    return lambda b, z: b.emit(join, *(b.emit(name, p) for p in parts(b, z)))


def _extreme(name: str, ignoring: bool) -> Rule:
    order = compare("gt", "ge") if name == "max" else compare("lt", "le")

    def rule(b: Any, z: Value, w: Value) -> Value:
        nan = either("isnan", "or")
        first = order(b, z, w)
        if ignoring:
            return b.select(nan(b, z), w, b.select(nan(b, w), z, b.select(first, z, w)))
        return b.select(nan(b, z), z, b.select(nan(b, w), w, b.select(first, z, w)))

    return rule


COMPLEX: dict[str, str | Rule] = {
    "add": "add",
    "subtract": "sub",
    "negative": "neg",
    "positive": lambda b, z: z,
    "equal": "eq",
    "not_equal": "ne",
    "less": compare("lt", "lt"),
    "less_equal": compare("lt", "le"),
    "greater": compare("gt", "gt"),
    "greater_equal": compare("gt", "ge"),
    "multiply": multiply,
    "divide": divide,
    "conjugate": conjugate,
    "absolute": absolute,
    "sign": sign,
    "reciprocal": reciprocal,
    "square": square,
    "power": power,
    "float_power": power,
    "rint": by_parts("round"),
    "sqrt": sqrt,
    "exp": exp,
    "exp2": lambda b, z: exp(b, scaled(b, z, LN2)),
    "expm1": expm1,
    "log": log,
    "log2": lambda b, z: scaled(b, log(b, z), 1.0 / LN2),
    "log10": lambda b, z: scaled(b, log(b, z), 1.0 / math.log(10.0)),
    "log1p": log1p,
    "sin": around_i(sinh),
    "cos": cos,
    "tan": around_i(tanh),
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
    "arcsin": arcsin,
    "arccos": arccos,
    "arctan": around_i(arctanh),
    "arcsinh": arcsinh,
    "arccosh": arccosh,
    "arctanh": arctanh,
    "isnan": either("isnan", "or"),
    "isinf": either("isinf", "or"),
    "isfinite": either("isfinite", "and"),
    "maximum": _extreme("max", False),
    "minimum": _extreme("min", False),
    "fmax": _extreme("max", True),
    "fmin": _extreme("min", True),
}
