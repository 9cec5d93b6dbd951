"""``python -m benchmarks.gradbench.drive CHECKOUT [problem ...]``: GradBench's own evals drive and judge dflow.

Each eval of a checkout of ``gradbench/gradbench`` runs as it stands, in a process of its own, and so does the adapter;
messages pass between them through here, as they do through ``gradbench run``. The evals need pydantic and
dataclasses-json; most compare with GradBench's own C++, so ``tools/manual`` has to be built: ``make -C tools/manual``.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gradbench.problems import PROBLEMS

ROOT = Path(__file__).parents[2]
# Each has its smaller sizes; ba, ht and lstm run on the files that the checkout has.
SIZES = {
    "ba": ["--max", "1"],
    "det": ["-l", "5", "8"],
    "gmm": ["-d", "2", "10", "-k", "5"],
    "ht": ["--max", "2", "--model", "small"],
    "kmeans": ["-k", "10", "100", "-n", "1000", "-d", "8"],
    "llsq": ["-n", "128", "1024", "-m", "16", "128"],
    "lse": ["-n", "1000", "100000"],
    "lstm": ["-l", "2", "-c", "1024"],
    "ode": ["-n", "1000", "10000", "-s", "1", "10"],
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradbench.drive")
    parser.add_argument("checkout", type=Path, help="of github.com/gradbench/gradbench")
    parser.add_argument("problems", nargs="*", help="all when none is named")
    given = parser.parse_args()
    failed = [name for name in given.problems or PROBLEMS if not judge(given.checkout.resolve(), name)]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def judge(checkout: Path, name: str) -> bool:
    """Whether the eval accepts every result; prints each."""
    seconds = [] if name == "hello" else ["--min-seconds", "0"]
    command = [sys.executable, "-m", f"gradbench.evals.{name}.run", *SIZES.get(name, []), *seconds]
    judged, described = [], {}
    with (
        _process(command, checkout, checkout / "python" / "gradbench") as eval_,
        _process([sys.executable, "-m", "benchmarks.gradbench.adapter"], ROOT, ROOT) as tool,
    ):
        while line := eval_.stdout.readline():
            message = json.loads(line)
            tool.stdin.write(line)
            tool.stdin.flush()
            answer = tool.stdout.readline()
            eval_.stdin.write(answer)
            eval_.stdin.flush()
            if message["kind"] == "evaluate":
                described[message["id"]] = f"{name} {message['function']} {message.get('description', '')}"
                judged.append(_said(described[message["id"]], json.loads(answer)))
            elif message["kind"] == "analysis" and not message["valid"]:
                judged.append(_said(described[message["of"]], {"success": False, **message}))
        tool.stdin.close()
    return bool(judged) and all(judged) and eval_.returncode == 0


def _said(what: str, answer: dict[str, Any]) -> bool:
    times = [t["nanoseconds"] / 1e6 for t in answer.get("timings", ()) if t["name"] == "evaluate"]
    print(f"{what}: {f'{min(times):.3g} ms' if times else answer.get('error', 'failed')}", flush=True)
    return bool(answer["success"])


def _process(command: list[str], folder: Path, path: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(path)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder, env=environment)


if __name__ == "__main__":
    main()
