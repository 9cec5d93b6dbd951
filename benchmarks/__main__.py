"""``python -m benchmarks [group ...]``: runs groups, all when none is named, and writes benchmarks/results."""

import argparse
import importlib
import os
import subprocess
import sys

from benchmarks.measure import RESULTS, write
from benchmarks.plots import draw

PROGRAM = (sys.executable, *(f"-W{w}" for w in sys.warnoptions), "-m", "benchmarks")
GPU = ("gpu", "gpu_ensembles", "gpu_gradbench")
GROUPS = ("fit", "elements", "calls", "loops", "gradbench", "arrays", "scaling", "compiling", "checkpoints", *GPU)

parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Runs groups of benchmarks.")
parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(GROUPS)}; all when none is named")
parser.add_argument("--systems", type=int, default=1 << 20, help="the most in an ensemble of gpu_ensembles")
given = parser.parse_args()
chosen = given.groups or GROUPS
for name in chosen:
    if name not in GROUPS:
        parser.error(f"no group {name!r}; there are {', '.join(GROUPS)}")
os.environ["DFLOW_CACHE"] = "off"  # first calls are to compile
if len(chosen) > 1:
    for name in chosen:  # each in a process of its own, whose memory and threads are not those of the groups before it
        subprocess.run([*PROGRAM, name, "--systems", str(given.systems)], check=True)
else:
    tables = []
    options = {"systems": given.systems} if chosen[0] == "gpu_ensembles" else {}
    for table in importlib.import_module(f"benchmarks.{chosen[0]}").run(**options):
        print(f"\n{table}", flush=True)
        tables.append(table)
    if tables:  # a group that needs a GPU has none without one
        write(chosen[0], tables)
        draw(chosen[0], tables, RESULTS)
