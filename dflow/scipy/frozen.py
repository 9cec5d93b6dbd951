"""Frozen distributions of ``scipy.stats``, as ``norm(loc, scale)``: methods of the distribution, parameters added.

One whose parameters are traced is ``Frozen``; one that SciPy made, of known parameters, takes traced points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import scipy.stats

from dflow.errors import NoAttributeError, failure
from dflow.numpy.dispatch import CALLABLES, FUNCTIONS, get, located


class Frozen:
    """What ``dist(*args, **kwds)`` gives of traced parameters."""

    def __init__(self, dist: Any, *args: Any, **kwds: Any):
        self.dist, self.args, self.kwds = dist, args, kwds

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = None if name.startswith("_") else getattr(self.dist, name, None)
        if method is None:
            raise failure(NoAttributeError, f"a frozen {type(self.dist).__name__} has no attribute {name!r}")
        return lambda *x: get(method.__func__)(self.dist, *x, *self.args, **self.kwds)


def _frozen_method(name: str) -> Callable[..., Any]:
    def call(frozen: Any, x: Any) -> Any:
        return get(getattr(type(frozen.dist), name))(frozen.dist, x, *frozen.args, **frozen.kwds)

    return call


def _normal_method(name: str) -> Callable[..., Any]:
    def call(frozen: Any, x: Any) -> Any:
        dist = scipy.stats.multivariate_normal
        return get(getattr(type(dist), name))(dist, x, frozen.mean, frozen.cov_object.covariance, frozen.allow_singular)

    return call


def register(distributions: Iterable[Any]) -> None:
    """Makes frozen ones of ``distributions`` take traced values, with those methods that have been registered."""
    names = ("pdf", "logpdf", "pmf", "logpmf", "cdf", "sf", "logcdf", "logsf", "ppf")
    for dist in distributions:
        CALLABLES[type(dist)] = Frozen
    for frozen in (scipy.stats.norm(), scipy.stats.poisson(1.0)):
        for name in names:
            if hasattr(frozen, name):
                FUNCTIONS[getattr(type(frozen), name)] = located(_frozen_method(name))
    for name in ("pdf", "logpdf"):
        FUNCTIONS[getattr(type(scipy.stats.multivariate_normal()), name)] = located(_normal_method(name))
