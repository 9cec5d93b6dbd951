"""Operations that do not depend on each other, in one launch: each has threads of its own.

    threads       0 ... 255 | 256 ... 1023 | ...
    do                first |       second | ...

A launch costs as much as some hundred thousand elements, so that many small operations side by side, such as a step of
an optimizer for each of many parameters, are best done together. Each begins at a whole block, so that the threads of a
warp do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.emit.core import cost
from dflow.backends.emit.types import index
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Op, walk

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

BLOCK = 256  # threads
MOST_BLOCKS = 65536
MOST_PARTS = 32
LARGE = 1 << 18  # elements from which the time of a launch does not matter
LONGEST = 200  # operations for an element: more take registers from the others

Region = tuple[object, int, int]  # a piece of memory: of what, first byte, the one after the last


@dataclass
class Touched:
    """What operations read and write."""

    reads: list[Region]
    writes: list[Region]

    @classmethod
    def by(cls, ops: Sequence[Op], context: Context, needs: Needs) -> Touched:
        """``needs`` are those of the operations."""
        made = {r for op in ops for o in _all(op) for r in o.results}
        buffers = context.plan.buffers
        written = dict.fromkeys(buffers[v] for v in needs.tensors if v in made and v in buffers)
        read = [b for b in needs.buffers(context) if b not in written]
        return cls([_region(b) for b in read], [_region(b) for b in written])

    def is_apart(self, other: Touched) -> bool:
        """Whether neither writes what the other touches, so that their order does not matter."""
        return not (
            _meet(self.writes, other.writes) or _meet(self.writes, other.reads) or _meet(self.reads, other.writes)
        )


def _all(op: Op) -> list[Op]:
    return [op, *(o for r in op.regions for o in walk(r))]


def _region(b: tensors.Buffer) -> Region:
    return ("arena", b.offset, b.offset + b.bytes) if b.space == "arena" else (b, 0, 1)


def _meet(some: Sequence[Region], others: Sequence[Region]) -> bool:
    return any(a[0] is b[0] and a[1] < b[2] and b[1] < a[2] for a in some for b in others)


class Group:
    """Operations that wait for a launch together."""

    def __init__(self, s: Scheduler):
        self.s = s
        self.ops: list[Op] = []
        self.points: list[int] = []
        self.touched: list[Touched] = []

    def add(self, op: Op, points: int) -> None:
        """Adds an operation of so many elements; before that, launches those that it cannot wait with."""
        context = self.s.context
        mine = Touched.by([op], context, Needs(context, [op]))
        alone = not self._is_small(op, points) or len(self.ops) == MOST_PARTS
        if self.ops and (alone or not all(mine.is_apart(t) for t in self.touched)):
            self.launch()
        self.ops.append(op)
        self.points.append(points)
        self.touched.append(mine)
        if not self._is_small(op, points):
            self.launch()

    def _is_small(self, op: Op, points: int) -> bool:
        return points < LARGE and cost(_all(op)) <= LONGEST

    def launch(self) -> None:
        """Adds the step for the operations to those of the scheduler, if there are any."""
        ops, points, self.ops, self.points, self.touched = self.ops, self.points, [], [], []
        if not ops:
            return
        sizes = [min(MOST_BLOCKS, max(1, -(-p // BLOCK))) for p in points]
        context, what = self.s.context, ops[0].name if len(ops) == 1 else "group"
        e = GroupEmitter(context, what, "grid", Needs(context, ops), sum(sizes), BLOCK)
        e.loc = ops[0].loc
        e.recall(ops)
        e.parts(ops, [size * BLOCK for size in sizes])
        self.s.steps.append(e.finish())


class GroupEmitter(KernelEmitter):
    """Writes such a kernel. ``mine`` are the threads of the part at hand."""

    mine = 0

    def parts(self, ops: Sequence[Op], sizes: Sequence[int]) -> None:
        b, whole, first = self.builder, self.thread, 0
        for op, self.mine in zip(ops, sizes):
            last = first + self.mine
            if len(ops) == 1:
                self.op(op)
                return
            there, done = self.new_block("part"), self.new_block("next")
            at_least, below = (b.icmp_unsigned("<", whole, index(k)) for k in (first, last))
            b.cbranch(b.and_(below, b.not_(at_least)), there, done)
            b.position_at_end(there)
            self.thread = b.sub(whole, index(first), flags=("nsw",))
            self.op(op)
            b.branch(done)
            b.position_at_end(done)
            first = last

    def stride(self, total: ir.Value, body: Callable[[ir.Value], Any]) -> None:
        self.stride_from(self.thread, self.mine, total, body)
