"""Derivatives of generated programs, with loops, branches, updates and sizes known at run time."""

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from programs_ir import Program, random_functions

from dflow.backends.native.generation import compile_function
from dflow.ir.core import Function
from dflow.ir.evaluator import evaluate
from dflow.ir.passes import optimize
from dflow.ir.passes.jvp import differentiable, jvp
from dflow.ir.passes.linearize import linearize
from dflow.ir.passes.transpose import transpose
from dflow.ir.passes.vjp import vjp
from dflow.ir.types import F64
from dflow.ir.verifier import verify

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
smooth = random_functions(dtype=F64, kinks=False, sizes=True, control=True)


def normal(rng: np.random.Generator, types: Any) -> list[np.ndarray]:
    return [rng.standard_normal(t.bound) for t in types]


def inner(xs: Any, ys: Any) -> float:
    return sum(float(np.vdot(x, y)) for x, y in zip(xs, ys, strict=True))


def run(f: Function, args: Any) -> list[Any]:
    verify(f)
    return list(evaluate(f, args))


@SETTINGS
@given(smooth)
def test_every_way_to_the_derivative(p: Program) -> None:
    f, args = p.function, p.args
    wrt = differentiable(f.args)
    rng = np.random.default_rng(1)
    count = len(f.results)
    dots = normal(rng, [f.args[i].type for i in wrt])
    bars = normal(rng, [r.type for r in f.results])
    y_dots = run(jvp(f), [*args, *dots])[count:]
    x_bars = run(vjp(f), [*args, *bars])[count:]
    np.testing.assert_allclose(inner(bars, y_dots), inner(x_bars, dots), rtol=1e-7, atol=1e-9)
    primal, linear = linearize(f, wrt)
    residuals = run(primal, args)[count:]
    np.testing.assert_allclose(inner(bars, run(linear, [*residuals, *dots])), inner(bars, y_dots), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        inner(run(transpose(linear), [*residuals, *bars]), dots), inner(x_bars, dots), rtol=1e-7, atol=1e-9
    )


@SETTINGS
@given(smooth)
def test_compiled_derivatives_are_those_of_the_evaluator(p: Program) -> None:
    bars = normal(np.random.default_rng(1), [r.type for r in p.function.results])
    reverse = vjp(p.function)
    compiled = compile_function(optimize(reverse, check=True))
    for got, wanted in zip(compiled(*p.args, *bars), run(reverse, [*p.args, *bars]), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-7, atol=1e-9)


@settings(SETTINGS, max_examples=15)
@given(random_functions(dtype=F64, kinks=False, sizes=True, control=True, steps=3))
def test_order_two(p: Program) -> None:
    rng = np.random.default_rng(1)
    reverse = vjp(p.function)
    args = [*p.args, *normal(rng, [r.type for r in p.function.results])]
    count = len(reverse.results)
    dots = normal(rng, [reverse.args[i].type for i in differentiable(reverse.args)])
    bars = normal(rng, [r.type for r in reverse.results])
    y_dots = run(optimize(jvp(reverse)), [*args, *dots])[count:]
    x_bars = compile_function(optimize(vjp(reverse)))(*args, *bars)[count:]
    np.testing.assert_allclose(inner(bars, y_dots), inner(x_bars, dots), rtol=1e-6, atol=1e-8)
