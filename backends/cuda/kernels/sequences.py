"""Sequences inside of a kernel.

A sequence has the room of its `Rows`, known at run time; it is zero up to its capacity, which is kept in memory, and
nothing beyond was written. A *tape*, which nothing reads where it was not written, needs neither: only that there is
room for what is written. Of several tapes that a block writes at one position, that is asked once.

Parts stand side by side, those of all threads or of all rounds of a parallel loop: element i of part k is at
``i * parts + k``, so that threads side by side touch memory side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Context
from dflow.backends.cuda.kernels.offsets import LANE_BITS
from dflow.backends.cuda.plan import Pointer, Rows
from dflow.backends.cuda.planning.places import row_bytes
from dflow.backends.emit.core import Index, untyped
from dflow.backends.emit.types import I8, I64, ZERO, index, storage_type, strides
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Block, Op, Value
from dflow.ir.types import TensorType

if TYPE_CHECKING:
    from dflow.backends.cuda.kernels.kernel import KernelEmitter

PASSING = frozenset({"for", "while", "if"})
WRITING = frozenset({"update", "update_add"})


def is_tape(b: tensors.Buffer, context: Context) -> bool:
    """Whether a sequence is read only where it was written, row by row."""
    values = context.values[b]
    makers = {v.op.name for v in values if v.op is not None}
    users = {user for v in values for user in context.used_by(v) if isinstance(user, Op)}
    return makers <= {"tape"} | WRITING | PASSING and all(_goes_by_rows(op, values) for op in users)


def _goes_by_rows(op: Op, values: set[Value]) -> bool:
    if op.name in PASSING:
        return True
    by_row = op.name in WRITING or op.name == "extract"
    return by_row and op.attrs["index"][0] == "at" and values.isdisjoint(op.operands[1:])


@dataclass(frozen=True)
class DeviceSequence:
    """``capacity`` is the address of the capacity, None for a tape; ``part`` that of this thread among ``parts``.

    Without ``part`` each of several parts has a capacity of its own, and the position ``(k << LANE_BITS) + j`` is row j
    of part k.
    """

    pointer: ir.Value
    type: TensorType
    number: int
    rows: ir.Value
    capacity: ir.Value | None
    parts: int = 1
    part: ir.Value | None = None

    @property
    def is_split(self) -> bool:
        return self.parts > 1 and self.part is None

    @property
    def size(self) -> int:
        """Elements of a row."""
        return row_bytes(self.type) // self.type.dtype.itemsize


class Sequences:
    """The sequences of a kernel, by their buffers; each of those in ``own`` belongs to one thread."""

    def __init__(self, e: KernelEmitter):
        self.e = e
        self.found: dict[tensors.Buffer, DeviceSequence] = {}
        self.overwrites = False  # whether what is written now are whole rows
        self._block: Block | None = None
        self._checked: frozenset[tuple[int, ir.Value]] = frozenset()  # sequences with room for positions

    def add(self, b: tensors.Buffer, p: Pointer, is_own: bool) -> None:
        e, places = self.e, self.e.context.places
        parts, part = (e.blocks * e.block_size, e.thread) if is_own else (max(1, places.lanes(b)), None)
        capacity = None
        if not is_tape(b, e.context):
            capacity = self._capacity(b, is_own)
        self.found[b] = DeviceSequence(
            e.parameters[p], b.type, p.buffer, e.parameters[Rows(p.buffer)], capacity, parts, part
        )

    def _capacity(self, b: tensors.Buffer, is_own: bool) -> ir.Value:
        e, places = self.e, self.e.context.places
        if places.lanes(b):
            return e.parameters[places.capacities(b)]
        return e.slot(I64) if is_own else e.slot_address(b)

    def of(self, x: Value) -> DeviceSequence:
        return self.found[self.e.memory.buffers[x]]

    # --- elements

    def address(self, x: Value, at: Index, *, write: bool) -> ir.Value:
        """The address of an element; writing makes it exist. Where none exists, that of a zero."""
        b, s, position = self.e.builder, self.of(x), at[0]
        inner = self.e.dot(at[1:], strides(x.type)[1:])
        if write:
            self._make(s, position)
            return self._element(s, position, inner)
        if s.is_split and s.capacity is not None:  # a loop that does not run asks for the row -1
            position = b.select(b.icmp_signed("<", position, ZERO), ZERO, position)
        _, row = self._place(s, position)
        end = s.rows if s.capacity is None else b.load(self._capacity_of(s, position), typ=I64)
        inside = b.icmp_unsigned("<", row, end)
        return b.select(inside, self._element(s, position, inner), self._zero())

    def _element(self, s: DeviceSequence, position: ir.Value, inner: ir.Value) -> ir.Value:
        e, (part, row) = self.e, self._place(s, position)
        place = e.mul(e.add(e.mul(row, index(s.size)), inner), index(s.parts))
        base = s.pointer
        if part is not None:
            base = e.builder.gep(base, [part], source_etype=storage_type(s.type.dtype))
        return e.builder.gep(base, [place], source_etype=storage_type(s.type.dtype))

    def _place(self, s: DeviceSequence, position: ir.Value) -> tuple[ir.Value | None, ir.Value]:
        """The part that a position is in, and the row in it."""
        if not s.is_split:
            return s.part, position
        b = self.e.builder
        return b.lshr(position, index(LANE_BITS)), b.and_(position, index((1 << LANE_BITS) - 1))

    def _capacity_of(self, s: DeviceSequence, position: ir.Value) -> ir.Value:
        part, _ = self._place(s, position)
        if not s.is_split:
            return s.capacity
        return self.e.builder.gep(s.capacity, [part], inbounds=True, source_etype=I64)

    def _zero(self) -> ir.Value:
        """An element that is zero."""
        module, name = self.e.module, "dflow.zero"
        if name not in module.globals:
            made = untyped(ir.GlobalVariable(module, ir.ArrayType(I8, 16), name))
            made.initializer, made.linkage, made.global_constant = ir.Constant(made.value_type, None), "internal", True
            made.align = 16
        return module.globals[name]

    # --- room

    @contextmanager
    def inside(self, block: Block) -> Iterator[None]:
        """While the operations of a block are written."""
        before = self._block, self._checked
        self._block = block
        yield
        self._block, self._checked = before

    def prepare(self, op: Op) -> None:
        """Makes sure of the room for the row that ``op`` writes, and for those that its block writes beside it."""
        if op.name not in WRITING or not op.operands[0].type.grows or self._block is None or op not in self._block.ops:
            return
        together = [o for o in self._block.ops if o.name in WRITING and o.operands[2:3] == op.operands[2:3]]
        tapes = {
            s.number: s for o in together if o.operands[0].type.grows and (s := self.of(o.result)).capacity is None
        }
        position = self.e.env[op.operands[2]]
        if self.of(op.result).number in tapes and (self.of(op.result).number, position) not in self._checked:
            self._require(list(tapes.values()), position)
            self._checked |= {(number, position) for number in tapes}

    def reserve(self, s: DeviceSequence, position: ir.Value) -> None:
        """Makes all rows up to one exist: those between are zero."""
        if s.capacity is None:
            self._require([s], position)
        else:
            self._lengthen(s, position, False)

    def _make(self, s: DeviceSequence, position: ir.Value) -> None:
        if s.capacity is not None:
            self._lengthen(s, position, self.overwrites)
        elif (s.number, position) not in self._checked:
            self._require([s], position)

    def _require(self, tapes: Sequence[DeviceSequence], position: ir.Value) -> None:
        b = self.e.builder
        _, row = self._place(tapes[0], position)
        least = reduce(lambda x, y: b.select(b.icmp_signed("<", x, y), x, y), [s.rows for s in tapes])
        with b.if_then(b.icmp_signed(">=", row, least), likely=False):
            for s in tapes:
                with b.if_then(b.icmp_signed(">=", row, s.rows)):
                    self._too_short(s, b.add(row, index(1)))
            self.e.branch_out(1)

    def _lengthen(self, s: DeviceSequence, position: ir.Value, whole: bool) -> None:
        """The row at ``position`` is zero unless the ``whole`` of it is written next."""
        b = self.e.builder
        _, row = self._place(s, position)
        address = self._capacity_of(s, position)
        capacity = b.load(address, typ=I64)
        with b.if_then(b.icmp_signed(">=", row, capacity)):
            new = b.add(row, index(1), flags=("nsw",))
            with b.if_then(b.icmp_signed(">", new, s.rows), likely=False):
                self._too_short(s, new)
                self.e.branch_out(1)
            before = b.sub(position, b.sub(row, capacity))
            end = row if whole else new
            self.e.repeat(b.sub(end, capacity), lambda k: self._clear_row(s, b.add(before, k)))
            b.store(new, address)

    def _clear_row(self, s: DeviceSequence, position: ir.Value) -> None:
        zero = ir.Constant(storage_type(s.type.dtype), None)
        self.e.nest((s.size,), lambda at: self.e.builder.store(zero, self._element(s, position, at[0])))

    def _too_short(self, s: DeviceSequence, rows: ir.Value) -> None:
        self.e.memory.report_word(index(-1 - s.number), [rows])

    def clear(self, s: DeviceSequence) -> None:
        """No row exists."""
        b, capacity = self.e.builder, s.capacity
        if capacity is None:
            return
        if s.is_split:
            self.e.each(index(s.parts), lambda k: b.store(ZERO, b.gep(capacity, [k], source_etype=I64)))
        else:
            b.store(ZERO, capacity)

    def copy(self, source: Value, target: Value) -> None:
        """All rows that were written."""
        b, x, y = self.e.builder, self.of(source), self.of(target)
        self.clear(y)
        count, item = b.load(x.capacity, typ=I64), storage_type(x.type.dtype)

        def copy(k: ir.Value) -> None:
            def element(at: Sequence[ir.Value]) -> None:
                here, there = (self._element(s, k, at[0]) for s in (x, y))
                b.store(b.load(here, typ=item), there)

            self.e.nest((x.size,), element)

        with b.if_then(b.icmp_signed(">", count, ZERO)):
            self.reserve(y, b.sub(count, index(1)))
            self.e.repeat(count, copy)


def writes_whole_rows(op: Op) -> bool:
    if op.name != "update" or not op.operands[0].type.grows:
        return False
    first, *others = op.attrs["index"]
    return first == "at" and all(entry == "all" for entry in others)


__all__ = ["DeviceSequence", "Sequences", "is_tape", "writes_whole_rows"]
