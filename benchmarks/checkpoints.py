"""What loops keep for their reverse pass: peaks of resident memory, each schedule in a process of its own."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import dflow
from benchmarks.measure import Table, Time, measure, ratio
from dflow import lax

STEPS, SIZE = 1000, 50_000
SCHEDULES: dict[str, dict[str, Any]] = {
    "as it stands": {},
    "checkpoint=True": {"checkpoint": True},
    "checkpoint=(100, 10)": {"checkpoint": (100, 10)},
    "snapshots=45": {"snapshots": 45},
    "snapshots=10": {"snapshots": 10},
}


def simulation(options: dict[str, Any]) -> Any:
    """Diffusion and reaction: a step keeps two arrays for its derivative."""

    def step(u, _):
        u = u.copy()
        u[1:-1] += 0.3 * (u[2:] - 2 * u[1:-1] + u[:-2]) + 0.01 * np.sin(u[1:-1])
        return u, None

    return lambda u: np.sum(lax.scan(step, u, length=STEPS, **options)[0] ** 2)


def one(schedule: str) -> None:
    """Prints what a gradient adds to the peak of memory, and the times of value and gradient."""
    f = simulation(SCHEDULES[schedule])
    u = np.sin(np.arange(SIZE) / 100)
    value, gradient = dflow.jit(f), dflow.grad(f)
    value(u)
    gradient.lower(u).compile()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gradient(u)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    times = measure({"value": lambda: value(u), "gradient": lambda: gradient(u)}, rounds=5)
    print(json.dumps([memory / 1024, *([t.least, t.median] for t in times.values())]))


def run() -> Iterator[Table]:
    rows = []
    for schedule in SCHEDULES:
        command = [sys.executable, "-m", "benchmarks.checkpoints", schedule]
        memory, value, gradient = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        rows.append((schedule, f"{memory:.0f} MiB", Time(*gradient), ratio(Time(*gradient), Time(*value))))
    columns = ["schedule", "memory", "gradient", "/ value"]
    yield Table(f"A scan of {STEPS} steps of {SIZE:,} numbers, and what its gradient keeps", columns, rows)


if __name__ == "__main__":
    one(sys.argv[1])
