"""Where the tensors and scalars of a plan are on the device.

The arena of the plan, its small buffers and the scalars that one kernel hands to another lie in one ``workspace``;
arguments, results, large constants and sequences have device buffers of their own. ``scratch`` is memory for the time
of one kernel, which all kernels share.
"""

from __future__ import annotations

import math

import numpy as np

from dflow.backends.cuda.plan import Buffer, ErrorRecord, Place, Pointer, buffer_bytes
from dflow.backends.emit.types import strides
from dflow.backends.interface import by_value
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Op, Value
from dflow.ir.types import TensorType

ERROR, WORKSPACE, SCRATCH = 0, 1, 2  # numbers of buffers
ALIGNMENT = 256
SLOT = 16  # bytes of a scalar
FIRST_ROWS = 64  # of a sequence; a power of two


class Places:
    """The device buffers of a plan, made as they are asked for."""

    def __init__(self, plan: tensors.Plan):
        self.plan = plan
        self._workspace, self._scratch = aligned(plan.arena_bytes), 0
        self._buffers: list[Buffer] = []
        self._numbers: dict[object, int] = {}
        self._small: dict[tensors.Buffer, int] = {}
        self._slots: dict[object, int] = {}
        self._rooms: dict[int, int] = {}
        self._capacities: dict[tensors.Buffer, Pointer] = {}
        self._lanes: dict[tensors.Buffer, int] = {}  # of sequences that a parallel loop writes
        for k, v in enumerate(plan.function.args):
            if not by_value(v.type):
                self._add(("argument", k), Buffer("argument", buffer_bytes(v.type), k, k in plan.in_place.values()))
        for k, v in enumerate(plan.function.results):
            if k not in plan.in_place:
                self._add(("result", k), Buffer("result", buffer_bytes(v.type), k))

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        fixed = [Buffer("error", ErrorRecord.SIZE)]
        fixed += [Buffer("workspace", max(ALIGNMENT, aligned(n))) for n in (self._workspace, self._scratch)]
        return (*fixed, *self._buffers)

    def _add(self, key: object, buffer: Buffer) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self._buffers) + 3
            self._buffers.append(buffer)
        return self._numbers[key]

    # --- tensors

    def pointer(self, b: tensors.Buffer) -> Pointer:
        """Where a buffer of the plan begins."""
        if b.space in ("argument", "result"):
            return Pointer(self._numbers[b.space, b.index])
        if b.space == "arena":
            return Pointer(WORKSPACE, b.offset)
        if b.space == "heap":
            return Pointer(self._add(b, self._sequence(b)))
        if b not in self._small:
            self._workspace = aligned(self._workspace)
            self._small[b] = self._workspace
            self._workspace += aligned(max(b.bytes, 1))
        return Pointer(WORKSPACE, self._small[b])

    def _sequence(self, b: tensors.Buffer) -> Buffer:
        return Buffer("sequence", row_bytes(b.type) * self._lanes.get(b, 1), rows=FIRST_ROWS)

    def split(self, b: tensors.Buffer, lanes: int) -> None:
        """Gives each round of a parallel loop its own part of a sequence. To be said before the first ``pointer``."""
        self._lanes[b] = lanes
        self._capacities[b] = self.room(8 * lanes)

    def lanes(self, b: tensors.Buffer) -> int:
        """The number of parts of a sequence that is split, 0 for others."""
        return self._lanes.get(b, 0)

    def capacities(self, b: tensors.Buffer) -> Pointer:
        """Where the capacity of each part of a sequence is."""
        return self._capacities[b]

    def local_sequence(self, key: object, b: tensors.Buffer, threads: int) -> Pointer:
        """A sequence for each thread of a kernel."""
        return Pointer(self._add((key, b), Buffer("sequence", row_bytes(b.type) * threads, rows=FIRST_ROWS)))

    def constant(self, op: Op) -> Pointer:
        """The elements of a dense constant."""
        raw = constant_bytes(op.result)
        return Pointer(self._add(("constant", raw), Buffer("constant", len(raw), data=raw)))

    def counters(self, count: int) -> Pointer:
        """So many i32 that are zero before a run, and that the run leaves so."""
        key = "counters", len(self._buffers)
        return Pointer(self._add(key, Buffer("constant", 4 * count, data=bytes(4 * count))))

    def result(self, k: int) -> Pointer:
        """Where a scalar result goes."""
        return Pointer(self._numbers["result", k])

    def argument(self, k: int) -> Pointer:
        return Pointer(self._numbers["argument", k])

    def size(self, p: Pointer) -> int:
        """How many bytes may be reached from there."""
        return self._rooms.get(p.offset, SLOT) if p.buffer == WORKSPACE else self.buffers[p.buffer].size

    # --- scalars

    def slot(self, key: object) -> Pointer:
        """The place in memory of a scalar that several kernels know, or that the host reads."""
        if key not in self._slots:
            self._slots[key] = self._workspace
            self._workspace += SLOT
        return Pointer(WORKSPACE, self._slots[key])

    def alias(self, value: Value, other: object) -> None:
        """Gives ``value`` the slot of another."""
        self._slots[value] = self.slot(other).offset

    @property
    def first_slot(self) -> int:
        """Before it there are no slots."""
        return aligned(self.plan.arena_bytes)

    def has_slot(self, value: Value) -> bool:
        return value in self._slots

    def place(self, v: Value) -> Place:
        """A tensor, or a scalar that has a slot."""
        p = self.slot(v) if v.type.is_scalar else self.pointer(self.plan.buffers[v])
        return Place(p.buffer, p.offset, v.type)

    def room(self, size: int) -> Pointer:
        """Memory of its own in the workspace."""
        start = aligned(self._workspace)
        self._workspace = start + -(-size // SLOT) * SLOT  # slots may come next
        self._rooms[start] = size
        return Pointer(WORKSPACE, start)

    # --- memory for one kernel

    def scratch(self, size: int) -> None:
        """Makes sure that there is so much scratch memory."""
        self._scratch = max(self._scratch, size)


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def row_bytes(t: TensorType) -> int:
    """The bytes of one element of a sequence."""
    return max(1, strides(t)[0] * t.dtype.itemsize) if math.prod(t.bound[1:]) else 1


def constant_bytes(x: Value) -> bytes:
    assert x.op is not None
    array = np.ascontiguousarray(x.op.attrs["value"], x.type.dtype.numpy)
    return np.broadcast_to(array, x.type.static_shape).tobytes()
