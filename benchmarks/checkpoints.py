"""What loops keep for their reverse pass: peaks of resident memory, each schedule in a process of its own."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import dflow
from benchmarks.measure import Memory, Table, Time, measure, ratio
from dflow import lax

STEPS, SIZE = (250, 500, 1000, 2000), 50_000
AT = STEPS[2]  # where times are taken
SCHEDULES: dict[str, dict[str, Any]] = {
    "as it stands": {},
    "checkpoint=True": {"checkpoint": True},
    "checkpoint=(100, 10)": {"checkpoint": (100, 10)},
    "snapshots=45": {"snapshots": 45},
    "snapshots=10": {"snapshots": 10},
}


def simulation(options: dict[str, Any], steps: int) -> Any:
    """Diffusion and reaction: a step keeps two arrays for its derivative."""

    def step(u, _):
        u = u.copy()
        u[1:-1] += 0.3 * (u[2:] - 2 * u[1:-1] + u[:-2]) + 0.01 * np.sin(u[1:-1])
        return u, None

    return lambda u: np.sum(lax.scan(step, u, length=steps, **options)[0] ** 2)


def one(schedule: str, steps: int) -> None:
    """Prints what a gradient adds to the peak of memory, and the times of value and gradient."""
    f = simulation(SCHEDULES[schedule], steps)
    u = np.sin(np.arange(SIZE) / 100)
    value, gradient = dflow.jit(f), dflow.grad(f)
    value(u)
    gradient.lower(u).compile()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gradient(u)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    times = measure({"value": lambda: value(u), "gradient": lambda: gradient(u)}, rounds=5 if steps == AT else 1)
    print(json.dumps([memory / 1024, *([t.least, t.median] for t in times.values())]))


def run() -> Iterator[Table]:
    rows, growth = [], []
    for schedule in SCHEDULES:
        found = {steps: apart(schedule, steps) for steps in STEPS}
        memory, value, gradient = found[AT]
        rows.append((schedule, memory, gradient, ratio(gradient, value)))
        growth.append((schedule, *(memory for memory, _, _ in found.values())))
    what = f"of {SIZE:,} numbers, and what its gradient keeps"
    yield Table(f"A scan of {AT} steps {what}", ["schedule", "memory", "gradient", "/ value"], rows)
    yield Table(f"Memory against steps {what}", ["schedule", *(f"{steps} steps" for steps in STEPS)], growth)


def apart(schedule: str, steps: int) -> tuple[Memory, Time, Time]:
    """Memory, value and gradient from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.checkpoints", schedule, str(steps)]
    memory, value, gradient = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return Memory(memory), Time(*value), Time(*gradient)


if __name__ == "__main__":
    one(sys.argv[1], int(sys.argv[2]))
