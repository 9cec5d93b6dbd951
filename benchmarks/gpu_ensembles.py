"""Ensembles of differential equations on a GPU: Lorenz systems with steps of fixed and of adapted length.

As in DiffEqGPU's comparison, up to 8 million systems: ``python -m benchmarks gpu_ensembles --systems 8388608``. Without
a device the group says so and writes nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import dflow
from benchmarks import gpu_lorenz
from benchmarks.gpu import opened
from benchmarks.measure import Budget, Table, Time, attempt, measure, peer

SIZES = tuple(1 << k for k in (10, 13, 16, 18, 20, 23))
PEERS = ("JAX", "PyTorch", "Numba", "CUDA by hand")


def fixed(rho, steps):
    """Steps of Runge and Kutta's method of order 4."""
    x, y, z, h = 1.0, 0.0, 0.0, 0.001
    for _ in range(steps):
        a, b, c = 10.0 * (y - x), x * (rho - z) - y, x * y - 8.0 / 3.0 * z
        u, v, w = x + h / 2 * a, y + h / 2 * b, z + h / 2 * c
        d, e, f = 10.0 * (v - u), u * (rho - w) - v, u * v - 8.0 / 3.0 * w
        u, v, w = x + h / 2 * d, y + h / 2 * e, z + h / 2 * f
        g, i, j = 10.0 * (v - u), u * (rho - w) - v, u * v - 8.0 / 3.0 * w
        u, v, w = x + h * g, y + h * i, z + h * j
        k, l, m = 10.0 * (v - u), u * (rho - w) - v, u * v - 8.0 / 3.0 * w
        x += h / 6 * (a + 2 * d + 2 * g + k)
        y += h / 6 * (b + 2 * e + 2 * i + l)
        z += h / 6 * (c + 2 * f + 2 * j + m)
    return x + y + z


def adaptive(rho, until):
    """Bogacki and Shampine's pair of orders 3 and 2."""
    x, y, z, t, h = 1.0, 0.0, 0.0, 0.0, 1e-3
    while t < until:
        h = min(h, until - t)
        a, b, c = 10.0 * (y - x), x * (rho - z) - y, x * y - 8.0 / 3.0 * z
        u, v, w = x + h / 2 * a, y + h / 2 * b, z + h / 2 * c
        d, e, f = 10.0 * (v - u), u * (rho - w) - v, u * v - 8.0 / 3.0 * w
        u, v, w = x + 0.75 * h * d, y + 0.75 * h * e, z + 0.75 * h * f
        g, i, j = 10.0 * (v - u), u * (rho - w) - v, u * v - 8.0 / 3.0 * w
        u = x + h / 9 * (2 * a + 3 * d + 4 * g)
        v = y + h / 9 * (2 * b + 3 * e + 4 * i)
        w = z + h / 9 * (2 * c + 3 * f + 4 * j)
        k, l, m = 10.0 * (v - u), u * (rho - w) - v, u * v - 8.0 / 3.0 * w
        p, q, r = -5 * a + 6 * d + 8 * g - 9 * k, -5 * b + 6 * e + 8 * i - 9 * l, -5 * c + 6 * f + 8 * j - 9 * m
        error = h * np.sqrt((p / 72) ** 2 + (q / 72) ** 2 + (r / 72) ** 2)
        if error < 1e-6:
            x, y, z, t = u, v, w, t + h
        h = h * min(5.0, max(0.2, 0.9 * (1e-6 / (error + 1e-30)) ** (1.0 / 3.0)))
    return x + y + z


def run(
    systems: int = 1 << 20, steps: int = 1000, until: float = 1.0, rounds: int = 5, seconds: float = float("inf")
) -> Iterator[Table]:
    """``systems``: the most in an ensemble. Tables, each after every row; no more rows after so many seconds."""
    where = opened()
    if where is None:
        return
    budget, tables = Budget(seconds), list[Table]()
    kinds = (("fixed", fixed, steps, f"{steps} steps of order 4"), ("adaptive", adaptive, until, f"to time {until}"))
    for _, _, _, title in kinds:
        columns = ["systems", "dflow", "of the hand's", "gradient", "gradient / value", *PEERS, "JAX's gradient"]
        tables.append(Table(f"Ensembles of Lorenz systems on a GPU, {title}", columns))
        tables[-1].note = f"f64. {where} Ratios are of medians."
    for count in [n for n in SIZES if n <= systems] or [systems]:
        rho = np.linspace(0.0, 21.0, count)
        for (kind, solve, amount, title), table in zip(kinds, tables):
            if budget.is_spent():
                continue
            made = attempt(
                f"{count} systems, {title}", lambda k=kind, s=solve, a=amount, r=rho: row(k, s, a, r, rounds)
            )
            if made is not None:
                table.rows.append(made)
                yield table
    if budget.left_out:
        print(f"the time was up: {budget.left_out} rows are left out", flush=True)


def row(kind: str, solve: Callable[..., Any], amount: Any, rho: np.ndarray, rounds: int) -> tuple[Any, ...]:
    times = measure(contestants(kind, solve, amount, rho), rounds=rounds)
    value, slope, limit = times["dflow"], times.get("gradient"), times.get("CUDA by hand")
    of_limit = "-" if limit is None else ratio(value, limit)
    slower = "-" if slope is None else ratio(slope, value)
    peers = [times.get(name, "-") for name in (*PEERS, "JAX's gradient")]
    return len(rho), value, of_limit, slope or "-", slower, *peers


def ratio(a: Time, b: Time) -> str:
    return f"{a.median / b.median:.3g}"


def contestants(kind: str, solve: Callable[..., Any], amount: Any, rho: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Calls that give the same, but for the gradients. Raises AssertionError where dflow's value is wrong; others, and
    the gradient, are left out then, and it is told."""
    there = dflow.device_put(rho)
    together = dflow.jit(lambda rho: dflow.vmap(lambda r: solve(r, amount))(rho), device="cuda")
    slopes = dflow.vmap(dflow.grad(lambda r: solve(r, amount)))
    alone = dflow.jit(slopes, device="cuda")
    found = {"dflow": lambda: together(there).block_until_ready().numpy}
    few = slice(0, None, max(1, len(rho) // 8))
    expected = np.array([solve(r, amount) for r in rho[few]])

    def agrees(call: Callable[[], Any]) -> bool:
        np.testing.assert_allclose(call()()[few], expected, rtol=1e-6)
        return True

    agrees(found["dflow"])
    for name, make in peers(kind, solve, amount, rho).items():
        call = attempt(name, make)
        if call is not None and attempt(name, lambda call=call: agrees(call)):
            found[name] = call

    def is_slope() -> bool:
        np.testing.assert_allclose(alone(there).numpy()[few], dflow.jit(slopes)(rho[few]), rtol=1e-5)
        return True

    if attempt("the gradient", is_slope):
        found["gradient"] = lambda: alone(there).block_until_ready()
    if "JAX" in found:
        slope = attempt("JAX's gradient", lambda: gpu_lorenz.in_jax(peer("jax"), kind, rho, amount, slope=True))
        if slope is not None and attempt("JAX's gradient", slope) is not None:
            found["JAX's gradient"] = slope
    return found


def peers(kind: str, solve: Callable[..., Any], amount: Any, rho: np.ndarray) -> dict[str, Callable[[], Any]]:
    """How to make the calls of those that are installed and see a GPU."""
    jax, torch, numba, cupy = (peer(name) for name in ("jax", "torch", "numba.cuda", "cupy"))
    made: dict[str, Callable[[], Any]] = {}
    if cupy:
        made["CUDA by hand"] = lambda: gpu_lorenz.by_hand(cupy, kind, rho, amount)
    if jax and attempt("JAX", jax.default_backend) == "gpu":
        made["JAX"] = lambda: gpu_lorenz.in_jax(jax, kind, rho, amount)
    if numba and attempt("Numba", numba.is_available):
        made["Numba"] = lambda: gpu_lorenz.in_numba(numba, solve, rho, amount)
    if torch and kind == "fixed" and attempt("PyTorch", torch.cuda.is_available):
        made["PyTorch"] = lambda: gpu_lorenz.in_torch(torch, rho, amount)
    return made
