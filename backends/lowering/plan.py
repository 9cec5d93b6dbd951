"""What bufferization hands to code generation: a function whose tensors all have their place in memory.

The function of a ``Plan`` holds explicit ``copy`` operations wherever one is needed, so that code generation never
decides about memory. It may rely on this:

1. Every value of rank 1 or more has a buffer; scalars live in registers.
2. The result of ``update``, ``update_add``, ``scatter`` and ``scatter_add`` has the buffer of the first operand.
3. Of a ``for`` or ``while``, the initial value, the region's arguments, the yielded value and the result have one
   buffer; of an ``if``, what both regions yield and the result.
4. Result ``k`` of the function, when a tensor, has the buffer ``Buffer(space="result", index=k)``, or that of the
   argument ``in_place[k]``.
5. Buffers of space ``"argument"`` belong to the caller and are never written, but for those of ``in_place``.
6. ``reshape`` and ``copy`` of a value within one buffer do nothing.
7. A ``kernel`` result shares a buffer with a tensor that the kernel reads only if it is read at just the index that is
   written.
8. After a copy of ``moves`` nobody reads what its operand's buffer holds. As long as the loop runs, which is the
   innermost around, the two buffers share no byte with others that are alive.
All buffers are contiguous in row-major order, with the bounds of their type for a shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dflow.ir.core import Function, Op, Value
from dflow.ir.types import TensorType

# Operations with a decomposition for which there are functions instead, but not on a GPU.
CALLED = ("argpartition", "fourier", "partition", "ranked", "sort")

Space = Literal["argument", "result", "stack", "arena", "heap"]


@dataclass(eq=False)
class Buffer:
    """A place for tensors of one type.

    ``space``: ``argument`` or ``result`` (memory of the caller, number ``index``), ``stack`` (small, static), ``arena``
    (at byte ``offset`` of the function's arena), ``heap`` (a sequence, which grows).
    """

    type: TensorType
    space: Space
    index: int = 0
    offset: int = 0
    writable: bool = True  # False for arguments that the function may only read

    @property
    def bytes(self) -> int:
        """Bytes of the buffer (not for sequences)."""
        return int(np.prod(self.type.bound, dtype=np.int64)) * self.type.dtype.itemsize


@dataclass(eq=False)
class Plan:
    """A function in its lowered form and the buffer of each of its tensors.

    ``in_place`` maps the results that are left in the memory of an argument to that argument; ``moves`` has, by loops,
    the copies that may exchange the two buffers.
    """

    function: Function
    buffers: dict[Value, Buffer] = field(default_factory=dict)
    arena_bytes: int = 0
    in_place: Mapping[int, int] = field(default_factory=dict)
    moves: Mapping[Op, Sequence[Op]] = field(default_factory=dict)
