"""Replaces values in a block that is still under construction (placeholders by what they turned out to be)."""

from __future__ import annotations

from collections.abc import Mapping

from dflow.ir.core import HOLDERS, Block, Value, substitute, walk
from dflow.ir.passes.rewrite import has_sizes


def rename(block: Block, env: Mapping[Value, Value]) -> None:
    """Renames by ``env`` throughout the block. In place: nobody has seen the block yet."""
    if not env:
        return
    for op in walk(block):
        if not env.keys().isdisjoint(op.operands):
            op.operands = tuple(env.get(v, v) for v in op.operands)
        if any(isinstance(a, HOLDERS) and has_sizes(a) for a in op.attrs.values()):
            op.attrs = {k: substitute(v, env) for k, v in op.attrs.items()}
        for r in op.results:
            if not r.type.is_static:
                r.type = substitute(r.type, env)
        for inner in op.regions:
            inner.results = tuple(env.get(v, v) for v in inner.results)
            for a in inner.args:
                a.type = substitute(a.type, env)
    block.results = tuple(env.get(v, v) for v in block.results)
