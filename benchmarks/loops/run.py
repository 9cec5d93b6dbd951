"""Measures the programs and checks that all who take part agree."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np

import dflow
from benchmarks.loops import by_hand, programs
from benchmarks.loops.cases import Case, cases
from benchmarks.measure import Table, Time, measure, peer

FOR_AUTOGRAD = ("double_pendulum", "adaptive", "kalman", "hidden_markov", "lstm")  # the others assign to elements
Calls = tuple[Callable[[], Any] | None, Callable[[], Any] | None]  # of the value, of the gradient


def run() -> Iterator[Table]:
    compiled = by_hand.library()
    values = Table("Value", ["program", "dflow", "C", "Numba", "JAX", "NumPy", "dflow / C", "JAX / dflow"])
    gradients = Table(
        "Gradient",
        ["program", "dflow", "C, by hand", "JAX", "autograd", "dflow / C", "JAX / dflow", "dflow: gradient / value"],
    )
    for case in cases():
        t = measure_case(case, contestants(case, compiled))
        v, g = t["value"], t["gradient"]
        shown = [[v.get(name, "-") for name in ("dflow", "C", "Numba", "JAX", "NumPy")]]
        shown += [[g.get(name, "-") for name in ("dflow", "C", "JAX", "autograd")]]
        values.rows.append((case.title, *shown[0], _over(v, "dflow", "C"), _over(v, "JAX", "dflow")))
        cost = f"{g['dflow'].median / v['dflow'].median:.3g}"
        gradients.rows.append((case.title, *shown[1], _over(g, "dflow", "C"), _over(g, "JAX", "dflow"), cost))
    for table in (values, gradients):
        table.note = _means(table)
        yield table


def contestants(case: Case, compiled: Any) -> dict[str, Calls]:
    """What calls each: the value, and the gradient by the first argument, where there is one."""
    f, args = case.function, case.args
    found: dict[str, Calls] = {
        "dflow": (partial(dflow.jit(f), *args), partial(dflow.grad(f), *args)),
        "NumPy": (partial(f, *args), None),
    }
    if compiled and (calls := by_hand.functions(case.name, args, compiled)):
        found["C"] = calls
    if numba := peer("numba"):
        found["Numba"] = (partial(_in_numba(f, numba), *args), None)
    if peer("jax"):
        found["JAX"] = _in_jax(case)
    if peer("autograd") and case.name in FOR_AUTOGRAD:
        found["autograd"] = _in_autograd(case)
    return found


def _in_numba(f: Any, numba: Any) -> Any:
    """``f`` by Numba, with the functions of its module that it calls."""
    space: dict[str, Any] = {"np": np}
    space.update({k: numba.njit(_with_globals(v, space)) for k, v in _functions().items()})
    return space[f.__name__]


def _functions() -> dict[str, FunctionType]:
    return {k: v for k, v in vars(programs).items() if isinstance(v, FunctionType)}


def _in_jax(case: Case) -> Calls:
    """``case`` by JAX: arrays are arguments, already on its device, and numbers are constants."""
    import jax

    from benchmarks.loops import in_jax

    function = getattr(in_jax, case.name)
    arrays, numbers = _split(case.args)
    arrays = jax.tree.map(jax.numpy.asarray, arrays)
    value = jax.jit(lambda *a: function(*a, *numbers))
    gradient = jax.jit(jax.grad(lambda *a: function(*a, *numbers)))
    return lambda: value(*arrays).block_until_ready(), lambda: jax.block_until_ready(gradient(*arrays))


def _split(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The leading arrays, and the numbers behind them."""
    n = next((k for k, x in enumerate(args) if isinstance(x, int | float)), len(args))
    return args[:n], args[n:]


def _in_autograd(case: Case) -> Calls:
    """The program as it stands, with autograd's NumPy."""
    import autograd
    import autograd.numpy

    space: dict[str, Any] = {"np": autograd.numpy}
    rewired = {k: _with_globals(v, space) for k, v in _functions().items()}
    space.update(rewired)
    return None, partial(autograd.grad(rewired[case.name]), *case.args)


def _with_globals(f: FunctionType, space: dict[str, Any]) -> FunctionType:
    return FunctionType(f.__code__, space, f.__name__)


def measure_case(case: Case, found: dict[str, Calls]) -> dict[str, dict[str, Time]]:
    """The times of values and of gradients by contestant, after a check that they agree."""
    times = {}
    for k, what in enumerate(("value", "gradient")):
        runs = {name: calls[k] for name, calls in found.items() if calls[k] is not None}
        expected = _flat(runs["dflow"]())
        for name, call in runs.items():
            error = np.linalg.norm(_flat(call()) - expected) / np.linalg.norm(expected)
            assert error < 1e-8, f"{name} disagrees on the {what} of {case.title} by {error:.1e}"
        slow = {name: runs.pop(name) for name in ("NumPy", "autograd") if name in runs}
        times[what] = measure(runs, rounds=7) | measure(slow, rounds=3)
    return times


def _flat(x: Any) -> np.ndarray:
    leaves = x if isinstance(x, tuple | list) else (x,)
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def _over(times: dict[str, Time], a: str, b: str) -> str:
    return f"{times[a].median / times[b].median:.3g}" if a in times and b in times else "-"


def _means(table: Table) -> str:
    """Geometric means of the columns that compare."""
    means = []
    for k, column in enumerate(table.columns):
        if "/" in column:
            found = [float(row[k]) for row in table.rows if row[k] != "-"]
            means.append(f"{column}: {statistics.geometric_mean(found):.3g}")
    return "Ratios are of medians. Geometric means: " + "; ".join(means) + "."
