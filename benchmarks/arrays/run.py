"""Who takes part in the operations, and how."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

import dflow
from benchmarks import libraries
from benchmarks.arrays import programs
from benchmarks.arrays.cases import cases
from benchmarks.contest import Case, Entry, Group, over, over_best, tables
from benchmarks.measure import Table


def run() -> Iterator[Table]:
    return tables(GROUP)


def in_dflow(case: Case) -> Entry:
    f, args = case.function, case.args
    mean = lambda *args: np.mean(f(*args) ** 2)  # noqa: E731
    return Entry(lambda: partial(dflow.jit(f), *args), lambda: partial(dflow.grad(mean), *args))


def in_library(library: Callable[[], libraries.Library], case: Case) -> Entry:
    its = library()
    f, mean = its.rewired(case.function), its.names["np"].mean
    return its.entry(case, f, its.gradient(lambda *args: mean(f(*args) ** 2)))


def in_autograd(case: Case) -> Entry:
    return Entry(None, in_library(libraries.autograd, case).gradient)  # its values are NumPy's


GROUP = Group(
    "benchmarks.arrays.run",
    cases,
    Case("sum", programs.sum_all, (np.ones(3),)),
    {
        "dflow": in_dflow,
        "NumPy": libraries.in_numpy,
        "Numba": libraries.in_numba,
        "JAX": partial(in_library, libraries.jax),
        "PyTorch": partial(in_library, libraries.pytorch),
        "autograd": in_autograd,
    },
    {"dflow / best": over_best("dflow"), "dflow / JAX": over("dflow", "JAX")},
    note="The best is that of the others. Of dflow and Numba one thread takes part, products of matrices aside.",
)
