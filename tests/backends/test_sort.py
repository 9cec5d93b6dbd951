"""Rows of every length and kind that sorting has a way of its own for, against NumPy's stable sort."""

from collections.abc import Callable

import numpy as np
import pytest

import dflow
import dflow.ir.ops
from dflow.backends.emit import quick_sort
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.native.generation import compile_plan
from dflow.ir.builder import Builder
from dflow.ir.types import F16, F32, F64, I64, U8, TensorType

DTYPES = {str(t): t for t in (F16, F32, F64, I64, U8)}
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


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "u4"])
@pytest.mark.parametrize("n", [3, 20, 100, 700, 30_001])
def test_elements(dtype, n):
    f = dflow.jit(np.sort)
    for x in rows(dtype, n):
        np.testing.assert_array_equal(f(x), np.sort(x))


@pytest.mark.parametrize("dtype", [F32, I64])
def test_elements_when_samples_have_misled_for_long(dtype, monkeypatch):
    monkeypatch.setattr(quick_sort, "PATIENCE", 0)
    b = Builder([TensorType(dtype, (3000,))])
    f = compile_plan(bufferize(b.function("sorted", [b.sort(*b.args)])))
    for x in rows(dtype.numpy.str[1:], 3000):
        np.testing.assert_array_equal(f(x)[0], np.sort(x))


def ranked(dtype: str, *shapes: tuple[int, ...]) -> Callable[..., tuple[np.ndarray, ...]]:
    b = Builder([TensorType(DTYPES[dtype], shapes[0]), TensorType(I64, shapes[1])])
    return compile_plan(bufferize(b.function("ranked", [b.ranked(*b.args)])))


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "i64", "u8"])
@pytest.mark.parametrize("n", [1, 64, 1500, 40_003])
@pytest.mark.parametrize("many", [False, True])
def test_places_of_the_order(dtype, n, many):
    """A few ranks, near each other and apart; more than there are windows; beyond the ends."""
    further = [*range(0, n, n // 13 + 1), -1] if many else []
    places = np.array([n // 2, n // 2 + 1, 0, n - 1, n // 10, n // 3, *further, n])
    f = ranked(dtype, (n,), places.shape)
    for x in rows(DTYPES[dtype].numpy.str[1:], n):
        order = np.argsort(x, kind="stable")
        np.testing.assert_array_equal(f(x, places)[0], order[np.clip(places, 0, n - 1)])


def test_places_that_a_sample_misleads_about():
    """All elements of the sample are alike, and the others are not."""
    n = 1 << 15
    x = np.where(np.arange(n) % 16 == 0, 0.0, RNG.standard_normal(n))
    places = np.arange(0, n, 5000)
    order = np.argsort(x, kind="stable")
    np.testing.assert_array_equal(ranked("f64", (n,), places.shape)(x, places)[0], order[places])


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "u1"])
def test_partitions(dtype):
    """Both sides keep their order; of elements alike, those before that of the rank come before."""
    both = dflow.jit(lambda x: [(np.partition(x, k), np.argpartition(x, k)) for k in (0, 1_500, -1)])
    for x in rows(dtype, 2_501):
        order = np.argsort(x, kind="stable")
        for k, (found, at) in zip((0, 1_500, 2_500), both(x)):
            wanted = np.concatenate([np.sort(order[:k]), order[k : k + 1], np.sort(order[k + 1 :])])
            np.testing.assert_array_equal(at, wanted)
            np.testing.assert_array_equal(found, x[at])


def test_partitions_of_rows_and_their_derivatives():
    x, w = RNG.standard_normal((2, 3, 1_100)), RNG.standard_normal((3, 1_100))
    f = lambda x: np.partition(x, 700, axis=1)  # noqa: E731
    found, at = dflow.jit(lambda x: (f(x), np.argpartition(x, 700, axis=1)))(x.swapaxes(1, 2))
    np.testing.assert_array_equal(found, np.take_along_axis(x.swapaxes(1, 2), at, 1))
    wanted = np.zeros((2, 3, 1_100))
    np.put_along_axis(wanted, at.swapaxes(1, 2), np.broadcast_to(w, x.shape), -1)
    gradient = dflow.vmap(dflow.grad(lambda x: np.sum(f(x[None].swapaxes(1, 2))[0].T * w)))(x)
    np.testing.assert_array_equal(gradient, wanted)
