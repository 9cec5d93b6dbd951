"""Densities and distribution functions of ``scipy.stats`` on traced arrays, with derivatives.

The distributions are SciPy's objects; what is here stands for their methods where an argument is traced. Formulas are
those of their documentation; results are float64, as SciPy's. Outside of the support a density is 0 and its derivatives
are; parameters that are not valid give NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sc
import scipy.stats

from dflow.numpy.dispatch import FUNCTIONS, located
from dflow.scipy import frozen
from dflow.tracing.array import Array
from dflow.tracing.context import builder
from dflow.tracing.lift import lift

Formula = Callable[..., Any]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Family:
    """A distribution in standard form: formulas of a point of its support and of the shape parameters.

    ``low`` and ``high``: the ends of the support; ``inner``: a point in it; ``valid``: which shape parameters are.
    """

    log_density: Formula
    cdf: Formula | None = None
    sf: Formula | None = None
    logcdf: Formula | None = None
    logsf: Formula | None = None
    ppf: Formula | None = None
    low: float = -math.inf
    high: Formula = lambda *shapes: math.inf
    inner: float = 0.5
    valid: Formula = lambda *shapes: _all(s > 0 for s in shapes)

    def formula(self, method: str) -> Formula | None:
        """That of ``method``, by itself or by way of one that there is."""
        own: Formula | None = getattr(self, method)
        other = {"logcdf": self.cdf, "logsf": self.sf}.get(method)
        return own or (other and (lambda *args: np.log(other(*args))))


def _all(conditions: Any) -> Any:
    holds: Any = True
    for c in conditions:
        holds = c & holds
    return holds


def _t(y: Any, df: Any) -> Any:
    half = (df + 1) / 2
    return sc.gammaln(half) - sc.gammaln(df / 2) - np.log(df * np.pi) / 2 - half * np.log1p(y * y / df)


def _lognorm(y: Any, s: Any) -> Any:
    return -((np.log(y) / s) ** 2) / 2 - np.log(s * y) - HALF_LOG_2PI


def _binom(k: Any, n: Any, p: Any) -> Any:
    ways = sc.gammaln(n + 1) - sc.gammaln(k + 1) - sc.gammaln(n - k + 1)
    return ways + sc.xlogy(k, p) + sc.xlog1py(n - k, -p)


FAMILIES = {
    "norm": Family(
        lambda y: -y * y / 2 - HALF_LOG_2PI,
        *(sc.ndtr, lambda y: sc.ndtr(-y), sc.log_ndtr, lambda y: sc.log_ndtr(-y), sc.ndtri),
    ),
    "t": Family(_t),
    "cauchy": Family(
        lambda y: -np.log(np.pi) - np.log1p(y * y),
        lambda y: np.arctan2(1.0, -y) / np.pi,
        lambda y: np.arctan2(1.0, y) / np.pi,
        ppf=lambda q: np.tan(np.pi * (q - 0.5)),
    ),
    "logistic": Family(
        lambda y: -abs(y) - 2 * np.log1p(np.exp(-abs(y))),
        *(sc.expit, lambda y: sc.expit(-y), sc.log_expit, lambda y: sc.log_expit(-y), sc.logit),
    ),
    "laplace": Family(
        lambda y: -abs(y) - math.log(2),
        lambda y: np.where(y < 0, np.exp(-abs(y)) / 2, 1 - np.exp(-abs(y)) / 2),
        lambda y: np.where(y > 0, np.exp(-abs(y)) / 2, 1 - np.exp(-abs(y)) / 2),
    ),
    "expon": Family(
        lambda y: -y,
        *(lambda y: -np.expm1(-y), lambda y: np.exp(-y), lambda y: np.log(-np.expm1(-y)), lambda y: -y),
        ppf=lambda q: -np.log1p(-q),
        low=0.0,
    ),
    "uniform": Family(lambda y: 0 * y, lambda y: y, lambda y: 1 - y, ppf=lambda q: q, low=0.0, high=lambda: 1.0),
    "gamma": Family(
        lambda y, a: sc.xlogy(a - 1, y) - y - sc.gammaln(a),
        lambda y, a: sc.gammainc(a, y),
        lambda y, a: sc.gammaincc(a, y),
        low=0.0,
    ),
    "chi2": Family(
        lambda y, df: sc.xlogy(df / 2 - 1, y) - y / 2 - sc.gammaln(df / 2) - df / 2 * math.log(2),
        lambda y, df: sc.gammainc(df / 2, y / 2),
        lambda y, df: sc.gammaincc(df / 2, y / 2),
        low=0.0,
    ),
    "beta": Family(
        lambda y, a, b: sc.xlogy(a - 1, y) + sc.xlog1py(b - 1, -y) - sc.betaln(a, b), low=0.0, high=lambda a, b: 1.0
    ),
    "lognorm": Family(
        _lognorm,
        lambda y, s: sc.ndtr(np.log(y) / s),
        lambda y, s: sc.ndtr(-np.log(y) / s),
        low=math.ulp(0.0),
    ),
    "weibull_min": Family(
        lambda y, c: np.log(c) + sc.xlogy(c - 1, y) - y**c,
        lambda y, c: -np.expm1(-(y**c)),
        lambda y, c: np.exp(-(y**c)),
        low=0.0,
    ),
    "poisson": Family(
        lambda k, mu: sc.xlogy(k, mu) - sc.gammaln(k + 1) - mu,
        lambda k, mu: sc.gammaincc(k + 1, mu),
        lambda k, mu: sc.gammainc(k + 1, mu),
        low=0.0,
        inner=0.0,
        valid=lambda mu: mu >= 0,
    ),
    "binom": Family(
        _binom,
        low=0.0,
        inner=0.0,
        high=lambda n, p: n,
        valid=lambda n, p: (n >= 0) & (n == np.floor(n)) & (p >= 0) & (p <= 1),
    ),
    "bernoulli": Family(
        lambda k, p: _binom(k, 1.0, p),
        low=0.0,
        inner=0.0,
        high=lambda p: 1.0,
        valid=lambda p: (p >= 0) & (p <= 1),
    ),
}


def _parameters(dist: Any, args: Sequence[Any], kwargs: dict[str, Any], discrete: bool) -> tuple[list[Any], Any, Any]:
    """Shape parameters, location and scale, as SciPy takes them: by position or by name."""
    names = [n.strip() for n in (dist.shapes or "").split(",") if n.strip()]
    given = {**dict(zip([*names, "loc", *([] if discrete else ["scale"])], args)), **kwargs}
    missing = [n for n in names if n not in given]
    unknown = given.keys() - {*names, "loc", "scale"}
    if missing or unknown or len(args) > len(names) + 2 - discrete:
        raise TypeError(f"scipy.stats.{dist.name} takes {', '.join([*names, 'loc'])}, got {', '.join(given) or 'none'}")
    values = [_double(given[n]) for n in names]
    return values, _double(given.get("loc", 0.0)), _double(given.get("scale", 1.0))


def _double(x: Any) -> Array:
    return lift(x).astype(np.float64)


def _family(dist: Any, method: str, formula: str) -> tuple[Family, Formula]:
    family = FAMILIES.get(dist.name)
    found = None if family is None else family.formula(formula)
    if family is None or found is None:
        raise TypeError(
            f"scipy.stats.{dist.name}.{method} is not supported on traced arrays; write its formula with scipy.special"
        )
    return family, found


def _density(dist: Any, method: str, x: Any, args: Any, kwargs: Any, discrete: bool) -> Any:
    family, formula = _family(dist, method, "log_density")
    shapes, loc, scale = _parameters(dist, args, kwargs, discrete)
    y = (_double(x) - loc) / scale
    inside = (y >= family.low) & (y <= family.high(*shapes))
    if discrete:  # by whose points there is no derivative
        inside, y = inside & (y == np.floor(y)), np.floor(y)
    found = formula(np.where(inside, y, family.inner), *shapes) - np.log(scale)
    return np.where(family.valid(*shapes) & (scale > 0) & ~np.isnan(y), np.where(inside, found, -np.inf), np.nan)


# What a method gives below and above the support.
_ENDS = {"cdf": (0.0, 1.0), "sf": (1.0, 0.0), "logcdf": (-np.inf, 0.0), "logsf": (0.0, -np.inf)}


def _distribution(dist: Any, method: str, x: Any, args: Any, kwargs: Any, discrete: bool) -> Any:
    family, formula = _family(dist, method, method)
    shapes, loc, scale = _parameters(dist, args, kwargs, discrete)
    y = (_double(x) - loc) / scale
    y = np.floor(y) if discrete else y
    below, above = y < family.low, y > family.high(*shapes)
    found = formula(np.where(below | above, family.inner, y), *shapes)
    found = np.where(below, _ENDS[method][0], np.where(above, _ENDS[method][1], found))
    return np.where(family.valid(*shapes) & (scale > 0), found, np.nan)


def _quantile(dist: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
    family, formula = _family(dist, "ppf", "ppf")
    shapes, loc, scale = _parameters(dist, args, kwargs, discrete=False)
    q = _double(q)
    inside = (q >= 0) & (q <= 1) & family.valid(*shapes) & (scale > 0)
    return np.where(inside, formula(np.where(inside, q, 0.5), *shapes) * scale + loc, np.nan)


def _method(name: str, discrete: bool) -> Any:
    def call(dist: Any, x: Any, /, *args: Any, **kwargs: Any) -> Any:
        if name in _ENDS:
            return _distribution(dist, name, x, args, kwargs, discrete)
        found = _density(dist, name, x, args, kwargs, discrete)
        return found if name.startswith("log") else np.exp(found)

    return call


for _cls, _names, _discrete in (
    (scipy.stats.rv_continuous, ("pdf", "logpdf", *_ENDS), False),
    (scipy.stats.rv_discrete, ("pmf", "logpmf", *_ENDS), True),
):
    for _name in _names:
        FUNCTIONS[getattr(_cls, _name)] = located(_method(_name, _discrete))
FUNCTIONS[scipy.stats.rv_continuous.ppf] = located(_quantile)


# -- of several variables ------------------------------------------------------------------------------------------


def _covariance(cov: Any, size: int | None, singular: bool) -> tuple[Any, Any, int]:
    """The Cholesky factor of a covariance (number, variances or matrix), the log of its determinant, its size."""
    if singular:
        raise TypeError("a covariance that may be singular (allow_singular=True) is not supported on traced arrays")
    c = _double(cov)
    if c.ndim < 2:
        size = size or (c.shape[0] if c.ndim else 1)
        c = c * np.eye(size)
    factor = np.linalg.cholesky(c)
    return factor, 2 * np.sum(np.log(np.diagonal(factor))), c.shape[0]


def _normal_log_density(dist: Any, x: Any, mean: Any = None, cov: Any = 1, allow_singular: bool = False) -> Any:
    size = None if mean is None or not lift(mean).ndim else lift(mean).shape[0]
    factor, log_det, size = _covariance(cov, size, allow_singular)
    x = _double(x)
    x = x.reshape((*x.shape, 1)) if size == 1 and (x.ndim < 2 or x.shape[-1] != 1) else x
    away = x - (0.0 if mean is None else _double(mean))
    rows = np.linalg.solve(factor, away.reshape((-1, size)).T)
    found = -(np.sum(rows * rows, axis=0) + log_det) / 2 - size * HALF_LOG_2PI
    return found.reshape([n for n in away.shape[:-1] if n != 1])


def _normal_entropy(dist: Any, mean: Any = None, cov: Any = 1) -> Any:
    size = None if mean is None or not lift(mean).ndim else lift(mean).shape[0]
    _, log_det, size = _covariance(cov, size, False)
    return log_det / 2 + size * (HALF_LOG_2PI + 0.5)


def _dirichlet_log_density(dist: Any, x: Any, alpha: Any) -> Any:
    x, alpha = _double(x), _double(alpha)
    if x.shape[0] == alpha.shape[0] - 1:
        x = np.concatenate([x, 1 - np.sum(x, axis=0, keepdims=True)])
    fits: Any = np.all(abs(np.sum(x, axis=0) - 1) <= 1e-9) & np.all(x >= 0) & np.all(alpha > 0)
    message = "scipy.stats.dirichlet takes shares that sum to 1, and parameters greater than 0"
    builder().check(fits.value, error="ValueError", message=message)
    powers = sc.xlogy((alpha - 1).reshape((-1, *(1,) * (x.ndim - 1))), x)
    return np.sum(powers, axis=0) + sc.gammaln(np.sum(alpha)) - np.sum(sc.gammaln(alpha))


def _exponential(log_density: Formula) -> Formula:
    return lambda *args, **kwargs: np.exp(log_density(*args, **kwargs))


for _object, _log_density in (
    (scipy.stats.multivariate_normal, _normal_log_density),
    (scipy.stats.dirichlet, _dirichlet_log_density),
):
    FUNCTIONS[type(_object).logpdf] = located(_log_density)
    FUNCTIONS[type(_object).pdf] = located(_exponential(_log_density))
FUNCTIONS[type(scipy.stats.multivariate_normal).entropy] = located(_normal_entropy)

dirichlet, multivariate_normal = scipy.stats.dirichlet, scipy.stats.multivariate_normal
globals().update({name: getattr(scipy.stats, name) for name in FAMILIES})
frozen.register([*(getattr(scipy.stats, name) for name in FAMILIES), dirichlet, multivariate_normal])
__all__ = [*FAMILIES, "dirichlet", "multivariate_normal"]
