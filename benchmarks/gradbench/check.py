"""Compares values with plain NumPy, and derivatives with finite differences and known results, at small sizes."""

from typing import Any

import numpy as np

import dflow
from benchmarks.gradbench import basic, inputs, memory, mixture
from benchmarks.gradbench.inputs import Input
from benchmarks.gradbench.problems import PROBLEMS


def check() -> None:
    """Raises AssertionError where something is wrong."""
    for name, function, given, order in (
        ("lse", basic.log_sum_exp, inputs.lse(20), 1),
        ("llsq", basic.least_squares, inputs.llsq(9, 5), 1),
        ("det", basic.determinant, inputs.det(4), 1),
        ("ode", basic.last_of_runge_kutta, inputs.ode(3, 10), 1),
        ("gmm", mixture.posterior, inputs.gmm(3, 4, 10), 1),
        ("lstm", memory.loss, _short(inputs.lstm(2, 1024)), 1),
    ):
        args = PROBLEMS[name].prepare(given)
        np.testing.assert_allclose(dflow.jit(function)(*args), function(*args), rtol=1e-10)
        dflow.check_grads(function, args, order=order)
    _check_kmeans()
    for name, given, expected in (
        ("particle", {"w": 0.0}, 0.2071918746486116),
        ("saddle", {"start": [1.0, 1.0]}, np.full(4, 8.246324826140356e-06)),
    ):
        for function in PROBLEMS[name].functions.values():
            np.testing.assert_allclose(function(*PROBLEMS[name].prepare(given)), expected, rtol=1e-9)
    _check_jacobian(PROBLEMS["ba"], {**inputs.ba(1), "n": 2, "m": 3, "p": 6})


def _short(given: Input) -> Input:
    return given | {"sequence": given["sequence"][:5]}


def _check_kmeans() -> None:
    """The gradient is twice the sum of differences and the diagonal twice the number of points of each cluster."""
    centroids, points = PROBLEMS["kmeans"].prepare(inputs.kmeans(5, 40, 3))
    nearest = np.argmin(((points[:, None] - centroids) ** 2).sum(axis=2), axis=1)
    expected = np.array([np.mean(c - points[nearest == j], axis=0) for j, c in enumerate(centroids)])
    np.testing.assert_allclose(PROBLEMS["kmeans"].functions["dir"](centroids, points), expected, rtol=1e-9, atol=1e-12)


def _check_jacobian(problem: Any, given: Input) -> None:
    """Every value of the sparse Jacobian against a difference of the errors."""
    from benchmarks.gradbench.adjustment import structure
    from benchmarks.gradbench.problems import observations

    args = problem.prepare(given)
    starts, columns = structure(given["n"], given["m"], observations(given))
    values = np.concatenate([x.ravel() for x in problem.functions["jacobian"](*args)])
    dense = np.zeros((3 * given["p"], sum(x.size for x in args[:3])))
    for row in range(len(dense)):
        at = slice(starts[row], starts[row + 1])
        dense[row, columns[at]] = values[at]
    x = np.concatenate([a.ravel() for a in args[:3]])
    for k in range(x.size):
        h = 1e-6 * max(1.0, abs(x[k]))
        up, down = (_errors(problem, args, x + s * h * (np.arange(x.size) == k)) for s in (1, -1))
        np.testing.assert_allclose(dense[:, k], (up - down) / (2 * h), rtol=1e-5, atol=1e-3)


def _errors(problem: Any, args: Any, x: np.ndarray) -> np.ndarray:
    parts = np.split(x, np.cumsum([a.size for a in args[:3]])[:-1])
    replaced = [part.reshape(a.shape) for part, a in zip(parts, args)]
    return np.concatenate([e.ravel() for e in problem.value(*replaced, *args[3:])])
