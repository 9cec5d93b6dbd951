"""Expanding ``custom`` operations: ``Function -> Function`` with their regions in their place.

    %y = custom %x {rule = @swish, linear = 0} { (%u) -> ... }        ->        ...

Derivatives have been taken by then, so the rules are of no further use. What a checkpoint computes again must not
become one with what was computed before, so its operations (``Rule.recomputes``) stay while the program is optimized,
and are expanded after that.
"""

from __future__ import annotations

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, walk
from dflow.ir.passes.rewrite import Env, append_copy, has, rebuild, rebuild_region, rename
from dflow.ir.registry import NoDerivativeError


def expand(f: Function) -> Function:
    """Without those of which nothing must stay apart."""
    return _expanded(f, late=False)


def expand_late(f: Function) -> Function:
    """Without any. Raises NoDerivativeError where a tangent is needed of which only the transpose is known."""
    for op in walk(f.body):
        if op.name == "reverse_only":
            raise NoDerivativeError(
                f"{op.attrs['rule'].name} has a rule for reverse mode alone, and forward mode is asked for",
                op.loc,
            )
    return _expanded(f, late=True)


def reverse_only(f: Function) -> bool:
    """Whether there are tangents in it of which only the transpose is known."""
    return any(op.name == "reverse_only" for op in walk(f.body))


def has_late(f: Function) -> bool:
    """Whether ``expand_late`` has anything to do."""
    return any(op.name in ("custom", "reverse_only") for op in walk(f.body))


def _expanded(f: Function, late: bool) -> Function:
    def fill(b: Builder, block: Block, env: Env) -> None:
        for op in block.ops:
            if op.name == "custom" and (late or not op.attrs["rule"].recomputes):
                region = op.regions[0]
                env.update(zip(region.args, rename(op.operands, env)))
                fill(b, region, env)
                for r, v in zip(op.results, rename(region.results, env)):
                    env[r] = v
                    v.hint = v.hint or r.hint
            else:
                append_copy(b, op, env, [rebuild_region(r, env, fill) for r in op.regions])

    return rebuild(f, fill) if has(f, "custom") else f
