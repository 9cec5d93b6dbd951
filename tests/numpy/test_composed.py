"""Ready-made numerical recipes against NumPy."""

import numpy as np
import pytest
from traced_numpy import agrees, traced

X = np.array([0.3, 1.2, 1.9, 3.5, 4.0])
M = np.arange(12.0).reshape(3, 4) ** 1.5 % 5
POINTS = np.array([-1.0, 0.0, 0.5, 1.0, 2.5, 4.0, 9.0])

CASES = {
    "trapezoid": [
        (X, np.trapezoid),
        (M, lambda m: np.trapezoid(m, axis=0)),
        (M, lambda m: np.trapezoid(m, [1, 2, 4, 8])),
    ],
    "trapezoid axis": [(M, lambda m: np.trapezoid(m, [1, 2, 4], axis=0)), (X, lambda x: np.trapezoid(x, dx=0.1))],
    "gradient": [
        (X, np.gradient),
        (M, np.gradient),
        (M, lambda m: np.gradient(m, 0.5, axis=1)),
        (X, lambda x: np.gradient(x, 2)),
        (X[:3], lambda x: np.gradient(x, np.array([3, 2, 1], np.uint8))),
    ],
    "interp": [
        (POINTS, lambda x: np.interp(x, [0.0, 1.0, 3.0, 4.0], [1.0, 5.0, 2.0, 7.0])),
        (POINTS, lambda x: np.interp(x, [0.0, 1.0], [1.0, 5.0], left=-1, right=np.nan)),
        (POINTS, lambda x: np.interp(0.7, x, x * x)),
        (POINTS, lambda x: np.interp(x, [1.0], [2.0], left=0.0)),
    ],
    "searchsorted": [
        (POINTS, lambda x: np.searchsorted([0, 1, 1, 2, 4], x)),
        (POINTS, lambda x: np.searchsorted([0, 1, 1, 2, 4], x, "right")),
        (POINTS, lambda x: np.searchsorted(x, [[0.7, 9], [-5, 10]])),
    ],
    "polyval": [(X, lambda x: np.polyval([1.0, -2.0, 3.0], x)), (X, lambda x: np.polyval(x, 2))],
    "convolve": [
        (X, lambda x, mode=mode, y=y: (np.convolve(x, y, mode), np.convolve(y, x, mode), np.correlate(x, y, mode)))
        for mode in ("full", "same", "valid")
        for y in ([1.0, -1.0], [1.0, 2.0, 3.0], [1, 2, 3, 4, 5, 6])
    ]
    + [(np.tile(X, 200), lambda x: (np.convolve(x, [1.0, np.inf, -2.0]), np.convolve(X, x, "same")))],
    "correlate": [(X, lambda x: np.correlate([1.0, 2.0], x)), (X, lambda x: np.correlate(x, x))],
    "cov": [
        (M, np.cov),
        (M, lambda m: np.cov(m, rowvar=False, bias=True)),
        (X, np.cov),
        (M, lambda m: np.cov(m, ddof=2)),
        (M, lambda m: np.cov(m, dtype=np.float32)),
    ],
    "corrcoef": [(M, np.corrcoef), (X, np.corrcoef)],
    "delete": [(X, lambda x: np.delete(x, [0, -1])), (M, lambda m: np.delete(m, 1, axis=1))],
    "resize": [(X, lambda x: np.resize(x, (3, 4)))],
    "norms": [(M, np.linalg.vector_norm), (M, np.linalg.matrix_norm), (X, lambda x: np.linalg.vector_norm(x, ord=1))],
    "kinds": [(X, lambda x: (np.isreal(x), np.iscomplex(x)))],
}


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    for x, f in CASES[name]:
        agrees(f, x)


@pytest.mark.skipif(not hasattr(np, "cumulative_sum"), reason="NumPy 2.1")
def test_cumulative():
    agrees(np.cumulative_sum, X)
    agrees(lambda m: np.cumulative_prod(m, axis=1), M)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: np.gradient(x, edge_order=3), "greater than 2"),
        (lambda x: np.interp(x, [0, 1], [1, 2, 3]), "not of the same length"),
        (lambda x: np.convolve(x, x, "most"), "mode must be one of"),
        (lambda x: np.delete(x, x[:1]), "must be of integer"),
        (lambda x: np.rot90(x, axes=(0, 0)), "must be different"),
        (lambda x: np.select([x], [x]), "should be boolean"),
        (lambda x: np.trim_zeros(x, "front"), "unexpected character"),
        (lambda x: np.concatenate([x, x], dtype=int), "same_kind"),
        (lambda x: np.broadcast_to(x, (-1, 5)), "non-negative"),
        (lambda x: np.histogram(x, range=(2, 1)), "larger than min"),
        (lambda x: np.histogram(x, bins=[1, 0]), "monotonically"),
        (lambda x: np.vsplit(x, 5), "2 or more dimensions"),
        (lambda x: np.unique(x, axis=1), "out of bounds"),
        (lambda x: np.i0(x + 1j), "not supported for complex"),
        (lambda x: np.percentile(x, np.nan), "must be in the range"),
    ],
)
def test_errors_tell(f, message):
    with pytest.raises((TypeError, ValueError), match=message):
        traced(f, X)
