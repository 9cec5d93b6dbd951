"""Densities and distribution functions of common distributions, with the names and parameters of ``scipy.stats``.

Each distribution has ``logpdf`` and ``pdf`` (``logpmf`` and ``pmf`` on integers), most have ``cdf`` and ``sf``:
``norm.logpdf(x, loc=0, scale=1)``, ``gamma.cdf(x, a, loc=0, scale=1)``. They work on arrays and in traced code, and
have derivatives by all parameters. Outside of its support a density is 0, and so is its derivative; parameters that no
distribution has give NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

import dflow.scipy.special
from dflow.numpy.dispatch import own
from dflow.tracing.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way
special: Any = dflow.scipy.special
INF = math.inf
Formula = Callable[..., Any]


def _public(name: str, parameters: Sequence[str], defaults: dict[str, float], formula: Formula) -> Any:
    """``name(x, *parameters)``, by position or by name."""

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(parameters, args)), **kwargs}
        values = {**defaults, **given}
        if set(values) != set(parameters) or len(given) < len(args) + len(kwargs):
            raise TypeError(f"{name} takes x, {', '.join(parameters)}; got {1 + len(args)} arguments and {[*kwargs]}")
        x = lift(x) * 1.0
        numbers = [lift(values[p], x.dtype) for p in parameters]
        return formula(_checked(x, parameters, numbers), *numbers)

    call.__name__ = call.__qualname__ = name
    return own(call)


def _checked(x: Any, parameters: Sequence[str], numbers: Sequence[Any]) -> Any:
    """``x``, NaN where a parameter is none of the distribution."""
    for name, number in zip(parameters, numbers):
        if name == "p":
            fits = (number >= 0) & (number <= 1)
        elif name in ("n", "mu"):
            fits = number >= 0
        else:
            fits = number > 0
        x = x if name == "loc" else np.where(fits, x, np.nan)
    return x


def _within(z: Any, low: Any, high: Any, harmless: Any, formula: Formula, before: float, after: float) -> Any:
    """``formula(z)`` between the bounds, which are open if infinite, and of NaN; constants below and above. There the
    formula sees a harmless number."""
    outside = (z < low) | (z > high) | np.isinf(z)
    found = formula(np.where(outside, np.zeros((), z.dtype) + harmless, z))
    ends = np.where(z < harmless, np.full((), before, found.dtype), np.full((), after, found.dtype))
    return np.where(outside, ends, found)


class Continuous:
    """A distribution on numbers, from formulas of its standard form: of ``z = (x - loc) / scale`` and the shapes."""

    def __init__(
        self,
        shapes: str,
        log_density: Formula,
        below: Formula | None = None,
        above: Formula | None = None,
        support: tuple[float, float] = (-INF, INF),
        harmless: float = 1.0,
    ):
        parameters, defaults = (*shapes.split(), "loc", "scale"), {"loc": 0.0, "scale": 1.0}

        def standard(formula: Formula, before: float, after: float) -> Formula:
            def of(x: Any, *given: Any) -> Any:
                *shapes, loc, scale = given
                z = (x - loc) / scale
                return _within(z, *support, harmless, lambda z: formula(z, *shapes), before, after)

            return of

        def log_of_density(x: Any, *given: Any) -> Any:
            return standard(log_density, -INF, -INF)(x, *given) - np.log(given[-1])

        def public(name: str, formula: Formula) -> Any:
            return _public(name, parameters, defaults, formula)

        self.logpdf = public("logpdf", log_of_density)
        self.pdf = public("pdf", lambda *given: np.exp(log_of_density(*given)))
        if below is not None:
            rest: Formula = above or (lambda z, *shapes: 1.0 - below(z, *shapes))
            self.cdf = public("cdf", standard(below, 0.0, 1.0))
            self.sf = public("sf", standard(rest, 1.0, 0.0))


class Discrete:
    """A distribution on the integers ``k = x - loc``, which ``support`` of the parameters bounds."""

    def __init__(self, shapes: str, log_mass: Formula, support: Formula, below: Formula | None = None):
        parameters, defaults = (*shapes.split(), "loc"), {"loc": 0.0}

        def log_of_mass(x: Any, *given: Any) -> Any:
            *shapes, loc = given
            k = x - loc
            low, high = support(*shapes)
            found = _within(k, low, high, low, lambda k: log_mass(k, *shapes), -INF, -INF)
            return np.where((k == np.floor(k)) | np.isnan(k), found, np.full((), -INF, found.dtype))

        def up_to(x: Any, *given: Any) -> Any:
            *shapes, loc = given
            low, high = support(*shapes)
            k = np.floor(x - loc)
            assert below is not None
            return _within(k, low, high, low, lambda k: below(k, *shapes), 0.0, 1.0)

        self.logpmf = _public("logpmf", parameters, defaults, log_of_mass)
        self.pmf = _public("pmf", parameters, defaults, lambda *given: np.exp(log_of_mass(*given)))
        if below is not None:
            self.cdf = _public("cdf", parameters, defaults, up_to)


def _log_t(z: Any, df: Any) -> Any:
    return -0.5 * (df + 1) * np.log1p(z * z / df) - 0.5 * np.log(df) - special.betaln(0.5, 0.5 * df)


def _log_chi2(z: Any, df: Any) -> Any:
    return special.xlogy(0.5 * df - 1, 0.5 * z) - 0.5 * z - special.gammaln(0.5 * df) - math.log(2)


POSITIVE = (0.0, INF)
norm = Continuous(
    "", lambda z: -0.5 * z * z - 0.5 * math.log(2 * math.pi), lambda z: special.ndtr(z), lambda z: special.ndtr(-z)
)
uniform = Continuous("", lambda z: 0.0 * z, lambda z: z, support=(0.0, 1.0))
expon = Continuous("", lambda z: -z, lambda z: -np.expm1(-z), lambda z: np.exp(-z), POSITIVE)
laplace = Continuous(
    "",
    lambda z: -np.abs(z) - math.log(2),
    lambda z: 0.5 + 0.5 * np.sign(z) * -np.expm1(-np.abs(z)),
    lambda z: 0.5 - 0.5 * np.sign(z) * -np.expm1(-np.abs(z)),
)
logistic = Continuous(
    "",
    lambda z: special.log_expit(z) + special.log_expit(-z),
    lambda z: special.expit(z),
    lambda z: special.expit(-z),
)
cauchy = Continuous("", lambda z: -np.log1p(z * z) - math.log(math.pi), lambda z: 0.5 + np.arctan(z) / math.pi)
gumbel_r = Continuous("", lambda z: -z - np.exp(-z), lambda z: np.exp(-np.exp(-z)), lambda z: -np.expm1(-np.exp(-z)))
halfnorm = Continuous(
    "",
    lambda z: 0.5 * math.log(2 / math.pi) - 0.5 * z * z,
    lambda z: special.erf(z * math.sqrt(0.5)),
    lambda z: special.erfc(z * math.sqrt(0.5)),
    POSITIVE,
)
gamma = Continuous(
    "a",
    lambda z, a: special.xlogy(a - 1, z) - z - special.gammaln(a),
    lambda z, a: special.gammainc(a, z),
    lambda z, a: special.gammaincc(a, z),
    POSITIVE,
)
chi2 = Continuous(
    "df",
    _log_chi2,
    lambda z, df: special.gammainc(0.5 * df, 0.5 * z),
    lambda z, df: special.gammaincc(0.5 * df, 0.5 * z),
    POSITIVE,
)
beta = Continuous(
    "a b",
    lambda z, a, b: special.xlogy(a - 1, z) + special.xlog1py(b - 1, -z) - special.betaln(a, b),
    lambda z, a, b: special.betainc(a, b, z),
    lambda z, a, b: special.betaincc(a, b, z),
    (0.0, 1.0),
    0.5,
)
t = Continuous("df", _log_t)
lognorm = Continuous(
    "s",
    lambda z, s: -0.5 * (np.log(z) / s) ** 2 - np.log(s * z) - 0.5 * math.log(2 * math.pi),
    lambda z, s: special.ndtr(np.log(z) / s),
    lambda z, s: special.ndtr(-np.log(z) / s),
    (math.ulp(0.0), INF),
)
weibull_min = Continuous(
    "c",
    lambda z, c: np.log(c) + special.xlogy(c - 1, z) - z**c,
    lambda z, c: -np.expm1(-(z**c)),
    lambda z, c: np.exp(-(z**c)),
    POSITIVE,
)
pareto = Continuous(
    "b",
    lambda z, b: np.log(b) - (b + 1) * np.log(z),
    lambda z, b: -np.expm1(-b * np.log(z)),
    lambda z, b: z**-b,
    (1.0, INF),
    2.0,
)

bernoulli = Discrete(
    "p",
    lambda k, p: special.xlogy(k, p) + special.xlog1py(1 - k, -p),
    lambda p: (0.0, 1.0),
    lambda k, p: np.where(k < 1, 1 - p, 1.0),
)
poisson = Discrete(
    "mu",
    lambda k, mu: special.xlogy(k, mu) - special.gammaln(k + 1) - mu,
    lambda mu: POSITIVE,
    lambda k, mu: special.gammaincc(k + 1, mu),
)
geom = Discrete(
    "p",
    lambda k, p: special.xlog1py(k - 1, -p) + np.log(p),
    lambda p: (1.0, INF),
    lambda k, p: -np.expm1(special.xlog1py(k, -p)),
)
binom = Discrete(
    "n p",
    lambda k, n, p: special.xlogy(k, p) + special.xlog1py(n - k, -p) - special.betaln(k + 1, n - k + 1) - np.log1p(n),
    lambda n, p: (0.0, n),
)
nbinom = Discrete(
    "n p",
    lambda k, n, p: special.xlogy(n, p) + special.xlog1py(k, -p) - special.betaln(k + 1, n) - np.log(n + k),
    lambda n, p: POSITIVE,
)

__all__ = [
    *("bernoulli", "beta", "binom", "cauchy", "chi2", "expon", "gamma", "geom", "gumbel_r", "halfnorm", "laplace"),
    *("logistic", "lognorm", "nbinom", "norm", "pareto", "poisson", "t", "uniform", "weibull_min"),
]
