"""Gradients, interpolation, covariance, padding and small recipes with all their options, against NumPy."""

import numpy as np
import pytest
from traced_numpy import agrees

import dflow
import dflow.numpy as dnp
from dflow.numpy import padding

RNG = np.random.default_rng(0)
LONG = np.arange(120.0).reshape(30, 4)
X = RNG.normal(size=7).round(1)
M = RNG.normal(size=(4, 5)).round(1)
T = RNG.integers(0, 4, (2, 3, 4))
N = M.copy()
N[1, 2] = np.nan
N[3] = 1.0
C = np.sort(RNG.random(5))

CASES = [
    (lambda x: np.gradient(x, edge_order=2), X),
    (lambda x: np.gradient(x, edge_order=2), M),
    (lambda x: np.gradient(x, 0.3, edge_order=1, axis=1), M),
    (lambda x: np.gradient(x, C, edge_order=2, axis=1), M),
    (lambda x, c: np.gradient(x, 0.2, c, edge_order=1), M, C),
    (lambda x: np.unwrap(x), X * 5),
    (lambda x: np.unwrap(x, axis=0), M * 9),
    (lambda x: np.unwrap(x, discont=4, period=5), X * 9),
    (lambda x: np.unwrap(x, period=4), T),
    (lambda x, s: np.searchsorted(x, [0, 0.3], sorter=s), X, np.argsort(X)),
    (lambda x: np.searchsorted(x, [0, np.nan]), np.array([0, 1, np.nan])),
    (lambda x: np.searchsorted(x, [0, np.nan], side="right"), np.array([0, 1, np.nan])),
    (lambda x: np.interp(x, [190, -170, 350], [5, 10, 3], period=360), X * 400),
    (lambda x: np.cov(x), M),
    (lambda x: np.cov(x, x[::-1] ** 2), X),
    (lambda x: np.cov(x, rowvar=False, bias=True), M),
    (lambda x: np.cov(x, aweights=[1, 2, 3, 4, 5.0]), M),
    (lambda x: np.cov(x, fweights=[1, 2, 3, 4, 5], ddof=0), M),
    (lambda x: np.cov(x, fweights=[1, 2, 3, 4, 5], aweights=[0.1, 0.2, 0.3, 0.4, 0.5]), M),
    (lambda x: np.corrcoef(x), M),
    (lambda x: np.corrcoef(x, x**2), X),
    (lambda x: np.corrcoef(x, rowvar=False), M),
    (lambda x: np.cov(x), X),
    *((lambda x, mode=mode: np.pad(x, ((1, 2), (0, 1)), mode), LONG) for mode in ("edge", "reflect", "wrap")),
    (lambda x: np.isin(x, [0.5, 30.0, 7.0]), LONG),
    (lambda x: np.pad(x, 3, "reflect", reflect_type="odd"), X),
    (lambda x: np.pad(x, 9, "reflect", reflect_type="odd"), X),
    (lambda x: np.pad(x, ((1, 2), (3, 0)), "reflect", reflect_type="odd"), M),
    (lambda x: np.pad(x, 3, "symmetric", reflect_type="odd"), X),
    (lambda x: np.pad(x, 3, "mean", stat_length=2), X),
    (lambda x: np.pad(x, 3, "linear_ramp", end_values=(5, -5)), X),
    (lambda x: np.pad(x, 3, "constant", constant_values=((1, 2), (3, 4))), M),
    (lambda x: np.pad(x, {1: 2}), M),
    (lambda x: np.ediff1d(x, to_end=[1, 2], to_begin=3), X),
    (lambda x: np.dsplit(x, 2), T),
    (lambda x: np.array_equiv(x, x[0]), M),
    (lambda x: np.nanargmax(x, axis=0), N),
    (lambda x: np.nanargmin(x), N),
    (lambda x: np.i0(x), np.linspace(-60, 60, 200)),
    (lambda b: dnp.kaiser(7, b), 3.4),
    (lambda a: np.geomspace(a, 100, 5), 2.0),
    (lambda a: np.geomspace(a, [100, 3.0], 5, axis=1, endpoint=False), 2.0),
    (lambda x: x.mT, M),
    (lambda x: x.T.real, M),
    (lambda x: np.vander(x, 4, increasing=True), X),
    (lambda x: np.rollaxis(x, 2), T),
    (lambda x: np.pad(x, 9, "symmetric", reflect_type="odd"), X),
]


@pytest.mark.parametrize("case", CASES)
def test_against_numpy(case):
    f, *args = case
    agrees(f, *args)


@pytest.mark.parametrize("mode", [m for m in padding.OPTIONS if m != "empty"])
def test_pad(mode):
    for x in (X, M, T):
        agrees(lambda x: np.pad(x, 2, mode), x)
        agrees(lambda x: np.pad(x, [(1, 3)] * x.ndim, mode), x)
    agrees(lambda x: np.pad(x, ((0, 1), (2, 0)), mode), M)


@pytest.mark.parametrize(
    "f, x",
    [
        *(
            (f, RNG.normal(size=7) * 3)
            for f in (
                lambda x: np.gradient(x, edge_order=2),
                np.unwrap,
                lambda x: np.pad(x, 3, "reflect", reflect_type="odd"),
                lambda x: np.pad(x, 3, "linear_ramp"),
                np.i0,
                lambda x: np.pad(x, 2, "median"),
                lambda x: np.interp(0.3, np.arange(7.0), x, period=9.0),
            )
        ),
        (np.cov, M),
        (np.corrcoef, M),
        (lambda x: np.gradient(x, C, axis=1, edge_order=2), M),
    ],
)
def test_derivatives(f, x):
    h = 1e-6
    weights = RNG.normal(size=np.shape(f(x)))

    def loss(x):
        return np.sum(weights * f(x))

    steps = h * np.eye(x.size).reshape(-1, *x.shape)
    numeric = [(loss(x + e) - loss(x - e)) / (2 * h) for e in steps]
    np.testing.assert_allclose(dflow.grad(loss)(x).ravel(), numeric, rtol=2e-6, atol=2e-6)
