"""Loops of numbers that wait for each other, and of functions of them that are added up, in batches of eight rounds.

    for k in n:                                       for k in 0, 8, ...:
        s = a + b * r[k] * r[k] + c * s                   for w in 8: s = s_w = a + b * r[k + w] * r[k + w] + c * s
        total += log(s)                       ->          total += sum of log(s_w)

LLVM makes vectors of a loop as a whole or not at all. Of these it does not, so that each logarithm would be computed
alone. It does so of the second loop of a batch. The first may do anything: have an inner loop that adds up, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from dflow.backends.analysis.loop_sums import reassociate
from dflow.backends.analysis.waves import WITH_LOOPS
from dflow.backends.emit.core import MATH_COST, Emitter, cost
from dflow.backends.emit.loop_hints import vector_loop
from dflow.backends.emit.types import ZERO, index, storage_type
from dflow.backends.lowering.plan import Buffer
from dflow.backends.mathlib import MATH_FUNCTIONS
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.linear_forms import terms
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.registry import definition
from dflow.ir.types import HALVES

ROUNDS = 8
MOST_KEPT = 8  # numbers of a round between the two loops


@dataclass(frozen=True)
class Batches:
    """``first`` is computed round by round, ``then`` for all rounds of a batch, which wants ``kept`` of the former and
    adds up ``totals``."""

    first: list[Op]
    then: list[Op]
    kept: list[Value]
    totals: list[Value]


def batches(e: Emitter, loop: Op, totals: Sequence[Value]) -> Batches | None:
    """How the rounds of a loop that adds up ``totals`` are computed in batches, if they are."""
    (body,), trips = loop.regions, constant_of(loop.operands[0])
    if not e.vectorizes or (trips or ROUNDS) < ROUNDS or not any(o.name in MATH_FUNCTIONS for o in body.ops):
        return None
    tapes = _tapes(body)
    first, then = _parted(body, {*totals, *tapes})
    if not any(o.name in MATH_FUNCTIONS for o in then) or cost(o for f in first for o in (f, *_inside(f))) >= MATH_COST:
        return None
    states = [a for a, r in zip(body.args[1:], body.results) if a.type.is_scalar and r not in totals and a is not r]
    waits = any(o.regions for o in first) or any(_is_late(a, first) for a in states)
    if not waits or not all(map(_is_plain, then)) or any(v.type.grows for v in (*body.args, *free_values(body))):
        return None
    if _meet(e, tapes, [o for f in first for o in (f, *_inside(f))], then):
        return None
    known = {a for a, r in zip(body.args[1:], body.results) if r not in totals} | {r for o in first for r in o.results}
    kept = list(dict.fromkeys(v for o in then for v in o.operands if v in known and v.type.is_scalar))
    return Batches(first, then, kept, list(totals)) if len(kept) <= MOST_KEPT else None


def _inside(op: Op) -> list[Op]:
    return [o for r in op.regions for o in walk(r)]


def _tapes(body: Block) -> set[Value]:
    """Arrays that go round, of which each round writes an element of its own, and nothing else is done with them."""
    uses, inside = count_uses(body), {*body.args, *(r for o in body.ops for r in o.results)}
    found = set()
    for a, r in zip(body.args[1:], body.results):
        op = r.op
        if op is None or op.name != "update" or op.operands[0] is not a or not uses[a] == uses[r] == 1:
            continue
        places = [terms(v) for v in op.operands[2:]]
        if all(i == "at" for i in op.attrs["index"]) and not r.type.grows:
            own = any(p.get(body.args[0]) and inside & p.keys() == {body.args[0]} for p in places)
            found.update([r] if own else [])
    return found


def _parted(body: Block, ends: Collection[Value]) -> tuple[list[Op], list[Op]]:
    """The operations that rounds, or memory, wait for, and those that are for ``ends`` alone."""
    wanted = {r for r in body.results if r not in ends}
    first: list[Op] = []
    for op in reversed(body.ops):
        writes = any(r.type.rank and r not in ends for r in op.results) or not op.results
        if op.regions or writes or not wanted.isdisjoint(op.results):
            wanted.update(op.operands, free_values(*op.regions))
            first.insert(0, op)
    kept = set(first)
    return first, [op for op in body.ops if op not in kept]


def _meet(e: Emitter, tapes: Collection[Value], first: Sequence[Op], then: Sequence[Op]) -> bool:
    """Whether one of the two loops touches what the other writes."""

    def buffers(values: Iterable[Value]) -> set[Buffer]:
        return {e.plan.buffers[v] for v in values if v in e.plan.buffers}

    if any(b.space == "argument" for b in buffers(tapes)):
        return True  # which shows how far the loop came, should it fail
    changed = buffers(r for o in first for r in o.results)
    taped = buffers(tapes)
    used = buffers(v for o in first for v in (*o.operands, *o.results) if v not in tapes)
    read = buffers(o.operands[0] for o in then if o.name == "extract")
    return not (
        changed.isdisjoint(read) and taped.isdisjoint(read) and taped.isdisjoint(used) and len(taped) == len(tapes)
    )


def _is_late(a: Value, ops: Sequence[Op]) -> bool:
    """Whether a number that goes round is more than counted."""
    return a.type.dtype.is_float and any(a in o.operands for o in ops)


def _is_plain(op: Op) -> bool:
    """Whether there are vectors of an operation."""
    dtypes = [v.type.dtype for v in (*op.operands, *op.results)]
    if any(d.kind == "c" or d in HALVES for d in dtypes) or (op.name in WITH_LOOPS and dtypes[0].is_float):
        return False
    if op.name in ("extract", "update"):
        return all(entry == "at" for entry in op.attrs["index"])
    return op.name == "constant" or (definition(op).elementwise and all(r.type.is_scalar for r in op.results))


def in_batches(
    e: Emitter, loop: Op, found: Batches, count: ir.Value, inits: Sequence[ir.Value], begin: ir.Value
) -> list[ir.Value]:
    """Writes ``count`` rounds of ``loop`` from the one with the number ``begin`` on; the last values of its numbers."""
    (body,) = loop.regions
    b, k = e.builder, body.args[0]
    numbers = [(a, r) for a, r in zip(body.args[1:], body.results) if a.type.is_scalar]
    states = [n for n, (_, r) in enumerate(numbers) if r not in found.totals]
    totals = [n for n, (_, r) in enumerate(numbers) if r in found.totals]
    slots = {v: e.slot(ir.ArrayType(storage_type(v.type.dtype), ROUNDS)) for v in found.kept}

    def slot(v: Value, w: ir.Value) -> ir.Value:
        return e.builder.gep(slots[v], [w], source_etype=storage_type(v.type.dtype))

    def part(which: Sequence[int], ops: Sequence[Op], values: Sequence[ir.Value]) -> list[ir.Value]:
        e.env.update((numbers[n][0], v) for n, v in zip(which, values))
        for op in ops:
            with e.memory.near(op):
                e.op(op)
        return [e.env[numbers[n][1]] for n in which]

    def batch(i: ir.Value, *values: ir.Value) -> Sequence[ir.Value]:
        place = e.add(begin, i)

        def first(w: ir.Value, *given: ir.Value) -> Sequence[ir.Value]:
            e.env[k] = e.add(place, w)
            yields = part(states, found.first, given)
            for v in found.kept:
                e.store_at(v, slot(v, w), e.env[v])
            return yields

        def then(w: ir.Value, *given: ir.Value) -> Sequence[ir.Value]:
            e.env[k] = e.add(place, w)
            e.env.update((v, e.load_at(v, slot(v, w))) for v in found.kept)
            yields = part(totals, found.then, given)
            for v in yields:
                reassociate(v)
            return yields

        after = e.loop(index(ROUNDS), [values[n] for n in states], first)
        sums = vector_loop(e, ROUNDS, [values[n] for n in totals], then)
        made = {**dict(zip(states, after)), **dict(zip(totals, sums))}
        return [made[n] for n in range(len(numbers))]

    def one(i: ir.Value, *values: ir.Value) -> Sequence[ir.Value]:
        e.env[k] = e.add(begin, e.add(whole, i))
        return part(range(len(numbers)), body.ops, values)

    some = b.select(b.icmp_signed(">", count, ZERO), count, ZERO)
    whole = b.and_(some, index(-ROUNDS))
    return e.loop(b.sub(some, whole), e.loop(whole, inits, batch, step=ROUNDS), one)
