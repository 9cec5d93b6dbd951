"""Measuring and writing down: contestants take turns in one process, so that a busy machine is the same for all."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("dflow", "numpy", "scipy", "llvmlite", "numba", "jax", "torch", "casadi", "autograd")
GPU_PACKAGES = ("cuda-bindings", "nvmath-python", "cupy-cuda13x", "cupy-cuda12x", "numba-cuda", "triton")


@dataclass(frozen=True)
class Time:
    """Seconds of one call: the shortest of several rounds, and the median."""

    least: float
    median: float

    def __str__(self) -> str:
        return f"{duration(self.least)} ({duration(self.median)})"


@dataclass(frozen=True)
class Queued:
    """What is given to a GPU: ``start`` returns before it is done, ``finish`` waits for what the last call gave.

    Many calls are timed together, so that the time is that of the GPU, or of a call where that takes longer.
    """

    start: Callable[[], Any]
    finish: Callable[[Any], Any]

    def __call__(self) -> Any:
        result = self.start()
        self.finish(result)
        return result


class Budget:
    """Seconds for a group of benchmarks: rows that would begin later are left out."""

    def __init__(self, seconds: float = float("inf")):
        self._until = time.monotonic() + seconds
        self.left_out = 0

    def part(self, share: float) -> Budget:
        """A share of what is left."""
        return Budget(share * max(0.0, self._until - time.monotonic()))

    def is_spent(self) -> bool:
        """Whether the next row is left out, which is counted then."""
        spent = time.monotonic() > self._until
        self.left_out += spent
        return spent


@dataclass(frozen=True)
class Once:
    """Seconds of what was done a single time."""

    seconds: float

    def __str__(self) -> str:
        return duration(self.seconds)


@dataclass(frozen=True)
class Memory:
    mib: float

    def __str__(self) -> str:
        return f"{self.mib:.1f} MiB"


@dataclass(frozen=True)
class Ratio:
    times: float

    def __str__(self) -> str:
        return f"{self.times:.3g}"


@dataclass
class Table:
    title: str
    columns: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *([str(x) for x in row] for row in self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.columns))]
        text = ["| " + " | ".join(x.ljust(w) for x, w in zip(line, widths)) + " |" for line in lines]
        return "\n".join([f"### {self.title}", "", *text, *(["", self.note] if self.note else [])])


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def measure(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int = 9,
    seconds: float = 0.03,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Time]:
    """Times all ``runs``, by turns: in each round every one is called again and again for about ``seconds``, when the
    threads of the one before have come to rest.

    One that has taken over a second and a half in all sits out the other rounds.
    """
    counts = {name: _calls(run, seconds, clock) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if sum(times[name]) * counts[name] < 1.5:
                if len(runs) > 1:
                    _rest()
                times[name].append(_once(run, counts[name], clock))
    return {name: Time(min(t), statistics.median(t)) for name, t in times.items()}


def _calls(run: Callable[[], Any], seconds: float, clock: Callable[[], float]) -> int:
    run()  # compiles
    count = 1
    while (t := _once(run, count, clock) * count) < seconds / 10:
        count *= 10
    return max(1, round(count * seconds / t))


def _rest(look: float = 0.005, looks: int = 2, most: float = 0.2) -> None:
    """Waits until no thread of this process computes. Idle threads of OpenBLAS and OpenMP look for work for 20 ms,
    on the cores that who comes next needs."""
    quiet, until = 0, time.perf_counter() + most
    while quiet < looks and time.perf_counter() < until:
        before = time.process_time()
        time.sleep(look)
        quiet = quiet + 1 if time.process_time() - before < look / 10 else 0


def _once(run: Callable[[], Any], count: int, clock: Callable[[], float]) -> float:
    turns, is_queued = range(count), isinstance(run, Queued)
    call = run.start if isinstance(run, Queued) else run
    result = None
    start = clock()
    for _ in turns:
        result = call()
    if is_queued:
        run.finish(result)
    return (clock() - start) / count


def slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The exponent with which ``times`` grow with ``sizes``."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def ratio(a: Time, b: Time) -> str:
    return f"{a.least / b.least:.3g}"


def peer(name: str) -> Any:
    """A package to compare with, or None when it is not installed, or does not load."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
    except Exception as e:  # packages for GPUs fail in many ways
        tell(f"{name} does not load", e)
        return None


def attempt(what: str, do: Callable[[], Any]) -> Any:
    """What ``do`` gives; None where it fails, which is told: others go on."""
    try:
        return do()
    except Exception as e:
        tell(what, e)
        return None


def going_on(what: str, tables: Iterator[Table]) -> Iterator[Table]:
    """The tables, up to where making them fails, which is told."""
    try:
        yield from tables
    except Exception as e:
        tell(what, e)


def tell(what: str, e: Exception) -> None:
    lines = [line for line in str(e).splitlines() if line.strip()]
    print(f"{what}: {type(e).__name__}: {' '.join(lines[:3])[:300]}", flush=True)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    facts = {"processor": _processor(), "cores": str(os.cpu_count()), "system": platform.platform(terse=True)}
    facts["python"] = platform.python_version()
    for package in (*PACKAGES, *GPU_PACKAGES):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package in PACKAGES:
                facts[package] = "not installed"
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write(group: str, tables: Sequence[Table], folder: Path = RESULTS) -> None:
    """Writes ``GROUP.json`` and ``GROUP.md`` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    data = {"machine": facts, "tables": [asdict(t) for t in tables]}
    (folder / f"{group}.json").write_text(json.dumps(data, indent=1) + "\n")
    listed = "; ".join(f"{k}: {v}" for k, v in facts.items())
    text = [f"## {group}", f"Times of one call: the shortest (the median). {listed}.", *map(str, tables)]
    (folder / f"{group}.md").write_text("\n\n".join(text) + "\n")
