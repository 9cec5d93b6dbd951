"""Reductions by groups of threads that work together: a warp or a block for each element of the result.

Each thread of a group combines every n-th element, so that threads side by side read memory side by side; then the
group combines what its threads have. Where there are few results, several groups share one, and a second kernel
combines their parts. The order of all this is fixed, so results are the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Needs
from dflow.backends.cuda.cooperative import WARP, Line, barrier, block_totals, by_kind, warp_totals
from dflow.backends.cuda.kernel import KernelEmitter
from dflow.backends.cuda.plan import Pointer
from dflow.backends.emit_kernel import identity, write
from dflow.backends.emit_scalar import convert, emit_scalar, int_compare, is_nan
from dflow.backends.emit_types import ZERO, constant, from_storage, index, storage_type, to_storage, value_type
from dflow.ir.core import Block, Op, Value
from dflow.ir.types import F16, F32, U8, Dim, DType, Size
from dflow.ir.types import I64 as INDEX

if TYPE_CHECKING:
    from dflow.backends.cuda.schedule import Scheduler

THREADS = 256
EACH = 8  # elements that a thread should have before more groups share a result
MOST_GROUPS = 1024  # that share results
NARROW = 8  # columns of a product, with fewer of which the rows of the first factor are read side by side
FEW = 32  # elements up to which one thread is enough for a result
MANY_RESULTS = 1 << 17  # from here on one thread a result is enough where that reads memory side by side
MOST_BLOCKS = 1 << 16

At = list[ir.Value]
Element = Callable[[At], list[ir.Value]]


@dataclass(frozen=True)
class Fold:
    """A reduction: results over the axes ``kept``, each combined from elements over the axes ``inner``."""

    results: tuple[Value, ...]
    kept: tuple[Dim, ...]
    inner: tuple[Dim, ...]
    combine: tuple[str, ...]
    element: Callable[[KernelEmitter], Element]

    @property
    def dtypes(self) -> list[DType]:
        """Those in which the elements are combined."""
        return [accumulated(r.type.dtype) for r in self.results]

    @property
    def start(self) -> list[ir.Value]:
        """What nothing is combined to."""
        return [identity(kind, d) for kind, d in zip(self.combine, self.dtypes)]

    def taken(self, b: ir.IRBuilder, found: Sequence[ir.Value]) -> list[ir.Value]:
        """An element as one of ``dtypes``."""
        return [convert(b, r.type.dtype, d, v) for r, d, v in zip(self.results, self.dtypes, found)]

    def join(self, e: KernelEmitter, totals: Sequence[ir.Value], values: Sequence[ir.Value]) -> list[ir.Value]:
        return by_kind(e, self.combine, self.dtypes)(totals, values)

    def given(self, b: ir.IRBuilder, totals: Sequence[ir.Value]) -> list[ir.Value]:
        """The results."""
        return [convert(b, d, r.type.dtype, v) for d, r, v in zip(self.dtypes, self.results, totals)]


@dataclass(frozen=True)
class Extreme(Fold):
    """The position of the largest or smallest element, the first of several; the first NaN, if there is one.

    What is combined are pairs of an element and its position, in any order.
    """

    of: DType
    sign: str

    @property
    def dtypes(self) -> list[DType]:
        return [self.of, INDEX]

    @property
    def start(self) -> list[ir.Value]:
        return [identity("max" if self.sign == ">" else "min", self.of), constant(INDEX, 2**63 - 1)]

    def taken(self, b: ir.IRBuilder, found: Sequence[ir.Value]) -> list[ir.Value]:
        return list(found)

    def join(self, e: KernelEmitter, totals: Sequence[ir.Value], values: Sequence[ir.Value]) -> list[ir.Value]:
        b, (best, at), (v, k) = e.builder, totals, values
        if self.of.is_float:
            beats, same = b.fcmp_ordered(self.sign, v, best), b.fcmp_ordered("==", v, best)
            no_best, no_v = is_nan(b, best), is_nan(b, v)
            beats = b.or_(beats, b.and_(no_v, b.not_(no_best)))
            same = b.or_(same, b.and_(no_v, no_best))
        else:
            beats, same = int_compare(b, self.of, self.sign, v, best), b.icmp_unsigned("==", v, best)
        wins = b.or_(beats, b.and_(same, b.icmp_signed("<", k, at)))
        return [b.select(wins, v, best), b.select(wins, k, at)]

    def given(self, b: ir.IRBuilder, totals: Sequence[ir.Value]) -> list[ir.Value]:
        return [totals[1]]


def accumulated(dtype: DType) -> DType:
    """The dtype in which elements are added up: sums of many f16 need room."""
    return F32 if dtype == F16 else dtype


def as_fold(op: Op) -> Fold | None:
    """The reduction that an operation is, if it is one."""
    if op.name == "kernel" and op.attrs["reduced"]:
        domain, reduced = op.attrs["domain"], op.attrs["reduced"]
        cut = len(domain) - reduced
        return Fold(op.results, domain[:cut], domain[cut:], op.attrs["combine"], lambda e: _of_kernel(e, op))
    if op.name == "reduce" and op.attrs["axes"] and op.operands[0].type.rank:
        (x,), axes = op.operands, op.attrs["axes"]
        kept = tuple(k for k in range(x.type.rank) if k not in axes)
        order = (*kept, *axes)
        sizes = [tuple(x.type.shape[k] for k in part) for part in (kept, axes)]
        return Fold(op.results, sizes[0], sizes[1], (op.attrs["kind"],), lambda e: _of_tensor(e, x, order))
    if op.name == "matmul":
        k = op.operands[0].type.shape[-1]
        return Fold(op.results, op.result.type.shape, (k,), ("sum",), lambda e: _of_product(e, op))
    if op.name in ("argmax", "argmin"):
        return _as_extreme(op)
    return None


def _as_extreme(op: Op) -> Extreme:
    (x,), axis = op.operands, op.attrs["axis"]
    kept = tuple(d for k, d in enumerate(x.type.shape) if k != axis)
    dtype = U8 if x.type.dtype.kind == "b" else x.type.dtype

    def element(e: KernelEmitter) -> Element:
        def pair(at: At) -> list[ir.Value]:
            *others, k = at
            found = e.load(x, [*others[:axis], k, *others[axis:]])
            return [to_storage(e.builder, x.type.dtype, found), k]

        return pair

    sign = ">" if op.name == "argmax" else "<"
    return Extreme(op.results, kept, (x.type.shape[axis],), (), element, dtype, sign)


def _of_product(e: KernelEmitter, op: Op) -> Element:
    x, y = op.operands

    def element(at: At) -> list[ir.Value]:
        *batch, i, j, k = at
        factors = [e.load(x, [*batch, i, k]), e.load(y, [*batch, k, j])]
        return [emit_scalar(e.builder, "mul", {}, [x.type.dtype] * 2, factors)]

    return element


def _of_kernel(e: KernelEmitter, op: Op) -> Element:
    (region,) = op.regions

    def element(at: At) -> list[ir.Value]:
        e.env.update(zip(region.args, at))
        e.block(region)
        return [e.env[v] for v in region.results]

    return element


def _of_tensor(e: KernelEmitter, x: Value, order: Sequence[int]) -> Element:
    return lambda at: [e.load(x, [at[order.index(k)] for k in range(x.type.rank)])]


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
    return not any(o.name == "extract" and o.operands[-1] in inner for o in _all(region))


def _all(block: Block) -> list[Op]:
    return [x for op in block.ops for x in (op, *(y for r in op.regions for y in _all(r)))]


def count(shape: Sequence[Dim]) -> int:
    """The number of points, sizes being at their bounds."""
    total = 1
    for d in shape:
        total *= d.bound if isinstance(d, Size) else d if isinstance(d, int) else 1
    return total


def emit_fold(s: Scheduler, op: Op) -> None:
    """Adds the steps for a reduction to those of the scheduler."""
    fold = as_fold(op)
    assert fold is not None
    kept, inner = count(fold.kept), count(fold.inner)
    columns = min(WARP, 1 << (kept - 1).bit_length()) if _reads_along_results(op) else 1
    group = WARP if columns == 1 and inner <= 1024 and kept >= THREADS // WARP else THREADS
    tiles = -(-kept // columns)
    parts = max(1, min(inner * columns // (group * EACH), MOST_GROUPS // tiles)) if group == THREADS else 1
    rooms = [s.places.room(kept * parts * d.itemsize) for d in fold.dtypes] if parts > 1 else []
    e = KernelEmitter(s.context, "fold", "lanes", Needs(s.context, [op]), *_grid(tiles * parts, group), targets=rooms)
    e.loc = op.loc
    e.recall([op])
    if columns > 1:
        Columns(e, fold, columns).run(parts, rooms)
    else:
        groups = _Groups(e, fold, group)
        groups.run(e.mul(e.product(fold.kept), index(parts)), groups.elements(parts), rooms)
    s.steps.append(e.finish())
    if rooms:
        _combine_parts(s, op, fold, parts, rooms)


def _grid(groups: int, group: int) -> tuple[int, int]:
    return min(MOST_BLOCKS, max(1, -(-groups * group // THREADS))), THREADS


def _combine_parts(s: Scheduler, op: Op, fold: Fold, parts: int, rooms: list[Pointer]) -> None:
    needs = Needs(s.context, [op])
    e = KernelEmitter(s.context, "combine", "lanes", needs, *_grid(count(fold.kept), WARP), targets=rooms)
    e.loc = op.loc
    e.recall([op])
    groups = _Groups(e, fold, WARP)
    groups.run(e.product(fold.kept), groups.parts(parts, rooms), [])
    s.steps.append(e.finish())


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


class _Groups(Sharing):
    """The groups of one kernel, each of ``size`` threads."""

    def __init__(self, e: KernelEmitter, fold: Fold, size: int):
        super().__init__(e, fold)
        b, self.size = e.builder, size
        self.thread = b.and_(e.thread, index(size - 1))
        self.first = b.lshr(e.thread, index(size.bit_length() - 1))

    def run(self, total: ir.Value, combine: Combined, rooms: list[Pointer]) -> None:
        """Does the work of all groups."""
        e, b = self.e, self.e.builder

        def one(g: ir.Value) -> None:
            self.begin()
            combine(g)
            if self.size == WARP:
                totals = warp_totals(e, self.join, self.values())
            else:
                totals = block_totals(e, self.join, self.fold.dtypes, self.values())
            with b.if_then(b.icmp_unsigned("==", self.thread, ZERO)):
                self.hand_out(g, totals, rooms)
            if self.size > WARP:
                barrier(e)  # before the shared memory is used again

        e.stride_from(self.first, e.blocks * e.block_size // self.size, total, one)

    def elements(self, parts: int) -> Combined:
        """The elements of a result that fall to one of its ``parts`` groups."""
        e, b, fold = self.e, self.e.builder, self.fold
        element = fold.element(e)

        def combine(g: ir.Value) -> None:
            result = b.udiv(g, index(parts)) if parts > 1 else g
            part = b.urem(g, index(parts)) if parts > 1 else ZERO
            kept = e.positions(result, fold.kept)
            start = b.add(b.mul(part, index(self.size)), self.thread)
            more = lambda k: self.add_element(element([*kept, *e.positions(k, fold.inner)]))  # noqa: E731
            e.stride_from(start, parts * self.size, e.product(fold.inner), more)

        return combine

    def parts(self, parts: int, rooms: list[Pointer]) -> Combined:
        """What the groups of the first kernel have left."""
        e, b, fold = self.e, self.e.builder, self.fold

        def combine(g: ir.Value) -> None:
            def more(k: ir.Value) -> None:
                at = e.add(e.mul(g, index(parts)), k)
                found = []
                for p, d in zip(rooms, fold.dtypes):
                    here = b.gep(e.parameters[p], [at], inbounds=True, source_etype=storage_type(d))
                    found.append(from_storage(b, d, b.load(here, typ=storage_type(d))))
                self.add(found)

            e.stride_from(self.thread, self.size, index(parts), more)

        return combine


class Columns(Sharing):
    """Threads side by side have results side by side, ``count`` of them, and the rows of a block share each of these:
    for elements that lie side by side along the results."""

    def __init__(self, e: KernelEmitter, fold: Fold, count: int):
        super().__init__(e, fold)
        b, me, self.count, self.rows = e.builder, e.register("tid.x"), count, e.block_size // count
        self.me, self.column, self.row = me, b.and_(me, index(count - 1)), b.lshr(me, index(count.bit_length() - 1))
        self.line = Line(e, fold.dtypes, e.block_size)

    def run(self, parts: int, rooms: list[Pointer]) -> None:
        """Does the work of all blocks, ``parts`` of which share their results."""
        e, b, total = self.e, self.e.builder, self.e.product(self.fold.kept)
        element, most = self.fold.element(e), index(self.count - 1)

        def one(k: ir.Value) -> None:
            tile, part = (b.udiv(k, index(parts)), b.urem(k, index(parts))) if parts > 1 else (k, ZERO)
            result = e.add(e.mul(tile, index(self.count)), self.column)
            is_there = b.icmp_signed("<", result, total)
            self.begin()
            with b.if_then(is_there):
                kept = e.positions(result, self.fold.kept)
                start = e.add(e.mul(part, index(self.rows)), self.row)
                more = lambda i: self.add_element(element([*kept, *e.positions(i, self.fold.inner)]))  # noqa: E731
                e.stride_from(start, parts * self.rows, e.product(self.fold.inner), more)
            self.line.put(self.me, self.values())
            barrier(e)
            with b.if_then(b.and_(is_there, b.icmp_unsigned("==", self.row, ZERO))):
                for row in range(1, self.rows):
                    self.add(self.line.get(e.add(self.column, index(row * self.count))))
                g = e.add(e.mul(result, index(parts)), part) if parts > 1 else result
                self.hand_out(g, self.values(), rooms)
            barrier(e)

        tiles = b.lshr(e.add(total, most), index(self.count.bit_length() - 1))
        e.stride_from(e.register("ctaid.x"), e.blocks, e.mul(tiles, index(parts)), one)
