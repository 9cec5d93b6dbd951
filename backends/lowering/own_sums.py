"""Numbers that inner loops add up for the loop around, where rounds of that go side by side then.

    for i in n, total:                                    for i in n, total:
        for j in m, total: total += f(i, j)       ->          for j in m, s = -0.0: s += f(i, j)
                                                              total += s

A sum that goes through the inner loops makes each round wait for the one before. With sums of their own, rounds go side
by side (`side_by_side.py`). Gradients of many runs by what they share have such sums, which branches pass on, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from dflow.backends.analysis.rounds import SUMMED
from dflow.backends.analysis.side_by_side import Lanes, found_lanes
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, free_values
from dflow.ir.passes.accumulate import nothing
from dflow.ir.passes.rewrite import Env, append_copy, has, rebuild_loops, rename
from dflow.ir.passes.sums import Sum


def own_sums(f: Function) -> Function:
    """``f`` with such sums."""
    return rebuild_loops(f, _write) if has(f, "for") else f


def _write(b: Builder, loop: Op, body: Block, env: Env) -> bool:
    """Appends ``loop`` around ``body`` with sums of its own for each inner loop, if rounds go side by side then."""
    if not any(op.name == "for" for top in body.ops for op in (top, *(o for r in top.regions for o in r.ops))):
        return False
    sums = _sums(body)
    if not sums or _is_whole(found_lanes(loop, body)):
        return False
    made = _with_own(body, sums)
    if not _is_whole(found_lanes(loop, made)):
        return False
    append_copy(b, loop, env, [made])
    return True


def _is_whole(found: Lanes | None) -> bool:
    """Whether no loop is left behind."""
    return found is not None and not any(op.regions for op in found.behind)


def _sums(body: Block) -> list[set[Value]]:
    """What is only added to, each with all that it is on the way."""
    found = []
    for a, r in zip(body.args[1:], body.results):
        if a.type.is_scalar and a.type.dtype.name in SUMMED and a is not r:
            sum_ = Sum(a)
            if sum_.reaches(body, r):
                found.append(sum_.reached)
    return found


def _with_own(body: Block, sums: Sequence[set[Value]]) -> Block:
    b = Builder()
    b.args = body.args
    env: Env = {}
    for op in body.ops:
        b.loc = op.loc
        before = {n: v for reached in sums for n, v in _before(op, reached).items()}
        old = {v: env.get(v, v) for v in before.values()}
        env.update((v, b.constant(nothing(v), v.type.dtype)) for v in old)
        made = b.clone(op, env)
        env.update(old)
        env.update((op.results[n], b.add(old[v], made[n])) for n, v in before.items())
    return b.finish(rename(body.results, env))


def _before(op: Op, reached: set[Value]) -> dict[int, Value]:
    """The results of a loop or a branch that are a sum, each with what they are added to."""
    sums = [n for n, r in enumerate(op.results) if r in reached]
    if op.name == "for":
        return {n: op.operands[n + 1] for n in sums}
    if op.name != "if":
        return {}
    found = [v for v in free_values(*op.regions) if v in reached]
    return dict.fromkeys(sums, found[0]) if len(found) == 1 else {}
