"""``x.at[i].set(v)`` in traced functions, and reductions over segments."""

import numpy as np
import pytest

import dflow
from dflow import ops

X = np.arange(12.0).reshape(3, 4) + 0.7
I = np.array([0, 2, 0])
OUTSIDE = np.array([0, 5, -9])


def changed(change):
    y = X.copy()
    change(y)
    return y


def put(index, value):
    return changed(lambda y: y.__setitem__(index, value))


CASES = {
    "set": (lambda x: x.at[1].set(5), put(1, 5.0)),
    "set at repeated places": (lambda x: x.at[I, 1].set(7.0, unique_indices=False), put((I, 1), 7.0)),
    "add": (lambda x: x.at[I].add(x[I] * 2), changed(lambda y: np.add.at(y, I, X[I] * 2))),
    "subtract": (lambda x: x.at[1:, 0].subtract(x[0, 0]), put((slice(1, None), 0), X[1:, 0] - X[0, 0])),
    "multiply": (lambda x: x.at[I, 2].multiply(3.0), changed(lambda y: np.multiply.at(y, (I, 2), 3.0))),
    "divide": (lambda x: x.at[::2].divide(2.0), put(slice(None, None, 2), X[::2] / 2)),
    "power": (lambda x: x.at[0, 0].power(2.0), put((0, 0), 0.7**2)),
    "max": (lambda x: x.at[:, 1:3].max(6.0), put((slice(None), slice(1, 3)), np.maximum(X[:, 1:3], 6.0))),
    "min": (lambda x: x.at[I, 0].min(3.0), put(I, np.minimum(X[I], [3.0, np.inf, np.inf, np.inf]))),
    "mask": (lambda x: x.at[x > 5].add(1.5), X + 1.5 * (X > 5)),
    "apply": (lambda x: x.at[I, 1].apply(lambda v: v * v), put(([0, 2], 1), [1.7**4, 9.7**2])),
    "outside, dropped": (lambda x: x.at[OUTSIDE, 1:].add(100.0, mode="drop"), put((0, slice(1, None)), X[0, 1:] + 100)),
    "outside, moved inside": (lambda x: x.at[OUTSIDE, 0].get(mode="clip"), X[[0, 2, 0], 0]),
    "outside, filled": (lambda x: x.at[..., OUTSIDE].get(mode="fill"), np.stack([X[:, 0], *[X[:, 0] * np.nan] * 2], 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_updates(name):
    f, want = CASES[name]
    np.testing.assert_allclose(dflow.jit(f)(X), want)


def test_derivatives():
    def f(x):
        y = x.at[I].multiply(x[1]).at[OUTSIDE, 1:].add(x[:, :3] ** 2, mode="drop")
        return y.at[I, 1].apply(np.sin).at[..., OUTSIDE].get(mode="fill", fill_value=2.0) * y.at[0].max(3.0)[:, :3]

    dflow.check_grads(dflow.jit(f), (X / 10,))


def test_refusals():
    with pytest.raises(IndexError, match="out of bounds"):
        dflow.jit(lambda x, i: x.at[i].set(0.0))(X, 3)
    with pytest.raises(TypeError, match="the mode of an index"):
        dflow.jit(lambda x: x.at[0].set(0.0, mode="wrap"))(X)


SEGMENTS = {
    "sum": (ops.segment_sum, [[9.4, 11.4], [4.7, 5.7], [0.0, 0.0]]),
    "prod": (ops.segment_prod, [[0.7 * 8.7, 1.7 * 9.7], [4.7, 5.7], [1.0, 1.0]]),
    "max": (ops.segment_max, [[8.7, 9.7], [4.7, 5.7], [-np.inf, -np.inf]]),
    "min": (ops.segment_min, [[0.7, 1.7], [4.7, 5.7], [np.inf, np.inf]]),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_segments(name):
    f, want = SEGMENTS[name]
    ids = np.array([0, 1, 0])
    np.testing.assert_allclose(f(X[:, :2], ids, num_segments=3), want)
    dflow.check_grads(lambda x: f(x, ids), (X[:, :2] / 5,))


def test_segments_left_out():
    ids = np.array([-1, 1, 2])
    np.testing.assert_array_equal(ops.segment_sum(X, ids, 2), [X[0] * 0, X[1]])
    np.testing.assert_array_equal(ops.segment_max(ids, ids, 2), [np.iinfo(np.int64).min, 1])
    with pytest.raises(dflow.errors.NeedsStatic, match="number of segments"):
        dflow.jit(ops.segment_sum)(X, ids)
