"""Cost against size, over three decades, of every program with loops; calls from two threads, and programs on two."""

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
    yield parts()


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


def farthest(x: np.ndarray, y: np.ndarray) -> float:
    """The sum of the squared distances of points to the farthest of others."""
    total = 0.0
    for i in range(len(x)):
        largest = 0.0
        for j in range(len(y)):
            d = 0.0
            for k in range(x.shape[1]):
                d += (x[i, k] - y[j, k]) ** 2
            largest = max(largest, d)
        total += largest
    return total


def elements(x: np.ndarray) -> np.ndarray:
    return np.exp(x) * x


def sines(x: np.ndarray) -> float:
    return np.sum(np.sin(x))


def rows(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


def small_products(x: np.ndarray) -> np.ndarray:
    return x @ x


# Programs that are cut into parts, and their arguments at some sizes.
LARGE: tuple[tuple[Callable[..., Any], str, tuple[tuple[Any, ...], ...]], ...] = (
    (elements, "exponentials", tuple((random(n),) for n in (10_000, 100_000, 1_000_000))),
    (sines, "sum of sines", tuple((random(n),) for n in (10_000, 100_000, 1_000_000))),
    (rows, "softmax of rows", tuple((random(n, 100),) for n in (100, 1_000, 10_000))),
    (small_products, "products of matrices, 8 x 8", tuple((random(n, 8, 8),) for n in (100, 1_000, 10_000))),
    (farthest, "farthest of 100 points", tuple((random(n, 3), random(100, 3)) for n in (10, 100, 1_000))),
)


def parts() -> Table:
    """Large programs on one thread and on two."""
    table = Table(
        "Programs on one thread and on two",
        ["program", "sizes", "value, one thread", "two threads", "one / two", "gradient, one / two"],
        note="Small ones stay on one thread. The gradient is that of the sum of the result.",
    )
    before = dflow.threads()
    for f, title, given in LARGE:
        value, gradient = dflow.jit(f), dflow.grad(partial(_sum_of, f))
        times = [_by_turns(call, args) for call in (value, gradient) for args in given]
        values, gradients = times[: len(given)], times[len(given) :]
        sizes = ", ".join(str(len(args[0])) for args in given)
        ratios = [", ".join(f"{one / two:.2f}" for one, two in found) for found in (values, gradients)]
        table.rows.append((title, sizes, *(", ".join(map(duration, column)) for column in zip(*values)), *ratios))
    dflow.set_threads(before)
    return table


def _sum_of(f: Callable[..., Any], *args: Any) -> Any:
    return np.sum(f(*args))


def _by_turns(call: Callable[..., Any], args: tuple[Any, ...]) -> tuple[float, float]:
    """Seconds on one thread and on two."""

    def on(threads: int) -> None:
        dflow.set_threads(threads)
        call(*args)

    found = measure({"one": partial(on, 1), "two": partial(on, 2)}, rounds=15)
    return found["one"].least, found["two"].least


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
