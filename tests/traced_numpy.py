"""Runs NumPy code on traced arrays and compares the evaluated result with NumPy's: values, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.ir.core import Function
from dflow.ir.evaluator import evaluate
from dflow.ir.types import type_of_array
from dflow.ir.verifier import verify
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import TRACE, Region, entered
from dflow.tracing.facts import LearningBuilder


def traced(f: Callable[..., Any], *args: Any, name: str = "f") -> tuple[Function, int]:
    """``f`` as a function of the IR, Python numbers among ``args`` as weak scalars; and how many results it has."""
    types = [type_of_array(a) for a in args]
    region = Region(TRACE, None, LearningBuilder(types))
    with entered(region):
        weak = [isinstance(a, int | float) and not isinstance(a, bool | np.generic) for a in args]
        out = f(*(wrap(v, w) for v, w in zip(region.builder.args, weak)))
        results = [lift(x).value for x in flatten(out)]
        function = region.builder.function(name, results)
    verify(function)
    return function, len(results)


def flatten(out: Any) -> list[Any]:
    return [x for e in out for x in flatten(e)] if isinstance(out, tuple | list) else [out]


def run(f: Callable[..., Any], *args: Any) -> list[np.ndarray]:
    return list(evaluate(traced(f, *args)[0], [np.array(a) for a in args]))


def agrees(f: Callable[..., Any], *args: Any, rtol: float | None = None, plain: Any = None) -> None:
    """Whether ``f`` traced gives what ``f`` (or ``plain``) on NumPy arrays gives."""
    with np.errstate(all="ignore"):
        wanted = flatten((plain or f)(*(a.copy() if isinstance(a, np.ndarray) else a for a in args)))
    got = run(f, *args)
    assert len(got) == len(wanted)
    for g, w in zip(got, wanted):
        w = np.asarray(w)
        assert g.dtype == w.dtype, f"dtype {g.dtype}, NumPy has {w.dtype}"
        assert g.shape == w.shape, f"shape {g.shape}, NumPy has {w.shape}"
        tolerance = rtol or {"f2": 4e-3, "f4": 3e-6}.get(w.dtype.str[1:], 2e-14)
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance, equal_nan=True)


def is_traced(x: Any) -> bool:
    return isinstance(x, Array)
