"""Reductions by groups of threads that work together: a warp or a block for each element of the result.

Each thread of a group combines every n-th element, so that threads side by side read memory side by side; then the
group combines what its threads have. Where there are few results, several groups share one: the last of them to be done
combines their parts (as in the sample ``threadFenceReduction`` of the "CUDA C++ Programming Guide"), or a second kernel
where elements may fail, for then not all of them come. The order of all this is fixed, so results are the same in every
run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import FAILING, Needs
from dflow.backends.cuda.kernels.cooperative import WARP, Line, barrier, block_totals, shared, warp_totals
from dflow.backends.cuda.kernels.folds import At, Element, Fold, all_ops, as_fold, count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.kernels.memory import RELAXED
from dflow.backends.cuda.kernels.tails import emit_tail
from dflow.backends.cuda.plan import Pointer
from dflow.backends.emit.kernel import write
from dflow.backends.emit.types import I32, VOID, ZERO, from_storage, index, storage_type, to_storage, value_type
from dflow.ir.core import Op, walk

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

THREADS = 256
AHEAD = 4  # elements that are read before the first is used
BYTES_AHEAD, MOST_AHEAD = 32, 8  # as far as these are more; of small elements there are
EACH = 8  # elements that a thread should have before more groups share a result
MOST_GROUPS = 1024  # that share results
NARROW = 8  # columns of a product, with fewer of which the rows of the first factor are read side by side
FEW = 32  # elements up to which one thread is enough for a result
MANY_RESULTS = 1 << 17  # from here on one thread a result is enough where that reads memory side by side
MOST_BLOCKS = 1 << 16
SHARED_BYTES = 40 << 10  # of a block, for what its threads have combined


def is_shared(op: Op) -> bool:
    """Whether groups of threads should work on each result of a reduction, rather than one thread."""
    fold = as_fold(op)
    if fold is None:
        return False
    kept, inner = count(fold.kept), count(fold.inner)
    if kept == 0 or inner <= FEW or kept * inner < THREADS:
        return False
    return kept < MANY_RESULTS or not _reads_along_results(op)


def _reads_along_results(op: Op) -> bool:
    """Whether threads side by side, one a result, would read memory side by side."""
    if op.name == "matmul":
        return count(op.result.type.shape[-1:]) >= NARROW
    if op.name == "reduce":
        return op.operands[0].type.rank - 1 not in op.attrs["axes"]
    if op.name in ("argmax", "argmin"):
        return bool(op.operands[0].type.rank - 1 != op.attrs["axis"])
    (region,) = op.regions
    cut = len(op.attrs["domain"]) - op.attrs["reduced"]
    inner = set(region.args[cut:])
    return not any(o.name == "extract" and o.operands[-1] in inner for o in all_ops(region))


def emit_fold(s: Scheduler, op: Op) -> None:
    """Adds the steps for a reduction to those of the scheduler."""
    fold = as_fold(op)
    assert fold is not None
    kept, inner = count(fold.kept), count(fold.inner)
    has_room = THREADS * sum(d.itemsize for d in fold.dtypes) <= SHARED_BYTES
    columns = min(WARP, 1 << (kept - 1).bit_length()) if _reads_along_results(op) and has_room else 1
    group = WARP if columns == 1 and inner <= 1024 and kept >= THREADS // WARP else THREADS
    tiles = -(-kept // columns)
    parts = max(1, min(inner * columns // (group * EACH), MOST_GROUPS // tiles)) if group == THREADS else 1
    rooms = [s.places.room(kept * parts * d.itemsize) for d in fold.dtypes] if parts > 1 else []
    meets = bool(rooms) and not any(o.name in FAILING for r in op.regions for o in walk(r))
    counters = [s.places.counters(tiles)] if meets else []
    targets = [*rooms, *counters, *([] if rooms and not meets else _results(s, op))]
    needs = Needs(s.context, [op]) if rooms and not meets else s.context.needs(op)
    e = KernelEmitter(s.context, "fold", "lanes", needs, *_grid(tiles * parts, group), targets)
    e.loc = op.loc
    e.recall([op])
    meeting = Meeting(e, counters[0], parts, rooms) if meets else None
    if columns > 1:
        Columns(e, fold, columns).run(parts, rooms, meeting)
    else:
        groups = _Groups(e, fold, group)
        groups.run(e.mul(e.product(fold.kept), index(parts)), groups.elements(parts), rooms, meeting)
    s.steps.append(e.finish())
    if rooms and not meets:
        _combine_parts(s, op, fold, parts, rooms)


def _results(s: Scheduler, op: Op) -> list[Pointer]:
    direct = [p for r in op.results for p in s.context.direct.get(r, ())]
    return [*direct, *(p for p, _ in s.context.tails[op].results)] if op in s.context.tails else direct


def _grid(groups: int, group: int) -> tuple[int, int]:
    return min(MOST_BLOCKS, max(1, -(-groups * group // THREADS))), THREADS


def _combine_parts(s: Scheduler, op: Op, fold: Fold, parts: int, rooms: list[Pointer]) -> None:
    targets = [*rooms, *_results(s, op)]
    e = KernelEmitter(s.context, "combine", "lanes", s.context.needs(op), *_grid(count(fold.kept), WARP), targets)
    e.loc = op.loc
    e.recall([op])
    groups = _Groups(e, fold, WARP)
    groups.run(e.product(fold.kept), groups.parts(parts, rooms), [])
    s.steps.append(e.finish())


class Meeting:
    """Where the ``parts`` groups that share results meet, each a block: ``counter`` says how many are done."""

    def __init__(self, e: KernelEmitter, counter: Pointer, parts: int, rooms: list[Pointer]):
        self.e, self.parts, self.rooms, self.counter = e, parts, rooms, e.parameters[counter]
        self.ticket = shared(e, I32, 1)

    def is_last(self, k: ir.Value) -> ir.Value:
        """Whether this block is the last for the results number ``k``, and sees what all others have written; all of
        its threads must come here."""
        e, b, last = self.e, self.e.builder, I32(self.parts - 1)
        self._fence()
        barrier(e)
        with b.if_then(b.icmp_unsigned("==", e.register("tid.x"), ZERO)):
            here = b.gep(self.counter, [k], inbounds=True, source_etype=I32)
            b.store(b.atomic_rmw("uinc_wrap", here, last, RELAXED), self.ticket)
        barrier(e)
        self._fence()
        return b.icmp_unsigned("==", b.load(self.ticket, typ=I32), last)

    def _fence(self) -> None:
        f = self.e.module.declare_intrinsic("llvm.nvvm.membar.gl", (), ir.FunctionType(VOID, []))
        self.e.builder.call(f, [])


Combined = Callable[[ir.Value], None]


class Sharing:
    """The threads of one kernel, which keep what they have combined in ``slots``."""

    def __init__(self, e: KernelEmitter, fold: Fold):
        self.e, self.fold = e, fold
        self.slots = [e.slot(value_type(d)) for d in fold.dtypes]

    def begin(self) -> None:
        for slot, v in zip(self.slots, self.fold.start):
            self.e.builder.store(v, slot)

    def values(self) -> list[ir.Value]:
        return [self.e.builder.load(slot, typ=value_type(d)) for slot, d in zip(self.slots, self.fold.dtypes)]

    def join(self, totals: Sequence[ir.Value], values: Sequence[ir.Value]) -> list[ir.Value]:
        return self.fold.join(self.e, totals, values)

    def add(self, values: Sequence[ir.Value]) -> None:
        """Combines what is given, of ``dtypes``, with what there is."""
        for slot, v in zip(self.slots, self.join(self.values(), values)):
            self.e.builder.store(v, slot)

    def add_element(self, found: Sequence[ir.Value]) -> None:
        self.add(self.fold.taken(self.e.builder, found))

    def sweep(self, first: ir.Value, step: int, element: Element, kept: At) -> None:
        """Combines the elements number ``first``, first + ``step``, ... of a result. Where they cost little, the next
        few are read before the first is used, so that more is on its way from memory."""
        e, inner = self.e, self.fold.inner
        ahead = max(AHEAD, min(MOST_AHEAD, BYTES_AHEAD // max(r.type.dtype.itemsize for r in self.fold.results)))
        total, taken = e.product(inner), lambda k: self.fold.taken(e.builder, element([*kept, *e.positions(k, inner)]))

        def several(k: ir.Value) -> None:
            for values in [taken(e.add(k, index(step * j))) for j in range(ahead)]:
                self.add(values)

        if self.fold.is_light:
            first = e.stride_from(first, ahead * step, e.add(total, index((1 - ahead) * step)), several)
        e.stride_from(first, step, total, lambda k: self.add(taken(k)))

    def add_parts(self, result: ir.Value, first: ir.Value, step: int, parts: int, rooms: list[Pointer]) -> None:
        """Combines the parts number ``first``, first + ``step``, ... of a result, which groups have left."""
        e, b = self.e, self.e.builder

        def more(k: ir.Value) -> None:
            at = e.add(e.mul(result, index(parts)), k)
            found = []
            for p, d in zip(rooms, self.fold.dtypes):
                here = b.gep(e.parameters[p], [at], inbounds=True, source_etype=storage_type(d))
                found.append(from_storage(b, d, b.load(here, typ=storage_type(d))))
            self.add(found)

        e.stride_from(first, step, index(parts), more)

    def hand_out(self, g: ir.Value, totals: list[ir.Value], rooms: list[Pointer]) -> None:
        """Writes the result number ``g``; with ``rooms``, it is a part and goes there."""
        e, b, fold = self.e, self.e.builder, self.fold
        if rooms:
            for p, d, v in zip(rooms, fold.dtypes, totals):
                to = b.gep(e.parameters[p], [g], inbounds=True, source_etype=storage_type(d))
                b.store(to_storage(b, d, v), to)
            return
        write(e, fold.results, e.positions(g, fold.kept), fold.given(b, totals))
        for r in fold.results:
            if r.type.is_scalar:
                e.keep(r)
                for p in e.context.direct.get(r, ()):
                    b.store(to_storage(b, r.type.dtype, e.scalar(r)), e.parameters[p])
        if fold.results[0].op is not None:
            emit_tail(e, fold.results[0].op)


class _Groups(Sharing):
    """The groups of one kernel, each of ``size`` threads."""

    def __init__(self, e: KernelEmitter, fold: Fold, size: int):
        super().__init__(e, fold)
        b, self.size = e.builder, size
        self.thread = b.and_(e.thread, index(size - 1))
        self.first = b.lshr(e.thread, index(size.bit_length() - 1))

    def run(self, total: ir.Value, combine: Combined, rooms: list[Pointer], meeting: Meeting | None = None) -> None:
        """Does the work of all groups."""
        e, b = self.e, self.e.builder

        def one(g: ir.Value) -> None:
            self._whole(g, combine, rooms)
            if meeting is not None:
                result = b.udiv(g, index(meeting.parts))
                with b.if_then(meeting.is_last(result)):
                    self._whole(result, self.parts(meeting.parts, rooms), [])
            if self.size > WARP:
                barrier(e)  # before the shared memory is used again

        e.stride_from(self.first, e.blocks * e.block_size // self.size, total, one)

    def _whole(self, g: ir.Value, combine: Combined, rooms: list[Pointer]) -> None:
        """The work of one group."""
        e, b = self.e, self.e.builder
        self.begin()
        combine(g)
        if self.size == WARP:
            totals = warp_totals(e, self.join, self.values())
        else:
            totals = block_totals(e, self.join, self.fold.dtypes, self.values())
        with b.if_then(b.icmp_unsigned("==", self.thread, ZERO)):
            self.hand_out(g, totals, rooms)

    def elements(self, parts: int) -> Combined:
        """The elements of a result that fall to one of its ``parts`` groups."""
        e, b, fold = self.e, self.e.builder, self.fold
        element = fold.element(e)

        def combine(g: ir.Value) -> None:
            result = b.udiv(g, index(parts)) if parts > 1 else g
            part = b.urem(g, index(parts)) if parts > 1 else ZERO
            kept = e.positions(result, fold.kept)
            start = b.add(b.mul(part, index(self.size)), self.thread)
            self.sweep(start, parts * self.size, element, kept)

        return combine

    def parts(self, parts: int, rooms: list[Pointer]) -> Combined:
        """What the groups of the first kernel have left."""
        return lambda g: self.add_parts(g, self.thread, self.size, parts, rooms)


class Columns(Sharing):
    """Threads side by side have results side by side, ``count`` of them, and the rows of a block share each of these:
    for elements that lie side by side along the results."""

    def __init__(self, e: KernelEmitter, fold: Fold, count: int):
        super().__init__(e, fold)
        b, me, self.count, self.rows = e.builder, e.register("tid.x"), count, e.block_size // count
        self.me, self.column, self.row = me, b.and_(me, index(count - 1)), b.lshr(me, index(count.bit_length() - 1))
        self.line = Line(e, fold.dtypes, e.block_size)

    def run(self, parts: int, rooms: list[Pointer], meeting: Meeting | None) -> None:
        """Does the work of all blocks, ``parts`` of which share their results."""
        e, b, total = self.e, self.e.builder, self.e.product(self.fold.kept)
        element, most = self.fold.element(e), index(self.count - 1)

        def one(k: ir.Value) -> None:
            tile, part = (b.udiv(k, index(parts)), b.urem(k, index(parts))) if parts > 1 else (k, ZERO)
            result = e.add(e.mul(tile, index(self.count)), self.column)
            is_there = b.icmp_signed("<", result, total)

            def elements() -> None:
                kept = e.positions(result, self.fold.kept)
                start = e.add(e.mul(part, index(self.rows)), self.row)
                self.sweep(start, parts * self.rows, element, kept)

            g = e.add(e.mul(result, index(parts)), part) if parts > 1 else result
            self._whole(is_there, elements, g, rooms)
            if meeting is not None:
                with b.if_then(meeting.is_last(tile)):
                    left = lambda: self.add_parts(result, self.row, self.rows, parts, rooms)  # noqa: E731
                    self._whole(is_there, left, result, [])

        tiles = b.lshr(e.add(total, most), index(self.count.bit_length() - 1))
        e.stride_from(e.register("ctaid.x"), e.blocks, e.mul(tiles, index(parts)), one)

    def _whole(self, is_there: ir.Value, combine: Callable[[], None], g: ir.Value, rooms: list[Pointer]) -> None:
        """The results side by side of one block, or the parts of them."""
        e, b = self.e, self.e.builder
        self.begin()
        with b.if_then(is_there):
            combine()
        self.line.put(self.me, self.values())
        barrier(e)
        with b.if_then(b.and_(is_there, b.icmp_unsigned("==", self.row, ZERO))):
            for row in range(1, self.rows):
                self.add(self.line.get(e.add(self.column, index(row * self.count))))
            self.hand_out(g, self.values(), rooms)
        barrier(e)
