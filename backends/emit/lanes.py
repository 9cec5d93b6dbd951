"""Loops around recurrences of numbers, several rounds at a time.

    for i in n:                                        for i in 0, 16, ...:
        t = f(i); p = 1.0                                  t0 = f(i); p0 = 1.0; ... t15 = f(i + 15); p15 = 1.0
        for j in m: s += x[j] * p; p *= t      ->          for j in m: s0 += x[j] * p0; p0 *= t0; ... p15 *= t15
        total += s * s                                     total += s0 * s0; ... total += s15 * s15

A round of the inner loop waits for the one before, so that alone it would leave most of the processor idle. Side by
side, what the rounds of the outer loop do is the same on different numbers. The inner loop carries them as vectors, so
that LLVM makes vectors of all that is between.

`side_by_side.py` says which loops these are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from math import prod

from llvmlite import ir

from dflow.backends.analysis.reserved import ACCESSES
from dflow.backends.analysis.side_by_side import MAKERS, Lanes, found_lanes, is_unrolled
from dflow.backends.analysis.waves import WITH_LOOPS
from dflow.backends.emit.core import Emitter
from dflow.backends.emit.loop_hints import vector_loop
from dflow.backends.emit.memory import SMALL_ARENA
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import I8, I32, ZERO, declare, index, storage_type, strides, value_type
from dflow.backends.mathlib import MATH_FUNCTIONS
from dflow.ir.core import Block, Op, Value, walk
from dflow.ir.passes.rewrite import constant_of

WIDTH = 8  # of vectors
TAPES = 1 << 19  # bytes of tapes of all rounds
ALIGNED = 64  # bytes
VECTORS = frozenset({"add", "sub", "mul", "div", "neg", "max", "min"})  # operations on vectors; LLVM makes the others
TESTS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
LOGIC = frozenset({"and", "or", "xor"})


def lanes(e: Emitter, loop: Op) -> Lanes | None:
    """How rounds of ``loop`` go side by side, if they do."""
    (body,) = loop.regions
    found = found_lanes(loop, body) if e.vectorizes else None
    return None if found is None or _is_seen(e, body, found.own) else found


def _is_seen(e: Emitter, body: Block, own: set[Value]) -> bool:
    """Whether something else touches the memory of the arrays ``own``."""
    places = {e.plan.buffers.get(v) for v in own}
    others = {v for op in walk(body) for v in (*op.operands, *op.results) if v.type.rank} - own
    return any(e.plan.buffers.get(v) in places for v in others)


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
    for x in dict.fromkeys(x for x in found.local.values() if not x.type.is_static):
        whole = b.select(_has_room(e, x, found.count), whole, ZERO)

    def several(i: ir.Value, *values: ir.Value) -> Sequence[ir.Value]:
        first = e.add(begin, i)
        rounds = _SideBySide(e, found, places)
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

    with _places(e, found) as places:
        middle = e.loop(whole, inits, several, step=found.count)
    return e.loop(b.sub(count, whole), middle, one)


@contextmanager
def _places(e: Emitter, found: Lanes) -> Iterator[dict[Value, ir.Value]]:
    """Places for the arrays of each round but for tapes, on the stack if they are small: the elements of all rounds at
    one position lie side by side."""
    kinds = {
        x: ir.ArrayType(storage_type(x.type.dtype), prod(x.type.static_shape) * found.count)
        for x in found.local.values()
        if x.type.is_static
    }
    sizes = [t.count * x.type.dtype.itemsize for x, t in kinds.items()]
    if sum(sizes) <= SMALL_ARENA:
        places = {x: e.slot(t) for x, t in kinds.items()}
        for place in places.values():
            place.align = ALIGNED
        yield places
        return
    starts = accumulate((-(-size // ALIGNED) * ALIGNED for size in sizes), initial=0)
    with e.memory.lent(sum(sizes) + ALIGNED * len(sizes)) as base:
        yield {x: e.builder.gep(base, [index(start)], source_etype=I8) for x, start in zip(kinds, starts)}


def _has_room(e: Emitter, tape: Value, count: int) -> ir.Value:
    """Whether tapes of so many rounds stay in the second cache."""
    (length,) = tape.op.operands  # type: ignore[union-attr]
    return e.builder.icmp_signed("<=", e.env[length], index(TAPES // (count * tape.type.dtype.itemsize)))


def _write(e: Emitter, ops: Sequence[Op]) -> None:
    for op in ops:
        with e.memory.near(op):
            e.op(op)


class _SideBySide:
    """Writes operations for several rounds. What differs between them is in ``numbers``, one for each round, or in
    ``vectors``; the rest is in the emitter's environment. ``places``: where the arrays are that each round has."""

    def __init__(self, e: Emitter, found: Lanes, places: Mapping[Value, ir.Value]):
        self.e, self.count, self.local, self.own = e, found.count, found.local, found.own
        self.places = dict(places)
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
            elif op.name == "if":
                self.branch(op)
            elif op.operands and op.operands[0] in self.local:
                self.local_access(op)
            elif op.name in MAKERS:
                self.make(op)
            elif op.name == "update_add" and op.result not in self.own:
                self.share(op)
            elif op.name in ("update", "update_add"):
                for w in range(self.count):
                    self.in_round(op, w)
            elif not any(map(self.differs, op.operands)):
                self.e.op(op)
                self.forget(op.result)
            elif op.name in MATH_FUNCTIONS and op.name not in WITH_LOOPS:
                self.set_vectors(op.result, self.of_function(op))
            elif _has_vectors(op):
                self.set_vectors(op.result, self.of_vectors(op))
            else:
                self.set(op.result, [self.of_round(op, w) for w in range(self.count)])

    def of_vectors(self, op: Op) -> list[ir.Value]:
        dtypes = [v.type.dtype for v in op.operands]
        groups = zip(*map(self.joined, op.operands))
        return [emit_scalar(self.e.builder, op.name, op.attrs, dtypes, group) for group in groups]

    def of_function(self, op: Op) -> list[ir.Value]:
        """A function of the math library, of which LLVM makes vectors in loops."""
        e, dtypes = self.e, [v.type.dtype for v in op.operands]
        t = storage_type(op.result.type.dtype)
        *slots, target = (e.slot(ir.ArrayType(t, WIDTH)) for _ in (*op.operands, op.result))
        for slot in (*slots, target):
            slot.align = ALIGNED

        def each(w: ir.Value) -> Sequence[ir.Value]:
            given = [e.builder.load(e.builder.gep(s, [w], source_etype=t), typ=t) for s in slots]
            made = emit_scalar(e.builder, op.name, op.attrs, dtypes, given)
            e.builder.store(made, e.builder.gep(target, [w], source_etype=t))
            return ()

        found = []
        for group in zip(*map(self.joined, op.operands)):
            for slot, x in zip(slots, group):
                e.builder.store(x, slot)
            vector_loop(e, WIDTH, (), each)
            found.append(e.builder.load(target, typ=ir.VectorType(t, WIDTH)))
        return found

    def make(self, op: Op) -> None:
        """Makes room for a tape of each round, in the memory of one."""
        if not op.result.type.is_static:
            memory, length = self.e.memory, self.e.mul(self.e.env[op.operands[0]], index(self.count))
            self.places[op.result] = memory.room(op.result, length)

    def local_access(self, op: Op) -> None:
        """Reads or writes an element of an array that each round has."""
        e, x = self.e, op.operands[0]
        dtype = x.type.dtype
        t = storage_type(dtype)
        at = [e.env[v] for v in op.operands[ACCESSES[op.name] :]]
        first = e.mul(e.dot(at, strides(x.type)), index(self.count))
        places = [e.add(first, index(n)) for n in range(0, self.count, WIDTH)]
        base = self.places[self.local[x]]
        addresses = [e.builder.gep(base, [place], source_etype=t) for place in places]
        align = None if x.type.is_static else dtype.itemsize
        if op.name == "extract":
            vectors = [e.builder.load(a, typ=ir.VectorType(t, WIDTH), align=align) for a in addresses]
            zero = ir.Constant(ir.VectorType(t, WIDTH), None)
            self.set_vectors(
                op.result, [e.builder.icmp_unsigned("!=", v, zero) if dtype.kind == "b" else v for v in vectors]
            )
            return
        for address, v in zip(addresses, self.joined(op.operands[1])):
            stored = e.builder.zext(v, ir.VectorType(t, WIDTH)) if dtype.kind == "b" else v
            e.builder.store(stored, address, align=align)

    def of_round(self, op: Op, w: int) -> ir.Value:
        self.in_round(op, w)
        return self.e.env[op.result]

    def in_round(self, op: Op, w: int) -> None:
        self.e.env.update((v, self.number(v, w)) for v in op.operands if self.differs(v))
        self.e.op(op)

    def branch(self, op: Op) -> None:
        """Each region is computed if one of the rounds wants it."""
        b, wanted = self.e.builder, self.joined(op.operands[0])
        made = [self.if_any(w, r) for w, r in zip((wanted, [b.not_(v) for v in wanted]), op.regions)]
        for v, *values in zip(op.results, *made):
            self.set_vectors(v, [b.select(*each) for each in zip(wanted, *values)])

    def if_any(self, wanted: Sequence[ir.Value], region: Block) -> list[list[ir.Value]]:
        """The vectors that a region yields, which are zeros where no round wants them."""
        if not region.ops:
            return [self.joined(v) for v in region.results]
        groups = self.count // WIDTH

        def run() -> list[ir.Value]:
            self.write(region.ops)
            return [x for v in region.results for x in self.joined(v)]

        def nothing() -> list[ir.Value]:
            types = [ir.VectorType(value_type(v.type.dtype), WIDTH) for v in region.results]
            return [ir.Constant(t, None) for t in types for _ in range(groups)]

        made = self.e.either(self.is_any(wanted), run, nothing)
        return [made[n : n + groups] for n in range(0, len(made), groups)]

    def is_any(self, wanted: Sequence[ir.Value]) -> ir.Value:
        b, bits = self.e.builder, ir.IntType(WIDTH)
        found = functools.reduce(b.or_, [b.bitcast(v, bits) for v in wanted])
        return b.icmp_unsigned("!=", found, bits(0))

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
        if is_unrolled(op):
            for c in range(constant_of(op.operands[0])):
                values = run(index(c), *values)
        else:
            values = self.e.loop(self.e.env[op.operands[0]], values, run)
        bind([r for r in op.results if r.type.is_scalar], values)


def _has_vectors(op: Op) -> bool:
    """Whether there is one operation on vectors."""
    dtype = op.operands[-1].type.dtype
    if op.name in LOGIC:
        return dtype.kind == "b"
    return op.name in VECTORS | TESTS | {"select"} and dtype.is_float
