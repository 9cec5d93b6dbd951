"""Rows of every length and kind that sorting has a way of its own for, against NumPy's stable sort."""

import numpy as np
import pytest

import dflow

RNG = np.random.default_rng(3)


def rows(dtype: str, n: int) -> list[np.ndarray]:
    if dtype[0] == "f":
        missing = np.where(RNG.random(n) < 0.2, np.nan, RNG.random(n))
        zeros = RNG.integers(0, 2, n) * RNG.choice([-1.0, 1.0, 0.0], n)
        near = 1 + 1e-12 * RNG.random(n)  # alike in all but the last bits
        found = [RNG.standard_normal(n), zeros, near, missing, np.sort(RNG.random(n))[::-1], np.full(n, np.inf)]
    else:
        found = [RNG.integers(0, 9, n), RNG.integers(-(2**62), 2**62, n), np.arange(n)[::-1], np.zeros(n)]
    return [x.astype(dtype) for x in found]


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "u1"])
@pytest.mark.parametrize("n", [64, 300, 70_000])
def test_order(dtype, n):
    order = dflow.jit(np.argsort)
    for x in rows(dtype, n):
        np.testing.assert_array_equal(order(x), np.argsort(x, kind="stable"))


@pytest.mark.parametrize("shape", [(300, 200), (3, 5, 70), (3000, 20)])
def test_threads_share_rows(shape):
    x = RNG.standard_normal(shape)
    np.testing.assert_array_equal(dflow.jit(np.argsort)(x), np.argsort(x, kind="stable"))
