"""Sums that a loop adds up may be added in another order; what makes up for rounding errors may not."""

import re

import numpy as np
import pytest

import dflow


def dot(x, y):
    s = 0.0
    for i in range(len(x)):
        s += x[i] * y[i]
    return s


def kahan(x):
    s, c = 0.0, 0.0
    for i in range(len(x)):
        y = x[i] - c
        t = s + y
        c = (t - s) - y
        s = t
    return s


def seen(x):
    """Every partial sum is looked at."""
    s, most = 0.0, 0.0
    for i in range(len(x)):
        s -= x[i]
        most = max(most, s)
    return most


def reassociated(f, *args):
    return re.findall(r"f(?:add|sub) reassoc", dflow.jit(f).lower(*args).llvm())


def test_a_plain_sum_is_vectorized():
    x, y = np.random.default_rng(0).normal(size=(2, 1003))
    assert reassociated(dot, x, y)
    assert (
        "<8 x double>" in (code := dflow.jit(dot).lower(x, y).llvm())
        or "<4 x double>" in code
        or "<2 x double>" in code
    )
    assert dflow.jit(dot)(x, y) == pytest.approx(float(x @ y), rel=1e-13)


def test_signs_of_zeros_and_infinities_stay():
    zeros = np.full(20, -0.0)
    assert np.copysign(1.0, dflow.jit(dot)(zeros, np.ones(20))) == 1.0
    x = np.ones(20)
    x[3], x[17] = np.inf, -np.inf
    assert np.isnan(dflow.jit(dot)(x, np.ones(20)))
    assert dflow.jit(dot)(np.abs(x), np.ones(20)) == np.inf


def test_compensated_sums_stay_as_they_are():
    x = np.array([1.0, 1e100, 1.0, -1e100] * 500 + [1e-16] * 1000)
    assert not reassociated(kahan, x)
    assert dflow.jit(kahan)(x) == kahan(x)


def test_sums_that_are_looked_at_stay_as_they_are():
    x = np.random.default_rng(0).normal(size=1000)
    assert not reassociated(seen, x)
    assert dflow.jit(seen)(x) == seen(x)
