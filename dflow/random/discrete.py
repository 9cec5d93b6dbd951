"""Discrete distributions and random orders. Their samples have no derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy

import dflow.random.threefry as generator
from dflow.numpy import partial_orders
from dflow.numpy.dispatch import own
from dflow.random.continuous import gumbel, shaped, uniform
from dflow.random.rejection import counted, successes
from dflow.random.threefry import shape_of
from dflow.tracing.arrays.lift import lift

np: Any = numpy


@own
def randint(key: Any, shape: Any, minval: Any, maxval: Any, dtype: Any = np.int64) -> Any:
    """Evenly in minval .. maxval - 1 (64 random bits modulo their number: the error is below 2**-32 for spans below
    2**32). Where maxval is not above minval, minval."""
    low, high = (lift(b).astype(np.int64) for b in (minval, maxval))
    span = np.maximum(high - low, 1).view(np.uint64)
    drawn = generator.bits.__wrapped__(key, shape, np.uint64) % span
    return (low + drawn.view(np.int64)).astype(dtype)


@own
def bernoulli(key: Any, p: Any = 0.5, shape: Any = None) -> Any:
    """True with probability ``p``."""
    return uniform.__wrapped__(key, shaped(shape, p)) < lift(p)


@own
def rademacher(key: Any, shape: Any = (), dtype: Any = float) -> Any:
    """-1 or 1."""
    return np.where(bernoulli.__wrapped__(key, 0.5, shape_of(shape)), 1, -1).astype(dtype)


@own
def poisson(key: Any, lam: Any, shape: Any = None, dtype: Any = np.int64) -> Any:
    """Counts with mean ``lam``; the time grows with the largest ``lam``."""
    rate = lift(lam).astype(np.float64)
    return counted(key, np.broadcast_to(rate, shaped(shape, rate))).astype(dtype)


@own
def geometric(key: Any, p: Any, shape: Any = None, dtype: Any = np.int64) -> Any:
    """The number of trials up to the first success."""
    p = lift(p).astype(np.float64)
    u = uniform.__wrapped__(key, shaped(shape, p))
    return np.maximum(np.ceil(np.log1p(-u) / np.log1p(-p)), 1.0).astype(dtype)


@own
def binomial(key: Any, n: Any, p: Any, shape: Any = None, dtype: Any = np.int64) -> Any:
    """How many of ``n`` trials succeed; the time grows with the largest ``n * min(p, 1 - p)``."""
    n, p = lift(n).astype(np.float64), lift(p).astype(np.float64)
    wanted = shaped(shape, n, p)
    n, p = np.broadcast_to(n, wanted), np.broadcast_to(p, wanted)
    often = p > 0.5
    found = successes(key, n, np.where(often, 1.0 - p, p))
    return np.where(often, n.astype(np.int64) - found, found).astype(dtype)


@own
def multinomial(key: Any, n: Any, p: Any, shape: Any = None, dtype: Any = np.int64) -> Any:
    """How often each of the outcomes along the last axis of ``p`` occurs in ``n`` trials: one outcome after the other,
    of what is left."""
    n, p = lift(n).astype(np.float64), lift(p).astype(np.float64)
    count = p.shape[-1]
    wanted = shaped(None if shape is None else shape_of(shape), n, p[..., 0])
    rest, left, found = np.broadcast_to(n, wanted), np.sum(p, axis=-1), []
    for k in range(count - 1):
        ratio = np.clip(p[..., k] / np.where(left > 0.0, left, 1.0), 0.0, 1.0)
        found.append(binomial.__wrapped__(generator.fold_in.__wrapped__(key, k), rest, ratio, wanted))
        rest, left = rest - found[-1], left - p[..., k]
    return np.stack([*found, rest.astype(np.int64)], axis=-1).astype(dtype)


@own
def categorical(key: Any, logits: Any, axis: int = -1, shape: Any = None) -> Any:
    """Positions along ``axis`` with probabilities proportional to exp(logits); ``shape`` must end with that of the
    logits without the axis."""
    moved = np.moveaxis(lift(logits) * 1.0, axis, -1)
    batch = moved.shape[:-1] if shape is None else shape_of(shape)
    noise = gumbel.__wrapped__(key, (*batch, moved.shape[-1]))
    return np.argmax(moved + noise, axis=-1)


@own
def permutation(key: Any, x: Any, axis: int = 0) -> Any:
    """``x`` (or 0 .. x-1) with the slices along an axis in random order."""
    x = np.arange(x) if isinstance(x, int) else x
    array = lift(x)
    n = array.shape[axis]
    order = np.argsort(generator.bits.__wrapped__(key, (n,), np.uint64))
    return np.take(array, order, axis)


@own
def choice(key: Any, a: Any, shape: Any = (), replace: bool = True, p: Any = None, axis: int = 0) -> Any:
    """Slices of ``a`` (or numbers below ``a``), with probabilities ``p`` or equal ones."""
    x = lift(np.arange(a) if isinstance(a, int) else a)
    wanted, n = shape_of(shape), x.shape[axis]
    count = math.prod(wanted)
    if not replace and count > n:
        raise ValueError(f"{count} of {n} elements cannot be taken without replacing them")
    if not n:
        raise ValueError("nothing to choose from")
    if replace and p is None:
        at = randint.__wrapped__(key, wanted, 0, n)
    elif replace:
        total = np.cumsum(lift(p) * 1.0)
        at = np.searchsorted(total, uniform.__wrapped__(key, wanted) * total[-1], side="right")
        at = np.minimum(at, n - 1)
    elif p is None:
        at = permutation.__wrapped__(key, n)[:count].reshape(wanted)
    else:
        keys = np.log(lift(p) * 1.0) + gumbel.__wrapped__(key, (n,))
        at = partial_orders.topk.__wrapped__(keys, count)[1].reshape(wanted)
    return np.take(x, at, axis)
