"""Places in memory for sets of tensors that share a buffer: on the stack, in the function's arena, on the heap.

The arena is planned by first fit (Gergov; Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
Inference", 2020): sets in the order in which they come alive take the lowest free bytes, and give them back after
their last use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import Protocol

from dflow.backends.lowering.plan import Buffer, Plan
from dflow.ir.core import Function, Op, Value
from dflow.ir.types import TensorType

STACK_BYTES = 256  # up to here a tensor lies on the stack, where LLVM may turn it into registers
ALIGNMENT = 64


class Tenant(Protocol):
    """What ``place`` needs to know of a set of tensors with one buffer. ``hull``: from when until when it is alive."""

    fixed: Buffer | None

    @property
    def type(self) -> TensorType: ...

    @property
    def hull(self) -> tuple[int, int]: ...


def place(
    f: Function, tenants: Mapping[Value, Tenant], in_place: Mapping[int, int], moves: Mapping[Op, Sequence[Op]]
) -> Plan:
    """The plan for ``f``, whose tensors live in the sets ``tenants``. ``in_place``, ``moves``: see ``Plan``."""
    buffers: dict[Tenant, Buffer] = {}
    arena = Arena()
    for t in sorted(dict.fromkeys(tenants.values()), key=lambda t: t.hull):
        buffers[t] = t.fixed or _buffer(t, arena)
    return Plan(f, {v: buffers[t] for v, t in tenants.items()}, arena.size, in_place, moves)


def _buffer(t: Tenant, arena: Arena) -> Buffer:
    if t.type.grows:
        return Buffer(t.type, "heap")
    buffer = Buffer(t.type, "stack")
    if buffer.bytes > STACK_BYTES:
        buffer.space = "arena"
        buffer.offset = arena.take(buffer.bytes, *t.hull)
    return buffer


class Arena:
    """Bytes lent for intervals of time, asked for in the order of their starts."""

    def __init__(self) -> None:
        self.size = 0
        self._holes: list[tuple[int, int]] = []  # (offset, bytes), disjoint and sorted, below `size`
        self._lent: list[tuple[int, int, int]] = []  # (until, offset, bytes), a heap

    def take(self, count: int, start: int, end: int) -> int:
        """The offset of ``count`` bytes free from ``start`` to ``end``."""
        count = -(-count // ALIGNMENT) * ALIGNMENT
        while self._lent and self._lent[0][0] <= start:
            _, offset, size = heappop(self._lent)
            self._give_back(offset, size)
        offset = self._find(count)
        # An operand that is read early dies as the result comes to be. They may share a buffer, not overlap.
        heappush(self._lent, (end + 1, offset, count))
        return offset

    def _find(self, count: int) -> int:
        for k, (offset, size) in enumerate(self._holes):
            if size >= count:
                self._holes[k : k + 1] = [(offset + count, size - count)] if size > count else []
                return offset
        if self._holes and sum(self._holes[-1]) == self.size:
            offset, _ = self._holes.pop()
        else:
            offset = self.size
        self.size = offset + count
        return offset

    def _give_back(self, offset: int, count: int) -> None:
        k = next((k for k, hole in enumerate(self._holes) if hole[0] > offset), len(self._holes))
        self._holes.insert(k, (offset, count))
        for left in (k, k - 1):
            if left >= 0 and left + 1 < len(self._holes) and sum(self._holes[left]) == self._holes[left + 1][0]:
                merged = (self._holes[left][0], self._holes[left][1] + self._holes[left + 1][1])
                self._holes[left : left + 2] = [merged]
