"""Measures the problems, checks derivatives against forward mode, and puts GradBench's tools beside them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import dflow
from benchmarks.gradbench import basic, inputs, memory, mixture
from benchmarks.gradbench.inputs import Input
from benchmarks.gradbench.problems import PROBLEMS
from benchmarks.measure import Table, duration, measure


@dataclass(frozen=True)
class Case:
    """A problem at a size. ``others``: seconds of the value in C++ by hand, and of the derivative by ``TOOLS``.

    They were seen on another machine of the kind; None where a tool does not offer the problem.
    """

    name: str
    size: str
    given: Any
    others: tuple[float | None, ...] = (None,) * 7


TOOLS = ("C++ by hand", "Tapenade", "Enzyme", "CoDiPack", "JAX", "PyTorch")
MS = 1e-3


def seen(*milliseconds: float | None) -> tuple[float | None, ...]:
    return tuple(None if x is None else x * MS for x in milliseconds)


def cases() -> Iterator[Case]:
    yield Case("hello", "", 3.0)
    yield Case("lse", "n=1280000", inputs.lse(1_280_000), seen(7.1, 5.0, None, 9.2, 18.8, 3.8, 6.7))
    yield Case("llsq", "n=16392 m=1024", inputs.llsq(16392, 1024), seen(15, 31, None, 79, 117, 243, None))
    yield Case("det", "10", inputs.det(10), seen(22, 227, None, 747, 64, None, None))
    yield Case("ode", "n=1000 s=10", inputs.ode(1000, 10), seen(0.008, None, None, 0.029, 0.173, 0.084, None))
    yield Case("kmeans", "k=1000 n=10000 d=16", inputs.kmeans(1000, 10000, 16), seen(43, 48, None, 100, None, 215, 596))
    yield Case("gmm", "d=32 k=50 n=1000", inputs.gmm(32, 50), seen(9.8, 26.5, 30.5, 135, 205, 53, 28))
    yield Case("lstm", "l=2 c=1024", inputs.lstm(2, 1024), seen(1.2, 7.9, 4.2, 2.6, 3.4, None, 515))
    yield Case("ba", "1", inputs.ba(1), seen(0.72, 4.2, 10.3, 6.1, 13.2, None, 22800))
    yield Case("ht", "simple 1", inputs.ht("simple", 1), seen(1.6, 7.9, 135, 73, 87, None, 4900))
    yield Case("ht", "complicated 1", inputs.ht("complicated", 1))
    yield Case("particle", "w=0", {"w": 0.0})
    yield Case("saddle", "", {"start": [1.0, 1.0]})


def run() -> Iterator[Table]:
    check()
    table = Table(
        "GradBench",
        ["problem", "size", "function", "dflow", "best of the others", "dflow / best"],
        note="Others: times of one thread on another machine of the same kind, as a guide: "
        + "; ".join(("values in C++ by hand", f"derivatives in {', '.join(TOOLS)}"))
        + ". Ratios are of medians.",
    )
    for case in cases():
        table.rows += rows(case)
    yield table


def rows(case: Case) -> Iterator[tuple[Any, ...]]:
    problem = PROBLEMS[case.name]
    args = problem.prepare(case.given)
    times = measure({k: partial(f, *args) for k, f in problem.functions.items()}, rounds=5)
    for k, (name, t) in enumerate(times.items()):
        found = dict(zip(TOOLS, case.others[1:]) if k else [("C++ by hand", case.others[0])])
        known = {tool: s for tool, s in found.items() if s is not None}
        best = min(known, key=lambda tool: known[tool], default=None)
        shown = ("-", "-") if best is None else (f"{duration(known[best])} ({best})", f"{t.median / known[best]:.3g}")
        yield case.name, case.size, name, t, *shown


def check() -> None:
    """Compares values with plain NumPy, and derivatives with finite differences, at small sizes."""
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
