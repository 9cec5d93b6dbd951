"""Samples that are drawn until they fit: loops over all elements at once, in which those that fit stay as they are."""

from __future__ import annotations

from typing import Any

import numpy

import dflow.random.threefry as generator
from dflow.tracing.source.rewrite import rewritten

np: Any = numpy
STEP = 2.0**-53


def _unit(key: Any, shape: Any) -> Any:
    return (generator.bits.__wrapped__(key, shape, np.uint64) >> np.uint64(11)).astype(np.float64) * STEP


def _looped(f: Any) -> Any:
    """``f`` with its loop as one of the program."""
    return rewritten(f)


def standard_gamma(key: Any, a: Any) -> Any:
    """Gamma samples of scale 1. Parameters below 1 are raised by 1, and the sample multiplied by a power of u."""
    first, second = generator.split.__wrapped__(key)
    low = a < 1.0
    d = np.where(low, a + 1.0, a).astype(np.float64) - 1.0 / 3.0
    v = _looped(_accepted)(first, d, _trial, generator.fold_in.__wrapped__)
    u = 1.0 - _unit(second, a.shape)
    power = np.where(low, np.log(u) / np.where(low, a, 1.0), 0.0)
    return (d * v * np.exp(power)).astype(a.dtype)


def _accepted(key: Any, d: Any, trial: Any, fold_in: Any) -> Any:
    """v for each d: the cubes (1 + c x)^3 that Marsaglia and Tsang's test accepts."""
    v = 0.0 * d
    waiting = v == 0.0
    round = 0
    while np.any(waiting):
        fits, found = trial(fold_in(key, round), d)
        v = np.where(waiting & fits, found, v)
        waiting = waiting & ~fits
        round += 1
    return v


def _trial(key: Any, d: Any) -> tuple[Any, Any]:
    drawn = _unit(key, (3, *d.shape))
    x = np.sqrt(-2.0 * np.log1p(-drawn[0])) * np.cos(2.0 * np.pi * drawn[1])
    v = (1.0 + x / np.sqrt(9.0 * d)) ** 3
    positive = v > 0.0
    safe = np.where(positive, v, 1.0)
    u = 1.0 - drawn[2]
    return positive & (np.log(u) < 0.5 * x * x + d - d * safe + d * np.log(safe)), safe


def counted(key: Any, rate: Any) -> Any:
    """How many arrivals of a process with this rate there are in a unit of time: exponential waits are summed up."""
    return _looped(_arrivals)(key, rate, _unit, generator.fold_in.__wrapped__)


def _arrivals(key: Any, rate: Any, unit: Any, fold_in: Any) -> Any:
    count = np.zeros(rate.shape, np.int64)
    clock = 0.0 * rate
    waiting = clock < rate
    round = 0
    while np.any(waiting):
        clock = clock - np.log1p(-unit(fold_in(key, round), rate.shape))
        waiting = waiting & (clock <= rate)
        count = count + waiting
        round += 1
    return count


def successes(key: Any, n: Any, p: Any) -> Any:
    """How many of n trials succeed: those up to each success are drawn, until they exceed n (Devroye 1986, X.4)."""
    return _looped(_trials)(key, n, p, _unit, generator.fold_in.__wrapped__)


def _trials(key: Any, n: Any, p: Any, unit: Any, fold_in: Any) -> Any:
    count = np.zeros(n.shape, np.int64)
    scale = np.log1p(-np.where(p > 0.0, p, 0.5))
    last = 0.0 * n
    waiting = (p > 0.0) & (n > 0.0)
    round = 0
    while np.any(waiting):
        last = last + np.floor(np.log1p(-unit(fold_in(key, round), n.shape)) / scale) + 1.0
        waiting = waiting & (last <= n)
        count = count + waiting
        round += 1
    return count
