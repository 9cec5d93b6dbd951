"""``RegularGridInterpolator`` compiled, against SciPy, with derivatives."""

import numpy as np
import pytest
import scipy.interpolate

import dflow
from dflow.scipy.interpolate import RegularGridInterpolator

RNG = np.random.default_rng(0)
GRID = np.array([0.0, 1.0, 2.5, 3.0]), np.linspace(-1.0, 1.0, 3)
VALUES = RNG.normal(size=(4, 3))
AT = np.array([[0.3, 0.1], [2.5, 0.0], [3.0, 1.0], [0.0, -1.0], [1.75, 0.5], [np.nan, 0.0]])
OUTSIDE = np.array([[-0.5, 0.3], [3.2, 2.0], [1.0, -1.5]])


@pytest.mark.parametrize("method", ["linear", "nearest"])
@pytest.mark.parametrize("values", [VALUES, RNG.normal(size=(4, 3, 2)), VALUES + 1j])
def test_values(method, values):
    theirs = scipy.interpolate.RegularGridInterpolator(GRID, values, method, bounds_error=False)
    ours = RegularGridInterpolator(GRID, values, method, False)
    at = np.concatenate([AT, OUTSIDE])
    np.testing.assert_allclose(ours(at), theirs(at), rtol=1e-14)
    np.testing.assert_allclose(dflow.jit(ours.__call__)(at), theirs(at), rtol=1e-14)
    np.testing.assert_allclose(dflow.jit(lambda x: theirs(x))(at), theirs(at), rtol=1e-14)


def test_outside():
    values = np.arange(12).reshape(4, 3)
    theirs = scipy.interpolate.RegularGridInterpolator(GRID, values, bounds_error=False, fill_value=None)
    f = dflow.jit(lambda x, fill_value: RegularGridInterpolator(GRID, values, "linear", False, fill_value)(x))
    np.testing.assert_allclose(f(OUTSIDE, None), theirs(OUTSIDE), rtol=1e-14)
    np.testing.assert_array_equal(f(OUTSIDE, 7.0), 7.0)
    with pytest.raises(ValueError, match="out of bounds"):
        dflow.jit(lambda x: RegularGridInterpolator(GRID, values)(x))(OUTSIDE)
    with pytest.raises(ValueError, match="must increase"):
        RegularGridInterpolator((GRID[0][::-1], GRID[1]), values)
    with pytest.raises(dflow.errors.DflowError, match="one of linear, nearest"):
        RegularGridInterpolator(GRID, values, "cubic")(AT)


def test_coordinates():
    line = RegularGridInterpolator((GRID[0],), VALUES[:, 0])
    np.testing.assert_allclose(line([0.5, 2.0]), np.interp([0.5, 2.0], GRID[0], VALUES[:, 0]))
    plane = RegularGridInterpolator(GRID, VALUES)
    np.testing.assert_array_equal(plane((AT[:5, 0], AT[:5, 1])), plane(AT[:5]))
    assert plane(AT[0]).shape == (1,) and plane(AT[:4].reshape(2, 2, 2)).shape == (2, 2)


def test_derivatives():
    at = np.array([[0.3, 0.1], [2.7, -0.4], [1.75, 0.5]])

    def f(x, values, start):
        return RegularGridInterpolator((np.append(start, GRID[0][1:]), GRID[1]), values)(x) ** 2

    dflow.check_grads(f, (at[:2], VALUES, -0.1), order=2)
    mapped = dflow.vmap(dflow.grad(lambda x: RegularGridInterpolator(GRID, VALUES)(x)[0]))(at)
    slope = (VALUES[1, 1] - VALUES[0, 1]) * 0.9 + (VALUES[1, 2] - VALUES[0, 2]) * 0.1
    np.testing.assert_allclose(mapped[0, 0], slope)
