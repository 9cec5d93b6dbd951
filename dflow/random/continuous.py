"""Continuous distributions.

Samples are smooth functions of their parameters for a fixed key, so derivatives by the parameters are those of the
samples (reparameterisation). Samples of ``gamma``, and of what is made of it, are drawn by rejection; they move with
the shape parameter such that the distribution function stays as it is (implicit reparameterisation: Figurnov, Mohamed
and Mnih 2018).
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy

import dflow.random.threefry as generator
from dflow.ir.types import BF16, SIGNIFICAND, dtype_of
from dflow.numpy.dispatch import own
from dflow.random.rejection import standard_gamma
from dflow.random.threefry import shape_of
from dflow.scipy.special import gammainc, gammaln
from dflow.tracing.arrays.lift import lift

np: Any = numpy
SMALLEST = 1e-300


def sampler(sample: Any) -> Any:
    """The public function of a distribution. Samples of bfloat16 are drawn as float32 and rounded: in its own steps
    there would be few of them, and no tails."""
    signature = inspect.signature(sample)

    @functools.wraps(sample)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        dtype = given.arguments.get("dtype", float)
        if dtype_of(dtype) != BF16:
            return sample(*args, **kwargs)
        given.arguments["dtype"] = np.float32
        return sample(*given.args, **given.kwargs).astype(dtype)

    return own(call)


def _unit(key: Any, shape: Any, dtype: Any) -> Any:
    """Multiples of the smallest step in [0, 1)."""
    dtype = np.dtype(dtype)
    width = SIGNIFICAND.get(dtype_of(dtype))
    if width is None:
        raise TypeError(f"random numbers of a continuous distribution are floats, not {dtype}")
    whole = 64 if width > 32 else 32
    drawn = generator.bits.__wrapped__(key, shape, np.dtype(f"u{whole // 8}"))
    step = np.asarray(2.0**-width, dtype)
    return (drawn >> drawn.dtype.type(whole - width)).astype(dtype) * step


def _open(key: Any, shape: Any, dtype: Any) -> Any:
    """In (0, 1): the middle of each step (of half the precision's steps, so that 1 is not reached)."""
    unit, width = _unit(key, shape, dtype), SIGNIFICAND[dtype_of(dtype)]
    return np.floor(unit * 2.0 ** (width - 1)) * 2.0 ** (1 - width) + 2.0**-width


def shaped(shape: Any, *parameters: Any) -> tuple[int, ...]:
    """The shape that was asked for, or that of the parameters."""
    given = np.broadcast_shapes(*(np.shape(p) for p in parameters))
    if shape is None:
        return given
    wanted = shape_of(shape)
    if np.broadcast_shapes(given, wanted) != wanted:
        raise ValueError(f"parameters of shape {given} do not broadcast to samples of shape {wanted}")
    return wanted


def _as(dtype: Any, *parameters: Any) -> list[Any]:
    return [lift(p).astype(dtype) for p in parameters]


@own
def uniform(key: Any, shape: Any = (), dtype: Any = float, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
    """Evenly in [minval, maxval)."""
    low, high = _as(dtype, minval, maxval)
    return low + _unit(key, shape, dtype) * (high - low)


@sampler
def normal(key: Any, shape: Any = (), dtype: Any = float) -> Any:
    """The standard normal distribution, by Box and Muller's transformation."""
    first, second = generator.split.__wrapped__(key)
    radius = np.sqrt(-2.0 * np.log(_open(first, shape, dtype)))
    return radius * np.cos(2.0 * np.pi * _unit(second, shape, dtype))


@sampler
def lognormal(key: Any, sigma: Any = 1.0, shape: Any = None, dtype: Any = float) -> Any:
    (sigma,) = _as(dtype, sigma)
    return np.exp(sigma * normal.__wrapped__(key, shaped(shape, sigma), dtype))


@sampler
def exponential(key: Any, shape: Any = (), dtype: Any = float) -> Any:
    """With rate 1."""
    return -np.log1p(-_unit(key, shape, dtype))


@sampler
def gumbel(key: Any, shape: Any = (), dtype: Any = float) -> Any:
    return -np.log(-np.log(_open(key, shape, dtype)))


@sampler
def logistic(key: Any, shape: Any = (), dtype: Any = float) -> Any:
    u = _open(key, shape, dtype)
    return np.log(u) - np.log1p(-u)


@sampler
def laplace(key: Any, shape: Any = (), dtype: Any = float) -> Any:
    u = 2.0 * _open(key, shape, dtype) - 1.0
    return -np.sign(u) * np.log1p(-np.abs(u))


@sampler
def cauchy(key: Any, shape: Any = (), dtype: Any = float) -> Any:
    return np.tan(np.pi * (_open(key, shape, dtype) - 0.5))


# -- made of gamma ---------------------------------------------------------------------------------------------------


@sampler
def gamma(key: Any, a: Any, shape: Any = None, dtype: Any = float) -> Any:
    """The gamma distribution with shape parameter ``a`` and scale 1 (Marsaglia and Tsang 2000)."""
    from dflow.transforms.custom import custom_jvp, stop_gradient

    (a,) = _as(dtype, a)
    a = np.broadcast_to(a, shaped(shape, a))
    following = custom_jvp(_drawn)
    following.defjvp(_following)
    return following(a, standard_gamma(key, stop_gradient(a)))


def _drawn(a: Any, sample: Any) -> Any:
    return sample


def _following(primals: Any, tangents: Any) -> Any:
    """The sample z moves so that P(a, z) stays: z' = -(dP/da / dP/dz) a'. Where z is 0 in its precision it stays."""
    from dflow.api import jvp
    from dflow.transforms.custom import custom_jvp

    (a, sample), (a_dot, _) = primals, tangents
    again = custom_jvp(_drawn)
    again.defjvp(_following)
    z = again(a, sample)
    wide = np.maximum(z.astype(float), SMALLEST)
    _, by_a = jvp(lambda a: gammainc(a, wide), (a.astype(float),), (np.ones(a.shape),))
    slope = by_a * np.exp(wide + gammaln(a.astype(float)) - (a.astype(float) - 1.0) * np.log(wide))
    return z, np.where(z > 0.0, -slope, 0.0).astype(z.dtype) * a_dot


@sampler
def beta(key: Any, a: Any, b: Any, shape: Any = None, dtype: Any = float) -> Any:
    first, second = generator.split.__wrapped__(key)
    wanted = shaped(shape, a, b)
    x = gamma.__wrapped__(first, a, wanted, dtype)
    y = gamma.__wrapped__(second, b, wanted, dtype)
    return x / (x + y)


@sampler
def dirichlet(key: Any, alpha: Any, shape: Any = None, dtype: Any = float) -> Any:
    """Points of the simplex along the last axis; ``shape`` is that of the points' collection."""
    (alpha,) = _as(dtype, alpha)
    wanted = alpha.shape if shape is None else (*shape_of(shape), alpha.shape[-1])
    x = gamma.__wrapped__(key, alpha, wanted, dtype)
    return x / np.sum(x, axis=-1, keepdims=True)


@sampler
def chisquare(key: Any, df: Any, shape: Any = None, dtype: Any = float) -> Any:
    (df,) = _as(dtype, df)
    return 2.0 * gamma.__wrapped__(key, df / 2.0, shape, dtype)


@sampler
def t(key: Any, df: Any, shape: Any = None, dtype: Any = float) -> Any:
    """Student's distribution with ``df`` degrees of freedom."""
    first, second = generator.split.__wrapped__(key)
    (df,) = _as(dtype, df)
    wanted = shaped(shape, df)
    half = df / 2.0
    return normal.__wrapped__(first, wanted, dtype) * np.sqrt(half / gamma.__wrapped__(second, half, wanted, dtype))
