"""Activations. At its kink ``relu`` has derivative 0."""

from __future__ import annotations

import math
from typing import Any

import numpy

from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy.dispatch import own
from dflow.tracing.lift import lift, wrap

np: Any = numpy


def _floats(x: Any) -> Any:
    x = lift(x)
    return x if kind_of(x.dtype) == "f" else x.astype(np.float64)


@own
def relu(x: Any) -> Any:
    x = lift(x)
    return np.where(x > 0, x, np.zeros((), x.dtype))


@own
def leaky_relu(x: Any, negative_slope: Any = 0.01) -> Any:
    x = _floats(x)
    return np.where(x >= 0, x, negative_slope * x)


@own
def elu(x: Any, alpha: Any = 1.0) -> Any:
    """x, or alpha (exp(x) - 1) below 0."""
    x = _floats(x)
    return np.where(x > 0, x, alpha * np.expm1(np.where(x > 0, np.zeros((), x.dtype), x)))


@own
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), by the exponential that does not overflow."""
    x = _floats(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


@own
def log_sigmoid(x: Any) -> Any:
    return -softplus.__wrapped__(-_floats(x))


@own
def softplus(x: Any) -> Any:
    """log(1 + exp(x))."""
    return np.logaddexp(_floats(x), 0.0)


@own
def silu(x: Any) -> Any:
    """x times its sigmoid."""
    x = _floats(x)
    return x * sigmoid.__wrapped__(x)


@own
def gelu(x: Any, approximate: bool = True) -> Any:
    """x times the normal distribution's probability below x, or its approximation by tanh (Hendrycks and Gimpel)."""
    x = _floats(x)
    if approximate:
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * wrap(s.builder().erfc((-x / math.sqrt(2.0)).value))


@own
def log_softmax(x: Any, axis: Any = -1) -> Any:
    """x less the logarithm of the sum of exponentials along ``axis``."""
    from dflow.custom import stop_gradient

    x = _floats(x)
    shifted = x - stop_gradient(np.max(x, axis=axis, keepdims=True))
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


@own
def softmax(x: Any, axis: Any = -1) -> Any:
    from dflow.custom import stop_gradient

    x = _floats(x)
    e = np.exp(x - stop_gradient(np.max(x, axis=axis, keepdims=True)))
    return e / np.sum(e, axis=axis, keepdims=True)


@own
def one_hot(x: Any, num_classes: int, *, dtype: Any = float, axis: int = -1) -> Any:
    """1 at the position that each element of ``x`` names, 0 elsewhere (everywhere for one outside)."""
    codes = (lift(x)[..., None] == np.arange(num_classes)).astype(dtype)
    return np.moveaxis(codes, -1, axis)
