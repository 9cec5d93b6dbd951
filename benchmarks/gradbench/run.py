"""Who takes part in the problems, and how."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks import libraries
from benchmarks.contest import Case, Entry, Group, Unsupported, over, over_best, tables
from benchmarks.gradbench import cases as sizes
from benchmarks.gradbench import functional
from benchmarks.gradbench.check import check
from benchmarks.gradbench.problems import PROBLEMS
from benchmarks.measure import Table

NESTED = ("particle", "saddle")  # of derivatives of derivatives: reverse over reverse is shown, other modes are alike
BY_JAX = ("hello", "lse", "llsq", "ode", "kmeans", "gmm", "lstm", "ba")
BY_AUTOGRAD = ("hello", "lse", "llsq", "ode", "gmm", "lstm")


def run() -> Iterator[Table]:
    check()
    return tables(GROUP)


def in_dflow(case: Case) -> Entry:
    functions = PROBLEMS[case.name].functions
    if case.name in NESTED:
        return Entry(None, lambda: partial(functions["rr"], *case.args))
    value, derivative = functions.values()
    return Entry(lambda: partial(value, *case.args), lambda: partial(derivative, *case.args))


def in_numba(case: Case) -> Entry:
    if case.name in (*NESTED, "ht", "ba", "hello"):
        raise Unsupported("it has no derivatives, and not all of NumPy")
    return libraries.in_numba(case)


def in_jax(case: Case) -> Entry:
    if case.name not in BY_JAX:
        raise Unsupported("loops that end when they have converged, in reverse mode, or recursion")
    return in_library(libraries.jax(), case)


def in_pytorch(case: Case) -> Entry:
    if case.name in ("det", *NESTED) or _long(case):
        raise Unsupported("millions of steps of Python")
    return in_library(libraries.pytorch(), case)


def in_autograd(case: Case) -> Entry:
    if case.name not in BY_AUTOGRAD or _long(case):
        raise Unsupported("it has reverse mode alone")
    return Entry(None, in_library(libraries.autograd(), case).gradient)


def _long(case: Case) -> bool:
    return case.name == "lstm" and len(case.args[-1]) > 2000


def in_library(library: libraries.Library, case: Case) -> Entry:
    """The derivative of a problem is the gradient of its function, unless there is one of its own."""
    value = library.rewired(getattr(functional, case.name))
    return library.entry(case, value, derivative(library, case.name, value))


def derivative(library: libraries.Library, name: str, value: Callable[..., Any]) -> Callable[..., Any]:
    if name == "kmeans":
        return library.rewired(functional.kmeans_direction)
    if name in ("ba", "ht"):
        return library.rewired(getattr(functional, f"{name}_jacobian"))
    if name == "ode":
        return library.gradient(library.rewired(functional.ode_last))
    if name == "lstm":
        by_both = library.gradient(lambda weights, *rest: value(*weights, *rest))
        return lambda main, extra, *rest: by_both((main, extra), *rest)
    return library.gradient(value)


def in_casadi(case: Case) -> Entry:
    from benchmarks import symbols
    from benchmarks.gradbench import in_casadi as written

    if not hasattr(written, case.name):
        raise Unsupported(case.name)
    value = derived = getattr(written, case.name)
    if case.name == "ode":
        derived = lambda *args: value(*args)[-1]  # noqa: E731
    if case.name == "lstm":
        main, extra, *rest = case.args
        case = replace(case, args=((main, extra), *rest))
    return Entry(symbols.entry(case, value).value, symbols.entry(case, derived).gradient)


GROUP = Group(
    "benchmarks.gradbench.run",
    sizes.cases,
    sizes.case("hello", "", 3.0),
    {
        "dflow": in_dflow,
        "Numba": in_numba,
        "JAX": in_jax,
        "PyTorch": in_pytorch,
        "CasADi": in_casadi,
        "autograd": in_autograd,
    },
    {
        "dflow / best": over_best("dflow"),
        "JAX / dflow": over("JAX", "dflow"),
        "best published": sizes.published,
        "dflow / published": sizes.over_published,
    },
    note="Published are times of one thread on another machine of the same kind, as a guide: values in C++ by hand, "
    f"derivatives in {', '.join(sizes.TOOLS)}. PyTorch and autograd are eager: loops are Python's.",
)
