"""``scipy.signal`` and ``scipy.ndimage`` compiled, against SciPy, with derivatives."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal as ss

import dflow
from dflow.scipy import ndimage

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(5, 4)), RNG.normal(size=(2, 3))

CASES = {
    "convolve": lambda x, y, m: ss.convolve(x, y, m),
    "convolve of lines": lambda x, y, m: ss.convolve(y[0], x[0], m) + ss.convolve(x[0], y[0], m, "fft").sum(),
    "correlate": lambda x, y, m: ss.correlate(x, y, m),
    "fftconvolve": lambda x, y, m: ss.fftconvolve(x, y[:, :1], m, axes=0),
    "convolve2d": lambda x, y, m: ss.convolve2d(x, y, m, "symm"),
    "correlate2d": lambda x, y, m: ss.correlate2d(x, y, m, "wrap") + ss.correlate2d(x, y, m, fillvalue=1.5),
}


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    f = CASES[name]
    found = dflow.jit(lambda x, y: [f(x, y, m) for m in ("full", "same", "valid")])(X, Y)
    for a, mode in zip(found, ("full", "same", "valid")):
        np.testing.assert_allclose(a, f(X, Y, mode), atol=1e-12)


def test_complex_and_whole_numbers():
    z = X[0] + 1j * X[1]
    for f in (ss.correlate, ss.fftconvolve):
        np.testing.assert_allclose(dflow.jit(f)(z, Y[0] * 1j), f(z, Y[0] * 1j), atol=1e-12)
    k = np.arange(5)
    found = dflow.jit(ss.convolve)(k, k[:2])
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, ss.convolve(k, k[:2]))
    by_fft = dflow.jit(lambda k: ss.convolve(k, k[:2], method="fft"))(k)
    assert by_fft.dtype == np.int64
    np.testing.assert_array_equal(by_fft, found)


def test_trends():
    def f(x):
        return ss.detrend(x, 0, bp=[2]) + ss.detrend(x) + ss.detrend(x, type="constant")

    np.testing.assert_allclose(dflow.jit(f)(X), f(X), atol=1e-12)
    dflow.check_grads(f, (X,), order=1)


def test_derivatives():
    def f(x, y):
        return ss.convolve(x, y, "same") * ss.fftconvolve(x, y, "same")

    dflow.check_grads(f, (X, Y), order=1)


@pytest.mark.parametrize("mode", ["nearest", "reflect", "mirror", "grid-wrap", "grid-constant", "constant"])
def test_between_elements(mode):
    places = np.array([[0.3, 2.7, -1.4, 5.3, 9.2, -3.5, 0.5, 12.5], [1.1, -0.6, 2.2, 3.9, -4.7, 1.0, -0.5, -6.5]])

    def f(x, places):
        return [scipy.ndimage.map_coordinates(x, places, order=k, mode=mode, cval=0.5) for k in (0, 1)]

    for a, b in zip(dflow.jit(f)(X, places), f(X, places)):
        np.testing.assert_allclose(a, b, atol=1e-12)
    if mode in ("reflect", "constant"):
        dflow.check_grads(lambda x, c: ndimage.map_coordinates(x, c, order=1, mode=mode), (X, places[:, :5]), order=1)


def test_refusals():
    with pytest.raises(TypeError, match="order 0 or 1"):
        dflow.jit(lambda x: ndimage.map_coordinates(x, [[0.5], [0.5]]))(X)
    with pytest.raises(TypeError, match="got booleans"):
        dflow.jit(lambda x: ndimage.map_coordinates(x, [[0.5], [0.5]], order=1))(X > 0)
    with pytest.raises(TypeError, match="not supported on traced arrays"):
        dflow.jit(ss.hilbert)(X)
