"""Positions of extremes, by vectors along rows and across them, against NumPy."""

import numpy as np
import pytest

import dflow

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "?"])
@pytest.mark.parametrize("shape", [(9,), (70,), (2001,), (40, 50), (3, 9, 70), (4, 70, 6)])
def test_first_extreme(dtype, shape):
    both = dflow.jit(lambda x: [f(x, axis=k) for k in range(x.ndim) for f in (np.argmax, np.argmin)])
    few = RNG.integers(0, 3, shape).astype(dtype)
    missing = np.where(RNG.random(shape) < 0.05, np.nan, few) if dtype[0] == "f" else few
    for x in (few, few * 0, missing.astype(dtype), (100 * RNG.standard_normal(shape)).astype(dtype)):
        for found, wanted in zip(both(x), both.__wrapped__(x), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_parts_of_a_long_vector():
    """Each has an extreme of its own; the last one is shorter than a vector."""
    n = 64 * 9000 + 1
    find = dflow.jit(np.argmax)
    for places in ((n - 1,), (5, n - 1), (n // 2, n // 2 + 70), (n - 3, n - 1)):
        for extreme in (2.0, np.nan):
            x = RNG.random(n)
            x[list(places)] = extreme
            assert find(x) == places[0]


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("shape", [(17,), (1000,), (3, 70), (200_000,)])
def test_extremes_of_numbers_and_of_what_is_none(dtype, shape):
    """One pass for the numbers and for whether one is missing; where those are left out, for the numbers alone."""
    with_nan = dflow.jit(lambda x: [f(x, axis=k) for k in (None, 0, -1) for f in (np.max, np.min)])
    without = dflow.jit(lambda x: [f(x, axis=k) for k in (None, -1) for f in (np.nanmax, np.nanmin)])
    x = RNG.standard_normal(shape).astype(dtype)
    last = np.where(np.arange(x.size).reshape(shape) == x.size - 1, np.nan, x).astype(dtype)
    infinite = np.where(RNG.random(shape) < 0.5, -np.inf, np.nan).astype(dtype)
    for v in (x, last, infinite, x * 0 - np.inf, x * np.nan):
        for f in (with_nan, without) if not np.isnan(v).all() else (with_nan,):
            for found, wanted in zip(f(v), f.__wrapped__(v), strict=True):
                np.testing.assert_array_equal(found, wanted)
