"""The NumPy kernels of NPBench, as they stand, under ``dflow.jit`` and ``dflow.value_and_grad``.

``python -m benchmarks.npbench CHECKOUT [kernel ...]`` takes a checkout of https://github.com/spcl/npbench. Each kernel
runs in a process of its own. Its results (what it returns, and the arrays that it updates) are compared with NumPy's,
its gradient along one direction with forward mode and with central differences; then NumPy, dflow and, where it is
installed, Numba take turns. All times are those of the processor, one thread each; nothing is kept on disk before
the first call.

A kernel may amplify rounding errors, as an orbit does that stays near a boundary. Where results differ by more than
rounding, NumPy runs again on arguments changed in their last digits: ``right to its condition`` says that dflow differs
from NumPy no more than NumPy from itself.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import dflow
from benchmarks.measure import Table, Time, duration, measure, peer, write

LIMIT = 180
STEPS = (1e-6, 1e-5, 1e-7, 1e-8, 1e-9)  # of central differences: jumps near by need small ones
SINGLE = (1e-3, 1e-2, 3e-4)  # ... in single precision
COLUMNS = [
    "kernel",
    "value",
    "NumPy",
    "dflow",
    "/ NumPy",
    "Numba",
    "first call",
    "gradient",
    "gradient / value",
    "first",
]


class Kernel:
    """One kernel: its function and fresh arguments."""

    def __init__(self, checkout: Path, name: str, preset: str):
        info = json.loads((checkout / "bench_info" / f"{name}.json").read_text())["benchmark"]
        module = f"npbench.benchmarks.{info['relative_path'].replace('/', '.')}.{info['module_name']}"
        self.function = getattr(importlib.import_module(f"{module}_numpy"), info["func_name"])
        data = dict(info["parameters"][preset])
        if init := info.get("init"):
            made = getattr(importlib.import_module(module), init["func_name"])(*(data[a] for a in init["input_args"]))
            outputs = init["output_args"]
            data.update(zip(outputs, made if len(outputs) > 1 else [made]))
        self.arguments = [data[a] for a in info["input_args"]]
        after = self.fresh()
        self.function(*after)
        pairs = enumerate(zip(info["input_args"], self.arguments, after))
        self.updated = [k for k, (name, a, b) in pairs if name in info["output_args"] or not np.array_equal(a, b)]
        self.varying = [k for k, a in enumerate(self.arguments) if np.asarray(a).dtype.kind in "fc"]
        self.single = any(np.asarray(self.arguments[k]).dtype.name in ("float32", "complex64") for k in self.varying)

    def fresh(self) -> list[Any]:
        return copy.deepcopy(self.arguments)

    def results(self, function: Callable[..., Any], args: list[Any] | None = None) -> list[Any]:
        """What ``function`` returns and leaves in its arguments."""
        args = self.fresh() if args is None else args
        return [*leaves(function(*args)), *(a for a in args if isinstance(a, np.ndarray))]

    def total(self, *args: Any) -> Any:
        """All float results as one number, weighted so that no part of them cancels."""
        returned = self.function(*args)
        return weigh([*leaves(returned), *(args[k] for k in self.updated)])


def leaves(result: Any) -> list[Any]:
    if isinstance(result, tuple | list):
        return [x for part in result for x in leaves(part)]
    return [] if result is None else [result]


def weigh(results: list[Any]) -> Any:
    total = 0.0
    for r in results:
        if not isinstance(r, int) and r.dtype.kind in "fc":
            for part in (r.real, r.imag) if r.dtype.kind == "c" else (r,):
                total = total + np.sum(part * weights(r.shape))
    return total


def weights(shape: tuple[int, ...]) -> Any:
    n = int(np.prod(shape))
    return np.cos(np.arange(n)).reshape(shape) / np.sqrt(max(n, 1))


def first_call(function: Callable[..., Any], args: list[Any]) -> float:
    """The seconds of a call."""
    start = time.process_time()
    function(*args)
    return time.process_time() - start


def examine(kernel: Kernel, timed: bool) -> dict[str, str]:
    """One row of the table."""
    row: dict[str, str] = {}
    try:
        value(kernel, row, timed)
        gradient(kernel, row, timed)
    except Exception as e:
        row["gradient" if "value" in row else "value"] = brief(e)
    return row


def brief(e: Exception) -> str:
    """The error without the place."""
    text = str(e).splitlines()[0] if str(e) else ""
    return f"{type(e).__name__}: {text.rpartition('.py:')[2]}"[:160]


def value(kernel: Kernel, row: dict[str, str], timed: bool) -> None:
    wanted = kernel.results(kernel.function)
    function = dflow.jit(kernel.function)
    seconds = first_call(function, kernel.fresh())
    got = kernel.results(function)
    assert len(got) == len(wanted), f"{len(got)} results, not {len(wanted)}"
    verdict = "right"
    if not all(map(close, got, wanted)):
        varied = [kernel.results(kernel.function, changed(kernel, seed)) for seed in range(3)]
        spread = [np.max([apart(v[k], w) for v in varied]) for k, w in enumerate(wanted)]
        for g, w, s in zip(got, wanted, spread):
            assert close(g, w) or apart(g, w) <= 10 * s, f"{apart(g, w):.2g} from NumPy's, of {np.max(np.abs(w)):.2g}"
        verdict = "right to its condition"
    row |= {"value": verdict, "first call": duration(seconds)}
    if timed:
        runs = {"NumPy": kernel.function, "dflow": function}
        compiled = numba(kernel)
        if callable(compiled):
            runs["Numba"] = compiled
        times = measure_fresh(kernel, runs)
        row |= {name: str(t) for name, t in times.items()}
        row["/ NumPy"] = f"{times['dflow'].least / times['NumPy'].least:.3g}"
        row.setdefault("Numba", str(compiled))


def close(g: Any, w: Any) -> bool:
    tolerance = 1e-5 if np.asarray(w).dtype.name in ("float32", "complex64") else 1e-9
    scale = np.max(np.abs(w), initial=0.0, where=np.isfinite(w))
    return np.shape(g) == np.shape(w) and np.allclose(g, w, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def apart(g: Any, w: Any) -> float:
    both = np.isfinite(g) & np.isfinite(w)
    return float(np.max(np.abs(np.subtract(g, w, dtype=complex)), initial=0.0, where=both))


def changed(kernel: Kernel, seed: int) -> list[Any]:
    """The arguments, changed in their last digits."""
    rng = np.random.default_rng(seed)
    args = kernel.fresh()
    for k in kernel.varying:
        a = np.asarray(args[k])
        new = a * (1 + np.finfo(a.dtype).eps * rng.choice([-1, 1], a.shape)).astype(a.dtype)
        args[k] = new if isinstance(args[k], np.ndarray) else new.item()
    return args


def numba(kernel: Kernel) -> Any:
    """The kernel compiled by Numba, or why it is not."""
    found = peer("numba")
    if found is None:
        return ""
    names = vars(inspect.getmodule(kernel.function))
    helpers = {k: f for k, f in names.items() if inspect.isfunction(f) and f is not kernel.function}
    names.update({k: found.njit(f) for k, f in helpers.items()})
    try:
        compiled = found.njit(kernel.function)
        kernel.results(compiled)
    except Exception as e:
        return type(e).__name__
    finally:
        names.update(helpers)  # the others call them as they are
    return compiled


def gradient(kernel: Kernel, row: dict[str, str], timed: bool) -> None:
    if not kernel.varying or not any(r.dtype.kind in "fc" for r in map(np.asarray, kernel.results(kernel.function))):
        row["gradient"] = "nothing varies"
        return

    def total(*args: Any) -> Any:
        return kernel.total(*args)

    both, alone = dflow.value_and_grad(total, argnums=tuple(kernel.varying)), dflow.jit(total)
    seconds = first_call(both, kernel.fresh())
    _, bars = both(*kernel.fresh())
    dots = directions(kernel)
    slope = sum(float(np.sum(np.real(b * np.asarray(d)))) for b, d in zip(bars, dots))
    row |= {"gradient": judged(kernel, slope, forward(kernel, total, dots), dots), "first": duration(seconds)}
    if timed:
        times = measure_fresh(kernel, {"value": alone, "gradient": both})
        row["gradient / value"] = f"{times['gradient'].least / times['value'].least:.3g}"


def forward(kernel: Kernel, total: Callable[..., Any], dots: list[Any]) -> float:
    """The derivative in the direction ``dots``, by forward mode."""
    primals, tangents = kernel.fresh(), dict(zip(kernel.varying, dots))
    some = [tangents.get(k, zero(p)) for k, p in enumerate(primals)]
    return float(dflow.jvp(total, tuple(primals), tuple(some))[1])


def judged(kernel: Kernel, reverse: float, forward: float, dots: list[Any]) -> str:
    """Reverse mode beside forward mode, and both beside numeric derivatives of NumPy's kernel."""
    size = max(abs(forward), 1e-6)
    if not abs(reverse - forward) <= (1e-3 if kernel.single else 1e-6) * size:
        return f"differs: reverse {reverse:.8g}, forward {forward:.8g}"
    numeric = [x for eps in (SINGLE if kernel.single else STEPS) for x in central(kernel, dots, eps)]
    if min(abs(forward - x) for x in numeric) <= (2e-2 if kernel.single else 1e-4) * size:
        return "right"
    if max(numeric) - min(numeric) > 0.5 * max(map(abs, numeric)):
        return "forward = reverse; it jumps"
    return f"differs: {reverse:.8g}, numeric {', '.join(f'{x:.8g}' for x in numeric)}"


def directions(kernel: Kernel) -> list[Any]:
    rng = np.random.default_rng(0)
    made = []
    for k in kernel.varying:
        a = np.asarray(kernel.arguments[k])
        d = rng.normal(size=a.shape) * (np.abs(a) + 0.1 * np.mean(np.abs(a)))
        made.append(d.astype(a.dtype) if a.shape else a.dtype.type(d).item())
    return made


def zero(primal: Any) -> Any:
    """The tangent of what does not vary: None for integers."""
    a = np.asarray(primal)
    return np.zeros(a.shape, a.dtype)[()] if a.dtype.kind in "fc" else None


def central(kernel: Kernel, dots: list[Any], eps: float) -> list[float]:
    """The slope between two points; none where the step leads out of the domain."""
    ends = []
    for sign in (1, -1):
        args = kernel.fresh()
        for k, d in zip(kernel.varying, dots):
            moved = np.asarray(args[k]) + np.asarray(sign * eps * np.asarray(d), np.asarray(args[k]).dtype)
            args[k] = moved if isinstance(args[k], np.ndarray) else moved.item()
        try:
            ends.append(float(kernel.total(*args)))
        except np.linalg.LinAlgError:
            return []
    return [(ends[0] - ends[1]) / (2 * eps)]


def measure_fresh(kernel: Kernel, runs: dict[str, Callable[..., Any]]) -> dict[str, Time]:
    """Times calls on arguments that are made anew when a kernel updates them."""
    args = kernel.fresh()

    def caller(f: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> None:
            for k in kernel.updated:
                if isinstance(args[k], np.ndarray):
                    args[k][...] = kernel.arguments[k]
            f(*args)

        return run

    return measure({name: caller(f) for name, f in runs.items()}, rounds=3, seconds=0.004, clock=time.process_time)


def separately(checkout: Path, name: str, options: list[str], limit: float) -> dict[str, str]:
    """``examine`` in a process of its own, so that no kernel can disturb another."""
    command = [sys.executable, "-m", "benchmarks.npbench", str(checkout), name, "--alone", *options]
    try:
        environment = {**os.environ, "DFLOW_CACHE": "off"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment)
    except subprocess.TimeoutExpired:
        return {"value": f"more than {limit:g} s"}
    try:
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return found
    except (IndexError, json.JSONDecodeError):
        return {"value": f"ended with {done.returncode}: {done.stderr.splitlines()[-1:]}"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.npbench", description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("kernels", nargs="*", help="names as in bench_info; all when none is named")
    parser.add_argument("--preset", default="S", help="sizes, S by default")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one kernel")
    parser.add_argument("--jobs", type=int, default=1, help="kernels at a time")
    parser.add_argument("--untimed", action="store_true", help="only compare results")
    parser.add_argument("--alone", action="store_true", help="in this process, as JSON")
    options = parser.parse_args()
    sys.path.insert(0, str(options.checkout))
    if options.alone:
        print(json.dumps(examine(Kernel(options.checkout, *options.kernels, options.preset), not options.untimed)))
        return
    names = options.kernels or sorted(p.stem for p in (options.checkout / "bench_info").glob("*.json"))
    flags = ["--preset", options.preset, *(["--untimed"] if options.untimed else [])]
    columns = ["kernel", "value", "gradient"] if options.untimed else COLUMNS
    table = Table(f"NPBench, preset {options.preset}", columns)
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = pool.map(lambda name: separately(options.checkout, name, flags, options.limit), names)
        for name, row in zip(names, rows):
            table.rows.append([name, *(row.get(c, "") for c in columns[1:])])
            print(table.rows[-1], flush=True)
    right = sum(row[1].startswith("right") for row in table.rows)
    verdicts = [row[columns.index("gradient")] for row in table.rows]
    agree, jumps, none = (sum(v.startswith(x) for v in verdicts) for x in ("right", "forward =", "nothing"))
    table.note = (
        f"{right} of {len(names)} values are right. {agree} gradients agree with forward mode and numerically, {jumps} "
        f"with forward mode where the function jumps; {none} kernels have nothing to differentiate."
    )
    print(f"\n{table}")
    if not options.kernels:
        write("npbench", [table])


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
