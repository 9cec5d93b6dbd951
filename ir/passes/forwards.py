"""Forward loops: ``Function -> Function`` with loops that walk through memory backwards walking forwards.

    for %n, %u { (%j, %x) ->                      for %n, %u { (%k, %x) ->
        %i = sub %last, %j                  ->        yield update_add %x, (extract %v, %k), %k }
        yield update_add %x, (extract %v, %i), %i }

Reverse mode runs loops backwards. Where no iteration depends on another, the direction is free, and forwards is better:
vectors need not be turned around. Iterations are independent when what they carry is only added to, or is a tensor of
which each touches elements of its own. A sum is added in another order, as sums may be.
"""

from __future__ import annotations

from collections import Counter

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, walk
from dflow.ir.passes.accumulate import additions, count_uses
from dflow.ir.passes.linear_forms import Terms, emit, plus, terms
from dflow.ir.passes.rewrite import LOOPS, Env, append_copy, has_effect, rebuild, rebuild_region, rename
from dflow.ir.passes.structure import entries

ACCESSES = frozenset({"extract", "update", "update_add"})
LONGEST = 200  # operations of a body


def forwards(f: Function) -> Function:
    return rebuild(f, _fill) if any(_turns(op) for op in walk(f.body)) else f


def _fill(b: Builder, block: Block, env: Env) -> None:
    for op in block.ops:
        b.loc = op.loc
        regions = [rebuild_region(r, env, _fill) for r in op.regions]
        if _turns(op):
            regions = [_turned(b, regions[0], env.get(op.operands[0], op.operands[0]))]
        append_copy(b, op, env, regions)


def _turns(op: Op) -> bool:
    return op.name == "for" and _walks_back(op.regions[0]) and _independent(op.regions[0])


def _turned(b: Builder, body: Block, count: Value) -> Block:
    """The body with the last iteration first. Positions that fell by one rise by one."""
    env: dict[Value, Value] = {}
    last = plus(terms(count), {None: -1})
    inner = Builder.like(body.args, env, loc=b.loc)
    k, index = body.args[0], inner.args[0]
    env[k] = inner.sub(emit(b, last) or b.index(0), index)
    inside = {*body.args, *(r for op in body.ops for r in op.results)}
    for op in body.ops:
        falls = terms(op.result) if op.name in ("add", "sub") else {}
        if falls.pop(k, 0) == -1 and inside.isdisjoint(falls):
            first = emit(b, plus(falls, last, -1))
            env[op.result] = index if first is None else inner.add(first, index)
        else:
            inner.loc = op.loc
            inner.clone(op, env)
    return inner.finish(rename(body.results, env))


def _walks_back(body: Block) -> bool:
    """Whether more accesses to single elements go down than up."""
    balance = 0
    for op in body.ops:
        if op.name in ACCESSES and all(e == "at" for e in op.attrs["index"]):
            steps = [t[body.args[0]] for t in _place(op) if body.args[0] in t]
            balance += (steps[-1] > 0) - (steps[-1] < 0) if steps else 0
    return balance < 0


def _place(op: Op) -> list[Terms]:
    """The positions of an access, by axis; nothing for slices."""
    starts = op.operands[1 if op.name == "extract" else 2 :]
    pairs = entries(op.attrs["index"], starts)
    return [terms(s) if e == "at" and s is not None else {} for e, s in pairs]


def _independent(body: Block) -> bool:
    """Whether the iterations may run in any order."""
    if len(body.ops) > LONGEST or any(has_effect(op) or op.name in LOOPS for op in walk(body)):
        return False
    uses = count_uses(body)
    inside = {*body.args[1:], *(r for op in body.ops for r in op.results)}
    return all(
        result is arg or _free(body, arg, result, uses, inside) for arg, result in zip(body.args[1:], body.results)
    )


def _free(body: Block, arg: Value, result: Value, uses: Counter[Value], inside: set[Value]) -> bool:
    """Whether a carried value ends up the same in any order of the iterations."""
    if not arg.type.shape:
        return _is_sum(arg, result, uses)
    if arg.type.grows:
        return False
    return additions(arg, result, uses) is not None or _own_elements(body, arg, result, uses, inside)


def _is_sum(arg: Value, result: Value, uses: Counter[Value]) -> bool:
    op = result.op
    if op is None or uses[arg] != 1 or uses[result] != 1 or op.name not in ("add", "sub"):
        return False
    return op.operands[0] is arg or (op.name == "add" and op.operands[1] is arg)


def _own_elements(body: Block, arg: Value, result: Value, uses: Counter[Value], inside: set[Value]) -> bool:
    """Whether every access to a carried tensor is at one position along some axis, another in each iteration."""
    versions, accesses, found = {arg}, [], Counter([result])
    for op in body.ops:
        if op.name in ACCESSES and op.operands[0] in versions:
            accesses.append(op)
            found[op.operands[0]] += 1
            if op.name != "extract":
                versions.add(op.result)
    if result not in versions or any(uses[v] != found[v] for v in versions):
        return False
    places = [_place(op) for op in accesses]
    moving = [axis for axis, t in enumerate(places[0]) if t.get(body.args[0]) and inside.isdisjoint(t)]
    return any(all(p[axis] == places[0][axis] for p in places) for axis in moving)
