"""Kernels that read a tensor across go over it in tiles."""

import numpy as np
import pytest

import dflow

R = np.random.default_rng(0)
X, Y, Z = R.normal(size=(100, 77)), R.normal(size=(77, 100)), R.normal(size=(33, 40, 35))
SQUARE = R.normal(size=(70, 70))
AT = R.integers(0, 77, 64)


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (lambda x, y: x.T + y, (X, Y)),
        (lambda x, y: x.T[3:, 2:] + y[1:-2, :-2] * x[2:, 3:].mT, (X, Y)),
        (lambda x: x.T + x, (SQUARE,)),
        (lambda x: np.stack([x.T.copy(), 2.0 * x]), (X.astype("f4")[:77],)),
        (lambda x: ((x > 0.0).T, x.T * 1.0), (X,)),
        (lambda x: x.T * 3, (X.astype("i1"),)),
        (lambda x: x.T + 1.0, (X.astype("c16"),)),
        (lambda z: z.transpose(2, 1, 0) * 2.0, (Z,)),
        (lambda z: z.transpose(0, 2, 1) * 2.0 + z.transpose(0, 2, 1)[:, ::-1], (Z,)),
        (lambda z: z.transpose(1, 2, 0) * 2.0, (Z,)),
        (lambda y, i: y[i].T + 1.0, (Y, AT)),
        (lambda x, i: x.T[i] + 1.0, (X, AT)),
    ],
)
def test_tiles(f, args):
    for got, wanted in zip(dflow.jit(f)(*args), f(*args), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_what_is_read_across_may_be_overwritten():
    def f(x):
        x = x.copy()
        x[:] = x.T + x
        return x

    np.testing.assert_array_equal(dflow.jit(f)(SQUARE), f(SQUARE))


def test_gradient():
    got = dflow.grad(lambda x: np.sum((x.T + x) ** 3))(SQUARE)
    np.testing.assert_allclose(got, 6.0 * (SQUARE.T + SQUARE) ** 2, rtol=1e-12)
