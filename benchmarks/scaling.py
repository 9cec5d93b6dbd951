"""Cost against size, over three decades, of every program with loops; and calls from two threads."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import dflow
from benchmarks.loops import programs
from benchmarks.measure import Table, duration, measure, slope

Make = Callable[[int], tuple[Any, ...]]  # arguments of a size


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def uniform(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=shape)


def markov(steps: int) -> tuple[Any, ...]:
    return random(12, 12), uniform(12, 6), np.random.default_rng(0).integers(6, size=steps)


def tridiagonal(n: int) -> tuple[Any, ...]:
    a, b, c, d = uniform(4, n)
    return b + 3.0, a, c, d


def lstm(steps: int) -> tuple[Any, ...]:
    return (random(64, 8), random(64, 16) * 0.3, random(64)), random(steps, 8)


def sparse(entries: int) -> tuple[Any, ...]:
    rows = entries // 10
    starts = np.arange(rows + 1) * 10
    return random(entries), random(rows), np.random.default_rng(0).integers(rows, size=entries), starts


# What grows, sizes over three decades of work, and how work grows with the size.
PROGRAMS: tuple[tuple[Callable[..., Any], str, tuple[int, ...], Make, int], ...] = (
    (programs.double_pendulum, "steps", (20, 200, 2_000, 20_000), lambda n: (np.array([1.0, 2.0, 0.1, -0.1]), n), 1),
    (programs.kalman, "steps", (20, 200, 2_000, 20_000), lambda n: (np.array([-2.0, -1.0]), random(n, 2)), 1),
    (programs.hidden_markov, "steps", (20, 200, 2_000, 20_000), markov, 1),
    (programs.soft_dtw, "side", (10, 32, 100, 320), lambda n: (uniform(n, n),), 2),
    (programs.gauss_seidel, "side", (12, 34, 102, 318), lambda n: (random(n, n), 10), 2),
    (programs.tridiagonal, "equations", (100, 1_000, 10_000, 100_000), tridiagonal, 1),
    (programs.particles, "particles", (30, 95, 300, 950), lambda n: (5.0 * uniform(n, 3), 2.0), 2),
    (programs.lstm, "steps", (20, 200, 2_000, 20_000), lstm, 1),
    (programs.sparse_product, "entries", (500, 5_000, 50_000, 500_000), sparse, 1),
    (programs.mandelbrot, "side", (16, 51, 160, 512), lambda n: (np.array([-0.5, 0.1]), 2.5, n, 100), 2),
)


def run() -> Iterator[Table]:
    yield growth()
    yield threads()


def growth() -> Table:
    """The time for each unit of work at each size: where it stays the same, cost is linear in the work."""
    table = Table(
        "Time for each unit of work against the size",
        ["program", "sizes", "value", "grows like", "gradient", "grows like", "gradient / value, largest"],
        note="Units of work: steps, equations and entries; pairs of particles; points of tables and grids (squares of "
        "the side). Growth is the exponent of the time over that of the work: 1 is linear.",
    )
    for function, what, sizes, make, power in PROGRAMS:
        value, gradient = dflow.jit(function), dflow.grad(function)
        found: dict[str, list[float]] = {"value": [], "gradient": []}
        for n in sizes:
            args = make(n)
            t = measure({"value": partial(value, *args), "gradient": partial(gradient, *args)}, rounds=5)
            for name, times in found.items():
                times.append(t[name].least)
        units = [float(n) ** power for n in sizes]
        shown = [_shown(found[name], units) for name in found]
        cost = f"{found['gradient'][-1] / found['value'][-1]:.3g}"
        title = f"{function.__name__}, {what}"
        table.rows.append((title, ", ".join(map(str, sizes)), *shown[0], *shown[1], cost))
    return table


def _shown(times: list[float], units: list[float]) -> tuple[str, str]:
    return ", ".join(duration(t / u) for t, u in zip(times, units)), f"{slope(units, times):.2f}"


def threads() -> Table:
    """How many calls a second two threads of Python make, over what one makes."""
    table = Table(
        "Calls from threads",
        ["program", "one thread", "two threads, each call", "two / one, in calls"],
        note="2 is the best that two idle cores allow. Short calls keep Python's lock, as giving it back costs more.",
    )
    for function, what, sizes, make, _ in PROGRAMS:
        for n in sizes[1::2]:
            args = make(n)
            call = partial(dflow.grad(function), *args)
            one = measure({"call": call}, rounds=5)["call"].least
            count = max(1, round(0.1 / one))
            both = min(_together(call, count) for _ in range(3))
            title = f"gradient of {function.__name__}, {n} {what}"
            table.rows.append((title, duration(one), duration(both / count), f"{2 * one * count / both:.3g}"))
    return table


def _together(call: Callable[[], Any], count: int) -> float:
    """Seconds until two threads have each made ``count`` calls."""
    import time

    def work() -> None:
        for _ in range(count):
            call()

    workers = [threading.Thread(target=work) for _ in range(2)]
    start = time.perf_counter()
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    return time.perf_counter() - start
