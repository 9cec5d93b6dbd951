"""Where tensors are: addresses of buffers, the arena, sequences on the heap, and what LLVM may know of their aliasing.

Arguments and results are distinct memory (``noalias``). Buffers in the arena share bytes when they live at different
times, so two of them are declared distinct only when their bytes are (see ``emit/scopes.py``).

A large arena is kept between calls: a call takes it from a global by an atomic exchange, so that no two calls have the
same one, and puts it back. Pages that the kernel has to map anew would cost more than many a program.

A sequence is ``{pointer, capacity}``; all of its memory that was never written is zero, but for tapes. So a position
below the capacity needs no further test, reading beyond gives zeros, and writing beyond makes it grow to at least twice
its size.
Its block of memory, whose size stands before its first element, is kept between calls, as the arena is: a new call has
it with the capacity zero, and clears as much of it as it grows into.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from dflow.backends.analysis.reserved import certain
from dflow.backends.emit.core import Emitter, emits, untyped
from dflow.backends.emit.once import (
    ARENA_ALIGNMENT,
    DETAILS,
    ZERO_ROW,
    copy_bytes,
    data,
    fill_bytes,
    free_block,
    grow,
    libc,
    put_back,
    write_error,
    zeros,
)
from dflow.backends.emit.scopes import Scopes
from dflow.backends.emit.types import I1, I8, I32, I64, PTR, VOID, ZERO, index, storage_type, strides
from dflow.backends.interface import OUT_OF_MEMORY
from dflow.backends.lowering.plan import Buffer
from dflow.ir.core import Op, Value

SMALL_ARENA = 4096  # up to this size the arena is on the stack
_NOTHING = nullcontext()


@dataclass(frozen=True)
class Heap:
    """The stack slots that hold a sequence, and the global that keeps its memory between calls.

    ``left`` has what the exit puts back. It is not a register, as ``pointer`` is: where memory runs out, and at the
    exit, each of many sequences would be merged from each place that leads there."""

    pointer: ir.Value
    capacity: ir.Value
    row_bytes: int
    kept: ir.Value
    is_tape: bool
    left: ir.Value | None = None  # none in a part of a loop, which has its sequences from outside

    @property
    def is_large(self) -> bool:
        """Whether a row that does not exist must be made before it is read."""
        return self.row_bytes > ZERO_ROW


class Memory:
    """The buffers of the function that ``e`` writes; of those on the ``stack``, or not."""

    held: Mapping[tuple[Buffer, ir.Value], ir.Value] = {}
    reserved: Mapping[tuple[Value, Value], None] = {}
    scopes: Scopes | None = None

    def __init__(self, e: Emitter, stack: bool = True):
        self.e = e
        self.buffers = e.plan.buffers
        self._without_memory: dict[ir.Function, ir.Block] = {}
        distinct = list(dict.fromkeys(self.buffers.values()))
        self.arena = self._make_arena() if any(b.space == "arena" for b in distinct) else None
        placed = (b for b in distinct if b.space != "heap" and (stack or b.space != "stack"))
        self.bases = {b: self.place(b) for b in placed}
        self.heaps = {b: self._make_heap(b) for b in distinct if b.space == "heap"}
        self.scopes = self._make_scopes([b for b in distinct if b.space != "stack"])
        self.globals: dict[Value, ir.Value] = {}
        self.certain = certain(e.plan.function) if self.heaps else {}

    def base(self, x: Value) -> ir.Value | None:
        """The address of the first element (None for a sequence)."""
        buffer = self.buffers.get(x)
        if buffer is None:
            return self._constant(x)
        return self.bases.get(buffer)

    def lend(self, x: Value, pointer: ir.Value) -> None:
        """Gives a tensor that stands for no value of the function a place."""
        self.globals[x] = pointer

    def same(self, x: Value, y: Value) -> bool:
        return x in self.buffers and self.buffers[x] is self.buffers.get(y)

    def mark(self, access: Any, x: Value) -> None:
        """Says of a load or store of ``x`` what it cannot touch."""
        if self.scopes is not None:
            self.scopes.mark(access, self.buffers.get(x))

    def mark_both(self, access: Any, x: Value, y: Value) -> None:
        """The same for one that reads ``x`` and writes ``y``."""
        if self.scopes is not None:
            self.scopes.mark_both(access, self.buffers.get(x), self.buffers.get(y))

    def near(self, op: Op) -> AbstractContextManager[None]:
        """While ``op`` is written: its neighbourhood."""
        return _NOTHING if self.scopes is None else self.scopes.around(op)

    def join(self, op: Op, first: Op, second: Op) -> None:
        """``op`` is written in the place of two others."""
        if self.scopes is not None:
            self.scopes.join(op, first, second)

    def together(self, groups: Sequence[Sequence[Buffer]]) -> AbstractContextManager[None]:
        """While a loop is written in which the buffers of each group change places."""
        return _NOTHING if self.scopes is None else self.scopes.together(groups)

    # --- addresses

    def place(self, buffer: Buffer) -> ir.Value:
        """The address of a buffer."""
        e = self.e
        n_args = len(e.plan.function.args)
        if buffer.space in ("argument", "result"):
            return e.function.args[buffer.index + (n_args if buffer.space == "result" else 0)]
        if buffer.space == "arena":
            return e.builder.gep(self.arena, [index(buffer.offset)], inbounds=True, source_etype=I8)
        elements = int(np.prod(buffer.type.bound, dtype=np.int64))
        slot = e.slot(ir.ArrayType(storage_type(buffer.type.dtype), elements))
        slot.align = 32 if buffer.bytes >= 32 else max(8, buffer.type.dtype.itemsize)
        return slot

    def _constant(self, x: Value) -> ir.Value:
        """A dense constant without a buffer is read where it is."""
        if x not in self.globals:
            assert x.op is not None and x.op.name == "constant", f"{x!r} has no place in memory"
            self.globals[x] = data(self.e.module, self.e.function.name, x)
        return self.globals[x]

    def _make_scopes(self, buffers: Sequence[Buffer]) -> Scopes | None:
        if len(buffers) + len(self.bases) < 2 or not any(b.space in ("arena", "heap") for b in buffers):
            return None
        return Scopes(self.e.plan, self.e.module, self.e.function.name, buffers)

    # --- the arena

    def _make_arena(self) -> ir.Value:
        e, size = self.e, self.e.plan.arena_bytes
        if size <= SMALL_ARENA:
            slot = e.slot(ir.ArrayType(I8, size), "arena")
            slot.align = ARENA_ALIGNMENT
            return slot
        b = e.builder
        self.kept = self._keeper("arena")
        self.slot = e.slot(PTR)
        b.store(b.atomic_rmw("xchg", self.kept, PTR(None), "acq_rel"), self.slot)
        with b.if_then(b.icmp_unsigned("==", b.load(self.slot, typ=PTR), PTR(None)), likely=False):
            rounded = -(-size // ARENA_ALIGNMENT) * ARENA_ALIGNMENT
            made = b.call(libc(e.module, "aligned_alloc"), [index(ARENA_ALIGNMENT), index(rounded)])
            b.store(made, self.slot)
            self.require_memory(made)
        return b.load(self.slot, typ=PTR)

    def require_memory(self, pointer: ir.Value) -> None:
        b = self.e.builder
        going_on = self.e.new_block("memory")
        b.cbranch(b.icmp_unsigned("!=", pointer, PTR(None)), going_on, self._out_of_memory())
        b.position_at_end(going_on)

    def _out_of_memory(self) -> ir.Block:
        """Where the function that is being written goes when memory has run out."""
        function = self.e.function
        if function not in self._without_memory:
            block = self._without_memory[function] = self.e.new_block("out_of_memory")
            with self.e.builder.goto_block(block):
                self.report(OUT_OF_MEMORY, [])
                self.e.branch_out(1)
        return self._without_memory[function]

    def report(self, code: int, details: Sequence[ir.Value]) -> None:
        """Writes the error record."""
        given = [index(code), *details, *[ZERO] * (DETAILS - len(details))]
        self.e.builder.call(write_error(self.e.module), [self.e.error, *given])

    def borrow(self, size: int) -> ir.Value:
        """Memory of ``size`` bytes for the time of one operation."""
        rounded = -(-size // ARENA_ALIGNMENT) * ARENA_ALIGNMENT
        made = self.e.builder.call(libc(self.e.module, "aligned_alloc"), [index(ARENA_ALIGNMENT), index(rounded)])
        self.require_memory(made)
        return made

    def give_back(self, pointer: ir.Value) -> None:
        """Ends the time of what ``borrow`` gave."""
        self.e.builder.call(libc(self.e.module, "free"), [pointer])

    @contextmanager
    def lent(self, size: int) -> Iterator[ir.Value]:
        """Memory of ``size`` bytes while this lasts, given back on the ways out of the function, too."""
        e, place = self.e, self.borrow(size)
        outside = e.exit, e.status
        e.exit = own = e.new_block("give_back")
        with e.builder.goto_block(own):
            e.status = status = e.builder.phi(I32, "status")
        yield place
        e.exit, e.status = outside
        self.give_back(place)
        if not status.incomings:
            e.function.blocks.remove(own)
            return
        with e.builder.goto_block(own):
            self.give_back(place)
            e.status.add_incoming(status, e.builder.block)
            e.builder.branch(e.exit)

    # --- sequences

    def _make_heap(self, buffer: Buffer) -> Heap:
        e = self.e
        row_bytes = max(1, strides(buffer.type)[0] * buffer.type.dtype.itemsize)
        kept = self._keeper("sequence")
        heap = Heap(e.slot(PTR), e.slot(I64), row_bytes, kept, self._is_tape(buffer), left=e.slot(PTR))
        with e.builder.goto_block(e.entry):
            self._move(heap, e.builder.atomic_rmw("xchg", heap.kept, PTR(None), "acq_rel"), ZERO)
        return heap

    def _move(self, heap: Heap, pointer: ir.Value, capacity: ir.Value) -> None:
        b = self.e.builder
        b.store(pointer, heap.pointer)
        b.store(capacity, heap.capacity)
        if heap.left is not None:
            b.store(pointer, heap.left)

    def _is_tape(self, buffer: Buffer) -> bool:
        """Whether nothing need be zero before it is written."""
        makers = {v.op.name for v, found in self.buffers.items() if found is buffer and v.op is not None}
        return makers <= {"tape", "update", "update_add", "for", "while", "if"}

    def _keeper(self, what: str) -> ir.GlobalVariable:
        name = self.e.module.get_unique_name(f"{self.e.function.name}.{what}")
        made = untyped(ir.GlobalVariable(self.e.module, PTR, name))
        made.initializer, made.linkage = PTR(None), "internal"
        return made

    def row(self, x: Value, position: ir.Value, *, write: bool) -> ir.Value:
        """The address of an element of a sequence; writing makes room for it."""
        if (known := self.held.get((self.buffers[x], position))) is not None:
            return known
        heap, b = self.heaps[self.buffers[x]], self.e.builder
        if any(self.e.env.get(known) is position for known in self._surely(x)):
            return self._row(heap, position)
        if write or heap.is_large:
            self.reserve(heap, position)
            return self._row(heap, position)
        inside = b.icmp_signed("<", position, b.load(heap.capacity, typ=I64))
        return b.select(inside, self._row(heap, position), zeros(self.e.module))

    def _surely(self, x: Value) -> Iterator[Value]:
        """Positions that certainly exist."""
        yield from self.certain.get(x, ())
        yield from (position for y, position in self.reserved if y is x)

    def _row(self, heap: Heap, position: ir.Value) -> ir.Value:
        # Not inbounds: the address may be made for a position beyond the end.
        b = self.e.builder
        pointer = b.load(heap.pointer, typ=PTR)
        return b.gep(pointer, [self.e.mul(position, index(heap.row_bytes))], source_etype=I8)

    def reserve(self, heap: Heap, position: ir.Value) -> None:
        """Makes room for the row at ``position``."""
        b = self.e.builder
        capacity = b.load(heap.capacity, typ=I64)
        with b.if_then(b.icmp_signed(">=", position, capacity), likely=False):
            pointer = b.load(heap.pointer, typ=PTR)
            made = b.call(grow(self.e.module), [pointer, capacity, position, index(heap.row_bytes), I1(heap.is_tape)])
            moved = b.extract_value(made, 0)
            self.require_memory(moved)
            self._move(heap, moved, b.extract_value(made, 1))

    def room(self, x: Value, length: ir.Value) -> ir.Value:
        """The address of a new sequence, with room for ``length`` rows."""
        heap = self.heaps[self.buffers[x]]
        self.clear(heap)
        self.reserve(heap, self.e.builder.sub(length, index(1)))
        return self.e.builder.load(heap.pointer, typ=PTR)

    def prepare_sequence(self, result: Value, operands: Sequence[Value]) -> ir.Value:
        """Makes ``result`` ready for an elementwise operation; how far the operands go: beyond, they are zero."""
        b = self.e.builder
        lengths = [b.load(self.heaps[self.buffers[x]].capacity, typ=I64) for x in operands]
        length = functools.reduce(lambda a, c: b.select(b.icmp_signed(">", a, c), a, c), lengths)
        heap = self.heaps[self.buffers[result]]
        if not any(self.same(x, result) for x in operands):
            self.clear(heap)
        with b.if_then(b.icmp_signed(">", length, ZERO)):
            self.reserve(heap, b.sub(length, index(1)))
        return length

    def clear(self, heap: Heap) -> None:
        """All zeros again."""
        if heap.is_tape:
            return
        b = self.e.builder
        capacity = b.load(heap.capacity, typ=I64)
        with b.if_then(b.icmp_signed(">", capacity, ZERO)):
            size = b.mul(capacity, index(heap.row_bytes))
            b.call(fill_bytes(self.e.module), [b.load(heap.pointer, typ=PTR), I8(0), size, I1(0)])

    def leave(self) -> None:
        """Written at the exit: puts the sequences and the arena back."""
        b = self.e.builder
        for heap in self.heaps.values():
            b.call(put_back(self.e.module), [heap.left, heap.kept])
        if self.arena is not None and self.e.plan.arena_bytes > SMALL_ARENA:
            # The slot, not the value: the exit may be reached before there is an arena.
            other = b.atomic_rmw("xchg", self.kept, b.load(self.slot, typ=PTR), "acq_rel")
            with b.if_then(b.icmp_unsigned("!=", other, PTR(None)), likely=False):
                b.call(libc(self.e.module, "free"), [other])

    def release_function(self) -> ir.Function | None:
        """A function that frees what is kept between calls."""
        has_arena = self.arena is not None and self.e.plan.arena_bytes > SMALL_ARENA
        if not has_arena and not self.heaps:
            return None
        module = self.e.module
        made = ir.Function(module, ir.FunctionType(VOID, []), f"{self.e.function.name}.release")
        b = ir.IRBuilder(made.append_basic_block("entry"))
        if has_arena:
            b.call(libc(module, "free"), [b.atomic_rmw("xchg", self.kept, PTR(None), "acq_rel")])
        for heap in self.heaps.values():
            b.call(free_block(module), [b.atomic_rmw("xchg", heap.kept, PTR(None), "acq_rel")])
        b.ret_void()
        return made


@emits("sequence", "tape")
def _sequence(e: Emitter, op: Op) -> None:
    """What an earlier round of a loop has left in the buffer is cleared."""
    if op.operands:
        e.memory.room(op.result, e.env[op.operands[0]])
    else:
        e.memory.clear(e.memory.heaps[e.memory.buffers[op.result]])


def copy_sequence(e: Emitter, source: Value, target: Value) -> None:
    b = e.builder
    x, y = (e.memory.heaps[e.memory.buffers[v]] for v in (source, target))
    e.memory.clear(y)
    count = b.load(x.capacity, typ=I64)
    with b.if_then(b.icmp_signed(">", count, ZERO)):
        e.memory.reserve(y, b.sub(count, index(1)))
        size = b.mul(count, index(x.row_bytes))
        b.call(copy_bytes(e.module), [b.load(y.pointer, typ=PTR), b.load(x.pointer, typ=PTR), size, I1(0)])
