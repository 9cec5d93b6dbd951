"""``python -m benchmarks [group ...]``: runs groups, all when none is named, and writes benchmarks/results."""

import argparse
import importlib
import os

from benchmarks.measure import RESULTS, write
from benchmarks.plots import draw

GROUPS = ("fit", "elements", "calls", "loops", "gradbench", "arrays", "scaling", "checkpoints", "gpu")

parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Runs groups of benchmarks.")
parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(GROUPS)}; all when none is named")
chosen = parser.parse_args().groups or GROUPS
for name in chosen:
    if name not in GROUPS:
        parser.error(f"no group {name!r}; there are {', '.join(GROUPS)}")
os.environ["DFLOW_CACHE"] = "off"  # first calls are to compile
for name in chosen:
    tables = []
    for table in importlib.import_module(f"benchmarks.{name}").run():
        print(f"\n{table}", flush=True)
        tables.append(table)
    if tables:  # a group that needs a GPU has none without one
        write(name, tables)
        draw(name, tables, RESULTS)
