"""GradBench's ba, ht and gmm on a GPU, many at once: the value, and the value with its gradient.

A batch are problems with other parameters and the same data. Without a device the group says so and writes nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import dflow
from benchmarks.gradbench import adjustment, hand, inputs, mixture, problems
from benchmarks.measure import Table, Time, measure
from dflow import trees
from dflow.backends.cuda import driver

BATCHES = (64, 1024, 16384)


def ba(count: int, small: bool = False) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A problem for each observation: the square of its errors, by camera, point and weight."""

    def cost(camera, x, w, seen):
        e = adjustment.error(camera, x, w, seen)
        return np.sum(e * e) + (1.0 - w * w) ** 2

    r, given = np.random.default_rng(0), inputs.ba(1)
    rows = [np.tile(np.asarray(given[k], float), (count, 1)) for k in ("cam", "x")]
    rows = [x * (1.0 + 1e-3 * r.normal(size=x.shape)) for x in rows]
    return cost, (*rows, np.full(count, given["w"]), np.tile(given["feat"], (count, 1)))


def ht(count: int, small: bool = False) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A hand in many poses."""
    given = inputs._any_hand("simple", n=2, v=3) if small else inputs.ht("simple", 1)
    theta, model, seen, points = problems.ht(given)

    def cost(theta):
        e = hand.simple(theta, model, seen, points)
        return np.sum(e * e)

    return cost, (theta * (1.0 + 0.1 * np.random.default_rng(0).normal(size=(count, len(theta)))),)


def gmm(count: int, small: bool = False) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Many mixtures for the same points."""
    (alpha, mu, q, l), *rest = problems.gmm(inputs.gmm(2, 2, 3) if small else inputs.gmm(10, 5, 1000))

    def posterior(alpha, mu, q, l):
        return mixture.posterior((alpha, mu, q, l), *rest)

    r = np.random.default_rng(0)
    return posterior, tuple(x * (1.0 + 0.1 * r.normal(size=(count, *x.shape))) for x in (alpha, mu, q, l))


def run(batches: tuple[int, ...] = BATCHES, rounds: int = 5, small: bool = False) -> Iterator[Table]:
    try:
        device = driver.device()
    except driver.DeviceError as e:
        print(f"no figures for a GPU: {e}", flush=True)
        return
    columns = ["problem", "batch", "value", "with gradient", "ratio", "value on the CPU", "with gradient on the CPU"]
    table = Table("GradBench's problems, batched on a GPU", columns)
    for make in (ba, ht, gmm):
        for count in batches:
            table.rows.append((make.__name__, count, *row(*make(count, small), rounds)))
    version = driver.version_text(device.driver.version)
    table.note = f"f64. On {device.name}, {device.target}, driver for CUDA {version}. Ratios are of medians."
    yield table


def row(cost: Callable[..., Any], args: tuple[Any, ...], rounds: int) -> tuple[Any, ...]:
    both = dflow.value_and_grad(cost, tuple(range(len(args))))
    there = tuple(dflow.device_put(x) for x in args)
    calls = {}
    for name, f in (("value", cost), ("gradient", both)):
        on_gpu, on_cpu = (dflow.jit(dflow.vmap(f), device=device) for device in ("cuda", "cpu"))
        compare(on_gpu(*there), on_cpu(*args))
        calls[name] = lambda f=on_gpu: wait(f(*there))
        calls[f"{name} on the CPU"] = lambda f=on_cpu: f(*args)
    times: dict[str, Time] = measure(calls, rounds=rounds)
    value, slope = times["value"], times["gradient"]
    ratio = f"{slope.median / value.median:.3g}"
    return value, slope, ratio, times["value on the CPU"], times["gradient on the CPU"]


def wait(result: Any) -> None:
    for x in trees.flatten(result)[0]:
        x.block_until_ready()


def compare(got: Any, wanted: Any) -> None:
    for g, w in zip(trees.flatten(got)[0], trees.flatten(wanted)[0]):
        np.testing.assert_allclose(np.asarray(g), w, rtol=1e-8, atol=1e-8 * float(np.max(np.abs(w))))
