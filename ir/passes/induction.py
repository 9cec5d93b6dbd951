"""Induction: ``Function -> Function`` with counters of loops computed from the loop index, not carried.

    %s, %i = for %n, %x, %m { (%k, %u, %i) ->         %s = for %n, %x { (%k, %u) ->
        ...                                     ->        %i = add %m, (mul %k, %c)
        yield %v, (add %i, %c)                            ...
    }                                                     yield %v }

Integers wrap around, so this is exact. A counter that is not carried need not be kept for the reverse pass, and its
range follows from that of the index.
"""

from __future__ import annotations

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, has, open_block, rebuild, rebuild_region
from dflow.ir.types import I64


def induction(f: Function) -> Function:
    return rebuild(f, _fill) if has(f, "for") else f


def _fill(b: Builder, block: Block, env: Env) -> None:
    for op in block.ops:
        if op.name == "for":
            _for(b, op, env)
        else:
            append_copy(b, op, env, [rebuild_region(r, env, _fill) for r in op.regions])


def _for(b: Builder, op: Op, env: Env) -> None:
    (block,) = op.regions
    k, *args = block.args
    count, *inits = op.operands
    b.loc = op.loc
    steps = {i: s for i, a in enumerate(args) if (s := _step(b, block.results[i], a, env)) is not None}
    kept = [i for i in range(len(args)) if i not in steps]
    inner = open_block([k, *(args[i] for i in kept)], env)
    inner.loc = op.loc
    for i, step in steps.items():
        _count(inner, args[i], inits[i], step, inner.args[0], env)
    _fill(inner, block, env)
    body = inner.finish([env.get(block.results[i], block.results[i]) for i in kept])
    append_copy(b, op, env, [body], [count, *(inits[i] for i in kept)], [op.results[i] for i in kept])
    for i, step in steps.items():
        _count(b, op.results[i], inits[i], step, b.max(env.get(count, count), b.index(0)), env)


def _step(b: Builder, result: Value, arg: Value, env: Env) -> Value | None:
    """What ``arg`` grows by in each iteration, if that is a constant or comes from around the loop."""
    op = result.op
    if op is None or op.name != "add" or arg.type.shape or not arg.type.dtype.is_integer:
        return None
    for x, y in (op.operands, op.operands[::-1]):
        if x is arg:
            c = constant_of(y)
            return b.constant(c, y.type.dtype) if c is not None else env.get(y)
    return None


def _count(b: Builder, old: Value, init: Value, step: Value, k: Value, env: Env) -> None:
    """``old`` is ``init`` after ``k`` steps."""
    dtype = old.type.dtype
    times = k if dtype == I64 else b.convert(k, dtype=dtype)
    new = b.add(env.get(init, init), b.mul(times, step))
    new.hint = old.hint
    env[old] = new
