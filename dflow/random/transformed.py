"""Continuous distributions that are functions of uniform or normal numbers, and so of their parameters."""

from __future__ import annotations

from typing import Any

import numpy

import dflow.random.threefry as generator
from dflow.random.continuous import _as, _open, exponential, gamma, normal, sampler, shaped, uniform
from dflow.scipy.special import ndtr, ndtri

np: Any = numpy


@sampler
def truncated_normal(key: Any, lower: Any, upper: Any, shape: Any = None, dtype: Any = float) -> Any:
    """The standard normal distribution between two bounds, by the inverse of its distribution function, which is taken
    on the side of 0 where it is small: so bounds may lie far out."""
    low, high = _as(dtype, lower, upper)
    wanted = shaped(shape, low, high)
    mirrored = low > 0.0
    first, last = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    below, above = ndtr(first), ndtr(last)
    found = ndtri(below + _open(key, wanted, dtype) * (above - below))
    return np.clip(np.where(mirrored, -found, found), low, high)


@sampler
def generalized_normal(key: Any, p: Any, shape: Any = None, dtype: Any = float) -> Any:
    """With a density proportional to exp(-abs(x)**p): a power of a gamma distribution with a random sign."""
    (p,) = _as(dtype, p)
    wanted = shaped(shape, p)
    first, second = generator.split.__wrapped__(key)
    size = gamma.__wrapped__(first, 1.0 / p, wanted, dtype) ** (1.0 / p)
    return np.where(_open(second, wanted, dtype) < 0.5, -size, size)


@sampler
def pareto(key: Any, b: Any, shape: Any = None, dtype: Any = float) -> Any:
    """From 1 on, with the density b / x**(b + 1)."""
    (b,) = _as(dtype, b)
    return np.exp(exponential.__wrapped__(key, shaped(shape, b), dtype) / b)


@sampler
def rayleigh(key: Any, scale: Any = 1.0, shape: Any = None, dtype: Any = float) -> Any:
    (scale,) = _as(dtype, scale)
    return scale * np.sqrt(-2.0 * np.log(_open(key, shaped(shape, scale), dtype)))


@sampler
def weibull_min(key: Any, scale: Any, concentration: Any, shape: Any = None, dtype: Any = float) -> Any:
    scale, power = _as(dtype, scale, concentration)
    return scale * (-np.log(_open(key, shaped(shape, scale, power), dtype))) ** (1.0 / power)


@sampler
def maxwell(key: Any, shape: Any = (), dtype: Any = float) -> Any:
    """The length of a vector of three normal numbers."""
    wanted = generator.shape_of(shape)
    return np.sqrt(np.sum(normal.__wrapped__(key, (3, *wanted), dtype) ** 2, axis=0))


@sampler
def triangular(key: Any, left: Any, mode: Any, right: Any, shape: Any = None, dtype: Any = float) -> Any:
    """Between left and right, with a density that rises to the mode and falls from there."""
    left, mode, right = _as(dtype, left, mode, right)
    u = uniform.__wrapped__(key, shaped(shape, left, mode, right), dtype)
    rising = u * (right - left) < mode - left
    up = np.sqrt(np.where(rising, u, 0.5) * (right - left) * (mode - left))
    down = np.sqrt(np.where(rising, 0.5, 1.0 - u) * (right - left) * (right - mode))
    return np.where(rising, left + up, right - down)


@sampler
def wald(key: Any, mean: Any, shape: Any = None, dtype: Any = float) -> Any:
    """The inverse Gaussian distribution of scale 1 (Michael, Schucany and Haas 1976)."""
    first, second = generator.split.__wrapped__(key)
    (mean,) = _as(dtype, mean)
    wanted = shaped(shape, mean)
    y = mean * normal.__wrapped__(first, wanted, dtype) ** 2
    x = mean * 2.0 / (2.0 + y + np.sqrt(y * (4.0 + y)))
    small = uniform.__wrapped__(second, wanted, dtype) * (mean + x) <= mean
    return np.where(small, x, mean**2 / x)


@sampler
def loggamma(key: Any, a: Any, shape: Any = None, dtype: Any = float) -> Any:
    """Logarithms of gamma samples; those of small ``a`` do not become minus infinity: the sample for ``a + 1`` is
    multiplied by a power of a uniform number, both as logarithms."""
    first, second = generator.split.__wrapped__(key)
    (a,) = _as(dtype, a)
    wanted = shaped(shape, a)
    more = gamma.__wrapped__(first, a + 1.0, wanted, dtype)
    return np.log(more) + np.log(_open(second, wanted, dtype)) / a


@sampler
def f(key: Any, dfnum: Any, dfden: Any, shape: Any = None, dtype: Any = float) -> Any:
    """Fisher's distribution: the quotient of two chi-square numbers over their degrees of freedom."""
    first, second = generator.split.__wrapped__(key)
    above, below = _as(dtype, dfnum, dfden)
    wanted = shaped(shape, above, below)
    x = gamma.__wrapped__(first, above / 2.0, wanted, dtype)
    return x * below / (above * gamma.__wrapped__(second, below / 2.0, wanted, dtype))
