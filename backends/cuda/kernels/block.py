"""A run of operations by the threads of one block: loops and branches, arrays of some thousand elements, no launch in
between.

All threads take the same way: scalars, conditions and small tensors of its own every thread computes for itself. The
elements of larger tensors are shared out, and barriers keep reads and writes apart; what must be done in order is
done by the first thread. Tensors that are used up inside lie in the memory of the block, as far as it reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.cooperative import WARP, Line, barrier, block_totals, shared
from dflow.backends.cuda.kernels.fold import Sharing
from dflow.backends.cuda.kernels.folds import Fold, as_fold, count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.kernels.memory import DeviceMemory, Key
from dflow.backends.cuda.kernels.ops import adds_atomically
from dflow.backends.cuda.plan import Pointer
from dflow.backends.cuda.planning.places import ERROR, WORKSPACE, aligned
from dflow.backends.emit.kernel import write
from dflow.backends.emit.types import I8, I64, ZERO
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Block, Op, walk
from dflow.ir.types import DType

MOST_THREADS = 512
OWN = 16  # elements of a tensor that every thread has a copy of
SHARED_BYTES = 40 << 10
LONE = 32  # elements up to which every thread adds up all of them
IN_ORDER = frozenset({"argsort", "cholesky", "lu", "triangular_solve", "qr", "scatter", "sequence", "tape"})
CONTROL = frozenset({"for", "while", "if", "check"})


class Layout:
    """Where the tensors that are made and used up inside of a run are: ``own`` by every thread, ``offsets`` in the
    memory of the block."""

    def __init__(self, context: Context, needs: Needs):
        self.context, self.needs = context, needs
        local = {b for b in needs.buffers(context) if needs.is_local(context, b)}
        self.own = {b for b in local if b.space == "stack" and count(b.type.bound) <= OWN}
        self._demote()
        self.offsets = {b: b.offset for b in local if b.space == "arena" and b.offset + b.bytes <= SHARED_BYTES}
        end = max((aligned(b.offset + b.bytes) for b in self.offsets), default=0)
        for b in local:
            if b.space == "stack" and b not in self.own:
                self.offsets[b] = end
                end += aligned(b.bytes)
        self.size = end

    def _demote(self) -> None:
        """Results of one operation are all own, or none."""
        buffers = self.context.plan.buffers
        changed = True
        while changed:
            changed = False
            for op in self.needs.ops:
                results = {buffers[r] for r in op.results if r.type.rank and r in buffers}
                if op.name not in CONTROL and results & self.own and not results <= self.own:
                    self.own -= results
                    changed = True


class BlockMemory(DeviceMemory):
    """The memory of a run."""

    def __init__(self, e: BlockEmitter):
        layout = e.layout
        if layout.size:
            base = shared(e, I8, layout.size)
            self.in_block = {b: base for b in layout.offsets}
        super().__init__(e)

    in_block: dict[tensors.Buffer, ir.Value] = {}  # noqa: RUF012 (replaced, never changed)

    def local(self, b: tensors.Buffer) -> None:
        e = self.e
        assert isinstance(e, BlockEmitter)
        self.bases[b] = self.at(self.in_block[b], e.layout.offsets[b]) if b in self.in_block else self.place(b)


class BlockEmitter(KernelEmitter):
    """Writes a run."""

    def __init__(self, context: Context, needs: Needs, threads: int, targets: Sequence[Pointer]):
        self.layout = Layout(context, needs)
        self.spreading = False
        self.lines: dict[tuple[DType, ...], Line] = {}
        self.unsynced = True  # whether some thread may still read what others are about to write
        buffers = (context.plan.buffers.get(r) for op in needs.ops for r in op.results)
        self.written = {b for b in buffers if b is not None}
        super().__init__(context, "steps", "block", needs, 1, threads, targets)

    def find_pointers(self) -> dict[Key, Pointer]:
        context, found = self.context, DeviceMemory.pointers(self.context, self.needs, "grid", 1)
        inside = self.layout.own | set(self.layout.offsets)
        for b in self.needs.buffers(context):
            if b.space == "heap" and self.needs.is_local(context, b):
                found[b] = context.places.local_sequence(len(context.kernels), b, 1)
        return {key: p for key, p in found.items() if key not in inside}

    def make_memory(self) -> DeviceMemory:
        return BlockMemory(self)

    def is_apart(self, a: Pointer) -> bool:
        return not any(p == a and k in self.written for k, p in self.pointers.items()) and a not in (
            Pointer(WORKSPACE),
            Pointer(ERROR),
        )

    @property
    def is_spread(self) -> bool:
        return self.spreading

    def adds_atomically(self, op: Op) -> bool:
        return self.spreading and op.name == "scatter_add"

    # --- operations

    def block(self, block: Block) -> list[ir.Value | None]:
        self.unsynced = True
        found = super().block(block)
        self.unsynced = True
        return found

    def op(self, op: Op) -> None:
        how = self._how(op)
        if how == "all":
            self.unsynced |= any(v.type.rank for o in (op, *_inner(op)) for v in o.operands)
            super().op(op)
        elif how == "fold":
            fold = as_fold(op)
            assert fold is not None
            self._fold(fold)
        else:
            self._begin_writing()
            if how == "shared":
                self.spreading = True
                super().op(op)
                self.spreading = False
            else:
                self._first(op)
            barrier(self)
            self.unsynced = False
            if how == "first" and any(v.type.grows for v in (*op.operands, *op.results)):
                self._stop_if_failed()

    def _how(self, op: Op) -> str:
        """Who does an operation: all threads the whole of it, all a share of it, a fold, or the first thread."""
        buffers = self.plan.buffers
        results = [r for r in op.results if r.type.rank and r in buffers]
        if op.name in CONTROL or self.inside_nest:
            return "all"
        fold = as_fold(op)
        is_long = fold is not None and count(fold.inner) > LONE
        if all(buffers[r] in self.layout.own for r in results):
            return "fold" if is_long and fold is not None and count(fold.kept) <= LONE else "all"
        if any(r.type.grows for r in results) or op.name in IN_ORDER:
            return "first"
        if op.name == "scatter_add" and not adds_atomically(op, self.context):
            return "first"
        if is_long and fold is not None and count(fold.kept) < LONE:
            return "fold"
        return "shared"

    def _first(self, op: Op) -> None:
        """The first thread does it; after an error it comes to the next barrier too, where all go on together."""
        b, inside = self.builder, self.inside_nest
        alone, self.joined = self.new_block("alone"), self.new_block("joined")
        b.cbranch(b.icmp_unsigned("==", self.thread, ZERO), alone, self.joined)
        b.position_at_end(alone)
        self.inside_nest = True
        super().op(op)
        self.inside_nest = inside
        b.branch(self.joined)
        b.position_at_end(self.joined)
        self.joined = None

    def _begin_writing(self) -> None:
        if self.unsynced:
            barrier(self)

    def _stop_if_failed(self) -> None:
        b = self.builder
        what = b.load(self.parameters[Pointer(ERROR)], typ=I64)
        with b.if_then(b.icmp_signed("!=", what, ZERO), likely=False):
            self.branch_out(2)

    def _fold(self, fold: Fold) -> None:
        """All threads together for each result, which all get."""
        b, element = self.builder, fold.element(self)
        sharing = Sharing(self, fold)

        def one(kept: list[ir.Value]) -> None:
            barrier(self)
            sharing.begin()
            more = lambda k: sharing.add_element(element([*kept, *self.positions(k, fold.inner)]))  # noqa: E731
            self.stride(self.product(fold.inner), more)
            totals = block_totals(self, sharing.join, fold.dtypes, sharing.values(), self._line(fold.dtypes))
            self._hand_out(fold, kept, fold.given(b, totals))

        KernelEmitter.nest(self, fold.kept, one, ops=1 << 20)
        self.unsynced = True

    def _line(self, dtypes: Sequence[DType]) -> Line | None:
        """Where the warps meet: the same places for all folds, of which there may be many."""
        if self.block_size == WARP:
            return None
        key = tuple(dtypes)
        if key not in self.lines:
            self.lines[key] = Line(self, dtypes, self.block_size // WARP)
        return self.lines[key]

    def _hand_out(self, fold: Fold, kept: list[ir.Value], values: list[ir.Value]) -> None:
        b = self.builder
        mine = [r.type.is_scalar or self.plan.buffers[r] in self.layout.own for r in fold.results]
        write(self, [r for r, m in zip(fold.results, mine) if m], kept, [v for v, m in zip(values, mine) if m])
        others = [(r, v) for r, v, m in zip(fold.results, values, mine) if not m]
        if others:
            with b.if_then(b.icmp_unsigned("==", self.thread, ZERO)):
                write(self, [r for r, _ in others], kept, [v for _, v in others])
            barrier(self)


def _inner(op: Op) -> list[Op]:
    return [o for r in op.regions for o in walk(r)]


def threads_for(ops: Sequence[Op], points: Any) -> int:
    """How many threads a run of operations should have: 1 where nothing is worth sharing."""
    most = 1
    for op in ops:
        for o in (op, *_inner(op)):
            fold = as_fold(o)
            most = max(most, points(o), count(fold.inner) * count(fold.kept) if fold else 1)
    if most <= LONE:
        return 1
    return min(MOST_THREADS, max(WARP, 1 << (most - 1).bit_length()))
