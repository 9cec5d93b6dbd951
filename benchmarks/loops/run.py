"""Who takes part in the programs, and how."""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np

import dflow
from benchmarks import libraries
from benchmarks.contest import Case, Entry, Group, Unsupported, over, tables
from benchmarks.loops import by_hand, functional, programs
from benchmarks.loops.cases import cases
from benchmarks.measure import Table

AS_IT_STANDS = ("double_pendulum", "adaptive", "kalman", "hidden_markov", "lstm")  # programs that fill no arrays
library = cache(by_hand.library)


def run() -> Iterator[Table]:
    return tables(GROUP)


def in_dflow(case: Case) -> Entry:
    f, args = case.function, case.args
    return Entry(lambda: partial(dflow.jit(f), *args), lambda: partial(dflow.grad(f), *args))


def in_c(case: Case) -> Entry:
    compiled = library()
    calls = by_hand.functions(case.name, case.args, compiled) if compiled else None
    if calls is None:
        raise Unsupported(case.name)
    return Entry(lambda: calls[0], lambda: calls[1], compiles=False)


def in_jax(case: Case) -> Entry:
    return in_library(libraries.jax(), case, functional)


def in_pytorch(case: Case) -> Entry:
    return in_library(libraries.pytorch(), case, _eager(case))


def in_autograd(case: Case) -> Entry:
    if case.name == "sparse_product":
        raise Unsupported("sums by row, of rows of different lengths")
    entry = in_library(libraries.autograd(), case, _eager(case))
    return Entry(None, entry.gradient)  # its values are NumPy's


def _eager(case: Case) -> Any:
    return programs if case.name in AS_IT_STANDS else functional


def in_library(library: libraries.Library, case: Case, written: Any) -> Entry:
    f = library.rewired(getattr(written, case.name))
    return library.entry(case, f, library.gradient(f))


def in_casadi(case: Case) -> Entry:
    from benchmarks import symbols
    from benchmarks.loops import in_casadi as written

    if not hasattr(written, case.name):
        raise Unsupported(case.name)
    return symbols.entry(case, getattr(written, case.name))


GROUP = Group(
    "benchmarks.loops.run",
    cases,
    Case("sum", programs.total, (np.ones(3),)),
    {
        "dflow": in_dflow,
        "C": in_c,
        "Numba": libraries.in_numba,
        "JAX": in_jax,
        "PyTorch": in_pytorch,
        "CasADi": in_casadi,
        "autograd": in_autograd,
        "NumPy": libraries.in_numpy,
    },
    {"dflow / C": over("dflow", "C"), "JAX / dflow": over("JAX", "dflow"), "CasADi / dflow": over("CasADi", "dflow")},
    note="PyTorch and autograd are eager: loops are Python's. C has its derivatives written by hand.",
)
