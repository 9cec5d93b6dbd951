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
from dflow.backends.cuda.places import ERROR, SCRATCH, WORKSPACE, aligned, constant_bytes, row_bytes
from dflow.backends.cuda.plan import Pointer, Rows
from dflow.backends.emit_memory import Memory
from dflow.backends.emit_types import I8, I64, PTR, ZERO, index
from dflow.ir.core import Value

if TYPE_CHECKING:
    from dflow.backends.cuda.kernel import KernelEmitter

EMBEDDED = 1024  # bytes of a constant that stands in the module

Key = tensors.Buffer | Value  # a buffer of the plan, or a constant without one


@dataclass(frozen=True)
class DeviceSequence:
    """``step`` bytes lie between two rows; ``capacity`` is the address of the capacity."""

    pointer: ir.Value
    capacity: ir.Value
    rows: ir.Value
    step: int
    row_bytes: int
    number: int


class DeviceMemory(Memory):
    """The buffers of a kernel."""

    def __init__(self, e: KernelEmitter):
        self.e: KernelEmitter = e
        self.buffers = e.plan.buffers
        self.globals: dict[Value, ir.Value] = {}
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
                found[b] = context.places.local_sequence(context.module.name + str(len(context.kernels)), b, threads)
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
        start = places.first_slot
        made.setdefault(Pointer(WORKSPACE), (-1, start, start))
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
        local = e.needs.is_local(e.context, b) and e.way != "grid"
        step, base = row, e.parameters[p]
        if local:
            step = row * self.threads
            base = e.builder.gep(base, [e.builder.mul(e.thread, index(row))], inbounds=True, source_etype=I8)
            capacity = e.slot(I64)
        else:
            capacity = self.at(e.parameters[Pointer(WORKSPACE)], e.context.places.slot(b).offset)
        return DeviceSequence(base, capacity, e.parameters[Rows(p.buffer)], step, row, p.buffer)

    def _row(self, heap: Any, position: ir.Value) -> ir.Value:
        b = self.e.builder
        return b.gep(heap.pointer, [self.e.mul(position, index(heap.step))], source_etype=I8)

    def reserve(self, heap: Any, position: ir.Value) -> None:
        b = self.e.builder
        capacity = b.load(heap.capacity, typ=I64)
        with b.if_then(b.icmp_signed(">=", position, capacity), likely=False):
            least, doubled = b.add(position, index(1)), b.shl(capacity, index(1))
            new = b.select(b.icmp_signed(">", doubled, least), doubled, least)
            new = b.select(b.icmp_signed("<", new, heap.rows), new, heap.rows)
            with b.if_then(b.icmp_signed(">", least, heap.rows), likely=False):
                self._report(index(-1 - heap.number), [least])
                self.e.branch_out(1)
            self.e.repeat(b.sub(new, capacity), lambda k: self._clear_row(heap, b.add(capacity, k)))
            b.store(new, heap.capacity)

    def _clear_row(self, heap: Any, position: ir.Value) -> None:
        b, row = self.e.builder, self._row(heap, position)
        word = I64 if heap.row_bytes % 8 == 0 else I8
        count = heap.row_bytes // 8 if word is I64 else heap.row_bytes
        self.e.repeat(index(count), lambda k: b.store(word(0), b.gep(row, [k], source_etype=word)))

    def clear(self, heap: Any) -> None:
        self.e.builder.store(ZERO, heap.capacity)

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
        seen = b.extract_value(b.cmpxchg(error, ZERO, what, "monotonic", "monotonic"), 1)
        with b.if_then(seen):
            for k, value in enumerate(details):
                b.store(value, b.gep(error, [index(k + 1)], source_etype=I64))


__all__ = ["PTR", "DeviceMemory", "DeviceSequence"]
