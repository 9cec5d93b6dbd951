"""Sorting, ranks, distinct elements, quantiles and counting, against NumPy."""

import numpy as np
import pytest
from traced_numpy import agrees, traced

import dflow
import dflow.numpy as dnp
from dflow.numpy import quantiles

RNG = np.random.default_rng(0)
VECTOR = RNG.normal(size=7).round(1)
MATRIX = RNG.normal(size=(4, 5)).round(1)
BLOCK = RNG.integers(0, 4, (2, 3, 4))
NAN = MATRIX.copy()
NAN[1, 2] = NAN[3] = np.nan
ARRAYS = [VECTOR, MATRIX, BLOCK, NAN, MATRIX.astype("f4"), BLOCK.astype("u1"), BLOCK > 1]


@pytest.mark.parametrize("axis", [-1, 0, None])
@pytest.mark.parametrize("x", ARRAYS, ids=lambda x: f"{x.dtype}{x.shape}")
def test_sort(x, axis):
    agrees(lambda x: np.sort(x, axis=axis), x)
    agrees(lambda x: np.argsort(x, axis=axis, stable=True), x)
    agrees(lambda x: x.argsort(axis, kind="stable"), x)


def test_sort_in_place():
    def f(x):
        y = x.copy()
        y.sort(0)
        return y

    agrees(f, MATRIX)


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("method", quantiles.METHODS)
@pytest.mark.parametrize("x", [VECTOR, MATRIX, BLOCK, MATRIX.astype("f4")], ids=lambda x: f"{x.dtype}{x.shape}")
def test_quantiles(x, method):
    agrees(lambda x: np.quantile(x, 0.3, method=method), x)
    agrees(lambda x: np.quantile(x, [0.0, 0.25, 0.5, 1.0], axis=0, method=method), x)
    agrees(lambda x: np.percentile(x, [[10, 20, 77.0]], axis=-1, method=method, keepdims=True), x)


CASES = {
    "median": [
        (lambda x: np.median(x), MATRIX),
        (lambda x: np.median(x, axis=0), NAN),
        (lambda x: np.median(x, axis=(0, 2), keepdims=True), BLOCK),
        (lambda x: np.nanmedian(x, axis=1), NAN),
        (lambda x: np.nanmedian(x), NAN),
    ],
    "nan quantiles": [
        (lambda x: np.nanquantile(x, [0.2, 0.7], axis=1), NAN),
        (lambda x: np.nanpercentile(x, 30, axis=(0, 1)), NAN),
        (lambda x: np.quantile(x, [0.2, 0.7], axis=1), NAN),
        (lambda x, q: np.quantile(x, q, axis=1), MATRIX, np.array([0.3, 0.9])),
        (lambda x, q: np.quantile(x, q, axis=1), MATRIX, 0.3),
    ],
    "partition": [(lambda x: np.sort(np.partition(x, 2)[:3]), VECTOR)],
    "lexsort": [
        (lambda a, b: np.lexsort((a, b)), BLOCK[0, 0], BLOCK[0, 1]),
        (lambda a: np.lexsort(a), BLOCK[0]),
        (lambda a, b: np.lexsort((a, b), axis=0), BLOCK[0], BLOCK[1]),
    ],
    "isin": [
        (lambda x: np.isin(x, [1, 2]), BLOCK),
        (lambda x: np.isin(x, BLOCK[0, 0], invert=True), BLOCK),
        (lambda x: np.isin([1, 2, 9], x), BLOCK),
    ],
    "compress": [
        (lambda x: np.compress([1, 0, 1], x, axis=1), MATRIX),
        (lambda x: np.extract(MATRIX > 0, x), MATRIX),
    ],
    "bincount": [(lambda x: np.bincount([0, 3, 3], x), VECTOR[:3])],
    "digitize": [
        (lambda x: np.digitize(x, [-1, 0, 0.5]), MATRIX),
        (lambda x: np.digitize(x, [1, 0, -0.5], right=True), MATRIX),
        (lambda x: np.digitize(x, [1, 0, -0.5]), MATRIX),
    ],
    "histogram": [
        (f, x)
        for x in (VECTOR, MATRIX, BLOCK.astype(float), BLOCK, np.ones(3))
        for f in (
            np.histogram,
            lambda x: np.histogram(x, 5, range=(-1.0, 1.0)),
            lambda x: np.histogram(x, [-1, 0, 0.5, 2], density=True),
            lambda x: np.histogram(x, 4, weights=x * x),
        )
    ],
    "histogram2d": [
        (lambda x, y: np.histogram2d(x, y), MATRIX.ravel(), MATRIX.ravel() ** 2),
        (
            lambda x, y: np.histogram2d(x, y, [3, 4], density=True, range=[[-1, 1], [0, 3]]),
            MATRIX.ravel(),
            MATRIX.ravel() ** 2,
        ),
        (lambda x: np.histogramdd(x, (3, 4, 5, 2, 2)), MATRIX),
    ],
    "unravel_index": [
        (lambda x: np.unravel_index(x, (2, 3, 4)), np.arange(24).reshape(4, 6)[::2]),
        (lambda x: np.unravel_index(x, (2, 3, 4), order="F"), np.arange(24)),
        (lambda x, y: np.ravel_multi_index((x, y), (3, 4)), np.array([0, 2, 1]), np.array([3, 1, 0])),
        (
            lambda x, y: np.ravel_multi_index((x, y), (3, 4), mode=("wrap", "clip"), order="F"),
            np.array([0, 5, 1]),
            np.array([7, 1, 0]),
        ),
    ],
}


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    for f, *args in CASES[name]:
        agrees(f, *args)


COUNT = int(np.sum(MATRIX > 0))
SIZED = {
    "unique": [
        (lambda x: dnp.unique(x, size=3), lambda x: np.unique(x)[:3], MATRIX),
        (lambda x: dnp.unique(x, size=8, fill_value=-1), lambda x: np.append(np.unique(x), [-1] * 4), BLOCK),
        (lambda x: dnp.unique(x, True, True, True, size=4), lambda x: np.unique(x, True, True, True), BLOCK),
        (lambda x: dnp.unique_all(x, size=4), lambda x: tuple(np.unique_all(x)), BLOCK),
    ],
    "nonzero": [
        (lambda x: dnp.nonzero(x > 0, size=COUNT), lambda x: np.nonzero(x > 0), MATRIX),
        (lambda x: dnp.argwhere(x > 0, size=COUNT), lambda x: np.argwhere(x > 0), MATRIX),
        (
            lambda x: dnp.flatnonzero(x > 0, size=COUNT + 2, fill_value=-1),
            lambda x: np.append(np.flatnonzero(x > 0), [-1, -1]),
            MATRIX,
        ),
        (
            lambda x: dnp.compress(x[0] > 0, x, axis=1, size=int(np.sum(MATRIX[0] > 0))),
            lambda x: np.compress(x[0] > 0, x, axis=1),
            MATRIX,
        ),
    ],
    "topk": [
        (
            lambda x: dnp.topk(x, 2),
            lambda x: (np.sort(x)[:, ::-1][:, :2], np.argsort(x, stable=True)[:, ::-1][:, :2]),
            MATRIX,
        ),
        (lambda x: dnp.topk(x, 2, axis=0, largest=False)[0], lambda x: np.sort(x, 0)[:2], MATRIX),
    ],
    "bincount": [
        (lambda x: dnp.bincount(x, length=4), np.bincount, BLOCK.ravel()),
        (lambda x: np.bincount(x, minlength=4), np.bincount, BLOCK.ravel()),
        (lambda x, w: dnp.bincount(x, w, length=4), np.bincount, BLOCK.ravel(), RNG.normal(size=24)),
    ],
}


@pytest.mark.parametrize("name", SIZED)
def test_results_of_a_size_that_is_said(name):
    for f, plain, *args in SIZED[name]:
        agrees(f, *args, plain=plain)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.sort(x, axis=0),
        lambda x: np.quantile(x, [0.2, 0.5], axis=1),
        lambda x: np.median(x, axis=1),
        lambda x: np.cumsum(np.sort(x, axis=None)),
    ],
)
def test_derivatives_follow_the_elements(f):
    x, h = RNG.normal(size=(3, 4)), 1e-6
    weights = RNG.normal(size=np.shape(f(x)))

    def loss(x):
        return np.sum(weights * f(x))

    numeric = [(loss(x + h * e.reshape(3, 4)) - loss(x - h * e.reshape(3, 4))) / (2 * h) for e in np.eye(12)]
    np.testing.assert_allclose(dflow.grad(loss)(x).ravel(), numeric, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: dnp.topk(x, 9), "k must be in 0..7"),
        (lambda x: np.bincount(x.astype(int)), "say how long"),
        (lambda x: np.sort(x, kind="best"), "sort kind"),
        (lambda x: np.partition(x, 9), "out of bounds"),
        (lambda x: np.quantile(x, 1.5), r"range \[0, 1\]"),
        (lambda x: np.quantile(x, 0.5, method="guess"), "not a valid method"),
    ],
)
def test_errors_tell(f, message):
    with pytest.raises((TypeError, ValueError), match=message):
        traced(f, VECTOR)


def test_positions_along_the_other_axes_are_counted_and_not_kept():
    """As constants they would be as large as the array, in the program and in its machine code."""
    text = dflow.grad(lambda x: np.sum(np.sort(x, 0) ** 2)).lower(np.ones((100, 4))).ir()
    assert "iota" in text and len(text) < 2000
    x, k = np.arange(12.0).reshape(3, 1, 4), np.array([[[1, 3]] * 5] * 3)  # an axis of one, stretched
    assert np.array_equal(dflow.jit(np.take_along_axis)(x, k, 2), np.take_along_axis(x, k, 2))
