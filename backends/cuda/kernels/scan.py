"""Running sums: loops of which each round sees the sum of what the rounds before it have added. (Or the product, or
the largest, or the smallest: what is said of sums here holds for these as well.)

The rounds are cut into *chunks*, a block of threads for each. A first kernel adds up what each chunk adds; then every
block adds up the chunks before its own, and goes through its chunk in tiles of a round a thread: threads side by side
do rounds side by side. In a tile, the warps scan what their threads add by shuffles, and each thread gets what comes
before its round. (Prefix sums by blocks: Blelloch, "Prefix Sums and Their Applications", 1990; reduction before the
scan: Sengupta, Harris and Garland, "Efficient Parallel Scan Algorithms for GPUs", 2008.) Many *lines* are scanned at
once, each with sums of its own. The order of additions is fixed, so results are the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from dflow.backends.cuda.kernels.cooperative import WARP, Line, barrier, block_totals, by_kind, shuffle
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.plan import Pointer
from dflow.backends.emit.kernel import identity
from dflow.backends.emit.types import ZERO, from_storage, index, storage_type, to_storage, value_type
from dflow.ir.types import DType

SHARE = 8  # rounds that a thread should have at least, when several blocks share a line
MOST_CHUNKS = 1024  # of all lines
MOST_BLOCKS = 1 << 16

Values = list[ir.Value]
Increments = Callable[[ir.Value], Values]
Chunk = tuple[ir.Value, ir.Value, ir.Value, ir.Value]  # the line, the number, the first round, the one after the last


@dataclass(frozen=True)
class Split:
    """How rounds are shared: ``lines``, each of so many ``chunks``, each for a block of ``threads``."""

    lines: int
    chunks: int
    threads: int

    @classmethod
    def of(cls, lines: int, rounds: int, threads: int, most: int = MOST_CHUNKS) -> Split:
        while threads > WARP and threads >= 2 * rounds:
            threads //= 2
        chunks = max(1, min(rounds // (threads * SHARE), min(most, MOST_CHUNKS) // lines))
        return cls(lines, chunks, threads)

    @property
    def blocks(self) -> int:
        return min(MOST_BLOCKS, self.lines * self.chunks)

    @property
    def places(self) -> int:
        """Numbers that are kept: for each line what it begins with, and what its chunks add."""
        return self.lines * (self.chunks + 1)


class Scanner:
    """Writes what the blocks of a kernel do. ``combine`` says how each of the running numbers is made ("sum", ...),
    ``rooms`` are the places for them."""

    def __init__(
        self, e: KernelEmitter, split: Split, combine: Sequence[str], dtypes: Sequence[DType], rooms: Sequence[Pointer]
    ):
        self.e, self.split, self.combine, self.dtypes, self.rooms = e, split, combine, dtypes, rooms
        self.join = by_kind(e, combine, dtypes)
        self.nothing = [identity(kind, d) for kind, d in zip(combine, dtypes)]
        self.slots = [e.slot(value_type(d)) for d in dtypes]
        self.me = e.register("tid.x")

    def each(self, rounds: ir.Value, body: Callable[[ir.Value, ir.Value, ir.Value, ir.Value], None]) -> None:
        """``body`` for the chunks of this block, each as a `Chunk`."""
        e, b, split = self.e, self.e.builder, self.split
        size = split.threads * split.chunks
        each = e.mul(b.sdiv(b.add(rounds, index(size - 1)), index(size)), index(split.threads))

        def one(g: ir.Value) -> None:
            line, chunk = (b.udiv(g, index(split.chunks)), b.urem(g, index(split.chunks)))
            first = e.mul(chunk, each)
            last = e.add(first, each)
            body(line, chunk, first, b.select(b.icmp_signed("<", last, rounds), last, rounds))
            barrier(e)  # before the memory of the block is used again

        e.stride_from(e.register("ctaid.x"), e.blocks, index(split.lines * split.chunks), one)

    def _get(self) -> Values:
        return [self.e.builder.load(slot, typ=value_type(d)) for slot, d in zip(self.slots, self.dtypes)]

    def _put(self, values: Sequence[ir.Value]) -> None:
        for slot, v in zip(self.slots, values):
            self.e.builder.store(v, slot)

    def _add(self, values: Values) -> None:
        self._put(self.join(self._get(), values))

    def _place(self, room: int, line: ir.Value, k: ir.Value) -> ir.Value:
        e, item = self.e, storage_type(self.dtypes[room])
        at = e.add(e.mul(line, index(self.split.chunks + 1)), k)
        return e.builder.gep(e.parameters[self.rooms[room]], [at], inbounds=True, source_etype=item)

    def _keep(self, line: ir.Value, k: ir.Value, values: Sequence[ir.Value]) -> None:
        for room, (d, v) in enumerate(zip(self.dtypes, values)):
            self.e.builder.store(to_storage(self.e.builder, d, v), self._place(room, line, k))

    # --- the first kernel

    def totals(self, chunk: Chunk, inits: Values, increments: Increments) -> None:
        """Keeps what a chunk adds, and what the line begins with."""
        line, k, first, last = chunk
        e, b = self.e, self.e.builder
        self._put(self.nothing)
        e.stride_from(b.add(first, self.me), self.split.threads, last, lambda k: self._add(increments(k)))
        found = block_totals(e, self.join, self.dtypes, self._get())
        with b.if_then(b.icmp_unsigned("==", self.me, ZERO)):
            self._keep(line, b.add(k, index(1)), found)
            with b.if_then(b.icmp_unsigned("==", k, ZERO)):
                self._keep(line, ZERO, inits)

    # --- the second

    def before(self, line: ir.Value, chunk: ir.Value) -> Values:
        """What comes before a chunk, which all threads get."""
        e, b = self.e, self.e.builder
        self._put(self.nothing)

        def more(k: ir.Value) -> None:
            places = [self._place(room, line, k) for room in range(len(self.rooms))]
            self._add([from_storage(b, d, b.load(p, typ=storage_type(d))) for p, d in zip(places, self.dtypes)])

        e.stride_from(self.me, self.split.threads, b.add(chunk, index(1)), more)
        found = block_totals(e, self.join, self.dtypes, self._get())
        barrier(e)
        return found

    def run(
        self,
        first: ir.Value,
        last: ir.Value,
        start: Values,
        increments: Increments,
        body: Callable[[ir.Value, Values], None],
    ) -> Values:
        """``body(k, numbers)`` for all rounds of a chunk; what all of them have made of ``start``."""
        e, b = self.e, self.e.builder
        carried = [e.slot(value_type(d)) for d in self.dtypes]
        for slot, v in zip(carried, start):
            b.store(v, slot)
        line = Line(e, self.dtypes, self.split.threads // WARP)

        def tile(base: ir.Value) -> None:
            k = b.add(base, self.me)
            is_there = b.icmp_signed("<", k, last)
            self._put(self.nothing)
            with b.if_then(is_there):
                self._put(increments(k))
            mine = self._inclusive(self._get())
            sums = [b.load(slot, typ=value_type(d)) for slot, d in zip(carried, self.dtypes)]
            before, total = self._of_warps(line, mine, sums)
            numbers = self.join(before, self._shifted(mine))
            there, done = e.new_block("round"), e.new_block("rounds")
            b.cbranch(is_there, there, done)
            b.position_at_end(there)
            e.joined = done
            body(k, numbers)
            e.joined = None
            b.branch(done)
            b.position_at_end(done)
            for slot, v in zip(carried, total):
                b.store(v, slot)
            barrier(e)

        e.stride_from(first, self.split.threads, last, tile)
        return [b.load(slot, typ=value_type(d)) for slot, d in zip(carried, self.dtypes)]

    def _inclusive(self, values: Values) -> Values:
        """For each thread of a warp, what the threads up to it have."""
        b, lane = self.e.builder, lane_of(self.e, self.me)
        for by in (1, 2, 4, 8, 16):
            joined = self.join([shuffle(self.e, v, by, "up") for v in values], values)
            is_behind = b.icmp_unsigned(">=", lane, index(by))
            values = [b.select(is_behind, j, v) for j, v in zip(joined, values)]
        return values

    def _shifted(self, values: Values) -> Values:
        """What the thread before has."""
        b = self.e.builder
        is_first = b.icmp_unsigned("==", lane_of(self.e, self.me), ZERO)
        moved = [shuffle(self.e, v, 1, "up") for v in values]
        return [b.select(is_first, n, v) for n, v in zip(self.nothing, moved)]

    def _of_warps(self, line: Line, mine: Values, start: Values) -> tuple[Values, Values]:
        """``start`` with what the warps before this one have, and with what all have."""
        e, b = self.e, self.e.builder
        warp = b.lshr(self.me, index(5))
        with b.if_then(b.icmp_unsigned("==", lane_of(e, self.me), index(WARP - 1))):
            line.put(warp, mine)
        barrier(e)
        before, total = start, start
        for w in range(self.split.threads // WARP):
            total = self.join(total, line.get(index(w)))
            is_mine = b.icmp_unsigned(">", warp, index(w))
            before = [b.select(is_mine, t, v) for t, v in zip(total, before)]
        return before, total


def lane_of(e: KernelEmitter, thread: ir.Value) -> ir.Value:
    """The number of a thread in its warp."""
    return e.builder.and_(thread, index(WARP - 1))
