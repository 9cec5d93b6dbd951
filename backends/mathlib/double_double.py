"""Unevaluated sums of two floats, `hi + lo` with |lo| ≤ ulp(hi)/2: about 106 bits for f64.

Sources: Dekker, "A floating-point technique for extending the available precision" (1971); Joldes, Muller, Popescu,
"Tight and rigorous error bounds for basic building blocks of double-word arithmetic" (2017).
"""

from __future__ import annotations

from typing import NamedTuple

from dflow.backends.mathlib.expr import Expr, fma, sqrt


class Pair(NamedTuple):
    """hi + lo."""

    hi: Expr
    lo: Expr

    def __neg__(self) -> Pair:
        return Pair(-self.hi, -self.lo)

    def scaled(self, factor: Expr | float) -> Pair:
        """Times a power of two, which is exact."""
        return Pair(self.hi * factor, self.lo * factor)

    def rounded(self) -> Expr:
        return self.hi + self.lo


def constant(like: Expr, hi: float, lo: float = 0.0) -> Pair:
    return Pair(like.const(hi), like.const(lo))


def two_sum(a: Expr, b: Expr) -> Pair:
    """a + b exactly."""
    total = a + b
    b_part = total - a
    return Pair(total, (a - (total - b_part)) + (b - b_part))


def fast_two_sum(a: Expr, b: Expr) -> Pair:
    """a + b exactly, given |a| ≥ |b| or a = 0."""
    total = a + b
    return Pair(total, b - (total - a))


def two_product(a: Expr, b: Expr) -> Pair:
    """a·b exactly, barring underflow."""
    product = a * b
    return Pair(product, fma(a, b, -product))


def add(a: Pair, b: Pair) -> Pair:
    """a + b to 2^-104, cancellation included."""
    high = two_sum(a.hi, b.hi)
    low = two_sum(a.lo, b.lo)
    high = fast_two_sum(high.hi, high.lo + low.hi)
    return fast_two_sum(high.hi, high.lo + low.lo)


def add_float(a: Pair, b: Expr) -> Pair:
    high = two_sum(a.hi, b)
    return fast_two_sum(high.hi, high.lo + a.lo)


def multiply(a: Pair, b: Pair) -> Pair:
    high = two_product(a.hi, b.hi)
    return fast_two_sum(high.hi, high.lo + fma(a.hi, b.lo, a.lo * b.hi))


def multiply_float(a: Pair, b: Expr) -> Pair:
    high = two_product(a.hi, b)
    return fast_two_sum(high.hi, fma(a.lo, b, high.lo))


def divide(a: Pair, b: Pair) -> Pair:
    """a / b to about 2^-102, with one division: the correction multiplies by the reciprocal."""
    reciprocal = 1.0 / b.hi
    quotient = a.hi * reciprocal
    # The quotient may be off by 2 ulp, which the exact remainder takes up.
    remainder = fma(-quotient, b.hi, a.hi) + fma(-quotient, b.lo, a.lo)
    return fast_two_sum(quotient, remainder * reciprocal)


def square_root(a: Pair) -> Pair:
    """sqrt(a), zero included."""
    root = sqrt(a.hi)
    remainder = fma(-root, root, a.hi) + a.lo
    correction = remainder / (root + root)
    return fast_two_sum(root, root.equals(0.0).select(0.0, correction))


def select(condition: Expr, if_true: Pair, if_false: Pair) -> Pair:
    return Pair(condition.select(if_true.hi, if_false.hi), condition.select(if_true.lo, if_false.lo))
