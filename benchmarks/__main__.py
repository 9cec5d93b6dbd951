"""``python -m benchmarks [group ...]``: runs groups, all when none is named, and writes benchmarks/results."""

import argparse
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, Table, write
from benchmarks.plots import draw

PROGRAM = (sys.executable, *(f"-W{w}" for w in sys.warnoptions), "-m", "benchmarks")
GPU = ("gpu", "gpu_ensembles", "gpu_gradbench")
GRACE = 20  # seconds for the row at hand when the time is up
GROUPS = ("fit", "elements", "calls", "loops", "gradbench", "arrays", "scaling", "compiling", "checkpoints", *GPU)

parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Runs groups of benchmarks.")
parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(GROUPS)}; all when none is named")
parser.add_argument("--systems", type=int, default=1 << 20, help="the most in an ensemble of gpu_ensembles")
parser.add_argument("--seconds", type=float, help="for the groups that need a GPU: no more rows after that, together")
parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for results")
given = parser.parse_args()
chosen = given.groups or GROUPS
for name in chosen:
    if name not in GROUPS:
        parser.error(f"no group {name!r}; there are {', '.join(GROUPS)}")
os.environ["DFLOW_CACHE"] = "off"  # first calls are to compile
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of a GPU's memory from the others


def run_each() -> int:
    """Each group in a process of its own, whose memory and threads are not those of the groups before it."""
    started, failed = time.monotonic(), list[str]()
    for k, name in enumerate(chosen):
        command = [*PROGRAM, name, "--systems", str(given.systems), "--out", str(given.out)]
        limit = None
        if given.seconds is not None and name in GPU:
            left = max(0.0, given.seconds - (time.monotonic() - started))
            share = left / sum(other in GPU for other in chosen[k:])
            command += ["--seconds", str(share)]
            limit = max(share + GRACE, 1.0)
        try:
            code = subprocess.run(command, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            print(f"{name} did not end in its time, and was stopped; the rows before that are kept", flush=True)
            code = 1
        failed += [name] if code else []
    if failed:
        print(f"not as it should be: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


def run_one(name: str) -> None:
    """Tables are written down whenever they have a new row."""
    tables = list[Table]()
    options: dict[str, Any] = {"systems": given.systems} if name == "gpu_ensembles" else {}
    if given.seconds is not None and name in GPU:
        options["seconds"] = given.seconds
    for table in importlib.import_module(f"benchmarks.{name}").run(**options):
        if not any(t is table for t in tables):
            tables.append(table)
        write(name, tables, given.out)
    for table in tables:
        print(f"\n{table}", flush=True)
    if tables:  # a group that needs a GPU has none without one
        draw(name, tables, given.out)


if len(chosen) > 1:
    sys.exit(run_each())
run_one(chosen[0])
