"""What comes before the second call: imports, the first call of a process, of a function, and from a cache on disk.

Every figure is from processes of their own, ``python -m benchmarks.starting CONTESTANT``, in which this module imports
nothing that is measured.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.measure import Table

np: Any = None  # that of the contestant
ROUNDS = 3
CACHES = ("DFLOW_CACHE", "NUMBA_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")
ALWAYS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def small(x):
    return x * 2.0


def twenty(x):
    """A function of twenty lines."""
    a = np.sin(x) * 0.5
    b = np.cos(a + x)
    c = a * b - x
    d = np.exp(-c * c)
    e = d / (1.0 + a * a)
    f = np.log(1.0 + e * e)
    g = f * b + c
    h = np.tanh(g) - d
    i = np.sqrt(1.0 + h * h)
    j = i * e + f
    k = j - a * h
    m = np.sin(k) * np.cos(j)
    n = m + 0.1 * k
    o = np.exp(-n * n)
    p = o * i + m
    q = p / (1.0 + o)
    r = q * q - p
    s = np.tanh(r) + q
    t = s * n + r
    return t * t + x


def in_dflow() -> tuple[Any, Any, Any]:
    dflow = importlib.import_module("dflow")
    return dflow.jit, dflow.grad, importlib.import_module("numpy")


def in_numba() -> tuple[Any, Any, Any]:
    numba = importlib.import_module("numba")
    return (lambda f: numba.njit(f, cache=True)), None, importlib.import_module("numpy")


def in_jax() -> tuple[Any, Any, Any]:
    jax = importlib.import_module("jax")
    return (lambda f: _waiting(jax.jit(f))), (lambda f: _waiting(jax.jit(jax.grad(f)))), jax.numpy


def _waiting(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: f(x).block_until_ready()


def imported(name: str) -> Callable[[], tuple[Any, Any, Any]]:
    """One that is imported only."""

    def enter() -> tuple[Any, Any, Any]:
        importlib.import_module(name)
        return None, None, None

    return enter


CONTESTANTS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "dflow": in_dflow,
    "Numba": in_numba,
    "JAX": in_jax,
    "PyTorch": imported("torch"),
    "CasADi": imported("casadi"),
    "autograd": imported("autograd.numpy"),
    "NumPy": imported("numpy"),
}


def main(name: str) -> None:
    """Prints seconds: of the import, of the first function, and of first calls of value and gradient of `twenty`."""
    global np
    seconds = []
    start = time.perf_counter()
    jit, grad, np = CONTESTANTS[name]()
    seconds.append(time.perf_counter() - start)
    for make, function in ((jit, small), (jit, twenty), (grad, twenty)):
        start = time.perf_counter()
        if make is not None:
            make(function)(0.3)
        seconds.append(time.perf_counter() - start if make else 0.0)
    print(json.dumps(seconds))


def starts() -> "Iterator[Table]":
    from benchmarks.measure import Once, Table

    columns = ["import", "first function", "value", "gradient", "value from disk", "gradient from disk"]
    table = Table(
        "Start",
        ["contestant", *columns],
        note="From a function to its first result: the first function that a process compiles, then one of twenty "
        "lines and its gradient. From disk: in another process, which finds what the one before has compiled. "
        f"Shortest of {ROUNDS}.",
    )
    for name in CONTESTANTS:
        if found := measured(name):
            table.rows.append((name, *(Once(x) if x else "-" for x in found)))
    yield table


def measured(name: str) -> list[float]:
    """The shortest of each; nothing when the contestant is not installed."""
    cold, warm = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, **ALWAYS, **dict.fromkeys(CACHES, folder)}
            for found in (cold, warm):
                command = [sys.executable, "-m", "benchmarks.starting", name]
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                if "ModuleNotFoundError" in done.stderr:
                    return []
                found.append(json.loads(done.stdout))
    return [*map(min, zip(*cold)), *list(map(min, zip(*warm)))[2:]]


if __name__ == "__main__":
    main(sys.argv[1])
