"""Writes operations that have a decomposition in terms of others: ``Function -> Function``, for machine code.

    %x = det %a, %packed, ...        ->        %d = extract ...; %p = reduce %d {kind = "prod"}; ...

Such operations are there for their derivatives, so this comes after differentiation. A matrix product of a column and a
row, which the derivative of every product with a vector has, becomes the product of elements that it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, walk
from dflow.ir.passes.rewrite import Env, append_copy, rebuild, rebuild_region, rename
from dflow.ir.registry import OPS


def decompose(f: Function, but: Collection[str] = ()) -> Function:
    """``but`` names the operations that stay."""
    if not any(_rule(op, but) for op in walk(f.body)):
        return f
    return rebuild(f, partial(_fill, but=but))


def _fill(b: Builder, block: Block, env: Env, but: Collection[str]) -> None:
    for op in block.ops:
        b.loc = op.loc
        rule = _rule(op, but)
        if rule is None:
            append_copy(b, op, env, [rebuild_region(r, env, partial(_fill, but=but)) for r in op.regions])
            continue
        inner = Builder(loc=op.loc)
        results = rule(inner, op.attrs, rename(op.operands, env))
        names: Env = {}
        _fill(b, inner.finish(results), names, but)
        env.update(zip(op.results, rename(results, names)))


def _rule(op: Op, but: Collection[str]) -> Any:
    if op.name in but:
        return None
    outer = op.name == "matmul" and op.operands[0].type.shape[-1] == 1
    return _outer_product if outer else OPS[op.name].decomposition


def _outer_product(b: Builder, attrs: Mapping[str, Any], operands: Sequence[Value]) -> list[Value]:
    x, y = operands
    *leading, n, _ = x.type.shape
    shape = (*leading, n, y.type.shape[-1])
    at = tuple(range(len(leading)))
    column = b.reshape(x, shape=(*leading, n))
    row = b.reshape(y, shape=(*leading, shape[-1]))
    spread = b.broadcast(column, shape=shape, dims=(*at, len(at)))
    return [b.mul(spread, b.broadcast(row, shape=shape, dims=(*at, len(at) + 1)))]
