"""Sets, fits and roots of polynomials, packed bits: what is new made of what is there, against NumPy."""

import numpy as np
import pytest

import dflow
import dflow.numpy as dnp

X, Y = np.array([3, 1, 2, 3, 5, 2]), np.array([2, 3, 9, 9])
P = np.array([0.5, -1.5, 2.0, 0.25, -3.0])
T, OBSERVED = np.linspace(0, 1, 8), np.sin(np.arange(16.0)).reshape(8, 2)
WEIGHTS = 1 + T**2
BYTES = np.array([[7, 129], [3, 4]], np.uint8)


def same(f, *args, tolerance=1e-9):
    got, wanted = dflow.jit(f)(*args), f(*args)
    pairs = zip(got, wanted, strict=True) if isinstance(wanted, tuple) else [(got, wanted)]
    for g, w in pairs:
        assert np.asarray(g).dtype == np.asarray(w).dtype
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("f", [np.union1d, np.intersect1d, np.setdiff1d, np.setxor1d])
@pytest.mark.parametrize("x, y", [(X, Y), (X * 0.5, Y), (X[:0], Y), (X, Y[:0])])
def test_sets(f, x, y):
    same(f, x, y)


def test_sets_with_options():
    same(lambda x, y: np.intersect1d(x, y, return_indices=True), X, Y)
    same(lambda x, y: np.setdiff1d(x, y, assume_unique=True), X, Y)
    sized = dflow.jit(lambda x, y: (dnp.intersect1d(x, y, size=4, fill_value=-1), dnp.union1d(x, y, size=2)))
    assert [p.tolist() for p in sized(X, Y)] == [[2, 3, -1, -1], [1, 2]]


def test_places_of_known_number():
    """Of empty arrays, too. What is missing is, as in JAX, the smallest element or an index behind the last one."""
    x, y = np.array([3.0, 1.0, 5.0, 2.0]), np.array([5.0, 2.0, 9.0])
    symmetric = dflow.jit(lambda x, y: dnp.setxor1d(x, y, size=5))
    assert symmetric(x, y).tolist() == [1, 3, 9, 1, 1] and symmetric(x[:0], y).tolist() == [2, 5, 9, 2, 2]
    common, *places = dflow.jit(lambda x, y: dnp.intersect1d(x, y, size=3, return_indices=True))(x, y)
    assert common.tolist() == [2, 5, 2] and [p.tolist() for p in places] == [[3, 2, 4], [1, 0, 3]]
    for f in (dnp.setdiff1d, dnp.intersect1d, dnp.setxor1d, dnp.union1d):
        assert dflow.jit(lambda x, f=f: f(x, x, size=2))(x[:0]).tolist() == [0, 0]
    m = np.array([[0, 1], [1, 0]])
    assert [p.tolist() for p in dflow.jit(lambda m: dnp.where(m, size=3, fill_value=(5, 6)))(m)] == [
        [0, 1, 5],
        [1, 0, 6],
    ]
    assert [p.tolist() for p in dflow.jit(lambda m: dnp.where(m, size=2))(m[:0])] == [[0, 0], [0, 0]]
    assert dnp.where(m, m, 7, size=None).tolist() == [[7, 1], [1, 7]]


@pytest.mark.parametrize("trim", ["fb", "f", "b"])
def test_trim_zeros(trim):
    same(lambda x: np.trim_zeros(x, trim), np.array([0, 0, 1.0, 0, 2, 0]))
    same(lambda x: np.trim_zeros(x, trim), np.zeros(2))


def test_roots():
    same(lambda p: np.sort_complex(np.roots(p)), P)
    dflow.check_grads(np.roots, (P,))
    same(lambda p: np.poly(p[:, None] * p), P)
    with pytest.raises(ValueError, match="first coefficient"):
        dflow.jit(np.roots)(np.array([0.0, 1.0, 2.0]))


@pytest.mark.parametrize(
    "options", [{}, {"w": WEIGHTS}, {"cov": True}, {"cov": "unscaled", "w": WEIGHTS}, {"full": True}], ids=str
)
def test_polyfit(options):
    for y in (OBSERVED, OBSERVED[:, 0].copy()):
        same(lambda x, y: np.polyfit(x, y, 2, **options), T, y)
    dflow.check_grads(lambda x, y: np.polyfit(x, y, 1, **options)[0], (T, OBSERVED))


def test_bits():
    same(lambda x: np.packbits(x, axis=1, bitorder="little"), X.reshape(2, 3) % 2)
    same(np.packbits, np.arange(11) % 3)
    same(lambda x: np.unpackbits(x, axis=1, count=11), BYTES)
    same(lambda x: np.unpackbits(x, bitorder="little"), BYTES)


@pytest.mark.parametrize("axis", [0, 1])
def test_distinct_slices(axis):
    x = np.array([[1, 2], [0, 5], [1, 2], [0, 3], [0, 5]])
    same(lambda x: np.unique(x, axis=axis, return_index=True, return_inverse=True, return_counts=True), x)
    got = dflow.jit(lambda x: dnp.unique(x, axis=0, size=4, fill_value=-1))(x)
    assert got.tolist() == [[0, 3], [0, 5], [1, 2], [-1, -1]]


def test_weighted_quantiles():
    x, w = np.sin(np.arange(24.0)).reshape(3, 8), 1 + np.cos(np.arange(24.0)).reshape(3, 8)
    w[:, 2] = 0
    y = np.where(x > 0.9, np.nan, x)
    for f in (np.quantile, np.nanquantile):
        same(lambda x, w, f=f: f(x, [0.0, 0.3, 1.0], axis=1, method="inverted_cdf", weights=w), x, w)
        same(lambda x, w, f=f: f(x, 0.5, method="inverted_cdf", weights=w, keepdims=True), y, w)
    same(lambda x, w: np.percentile(x, [10, 60], axis=1, method="inverted_cdf", weights=w), x, w[1])
    dflow.check_grads(lambda x: np.quantile(x, 0.3, axis=1, method="inverted_cdf", weights=w), (x,))


def test_windows():
    x = np.arange(20.0).reshape(4, 5)
    view = np.lib.stride_tricks.sliding_window_view
    same(lambda x: view(x, (2, 3)), x)
    same(lambda x: view(x, 3, axis=1), x)


def test_repeats_that_are_traced():
    repeated = dflow.jit(lambda x, n: dnp.repeat(x, n, total_repeat_length=5))
    assert repeated(np.array([1, 2, 3]), np.array([2, 0, 1])).tolist() == [1, 1, 3, 3, 3]
