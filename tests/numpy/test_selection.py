"""Choosing, inserting, writing, functions along axes and polynomials, against NumPy."""

import numpy as np
import pytest
from traced_numpy import agrees

import dflow

RNG = np.random.default_rng(0)
X = RNG.normal(size=7).round(1)
M = RNG.normal(size=(4, 5)).round(1)
T = RNG.integers(0, 4, (2, 3, 4))
N = M.copy()
N[1, 2] = np.nan
N[3] = 1.0
p, q = X[:4], X[4:6] + 0.3

CASES = [
    (lambda x: np.add.reduce(x, axis=(0, 2)), T),
    (lambda x: np.bitwise_xor.reduce(x, axis=(0, 2)), T),
    (lambda x: np.add.reduce(x, axis=None), T),
    (lambda x: np.cumulative_sum(x, axis=1, include_initial=True), M),
    (lambda x: np.cumulative_prod(x), X),
    (lambda x: np.nancumsum(x, axis=0), N),
    (lambda x: np.nancumprod(x), N),
    (lambda a, x: np.choose(a, [x, x * 2, -x, 1]), T[0], M[:3, :4]),
    (lambda a, x: np.choose(a, [x, x * 2], mode="wrap"), T[0], M[:3, :4]),
    (lambda a, x: np.choose(a, [x, x * 2], mode="clip"), T[0], M[:3, :4]),
    (lambda x: np.piecewise(x, [x < 0, x > 0.5], [lambda v: -v, lambda v: v**2, 7]), X),
    (lambda x: np.insert(x, 2, 5), X),
    (lambda x: np.insert(x, [1, 1, 4], [5, 6, 7]), X),
    (lambda x: np.insert(x, 1, [1, 2, 3, 4, 5], axis=0), M),
    (lambda x: np.insert(x, -1, [1, 2, 3, 4], axis=1), M),
    (lambda x: np.insert(x, [1, 3], x[:, :2], axis=1), M),
    (lambda x: np.insert(x, slice(0, 4, 2), 9), X),
    (lambda x: np.insert(x, 1, 9), M),
    (lambda x: np.insert(x, [1], [7, 8, 9, 6], axis=1), M),
    (lambda x: np.insert(x, np.array([True, False, True]), 9), X),
    (lambda x, i: np.insert(x, i, [7, 8, 9]), X, np.array([-1, 5, 0])),
    (lambda x, i: np.insert(x, i, x[:, :2], axis=1), M, np.array([3, 3])),
    (lambda x, i: (np.insert(x, i, 7), np.delete(x, i)), X, np.array(-2)),
    (lambda x, i: np.average(x, axis=(2, 0), weights=i), T, np.arange(1.0, 1 + T[:, 0].size).reshape(T[:, 0].T.shape)),
    (lambda x: np.apply_along_axis(lambda r: r.sum(), 0, x), M),
    (lambda x: np.vander(x, 0), np.arange(3, dtype=np.uint8)),
    (lambda x: (np.nanmedian(x, axis=0), np.median(x, axis=1)), np.array([[np.inf, 7], [-10, np.nan], [4, np.nan]])),
    (lambda x: np.nanvar(x, axis=1, ddof=1), np.array([[1, 2, np.nan], [1, 2, 4], [0, 2, 7]])),
    (lambda x: np.apply_along_axis(lambda r: r * 2, 1, x), M),
    (lambda x: np.apply_along_axis(np.sort, 1, x), T),
    (lambda x: np.apply_along_axis(lambda r: np.outer(r, r), 1, x), T),
    (lambda x: np.apply_along_axis(np.diag, -1, x), T),
    (lambda x: np.apply_along_axis(np.sum, 0, x), X),
    (lambda x: np.apply_over_axes(np.sum, x, [0, 2]), T),
    (lambda x, i: x[np.ix_(i, [0, 2])], M, np.array([1, 0, 3])),
    (lambda x: x[np.ix_([True, False, True, True], [0, 2])], M),
    (
        lambda x: (x[np.tril_indices_from(x)], x[np.triu_indices_from(x, 1)], x[:, :4][np.diag_indices_from(x[:, :4])]),
        M,
    ),
    (
        lambda p, q: (
            np.polyadd(p, q),
            np.polysub(q, p),
            np.polymul(p, q),
            np.polyder(p),
            np.polyder(p, 2),
            np.polyint(p),
            np.polyint(p, 2, [1, 2.0]),
        ),
        p,
        q,
    ),
    (lambda p, q: np.polydiv(p, q)[0], p, q),
    (lambda p: np.poly(p), p),
]


@pytest.mark.parametrize("case", CASES)
def test_against_numpy(case):
    f, *args = case
    agrees(f, *args)


def test_piecewise_and_vectorize():
    agrees(lambda x: np.piecewise(x, [x < 0, x > 0.5], [-1, 1]), X)

    def f(x):
        return np.vectorize(lambda a, b: a + b if a > b else a * b)(x, 0.2)

    def two(x):
        return np.vectorize(lambda a: (a, a * 2))(x)

    np.testing.assert_array_equal(dflow.jit(f)(M), f(M))
    for got, wanted in zip(dflow.jit(two)(M), two(M), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_writing():
    def f(x):
        y, z, w, v = (x.copy() for _ in range(4))
        np.putmask(y, x > 0, [1, 2, 3])
        np.place(z, x > 0, [1, 2, 3])
        np.put(w, [0, 3, -1], [7, 8])
        np.put(v, [0, 30, -1], [7, 8], mode="clip")
        return y, z, w, v

    agrees(f, X)
    agrees(f, M)


@pytest.mark.parametrize(
    "f, x",
    [
        (lambda x: np.apply_along_axis(lambda r: np.outer(r, r), 1, x), M),
        (lambda x: np.insert(x, 2, x[0]), X),
        (lambda x: np.insert(np.delete(x, np.argmax(x)), np.argmin(x), x[:1] ** 2), X),
        (lambda x: np.polydiv(x, np.array([1.0, 2.0]))[0], X),
    ],
)
def test_derivatives(f, x):
    h = 1e-6
    weights = RNG.normal(size=np.shape(f(x)))

    def loss(x):
        return np.sum(weights * f(x))

    steps = h * np.eye(x.size).reshape(-1, *x.shape)
    numeric = [(loss(x + e) - loss(x - e)) / (2 * h) for e in steps]
    np.testing.assert_allclose(dflow.grad(loss)(x).ravel(), numeric, rtol=1e-6, atol=1e-6)


def test_sizes_that_depend_on_data_and_checks_at_run_time():
    without = dflow.jit(lambda x, i: (np.delete(x, i), np.delete(x, x > 0.5), np.median(x[:0])))
    for got, wanted in zip(without(X, np.array([1, 1, -1])), (np.delete(X, [1, -1]), X[X <= 0.5], np.nan), strict=True):
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(IndexError, match="out of bounds"):
        dflow.jit(lambda x, i: np.insert(x, i, 1.0))(X, np.int64(8))
    with pytest.raises(ValueError, match="out of bounds"):
        dflow.jit(lambda i: np.unravel_index(i, (2, 3)))(np.array([0, 6]))
    with pytest.raises(ValueError, match="not finite"):
        dflow.jit(lambda x: np.histogram(x, 3)[0])(np.array([0.0, np.nan]))
    variance = dflow.jit(lambda x: np.nanvar(x, axis=1, ddof=2))
    np.testing.assert_array_equal(variance(np.array([[1, 2, np.nan], [1, 2, 6]])), [np.nan, 14.0])
    weighted = dflow.jit(lambda x, q, w: np.quantile(x, q, weights=w, method="inverted_cdf"))
    for q, w, message in ((1.5, 1.0, "range"), (0.5, -1.0, "non-negative"), (0.5, np.nan, "finite")):
        with pytest.raises(ValueError, match=message):
            weighted(X, q, np.full(7, w))
