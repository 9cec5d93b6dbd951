"""Special functions. But for ``tgamma`` they are formulas in other operations, computed in f64, and are written so
before machine code is made; they are operations for the sake of their derivatives.

The methods: ``polygamma`` by recurrence, asymptotic expansion and reflection (DLMF 5.15), the inverse error functions
by polynomials (`inverse_error.py`), Bessel functions by Chebyshev series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dflow.ir.ops import bessel, inverse_error
from dflow.ir.ops.math import EXTREMES, _vector
from dflow.ir.ops.tables import elementwise, partials_jvp, same_type
from dflow.ir.registry import OpDef, Sample, define, require
from dflow.ir.types import F64, FLOATS, TensorType

SQRT_PI = math.sqrt(math.pi)
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
TERMS = len(BERNOULLI)
SHIFT = 16
BESSEL_POINTS = [-11.0, -3.0, 0.01, 0.7, 6.5, 20.0]


def _tgamma(x: float) -> float:
    if x == 0:
        return math.copysign(math.inf, x)
    if math.isnan(x) or x == -math.inf or (x < 0 and x == math.floor(x)):
        return math.nan
    try:
        return math.gamma(x)
    except OverflowError:
        return math.inf


elementwise(
    "tgamma",
    "the gamma function",
    _vector(_tgamma),
    FLOATS,
    partials=(lambda b, y, x: b.mul(y, b.digamma(x)),),
    samples=([0.3, 1.0, 2.5, 6.0, -0.7],),
    kinks=(EXTREMES,),
)


def _decomposition(formula: Callable[..., Any]) -> Any:
    """The formula in f64, whatever the operands are."""

    def decompose(b: Any, attrs: Any, xs: Any) -> list[Any]:
        dtype = xs[0].type.dtype
        if dtype == F64:
            return [formula(b, *xs, **attrs)]
        wide = formula(b, *(b.convert(x, dtype=F64) for x in xs), **attrs)
        return [b.convert(wide, dtype=dtype)]

    return decompose


def _reference(decomposition: Any) -> Any:
    """The meaning of an operation that is a formula: what the formula evaluates to."""

    def evaluate(attrs: Any, *xs: Any) -> Any:
        from dflow.ir import evaluator
        from dflow.ir.builder import Builder
        from dflow.ir.passes.decompose import decompose
        from dflow.ir.types import type_of_array

        b = Builder([type_of_array(x) for x in xs])
        f = b.function("formula", decomposition(b, attrs, b.args))
        return evaluator.evaluate(decompose(f), xs)[0]

    return evaluate


def special(
    name: str, doc: str, formula: Callable[..., Any], partials: Sequence[Any], samples: Any, kinks: Any = (EXTREMES,)
) -> None:
    """A row of the table: an elementwise operation that is a formula."""
    decomposition = _decomposition(formula)
    define(
        OpDef(
            name,
            doc,
            same_type(FLOATS),
            _reference(decomposition),
            partials_jvp(partials),
            dtypes=FLOATS,
            elementwise=True,
            decomposition=decomposition,
            samples=(Sample((samples,)), Sample(kinks, smooth=False)),
        )
    )


# -- the logistic function, inverse error functions ------------------------------------------------------------------


def _expit(b: Any, x: Any) -> Any:
    small = b.exp(b.neg(b.abs(x)))
    top = b.select(b.ge(x, 0.0), b.full(1.0, x.type), small)
    return b.div(top, b.add(1.0, small))


special(
    "expit",
    "1 / (1 + exp(-x))",
    _expit,
    (lambda b, y, x: b.mul(y, b.expit(b.neg(x))),),
    [-30.0, -1.0, 0.0, 2.0, 40.0],
)


special(
    "erfinv",
    "the inverse of erf",
    inverse_error.erfinv,
    (lambda b, x, y: b.mul(SQRT_PI / 2, b.exp(b.mul(x, x))),),
    [-0.99, -0.4, 0.01, 0.5, 0.9],
)


special(
    "erfcinv",
    "the inverse of erfc",
    inverse_error.erfcinv,
    (lambda b, x, y: b.mul(-SQRT_PI / 2, b.exp(b.mul(x, x))),),
    [0.1, 0.4, 0.7, 1.3, 1.9],
)

# -- Bessel functions ------------------------------------------------------------------------------------------------


def _scaled_up(name: str) -> Any:
    return lambda b, x: b.mul(b.exp(b.abs(x)), b.emit(name, x))


def _minus_scale(b: Any, y: Any, x: Any, slope: Any) -> Any:
    """The derivative of exp(-|x|) f(x), from that of f with the same factor."""
    return b.sub(slope, b.mul(b.sign(x), y))


def _i1e_slope(b: Any, y: Any, x: Any) -> Any:
    size = b.exp(b.abs(b.select(b.lt(b.abs(x), 0.05), x, b.zeros(x.type))))
    ratio = bessel.over_argument(b, b.mul(y, size), x, 1.0)
    return b.sub(b.i0e(x), b.div(ratio, size))


special("i0e", "exp(-|x|) I0(x)", bessel.i0e, (lambda b, y, x: _minus_scale(b, y, x, b.i1e(x)),), BESSEL_POINTS)
special(
    "i1e", "exp(-|x|) I1(x)", bessel.i1e, (lambda b, y, x: _minus_scale(b, y, x, _i1e_slope(b, y, x)),), BESSEL_POINTS
)
special("i0", "the modified Bessel function I0", _scaled_up("i0e"), (lambda b, y, x: b.i1(x),), [-3.0, 0.01, 0.7, 5.0])
special(
    "i1",
    "the modified Bessel function I1",
    _scaled_up("i1e"),
    (lambda b, y, x: b.sub(b.i0(x), bessel.over_argument(b, y, x, 1.0)),),
    [-3.0, 0.01, 0.7, 5.0],
)
special("j0", "the Bessel function J0", bessel.j0, (lambda b, y, x: b.neg(b.j1(x)),), BESSEL_POINTS)
special(
    "j1",
    "the Bessel function J1",
    bessel.j1,
    (lambda b, y, x: b.sub(b.j0(x), bessel.over_argument(b, y, x, -1.0)),),
    BESSEL_POINTS,
)

# -- polygamma functions ---------------------------------------------------------------------------------------------


def _power(b: Any, x: Any, n: int) -> Any:
    if n == 1:
        return x
    half = _power(b, b.mul(x, x), n // 2)
    return b.mul(half, x) if n % 2 else half


def _polygamma_positive(b: Any, x: Any, n: int) -> Any:
    """(-1)^(n+1) times the function, for x > 0: all terms are positive."""
    y, total = x, b.zeros(x.type)
    for _ in range(SHIFT + n):
        small = b.lt(y, float(SHIFT + n))
        term = b.div(float(math.factorial(n)), _power(b, y, n + 1))
        total = b.add(total, b.select(small, term, b.zeros(x.type)))
        y = b.select(small, b.add(y, 1.0), y)
    inverse = b.div(1.0, y)
    square, series = b.mul(inverse, inverse), b.zeros(x.type)
    for k in range(TERMS, 0, -1):
        factor = BERNOULLI[k - 1] * math.factorial(2 * k + n - 1) / math.factorial(2 * k)
        series = b.add(b.mul(series, square), factor)
    series = b.add(b.mul(series, square), b.mul(inverse, math.factorial(n) / 2))
    return b.add(total, b.mul(_power(b, inverse, n), b.add(series, float(math.factorial(n - 1)))))


def _cotangent_derivative(n: int) -> list[float]:
    """The n-th derivative of cot as a polynomial in cot: each is -(1 + c^2) times the derivative of the one before."""
    p = np.polynomial.Polynomial([0.0, 1.0])
    for _ in range(n):
        p = np.polynomial.Polynomial([-1.0, 0.0, -1.0]) * p.deriv()
    return [float(c) for c in p.coef]


def _polygamma(b: Any, x: Any, order: int) -> Any:
    """psi_n(x) = (-1)^n psi_n(1 - x) - pi^(n+1) cot^(n)(pi x) below 0 (DLMF 5.15.6)."""
    negative = b.le(x, 0.0)
    value = _polygamma_positive(b, b.select(negative, b.sub(1.0, x), x), order)
    angle = b.mul(b.sub(x, b.round(x)), math.pi)
    angle = b.select(negative, angle, b.full(1.0, x.type))
    cotangent, p = b.div(1.0, b.tan(angle)), b.zeros(x.type)
    for c in reversed(_cotangent_derivative(order)):
        p = b.add(b.mul(p, cotangent), c)
    sign = (-1.0) ** (order + 1)
    reflected = b.sub(b.neg(value), b.mul(p, math.pi ** (order + 1)))
    pole = b.and_(negative, b.eq(x, b.round(x)))
    value = b.select(negative, reflected, b.mul(value, sign))
    return b.select(pole, b.full(np.inf, x.type), value)


def _polygamma_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 1, f"takes 1 operand, got {len(types)}")
    require(isinstance(attrs["order"], int) and attrs["order"] > 0, f"order must be positive, got {attrs['order']}")
    return same_type(FLOATS)(attrs, types)


def _polygamma_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    return [b.mul(b.polygamma(xs[0], order=attrs["order"] + 1), ts[0])]


define(
    OpDef(
        "polygamma",
        "the derivative of digamma of an order",
        _polygamma_infer,
        _reference(_decomposition(_polygamma)),
        _polygamma_jvp,
        dtypes=FLOATS,
        elementwise=True,
        decomposition=_decomposition(_polygamma),
        samples=tuple(Sample(([0.3, 1.0, 2.5, 20.0, -0.7],), {"order": n}) for n in (1, 2, 3))
        + (Sample((EXTREMES,), {"order": 1}, smooth=False),),
    )
)
