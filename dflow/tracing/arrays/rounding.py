"""Python's ``round`` of a float to a number of decimals: the decimal next to the number itself, of two the even one.

NumPy rounds ``x * 10**n``, which may be another number: 2.675 is less than it says, and 2.675 * 100 is 267.5. Here the
product is taken with what it lacks (Dekker, A floating-point technique for extending the available precision, 1971).
"""

from __future__ import annotations

import math
from typing import Any

from dflow.ir.core import Value
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.context import builder

EXACT = 22  # 10.0**22 is the last power of ten that is a float
WHOLE = 2.0**53  # from here on floats are whole numbers
SPLIT = 2.0**27 + 1


def python_round(x: Any, digits: int) -> Any:
    """``round(x, digits)`` of a scalar float64, for at most ``EXACT`` digits before or after the point."""
    b, v = builder(), x.value
    size = b.abs(v)
    found = _decimals(size, 10.0**digits) if digits > 0 else _tens(size, 10.0**-digits)
    return _lift.wrap(b.copysign(found, v), weak=True)


def _decimals(x: Value, scale: float) -> Value:
    b = builder()
    p = b.mul(x, scale)
    lacking = _lacking(x, scale, p)
    low = b.floor(p)
    past = b.add(b.sub(b.sub(p, low), 0.5), lacking)  # its sign tells on which side of the middle the number lies
    odd = b.ne(b.sub(low, b.mul(b.floor(b.mul(low, 0.5)), 2.0)), 0.0)
    up = b.or_(b.gt(past, 0.0), b.and_(b.eq(past, 0.0), odd))
    down = b.and_(b.eq(past, -1.0), odd)  # the middle below a product that is a whole number
    rounded = b.div(b.add(low, b.select(up, b.constant(1.0), b.select(down, b.constant(-1.0), b.constant(0.0)))), scale)
    return b.select(b.lt(p, WHOLE), rounded, _unchanged(x, scale))


def _unchanged(x: Value, scale: float) -> Value:
    """``x`` of so many digits that it stays what it is; in steps, as its derivative says."""
    b, fine = builder(), 2.0 ** math.ceil(math.log2(2 * scale))
    return b.select(b.ge(x, WHOLE), b.floor(x), b.div(b.floor(b.mul(x, fine)), fine))


def _lacking(x: Value, scale: float, p: Value) -> Value:
    """``x * scale - p``, exactly."""
    b = builder()
    wide = b.mul(x, SPLIT)
    high = b.sub(wide, b.sub(wide, x))
    low = b.sub(x, high)
    scale_high = scale * SPLIT - (scale * SPLIT - scale)
    scale_low = scale - scale_high
    rest = b.sub(b.mul(high, scale_high), p)
    rest = b.add(rest, b.mul(high, scale_low))
    return b.add(b.add(rest, b.mul(low, scale_high)), b.mul(low, scale_low))


def _tens(x: Value, unit: float) -> Value:
    b = builder()
    rest = b.rem(x, unit)
    odd = b.ge(b.rem(x, 2 * unit), unit)
    up = b.or_(b.gt(rest, unit / 2), b.and_(b.eq(rest, unit / 2), odd))
    return b.select(b.isinf(x), b.floor(x), b.add(x, b.select(up, b.sub(unit, rest), b.neg(rest))))
