"""What a call costs: functions that do next to nothing, in units of ``math.sqrt``; and what comes before."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import dflow
from benchmarks.measure import Table, measure, peer, ratio
from benchmarks.starting import starts


def number(x):
    return x * 2.0


def five(p, q, r, s, t):
    return p + 1.0, q + 1.0, r + 1.0, s + 1.0, t + 1.0


def tree(d):
    return {"w": d["w"] * 2.0, "b": d["b"] + 1.0}


def polynomial(x):
    return (x * x - 3.0) * x


X = np.array([1.0, 2.0, 3.0])
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "float -> float": (number, (2.0,)),
    "array of 3 -> array of 3": (number, (X,)),
    "five arrays -> five arrays": (five, (X,) * 5),
    "dict of two arrays -> dict": (tree, ({"w": X, "b": X},)),
}


def run() -> Iterator[Table]:
    makers = {"dflow": dflow.jit} | peers()
    runs: dict[str, Callable[[], Any]] = {"math.sqrt": caller(math.sqrt, (2.0,))}
    for case, (function, args) in CASES.items():
        for name, make in makers.items():
            if not (name == "Numba" and function is tree):  # Numba takes no dict of Python's
                runs[f"{case}, {name}"] = caller(make(function), args)
    runs["gradient, float -> float, dflow"] = caller(dflow.grad(polynomial), (2.0,))
    times = measure(runs)
    unit = times["math.sqrt"]
    yield Table("Calls", ["call", "time", "/ math.sqrt"], [(name, t, ratio(t, unit)) for name, t in times.items()])
    yield from starts()


def caller(f: Callable[..., Any], args: tuple[Any, ...]) -> Callable[[], Any]:
    """A call of ``f`` that adds as little as Python allows."""
    return eval(f"lambda: f({', '.join(f'a{k}' for k in range(len(args)))})", {"f": f, **_named(args)})


def _named(args: tuple[Any, ...]) -> dict[str, Any]:
    return {f"a{k}": a for k, a in enumerate(args)}


def peers() -> dict[str, Any]:
    found: dict[str, Any] = {}
    if numba := peer("numba"):
        found["Numba"] = numba.njit
    if jax := peer("jax"):
        jax.config.update("jax_enable_x64", True)
        found["JAX"] = jax.jit
    return found
