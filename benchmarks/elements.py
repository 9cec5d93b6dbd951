"""Loops that read and write single elements of an array: value and gradient against its length."""

from collections.abc import Iterator
from functools import partial

import numpy as np

import dflow
from benchmarks.measure import Table, measure, peer, ratio, slope

SIZES = (2_000, 8_000, 32_000, 128_000)


def prefix(x):
    """A recurrence that writes one element and reads three in each step."""
    y = np.zeros_like(x)
    y[0] = x[0]
    for i in range(1, len(x)):
        y[i] = np.sin(y[i - 1]) + x[i] * x[len(x) - 1 - i]
    return np.sum(y)


def histogram(x):
    """Adds to one of 64 elements in each step."""
    h = np.zeros(64)
    for i in range(len(x)):
        h[i % 64] += x[i] * x[i]
    return np.sum(h**2)


def insertion_sort(x):
    """Data-dependent inner loop that shifts elements; the gradient runs through the permutation."""
    y = x.copy()
    for i in range(1, len(y)):
        v = y[i]
        j = i - 1
        while j >= 0 and y[j] > v:
            y[j + 1] = y[j]
            j -= 1
        y[j + 1] = v
    return np.sum(y * np.arange(len(y)))


def run() -> Iterator[Table]:
    for function in (prefix, histogram):
        yield growth(function, SIZES, lambda n: np.random.default_rng(0).normal(size=n))
    yield growth(insertion_sort, SIZES, nearly_sorted)


def nearly_sorted(n):
    """Blocks of eight are out of order, so that the sort takes a number of steps in proportion to ``n``."""
    return np.sort(np.random.default_rng(0).normal(size=n)).reshape(-1, 8)[:, ::-1].reshape(-1).copy()


def growth(function, sizes, make) -> Table:
    """One row a size: dflow's value and gradient, Numba's value when it is installed."""
    numba = peer("numba")
    table = Table(
        f"{function.__name__}: {function.__doc__}", ["n", "value", "gradient", "gradient / value", "Numba's value"]
    )
    values, gradients = [], []
    for n in sizes:
        x = make(n)
        runs = {"value": partial(dflow.jit(function), x), "gradient": partial(dflow.grad(function), x)}
        if numba:
            runs["numba"] = partial(numba.njit(function), x)
        t = measure(runs, rounds=7)
        values.append(t["value"].least)
        gradients.append(t["gradient"].least)
        table.rows.append((n, t["value"], t["gradient"], ratio(t["gradient"], t["value"]), t.get("numba", "-")))
    table.note = (
        f"Grows like n to the power of {slope(sizes, values):.2f} (value), {slope(sizes, gradients):.2f} (gradient)."
    )
    return table
