"""Positions of the largest and least elements.

Along the last axis the lanes of a vector look at every W-th element each, and the first of the best lanes has it:

    for r in rounds: v = x[r * W : r * W + W]; best, round = (v, r) where v is better else (best, round)

Along another axis the lanes are neighbours on the last one, each with a result of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from dflow.backends.emit_core import Domain, Emitter, Part, emits
from dflow.backends.emit_kernel import UNROLL, write
from dflow.backends.emit_parts import fold_in_parts, in_parts
from dflow.backends.emit_scalar import int_compare
from dflow.backends.emit_types import I32, I64, ZERO, index, splat, storage_type
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
        # As many bits as an element, so that a comparison chooses both; rounds are few enough to be counted with 32.
        self.rounds = ir.VectorType(I64 if self.dtype.itemsize == 8 else I32, self.lanes)

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

    def rest(self, at: At, start: ir.Value, best: ir.Value, position: ir.Value, stop: ir.Value | None = None) -> None:
        """Writes the position of the best one, where those from ``start`` to ``stop`` (or the end) are still to be
        looked at."""
        e = self.e
        stop = e.size(self.x.type.shape[self.axis]) if stop is None else stop

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

    def search(self, rounds: ir.Value, place: Callable[[ir.Value], At]) -> list[ir.Value]:
        """The best element of each lane, and the round in which it was found."""
        b = self.e.builder

        def step(k: ir.Value, best: ir.Value, found: ir.Value) -> list[ir.Value]:
            v, narrow = self.load(place(k)), self.rounds.element
            number = splat(b, k if narrow == I64 else b.trunc(k, narrow), self.rounds)
            wins = self.better(v, best)
            return [b.select(wins, v, best), b.select(wins, number, found)]

        return self.e.loop(rounds, [self.load(place(ZERO)), self.rounds([0] * self.lanes)], step)

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
        """The position of the best of ``size`` elements from ``begin`` on, at least as many as there are lanes."""
        e, b, lanes = self.e, self.e.builder, index(self.lanes)
        rounds = b.sdiv(size, lanes)
        best, found = self.search(rounds, lambda k: [*at, e.add(begin, e.mul(k, lanes))])
        best, position = self.first(best, found)
        if self.dtype.kind == "b":
            best = b.icmp_unsigned("!=", best, best.type(0))
        self.rest(at, e.add(begin, b.mul(rounds, lanes)), best, e.add(begin, position), e.add(begin, size))

    def first(self, best: ir.Value, found: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The best lane, and the position of its element: half of the lanes against the other half, and so on."""
        b, wide = self.e.builder, ir.VectorType(I64, self.lanes)
        found = found if found.type == wide else b.zext(found, wide)
        found = b.add(b.mul(found, wide([self.lanes] * self.lanes)), wide(list(range(self.lanes))))
        while (half := best.type.count // 2) > 0:
            (one, other), (p, q) = ([_half(b, v, k, half) for k in (0, half)] for v in (best, found))
            sooner = b.and_(b.not_(self.better(one, other)), b.icmp_signed("<", q, p))
            wins = b.or_(self.better(other, one), sooner)
            best, found = b.select(wins, other, one), b.select(wins, q, p)
        return b.extract_element(best, ZERO), b.extract_element(found, ZERO)

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


def _half(b: ir.IRBuilder, v: ir.Value, start: int, count: int) -> ir.Value:
    lanes = ir.Constant(ir.VectorType(I32, count), list(range(start, start + count)))
    return b.shuffle_vector(v, v.type(ir.Undefined), lanes)
