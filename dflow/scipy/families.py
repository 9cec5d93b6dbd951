"""Formulas of the distributions of ``scipy.stats`` in standard form, for ``dflow.scipy.stats``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sc

from dflow.scipy.special import incomplete_beta

Formula = Callable[..., Any]

LOG_2 = math.log(2)
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
EULER = 0.57721566490153286


def _all_positive(*shapes: Any) -> Any:
    holds: Any = True
    for s in shapes:
        holds = (s > 0) & holds
    return holds


@dataclass(frozen=True, kw_only=True)
class Family:
    """A distribution in standard form: formulas of a point of its support and of the shape parameters.

    ``low`` and ``high``: the ends of the support; ``inner``: a point in it; ``valid``: which shape parameters are;
    ``mean`` and ``var`` are of the shape parameters alone.
    """

    log_density: Formula
    cdf: Formula
    sf: Formula
    logcdf: Formula | None = None
    logsf: Formula | None = None
    ppf: Formula | None = None
    mean: Formula
    var: Formula
    low: float | Formula = -math.inf
    high: Formula = lambda *shapes: math.inf
    inner: float = 0.5
    valid: Formula = _all_positive

    def start(self, *shapes: Any) -> Any:
        """The lower end of the support."""
        return self.low(*shapes) if callable(self.low) else self.low

    def formula(self, method: str) -> Formula | None:
        """That of ``method``, by itself or by way of one that there is."""
        own: Formula | None = getattr(self, method)
        other = {"logcdf": self.cdf, "logsf": self.sf}.get(method)
        return own or (other and (lambda *args: np.log(other(*args))))


def mirrored(formula: Formula) -> Formula:
    """Of a distribution that is symmetric about 0: the part above a point, from that below."""
    return lambda y, *shapes: formula(-y, *shapes)


# -- continuous ----------------------------------------------------------------------------------------------------


def _t(y: Any, df: Any) -> Any:
    half = (df + 1) / 2
    return -sc.betaln(df / 2, 0.5) - np.log(df) / 2 - half * np.log1p(y * y / df)


def _t_cdf(y: Any, df: Any) -> Any:
    """By the incomplete beta function of the tail; about 0, where this has a root of y * y, by the first terms of a
    series."""
    near = y * y < 1e-8 * np.minimum(df, 1.0)
    away = np.where(near, 1.0, y)
    ratio = away * away / df
    low = ratio < 1
    p, q = np.where(low, 0.5, df / 2), np.where(low, df / 2, 0.5)
    tail = incomplete_beta(p, q, np.where(low, ratio, 1.0) / (1 + ratio), upper=low) / 2
    close = np.where(near, y, 0.0)
    series = 0.5 + close * np.exp(_t(0.0, df)) * (1 - (df + 1) / (6 * df) * close * close)
    return np.where(near, series, np.where(y < 0, tail, 1 - tail))


def _laplace_cdf(y: Any) -> Any:
    below, above = np.where(y < 0, y, 0.0), np.where(y < 0, 0.0, y)
    return np.where(y < 0, np.exp(below) / 2, 1 - np.exp(-above) / 2)


def _laplace_logcdf(y: Any) -> Any:
    return np.where(y < 0, y - LOG_2, np.log1p(-np.exp(-np.where(y < 0, 0.0, y)) / 2))


def _laplace_ppf(q: Any) -> Any:
    lower, upper = np.where(q < 0.5, q, 0.5), np.where(q < 0.5, 0.5, q)
    return np.where(q < 0.5, np.log(2 * lower), -np.log(2 * (1 - upper)))


def _lognorm(y: Any, s: Any) -> Any:
    return -((np.log(y) / s) ** 2) / 2 - np.log(s * y) - HALF_LOG_2PI


def _weibull_var(c: Any) -> Any:
    return sc.gamma(1 + 2 / c) - sc.gamma(1 + 1 / c) ** 2


def _truncnorm_part(low: Any, high: Any) -> Any:
    """The logarithm of the share of the normal distribution that lies between two points: by the tail on their side."""
    turned = low > 0
    first, last = np.where(turned, -high, low), np.where(turned, -low, high)
    below, above = sc.log_ndtr(first), sc.log_ndtr(last)
    none = below >= above
    return np.where(none, -np.inf, above + np.log1p(-np.exp(np.where(none, -1.0, below - above))))


def _truncnorm_logs(y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """The logarithms of the shares below and above a point; of nearly all, by the rest."""
    total = _truncnorm_part(a, b)
    below, above = _truncnorm_part(a, y) - total, _truncnorm_part(y, b) - total
    most = below > above
    least = np.where(most, above, below)
    rest = np.log1p(-np.exp(least))
    return np.where(most, rest, least), np.where(most, least, rest)


def _truncnorm_mean(a: Any, b: Any) -> Any:
    return _normal_density(a, a, b) - _normal_density(b, a, b)


def _truncnorm_var(a: Any, b: Any) -> Any:
    ends = [np.where(abs(e) < np.inf, e, 0.0) * _normal_density(e, a, b) for e in (a, b)]
    return 1 + ends[0] - ends[1] - _truncnorm_mean(a, b) ** 2


def _normal_density(y: Any, a: Any, b: Any) -> Any:
    return np.exp(-y * y / 2 - HALF_LOG_2PI - _truncnorm_part(a, b))


CONTINUOUS = {
    "norm": Family(
        log_density=lambda y: -y * y / 2 - HALF_LOG_2PI,
        cdf=sc.ndtr,
        sf=mirrored(sc.ndtr),
        logcdf=sc.log_ndtr,
        logsf=mirrored(sc.log_ndtr),
        ppf=sc.ndtri,
        mean=lambda: 0.0,
        var=lambda: 1.0,
    ),
    "t": Family(
        log_density=_t,
        cdf=_t_cdf,
        sf=mirrored(_t_cdf),
        mean=lambda df: np.where(df > 1, 0.0, np.inf),
        var=lambda df: np.where(df > 2, df / np.where(df > 2, df - 2, 1.0), np.where(df > 1, np.inf, np.nan)),
    ),
    "cauchy": Family(
        log_density=lambda y: -np.log(np.pi) - np.log1p(y * y),
        cdf=lambda y: np.arctan2(1.0, -y) / np.pi,
        sf=lambda y: np.arctan2(1.0, y) / np.pi,
        ppf=lambda q: np.tan(np.pi * (q - 0.5)) / ((q > 0) & (q < 1)),  # infinite at the ends
        mean=lambda: np.nan,
        var=lambda: np.nan,
    ),
    "logistic": Family(
        log_density=lambda y: sc.log_expit(y) + sc.log_expit(-y),
        cdf=sc.expit,
        sf=mirrored(sc.expit),
        logcdf=sc.log_expit,
        logsf=mirrored(sc.log_expit),
        ppf=sc.logit,
        mean=lambda: 0.0,
        var=lambda: math.pi**2 / 3,
    ),
    "laplace": Family(
        log_density=lambda y: -abs(y) - LOG_2,
        cdf=_laplace_cdf,
        sf=mirrored(_laplace_cdf),
        logcdf=_laplace_logcdf,
        logsf=mirrored(_laplace_logcdf),
        ppf=_laplace_ppf,
        mean=lambda: 0.0,
        var=lambda: 2.0,
    ),
    "gumbel_r": Family(
        log_density=lambda y: -y - np.exp(-y),
        cdf=lambda y: np.exp(-np.exp(-y)),
        sf=lambda y: -np.expm1(-np.exp(-y)),
        logcdf=lambda y: -np.exp(-y),
        ppf=lambda q: -np.log(-np.log(q)),
        mean=lambda: EULER,
        var=lambda: math.pi**2 / 6,
    ),
    "gumbel_l": Family(
        log_density=lambda y: y - np.exp(y),
        cdf=lambda y: -np.expm1(-np.exp(y)),
        sf=lambda y: np.exp(-np.exp(y)),
        logsf=lambda y: -np.exp(y),
        ppf=lambda q: np.log(-np.log1p(-q)),
        mean=lambda: -EULER,
        var=lambda: math.pi**2 / 6,
    ),
    "truncnorm": Family(
        log_density=lambda y, a, b: -y * y / 2 - HALF_LOG_2PI - _truncnorm_part(a, b),
        cdf=lambda y, a, b: np.exp(_truncnorm_logs(y, a, b)[0]),
        sf=lambda y, a, b: np.exp(_truncnorm_logs(y, a, b)[1]),
        logcdf=lambda y, a, b: _truncnorm_logs(y, a, b)[0],
        logsf=lambda y, a, b: _truncnorm_logs(y, a, b)[1],
        mean=_truncnorm_mean,
        var=_truncnorm_var,
        low=lambda a, b: a,
        high=lambda a, b: b,
        inner=0.0,
        valid=lambda a, b: a < b,
    ),
    "expon": Family(
        log_density=lambda y: -y,
        cdf=lambda y: -np.expm1(-y),
        sf=lambda y: np.exp(-y),
        logsf=lambda y: -y,
        ppf=lambda q: -np.log1p(-q),
        mean=lambda: 1.0,
        var=lambda: 1.0,
        low=0.0,
    ),
    "uniform": Family(
        log_density=lambda y: 0 * y,
        cdf=lambda y: y,
        sf=lambda y: 1 - y,
        ppf=lambda q: q,
        mean=lambda: 0.5,
        var=lambda: 1 / 12,
        low=0.0,
        high=lambda: 1.0,
    ),
    "halfnorm": Family(
        log_density=lambda y: -y * y / 2 + LOG_2 - HALF_LOG_2PI,
        cdf=lambda y: sc.erf(y * math.sqrt(0.5)),
        sf=lambda y: sc.erfc(y * math.sqrt(0.5)),
        logsf=lambda y: LOG_2 + sc.log_ndtr(-y),
        ppf=lambda q: math.sqrt(2.0) * sc.erfinv(q),
        mean=lambda: math.sqrt(2 / math.pi),
        var=lambda: 1 - 2 / math.pi,
        low=0.0,
    ),
    "gamma": Family(
        log_density=lambda y, a: sc.xlogy(a - 1, y) - y - sc.gammaln(a),
        cdf=lambda y, a: sc.gammainc(a, y),
        sf=lambda y, a: sc.gammaincc(a, y),
        mean=lambda a: a,
        var=lambda a: a,
        low=0.0,
    ),
    "chi2": Family(
        log_density=lambda y, df: sc.xlogy(df / 2 - 1, y) - y / 2 - sc.gammaln(df / 2) - df / 2 * LOG_2,
        cdf=lambda y, df: sc.gammainc(df / 2, y / 2),
        sf=lambda y, df: sc.gammaincc(df / 2, y / 2),
        mean=lambda df: df,
        var=lambda df: 2 * df,
        low=0.0,
    ),
    "beta": Family(
        log_density=lambda y, a, b: sc.xlogy(a - 1, y) + sc.xlog1py(b - 1, -y) - sc.betaln(a, b),
        cdf=lambda y, a, b: sc.betainc(a, b, y),
        sf=lambda y, a, b: sc.betaincc(a, b, y),
        mean=lambda a, b: a / (a + b),
        var=lambda a, b: a * b / ((a + b) ** 2 * (a + b + 1)),
        low=0.0,
        high=lambda a, b: 1.0,
    ),
    "lognorm": Family(
        log_density=_lognorm,
        cdf=lambda y, s: sc.ndtr(np.log(y) / s),
        sf=lambda y, s: sc.ndtr(-np.log(y) / s),
        logcdf=lambda y, s: sc.log_ndtr(np.log(y) / s),
        logsf=lambda y, s: sc.log_ndtr(-np.log(y) / s),
        ppf=lambda q, s: np.exp(s * sc.ndtri(q)),
        mean=lambda s: np.exp(s * s / 2),
        var=lambda s: np.exp(s * s) * np.expm1(s * s),
        low=math.ulp(0.0),
    ),
    "weibull_min": Family(
        log_density=lambda y, c: np.log(c) + sc.xlogy(c - 1, y) - y**c,
        cdf=lambda y, c: -np.expm1(-(y**c)),
        sf=lambda y, c: np.exp(-(y**c)),
        logsf=lambda y, c: -(y**c),
        ppf=lambda q, c: (-np.log1p(-q)) ** (1 / c),
        mean=lambda c: sc.gamma(1 + 1 / c),
        var=_weibull_var,
        low=0.0,
    ),
    "pareto": Family(
        log_density=lambda y, b: np.log(b) - (b + 1) * np.log(y),
        cdf=lambda y, b: -np.expm1(-b * np.log(y)),
        sf=lambda y, b: np.exp(-b * np.log(y)),
        logsf=lambda y, b: -b * np.log(y),
        ppf=lambda q, b: np.exp(-np.log1p(-q) / b),
        mean=lambda b: np.where(b > 1, b / np.where(b > 1, b - 1, 1.0), np.inf),
        var=lambda b: np.where(b > 2, b / np.where(b > 2, (b - 1) ** 2 * (b - 2), 1.0), np.inf),
        low=1.0,
        inner=2.0,
    ),
}


# -- discrete ------------------------------------------------------------------------------------------------------


def _binom(k: Any, n: Any, p: Any) -> Any:
    ways = sc.gammaln(n + 1) - sc.gammaln(k + 1) - sc.gammaln(n - k + 1)
    return ways + sc.xlogy(k, p) + sc.xlog1py(n - k, -p)


def _binom_part(part: Formula, whole: float) -> Formula:
    """P(X <= k) or P(X > k); at k = n all of it, or nothing."""

    def of(k: Any, n: Any, p: Any) -> Any:
        more = np.where(k < n, n - k, 1.0)
        return np.where(k < n, part(k + 1, more, p), whole)

    return of


def _nbinom(k: Any, n: Any, p: Any) -> Any:
    return sc.gammaln(n + k) - sc.gammaln(k + 1) - sc.gammaln(n) + sc.xlogy(n, p) + sc.xlog1py(k, -p)


DISCRETE = {
    "poisson": Family(
        log_density=lambda k, mu: sc.xlogy(k, mu) - sc.gammaln(k + 1) - mu,
        cdf=lambda k, mu: sc.gammaincc(k + 1, mu),
        sf=lambda k, mu: sc.gammainc(k + 1, mu),
        mean=lambda mu: mu,
        var=lambda mu: mu,
        low=0.0,
        inner=0.0,
        valid=lambda mu: mu >= 0,
    ),
    "binom": Family(
        log_density=_binom,
        cdf=_binom_part(sc.betaincc, 1.0),
        sf=_binom_part(sc.betainc, 0.0),
        mean=lambda n, p: n * p,
        var=lambda n, p: n * p * (1 - p),
        low=0.0,
        inner=0.0,
        high=lambda n, p: n,
        valid=lambda n, p: (n >= 0) & (n == np.floor(n)) & (p >= 0) & (p <= 1),
    ),
    "bernoulli": Family(
        log_density=lambda k, p: _binom(k, 1.0, p),
        cdf=lambda k, p: np.where(k < 1, 1 - p, 1.0),
        sf=lambda k, p: np.where(k < 1, p, 0.0),
        mean=lambda p: p,
        var=lambda p: p * (1 - p),
        low=0.0,
        inner=0.0,
        high=lambda p: 1.0,
        valid=lambda p: (p >= 0) & (p <= 1),
    ),
    "geom": Family(
        log_density=lambda k, p: sc.xlog1py(k - 1, -p) + np.log(p),
        cdf=lambda k, p: -np.expm1(sc.xlog1py(k, -p)),
        sf=lambda k, p: np.exp(sc.xlog1py(k, -p)),
        logsf=lambda k, p: sc.xlog1py(k, -p),
        mean=lambda p: 1 / p,
        var=lambda p: (1 - p) / (p * p),
        low=1.0,
        inner=1.0,
        valid=lambda p: (p > 0) & (p <= 1),
    ),
    "nbinom": Family(
        log_density=_nbinom,
        cdf=lambda k, n, p: sc.betainc(n, k + 1, p),
        sf=lambda k, n, p: sc.betaincc(n, k + 1, p),
        mean=lambda n, p: n * (1 - p) / p,
        var=lambda n, p: n * (1 - p) / (p * p),
        low=0.0,
        inner=0.0,
        valid=lambda n, p: (n > 0) & (p > 0) & (p <= 1),
    ),
}

FAMILIES = {**CONTINUOUS, **DISCRETE}
