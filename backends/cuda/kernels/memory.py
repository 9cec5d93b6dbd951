"""Where tensors are inside of a kernel: addresses, arrays of one thread, sequences.

Small tensors that are made and used up inside of a kernel are on the stack, where LLVM turns them into registers. Of a
larger one every thread has a copy in the scratch memory, *striped*: element i of thread t is at ``i * threads + t``, so
that threads side by side touch memory side by side.

Sequences are in `kernels/sequences.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.sequences import Sequences
from dflow.backends.cuda.plan import Pointer
from dflow.backends.cuda.planning.places import ERROR, SCRATCH, WORKSPACE, aligned, constant_bytes
from dflow.backends.emit.memory import Memory
from dflow.backends.emit.types import I8, I64, PTR, ZERO, index
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Value

if TYPE_CHECKING:
    from dflow.backends.cuda.kernels.kernel import KernelEmitter

RELAXED = 'syncscope("device") monotonic'  # atomics that this device alone sees, in whatever order
EMBEDDED = 1024  # bytes of a constant that stands in the module

Key = tensors.Buffer | Value  # a buffer of the plan, or a constant without one


class DeviceMemory(Memory):
    """The buffers of a kernel."""

    def __init__(self, e: KernelEmitter):
        self.e: KernelEmitter = e
        self.buffers = e.plan.buffers
        self.globals: dict[Value, ir.Value] = {}
        self.held = {}
        self.threads = e.blocks * e.block_size
        self.bases: dict[tensors.Buffer, ir.Value] = {}
        self.sequences = Sequences(e)
        self.striped: dict[tensors.Buffer, ir.Value] = {}
        self.used = 0  # bytes of the scratch memory
        for key, pointer in e.pointers.items():
            if isinstance(key, Value):
                self.globals[key] = e.parameters[pointer]
            elif key.space == "heap":
                is_own = e.way in ("one", "lanes") and e.needs.is_local(e.context, key)
                self.sequences.add(key, pointer, is_own)
            else:
                self.bases[key] = e.parameters[pointer]
        for b in e.needs.buffers(e.context):
            if b not in self.bases and b not in self.sequences.found:
                self.local(b)

    def local(self, b: tensors.Buffer) -> None:
        """Makes room for a buffer of one thread."""
        if b.space == "stack":
            self.bases[b] = self.place(b)
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

    # --- errors

    def report(self, code: int, details: Sequence[ir.Value]) -> None:
        self.report_word(index(code + 1), details)

    def report_word(self, what: ir.Value, details: Sequence[ir.Value]) -> None:
        """The first error stays."""
        b, error = self.e.builder, self.e.parameters[Pointer(ERROR)]
        seen = b.extract_value(b.cmpxchg(error, ZERO, what, RELAXED, "monotonic"), 1)
        with b.if_then(seen):
            for k, value in enumerate(details):
                b.store(value, b.gep(error, [index(k + 1)], source_etype=I64))


__all__ = ["PTR", "DeviceMemory"]
