"""What a first call takes: its time, and the memory that value and gradient add. Each in a process of its own.

For every contestant a process imports what it needs and runs nothing; for every case it forks. The child runs another,
small case, makes the arguments, notes the peak of its resident memory so far, and then makes and calls the value, and
the gradient, without any cache on disk. The memory is by how much the peak rose in the end (``ru_maxrss``: everything
that the process held, with arrays, tapes, machine code and what the compiler used), which no allocator can hide.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PATIENCE = 120  # seconds that a child may take


@dataclass(frozen=True)
class Footprint:
    """Seconds of the first call of value and of gradient, and MiB of memory; None where there is none."""

    value: float | None = None
    gradient: float | None = None
    memory: float | None = None


def footprints(module: str, contestants: Sequence[str], cases: int) -> dict[str, list[Footprint]]:
    """Of each contestant in the group of ``module``, case by case."""
    found = {}
    for name in contestants:
        command = [sys.executable, "-m", "benchmarks.footprint", module, name]
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=without_caches()).stdout
        found[name] = [Footprint(**json.loads(line)) for line in lines.splitlines()]
        assert len(found[name]) == cases, f"{name}: {len(found[name])} of {cases}"
    return found


def without_caches() -> dict[str, str]:
    """The environment, in which nobody reads machine code from disk."""
    return {**os.environ, "DFLOW_CACHE": "off", "PYTHONWARNINGS": "ignore"}


def main(module: str, contestant: str) -> None:
    """Prints a line for each case."""
    group = importlib.import_module(module).GROUP
    cases, enter = group.cases(), group.contestants[contestant]
    load(contestant)
    for case in cases:
        print(json.dumps(asdict(apart(lambda case=case: taken(enter, case, group.warm)))), flush=True)


def load(contestant: str) -> None:
    """Imports what the contestant is, as far as it can be had; threads start later."""
    package = {"PyTorch": "torch"}.get(contestant, contestant.lower())
    with contextlib.suppress(ImportError):
        importlib.import_module(package)


def apart(work: Callable[[], Footprint]) -> Footprint:
    """``work`` done by a child; an empty footprint when it comes to no end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE)
            os.write(write, json.dumps(asdict(work())).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return Footprint(**json.loads(said)) if said else Footprint()


def taken(enter: Callable[[Any], Any], case: Any, warm: Any) -> Footprint:
    from benchmarks.contest import entered

    if small := entered(enter, warm):
        first(small.value), first(small.gradient)
    entry = entered(enter, case)
    if entry is None:
        return Footprint()
    before = peak()
    value, gradient = first(entry.value), first(entry.gradient)
    memory = None if value is gradient is None else peak() - before
    return Footprint(value, gradient, memory) if entry.compiles else Footprint(memory=memory)


def first(make: Callable[[], Callable[[], Any]] | None) -> float | None:
    """Seconds of making and calling."""
    from benchmarks.contest import Unsupported

    if make is None:
        return None
    start = time.perf_counter()
    try:
        make()()
    except Unsupported:
        return None
    return time.perf_counter() - start


def peak() -> float:
    """MiB that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # JAX is wary of forks; it has no threads yet
    main(*sys.argv[1:])
