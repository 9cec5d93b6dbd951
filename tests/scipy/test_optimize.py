"""``dflow.scipy.optimize.minimize``: minima, derivatives through the iterations, and how it ends."""

import numpy as np
import pytest

import dflow
from dflow.errors import DflowError
from dflow.scipy.optimize import minimize


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def test_a_minimum_and_its_curvature():
    found = dflow.jit(lambda x: minimize(rosenbrock, x, method="BFGS"))(np.array([-1.2, 1.0]))
    assert found.success and found.status == 0 and found.nfev == found.njev < 70
    np.testing.assert_allclose(found.x, 1.0, atol=1e-6)
    np.testing.assert_allclose(found.hess_inv, [[0.5, 1.0], [1.0, 2.005]], rtol=0.05)
    assert np.max(np.abs(found.jac)) <= 1e-5
    starts = np.array([[-1.2, 1.0], [2.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(dflow.vmap(lambda x: minimize(rosenbrock, x).x)(starts), 1.0, atol=1e-5)


def quartic(x, a):
    return np.sum((x - a) ** 2) + np.sum(x**4)


def test_derivatives_by_parameters():
    found = dflow.jit(dflow.value_and_grad(lambda a: minimize(quartic, np.zeros(2), (a,), tol=1e-11).x[0]))(1.0)
    x, by_a = found
    np.testing.assert_allclose(2 * (x - 1.0) + 4 * x**3, 0.0, atol=1e-10)
    np.testing.assert_allclose(by_a, 2.0 / (2.0 + 12.0 * x**2), rtol=1e-7)  # by the implicit function theorem


@pytest.mark.parametrize(
    "f, options, status",
    [
        (rosenbrock, {"maxiter": 3}, 1),
        (lambda x: -np.sum(x), None, 2),  # there is no minimum
        (lambda x: np.sum(x) * np.nan, None, 3),
        (lambda x: np.sum((x - 1.0) ** 2), {"norm": 2}, 0),  # nothing to do
    ],
)
def test_how_it_ends(f, options, status):
    found = dflow.jit(lambda x: minimize(f, x, options=options))(np.ones(2) if status != 1 else np.zeros(2))
    assert found.status == status and found.success == (status == 0)


def test_refusals():
    with pytest.raises(DflowError, match="has the method BFGS"):
        minimize(rosenbrock, np.zeros(2), method="Newton-CG")
    with pytest.raises(DflowError, match="needs a vector"):
        minimize(np.sum, np.zeros((2, 2)))
