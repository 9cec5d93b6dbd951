"""Loops around recurrences of numbers, several rounds at a time.

    for i in n:                                        for i in 0, 16, ...:
        t = f(i); p = 1.0                                  t0 = f(i); p0 = 1.0; ... t15 = f(i + 15); p15 = 1.0
        for j in m: s += x[j] * p; p *= t      ->          for j in m: s0 += x[j] * p0; p0 *= t0; ... p15 *= t15
        total += s * s                                     total += s0 * s0; ... total += s15 * s15

A round of the inner loop waits for the one before, so that alone it would leave most of the processor idle. Side by
side, what the rounds of the outer loop do is the same on different numbers. The inner loop carries them as vectors, so
that LLVM makes vectors of all that is between.

What does not depend on the carried values of the outer loop goes side by side, if it is arithmetic, elements of arrays
that the loop does not change, and loops of these that run equally often. So do recurrences that add their numbers to
elements of an array (`y[j] += p`) which are only added to: those of all rounds are added up first. The rest comes
behind, round by round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llvmlite import ir

from dflow.backends.emit_core import Emitter, cost
from dflow.backends.emit_scalar import emit_scalar
from dflow.backends.emit_types import I32, ZERO, declare, index
from dflow.backends.loop_sums import sums
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.passes.accumulate import additions, count_uses
from dflow.ir.passes.rewrite import constant_of, has_effect
from dflow.ir.registry import definition
from dflow.ir.types import HALVES, DType

MANY, SOME = 16, 8  # rounds side by side, so that the numbers that they carry have room in registers:
FEW_CARRIED, MOST_CARRIED = 2, 6
MOST_OPERATIONS = 64

WIDTH = 8  # of vectors
SHORT = 16  # iterations of a loop that is written out
VECTORS = frozenset({"add", "sub", "mul", "div", "neg", "max", "min"})  # operations on vectors; LLVM makes the others


@dataclass(frozen=True)
class Lanes:
    """``count`` rounds go side by side. ``ahead`` does, ``behind`` comes round by round."""

    count: int
    ahead: list[Op]
    behind: list[Op]


def lanes(e: Emitter, loop: Op) -> Lanes | None:
    """How rounds of ``loop`` go side by side, if they do."""
    return found_lanes(loop, loop.regions[0]) if e.vectorizes else None


def found_lanes(loop: Op, body: Block) -> Lanes | None:
    """How rounds of ``loop`` go side by side, if they do, with ``body`` for its body."""
    if not any(o.name == "for" for o in body.ops) or any(v.type.grows for v in free_values(body)):
        return None
    rows = _Rounds(body)
    every = [o for a in rows.ahead for o in _all(a)]
    loops = [o for o in every if o.name == "for"]
    carried = max((_carried(a) for a in rows.ahead), default=0)
    trips = constant_of(loop.operands[0])
    count = MANY if carried <= FEW_CARRIED else SOME
    few = isinstance(trips, int) and trips < 2 * count
    if few or carried > MOST_CARRIED or cost(every) > MOST_OPERATIONS:
        return None
    if any(_is_recurrence(o) for o in loops):
        return Lanes(count, rows.ahead, rows.behind)
    return Lanes(SOME, rows.ahead, rows.behind) if any(_holds(o, body.args[0]) for o in rows.ahead) else None


def _carried(op: Op) -> int:
    """How many numbers the loops of ``op`` carry."""
    return sum(v.type.is_scalar for o in _all(op) if o.name == "for" for v in o.operands[1:])


class _Rounds:
    """The operations of a loop's body: those that go side by side, and those that come behind."""

    def __init__(self, body: Block):
        self.ahead: list[Op] = []
        self.behind: list[Op] = []
        uses = count_uses(body)
        shared: set[Value] = set()
        for a, r in zip(body.args[1:], body.results):
            if a.type.rank and (made := additions(a, r, uses)):
                shared |= _states(a, made)
        late, varying, checked = set(body.args[1:]) - shared, {body.args[0]}, False
        for op in body.ops:
            checked = checked or any(map(has_effect, _all(op)))
            needs = {*op.operands, *free_values(*op.regions)}
            if checked or not late.isdisjoint(needs) or not _is_plain(op, varying, shared):
                late.update(op.results)
                self.behind.append(op)
            else:
                self.ahead.append(op)


def _all(op: Op) -> Iterator[Op]:
    """An operation and those in its regions."""
    yield op
    for r in op.regions:
        yield from walk(r)


def _states(a: Value, made: Sequence[Op]) -> set[Value]:
    """The array ``a``, which is only added to, before and after each of the operations ``made``, and inside of them."""
    states = {a}
    for op in made:
        for r, v in zip(op.results, op.operands[1:] if op.name == "for" else op.operands):
            if op.name != "for":
                states.add(r)
            elif r.type.rank and r.type == a.type:
                n, (inner,) = op.results.index(r), op.regions
                chain = additions(inner.args[n + 1], inner.results[n], count_uses(inner))
                states |= {r, v} | _states(inner.args[n + 1], chain or ()) if chain else set()
    return states


def _is_share(op: Op, varying: set[Value]) -> bool:
    """Whether ``op`` adds a number of its own for each round to the same element."""
    return varying.isdisjoint(op.operands[2:]) and op.operands[1] in varying and op.operands[1].type.dtype.is_float


def _is_shared_recurrence(loop: Op, varying: set[Value]) -> bool:
    """Whether a loop adds what it computes from numbers that go round, and reads nothing else for each round."""
    (body,) = loop.regions
    reads = [v for o in body.ops if o.name == "extract" for v in o.operands[1:]]
    return any(a.type.is_scalar for a in body.args[1:]) and varying.isdisjoint(reads) and not _has_loops(body)


def _has_loops(body: Block) -> bool:
    return any(o.regions for o in body.ops)


def _is_plain(op: Op, varying: set[Value], shared: set[Value]) -> bool:
    """Whether rounds can go side by side in ``op``. ``varying``, which grows, is what differs between them; ``shared``
    are arrays that are only added to."""
    if any((r.type.rank and r not in shared) or not _fits_vectors(r.type.dtype) for r in op.results):
        return False
    if op.name == "update_add" and op.result in shared:
        return _is_share(op, varying)
    if op.name == "for" and any(r.type.rank for r in op.results) and not _is_shared_recurrence(op, varying):
        return False
    if op.name == "for":
        (body,) = op.regions
        if op.operands[0] in varying:
            return False
        varying.update(a for a in body.args[1:] if a.type.is_scalar)
        varying.update(r for r in op.results if r.type.is_scalar)
        return all(_is_plain(o, varying, shared) for o in body.ops)
    if op.regions or not (op.name in ("constant", "extract") or definition(op).elementwise):
        return False
    if not varying.isdisjoint(op.operands):
        varying.update(op.results)
    return True


def _fits_vectors(dtype: DType) -> bool:
    return dtype.kind != "c" and dtype not in HALVES


def _is_recurrence(loop: Op) -> bool:
    """Whether an innermost loop carries more than sums, of which LLVM makes vectors by itself."""
    (body,) = loop.regions
    return not any(o.regions for o in body.ops) and len(sums(body, body.args[1:])) < len(body.args) - 1


def _is_unrolled(loop: Op) -> bool:
    """Whether a loop is written out."""
    trips = constant_of(loop.operands[0])
    return isinstance(trips, int) and trips <= SHORT and not any(o.regions for o in loop.regions[0].ops)


def _holds(loop: Op, round_: Value) -> bool:
    """Whether a loop goes again and again over a few numbers, which registers can hold: it is around a short sum, and
    what that reads for each round does not change with the loop."""
    short = [o for o in loop.regions[0].ops if o.name == "for"] if loop.name == "for" else []
    if not short or not all(map(_is_unrolled, short)):
        return False
    held = 0
    for inner in short:
        own = inner.regions[0].args[0]
        changing = {a for a in (*loop.regions[0].args, *inner.regions[0].args) if a is not own}
        for o in inner.regions[0].ops:
            if o.name == "extract" and round_ in o.operands:
                held += constant_of(inner.operands[0])
                if not changing.isdisjoint(o.operands) or not {own, round_}.issuperset(o.operands[1:]):
                    return False
            elif round_ in o.operands:
                return False
    return 0 < held <= SHORT


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
        rounds = _SideBySide(e, found.count)
        rounds.set(k, [e.add(first, index(w)) for w in range(found.count)])
        rounds.write(found.ahead)
        known = [k, *(r for op in found.ahead for r in op.results)]
        for w in range(found.count):
            e.env.update((v, rounds.number(v, w)) for v in known if rounds.differs(v))
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


class _SideBySide:
    """Writes operations for several rounds. What differs between them is in ``numbers``, one for each round, or in
    ``vectors``; the rest is in the emitter's environment."""

    def __init__(self, e: Emitter, count: int):
        self.e, self.count = e, count
        self.numbers: dict[Value, list[ir.Value]] = {}
        self.vectors: dict[Value, list[ir.Value]] = {}

    def set(self, v: Value, numbers: list[ir.Value]) -> None:
        self.forget(v)
        self.numbers[v] = numbers

    def set_vectors(self, v: Value, vectors: list[ir.Value]) -> None:
        self.forget(v)
        self.vectors[v] = vectors

    def forget(self, v: Value) -> None:
        self.numbers.pop(v, None)
        self.vectors.pop(v, None)

    def differs(self, v: Value) -> bool:
        return v in self.numbers or v in self.vectors

    def number(self, v: Value, w: int) -> ir.Value:
        if v in self.vectors:
            return self.e.builder.extract_element(self.vectors[v][w // WIDTH], I32(w % WIDTH))
        return self.numbers[v][w]

    def joined(self, v: Value) -> list[ir.Value]:
        """The vectors with the numbers of all rounds."""
        if v in self.vectors:
            return self.vectors[v]
        b, each = self.e.builder, self.numbers.get(v) or [self.e.env[v]] * self.count
        found = []
        for start in range(0, self.count, WIDTH):
            vector = ir.Constant(ir.VectorType(each[0].type, WIDTH), ir.Undefined)
            for w, x in enumerate(each[start : start + WIDTH]):
                vector = b.insert_element(vector, x, I32(w))
            found.append(vector)
        return found

    def write(self, ops: Sequence[Op]) -> None:
        for op in ops:
            if op.name == "for":
                self.loop(op)
            elif op.name == "update_add":
                self.share(op)
            elif not any(map(self.differs, op.operands)):
                self.e.op(op)
                self.forget(op.result)
            elif op.name in VECTORS and op.result.type.dtype.is_float:
                self.set_vectors(op.result, self.of_vectors(op))
            else:
                self.set(op.result, [self.of_round(op, w) for w in range(self.count)])

    def of_vectors(self, op: Op) -> list[ir.Value]:
        dtypes = [v.type.dtype for v in op.operands]
        groups = zip(*map(self.joined, op.operands))
        return [emit_scalar(self.e.builder, op.name, op.attrs, dtypes, group) for group in groups]

    def of_round(self, op: Op, w: int) -> ir.Value:
        self.e.env.update((v, self.number(v, w)) for v in op.operands if self.differs(v))
        self.e.op(op)
        return self.e.env[op.result]

    def share(self, op: Op) -> None:
        """Adds the numbers of all rounds to one element."""
        b, total, *others = self.e.builder, *self.joined(op.operands[1])
        for v in others:
            total = b.fadd(total, v, flags=("reassoc",))
        element = total.type.element
        name = f"llvm.vector.reduce.fadd.v{WIDTH}f{op.operands[1].type.dtype.bits}"
        kind = ir.FunctionType(element, [element, total.type])
        function = declare(self.e.module, name, kind)
        self.e.env[op.operands[1]] = b.call(function, [element(-0.0), total], fastmath=("reassoc",))
        self.e.op(op)

    def loop(self, op: Op) -> None:
        (body,) = op.regions
        k, *carried = (a for a in body.args if a.type.is_scalar)
        yields = [v for v in body.results if v.type.is_scalar]

        def bind(values: Sequence[Value], given: Sequence[ir.Value]) -> None:
            each = iter(given)
            for v in values:
                self.set_vectors(v, [next(each) for _ in range(self.count // WIDTH)])

        def run(i: ir.Value, *given: ir.Value) -> Sequence[ir.Value]:
            self.e.env[k] = i
            bind(carried, given)
            self.write(body.ops)
            return [x for v in yields for x in self.joined(v)]

        inits = [v for v in op.operands[1:] if v.type.is_scalar]
        values: Sequence[ir.Value] = [x for v in inits for x in self.joined(v)]
        if _is_unrolled(op):
            for c in range(constant_of(op.operands[0])):
                values = run(index(c), *values)
        else:
            values = self.e.loop(self.e.env[op.operands[0]], values, run)
        bind([r for r in op.results if r.type.is_scalar], values)
