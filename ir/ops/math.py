"""Mathematical functions, with partial derivatives from any table of integrals (e.g. DLMF chapters 4, 5 and 7).

Limits: ``sqrt`` has an infinite derivative at 0; ``pow`` has derivative 0 by the exponent where the base is 0, and by
the base at the point (0, 0); ``hypot`` has 0 at the origin, ``atan2`` none (NaN).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dflow.ir.ops.tables import Partial, elementwise
from dflow.ir.types import FLOATS

INNER = [-0.9, -0.4, 0.1, 0.5, 0.95]
ALL_REAL = [-3.0, -0.5, 0.0, 0.7, 2.5]
POSITIVE = [0.05, 0.5, 1.0, 2.0, 8.0]
EXTREMES = [0.0, -0.0, np.inf, -np.inf, np.nan, -1.5, 2.0]

LN2 = math.log(2.0)
TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)


def _square(b: Any, x: Any) -> Any:
    return b.mul(x, x)


def _vector(f: Any) -> Any:
    """A function of one Python float, as one of arrays that keeps the dtype."""

    def apply(x: Any) -> Any:
        x = np.asarray(x)
        return np.vectorize(f, otypes=[np.float64])(x).astype(x.dtype)

    return apply


def _lgamma(x: float) -> float:
    if math.isinf(x):
        return math.inf
    return math.inf if x <= 0 and x == math.floor(x) else math.lgamma(x)


def _digamma(x: float) -> float:
    """Reflection, recurrence up to 10, then the asymptotic series (DLMF 5.5.4, 5.5.2, 5.11.2)."""
    if x == 0:
        return -math.copysign(math.inf, x)
    if math.isnan(x) or x == -math.inf or (x < 0 and x == math.floor(x)):
        return math.nan
    if x == math.inf:
        return x
    if x < 0:
        return _digamma(1.0 - x) - math.pi / math.tan(math.pi * x)
    shift = 0.0
    while x < 10.0:
        shift -= 1.0 / x
        x += 1.0
    z = 1.0 / (x * x)
    bernoulli = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
    series = sum(c * z ** (k + 1) for k, c in enumerate(bernoulli))
    return shift + math.log(x) - 0.5 / x - series


_UNARY: tuple[tuple[str, str, Any, Partial | None, list[float]], ...] = (
    ("cbrt", "cube root", np.cbrt, lambda b, y, x: b.div(1.0 / 3.0, _square(b, y)), POSITIVE),
    ("exp", "e to the x", np.exp, lambda b, y, x: y, ALL_REAL),
    ("exp2", "2 to the x", np.exp2, lambda b, y, x: b.mul(LN2, y), ALL_REAL),
    ("expm1", "exp(x) - 1, exact near 0", np.expm1, lambda b, y, x: b.exp(x), ALL_REAL),
    ("log", "natural logarithm", np.log, lambda b, y, x: b.div(1.0, x), POSITIVE),
    ("log2", "logarithm to base 2", np.log2, lambda b, y, x: b.div(1.0 / LN2, x), POSITIVE),
    ("log10", "logarithm to base 10", np.log10, lambda b, y, x: b.div(1.0 / math.log(10.0), x), POSITIVE),
    ("log1p", "log(1 + x), exact near 0", np.log1p, lambda b, y, x: b.div(1.0, b.add(1.0, x)), INNER),
    ("sin", "sine of an angle in radians", np.sin, lambda b, y, x: b.cos(x), ALL_REAL),
    ("cos", "cosine of an angle in radians", np.cos, lambda b, y, x: b.neg(b.sin(x)), ALL_REAL),
    ("tan", "tangent of an angle in radians", np.tan, lambda b, y, x: b.add(1.0, _square(b, y)), INNER),
    ("asin", "inverse sine", np.arcsin, lambda b, y, x: b.div(1.0, b.sqrt(b.sub(1.0, _square(b, x)))), INNER),
    ("acos", "inverse cosine", np.arccos, lambda b, y, x: b.div(-1.0, b.sqrt(b.sub(1.0, _square(b, x)))), INNER),
    ("atan", "inverse tangent", np.arctan, lambda b, y, x: b.div(1.0, b.add(1.0, _square(b, x))), ALL_REAL),
    ("sinh", "hyperbolic sine", np.sinh, lambda b, y, x: b.cosh(x), ALL_REAL),
    ("cosh", "hyperbolic cosine", np.cosh, lambda b, y, x: b.sinh(x), ALL_REAL),
    ("tanh", "hyperbolic tangent", np.tanh, lambda b, y, x: b.sub(1.0, _square(b, y)), ALL_REAL),
    (
        "asinh",
        "inverse hyperbolic sine",
        np.arcsinh,
        lambda b, y, x: b.div(1.0, b.sqrt(b.add(1.0, _square(b, x)))),
        ALL_REAL,
    ),
    (
        "acosh",
        "inverse hyperbolic cosine",
        np.arccosh,
        lambda b, y, x: b.div(1.0, b.mul(b.sqrt(b.sub(x, 1.0)), b.sqrt(b.add(x, 1.0)))),
        [1.1, 1.5, 2.0, 5.0, 9.0],
    ),
    ("atanh", "inverse hyperbolic tangent", np.arctanh, lambda b, y, x: b.div(1.0, b.sub(1.0, _square(b, x))), INNER),
    (
        "erf",
        "error function",
        _vector(math.erf),
        lambda b, y, x: b.mul(TWO_OVER_SQRT_PI, b.exp(b.neg(_square(b, x)))),
        ALL_REAL,
    ),
    (
        "erfc",
        "1 - erf(x), exact for large x",
        _vector(math.erfc),
        lambda b, y, x: b.mul(-TWO_OVER_SQRT_PI, b.exp(b.neg(_square(b, x)))),
        ALL_REAL,
    ),
    ("lgamma", "logarithm of |gamma(x)|", _vector(_lgamma), lambda b, y, x: b.digamma(x), POSITIVE),
    ("digamma", "derivative of lgamma", _vector(_digamma), lambda b, y, x: b.polygamma(x, order=1), POSITIVE),
)
for _name, _doc, _reference, _partial, _samples in _UNARY:
    elementwise(
        _name,
        _doc,
        _reference,
        FLOATS,
        partials=None if _partial is None else (_partial,),
        samples=(_samples,),
        kinks=(EXTREMES,),
        no_derivative="the polygamma functions are not among the operations" if _partial is None else None,
    )


def _sqrt_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    return [b.scale(b.div(0.5, ys[0]), ts[0])]


elementwise("sqrt", "square root", np.sqrt, FLOATS, jvp=_sqrt_jvp, samples=(POSITIVE,), kinks=(EXTREMES,))


def _pow_by_base(b: Any, z: Any, x: Any, y: Any) -> Any:
    """y * x**(y - 1); at the point (0, 0) only, where that is 0 * inf, it is 0.

    Both powers have one base, so that they share its logarithm, which is most of the work."""
    origin = b.and_(b.eq(x, 0.0), b.eq(y, 0.0))
    power = b.select(origin, b.full(0.0, y.type), b.sub(y, 1.0))
    return b.mul(y, b.pow(x, power))


def _pow_by_exponent(b: Any, z: Any, x: Any, y: Any) -> Any:
    one = b.full(1.0, x.type)
    return b.mul(z, b.log(b.select(b.eq(x, 0.0), one, x)))


def _pow_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    t, u = ts
    terms = [] if t is None else [b.scale(_pow_by_base(b, ys[0], *xs), t)]
    if u is not None:
        terms.append(b.mul(_pow_by_exponent(b, ys[0], *xs), u))
    return [b.add(*terms) if len(terms) == 2 else terms[0]]


elementwise(
    "pow",
    "x to the y; NaN when x < 0 and y is not an integer",
    np.power,
    FLOATS,
    arity=2,
    jvp=_pow_jvp,
    samples=([0.3, 1.0, 2.0, 5.0, 0.7], [-1.5, 2.0, 0.5, 3.0, 0.0]),
    kinks=([0.0, 0.0, -1.0, -2.0, np.nan, 1.0, -8.0, np.inf], [0.0, 2.0, 3.0, -2.0, 0.0, np.nan, 0.5, -1.0]),
)


def _atan2_partial(first: bool) -> Partial:
    def partial(b: Any, z: Any, y: Any, x: Any) -> Any:
        r2 = b.add(b.mul(x, x), b.mul(y, y))
        return b.div(x, r2) if first else b.neg(b.div(y, r2))

    return partial


elementwise(
    "atan2",
    "the angle of the point (x, y), operands in the order y, x",
    np.arctan2,
    FLOATS,
    arity=2,
    partials=(_atan2_partial(True), _atan2_partial(False)),
    samples=([1.0, -2.0, 0.5, -0.5], [0.5, 1.5, -2.0, -1.0]),
    kinks=([0.0, -0.0, 0.0, -0.0, 1.0], [0.0, 0.0, -0.0, -1.0, np.inf]),
)


def _over_length(b: Any, z: Any, x: Any) -> Any:
    """x / z; 0 at the origin, as for ``norm``."""
    return b.div(x, b.select(b.eq(z, 0.0), b.full(1.0, z.type), z))


elementwise(
    "hypot",
    "sqrt(x*x + y*y) without overflow",
    np.hypot,
    FLOATS,
    arity=2,
    partials=(lambda b, z, x, y: _over_length(b, z, x), lambda b, z, x, y: _over_length(b, z, y)),
    samples=([1.0, -2.0, 0.5, -0.5], [0.5, 1.5, -2.0, -1.0]),
    kinks=([0.0, np.inf, np.nan], [0.0, np.nan, 1.0]),
)
elementwise(
    "fmod",
    "the remainder of x / y with the sign of x (C's fmod)",
    np.fmod,
    FLOATS,
    arity=2,
    partials=(lambda b, z, x, y: b.full(1.0, x.type), lambda b, z, x, y: b.neg(b.trunc(b.div(x, y)))),
    samples=([5.5, -5.5, 0.3, 7.0], [2.0, 2.0, -1.0, 4.0]),
    kinks=([1.0, np.inf, 4.0], [0.0, 1.0, 2.0]),
)
