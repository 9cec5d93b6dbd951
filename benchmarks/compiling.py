"""Compile time: against the size of a program, and of gradients beside values. All times are of the processor."""

import gc
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

import dflow
from benchmarks.loops.cases import cases
from benchmarks.measure import Once, Ratio, Table, duration, slope

ROUNDS = 2
NUMBERS = (
    "a = a * b + c",
    "b = np.sin(a) + d",
    "c = c / (1.0 + d * d)",
    "d = d - a * 0.5",
    "a = np.tanh(b) * c",
    "c = np.exp(-a * a) + b",
    "d = np.sqrt(1.0 + c * c)",
    "b = b * 0.3 + d",
)  # of 20 operations
ARRAYS = ("a = a * b + x", "b = np.sin(a) + y", "a = a / (1.0 + b * b)", "b[0] = a[1] * 2.0")


def numbers(n: int) -> list[str]:
    """``n`` operations one after the other."""
    lines = islice(cycle(NUMBERS), n * len(NUMBERS) // 20)
    return ["a, b, c, d = x[0], x[1], x[0] + x[1], x[0] * x[1]", *lines, "return a + b + c + d"]


def arrays(n: int) -> list[str]:
    """``n`` statements on arrays of three."""
    return ["a, b, y = x, x + 1.0, x * 0.5", "b = b.copy()", *islice(cycle(ARRAYS), n), "return np.sum(a + b)"]


def rows(n: int) -> list[str]:
    """``n`` loops one after the other."""
    loop = ["for i in range(int(x[2] * 8.0)):", "    a = a * 0.5 + np.sin(b)", "    b = b - a * 0.1"]
    return ["a, b = x[0], x[1]", *loop * n, "return a + b"]


def nests(n: int) -> list[str]:
    """Loops inside of each other."""
    lines = ["a, y = x[0], x.copy()"]
    for k in range(n):
        lines += [f"{'    ' * k}for i{k} in range(1, 3):", *(f"{'    ' * (k + 1)}{s}" for s in _work(k))]
    return [*lines, "return a + y[0]"]


def _work(k: int) -> tuple[str, ...]:
    return f"a = a + np.sin(a) * y[i{k}]", f"y[i{k}] += a * 0.1"


def branches(n: int) -> list[str]:
    """``n`` branches one after the other."""
    branch = ["if a > b:", "    a = a * 0.5 + np.sin(b)", "else:", "    b = b * 0.7 - a"]
    return ["a, b = x[0], x[1]", *branch * n, "return a + b"]


# What grows, and how large it gets.
FAMILIES: tuple[tuple[str, Callable[[int], list[str]], Sequence[int]], ...] = (
    ("operations on numbers", numbers, (100, 1_000, 10_000)),
    ("statements on arrays of three", arrays, (10, 100, 1_000)),
    ("loops in a row", rows, (5, 20, 80)),
    ("nested loops", nests, (1, 2, 3, 4, 5, 6)),
    ("branches in a row", branches, (5, 20, 80)),
)


@dataclass
class Stages:
    """Seconds of each stage."""

    tracing: float
    passes: float
    lowering: float
    emission: float
    optimization: float
    generation: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def run() -> Iterator[Table]:
    with tempfile.TemporaryDirectory() as folder:
        compiled(dflow.grad(_function(folder, "warm", numbers(100))), np.ones(3))
        yield from growth(folder)
    yield programs()


def compiled(function: Any, *args: Any) -> Stages:
    """What it takes to compile ``function`` for these arguments."""
    gc.collect()  # what other programs have left is not part of it
    clock = [time.process_time()]
    lowered = function.lower(*args)
    stages = lowered.stages
    for step in (lambda: stages.optimized, lambda: stages.plan, lowered.compile):
        clock.append(time.process_time())
        last = step()
    clock.append(time.process_time())
    tracing, passes, lowering, code = np.diff(clock)
    t = last.compiled.timings
    shares = [code * part / t.total for part in (t.emit, t.optimize, t.generate)]
    return Stages(tracing, passes, lowering, *shares)


def growth(folder: str) -> Iterator[Table]:
    against = Table(
        "Compile time against the size of the program",
        ["program", "sizes", "value", "grows like", "gradient", "grows like", "gradient / value, largest"],
        note="Growth is the exponent of the time over that of the size, from the middle size on: 1 is linear.",
    )
    stages = Table(
        "Stages at the largest size",
        ["program", "total", "tracing, derivative", "passes", "lowering", "emission", "LLVM's passes", "machine code"],
    )
    for what, source, sizes in FAMILIES:
        found: dict[str, list[Stages]] = {"value": [], "gradient": []}
        for n in sizes:
            function = _function(folder, f"{source.__name__}_{n}", source(n))
            found["value"].append(compiled(dflow.jit(function), np.array([0.3, 0.4, 0.5])))
            found["gradient"].append(compiled(dflow.grad(function), np.array([0.3, 0.4, 0.5])))
        shown = [_shown(sizes, [s.total for s in found[name]]) for name in found]
        times = found["gradient"][-1].total / found["value"][-1].total
        against.rows.append((what, ", ".join(map(str, sizes)), *shown[0], *shown[1], f"{times:.3g}"))
        for name, all_of_it in found.items():
            last = all_of_it[-1]
            stages.rows.append((f"{sizes[-1]} {what}, {name}", *map(Once, (last.total, *vars(last).values()))))
    yield against
    yield stages


def _shown(sizes: Sequence[int], times: list[float]) -> tuple[str, str]:
    half = len(sizes) // 2
    return ", ".join(map(duration, times)), f"{slope(sizes[half:], times[half:]):.2f}"


def programs() -> Table:
    """The programs of ``loops``."""
    table = Table("Programs with loops", ["program", "value", "gradient", "gradient / value"])
    for case in cases():
        made = (dflow.jit, dflow.grad)
        times = [min(compiled(make(case.function), *case.args).total for _ in range(ROUNDS)) for make in made]
        table.rows.append((case.title, *map(Once, times), Ratio(times[1] / times[0])))
    return table


def _function(folder: str, name: str, body: list[str]) -> Any:
    """The function of ``x`` with these lines, whose source is a file as long as ``folder`` is there."""
    text = "\n".join(["import numpy as np", "", "def f(x):", *(f"    {line}" for line in body), ""])
    path = Path(folder) / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.f
