"""Short arrays held in registers while a loop adds windows to them (`backends/emit/held.py`)."""

import numpy as np
import pytest

import dflow
from dflow.backends.native.machine import has_masks


def triangle(l, x):
    """The product of a unit upper triangle, whose rows lie one behind the other, and ``x``; the sum of its squares."""
    n = len(x)
    y = np.empty(n, x.dtype)
    for a in range(n):
        y[a] = x[a]
    at = 0
    for a in range(n):
        for b in range(a + 1, n):
            y[b] += l[at] * x[a]
            at += 1
    return np.sum(y * y)


def quotients(l, x, widths):
    """Windows that begin and end anywhere, of what differs from element to element in several ways."""
    n = len(x)
    y = np.empty(n)
    for a in range(n):
        y[a] = 1.0
    for a in range(len(widths)):
        for b in range(widths[a]):
            y[a + b] = (l[b] - x[a]) / (x[a + b] + 2.0)
    return np.sum(y * y)


def arguments(n, dtype=np.float64):
    r = np.random.default_rng(n)
    return r.normal(size=n * (n - 1) // 2).astype(dtype), r.normal(size=n).astype(dtype)


@pytest.mark.parametrize(("n", "dtype"), [(8, np.float64), (12, np.float64), (32, np.float64), (64, np.float32)])
def test_rows_of_a_triangle(n, dtype):
    l, x = arguments(n, dtype)
    np.testing.assert_allclose(dflow.jit(triangle)(l, x), triangle(l, x), rtol=1e-13 if dtype == np.float64 else 1e-4)


@pytest.mark.skipif(not has_masks(), reason="this processor reads no vectors under masks")
def test_the_array_is_held():
    l, x = arguments(32)
    for function, args in ((triangle, (l, x)), (quotients, (l, x, windows()))):
        assert "@llvm.masked.load.v32f64" in str(dflow.jit(function).lower(*args).llvm())


def test_derivatives():
    l, x = arguments(16)
    tangent = np.cos(np.arange(16.0))
    _, forward = dflow.jvp(lambda x: triangle(l, x), (x,), (tangent,))
    numeric = (triangle(l, x + 1e-6 * tangent) - triangle(l, x - 1e-6 * tangent)) / 2e-6
    np.testing.assert_allclose(forward, numeric, rtol=1e-7)
    np.testing.assert_allclose(dflow.grad(triangle, argnums=1)(l, x) @ tangent, forward, rtol=1e-12)


def windows():
    """Widths of windows that begin at 0, 1, ... 31, some without elements, and the last as far as the array goes."""
    widths = np.random.default_rng(0).integers(-2, 12, 32)
    return np.where(np.arange(32) % 3, np.minimum(widths, 32 - np.arange(32)), 32 - np.arange(32))


def test_windows_that_begin_and_end_anywhere():
    l, x = arguments(32)
    x, widths = np.abs(x), windows()
    np.testing.assert_allclose(dflow.jit(quotients)(l, x, widths), quotients(l, x, widths), rtol=1e-13)


def test_a_window_beyond_the_array_is_an_error():
    l, x = arguments(32)
    with pytest.raises(IndexError, match="out of bounds"):
        dflow.jit(quotients)(l, np.abs(x), windows() + 1)


def test_a_window_beyond_what_is_read_is_an_error():
    l, x = arguments(16)
    with pytest.raises(IndexError, match="out of bounds"):
        dflow.jit(triangle)(l[:-1], x)
