"""Python's ``statistics`` on traced numbers: a table from its functions to implementations.

They compute in floats, where Python computes in fractions: the last digits may differ. Whether a result is Python's or
NumPy's depends on the data there, and is left open here.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.ir.failures import register
from dflow.numpy.dispatch import located
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

STATISTICS: dict[Callable[..., Any], Callable[..., Any]] = {}


def _of_data(least: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function of data of which there must be ``least`` at least."""

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        original = getattr(statistics, f.__name__)

        @functools.wraps(f)
        def call(data: Any, *args: Any, **kwargs: Any) -> Any:
            x = _floats(data)
            if isinstance(x.size, int) and x.size < least:
                raise statistics.StatisticsError(f"{f.__name__} requires at least {least} data points")
            return wrap(f(x, *args, **kwargs).value, weak=None)

        STATISTICS[original] = located(call)
        return f

    return register


def _require(holds: Any, message: str) -> None:
    builder().check(holds.value, error=register(statistics.StatisticsError), message=message)


def _floats(data: Any) -> Array:
    return lift(data if isinstance(data, Array) else list(data)).astype(np.float64)


@_of_data(1)
def mean(x: Array) -> Any:
    return x.mean()


@_of_data(1)
def fmean(x: Array, weights: Any = None) -> Any:
    return x.mean() if weights is None else (x @ _floats(weights)) / _floats(weights).sum()


@_of_data(1)
def geometric_mean(x: Array) -> Any:
    _require((x > 0).all(), "geometric mean requires positive numbers")
    return np.exp(np.log(x).mean())


@_of_data(1)
def harmonic_mean(x: Array) -> Any:
    _require((x >= 0).all(), "harmonic mean does not support negative values")
    return x.size / (1 / x).sum()


@_of_data(1)
def median(x: Array) -> Any:
    return np.median(x)


@_of_data(1)
def pvariance(x: Array, mu: Any = None) -> Any:
    return ((x - (x.mean() if mu is None else mu)) ** 2).mean()


@_of_data(2)
def variance(x: Array, xbar: Any = None) -> Any:
    return ((x - (x.mean() if xbar is None else xbar)) ** 2).sum() / (x.size - 1)


@_of_data(1)
def pstdev(x: Array, mu: Any = None) -> Any:
    return np.sqrt(pvariance(x, mu))


@_of_data(2)
def stdev(x: Array, xbar: Any = None) -> Any:
    return np.sqrt(variance(x, xbar))


@_of_data(2)
def covariance(x: Array, y: Any) -> Any:
    y = _floats(y)
    return (x - x.mean()) @ (y - y.mean()) / (x.size - 1)


@_of_data(2)
def correlation(x: Array, y: Any) -> Any:
    x, y = (v - v.mean() for v in (x, _floats(y)))
    squares = (x @ x) * (y @ y)
    _require(squares > 0, "at least one of the inputs is constant")
    return (x @ y) / np.sqrt(squares)
