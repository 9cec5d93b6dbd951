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
from dflow.backends.cuda.cooperative import WARP, barrier, block_totals, warp_totals
from dflow.backends.cuda.kernel import KernelEmitter
from dflow.backends.cuda.plan import Pointer
from dflow.backends.emit_kernel import accumulate, identity, write
from dflow.backends.emit_scalar import convert, emit_scalar
from dflow.backends.emit_types import ZERO, from_storage, index, storage_type, to_storage, value_type
from dflow.ir.core import Block, Op, Value
from dflow.ir.types import F16, F32, Dim, DType, Size

if TYPE_CHECKING:
    from dflow.backends.cuda.schedule import Scheduler

THREADS = 256
EACH = 8  # elements that a thread should have before more groups share a result
MOST_GROUPS = 1024  # that share results
FEW = 32  # elements up to which one thread is enough for a result
MANY_RESULTS = 4096  # from here on one thread a result is enough where that reads memory side by side
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
    return None


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
        return True
    if op.name == "reduce":
        return op.operands[0].type.rank - 1 not in op.attrs["axes"]
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
    group = WARP if inner <= 1024 and kept >= THREADS // WARP else THREADS
    parts = max(1, min(inner // (group * EACH), MOST_GROUPS // kept)) if group == THREADS else 1
    rooms = [s.places.room(kept * parts * d.itemsize) for d in fold.dtypes] if parts > 1 else []
    e = KernelEmitter(s.context, "fold", "lanes", Needs(s.context, [op]), *_grid(kept * parts, group), targets=rooms)
    e.loc = op.loc
    e.recall([op])
    groups = _Groups(e, fold, group)
    groups.run(e.mul(e.product(fold.kept), index(parts)), parts, groups.elements(parts), rooms)
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
    groups.run(e.product(fold.kept), 1, groups.parts(parts, rooms), [])
    s.steps.append(e.finish())


Combined = Callable[[ir.Value, list[ir.Value]], None]


class _Groups:
    """The groups of one kernel, each of ``size`` threads."""

    def __init__(self, e: KernelEmitter, fold: Fold, size: int):
        self.e, self.fold, self.size = e, fold, size
        b = e.builder
        self.thread = b.and_(e.thread, index(size - 1))
        self.first = b.lshr(e.thread, index(size.bit_length() - 1))
        self.slots = [e.slot(value_type(d)) for d in fold.dtypes]

    def run(self, total: ir.Value, parts: int, combine: Combined, rooms: list[Pointer]) -> None:
        """Does the work of all groups; with ``rooms``, results are parts and go there."""
        e, b, fold = self.e, self.e.builder, self.fold
        step = e.blocks * e.block_size // self.size

        def one(g: ir.Value) -> None:
            for slot, kind, d in zip(self.slots, fold.combine, fold.dtypes):
                b.store(identity(kind, d), slot)
            combine(g, self.slots)
            values = [b.load(slot, typ=value_type(d)) for slot, d in zip(self.slots, fold.dtypes)]
            totals = (warp_totals if self.size == WARP else block_totals)(e, fold.combine, fold.dtypes, values)
            with b.if_then(b.icmp_unsigned("==", self.thread, ZERO)):
                self._hand_out(g, totals, rooms)
            if self.size > WARP:
                barrier(e)  # before the shared memory is used again

        e.stride_from(self.first, step, total, one)

    def _hand_out(self, g: ir.Value, totals: list[ir.Value], rooms: list[Pointer]) -> None:
        e, b, fold = self.e, self.e.builder, self.fold
        if rooms:
            for p, d, v in zip(rooms, fold.dtypes, totals):
                to = b.gep(e.parameters[p], [g], inbounds=True, source_etype=storage_type(d))
                b.store(to_storage(b, d, v), to)
            return
        values = [convert(b, d, r.type.dtype, v) for d, r, v in zip(fold.dtypes, fold.results, totals)]
        write(e, fold.results, e.positions(g, fold.kept), values)
        for r in fold.results:
            if r.type.is_scalar:
                e.keep(r)

    def _accumulate(self, found: Sequence[ir.Value]) -> None:
        e, b = self.e, self.e.builder
        for slot, kind, d, r, v in zip(self.slots, self.fold.combine, self.fold.dtypes, self.fold.results, found):
            wide = convert(b, r.type.dtype, d, v) if v.type != value_type(d) else v
            b.store(accumulate(e, kind, d, b.load(slot, typ=value_type(d)), wide), slot)

    def elements(self, parts: int) -> Combined:
        """The elements of a result that fall to one of its ``parts`` groups."""
        e, b, fold = self.e, self.e.builder, self.fold
        element = fold.element(e)

        def combine(g: ir.Value, slots: list[ir.Value]) -> None:
            result = b.udiv(g, index(parts)) if parts > 1 else g
            part = b.urem(g, index(parts)) if parts > 1 else ZERO
            kept = e.positions(result, fold.kept)
            start = b.add(b.mul(part, index(self.size)), self.thread)
            more = lambda k: self._accumulate(element([*kept, *e.positions(k, fold.inner)]))  # noqa: E731
            e.stride_from(start, parts * self.size, e.product(fold.inner), more)

        return combine

    def parts(self, parts: int, rooms: list[Pointer]) -> Combined:
        """What the groups of the first kernel have left."""
        e, b, fold = self.e, self.e.builder, self.fold

        def combine(g: ir.Value, slots: list[ir.Value]) -> None:
            def more(k: ir.Value) -> None:
                at = e.add(e.mul(g, index(parts)), k)
                found = []
                for p, d in zip(rooms, fold.dtypes):
                    here = b.gep(e.parameters[p], [at], inbounds=True, source_etype=storage_type(d))
                    found.append(from_storage(b, d, b.load(here, typ=storage_type(d))))
                self._accumulate(found)

            e.stride_from(self.thread, self.size, index(parts), more)

        return combine
