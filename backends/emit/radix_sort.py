"""One row's order, as a function in LLVM's language: a radix sort of keys with their positions.

    keys = numbers without sign (`sort_keys.py`)
    few:     rank of an element = how many are less, or equal and before it         (vectors, no branches)
    sorted:  positions = 0, 1, 2, ...
    else:    sort by the upper bits, a digit of 8 at a time, the lowest first: count digits, add up, move
             then each to its place among its neighbours; if that takes many moves, sort by all the bits

A pass is stable, so that there is one result for any number of threads: in long rows each part of a pass counts and
moves its own. As many upper bits are taken as tell most elements apart if they are random. Bits are those of the
distance from the least key, so that integers of a small range take one or two passes.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from dflow.backends.emit.function_writer import FunctionWriter, internal_function
from dflow.backends.emit.once import fill_bytes
from dflow.backends.emit.sort_keys import Keys
from dflow.backends.emit.types import I1, I8, I32, I64, ONE, PTR, VOID, ZERO, declare, index, splat
from dflow.backends.native.thread_pool import SYMBOL
from dflow.ir.types import DType

RECORD = 16  # bytes: a key and its position
FEW = 64  # elements that are ranked
LANES = 8
DIGIT = 8  # bits
COUNTERS = 1 << DIGIT
SPREAD = 14  # upper bits in which random floats differ less than by chance: sign and exponent, and two to spare
LONG = 1 << 16  # elements of a row that is worth several threads
PARTS = 8  # of a pass over one
PAIR = ir.VectorType(I64, 2)


def sorter(module: ir.Module, dtype: DType, threads: bool) -> ir.Function:
    """``void f(row of x, positions, scratch of 2 * RECORD * count bytes, count)``."""
    f, fresh = internal_function(module, f"dflow.argsort.{dtype.name}", [PTR, PTR, PTR, I64])
    if fresh:
        for arg in f.args[:3]:
            arg.add_attribute("noalias")
        _Sort(f, dtype, threads).write()
    return f


class _Sort(Keys):
    def __init__(self, f: ir.Function, dtype: DType, threads: bool):
        super().__init__(f, dtype)
        self.threads = threads
        self.x, self.positions, self.scratch, self.size = f.args

    def write(self) -> None:
        b = self.b
        with b.if_then(b.icmp_signed("<=", self.size, index(FEW))):
            self.rank()
            b.ret_void()
        source, target = self.slot(self.scratch), self.slot(self.at(self.scratch, self.size, PAIR))
        least, bits = self.encode()
        with b.if_then(b.icmp_unsigned("==", bits, ZERO)):
            self.count(ZERO, self.size, lambda k: b.store(k, self.at(self.positions, k)))
            b.ret_void()
        digits = _passes(self.module, self.threads)
        wanted = b.sub(index(SPREAD + 64 + DIGIT - 1), self.leading_zeros(self.size))
        wanted = b.sub(bits, b.and_(wanted, index(-DIGIT)))
        start = b.select(b.icmp_signed(">", wanted, ZERO), wanted, ZERO)
        b.call(digits, [source, target, least, start, bits, self.size])
        with b.if_then(b.icmp_signed(">", start, ZERO)):
            done = self.settle(self.read(source, PTR))
            with b.if_then(b.not_(done)):
                b.call(digits, [source, target, least, ZERO, bits, self.size])
        ordered = self.read(source, PTR)
        self.count(ZERO, self.size, lambda k: b.store(self.position(ordered, k), self.at(self.positions, k)))
        b.ret_void()

    # --- keys

    def encode(self) -> tuple[ir.Value, ir.Value]:
        """Writes keys and positions to the scratch memory; the least key, and how many bits the distance of the
        largest from it has, 0 where the keys are in order."""
        b = self.b
        first = self.key_in(self.x, ZERO)
        least, most, before, falls = self.slot(first), self.slot(first), self.slot(first), self.slot(ZERO)

        def one(k: ir.Value) -> None:
            key = self.key_in(self.x, k)
            record = self.at(self.scratch, k, PAIR)
            b.store(key, record)
            b.store(k, self.at(record, ONE))
            for slot, sign in ((least, "<"), (most, ">")):
                known = self.read(slot)
                b.store(b.select(b.icmp_unsigned(sign, key, known), key, known), slot)
            b.store(b.or_(self.read(falls), b.zext(b.icmp_unsigned("<", key, self.read(before)), I64)), falls)
            b.store(key, before)

        self.count(ZERO, self.size, one)
        bits = b.sub(index(64), self.leading_zeros(b.sub(self.read(most), self.read(least))))
        return self.read(least), b.select(b.icmp_unsigned("==", self.read(falls), ZERO), ZERO, bits)

    def leading_zeros(self, v: ir.Value) -> ir.Value:
        t = ir.FunctionType(I64, [I64, I1])
        return self.b.call(self.module.declare_intrinsic("llvm.ctlz", [I64], t), [v, I1(0)])

    def position(self, records: ir.Value, k: ir.Value) -> ir.Value:
        return self.read(self.at(self.at(records, k, PAIR), ONE))

    # --- few elements

    def rank(self) -> None:
        """How many come before each element is where it goes. Behind the keys stand some that come before none."""
        b, vector = self.b, ir.VectorType(I64, LANES)
        keys = self.room(ir.ArrayType(vector, FEW // LANES))
        self.count(ZERO, index(FEW // LANES), lambda k: b.store(vector([-1] * LANES), self.at(keys, k, vector)))
        self.count(ZERO, self.size, lambda k: b.store(self.key_in(self.x, k), self.at(keys, k)))
        steps = vector(list(range(LANES)))

        def one(i: ir.Value) -> None:
            key, own = splat(self.b, self.read(self.at(keys, i)), vector), splat(self.b, i, vector)
            total, others = self.slot(vector([0] * LANES)), self.slot(steps)

            def some(j: ir.Value) -> None:
                found = b.load(self.at(keys, j), typ=vector, align=64)
                at = self.read(others, vector)
                equal = b.and_(b.icmp_unsigned("==", found, key), b.icmp_signed("<", at, own))
                sooner = b.or_(b.icmp_unsigned("<", found, key), equal)
                b.store(b.add(self.read(total, vector), b.zext(sooner, vector)), total)
                b.store(b.add(at, vector([LANES] * LANES)), others)

            self.count(ZERO, self.size, some, index(LANES))
            b.store(i, self.at(self.positions, b.call(self.sum_of(vector), [self.read(total, vector)])))

        self.count(ZERO, self.size, one)

    def sum_of(self, t: ir.VectorType) -> ir.Function:
        name = f"llvm.vector.reduce.add.v{t.count}i64"
        return declare(self.module, name, ir.FunctionType(I64, [t]))

    # --- the last steps

    def settle(self, records: ir.Value) -> ir.Value:
        """Moves elements to their places among their neighbours; whether as many moves as elements were enough."""
        b, moves = self.b, self.slot(ZERO)

        def one(i: ir.Value) -> None:
            here = self.at(records, i, PAIR)
            key = self.read(here)
            with b.if_then(b.icmp_unsigned("<", key, self.read(self.before(here))), likely=False):
                position, place = self.read(self.at(here, ONE)), self.slot(here)

                def later() -> ir.Value:
                    at = self.read(place, PTR)
                    return b.and_(
                        b.icmp_unsigned("!=", at, records),
                        b.icmp_unsigned(">", self.read(self.clamped(at, records)), key),
                    )

                def move() -> None:
                    at = self.read(place, PTR)
                    b.store(b.load(self.before(at), typ=PAIR, align=16), at, align=16)
                    b.store(self.before(at), place)
                    self.increase(moves)

                self.repeat(later, move)
                at = self.read(place, PTR)
                b.store(key, at)
                b.store(position, self.at(at, ONE))

        k = self.slot(ONE)

        def going_on() -> ir.Value:
            few = b.icmp_signed("<=", self.read(moves), self.size)
            return b.and_(few, b.icmp_signed("<", self.read(k), self.size))

        def step() -> None:
            one(self.read(k))
            self.increase(k)

        self.repeat(going_on, step)
        return b.icmp_signed("<=", self.read(moves), self.size)

    def before(self, record: ir.Value) -> ir.Value:
        return self.at(record, index(-1), PAIR)

    def clamped(self, record: ir.Value, first: ir.Value) -> ir.Value:
        """The record before this one; the first has itself."""
        return self.b.select(self.b.icmp_unsigned("==", record, first), record, self.before(record))


# --- passes over records


def _passes(module: ir.Module, threads: bool) -> ir.Function:
    """``void f(source*, target*, least, start, stop, size)``: passes for the digits of the bits start ... stop, which
    change what the two pointers point to."""
    f, fresh = internal_function(module, "dflow.sort.passes", [PTR, PTR, I64, I64, I64, I64])
    if not fresh:
        return f
    w = FunctionWriter(f)
    b, (source, target, least, start, stop, size) = w.b, f.args
    context, counters = w.room(CONTEXT), w.room(ir.ArrayType(I64, PARTS * COUNTERS))
    parts = b.select(b.icmp_signed("<", size, index(LONG)), ONE, index(PARTS)) if threads else ONE
    length = b.sdiv(b.add(size, b.sub(parts, ONE)), parts)

    def one(shift: ir.Value) -> None:
        here, there = (w.read(p, PTR) for p in (source, target))
        for k, v in enumerate((here, there, counters, least, shift, size, length)):
            b.store(v, _field(b, context, k))
        b.call(fill_bytes(module), [counters, I8(0), b.mul(parts, index(8 * COUNTERS)), I1(0)])
        _run(w, _count_digits(module), context, parts, threads)
        _add_up(w, counters, parts)
        _run(w, _move_records(module), context, parts, threads)
        b.store(there, source)
        b.store(here, target)

    w.count(start, stop, one, index(DIGIT))
    b.ret_void()
    return f


CONTEXT = ir.LiteralStructType([PTR, PTR, PTR, I64, I64, I64, I64])


def _field(b: ir.IRBuilder, context: ir.Value, k: int) -> ir.Value:
    return b.gep(context, [I32(0), I32(k)], inbounds=True, source_etype=CONTEXT)


def _run(w: FunctionWriter, f: ir.Function, context: ir.Value, parts: ir.Value, threads: bool) -> None:
    if not threads:
        w.b.call(f, [context, ZERO])
        return
    pool = declare(w.module, SYMBOL, ir.FunctionType(VOID, [PTR, PTR, I64]))
    w.b.call(pool, [f, context, parts])


def _add_up(w: FunctionWriter, counters: ir.Value, parts: ir.Value) -> None:
    """Where the first element with each digit goes, from how many there are in each part."""
    b, total = w.b, w.slot(ZERO)

    def of_part(digit: ir.Value, k: ir.Value) -> None:
        place = w.at(counters, b.add(b.mul(k, index(COUNTERS)), digit))
        found = w.read(place)
        b.store(w.read(total), place)
        w.increase(total, found)

    w.count(ZERO, index(COUNTERS), lambda digit: w.count(ZERO, parts, lambda k: of_part(digit, k)))


def _count_digits(module: ir.Module) -> ir.Function:
    def one(w: FunctionWriter, record: ir.Value, target: ir.Value, counter: ir.Value) -> None:
        w.increase(counter)

    return _for_records(module, "dflow.sort.count", one)


def _move_records(module: ir.Module) -> ir.Function:
    def one(w: FunctionWriter, record: ir.Value, target: ir.Value, counter: ir.Value) -> None:
        place = w.at(target, w.read(counter), PAIR)
        w.b.store(w.b.load(record, typ=PAIR, align=16), place, align=16)
        w.increase(counter)

    return _for_records(module, "dflow.sort.move", one)


def _for_records(module: ir.Module, name: str, body: Callable[..., None]) -> ir.Function:
    """``void f(context, part)``: ``body(record, target, the counter of its digit)`` for all records of the part."""
    f, fresh = internal_function(module, name, [PTR, I64])
    if not fresh:
        return f
    w = FunctionWriter(f)
    b, (context, part) = w.b, f.args
    fields = (b.load(_field(b, context, k), typ=t) for k, t in enumerate(CONTEXT.elements))
    source, target, counters, least, shift, size, length = fields
    own = w.at(counters, b.mul(part, index(COUNTERS)))
    begin = b.mul(part, length)
    end = b.add(begin, length)
    end = b.select(b.icmp_signed("<", end, size), end, size)

    def one(k: ir.Value) -> None:
        record = w.at(source, k, PAIR)
        digit = b.and_(b.lshr(b.sub(w.read(record), least), shift), index(COUNTERS - 1))
        body(w, record, target, w.at(own, digit))

    w.count(begin, end, one)
    b.ret_void()
    return f
