"""The sorted elements of one row, as functions in LLVM's language: a quicksort of vectors.

    keys = integers with a sign, in the order of the elements; NaN last
    few:   a network: each lane sorts its column, lanes are merged two by two
    more:  a pivot from a sample; vectors of keys are compressed to its two sides; each side is sorted

Elements that are equal to a pivot which is the least are in place. Where pivots divide badly for long, the middle of
the range of the keys is one, which halves the range. For processors that compress vectors; where positions are wanted
too, keys are sorted by their digits (`radix_sort.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from dflow.backends.emit.function_writer import FunctionWriter, internal_function
from dflow.backends.emit.once import copy_bytes
from dflow.backends.emit.scalar import is_nan
from dflow.backends.emit.sort_keys import same
from dflow.backends.emit.types import I1, I32, I64, ONE, PTR, ZERO, declare, index, splat, storage_type
from dflow.ir.types import DType

VECTOR = 64  # bytes
COLUMN = 8  # elements that each lane sorts, at most
MANY = 16  # times the elements of a network: so many are worth a sample as large as one
PATIENCE = 2  # pivots from samples, for each bit of the number of elements
SIZES = (4, 8)  # bytes of keys that all such processors compress


def scratch_bytes(dtype: DType, n: int) -> int:
    return n * dtype.itemsize + VECTOR


def value_sorter(module: ir.Module, dtype: DType) -> ir.Function:
    """``void f(row of x, row of y, scratch, count)``: y are the elements of x in order."""
    f, fresh = internal_function(module, f"dflow.sort.{dtype.name}", [PTR, PTR, PTR, I64])
    if fresh:
        for arg in f.args[:3]:
            arg.add_attribute("noalias")
        _Row(f, dtype).write()
    return f


class _Row(FunctionWriter):
    """Makes keys of a row, sorts them and makes elements of them."""

    def __init__(self, f: ir.Function, dtype: DType):
        super().__init__(f)
        self.dtype, self.width = dtype, 8 * dtype.itemsize
        self.item, self.key = storage_type(dtype), ir.IntType(8 * dtype.itemsize)

    def write(self) -> None:
        b, (x, y, scratch, size) = self.b, self.f.args
        self.count(
            ZERO,
            size,
            lambda k: b.store(self.encoded(b.load(self.at(x, k, self.item), typ=self.item)), self.at(y, k, self.key)),
        )
        sort_keys(self, self.width, y, scratch, size)
        self.count(
            ZERO,
            size,
            lambda k: b.store(self.decoded(self.read(self.at(y, k, self.key), self.key)), self.at(y, k, self.item)),
        )
        b.ret_void()

    def encoded(self, v: ir.Value) -> ir.Value:
        b = self.b
        if not self.dtype.is_float:
            return v if self.dtype.kind == "i" else b.xor(v, self.key(1 << (self.width - 1)))
        return b.select(is_nan(b, v), self.key(_most(self.width)), self.turned(b.bitcast(v, self.key)))

    def decoded(self, key: ir.Value) -> ir.Value:
        if not self.dtype.is_float:
            return key if self.dtype.kind == "i" else self.b.xor(key, self.key(1 << (self.width - 1)))
        return self.b.bitcast(self.turned(key), self.item)

    def turned(self, pattern: ir.Value) -> ir.Value:
        """The bits of a number as an integer, which grows with it; and the way back."""
        sign = self.b.ashr(pattern, self.key(self.width - 1))
        return self.b.xor(pattern, self.b.and_(sign, self.key(_most(self.width))))


def _most(width: int) -> int:
    """The largest key."""
    return (1 << (width - 1)) - 1


def sort_keys(writer: FunctionWriter, width: int, keys: ir.Value, scratch: ir.Value, size: ir.Value) -> None:
    """Sorts integers with a sign in place, with scratch memory for as many and a vector."""
    b, t = writer.b, ir.FunctionType(I64, [I64, I1])
    zeros = b.call(writer.module.declare_intrinsic("llvm.ctlz", [I64], t), [size, I1(0)])
    b.call(_quick(writer.module, width), [keys, scratch, size, b.mul(b.sub(index(64), zeros), index(PATIENCE))])


def _quick(module: ir.Module, width: int) -> ir.Function:
    """``void f(keys, scratch, count, patience)`` sorts keys in place."""
    f, fresh = internal_function(module, f"dflow.quick.{width}", [PTR, PTR, I64, I64])
    if fresh:
        for arg in f.args[:2]:
            arg.add_attribute("noalias")
        _Quick(f, width).write()
    return f


def _network(module: ir.Module, width: int) -> ir.Function:
    """``void f(keys, count)`` sorts a few keys in place."""
    f, fresh = internal_function(module, f"dflow.network.{width}", [PTR, I64])
    if fresh:
        _Network(f, width).write()
    return f


class _Keys(FunctionWriter):
    """A function of keys in vectors."""

    def __init__(self, f: ir.Function, width: int):
        super().__init__(f)
        self.width, self.key, self.lanes = width, ir.IntType(width), 8 * VECTOR // width
        self.vector = ir.VectorType(self.key, self.lanes)
        self.steps = ir.VectorType(I64, self.lanes)(list(range(self.lanes)))

    def place(self, base: ir.Value, k: ir.Value) -> ir.Value:
        return self.at(base, k, self.key)

    def below(self, count: ir.Value) -> ir.Value:
        """A mask of the first ``count`` lanes."""
        return self.b.icmp_signed("<", self.steps, splat(self.b, count, self.steps.type))

    def load(self, base: ir.Value, k: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """A vector; where a mask does not hold, the largest key."""
        place = self.place(base, k)
        if mask is None:
            return self.b.load(place, typ=self.vector, align=self.width // 8)
        t = ir.FunctionType(self.vector, [PTR, I32, mask.type, self.vector])
        known = declare(self.module, f"llvm.masked.load.v{self.lanes}i{self.width}.p0", t)
        return self.b.call(known, [place, I32(self.width // 8), mask, same(self.vector, _most(self.width))])

    def store(self, v: ir.Value, base: ir.Value, k: ir.Value, mask: ir.Value | None = None) -> None:
        place = self.place(base, k)
        if mask is None:
            self.b.store(v, place, align=self.width // 8)
        else:
            self.store_where(v, place, mask)

    def shuffle(self, a: ir.Value, b: ir.Value, places: Sequence[int]) -> ir.Value:
        return self.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(places)), list(places)))

    def least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def most(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed("<", a, b), b, a)


class _Network(_Keys):
    def write(self) -> None:
        b, (keys, size) = self.b, self.f.args
        rows = 1
        while rows < COLUMN:
            with b.if_then(b.icmp_signed("<=", size, index(rows * self.lanes))):
                self.sort(keys, size, rows)
                b.ret_void()
            rows *= 2
        self.sort(keys, size, COLUMN)
        b.ret_void()

    def sort(self, keys: ir.Value, size: ir.Value, rows: int) -> None:
        """Element i of lane l is that with the number ``l * rows + i`` in the end."""
        starts = [index(k * self.lanes) for k in range(rows)]
        masks = [self.below(self.b.sub(size, start)) for start in starts]
        v = [self.load(keys, start, mask) for start, mask in zip(starts, masks)]
        for i, j in _exchanges(rows):
            self.exchange(v, i, j)
        group = 2
        while group <= self.lanes:
            v = self.merged(v, group)
            group *= 2
        for start, mask, x in zip(starts, masks, self.interleaved(v)):
            self.store(x, keys, start, mask)

    def exchange(self, v: list[ir.Value], i: int, j: int) -> None:
        v[i], v[j] = self.least(v[i], v[j]), self.most(v[i], v[j])

    def merged(self, v: Sequence[ir.Value], group: int) -> list[ir.Value]:
        """Both halves of each group of lanes are in order: makes the group so (a bitonic merge)."""
        last, far = group - 1, group // 2
        found = [self.across(x, y, last, far) for x, y in zip(v, v[::-1])]
        while (far := far // 2) > 0:
            found = [self.across(x, x, far, far) for x in found]
        step = len(found)
        while (step := step // 2) > 0:
            for i in range(len(found)):
                if not i & step:
                    self.exchange(found, i, i + step)
        return found

    def across(self, x: ir.Value, y: ir.Value, turn: int, far: int) -> ir.Value:
        """The lesser of ``x`` and of ``y`` in lane ``l ^ turn``; the greater where the lane l has the bit ``far``."""
        lanes = range(self.lanes)
        other = self.shuffle(y, y, [lane ^ turn for lane in lanes])
        upper = ir.Constant(ir.VectorType(I1, self.lanes), [int(bool(lane & far)) for lane in lanes])
        return self.b.select(upper, self.most(x, other), self.least(x, other))

    def interleaved(self, vectors: Sequence[ir.Value]) -> list[ir.Value]:
        if len(vectors) == 1:
            return list(vectors)
        half, w = len(vectors) // 2, self.lanes
        order = [k // 2 + w * (k % 2) for k in range(2 * w)]
        pairs = list(zip(vectors[:half], vectors[half:]))
        ends = ([self.shuffle(a, b, part) for a, b in pairs] for part in (order[:w], order[w:]))
        return [v for end in ends for v in self.interleaved(end)]


def _exchanges(n: int) -> list[tuple[int, int]]:
    """What sorts n elements, a power of two (Batcher's merge of odd and even places)."""

    def merge(places: range) -> list[tuple[int, int]]:
        if len(places) == 2:
            return [(places[0], places[1])]
        inner = [*merge(places[::2]), *merge(places[1::2])]
        return [*inner, *zip(places[1:-1:2], places[2::2])]

    def sort(places: range) -> list[tuple[int, int]]:
        if len(places) < 2:
            return []
        half = len(places) // 2
        return [*sort(places[:half]), *sort(places[half:]), *merge(places)]

    return sort(range(n))


class _Quick(_Keys):
    def write(self) -> None:
        b, (keys, self.scratch, size, patience) = self.b, self.f.args
        self.network = _network(self.module, self.width)
        few = COLUMN * self.lanes
        base, left, patience = self.slot(keys), self.slot(size), self.slot(patience)
        self.sample = self.room(ir.ArrayType(self.key, few))

        def part() -> None:
            here, count = self.read(base, PTR), self.read(left)
            pivot = self.slot(self.key(0))
            patient = b.icmp_signed(">", self.read(patience), ZERO)
            with b.if_else(patient) as (yes, no):
                with yes:
                    b.store(self.sampled(here, count, few), pivot)
                with no:
                    b.store(self.middle(here, count), pivot)
            self.increase(patience, index(-1))
            chosen = self.read(pivot, self.key)
            first = self.parted(here, count, lambda v, p: b.icmp_signed("<", v, p), chosen)
            with b.if_else(b.icmp_signed("==", first, ZERO)) as (none, some):
                with none:
                    alike = self.parted(here, count, lambda v, p: b.icmp_signed("<=", v, p), chosen)
                    b.store(self.place(here, alike), base)
                    self.increase(left, b.neg(alike))
                with some:
                    b.call(self.f, [here, self.scratch, first, self.read(patience)])
                    b.store(self.place(here, first), base)
                    self.increase(left, b.neg(first))

        self.repeat(lambda: b.icmp_signed(">", self.read(left), index(few)), part)
        b.call(self.network, [self.read(base, PTR), self.read(left)])
        b.ret_void()

    def sampled(self, keys: ir.Value, size: ir.Value, few: int) -> ir.Value:
        """The median of some of the keys, of more where there are many."""
        b = self.b
        count = b.select(b.icmp_signed(">", size, index(MANY * few)), index(few), index(self.lanes))
        step = b.udiv(size, count)
        self.count(
            ZERO,
            count,
            lambda k: b.store(self.read(self.place(keys, b.mul(k, step)), self.key), self.place(self.sample, k)),
        )
        b.call(self.network, [self.sample, count])
        return self.read(self.place(self.sample, b.lshr(count, ONE)), self.key)

    def middle(self, keys: ir.Value, size: ir.Value) -> ir.Value:
        """The middle of the range of the keys, above the least unless all are equal."""
        b = self.b
        low, high = self.slot(self.read(keys, self.key)), self.slot(self.read(keys, self.key))

        def one(k: ir.Value) -> None:
            v = self.read(self.place(keys, k), self.key)
            b.store(self.least(v, self.read(low, self.key)), low)
            b.store(self.most(v, self.read(high, self.key)), high)

        self.count(ZERO, size, one)
        least, most = self.read(low, self.key), self.read(high, self.key)
        span = b.sub(most, least)  # as a number without sign
        return b.add(least, b.sub(span, b.lshr(span, self.key(1))))

    def parted(self, keys: ir.Value, size: ir.Value, test: Callable[..., ir.Value], pivot: ir.Value) -> ir.Value:
        """Brings the keys that pass a test to the front; how many they are. Those go where keys have been read, the
        others to the scratch memory first."""
        b, pivots = self.b, splat(self.b, pivot, self.vector)
        front, back = self.slot(ZERO), self.slot(ZERO)

        def some(k: ir.Value) -> None:
            v = self.load(keys, k)
            passes = test(v, pivots)
            self.store(self.compressed(v, passes), keys, self.read(front))
            self.store(self.compressed(v, b.not_(passes)), self.scratch, self.read(back))
            count = self.lanes_in(passes)
            self.increase(front, count)
            self.increase(back, b.sub(index(self.lanes), count))

        whole = b.and_(size, index(-self.lanes))
        self.count(ZERO, whole, some, index(self.lanes))
        there = self.below(b.sub(size, whole))
        v = self.load(keys, whole, there)
        passes = b.and_(test(v, pivots), there)
        fails = b.and_(b.not_(passes), there)
        count = self.lanes_in(passes)
        self.store(self.compressed(v, passes), keys, self.read(front), self.below(count))
        self.store(self.compressed(v, fails), self.scratch, self.read(back))
        self.increase(front, count)
        self.increase(back, self.lanes_in(fails))
        rest = b.mul(self.read(back), index(self.width // 8))
        b.call(copy_bytes(self.module), [self.place(keys, self.read(front)), self.scratch, rest, I1(0)])
        return self.read(front)
