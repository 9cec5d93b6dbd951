"""Activations. At their kinks ``relu`` and those made of it have derivative 0; between equal bounds it is shared."""

from __future__ import annotations

import math
from typing import Any

import numpy

from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy.dispatch import own
from dflow.scipy import special
from dflow.tracing.arrays.lift import lift, wrap

np: Any = numpy

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _floats(x: Any) -> Any:
    x = lift(x)
    return x if kind_of(x.dtype) == "f" else x.astype(np.float64)


@own
def relu(x: Any) -> Any:
    x = lift(x)
    return np.where(x > 0, x, np.zeros((), x.dtype))


@own
def relu6(x: Any) -> Any:
    """x between 0 and 6."""
    x = lift(x)
    inside = (x > 0) & (x < 6)
    return np.where(inside, x, np.where(x > 0, np.full((), 6, x.dtype), np.zeros((), x.dtype)))


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
def celu(x: Any, alpha: Any = 1.0) -> Any:
    """x, or alpha (exp(x / alpha) - 1) below 0."""
    x = _floats(x)
    return np.where(x > 0, x, alpha * np.expm1(np.where(x > 0, np.zeros((), x.dtype), x) / alpha))


@own
def selu(x: Any) -> Any:
    """The scaled ``elu`` that keeps mean 0 and variance 1 (Klambauer et al.)."""
    return SELU_SCALE * elu.__wrapped__(x, SELU_ALPHA)


@own
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return wrap(s.builder().expit(_floats(x).value))


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
def mish(x: Any) -> Any:
    """x tanh(softplus(x))."""
    x = _floats(x)
    return x * np.tanh(softplus.__wrapped__(x))


@own
def soft_sign(x: Any) -> Any:
    """x / (1 + abs(x))."""
    x = _floats(x)
    return x / (1.0 + np.abs(x))


@own
def squareplus(x: Any, b: Any = 4.0) -> Any:
    """(x + sqrt(x^2 + b)) / 2."""
    x = _floats(x)
    return 0.5 * (x + np.sqrt(x * x + b))


@own
def hard_tanh(x: Any) -> Any:
    """x between -1 and 1."""
    x = _floats(x)
    return np.where(x > 1.0, np.ones((), x.dtype), np.where(x < -1.0, -np.ones((), x.dtype), x))


@own
def hard_sigmoid(x: Any) -> Any:
    """(x + 3) / 6 between 0 and 1."""
    return relu6.__wrapped__(_floats(x) + 3.0) / 6.0


@own
def hard_silu(x: Any) -> Any:
    """x times its hard sigmoid."""
    x = _floats(x)
    return x * hard_sigmoid.__wrapped__(x)


@own
def glu(x: Any, axis: int = -1) -> Any:
    """The first half of ``x`` along ``axis`` times the sigmoid of the second."""
    x = _floats(x)
    if x.shape[axis] % 2:
        raise ValueError(f"glu halves axis {axis}, which has an odd size: {x.shape[axis]}")
    first, second = np.split(x, 2, axis)
    return first * sigmoid.__wrapped__(second)


@own
def standardize(x: Any, axis: Any = -1, epsilon: Any = 1e-5, where: Any = None) -> Any:
    """``x`` less its mean, over its standard deviation (of the variance plus ``epsilon``) along ``axis``; ``where``
    chooses the elements that both are taken of."""
    x = _floats(x)
    chosen = {} if where is None else {"where": where}
    shifted = x - np.mean(x, axis=axis, keepdims=True, **chosen)
    return shifted / np.sqrt(np.mean(shifted * shifted, axis=axis, keepdims=True, **chosen) + epsilon)


def _exponents(x: Any, axis: Any, where: Any) -> Any:
    """``x`` less its largest element along ``axis``; minus infinity where ``where`` leaves it out."""
    from dflow.transforms.custom import stop_gradient

    x = _floats(x)
    if not x.size:
        return x
    if where is None:
        return x - stop_gradient(np.max(x, axis=axis, keepdims=True))
    inside = np.where(where, x, np.full((), -np.inf, x.dtype))
    top = stop_gradient(np.max(inside, axis=axis, keepdims=True))
    return inside - np.where(np.isfinite(top), top, np.zeros((), x.dtype))


@own
def log_softmax(x: Any, axis: Any = -1, where: Any = None) -> Any:
    """x less the logarithm of the sum of exponentials along ``axis``; minus infinity outside of ``where``."""
    shifted = _exponents(x, axis, where)
    total = np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))
    return shifted - total if where is None else np.where(where, shifted - total, -np.inf)


@own
def softmax(x: Any, axis: Any = -1, where: Any = None) -> Any:
    """Exponentials of ``x`` over their sum along ``axis``; 0 outside of ``where``."""
    e = np.exp(_exponents(x, axis, where))
    total = np.sum(e, axis=axis, keepdims=True)
    return e / total if where is None else np.where(where, e / total, np.zeros((), e.dtype))


@own
def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False, where: Any = None
) -> Any:
    """``scipy.special.logsumexp``, of the elements that ``where`` chooses."""
    a = lift(a)
    chosen = a if where is None else np.where(where, a, np.full((), -np.inf, _floats(a).dtype))
    return special.logsumexp(chosen, axis=axis, b=b, keepdims=keepdims, return_sign=return_sign)


@own
def logmeanexp(a: Any, axis: Any = None, where: Any = None, keepdims: bool = False) -> Any:
    """The logarithm of the mean of exponentials along ``axis``, of the elements that ``where`` chooses."""
    a = lift(a)
    inside = np.broadcast_to(True if where is None else where, a.shape)
    count = np.sum(inside, axis=axis, keepdims=keepdims).astype(_floats(a).dtype)
    return logsumexp.__wrapped__(a, axis, None, keepdims, False, where) - np.log(count)


@own
def log1mexp(x: Any) -> Any:
    """log(1 - exp(-x)) for positive x (Maechler 2012)."""
    x = _floats(x)
    small = x < math.log(2.0)
    low, high = np.where(small, x, np.ones((), x.dtype)), np.where(small, np.ones((), x.dtype), x)
    return np.where(small, np.log(-np.expm1(-low)), np.log1p(-np.exp(-high)))


@own
def sparse_plus(x: Any) -> Any:
    """0 up to -1, x from 1 on, and (x + 1)**2 / 4 between."""
    x = _floats(x)
    low, high = x <= -1, x >= 1
    bent = np.where(low | high, 0.0, x) + 1.0
    return np.where(low, 0.0, np.where(high, x, bent * bent / 4))


@own
def sparse_sigmoid(x: Any) -> Any:
    """(x + 1) / 2 between 0 and 1: the derivative of ``sparse_plus``."""
    return np.clip(0.5 * (_floats(x) + 1.0), 0.0, 1.0)


@own
def tanh(x: Any) -> Any:
    return np.tanh(lift(x))


@own
def identity(x: Any) -> Any:
    return lift(x)


@own
def one_hot(x: Any, num_classes: int, *, dtype: Any = float, axis: int = -1) -> Any:
    """1 at the position that each element of ``x`` names, 0 elsewhere (everywhere for one outside)."""
    codes = (lift(x)[..., None] == np.arange(num_classes)).astype(dtype)
    return np.moveaxis(codes, -1, axis)
