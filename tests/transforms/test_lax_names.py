"""Functions of arrays under the names that they have in ``jax.lax``."""

import numpy as np
import pytest

import dflow
from dflow import lax

X = np.array([[0.5, -1.5, 2.0], [0.25, 3.0, -0.75]])
K = np.array([3, -7, 5])

CASES = {
    "rev": (lambda x: lax.rev(x, (1,)), X[:, ::-1]),
    "broadcast": (lambda x: lax.broadcast(x, (2, 1)), np.broadcast_to(X, (2, 1, 2, 3))),
    "broadcast_in_dim": (lambda x: lax.broadcast_in_dim(x, (2, 4, 3), (0, 2)), np.repeat(X[:, None], 4, 1)),
    "slice": (lambda x: lax.slice(x, (0, 1), (2, 3), (1, 2)), X[0:2, 1:3:2]),
    "slice_in_dim": (lambda x: lax.slice_in_dim(x, 1, 3, axis=1), X[:, 1:3]),
    "index_in_dim": (lambda x: lax.index_in_dim(x, -1, 1, keepdims=False), X[:, -1]),
    "dynamic_update_index_in_dim": (
        lambda x: lax.dynamic_update_index_in_dim(x, x[:, 0], 2, 1),
        np.column_stack([X[:, :2], X[:, 0]]),
    ),
    "concatenate": (lambda x: lax.concatenate([x, x], 1), np.hstack([X, X])),
    "reshape": (lambda x: lax.reshape(x, (6,), (1, 0)), X.T.ravel()),
    "cumsum": (lambda x: lax.cumsum(x, axis=1, reverse=True), np.cumsum(X[:, ::-1], 1)[:, ::-1]),
    "cumprod": (lax.cumprod, np.cumprod(X, 0)),
    "cummax": (lambda x: lax.cummax(x, 1), np.maximum.accumulate(X, 1)),
    "cummin": (lambda x: lax.cummin(x, 1, True), np.minimum.accumulate(X[:, ::-1], 1)[:, ::-1]),
    "cumlogsumexp": (lax.cumlogsumexp, np.logaddexp.accumulate(X, 0)),
    "sort": (lambda x: lax.sort(x, dimension=0), np.sort(X, 0)),
    "sort_key_val": (lambda x: lax.sort_key_val(x, 2 * x), (np.sort(X), 2 * np.sort(X))),
    "round": (lax.round, np.array([[1.0, -2.0, 2.0], [0.0, 3.0, -1.0]])),
    "round to even": (lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), np.rint(X)),
    "top_k": (lambda x: lax.top_k(x, 1, axis=0), (X.max(0)[None], X.argmax(0)[None])),
    "elementwise": (lambda x: lax.mul(lax.logistic(x), lax.atan2(x, lax.exp(x))), None),
}


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    f, want = CASES[name]
    want = np.arctan2(X, np.exp(X)) / (1 + np.exp(-X)) if want is None else want
    for found in (dflow.jit(f)(X), f(X)):
        for a, b in zip(dflow.tree.leaves(found), dflow.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_derivatives():
    def f(x):
        keys, values = lax.sort_key_val(x, x[::-1] ** 2, dimension=1)
        parts = lax.rev(lax.cumsum(values, 1, reverse=True), (0,)), lax.reshape(keys, (3, 2), (1, 0)).T
        return lax.mul(*parts) + lax.broadcast_in_dim(x[0], (2, 3), (1,))

    dflow.check_grads(f, (X,))


def test_quotients_and_dtypes():
    np.testing.assert_array_equal(lax.div(K, 2), [1, -3, 2])
    np.testing.assert_array_equal(lax.div(X, 2.0), X / 2)
    assert lax.convert_element_type(K, np.float32).dtype == lax.iota(np.float32, 3).dtype == np.float32
    with pytest.raises(AttributeError, match=r"dflow\.lax.*'gatherer'"):
        lax.gatherer  # noqa: B018
    with pytest.raises(ValueError, match="axis of size 2"):
        lax.slice(X, (0, 0), (3, 1))


def test_a_part_as_long_as_the_axis_is_the_axis():
    def item(x, i):
        return lax.dynamic_index_in_dim(x, i, axis=0, keepdims=False)

    def total(x):
        return np.sum(dflow.vmap(item, in_axes=(None, 0))(x, np.arange(3)))

    np.testing.assert_array_equal(dflow.grad(total)(np.array([2.0])), [3.0])
