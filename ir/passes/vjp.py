"""Reverse mode: *jvp*, then *linearize*, then *transpose*.

``(x) -> y`` becomes ``(x, y_bar) -> (y, x_bar)``.
"""

from __future__ import annotations

from collections.abc import Sequence

from dflow.ir.builder import Builder
from dflow.ir.core import Function
from dflow.ir.passes.jvp import differentiable
from dflow.ir.passes.linearize import linearize_parts
from dflow.ir.passes.transpose import bar, transpose_block


def vjp(f: Function, wrt: Sequence[int] | None = None) -> Function:
    """``(x...) -> y...`` becomes ``(x..., y_bar for inexact y...) -> (y..., x_bar for wrt...)``.

    ``wrt`` are positions of parameters, by default all inexact ones. Raises NoDerivativeError.
    """
    wrt = differentiable(f.args) if wrt is None else list(wrt)
    outputs = [f.results[i] for i in differentiable(f.results)]
    parts = linearize_parts(f, wrt)
    b = Builder(
        [*f.arg_types, *(y.type for y in outputs)], [*(a.hint for a in f.args), *(bar(y.hint) for y in outputs)]
    )
    n = len(f.args)
    env = {}
    primal = parts.b.finish(parts.results)
    ys = b.inline(primal, b.args[:n], env)
    bars = transpose_block(b, parts.linear, parts.linear.args, b.args[n:], env)
    return b.function(f"vjp_{f.name}", [*ys, *bars], loc=f.loc)


def value_and_grad(f: Function, wrt: Sequence[int] | None = None) -> Function:
    """``(x...) -> (y, aux...)``, ``y`` a scalar, becomes ``(x...) -> (y, aux..., x_bar for wrt...)``."""
    wrt = differentiable(f.args) if wrt is None else list(wrt)
    back = vjp(f, wrt)
    b = Builder(f.arg_types, [a.hint for a in f.args], f.loc)
    seeds = [b.full(1 if i == 0 else 0, f.results[i].type) for i in differentiable(f.results)]
    results = b.inline(back.body, [*b.args, *seeds])
    return b.function(f"grad_{f.name}", results, loc=f.loc)
