"""Reverse mode: *jvp*, then *linearize*, then *transpose*.

``(x) -> y`` becomes ``(x, y_bar) -> (y, x_bar)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dflow.ir.builder import Builder
from dflow.ir.core import Function, Value
from dflow.ir.passes.jvp import differentiable
from dflow.ir.passes.linearize import linearize_parts
from dflow.ir.passes.together import transpose_together
from dflow.ir.passes.transpose import cotangents


def vjp(f: Function, wrt: Sequence[int] | None = None) -> Function:
    """``(x...) -> y...`` becomes ``(x..., y_bar for inexact y...) -> (y..., x_bar for wrt...)``.

    ``wrt`` are positions of parameters, by default all inexact ones. Where the size of a result is known to the
    function alone, the cotangent fills the corner of a tensor of the size's bound. Raises NoDerivativeError.
    """
    b = Builder.like([*f.args, *cotangents(f.results, f.args)])
    n = len(f.args)
    return b.function(f"vjp_{f.name}", _reverse(b, f, b.args[:n], wrt, lambda ys: b.args[n:]), loc=f.loc)


def value_and_grad(f: Function, wrt: Sequence[int] | None = None) -> Function:
    """``(x...) -> (y, aux...)``, ``y`` an inexact scalar, becomes ``(x...) -> (y, aux..., y's x_bar for wrt...)``."""
    b = Builder.like(f.args, loc=f.loc)
    rest = len(differentiable(f.results)) - 1

    def seeds(ys: list[Value]) -> list[Value | None]:
        return [b.full(1, ys[0].type), *[None] * rest]

    return b.function(f"grad_{f.name}", _reverse(b, f, b.args, wrt, seeds), loc=f.loc)


def _reverse(
    b: Builder,
    f: Function,
    args: Sequence[Value],
    wrt: Sequence[int] | None,
    seeds: Callable[[list[Value]], Sequence[Value | None]],
) -> list[Value]:
    """Appends ``f`` and its reverse; ``seeds`` gives the cotangents of its inexact results (None for zero)."""
    parts = linearize_parts(f, differentiable(f.args) if wrt is None else list(wrt))
    env: dict[Value, Value] = {}
    ys = b.inline(parts.b.finish(parts.results), args, env)
    return [*ys, *transpose_together(b, parts, seeds(ys), env)]
