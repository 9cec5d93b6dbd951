"""Products of one large matrix from both sides: a loop that reads it once, with what NumPy and numbers say."""

import numpy as np
import pytest

import dflow
from dflow.backends.lowering import one_pass

rng = np.random.default_rng(0)
A, P, R = rng.standard_normal((90, 50)), rng.standard_normal(50), rng.standard_normal(90)


@pytest.fixture(autouse=True)
def every_matrix_is_large(monkeypatch):
    monkeypatch.setattr(one_pass, "LEAST", 0)


def both(a, p, r):
    return r @ a, a @ p


def turned(a, p, r):
    return a @ p + 1.0, a.T @ (2.0 * r)


def after(a, p, r):
    return (a @ p) @ a


def residuals(a, p, r):
    e = np.tanh(a @ p - r) * 2.0
    return e @ a, e @ e


def least_squares(a, p, r):
    e = a @ p - r
    return 0.5 * (e @ e)


def steps(a, p, r):
    """The matrix is read once in each round."""
    for _ in range(3):
        p = p - 0.001 * ((a @ p - r) @ a)
    return p


@pytest.mark.parametrize("f", [both, turned, after, residuals, steps])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_one_loop_has_both_products(f, dtype):
    args = [x.astype(dtype) for x in (A, P, R)]
    compiled = dflow.jit(f)
    lowered = compiled.lower(*args).ir("lowered")
    assert "matmul" not in lowered and "gemm" not in lowered
    for got, wanted in zip(compiled(*args), f(*args), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9 if dtype == "f8" else 2e-3)


def test_the_gradient_of_least_squares_comes_with_the_value():
    compiled = dflow.value_and_grad(least_squares, argnums=1)
    assert "matmul" not in compiled.lower(A, P, R).ir("lowered")
    value, gradient = compiled(A, P, R)
    np.testing.assert_allclose(value, least_squares(A, P, R))
    np.testing.assert_allclose(gradient, A.T @ (A @ P - R))


@pytest.mark.parametrize(
    "f",
    [
        lambda a, p, r: (r @ a, a @ (r @ a)),  # the second product needs all of the first
        lambda a, p, r: (a @ p, np.cumsum(a @ p) @ a),  # of all rows before
        lambda a, p, r: (a @ p, r @ (a + 1.0)),
        lambda a, p, r: (a @ p, (a[:, :1] * r[:, None]).T @ a),
    ],
)
def test_others_are_as_before(f):
    for got, wanted in zip(dflow.jit(f)(A, P, R), f(A, P, R), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9)
