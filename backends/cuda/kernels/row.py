"""Loops over arrays whose elements never meet: one thread an element, the loop inside.

    %acc, %out = for %n, %zero, %y { (%k, %a, %o)              every thread has one i (or several), all rounds of it,
      %b = kernel {domain = (m,)} { (%i) ... %a[%i] ... }      and %a[%i] in a register
      %p = update %o, %b, %k {index = ("at", "all")} ...

Running sums along an axis are such loops, and their derivatives; so is a method that steps forward many systems at once
which are held as arrays. The proof is about memory: all tensors that the loop writes are read and written at the
thread's own element only (along some of their axes; along the others, wherever), and no two of them overlap. Numbers
are computed by every thread; where they are written to tensors, nobody reads those before the loop is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.folds import count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.emit.core import Domain, Index
from dflow.backends.emit.types import ZERO, index, storage_type, to_storage
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.registry import OPS

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

THREADS = 128
MOST_BLOCKS = 1 << 14


def find_rows(op: Op, context: Context) -> tuple[int, ...] | None:
    """The shape whose elements are threads, if a ``for`` is such a loop."""
    if op.name != "for":
        return None
    if op not in context.rows:
        proof = _Proof(op, context)
        context.rows[op] = proof.shape if proof.run() else None
    return context.rows[op]


class _Proof:
    """``places``: how each buffer is reached, as the axis of the thread's element along each axis, None for others."""

    def __init__(self, op: Op, context: Context):
        self.op, self.context, self.buffers = op, context, context.plan.buffers
        self.needs = Needs(context, [op])
        self.shape: tuple[int, ...] | None = None
        self.places: dict[tensors.Buffer, set[tuple[int | None, ...]]] = {}
        self.written: set[tensors.Buffer] = set()
        self.elsewhere: set[tensors.Buffer] = set()  # read at elements of other threads, or of all
        self.common: set[tensors.Buffer] = set()  # to which numbers are written that all threads have

    def run(self) -> bool:
        if not self._block(self.op.regions[0]) or self.shape is None:
            return False
        for b in self.written:
            (place, *others) = self.places.get(b, {()})
            if others or b in self.elsewhere or sorted(k for k in place if k is not None) != self._all:
                return False
        return self.common.isdisjoint({*self.elsewhere, *self.places}) and not self._overlap()

    @property
    def _all(self) -> list[int]:
        return list(range(len(self.shape or ())))

    def _overlap(self) -> bool:
        """Whether two buffers of the arena lie in the same place, one after the other in a round."""
        local = {b for b in self.written if b.type.shape == self.shape and self.needs.is_local(self.context, b)}
        kept = [b for b in self.needs.buffers(self.context) if b.space == "arena" and b not in local]
        kept.sort(key=lambda b: b.offset)
        return any(x.offset + x.bytes > y.offset for x, y in pairwise(kept))

    def _block(self, block: Block) -> bool:
        return all(self._op(op) for op in block.ops)

    def _op(self, op: Op) -> bool:
        if any(v.type.grows or not v.type.is_static for v in (*op.operands, *op.results)):
            return False
        if op.name in ("for", "if"):
            return all(self._block(r) for r in op.regions)
        if op.name == "kernel":
            return self._kernel(op)
        if op.name in ("update", "update_add"):
            x, v, *_ = op.operands
            if not v.type.rank:
                self.common.add(self.buffers[x])
                return all(e == "at" for e in op.attrs["index"])
            return self._is_whole(v) and self._part(x, op.attrs["index"], writes=True)
        if op.name == "extract":
            return self._extract(op)
        if op.name == "empty" or (op.name == "constant" and op.result not in self.buffers):
            return True
        if op.name == "copy" or (op.name in OPS and OPS[op.name].elementwise):
            whole = [v for v in (*op.operands, *op.results) if v.type.rank]
            self.written.update(self.buffers[r] for r in op.results if r.type.rank)
            return not whole or (op.result.type.rank > 0 and all(self._is_whole(v) for v in whole))
        return False

    def _is_whole(self, v: Value) -> bool:
        """Whether a tensor has an element for every thread, which is noted."""
        if not v.type.rank:
            return False
        self.shape = self.shape or v.type.static_shape
        self._note(v, tuple(range(v.type.rank)))
        return v.type.static_shape == self.shape

    def _note(self, v: Value, place: tuple[int | None, ...]) -> None:
        if v in self.buffers:
            self.places.setdefault(self.buffers[v], set()).add(place)

    def _part(self, x: Value, entries: Sequence[Any], writes: bool) -> bool:
        axes = iter(range(x.type.rank))
        if any(e not in ("at", "all") for e in entries):
            return False
        self._note(x, tuple(next(axes) if e == "all" else None for e in entries))
        if writes:
            self.written.add(self.buffers[x])
        return True

    def _extract(self, op: Op) -> bool:
        x = op.operands[0]
        if op.result.type.rank == 0:
            self._read_elsewhere(x)
            return True
        self.written.add(self.buffers[op.result])
        return self._is_whole(op.result) and self._part(x, op.attrs["index"], writes=False)

    def _read_elsewhere(self, x: Value) -> None:
        if x in self.buffers:
            self.elsewhere.add(self.buffers[x])

    def _kernel(self, op: Op) -> bool:
        (region,) = op.regions
        if op.attrs["reduced"] or not all(self._is_whole(r) for r in op.results):
            return False
        self.written.update(self.buffers[r] for r in op.results)
        inside = list(walk(region))
        made = {*(r for o in inside for r in o.results), *(a for o in inside for r in o.regions for a in r.args)}
        for o in inside:
            if o.name != "extract":
                if any(v.type.rank for v in (*o.operands, *o.results)):
                    return False
                continue
            x, *starts = o.operands
            if any(e != "at" for e in o.attrs["index"]) or x.type.grows:
                return False
            place = tuple(region.args.index(v) if v in region.args else None for v in starts)
            if any(v in made for v in starts) or sorted(k for k in place if k is not None) != self._all:
                self._read_elsewhere(x)
            else:
                self._note(x, place)
        return True


def find_fills(op: Op, context: Context) -> dict[Value, Value]:
    """What the loop begins with that is a number in all elements, and wanted by nobody else: with that number. The
    threads begin with it, and no memory is filled.

    %zero = kernel { (%i) yield %0 }; %y = for %n, %zero { (%k, %a) ... }
    """
    buffers, shape, found = context.plan.buffers, find_rows(op, context), {}
    made = (v for o in walk(op.regions[0]) for v in o.results if v.type.rank and v.type.shape == shape)
    own = {buffers.get(v) for v in made}  # those that are in registers
    for init in op.operands[1:]:
        if init.op is None or init.op.name != "kernel" or init.type.shape != shape or buffers.get(init) not in own:
            continue
        if context.used_by(init) == {op}:
            (region,) = init.op.regions
            (v, *others) = region.results
            if not others and not region.ops and v.op is not None and v.op.name == "constant":
                found[init] = v
    return found


def emit_rows(s: Scheduler, op: Op) -> None:
    """Adds the step for such a loop to those of the scheduler."""
    shape = find_rows(op, s.context)
    assert shape is not None
    blocks = min(MOST_BLOCKS, -(-count(shape) // THREADS))
    e = RowEmitter(s.context, "rows", "grid", Needs(s.context, [op]), blocks, THREADS)
    e.loc = op.loc
    e.recall([op])
    e.rows(op, shape)
    s.steps.append(e.finish())


class RowEmitter(KernelEmitter):
    """Writes such a loop. ``own`` are the registers for the thread's element of tensors that have one for each."""

    own: dict[tensors.Buffer, ir.Value] = {}  # noqa: RUF012 (replaced, never changed)
    row: Index = ()

    def rows(self, op: Op, shape: tuple[int, ...]) -> None:
        buffers, inside = self.plan.buffers, self.needs.inside
        slots, made = self.slots_of(op, shape)
        given = {v for v in (*op.operands, *free_values(op.regions[0])) if v.type.rank and v not in inside}
        read = {buffers[v] for v in given if v in buffers and not (v.op is not None and v.op.name == "empty")}
        fills = {buffers[v]: x for v, x in find_fills(op, self.context).items()}

        def one(k: ir.Value) -> None:
            self.row, self.is_first = self.positions(k, shape), self.builder.icmp_unsigned("==", k, ZERO)
            at = {b: super(RowEmitter, self).address(v, self.row) for v in made if (b := buffers[v]) in slots}
            for b, slot in slots.items():
                if b in fills:
                    dtype = b.type.dtype
                    self.builder.store(to_storage(self.builder, dtype, self.scalar(fills[b])), slot)
                elif b in read:
                    self._move(b, at[b], slot)
            self.own = slots
            self.op(op)
            self.own = {}
            for b, slot in slots.items():
                if not self.needs.is_local(self.context, b):
                    self._move(b, slot, at[b])
            with self.builder.if_then(self.is_first):
                for r in op.results:
                    if r.type.is_scalar and self.context.escapes(r, self.needs.blocks):
                        self.keep(r)

        self.stride(index(count(shape)), one)

    def slots_of(self, op: Op, shape: tuple[int, ...]) -> tuple[dict[tensors.Buffer, ir.Value], set[Value]]:
        """Registers for the tensors that have an element for each thread and are written; all such tensors."""
        buffers = self.plan.buffers
        made = {v for v in self.needs.inside if v.type.rank and v in buffers and v.type.shape == shape}
        written = dict.fromkeys(buffers[v] for o in walk(op.regions[0]) for v in o.results if v in made)
        return {b: self.slot(storage_type(b.type.dtype)) for b in written}, made

    def _move(self, b: tensors.Buffer, source: ir.Value, target: ir.Value) -> None:
        self.builder.store(self.builder.load(source, typ=storage_type(b.type.dtype)), target)

    def address(self, x: Value, at: Index, *, write: bool = False) -> ir.Value:
        slot = self.own.get(self.plan.buffers.get(x))  # type: ignore[arg-type]
        return super().address(x, at, write=write) if slot is None else slot

    def op(self, op: Op) -> None:
        if op.name in ("update", "update_add") and not op.operands[1].type.rank:
            with self.builder.if_then(self.is_first):  # a number that all threads have
                super().op(op)
        else:
            super().op(op)

    def nest(self, shape: Domain, body: Any, ops: int = 1, hints: ir.MDValue | None = None) -> None:
        body(list(self.row) if shape else [])
