"""Accumulation: ``Function -> Function`` with what a loop adds to one element summed up beside the tensor.

    %y = for %n, %x { (%k, %u) ->                     %s = for %n, -0.0 { (%k, %t) ->
        ...                                 ->            ...
        yield update_add %u, %v, %i }                     yield add %t, %v }
                                                      %y = update_add %x, %s, %i

The tensor must only be added to in the loop, or read elsewhere, so that no sum can be seen meanwhile; to how many
places it is added does not matter.
A number is carried in a register, and what is added to other places of the tensor is certainly elsewhere, which is what
lets the loop be vectorized. Derivatives are full of this: what every round of a loop reads (``x[i]`` in a loop over
``j``) has a cotangent that every round adds to. The sum starts at -0.0, to which adding changes no number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, walk
from dflow.ir.passes.intervals import Known
from dflow.ir.passes.positions import apart, note_count, spans
from dflow.ir.passes.rewrite import Env, constant_of, has_effect, rebuild_loops, rename

MOST = 16  # sums of one loop: registers are few


def accumulate(f: Function) -> Function:
    if not any(op.name == "for" and _sums(op.operands[0], op.regions[0]) for op in walk(f.body)):
        return f
    return rebuild_loops(f, _hoist)


@dataclass
class _Sum:
    """Additions to one element of the carried tensor at ``position``."""

    position: int
    starts: tuple[Value, ...]
    ops: list[Op]


def _hoist(b: Builder, loop: Op, body: Block, env: Env) -> bool:
    """Appends ``loop`` around ``body`` (which is new, and changed here) with its sums beside it, if it has any."""
    count, *inits = rename(loop.operands, env)
    sums = _sums(count, body)
    trips = constant_of(count)
    if not sums or len(sums) > MOST or (trips is not None and trips <= 0):
        return False
    new = _summing(body, sums)
    starts = [b.constant(nothing(x), x.type.dtype) for s in sums for x in s.ops[0].operands[1:2]]
    results = b.append("for", [count, *inits, *starts], regions=[new], hints=[r.hint for r in loop.results])
    env.update(zip(loop.results, results))
    for s, total in zip(sums, results[len(inits) :]):
        old, x = loop.results[s.position], env[loop.results[s.position]]
        where = s.starts if trips else _inside(b, count, s.starts, x.type.static_shape)
        env[old] = b.update_add(x, total, *where, index=s.ops[0].attrs["index"])
        env[old].hint = old.hint
    return True


def nothing(v: Value) -> complex | float | int:
    """What a sum of such numbers starts at, so that adding to it changes nothing."""
    dtype = v.type.dtype
    return complex(-0.0, -0.0) if dtype.kind == "c" else -0.0 if dtype.is_float else 0


def _inside(b: Builder, count: Value, starts: tuple[Value, ...], shape: Sequence[int]) -> list[Value]:
    """The place, or the first element where the loop does not run and the place may not exist."""
    runs = b.gt(count, b.index(0))
    first = b.index(0)
    known = [(c := constant_of(s)) is not None and 0 <= c < n for s, n in zip(starts, shape)]
    return [s if exists else b.select(runs, s, first) for s, exists in zip(starts, known)]


def _summing(body: Block, sums: list[_Sum]) -> Block:
    """The body with its additions to ``sums`` made to further carried numbers."""
    moved = {op for s in sums for op in s.ops}
    alias: dict[Value, Value] = {}
    kept = []
    for op in body.ops:
        if op in moved:
            alias[op.result] = alias.get(op.operands[0], op.operands[0])
            continue
        if any(v in alias for v in op.operands):
            op.operands = tuple(rename(op.operands, alias))
        kept.append(op)
    b = Builder()
    b.ops = kept
    totals, yields = [], []
    for s in sums:
        b.loc = s.ops[0].loc
        values = [op.operands[1] for op in s.ops]
        total = Value(values[0].type)
        added = values[0]
        for v in values[1:]:
            added = b.add(added, v)
        totals.append(total)
        yields.append(b.add(total, added))
    b.args = (*body.args, *totals)
    return b.finish([*rename(body.results, alias), *yields])


def _sums(count: Value, body: Block) -> list[_Sum]:
    """What ``count`` iterations of the body add up at places that are the same in all of them."""
    if not any(op.name == "update_add" for op in body.ops) or any(map(has_effect, walk(body))):
        return []  # an argument may be updated in place, and after an error holds what was added so far
    inside = {*body.args, *(r for op in body.ops for r in op.results)}
    uses: Counter[Value] | None = None
    found: dict[tuple[int, tuple[Value, ...]], _Sum] = {}
    for i, (arg, result) in enumerate(zip(body.args[1:], body.results)):
        if result is arg or not _has_places(arg):
            continue
        uses = uses or count_uses(body)
        reads = [op for op in body.ops if op.name == "extract"]
        ops = additions(arg, result, uses, Counter(op.operands[0] for op in reads)) or ()
        states = {arg, *(r for op in ops for r in op.results)}
        reads = [op for op in reads if op.operands[0] in states]
        for op in ops:
            starts = op.operands[2:]
            fixed = op.name == "update_add" and not op.operands[1].type.shape and inside.isdisjoint(starts)
            if fixed and all(_elsewhere(read, op, count, body.args[0], inside) for read in reads):
                found.setdefault((i, starts), _Sum(i, starts, [])).ops.insert(0, op)
    return list(found.values())


def _elsewhere(read: Op, op: Op, count: Value, k: Value, inside: set[Value]) -> bool:
    """Whether no iteration reads what ``op`` adds to."""

    def base(v: Value) -> Value | None:
        return v if v is k or v not in inside else None

    known = Known()
    note_count(known, k, count, base)
    return apart(known, spans(read, base), spans(op, base))


def _has_places(x: Value) -> bool:
    return bool(x.type.shape) and not x.type.grows and all(isinstance(d, int) and d > 0 for d in x.type.shape)


def additions(
    arg: Value, result: Value, uses: Counter[Value], reads: Mapping[Value, int] = MappingProxyType({})
) -> list[Op] | None:
    """The operations between a carried tensor and its next value, the last first, when all they do is to add to it.
    ``reads``: how many of the uses may be something else."""
    ops, v = [], result
    while v is not arg:
        op = v.op
        if op is None or uses[v] != 1 + reads.get(v, 0):
            return None
        if op.name == "update_add":
            v_before = op.operands[0]
        elif op.name == "for":
            i, (inner,) = op.results.index(v), op.regions
            if additions(inner.args[i + 1], inner.results[i], uses) is None:
                return None
            v_before = op.operands[i + 1]
        else:
            return None
        ops.append(op)
        v = v_before
    return ops if uses[arg] == 1 + reads.get(arg, 0) else None


def count_uses(body: Block) -> Counter[Value]:
    """How often values are used, in the body and in the regions inside."""
    uses = Counter(body.results)
    for op in walk(body):
        uses.update(op.operands)
        for region in op.regions:
            uses.update(region.results)
    return uses
