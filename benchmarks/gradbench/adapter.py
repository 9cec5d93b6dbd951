"""A tool of GradBench: reads messages from standard input, one of JSON a line, and answers each with a line.

``gradbench run --eval ... --tool "python -m benchmarks.gradbench.adapter"`` drives and validates it.
"""

import json
import sys
import time
import traceback
from typing import Any

from benchmarks.gradbench.problems import PROBLEMS


def respond(message: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": message["id"]}
    if message["kind"] == "start":
        answer["tool"] = "dflow"
    elif message["kind"] == "define":
        answer["success"] = message["module"] in PROBLEMS
    elif message["kind"] == "evaluate":
        try:
            answer |= evaluate(message["module"], message["function"], message["input"])
        except Exception:
            answer |= {"success": False, "error": traceback.format_exc()}
    return answer


def evaluate(module: str, function: str, given: Any) -> dict[str, Any]:
    """Runs a function as often and as long as the input asks for. The first run, which compiles, has its own name."""
    problem = PROBLEMS[module]
    args = problem.prepare(given)
    call = problem.functions[function]
    wanted = given if isinstance(given, dict) else {}
    result, first = _timed(call, args, "compile")
    runs: list[dict[str, Any]] = []
    while len(runs) < max(1, wanted.get("min_runs", 1)) or _seconds(runs) < wanted.get("min_seconds", 0.0):
        result, timing = _timed(call, args, "evaluate")
        runs.append(timing)
    return {"success": True, "output": problem.output(function, result, given), "timings": [first, *runs]}


def _timed(call: Any, args: tuple[Any, ...], name: str) -> tuple[Any, dict[str, Any]]:
    start = time.perf_counter_ns()
    result = call(*args)
    return result, {"name": name, "nanoseconds": time.perf_counter_ns() - start}


def _seconds(runs: list[dict[str, Any]]) -> float:
    return sum(run["nanoseconds"] for run in runs) / 1e9


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(respond(json.loads(line))), flush=True)
