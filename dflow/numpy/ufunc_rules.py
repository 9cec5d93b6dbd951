"""What each of NumPy's ufuncs is in operations of the IR: one table for each kind of operand.

A rule gets the builder and values of one shape, in the dtype of NumPy's own inner loop, and gives the result. Rules are
written so that derivatives of every order are right where the function has them; a branch that is not taken must not
meet an infinite derivative, since zero times infinity is NaN, so its operand is replaced by a harmless one first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dflow.ir.core import Value
from dflow.ir.types import BOOL, I64, DType
from dflow.numpy import ufunc_bits, ufunc_complex
from dflow.numpy.support import constant_of

Rule = Callable[..., Any]
LN2 = math.log(2.0)


def _false(b: Any, x: Value) -> Value:
    return b.full(False, x.type.with_dtype(BOOL))


def _true(b: Any, x: Value) -> Value:
    return b.full(True, x.type.with_dtype(BOOL))


def _same(b: Any, x: Value) -> Value:
    return x


def _scaled(factor: float) -> Rule:
    return lambda b, x: b.mul(x, factor)


def square(b: Any, x: Value) -> Value:
    return b.mul(x, x)


def safe_sqrt(b: Any, x: Value) -> Value:
    """The square root, with derivative 0 at 0 (for lengths and spreads, whose subgradients hold 0)."""
    zero = b.eq(x, 0.0)
    return b.select(zero, b.zeros(x.type), b.sqrt(b.select(zero, b.full(1.0, x.type), x)))


def _logaddexp(exp: str, scale: float) -> Rule:
    """The larger plus log(1 + exp(-difference)); both choices of each select continue smoothly into each other."""

    def rule(b: Any, x: Value, y: Value) -> Value:
        first = b.gt(x, y)
        both_infinite = b.and_(b.eq(x, y), b.isinf(x))
        difference = b.select(first, b.sub(y, x), b.sub(x, y))
        difference = b.select(both_infinite, b.zeros(x.type), difference)
        rest = b.log1p(b.emit(exp, difference))
        return b.add(b.select(first, x, y), rest if scale == 1.0 else b.mul(rest, scale))

    return rule


def _heaviside(b: Any, x: Value, at_zero: Value) -> Value:
    step = b.select(b.lt(x, 0.0), b.zeros(x.type), b.full(1.0, x.type))
    return b.select(b.isnan(x), x, b.select(b.eq(x, 0.0), at_zero, step))


def _ignoring_nan(op: str) -> Rule:
    return lambda b, x, y: b.select(b.isnan(x), y, b.select(b.isnan(y), x, b.emit(op, x, y)))


def _power(b: Any, x: Value, y: Value) -> Value:
    """NumPy's ``**`` takes the same short ways for these exponents."""
    short: dict[float, Rule] = {1.0: _same, 2.0: square, 0.5: lambda b, x: b.sqrt(x), -1.0: lambda b, x: b.div(1.0, x)}
    rule = short.get(constant_of(y))
    return b.pow(x, y) if rule is None else rule(b, x)


def _integer_power(b: Any, x: Value, y: Value) -> Value:
    """By repeated squaring. A negative exponent is an error, as in NumPy."""
    exponent = constant_of(y)
    if exponent is not None:
        return _constant_power(b, x, int(exponent))
    if y.type.dtype.kind == "i":
        axes = tuple(range(y.type.rank))
        fine = b.ge(y, 0)
        b.emit(
            "check",
            b.reduce(fine, kind="all", axes=axes) if axes else fine,
            error="ValueError",
            message="Integers to negative integer powers are not allowed.",
        )

    def step(b: Any, k: Value, power: Value, base: Value, rest: Value) -> list[Value]:
        odd = b.ne(b.and_(rest, 1), 0)
        return [b.select(odd, b.mul(power, base), power), b.mul(base, base), b.shr(rest, 1)]

    bits = x.type.dtype.bits - (x.type.dtype.kind == "i")
    return b.for_loop(b.index(bits), [b.full(1, x.type), x, y], step)[0]


def _constant_power(b: Any, x: Value, exponent: int) -> Value:
    if exponent < 0:
        raise ValueError("Integers to negative integer powers are not allowed.")
    power = None
    while exponent:
        if exponent & 1:
            power = x if power is None else b.mul(power, x)
        exponent >>= 1
        x = b.mul(x, x) if exponent else x
    return b.full(1, x.type) if power is None else power


def _truncated_remainder(b: Any, x: Value, y: Value) -> Value:
    """C's remainder from the floored one: it has the sign of ``x``."""
    r = b.rem(x, y)
    if x.type.dtype.kind == "u":
        return r
    zero = b.zeros(x.type)
    wrong = b.and_(b.ne(r, 0), b.ne(b.lt(x, zero), b.lt(y, zero)))
    return b.select(wrong, b.sub(r, y), r)


def _modf(b: Any, x: Value) -> list[Value]:
    whole = b.trunc(x)
    fraction = b.select(b.isinf(x), b.zeros(x.type), b.sub(x, whole))
    return [b.copysign(fraction, x), whole]


def _ldexp(b: Any, x: Value, n: Value) -> Value:
    """In two steps, so that the power of two does not overflow where the result does not."""
    wide = b.convert(n, dtype=I64)
    half = b.shr(wide, 1)
    first, second = (b.exp2(b.convert(k, dtype=x.type.dtype)) for k in (half, b.sub(wide, half)))
    return b.mul(b.mul(x, first), second)


def _greatest_divisor(b: Any, x: Value, y: Value) -> Value:
    def unfinished(b: Any, x: Value, y: Value) -> Value:
        some = b.ne(y, 0)
        return b.reduce(some, kind="any", axes=tuple(range(y.type.rank))) if y.type.rank else some

    def step(b: Any, x: Value, y: Value) -> list[Value]:
        done = b.eq(y, 0)
        return [b.select(done, x, y), b.select(done, y, b.rem(x, y))]

    return b.abs(b.while_loop([x, y], unfinished, step)[0])


def _least_multiple(b: Any, x: Value, y: Value) -> Value:
    """NumPy's, which wraps around to negative numbers, too."""
    return b.mul(b.abs(b.floordiv(x, _greatest_divisor(b, x, y))), b.abs(y))


COMPARISON: dict[str, str | Rule] = {
    "equal": "eq",
    "not_equal": "ne",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
}
NUMBER: dict[str, str | Rule] = {
    **COMPARISON,
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "floor_divide": "floordiv",
    "remainder": "rem",
    "divmod": lambda b, x, y: [b.floordiv(x, y), b.rem(x, y)],
    "negative": "neg",
    "positive": _same,
    "conjugate": _same,
    "absolute": "abs",
    "sign": "sign",
    "square": square,
    "maximum": "max",
    "minimum": "min",
}
FLOAT: dict[str, str | Rule] = {
    **NUMBER,
    "divide": "div",
    "fabs": "abs",
    "reciprocal": lambda b, x: b.div(1.0, x),
    "power": _power,
    "float_power": _power,
    "fmod": "fmod",
    "fmax": _ignoring_nan("max"),
    "fmin": _ignoring_nan("min"),
    **{name: name for name in ("sqrt", "cbrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p")},
    **{name: name for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "hypot", "copysign")},
    **{f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "arctan2": "atan2",
    **{name: name for name in ("floor", "ceil", "trunc", "isnan", "isinf", "isfinite", "signbit")},
    "rint": "round",
    "deg2rad": _scaled(math.pi / 180.0),
    "radians": _scaled(math.pi / 180.0),
    "rad2deg": _scaled(180.0 / math.pi),
    "degrees": _scaled(180.0 / math.pi),
    "heaviside": _heaviside,
    "logaddexp": _logaddexp("exp", 1.0),
    "logaddexp2": _logaddexp("exp2", 1.0 / LN2),
    "modf": _modf,
    "ldexp": _ldexp,
    "frexp": ufunc_bits.frexp,
    "nextafter": ufunc_bits.nextafter,
    "spacing": ufunc_bits.spacing,
}
INTEGER: dict[str, str | Rule] = {
    **NUMBER,
    "power": _integer_power,
    "reciprocal": lambda b, x: b.select(b.eq(b.abs(x), 1), x, b.zeros(x.type)),
    "fmod": _truncated_remainder,
    "fmax": "max",
    "fmin": "min",
    "gcd": _greatest_divisor,
    "lcm": _least_multiple,
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
    "invert": "not",
    "left_shift": "shl",
    "right_shift": "shr",
    "bitwise_count": ufunc_bits.bitwise_count,
    **{name: _same for name in ("floor", "ceil", "trunc")},
    "isnan": _false,
    "isinf": _false,
    "isfinite": _true,
}
BOOLEAN: dict[str, str | Rule] = {
    **COMPARISON,
    **dict.fromkeys(("add", "maximum", "fmax", "logical_or", "bitwise_or"), "or"),
    **dict.fromkeys(("multiply", "minimum", "fmin", "logical_and", "bitwise_and"), "and"),
    **dict.fromkeys(("logical_xor", "bitwise_xor"), "xor"),
    **dict.fromkeys(("logical_not", "invert"), "not"),
    **dict.fromkeys(("absolute", "conjugate", "floor", "ceil", "trunc"), _same),
    "isnan": _false,
    "isinf": _false,
    "isfinite": _true,
}
RULES: dict[str, dict[str, str | Rule]] = {
    "f": FLOAT,
    "i": INTEGER,
    "u": INTEGER,
    "b": BOOLEAN,
    "c": ufunc_complex.COMPLEX,
}
NAMES: tuple[str, ...] = tuple(dict.fromkeys((*FLOAT, *INTEGER, *BOOLEAN)))


def rule_for(name: str, dtype: DType) -> Rule:
    """The rule of a ufunc for operands of ``dtype``; TypeError when there is none."""
    rule = RULES.get(dtype.kind, {}).get(name)
    if rule is None:
        raise TypeError(f"np.{name} of {dtype.numpy} is not supported on traced arrays")
    return rule if callable(rule) else lambda b, *xs: b.emit(rule, *xs)
