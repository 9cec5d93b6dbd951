"""Where tensors are inside of a kernel: addresses, arrays of one thread, sequences.

Small tensors that are made and used up inside of a kernel are on the stack, where LLVM turns them into registers. Of a
larger one every thread has a copy in the scratch memory, *striped*: element i of thread t is at ``i * threads + t``, so
that threads side by side touch memory side by side.

A sequence has the room of its `Rows`, known at run time; it is zero up to its capacity, which is kept in memory, and
nothing beyond was written. A sequence of one thread is striped by rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from dflow.backends import plan as tensors
from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.offsets import LANE_BITS
from dflow.backends.cuda.places import ERROR, SCRATCH, WORKSPACE, aligned, constant_bytes, row_bytes
from dflow.backends.cuda.plan import Pointer, Rows
from dflow.backends.emit_core import untyped
from dflow.backends.emit_memory import Memory
from dflow.backends.emit_once import ZERO_ROW
from dflow.backends.emit_types import I8, I64, PTR, ZERO, index
from dflow.ir.core import Value

if TYPE_CHECKING:
    from dflow.backends.cuda.kernel import KernelEmitter

RELAXED = 'syncscope("device") monotonic'  # atomics that this device alone sees, in whatever order
EMBEDDED = 1024  # bytes of a constant that stands in the module

Key = tensors.Buffer | Value  # a buffer of the plan, or a constant without one


@dataclass(frozen=True)
class DeviceSequence:
    """``step`` bytes lie between two rows; ``capacity`` is the address of the capacity.

    A sequence that a parallel loop writes has ``lanes`` parts: the position ``(k << LANE_BITS) + j`` is row j of part
    k, and lies at row ``j * lanes + k``, so that threads side by side touch memory side by side. Each part has a
    capacity of its own.
    """

    pointer: ir.Value
    capacity: ir.Value
    rows: ir.Value
    step: int
    row_bytes: int
    number: int
    lanes: int = 0


class DeviceMemory(Memory):
    """The buffers of a kernel."""

    def __init__(self, e: KernelEmitter):
        self.e: KernelEmitter = e
        self.buffers = e.plan.buffers
        self.globals: dict[Value, ir.Value] = {}
        self.held = {}
        self.threads = e.blocks * e.block_size
        self.bases: dict[tensors.Buffer, ir.Value] = {}
        self.heaps: dict[tensors.Buffer, Any] = {}
        self.striped: dict[tensors.Buffer, ir.Value] = {}
        self.used = 0  # bytes of the scratch memory
        for key, pointer in e.pointers.items():
            if isinstance(key, Value):
                self.globals[key] = e.parameters[pointer]
            elif key.space == "heap":
                self.heaps[key] = self._sequence(key, pointer)
            else:
                self.bases[key] = e.parameters[pointer]
        for b in e.needs.buffers(e.context):
            if b not in self.bases and b not in self.heaps:
                self.local(b)

    def local(self, b: tensors.Buffer) -> None:
        """Makes room for a buffer of one thread."""
        if b.space == "stack":
            self.bases[b] = self._make(b)
        else:
            self.striped[b] = self._stripe(b)

    @staticmethod
    def pointers(context: Context, needs: Needs, way: str, threads: int) -> dict[Key, Pointer]:
        """The parameters for buffers and large constants; those that are missing belong to one thread."""
        found: dict[Key, Pointer] = {}
        for b in needs.buffers(context):
            local = way != "grid" and needs.is_local(context, b)
            if local and b.space == "heap":
                found[b] = context.places.local_sequence(len(context.kernels), b, threads)
            elif not local or (b.space == "arena" and way == "one"):
                found[b] = context.places.pointer(b)
        for v in needs.tensors:
            if v.op is not None and v.op.name == "constant" and len(constant_bytes(v)) > EMBEDDED:
                found[v] = context.places.constant(v.op)
        return found

    def regions(self) -> dict[Pointer, tuple[int, int, int]]:
        """The bytes that each pointer leads to: buffer, start, stop."""
        places = self.e.context.places
        made: dict[Pointer, tuple[int, int, int]] = {}
        for key, p in self.e.pointers.items():
            size = key.bytes if isinstance(key, tensors.Buffer) and key.space != "heap" else places.size(p)
            old = made.get(p, (0, 0, p.offset))
            made[p] = (p.buffer, p.offset, max(old[2], p.offset + size))
        for a in self.e.parameters:
            if isinstance(a, Pointer) and a not in made:
                made[a] = (a.buffer, a.offset, a.offset + places.size(a))
        if all(p != Pointer(WORKSPACE) for p in self.e.pointers.values()):
            made[Pointer(WORKSPACE)] = (-1, 0, 0)  # leads to slots only
        made[Pointer(SCRATCH)] = (SCRATCH, 0, 1 << 62)
        made[Pointer(ERROR)] = (ERROR, 0, 32)
        return made

    def mark(self, access: Any, x: Value) -> None:
        """The parameters say what is apart."""

    def at(self, base: ir.Value, offset: int) -> ir.Value:
        return self.e.builder.gep(base, [index(offset)], inbounds=True, source_etype=I8) if offset else base

    # --- memory of one thread

    def _stripe(self, b: tensors.Buffer) -> ir.Value:
        start = self._take(b.bytes * self.threads)
        item = b.type.dtype.itemsize
        here = self.e.builder.mul(self.e.thread, index(item), flags=("nsw",))
        base = self.at(self.e.parameters[Pointer(SCRATCH)], start)
        return self.e.builder.gep(base, [here], inbounds=True, source_etype=I8)

    def _take(self, size: int) -> int:
        start = self.used
        self.used += aligned(size)
        self.e.context.places.scratch(self.used)
        return start

    def borrow(self, size: int) -> ir.Value:
        size = aligned(size)
        start = self._take(size * self.threads)
        here = self.e.builder.mul(self.e.thread, index(size), flags=("nsw",))
        base = self.at(self.e.parameters[Pointer(SCRATCH)], start)
        return self.e.builder.gep(base, [here], inbounds=True, source_etype=I8)

    def give_back(self, pointer: ir.Value) -> None:
        """The scratch memory of a kernel is not used twice."""

    # --- sequences

    def _sequence(self, b: tensors.Buffer, p: Pointer) -> DeviceSequence:
        e, row = self.e, row_bytes(b.type)
        lanes, local = e.context.places.lanes(b), e.needs.is_local(e.context, b) and e.way in ("one", "lanes")
        step, base = row, e.parameters[p]
        if local:
            step = row * self.threads
            base = e.builder.gep(base, [e.builder.mul(e.thread, index(row))], inbounds=True, source_etype=I8)
        capacity = e.parameters[e.context.places.capacities(b)] if lanes else self.capacity(b, local)
        return DeviceSequence(base, capacity, e.parameters[Rows(p.buffer)], step, row, p.buffer, lanes)

    def capacity(self, b: tensors.Buffer, local: bool) -> ir.Value:
        """Where the capacity of a sequence is."""
        if local:
            return self.e.slot(I64)
        return self.at(self.e.parameters[Pointer(WORKSPACE)], self.e.context.places.slot(b).offset)

    def row(self, x: Value, position: ir.Value, *, write: bool) -> ir.Value:
        """The address of an element of a sequence; writing makes it exist."""
        if (known := self.held.get((self.buffers[x], position))) is not None:
            return known
        heap, b = self.heaps[self.buffers[x]], self.e.builder
        if write:
            self.reserve(heap, position, self.overwrites)
            return self._row(heap, position)
        if heap.lanes:  # a loop that does not run asks for the row -1
            position = b.select(b.icmp_signed("<", position, ZERO), ZERO, position)
        _, inner, capacity = self._part(heap, position)
        inside = b.icmp_signed("<", inner, b.load(capacity, typ=I64))
        return b.select(inside, self._row(heap, position), self._zeros(heap.row_bytes))

    def _zeros(self, size: int) -> ir.Value:
        """Zeros for rows that do not exist."""
        size = max(size, ZERO_ROW)
        module, name = self.e.module, f"dflow.zeros{size}"
        if name not in module.globals:
            made = untyped(ir.GlobalVariable(module, ir.ArrayType(I8, size), name))
            made.initializer, made.linkage, made.global_constant = ir.Constant(made.value_type, None), "internal", True
            made.align = 64
        return module.globals[name]

    def _part(self, heap: Any, position: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """The part that a position is in, the row in it, the address of its capacity."""
        if not heap.lanes:
            return ZERO, position, heap.capacity
        b = self.e.builder
        part, inner = b.lshr(position, index(LANE_BITS)), b.and_(position, index((1 << LANE_BITS) - 1))
        return part, inner, b.gep(heap.capacity, [part], inbounds=True, source_etype=I64)

    def _row(self, heap: Any, position: ir.Value) -> ir.Value:
        part, inner, _ = self._part(heap, position)
        place = self.e.add(self.e.mul(inner, index(heap.lanes)), part) if heap.lanes else inner
        return self.e.builder.gep(heap.pointer, [self.e.mul(place, index(heap.step))], source_etype=I8)

    overwrites = False  # whether what is written now are whole rows

    def reserve(self, heap: Any, position: ir.Value, whole: bool = False) -> None:
        """Makes all rows up to one exist: those between are zero, and so is that one unless the ``whole`` of it is
        written next."""
        b = self.e.builder
        _, inner, address = self._part(heap, position)
        capacity = b.load(address, typ=I64)
        with b.if_then(b.icmp_signed(">=", inner, capacity)):
            new = b.add(inner, index(1), flags=("nsw",))
            with b.if_then(b.icmp_signed(">", new, heap.rows), likely=False):
                self._report(index(-1 - heap.number), [new])
                self.e.branch_out(1)
            before = b.sub(position, b.sub(inner, capacity))
            end = inner if whole else new
            self.e.repeat(b.sub(end, capacity), lambda k: self._clear_row(heap, b.add(before, k)))
            b.store(new, address)

    def _clear_row(self, heap: Any, position: ir.Value) -> None:
        b, row = self.e.builder, self._row(heap, position)
        word = I64 if heap.row_bytes % 8 == 0 else I8
        count = heap.row_bytes // 8 if word is I64 else heap.row_bytes
        self.e.nest((count,), lambda at: b.store(word(0), b.gep(row, at, source_etype=word)))

    def clear(self, heap: Any) -> None:
        b = self.e.builder
        if heap.lanes:
            self.e.each(index(heap.lanes), lambda k: b.store(ZERO, b.gep(heap.capacity, [k], source_etype=I64)))
        else:
            b.store(ZERO, heap.capacity)

    def copy_sequence(self, source: Value, target: Value) -> None:
        """All rows that were written."""
        b = self.e.builder
        x, y = (self.heaps[self.buffers[v]] for v in (source, target))
        self.clear(y)
        count = b.load(x.capacity, typ=I64)

        def copy(k: ir.Value) -> None:
            rows = [self._row(heap, k) for heap in (x, y)]

            def byte(j: ir.Value) -> None:
                there, here = (b.gep(row, [j], source_etype=I8) for row in rows)
                b.store(b.load(there, typ=I8), here)

            self.e.repeat(index(x.row_bytes), byte)

        with b.if_then(b.icmp_signed(">", count, ZERO)):
            self.reserve(y, b.sub(count, index(1)))
            self.e.repeat(count, copy)

    # --- errors

    def report(self, code: int, details: Sequence[ir.Value]) -> None:
        self._report(index(code + 1), details)

    def _report(self, what: ir.Value, details: Sequence[ir.Value]) -> None:
        """The first error stays."""
        b, error = self.e.builder, self.e.parameters[Pointer(ERROR)]
        seen = b.extract_value(b.cmpxchg(error, ZERO, what, RELAXED, "monotonic"), 1)
        with b.if_then(seen):
            for k, value in enumerate(details):
                b.store(value, b.gep(error, [index(k + 1)], source_etype=I64))


__all__ = ["PTR", "DeviceMemory", "DeviceSequence"]
