"""Short rows that are moved, cleared and added as a whole."""

import numpy as np

import dflow

RNG = np.random.default_rng(6)


def test_rows_planes_and_what_is_no_row():
    def f(x, n):
        y = np.zeros((4, 3, 4), x.dtype)
        z, w = np.full((3, 12), 1, x.dtype), np.zeros((12, 3), x.dtype)
        for k in range(n):
            rows = x[k : k + 3] + 1
            y[k] = rows  # three rows of four, one behind the other
            y[k, 1:] += rows[:2]
            z[k] = np.concatenate((x[k], x[k + 1], x[k]))
            z[k, 2:11] = z[k, 1:10].copy()
            w[:, k] = z[k]  # in strides
            w[::2, k] = z[k, ::2] + 1
            z[k, ::-1] = z[k].copy()
        return y, z, w

    for dtype in (np.float64, np.float32, np.int16, np.complex128):
        x = (RNG.normal(size=(6, 4)) * 9).astype(dtype)
        for got, wanted in zip(dflow.jit(f)(x, 3), f(x, 3)):
            np.testing.assert_array_equal(got, wanted)


def test_cleared_rows_have_the_right_zero():
    def f(n, negative):
        x = np.full((n, 9), np.nan)
        for k in range(n):
            x[k] = np.full(9, -0.0) if negative else np.zeros(9)
        return x

    for negative in (False, True):
        assert np.all(np.signbit(dflow.jit(f, static_argnums=(0, 1))(3, negative)) == negative)


def test_tapes_of_rows():
    def f(x, w):
        for _k in range(5):
            x = np.tanh(w * x + x[::-1] * 0.1)
        return np.sum(x * w)

    x, w = RNG.normal(size=(2, 13))
    dots = RNG.normal(size=(2, 13))
    bars = dflow.grad(f, argnums=(0, 1))(x, w)
    _, slope = dflow.jvp(f, (x, w), tuple(dots))
    assert np.isclose(np.sum(np.array(bars) * dots), slope, rtol=1e-12)
