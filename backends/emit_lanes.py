"""Loops around recurrences of numbers, several rounds at a time.

    for i in n:                                        for i in 0, 16, ...:
        t = f(i); p = 1.0                                  t0 = f(i); p0 = 1.0; ... t15 = f(i + 15); p15 = 1.0
        for j in m: s += x[j] * p; p *= t      ->          for j in m: s0 += x[j] * p0; p0 *= t0; ... p15 *= t15
        total += s * s                                     total += s0 * s0; ... total += s15 * s15

A round of the inner loop waits for the one before, so that alone it would leave most of the processor idle. Side by
side, what the rounds of the outer loop do is the same on different numbers. The inner loop carries them as vectors, so
that LLVM makes vectors of all that is between.

What does not depend on the carried values of the outer loop goes side by side, if it is arithmetic, elements of arrays
that the loop does not change, and loops of these that run equally often. The rest comes behind, round by round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llvmlite import ir

from dflow.backends.emit_core import Emitter, cost
from dflow.backends.emit_types import I32, ZERO, index
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.passes.rewrite import constant_of, has_effect
from dflow.ir.registry import definition
from dflow.ir.types import HALVES, DType

MANY, SOME = 16, 8  # rounds side by side, so that the numbers that they carry have room in registers:
FEW_CARRIED, MOST_CARRIED = 2, 6
MOST_OPERATIONS = 64

WIDTH = 8  # of the vectors that loops carry

Env = dict[Value, ir.Value]


@dataclass(frozen=True)
class Lanes:
    """``count`` rounds go side by side. ``ahead`` does, ``behind`` comes round by round."""

    count: int
    ahead: list[Op]
    behind: list[Op]


def lanes(e: Emitter, loop: Op) -> Lanes | None:
    """How rounds of ``loop`` go side by side, if they do."""
    (body,) = loop.regions
    if not e.vectorizes or not any(o.name == "for" for o in body.ops) or any(v.type.grows for v in free_values(body)):
        return None
    rows = _Rounds(body)
    every = [o for a in rows.ahead for o in _all(a)]
    loops = [o for o in every if o.name == "for"]
    carried = sum(len(o.operands) - 1 for o in loops)
    trips = constant_of(loop.operands[0])
    count = MANY if carried <= FEW_CARRIED else SOME
    few = isinstance(trips, int) and trips < 2 * count
    if few or carried > MOST_CARRIED or cost(every) > MOST_OPERATIONS:
        return None
    return Lanes(count, rows.ahead, rows.behind) if any(_is_recurrence(o) for o in loops) else None


class _Rounds:
    """The operations of a loop's body: those that go side by side, and those that come behind."""

    def __init__(self, body: Block):
        self.ahead: list[Op] = []
        self.behind: list[Op] = []
        late, varying, checked = set(body.args[1:]), {body.args[0]}, False
        for op in body.ops:
            checked = checked or any(map(has_effect, _all(op)))
            needs = {*op.operands, *free_values(*op.regions)}
            if checked or not late.isdisjoint(needs) or not _is_plain(op, varying):
                late.update(op.results)
                self.behind.append(op)
            else:
                self.ahead.append(op)


def _all(op: Op) -> Iterator[Op]:
    """An operation and those in its regions."""
    yield op
    for r in op.regions:
        yield from walk(r)


def _is_plain(op: Op, varying: set[Value]) -> bool:
    """Whether rounds can go side by side in ``op``. ``varying``, which grows, is what differs between them."""
    if any(r.type.rank or not _fits_vectors(r.type.dtype) for r in op.results):
        return False
    if op.name == "for":
        (body,) = op.regions
        if op.operands[0] in varying:
            return False
        varying.update(body.args[1:])
        varying.update(op.results)
        return all(_is_plain(o, varying) for o in body.ops)
    if op.regions or not (op.name in ("constant", "extract") or definition(op).elementwise):
        return False
    if not varying.isdisjoint(op.operands):
        varying.update(op.results)
    return True


def _fits_vectors(dtype: DType) -> bool:
    return dtype.kind != "c" and dtype not in HALVES


def _is_recurrence(loop: Op) -> bool:
    """Whether an innermost loop carries more than sums, of which LLVM makes vectors by itself."""
    from dflow.backends.emit_control import sums

    (body,) = loop.regions
    return not any(o.regions for o in body.ops) and len(sums(body, body.args[1:])) < len(body.args) - 1


def in_lanes(
    e: Emitter, loop: Op, found: Lanes, total: ir.Value, inits: Sequence[ir.Value], begin: ir.Value
) -> list[ir.Value]:
    """Writes ``total`` rounds of ``loop`` from the one with the number ``begin`` on; the last values of its carried
    numbers."""
    (body,) = loop.regions
    b, k = e.builder, body.args[0]
    carried = [a for a in body.args[1:] if a.type.is_scalar]
    yields = [r for r in body.results if r.type.is_scalar]
    count = b.select(b.icmp_signed(">", total, ZERO), total, ZERO)
    whole = b.and_(count, index(-found.count))

    def several(i: ir.Value, *values: ir.Value) -> Sequence[ir.Value]:
        first = e.add(begin, i)
        rounds: list[Env] = [{k: e.add(first, index(w))} for w in range(found.count)]
        _side_by_side(e, found.ahead, rounds)
        for own in rounds:
            e.env.update(own)
            values = behind(values)
        return values

    def behind(values: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
        e.env.update(zip(carried, values))
        _write(e, found.behind)
        return tuple(e.env[v] for v in yields)

    def one(i: ir.Value, *values: ir.Value) -> Sequence[ir.Value]:
        e.env[k] = e.add(begin, e.add(whole, i))
        _write(e, found.ahead)
        return behind(values)

    middle = e.loop(whole, inits, several, step=found.count)
    return e.loop(b.sub(count, whole), middle, one)


def _write(e: Emitter, ops: Sequence[Op]) -> None:
    for op in ops:
        with e.memory.near(op):
            e.op(op)


def _side_by_side(e: Emitter, ops: Sequence[Op], rounds: list[Env]) -> None:
    for op in ops:
        if op.name == "for":
            _loop(e, op, rounds)
            continue
        for own in rounds:
            e.env.update(own)
            e.op(op)
            own.update((r, e.env[r]) for r in op.results)


def _loop(e: Emitter, op: Op, rounds: list[Env]) -> None:
    (body,) = op.regions
    k, *carried = body.args

    def spread(values: Sequence[Value], given: Sequence[ir.Value]) -> None:
        each = iter(given)
        for v in values:
            for start in range(0, len(rounds), WIDTH):
                vector = next(each)
                for w in range(WIDTH):
                    rounds[start + w][v] = e.builder.extract_element(vector, I32(w))

    def gathered(values: Sequence[Value]) -> list[ir.Value]:
        return [joined(v, rounds[start : start + WIDTH]) for v in values for start in range(0, len(rounds), WIDTH)]

    def joined(v: Value, some: Sequence[Env]) -> ir.Value:
        found = [own.get(v) or e.env[v] for own in some]
        vector = ir.Constant(ir.VectorType(found[0].type, WIDTH), ir.Undefined)
        for w, x in enumerate(found):
            vector = e.builder.insert_element(vector, x, I32(w))
        return vector

    def run(i: ir.Value, *given: ir.Value) -> Sequence[ir.Value]:
        e.env[k] = i
        spread(carried, given)
        _side_by_side(e, body.ops, rounds)
        return gathered(body.results)

    e.env.update(rounds[0])
    spread(op.results, e.loop(e.env[op.operands[0]], gathered(op.operands[1:]), run))
