"""Methods of the distributions of ``scipy.stats`` on traced arrays, with derivatives.

The distributions are SciPy's objects, frozen ones too; what is here stands for their methods where an argument or a
parameter is traced. Formulas are those of their documentation (``families``); results are float64, as SciPy's. Outside
of the support a density is 0 and its derivatives are; parameters that are not valid give NaN.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.special as sc
import scipy.stats

from dflow.errors import TraceError, failure
from dflow.numpy.dispatch import CALLABLES, CREATION, FUNCTIONS, any_traced, located
from dflow.scipy.families import FAMILIES, HALF_LOG_2PI, Family, Formula
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift
from dflow.tracing.context import builder


def _discrete(dist: Any) -> bool:
    return isinstance(dist, scipy.stats.rv_discrete)


def _parameters(dist: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], Any, Any]:
    """Shape parameters, location and scale, as SciPy takes them: by position or by name."""
    names = [n.strip() for n in (dist.shapes or "").split(",") if n.strip()]
    allowed = [*names, "loc", *([] if _discrete(dist) else ["scale"])]
    given = {**dict(zip(allowed, args)), **kwargs}
    twice = len(given) < len(args) + len(kwargs)
    if not {*names} <= given.keys() <= {*allowed} or twice:
        raise TypeError(f"scipy.stats.{dist.name} takes {', '.join(allowed)}, got {', '.join(given) or 'none'}")
    values = [_double(given[n]) for n in names]
    return values, _double(given.get("loc", 0.0)), _double(given.get("scale", 1.0))


def _double(x: Any) -> Array:
    return lift(x).astype(np.float64)


def _family(dist: Any, method: str, formula: str) -> tuple[Family, Formula]:
    ours = type(dist) is type(getattr(scipy.stats, dist.name, None))  # not another of the same name
    family = FAMILIES.get(dist.name) if ours else None
    found = None if family is None else family.formula(formula)
    if family is None or found is None:
        raise _refusal(dist, method)
    return family, found


# -- methods -------------------------------------------------------------------------------------------------------


def _log_density(dist: Any, method: str, x: Any, args: Any, kwargs: Any) -> Any:
    family, formula = _family(dist, method, "log_density")
    shapes, loc, scale = _parameters(dist, args, kwargs)
    y = (_double(x) - loc) / scale
    inside = (y >= family.start(*shapes)) & (y <= family.high(*shapes)) & (abs(y) < np.inf)
    if _discrete(dist):  # by whose points there is no derivative
        inside, y = inside & (y == np.floor(y)), np.floor(y)
    found = formula(np.where(inside, y, family.inner), *shapes) - np.log(scale)
    return np.where(family.valid(*shapes) & (scale > 0) & ~np.isnan(y), np.where(inside, found, -np.inf), np.nan)


def _density(dist: Any, method: str, x: Any, args: Any, kwargs: Any) -> Any:
    return np.exp(_log_density(dist, method, x, args, kwargs))


# What a method gives below and above the support.
_ENDS = {"cdf": (0.0, 1.0), "sf": (1.0, 0.0), "logcdf": (-np.inf, 0.0), "logsf": (0.0, -np.inf)}


def _distribution(dist: Any, method: str, x: Any, args: Any, kwargs: Any) -> Any:
    family, formula = _family(dist, method, method)
    shapes, loc, scale = _parameters(dist, args, kwargs)
    y = (_double(x) - loc) / scale
    y = np.floor(y) if _discrete(dist) else y
    below, above = (y < family.start(*shapes)) | (y == -np.inf), (y > family.high(*shapes)) | (y == np.inf)
    found = formula(np.where(below | above, family.inner, y), *shapes)
    found = np.where(below, _ENDS[method][0], np.where(above, _ENDS[method][1], found))
    return np.where(family.valid(*shapes) & (scale > 0) & ~np.isnan(y), found, np.nan)


def _quantile(dist: Any, method: str, q: Any, args: Any, kwargs: Any) -> Any:
    family, formula = _family(dist, method, "ppf")
    shapes, loc, scale = _parameters(dist, args, kwargs)
    q = _double(q)
    inside = (q >= 0) & (q <= 1) & family.valid(*shapes) & (scale > 0)
    return np.where(inside, formula(np.where(inside, q, 0.5), *shapes) * scale + loc, np.nan)


_OF_POINTS: dict[str, Formula] = {
    **dict.fromkeys(("logpdf", "logpmf"), _log_density),
    **dict.fromkeys(("pdf", "pmf"), _density),
    **dict.fromkeys(_ENDS, _distribution),
    "ppf": _quantile,
}


def _of_points(name: str) -> Any:
    def call(dist: Any, x: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _OF_POINTS[name](dist, name, x, args, kwargs)

    return call


def _moment(name: str) -> Any:
    def call(dist: Any, *args: Any, **kwargs: Any) -> Any:
        family, formula = _family(dist, name, "mean" if name == "mean" else "var")
        shapes, loc, scale = _parameters(dist, args, kwargs)
        found = formula(*shapes)
        result: Any = {
            "mean": lambda: loc + scale * found,
            "var": lambda: 0 * loc + scale * scale * found,
            "std": lambda: 0 * loc + scale * np.sqrt(found),
        }[name]()
        return np.where(family.valid(*shapes) & (scale > 0), result, np.nan)

    return call


_FORMULA = "write its formula with scipy.special, or compute it outside and pass it as an argument"
_MENDS = {
    "rvs": "draw random numbers outside, and pass them as an argument; or use dflow.random, whose keys are arguments",
    **dict.fromkeys(("fit", "fit_loc_scale", "nnlf"), "minimize the negative sum of logpdf, which has derivatives"),
    **dict.fromkeys(("stats", "moment"), "mean, var and std are supported"),
    **dict.fromkeys(("isf", "median", "interval", "entropy", "expect", "support"), _FORMULA),
}


def _refusal(dist: Any, method: str) -> Exception:
    dist = getattr(dist, "dist", dist)
    name = getattr(dist, "name", None) or type(dist).__name__.removesuffix("_gen").removesuffix("_frozen")
    how = "would be drawn once, while tracing" if method == "rvs" else "is not supported on traced arrays"
    return failure(TraceError, f"scipy.stats.{name}.{method} {how}", mend=_MENDS.get(method, _FORMULA))


def _refused(name: str) -> Any:
    def call(dist: Any, /, *args: Any, **kwargs: Any) -> Any:
        raise _refusal(dist, name)

    return call


METHODS = {
    **{name: _of_points(name) for name in _OF_POINTS},
    **{name: _moment(name) for name in ("mean", "var", "std")},
    **{name: _refused(name) for name in _MENDS},
}


# -- frozen distributions ------------------------------------------------------------------------------------------


def _freeze(dist: Any, *args: Any, **kwargs: Any) -> Any:
    """SciPy's frozen object with traced parameters, without its constructor, which looks at their numbers."""
    _parameters(dist, args, kwargs)
    frozen: Any = object.__new__(FROZEN_DISCRETE if _discrete(dist) else FROZEN_CONTINUOUS)
    frozen.dist, frozen.args, frozen.kwds = dist, args, kwargs
    return frozen


def _parts(frozen: Any) -> tuple[Any, Sequence[Any], dict[str, Any]]:
    """The distribution that was frozen, and its parameters by position and by name."""
    if isinstance(frozen, FROZEN_NORMAL):
        return scipy.stats.multivariate_normal, (frozen.mean, frozen.cov, frozen.allow_singular), {}
    return frozen.dist, frozen.args, frozen.kwds


def _of_frozen(name: str, method: Formula) -> Any:
    """A method of a frozen object: SciPy's own if neither its parameters nor the arguments are traced."""

    def call(frozen: Any, /, *args: Any, **kwargs: Any) -> Any:
        dist, given, named = _parts(frozen)
        if any_traced((*args, *given), {**kwargs, **named}):
            return method(dist, *args, *kwargs.values(), *given, **named)
        return getattr(frozen, name)(*args, **kwargs)

    return call


FROZEN_CONTINUOUS, FROZEN_DISCRETE = type(scipy.stats.norm()), type(scipy.stats.poisson(1.0))
FROZEN_NORMAL: Any = type(scipy.stats.multivariate_normal())

for _dist in [
    d for d in vars(scipy.stats).values() if isinstance(d, scipy.stats.rv_continuous | scipy.stats.rv_discrete)
]:
    CALLABLES[type(_dist)] = _freeze
    FUNCTIONS[type(_dist).freeze] = located(_freeze)
    for _name in METHODS.keys() & {*dir(_dist)}:
        FUNCTIONS[getattr(type(_dist), _name)] = located(METHODS[_name])
for _frozen in (FROZEN_CONTINUOUS, FROZEN_DISCRETE):
    for _name in METHODS.keys() & {*dir(_frozen)}:
        CREATION[getattr(_frozen, _name)] = located(_of_frozen(_name, METHODS[_name]))
_FROZEN_MANY = FROZEN_NORMAL.__mro__[1].__subclasses__()
for _cls in {*map(type, vars(scipy.stats).values()), *_FROZEN_MANY, FROZEN_CONTINUOUS, FROZEN_DISCRETE}:
    if isinstance(getattr(_cls, "rvs", None), types.FunctionType):
        CREATION[_cls.rvs] = located(_refused("rvs"))


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


def _normal_entropy(dist: Any, mean: Any = None, cov: Any = 1, allow_singular: bool = False) -> Any:
    size = None if mean is None or not lift(mean).ndim else lift(mean).shape[0]
    _, log_det, size = _covariance(cov, size, allow_singular)
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


def _freeze_normal(dist: Any, mean: Any = None, cov: Any = 1, allow_singular: bool = False, seed: Any = None) -> Any:
    frozen: Any = object.__new__(FROZEN_NORMAL)
    frozen.mean, frozen.allow_singular = mean, allow_singular
    frozen.cov_object = types.SimpleNamespace(covariance=cov)
    return frozen


_OF_NORMAL: dict[str, Formula] = {
    "logpdf": _normal_log_density,
    "pdf": _exponential(_normal_log_density),
    "entropy": _normal_entropy,
}
_OF_DIRICHLET: dict[str, Formula] = {
    "logpdf": _dirichlet_log_density,
    "pdf": _exponential(_dirichlet_log_density),
}
dirichlet, multivariate_normal = scipy.stats.dirichlet, scipy.stats.multivariate_normal

CALLABLES[type(multivariate_normal)] = _freeze_normal
for _name, _formula in _OF_NORMAL.items():
    FUNCTIONS[getattr(type(multivariate_normal), _name)] = located(_formula)
    CREATION[getattr(FROZEN_NORMAL, _name)] = located(_of_frozen(_name, _formula))
for _name, _formula in _OF_DIRICHLET.items():
    FUNCTIONS[getattr(type(dirichlet), _name)] = located(_formula)

globals().update({name: getattr(scipy.stats, name) for name in FAMILIES})
__all__ = [*FAMILIES, "dirichlet", "multivariate_normal"]
