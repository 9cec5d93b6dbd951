"""Counted loops: ``Function -> Function`` with every ``while`` that only counts turned into a ``for``.

    while %zero, %x { (%i, %u) -> lt %i, %n }          for (max %n, 0), %zero, %x { (%k, %i, %u) ->
        do { (%i, %u) ->                          ->       ...
            yield (add %i, 1), %v }                        yield (add %i, 1), %v }

The condition compares one carried integer, which starts at a constant and grows by one, with a constant or a value from
around the loop. The trip count is then known on entry, so the reverse pass needs no growing tape, and the counter
itself is a matter for ``induction``.
"""

from __future__ import annotations

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, has, open_block, rebuild, rename
from dflow.ir.types import I64, scalar


def counted(f: Function) -> Function:
    return rebuild(f, _fill) if has(f, "while") else f


def _fill(b: Builder, block: Block, env: Env) -> None:
    for op in block.ops:
        b.loc = op.loc
        count = _trips(b, op, env) if op.name == "while" else None
        if count is None:
            append_copy(b, op, env, [_region(r, env) for r in op.regions])
            continue
        results = b.append(
            "for", [count, *rename(op.operands, env)], regions=[_region(op.regions[1], env, counter=True)]
        )
        for old, new in zip(op.results, results):
            new.hint = old.hint
            env[old] = new


def _region(block: Block, env: Env, counter: bool = False) -> Block:
    index = [Value(scalar(I64), "k")] if counter else []
    b = open_block([*index, *block.args], env)
    _fill(b, block, env)
    return b.finish(rename(block.results, env))


def _trips(b: Builder, loop: Op, env: Env) -> Value | None:
    """How often the body runs, as a new value; None where that is not known on entry."""
    cond, body = loop.regions
    test = cond.results[0].op
    if test is None or any(op is not test and op.name != "constant" for op in cond.ops):
        return None
    if test.name in ("lt", "gt"):
        i, bound = test.operands if test.name == "lt" else test.operands[::-1]
        if i not in cond.args or i.type.dtype != I64:
            return None
        position = cond.args.index(i)
        start = constant_of(loop.operands[position])
        # From a start that is not negative, the distance to the bound does not overflow.
        if start is None or start < 0 or not _grows_by_one(body, position):
            return None
        limit = _around(b, bound, env)
        return None if limit is None else b.sub(b.max(limit, b.index(start)), b.index(start))
    return None


def _around(b: Builder, v: Value, env: Env) -> Value | None:
    """A value of the condition that the loop does not change, as one that stands before the loop."""
    c = constant_of(v)
    return b.index(c) if c is not None else env.get(v)


def _grows_by_one(body: Block, position: int) -> bool:
    op, arg = body.results[position].op, body.args[position]
    if op is None or op.name != "add":
        return False
    return any(x is arg and constant_of(y) == 1 for x, y in (op.operands, op.operands[::-1]))
