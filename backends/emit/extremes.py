"""Positions of the largest and least elements.

Along the last axis the lanes of a vector look at every W-th element each, and the first of the best lanes has it:

    for k in 0, W, 2 W, ...: v = x[k : k + W]; best, found = (v, k) where v is better else (best, found)

Along another axis the lanes are neighbours on the last one, each with a result of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from dflow.backends.emit.core import Domain, Emitter, Part, emits
from dflow.backends.emit.kernel import UNROLL, write
from dflow.backends.emit.parts import fold_in_parts, in_parts
from dflow.backends.emit.scalar import int_compare, is_nan
from dflow.backends.emit.types import I32, I64, ZERO, declare, index, splat, storage_type
from dflow.ir.core import Op
from dflow.ir.types import HALVES, DType

At = list[ir.Value]
BYTES = 256  # of a vector: four registers, so that less is waited for
MOST_LANES = 64
LEAST_LANES = 4


@emits("argmax", "argmin")
def _arg(e: Emitter, op: Op) -> None:
    _Extreme(e, op).write()


class _Extreme:
    def __init__(self, e: Emitter, op: Op):
        (self.x,) = op.operands
        self.e, self.op, self.axis = e, op, op.attrs["axis"]
        self.sign = ">" if op.name == "argmax" else "<"
        self.dtype: DType = self.x.type.dtype
        self.lanes = min(MOST_LANES, BYTES // self.dtype.itemsize)
        if self.axis != self.x.type.rank - 1:
            self.lanes = min(self.lanes, 1 << max(1, self.x.type.bound[-1]).bit_length() - 1)
        self.vector = ir.VectorType(storage_type(self.dtype), self.lanes)
        # As many bits as an element, so that a comparison chooses both; positions must have room.
        far = self.dtype.itemsize == 8 or self.x.type.bound[self.axis] >= 1 << 32
        self.rounds = ir.VectorType(I64 if far else I32, self.lanes)

    def write(self) -> None:
        shape, axis = self.x.type.shape, self.axis
        kept = [d for k, d in enumerate(shape) if k != axis]
        wide = self.e.vectorizes and self.dtype not in HALVES and self.dtype.kind in "biuf"
        last = axis == len(shape) - 1
        row: Callable[[Domain], None] = self.scalars
        if wide and last and isinstance(shape[-1], int) and shape[-1] >= 2 * self.lanes:
            row = self.along
        elif wide and not last and self.lanes >= LEAST_LANES:
            row = self.across
        if row == self.along and not kept:
            fold_in_parts(self.e, self.op, self.op.results, shape, 1, 1, self.along_part, [self.better_of], rows=False)
        else:
            in_parts(self.e, self.op, kept, self.x.type.bound[axis], row)

    def better_of(self, p: ir.Value, q: ir.Value) -> ir.Value:
        """Of two positions in a vector, of which the first is not behind the other, that of the better element."""
        v, w = (self.e.load(self.x, [k]) for k in (p, q))
        return self.e.builder.select(self.better(w, v), q, p)

    def better(self, v: ir.Value, best: ir.Value) -> ir.Value:
        b = self.e.builder
        if not self.dtype.is_float:
            return int_compare(b, self.dtype, self.sign, v, best)
        # The first NaN wins, and nothing wins against it.
        return b.and_(b.fcmp_unordered(self.sign, v, best), b.fcmp_ordered("ord", best, best))

    def whole(self, at: At, k: ir.Value) -> At:
        return [*at[: self.axis], k, *at[self.axis :]]

    # --- one element at a time

    def scalars(self, domain: Domain) -> None:
        def one(at: At) -> None:
            first = self.e.load(self.x, self.whole(at, ZERO))
            self.rest(at, ZERO, first, ZERO)

        self.e.nest(domain, one, ops=UNROLL)

    def rest(self, at: At, start: ir.Value, best: ir.Value, position: ir.Value) -> None:
        """Writes the position of the best one, where those from ``start`` on are still to be looked at."""
        e = self.e
        stop = e.size(self.x.type.shape[self.axis])

        def step(k: ir.Value, best: ir.Value, position: ir.Value) -> list[ir.Value]:
            k = e.add(start, k)
            v = e.load(self.x, self.whole(at, k))
            wins = self.better(v, best)
            return [e.builder.select(wins, v, best), e.builder.select(wins, k, position)]

        _, found = e.loop(e.sub(stop, start), [best, position], step)
        write(e, self.op.results, at, [found])

    # --- vectors

    def load(self, at: At) -> ir.Value:
        loaded = self.e.builder.load(self.e.address(self.x, at), typ=self.vector, align=self.dtype.itemsize)
        self.e.memory.mark(loaded, self.x)
        return loaded

    def search(self, stop: ir.Value, place: Callable[[ir.Value], At], step: int = 1) -> list[ir.Value]:
        """The best element of each lane, and which of the vectors at 0, step, ... below ``stop`` it is in."""
        return self.e.loop(stop, list(self.start(place)), lambda k, *known: self.looked(place, k, *known), step=step)

    def start(self, place: Callable[[ir.Value], At]) -> tuple[ir.Value, ir.Value]:
        return self.load(place(ZERO)), self.rounds([0] * self.lanes)

    def looked(self, place: Callable[[ir.Value], At], k: ir.Value, best: ir.Value, found: ir.Value) -> list[ir.Value]:
        b, v, narrow = self.e.builder, self.load(place(k)), self.rounds.element
        number = splat(b, k if narrow == I64 else b.trunc(k, narrow), self.rounds)
        wins = self.better(v, best)
        return [b.select(wins, v, best), b.select(wins, number, found)]

    def along(self, domain: Domain) -> None:
        size = self.e.size(self.x.type.shape[-1])
        self.e.nest(domain, lambda at: self.stretch(at, ZERO, size), ops=UNROLL)

    def along_part(self, domain: Domain) -> None:
        """Of a vector, or a part of one, which begins sooner where it would be shorter than a vector of the machine."""
        (part,), e, (size,) = domain, self.e, self.x.type.static_shape
        if isinstance(part, Part):
            latest = index(size - self.lanes)
            begin = e.builder.select(e.builder.icmp_signed("<", part.begin, latest), part.begin, latest)
            self.stretch([], begin, e.sub(e.add(part.begin, part.count), begin))
        else:
            self.stretch([], ZERO, index(size))

    def stretch(self, at: At, begin: ir.Value, size: ir.Value) -> None:
        """The position of the best of ``size`` elements from ``begin`` on, at least as many as there are lanes. The
        last vector may begin inside of that before: what is looked at twice is in the same place."""
        e, b = self.e, self.e.builder
        last = b.sub(size, index(self.lanes))

        def place(k: ir.Value) -> At:
            return [*at, e.add(begin, k)]

        known = self.looked(place, last, *self.search(last, place, self.lanes))
        write(e, self.op.results, at, [e.add(begin, self.first(*known))])

    def first(self, best: ir.Value, found: ir.Value) -> ir.Value:
        """The position of the best element: the first of those that are as good."""
        b, narrow = self.e.builder, self.rounds.element
        kind = {"f": "f", "i": "s"}.get(self.dtype.kind, "u")
        extreme = self.over_lanes(f"{kind}{'max' if self.sign == '>' else 'min'}", best)
        if self.dtype.is_float:
            missing, whole = is_nan(b, best), ir.IntType(self.lanes)
            some = b.icmp_unsigned("!=", b.bitcast(missing, whole), whole(0))
            alike = b.select(some, missing, b.fcmp_ordered("==", best, splat(b, extreme, best.type)))
        else:
            alike = b.icmp_unsigned("==", best, splat(b, extreme, best.type))
        position = b.add(found, self.rounds(list(range(self.lanes))))
        place = self.over_lanes("umin", b.select(alike, position, self.rounds([-1] * self.lanes)))
        return place if narrow == I64 else b.zext(place, I64)

    def over_lanes(self, kind: str, v: ir.Value) -> ir.Value:
        t, prefix = v.type, "i" if isinstance(v.type.element, ir.IntType) else "f"
        bits = v.type.element.width if prefix == "i" else 8 * self.dtype.itemsize
        name = f"llvm.vector.reduce.{kind}.v{t.count}{prefix}{bits}"
        return self.e.builder.call(declare(self.e.module, name, ir.FunctionType(t.element, [t])), [v])

    def across(self, domain: Domain) -> None:
        e, lanes = self.e, index(self.lanes)
        *outer, last = domain
        count = e.size(last)
        blocks = e.builder.sdiv(count, lanes)
        length = e.size(self.x.type.shape[self.axis])

        def block(at: At, j: ir.Value) -> None:
            b, start = e.builder, [*at, e.position(last, e.mul(j, lanes))]
            _, found = self.search(length, lambda k: self.whole(start, k))
            wide = ir.VectorType(I64, self.lanes)
            found = found if found.type == wide else b.zext(found, wide)
            stored = b.store(found, e.address(self.op.result, start, write=True), align=8)
            e.memory.mark(stored, self.op.result)

        def edge(at: At, j: ir.Value) -> None:
            here = [*at, e.position(last, e.add(e.mul(blocks, lanes), j))]
            self.rest(here, ZERO, e.load(self.x, self.whole(here, ZERO)), ZERO)

        def row(at: At) -> None:
            e.repeat(blocks, lambda j: block(at, j))
            e.repeat(e.sub(count, e.mul(blocks, lanes)), lambda j: edge(at, j))

        e.nest(outer, row, ops=UNROLL)
