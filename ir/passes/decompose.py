"""Writes operations that have a decomposition in terms of others: ``Function -> Function``, for machine code.

    %x = det %a, %packed, ...        ->        %d = extract ...; %p = reduce %d {kind = "prod"}; ...

Such operations are there for their derivatives, so this comes after differentiation.
"""

from __future__ import annotations

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, walk
from dflow.ir.passes.rewrite import Env, append_copy, open_block, rebuild, rename
from dflow.ir.registry import OPS


def decompose(f: Function) -> Function:
    if not any(OPS[op.name].decomposition for op in walk(f.body)):
        return f
    return rebuild(f, _fill)


def _fill(b: Builder, block: Block, env: Env) -> None:
    for op in block.ops:
        b.loc = op.loc
        rule = OPS[op.name].decomposition
        if rule is None:
            append_copy(b, op, env, [_region(r, env) for r in op.regions])
            continue
        inner = Builder(loc=op.loc)
        results = rule(inner, op.attrs, rename(op.operands, env))
        names: Env = {}
        _fill(b, inner.finish(results), names)
        env.update(zip(op.results, rename(results, names)))


def _region(block: Block, env: Env) -> Block:
    b = open_block(block.args, env)
    _fill(b, block, env)
    return b.finish(rename(block.results, env))
