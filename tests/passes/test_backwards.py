"""A slice and the same slice backwards: one of them is saved, and gradients stay what they are."""

import re

import numpy as np
import pytest

import dflow

R = np.random.default_rng(0).uniform(0.1, 0.3, 9)


def levinson(r):
    """Both are needed, of an array that changes in place."""
    y, alpha, beta = np.zeros(len(r)), -r[0], 1.0
    y[0] = -r[0]
    for k in range(1, len(r)):
        beta *= 1.0 - alpha * alpha
        alpha = -(r[k] + np.dot(np.flip(r[:k]), y[:k])) / beta
        y[:k] += alpha * np.flip(y[:k])
        y[k] = alpha
    return np.sum(y * np.cos(r))


def of_one_length(r):
    y = r.copy()
    for k in range(40):
        y[:5] = y[:5] * y[4::-1] + r[k % 9]
    return np.sum(y * y)


def not_quite(r):
    """It begins one further, so that it is another one; all of the array is less than both."""
    y = r.copy()
    for k in range(40):
        y[:5] = y[:5] * y[5:0:-1] + r[k % 9]
    return np.sum(y * y)


@pytest.mark.parametrize("f, tapes", [(levinson, 1), (of_one_length, 1), (not_quite, 1)])
def test_gradients(f, tapes):
    gradient = dflow.grad(f)
    text = dflow.jit(gradient).lower(R).ir("lowered")
    saved = re.findall(r"update %tape\S* %\S+ .*slice|update %tape\S* %\S+ .*all", text)
    assert len(saved) == tapes
    direction = np.cos(np.arange(9.0))
    slope = gradient(R) @ direction
    np.testing.assert_allclose(slope, dflow.jvp(f, (R,), (direction,))[1], 1e-12)
    np.testing.assert_allclose(slope, (f(R + 1e-6 * direction) - f(R - 1e-6 * direction)) / 2e-6, 1e-6)
