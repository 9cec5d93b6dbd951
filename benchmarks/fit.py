"""The gradient of a fit of differential equations to data (docs/examples/lynx_hare.py)."""

import csv
import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.optimize import approx_fprime

import dflow
from benchmarks.measure import Table, measure, peer, ratio, slope

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
STEPS = (5, 10, 20, 40, 80)


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lynx_hare", EXAMPLES / "lynx_hare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pelts() -> np.ndarray:
    with open(EXAMPLES / "lynx_hare.csv") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return np.array([[float(r["hare"]), float(r["lynx"])] for r in rows])


def run() -> Iterator[Table]:
    model, data = example(), pelts()
    theta = model.first_guess(data)
    yield against_others(model, theta, data)
    yield growth(model, theta, data)


def against_others(model: Any, theta: np.ndarray, data: np.ndarray) -> Table:
    value, gradient, both = (make(model.loss) for make in (dflow.jit, dflow.grad, dflow.value_and_grad))
    runs = {
        "dflow: value": lambda: value(theta, data),
        "dflow: gradient": lambda: gradient(theta, data),
        "dflow: value and gradient": lambda: both(theta, data),
        "NumPy: value": lambda: model.loss(theta, data),
        "NumPy: gradient by finite differences": lambda: approx_fprime(theta, model.loss, 1e-7, data),
    }
    if peer("jax"):
        from benchmarks.fit_in_jax import functions

        value_jax, gradient_jax = functions(model, data)
        np.testing.assert_allclose(gradient_jax(theta), gradient(theta, data), rtol=1e-9)
        runs |= {
            "JAX (written with scan): value": lambda: value_jax(theta).block_until_ready(),
            "JAX (written with scan): gradient": lambda: gradient_jax(theta).block_until_ready(),
        }
    times = measure(runs, rounds=5)
    mine = times["dflow: gradient"]
    rows = [(name, t, ratio(t, mine)) for name, t in times.items()]
    return Table(f"Fit, {model.STEPS} steps a year", ["what", "time", "/ dflow's gradient"], rows)


def growth(model: Any, theta: np.ndarray, data: np.ndarray) -> Table:
    table = Table("Growth with the steps", ["steps a year", "value", "gradient", "gradient / value"])
    times = []
    for steps in STEPS:

        def loss(theta: Any, data: Any, steps: int = steps) -> Any:
            return model.loss(theta, data, steps)

        value, gradient = dflow.jit(loss), dflow.grad(loss)
        t = measure({"value": partial(value, theta, data), "gradient": partial(gradient, theta, data)})
        times.append(t["gradient"].least)
        table.rows.append((steps, t["value"], t["gradient"], ratio(t["gradient"], t["value"])))
    table.note = f"The gradient grows like steps to the power of {slope(STEPS, times):.2f}."
    return table
