"""GradBench's ba, ht and gmm on a GPU, many at once: the value, and the value with its gradient.

A batch are problems with other parameters and the same data. JAX and PyTorch have the same problems, written for them
and batched by their ``vmap``; all results are compared. Without a device the group says so and writes nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import dflow
from benchmarks import gpu_gradbench_peers as peers
from benchmarks.gpu import opened
from benchmarks.gradbench import adjustment, hand, inputs, mixture, problems
from benchmarks.measure import Budget, Table, Time, attempt, measure, peer
from dflow import trees

BATCHES = (1024, 16384, 64)  # what matters most first
MOST_ON_CPU = 1024
PEERS = ("JAX", "JAX's", "PyTorch", "PyTorch's")
COLUMNS = ("value", "with gradient", "ratio", "JAX", "JAX with gradient", "PyTorch", "PyTorch with gradient")

# The cost of one problem, the arguments of a batch, and the cost for another library.
Batch = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any, peers.Put], peers.Cost]]


def ba(count: int, small: bool = False) -> Batch:
    """A problem for each observation: the square of its errors, by camera, point and weight."""

    def cost(camera, x, w, seen):
        e = adjustment.error(camera, x, w, seen)
        return np.sum(e * e) + (1.0 - w * w) ** 2

    r, given = np.random.default_rng(0), inputs.ba(1)
    rows = [np.tile(np.asarray(given[k], float), (count, 1)) for k in ("cam", "x")]
    rows = [x * (1.0 + 1e-3 * r.normal(size=x.shape)) for x in rows]
    args = (*rows, np.full(count, given["w"]), np.tile(given["feat"], (count, 1)))
    return cost, args, lambda xp, put: peers.ba(xp)


def ht(count: int, small: bool = False) -> Batch:
    """A hand in many poses."""
    given = inputs._any_hand("simple", n=2, v=3) if small else inputs.ht("simple", 1)
    theta, model, seen, points = problems.ht(given)

    def cost(theta):
        e = hand.simple(theta, model, seen, points)
        return np.sum(e * e)

    thetas = theta * (1.0 + 0.1 * np.random.default_rng(0).normal(size=(count, len(theta))))
    return cost, (thetas,), lambda xp, put: peers.ht(xp, put, model, seen, points)


def gmm(count: int, small: bool = False) -> Batch:
    """Many mixtures for the same points."""
    (alpha, mu, q, l), *rest = problems.gmm(inputs.gmm(2, 2, 3) if small else inputs.gmm(10, 5, 1000))

    def posterior(alpha, mu, q, l):
        return mixture.posterior((alpha, mu, q, l), *rest)

    r = np.random.default_rng(0)
    args = tuple(x * (1.0 + 0.1 * r.normal(size=(count, *x.shape))) for x in (alpha, mu, q, l))
    return posterior, args, lambda xp, put: peers.gmm(xp, put, *rest)


def run(
    batches: tuple[int, ...] = BATCHES, rounds: int = 5, small: bool = False, seconds: float = float("inf")
) -> Iterator[Table]:
    """The table, after every row; no more rows after so many seconds."""
    where = opened()
    if where is None:
        return
    budget = Budget(seconds)
    columns = ["problem", "batch", *COLUMNS, "value on the CPU", "with gradient on the CPU"]
    table = Table("GradBench's problems, batched on a GPU", columns, note=f"f64. {where} Ratios are of medians.")
    for count in batches:
        for make in (ba, ht, gmm):
            if budget.is_spent():
                continue
            name = make.__name__
            made = attempt(f"{name}, {count}", lambda make=make, count=count: row(*make(count, small), rounds))
            if made is not None:
                table.rows.append((name, count, *made))
                yield table
    if budget.left_out:
        print(f"the time was up: {budget.left_out} rows are left out", flush=True)


def row(cost: Callable[..., Any], args: tuple[Any, ...], other: Any, rounds: int) -> tuple[Any, ...]:
    """Of a large batch the CPU does the first problems only, for comparison. A gradient that fails leaves the value."""
    both = dflow.value_and_grad(cost, tuple(range(len(args))))
    there, calls = tuple(dflow.device_put(x) for x in args), dict[str, Callable[[], Any]]()
    few, wanted = tuple(x[:MOST_ON_CPU] for x in args), dict[str, Any]()

    def add(name: str, f: Callable[..., Any]) -> None:
        on_gpu, on_cpu = (dflow.jit(dflow.vmap(f), device=device) for device in ("cuda", "cpu"))
        wanted[name] = on_cpu(*few)
        if len(args[0]) <= MOST_ON_CPU:
            calls[f"{name} on the CPU"] = lambda: on_cpu(*args)
        compare(on_gpu(*there), wanted[name])
        calls[name] = lambda: wait(on_gpu(*there))

    add("value", cost)
    attempt("the gradient", lambda: add("gradient", both))
    calls |= of_peers(other, args, wanted)
    times: dict[str, Time] = measure(calls, rounds=rounds)
    value, slope = times["value"], times.get("gradient")
    ratio = "-" if slope is None else f"{slope.median / value.median:.3g}"
    others = [times.get(name, "-") for name in (*PEERS, "value on the CPU", "gradient on the CPU")]
    return value, slope or "-", ratio, *others


def of_peers(other: Any, args: tuple[Any, ...], wanted: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """The calls of those that are installed, see a GPU, and have the memory."""
    jax, torch = (peer(name) for name in ("jax", "torch"))
    found: dict[str, Callable[[], Any]] = {}
    if jax and attempt("JAX", jax.default_backend) == "gpu":
        found |= attempt("JAX", lambda: peers.in_jax(jax, other, args)) or {}
    if torch and attempt("PyTorch", torch.cuda.is_available):
        found |= attempt("PyTorch", lambda: peers.in_torch(torch, other, args)) or {}

    def agrees(name: str, call: Callable[[], Any]) -> bool:
        on_host = [x.cpu().numpy() if hasattr(x, "cpu") else np.asarray(x) for x in leaves(call())]
        compare(on_host, leaves(wanted["gradient" if name.endswith("'s") else "value"]))
        return True

    return {name: c for name, c in found.items() if attempt(name, lambda name=name, c=c: agrees(name, c))}


def leaves(result: Any) -> list[Any]:
    """The arrays of a result, in order."""
    return [y for x in result for y in leaves(x)] if isinstance(result, tuple | list) else [result]


def wait(result: Any) -> None:
    for x in trees.flatten(result)[0]:
        x.block_until_ready()


def compare(got: Any, wanted: Any) -> None:
    """The problems that are wanted, which are the first."""
    for g, w in zip(trees.flatten(got)[0], trees.flatten(wanted)[0]):
        np.testing.assert_allclose(np.asarray(g)[: len(w)], w, rtol=1e-8, atol=1e-8 * float(np.max(np.abs(w))))
