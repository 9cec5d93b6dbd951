"""Images of another size: against interpolation by SciPy, the identity, derivatives."""

import numpy as np
import pytest
import scipy.ndimage

import dflow
from dflow import image

X = np.random.default_rng(0).normal(size=(4, 6))


def test_nearest():
    np.testing.assert_array_equal(image.resize(X, (8, 3), "nearest"), np.repeat(X, 2, 0)[:, 1::2])


def test_linear():
    places = np.stack(np.meshgrid((np.arange(9) + 0.5) * 4 / 9 - 0.5, np.arange(6.0), indexing="ij"))
    want = scipy.ndimage.map_coordinates(X, places, order=1, mode="nearest")
    np.testing.assert_allclose(image.resize(X, (9, 6), "bilinear"), want, atol=1e-12)
    halved = image.resize(X, (4, 3), "linear")  # with weights 1/8, 3/8, 3/8, 1/8
    np.testing.assert_allclose(halved[:, 1], X[:, 1:5] @ np.array([1, 3, 3, 1]) / 8, atol=1e-12)


@pytest.mark.parametrize("method", ["cubic", "lanczos3", "lanczos5"])
def test_kernels(method):
    """A line stays a line inside, approximately; a constant is one exactly; each element of the same size is itself."""
    line = np.arange(24.0)[None]
    found = image.resize(line, (1, 48), method)
    np.testing.assert_allclose(found[0, 12:36], np.arange(12, 36) / 2 - 0.25, atol=0.03)
    np.testing.assert_allclose(image.resize(np.ones((4, 6), np.float32), (3, 9), method), 1.0, rtol=1e-6)
    np.testing.assert_allclose(image.scale_and_translate(X, X.shape, (0, 1), [1.0, 1.0], [0.0, 0.0], method), X)


def test_derivatives_and_refusals():
    def f(x, scale, translation):
        return image.scale_and_translate(x, (5, 6), (0, 1), scale, translation, "cubic")

    dflow.check_grads(f, (X, np.array([1.3, 0.7]), np.array([0.4, 0.6])), order=1)
    with pytest.raises(TypeError, match="the method is one of nearest"):
        image.resize(X, (2, 2), "quadratic")
    with pytest.raises(TypeError, match="3 axes for an image of 2"):
        image.resize(X, (2, 2, 1), "linear")
