"""Running sums along an axis: loops over arrays of which each round adds to an array, element by element.

    %acc, %out = for %n, %zero, %y { (%k, %a, %o)
      %b = kernel {domain = (m,)} { (%i) yield %a[%i] + %x[%i, %k] }
      %p = update %o, %b, %k {index = ("all", "at")} ...

With a thread for each element (`row.py`), a few long rows would have few threads, and threads side by side would
read memory apart from each other where the axis is the last. Here the rounds of an element are shared by the threads of
one or several blocks, as those of a running sum are (`scan.py`). The proof is that of a loop over arrays, and,
but for the arrays that are added to, that of a parallel loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.analysis.rounds import SUMMED
from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.folds import accumulated, count
from dflow.backends.cuda.kernels.row import RowEmitter, find_rows
from dflow.backends.cuda.kernels.scan import Scanner, Split
from dflow.backends.cuda.planning.lanes import SCANNED, are_apart, rounds
from dflow.backends.emit.core import Emitter
from dflow.backends.emit.scalar import convert, emit_scalar
from dflow.backends.emit.types import ZERO, constant, index
from dflow.ir.core import Op, Value, free_values
from dflow.ir.registry import OPS
from dflow.ir.types import HALVES, DType

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

THREADS = 256
LEAST = 64  # rounds
MANY = 1 << 13  # elements of which a thread each is enough


@dataclass(frozen=True)
class Running:
    """What is added to a carried tensor: ``kernel`` combines each element with ``increment``, which the operations
    ``ops`` of its region compute; ``before`` are those of the round that they need."""

    kernel: Op
    increment: Value
    ops: tuple[Op, ...]
    before: tuple[Op, ...]
    kind: str
    is_subtracted: bool


def find_row_scan(op: Op, context: Context) -> dict[int, Running] | None:
    """The running sums of a loop, by the position of what is carried, if sharing its rounds is possible and good."""
    shape = find_rows(op, context)
    if shape is None or rounds(op) < LEAST or (count(shape) >= MANY and not _is_along(op)):
        return None
    if op not in context.row_scans:
        context.row_scans[op] = _find(op, shape, context)
    return context.row_scans[op]


def _is_along(op: Op) -> bool:
    """Whether a round reads or writes elements that lie apart from each other."""
    return any(o.name in ("update", "update_add") and o.attrs["index"][-1] == "at" for o in op.regions[0].ops)


def _find(op: Op, shape: tuple[int, ...], context: Context) -> dict[int, Running] | None:
    (body,) = op.regions
    _, *carried = body.args
    if any(not a.type.rank for a in carried) or any(o.regions and o.name != "kernel" for o in body.ops):
        return None
    wanted = [i for i, (a, y) in enumerate(zip(carried, body.results)) if a.type.shape == shape and y is not a]
    sums = {carried[i] for i in wanted}
    found = {i: _running(op, carried[i], body.results[i], sums) for i in wanted}
    buffers = {context.plan.buffers[a] for a in sums}
    if not found or None in found.values() or not are_apart(op, context, buffers):
        return None
    return {i: f for i, f in found.items() if f is not None}


def _running(op: Op, a: Value, y: Value, sums: set[Value]) -> Running | None:
    (body,) = op.regions
    kernel = y.op
    if kernel is None or kernel.name != "kernel" or kernel not in body.ops or not _is_summed(a.type.dtype):
        return None
    (region,) = kernel.regions
    element = region.results[kernel.results.index(y)].op
    if element is None or element.name not in SCANNED or element not in region.ops:
        return None
    parts = list(element.operands)
    if element.name != "sub" and _is_element(parts[1], a, region.args):
        parts.reverse()
    total, increment = parts
    ops, before = set[Op](), set[Op]()
    if not _is_element(total, a, region.args) or not _collect(increment, [*region.ops], [*body.ops], sums, ops, before):
        return None
    inside, before_it = (tuple(o for o in b.ops if o in chosen) for b, chosen in ((region, ops), (body, before)))
    return Running(kernel, increment, inside, before_it, SCANNED[element.name], element.name == "sub")


def _is_summed(dtype: DType) -> bool:
    return dtype.name in SUMMED or dtype in HALVES


def _is_element(v: Value, a: Value, args: tuple[Value, ...]) -> bool:
    """Whether ``v`` is the element of ``a`` that a kernel computes."""
    return v.op is not None and v.op.name == "extract" and v.op.operands == (a, *args)


def _collect(v: Value, inner: list[Op], outer: list[Op], sums: set[Value], ops: set[Op], before: set[Op]) -> bool:
    """Finds what computes a value; False where that needs what earlier rounds have made."""
    if v in sums:
        return False
    for block, chosen in ((inner, ops), (outer, before)):
        if v.op in block:
            assert v.op is not None
            if v.op.name not in ("extract", "constant", "kernel") and not OPS[v.op.name].elementwise:
                return False
            chosen.add(v.op)
            needed = [*v.op.operands, *free_values(*v.op.regions)]
            return all(_collect(x, inner, outer, sums, ops, before) for x in needed)
    return True


def emit_row_scan(s: Scheduler, op: Op) -> None:
    """Adds the steps for such a loop to those of the scheduler."""
    shape, scans = find_rows(op, s.context), find_row_scan(op, s.context)
    assert shape is not None and scans is not None
    split = Split.of(count(shape), rounds(op), THREADS)
    dtypes = [accumulated(op.operands[1 + i].type.dtype) for i in scans]
    rooms = [s.places.room(split.places * d.itemsize) for d in dtypes] if split.chunks > 1 else []
    for what in ("totals", "rowscan") if rooms else ("rowscan",):
        e = RowScanEmitter(s.context, what, "grid", Needs(s.context, [op]), split.blocks, split.threads, rooms, False)
        e.loc = op.loc
        e.recall([op])
        e.scan(op, shape, scans, Scanner(e, split, [r.kind for r in scans.values()], dtypes, rooms), what == "totals")
        s.steps.append(e.finish())


class RowScanEmitter(RowEmitter):
    """Writes such a loop."""

    stays_together = True

    def scan(self, op: Op, shape: tuple[int, ...], scans: dict[int, Running], scanner: Scanner, first: bool) -> None:
        """The kernel that adds up what each chunk adds, if it is the ``first``; else the loop."""
        self.scanned, self.scans, self.rooms = op, scans, scanner.rooms
        slots = self.slots_of(op, shape)[0]

        def chunk(line: ir.Value, k: ir.Value, start: ir.Value, stop: ir.Value) -> None:
            self.row, self.is_first = self.positions(line, shape), self.builder.icmp_unsigned("==", line, ZERO)
            carried = [op.operands[1 + i] for i in scans]
            at = [Emitter.address(self, v, self.row, write=True) for v in carried]
            self.own = slots
            if first or not self.rooms:
                inits = [self._wide(v, self.load_at(v, p)) for v, p in zip(carried, at)]
            if first:
                scanner.totals((line, k, start, stop), inits, self._increments)
            else:
                before = scanner.before(line, k) if self.rooms else inits
                found = scanner.run(start, stop, before, self._increments, self._round)
                with self.builder.if_then(self._is_last(k, scanner)):
                    for v, p, value in zip(carried, at, found):
                        self.store_at(v, p, self._narrow(v, value))
            self.own = {}

        scanner.each(self.env[op.operands[0]], chunk)

    def _is_last(self, chunk: ir.Value, scanner: Scanner) -> ir.Value:
        b = self.builder
        is_last = b.icmp_unsigned("==", chunk, index(scanner.split.chunks - 1))
        return b.and_(is_last, b.icmp_unsigned("==", scanner.me, ZERO))

    def _increments(self, k: ir.Value) -> list[ir.Value]:
        """What the round ``k`` adds to the element at hand."""
        self.env[self.scanned.regions[0].args[0]] = k
        found, done = list[ir.Value](), set[Op]()
        for position, r in self.scans.items():
            for o in r.before:
                if o not in done:
                    self.op(o)
                    done.add(o)
            self.env.update(zip(r.kernel.regions[0].args, self.row))
            for o in r.ops:
                self.op(o)
            d, value = self.scanned.operands[1 + position].type.dtype, self.scalar(r.increment)
            if r.is_subtracted:
                value = emit_scalar(self.builder, "sub", {}, [d, d], [constant(d, 0), value])
            found.append(self._wide(self.scanned.operands[1 + position], value))
        return found

    def _wide(self, v: Value, value: ir.Value) -> ir.Value:
        """An element as what it is added up in."""
        return convert(self.builder, v.type.dtype, accumulated(v.type.dtype), value)

    def _narrow(self, v: Value, value: ir.Value) -> ir.Value:
        return convert(self.builder, accumulated(v.type.dtype), v.type.dtype, value)

    def _round(self, k: ir.Value, numbers: list[ir.Value]) -> None:
        (body,) = self.scanned.regions
        self.env[body.args[0]] = k
        for position, value in zip(self.scans, numbers):
            a = body.args[1 + position]
            slot = self.own[self.plan.buffers[a]]
            self.store_at(a, slot, self._narrow(a, value))
        self.block(body)
