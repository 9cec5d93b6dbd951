"""Windows at traced places, against loops over them; and ``custom_gradient``."""

import numpy as np
import pytest

import dflow
from dflow import lax

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5, 6))
PLACES = np.array([[[0, 1], [2, 4]], [[-1, 0], [3, 2]], [[2, 5], [0, 1]]])  # of axes 0 and 1; three are outside
GATHER = lax.GatherDimensionNumbers((1, 3), (1,), (0, 1))
SCATTER = lax.ScatterDimensionNumbers((1, 3), (1,), (0, 1))


def windows(clip):
    """Where windows of (2, 1, 4) begin, for each that counts."""
    for at in np.ndindex(3, 2):
        i, j = PLACES[at]
        if clip:
            i, j = np.clip(i, 0, 2), np.clip(j, 0, 4)
        if 0 <= i <= 2 and 0 <= j <= 4:
            yield at, (slice(i, i + 2), j, slice(0, 4))


@pytest.mark.parametrize("mode", ["fill", "clip"])
def test_gather(mode):
    def f(x):
        return lax.gather(x, PLACES, GATHER, (2, 1, 4), mode=mode, fill_value=0.5)

    want = np.full((3, 2, 2, 4), 0.5)
    for (a, b), window in windows(mode == "clip"):
        want[a, :, b] = X[window]
    np.testing.assert_array_equal(dflow.jit(f)(X), want)


@pytest.mark.parametrize(
    ("name", "combine"), [("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("max", np.maximum)]
)
def test_scatter(name, combine):
    new = RNG.normal(size=(3, 2, 2, 4))
    want = X.copy()
    for (a, b), window in windows(False):
        want[window] = combine(want[window], new[a, :, b])
    np.testing.assert_allclose(getattr(lax, f"scatter_{name}")(X, PLACES, new, SCATTER), want)


def test_shared_axes_and_derivatives():
    numbers = lax.GatherDimensionNumbers((2,), (1,), (1,), (0,), (0,))
    places = RNG.integers(0, 5, (4, 3, 1))
    found = lax.gather(X, places, numbers, (1, 1, 6))
    np.testing.assert_array_equal(found, np.take_along_axis(X, places, 1))

    def f(x, new):
        y = lax.scatter_mul(x, PLACES, new, SCATTER)
        return lax.scatter(y, PLACES[:1], new[:1], SCATTER, mode="clip")

    dflow.check_grads(f, (X, RNG.normal(size=(3, 2, 2, 4))), order=1)
    dflow.check_grads(lambda x: lax.gather(x, PLACES, GATHER, (2, 1, 4), fill_value=0.0), (X,), order=1)


def test_other_names():
    np.testing.assert_array_equal(lax.collapse(X, 0, 2), X.reshape(20, 6))
    np.testing.assert_array_equal(lax.stack(lax.unstack(X, 1), axis=1), X)
    k = np.array([-100, 7], np.int8)
    np.testing.assert_array_equal(lax.shift_right_logical(k, 1), [78, 3])
    np.testing.assert_array_equal(lax.shift_right_arithmetic(k, 1), [-50, 3])
    assert lax.complex(1.0, 2.0) == 1 + 2j and lax.custom_root is dflow.custom_root


def test_custom_gradient():
    @dflow.custom_gradient
    def product(x, y):
        return x * y**2, lambda bar: (100 * bar * y, bar * x)

    @dflow.custom_gradient
    def sine(x):
        return np.sin(x), lambda bar: 7 * bar * np.cos(x)

    assert product(2.0, 3.0) == 18.0
    assert dflow.grad(product, (0, 1))(2.0, 3.0) == (300.0, 2.0)
    np.testing.assert_allclose(dflow.grad(dflow.grad(sine))(2.0), -7 * np.sin(2.0))
