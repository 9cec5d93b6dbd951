"""Tensors that the rounds of a parallel loop only add to, and of which every thread has a copy of its own.

    for each k below n, in parallel: ... w_bar[i] += ...         thread t adds to copy[t][i];
                                                                 then w_bar[i] += copy[0][i] + copy[1][i] + ...

Additions of many threads to few places would wait for each other. With copies nobody waits, and as the order of all
additions is fixed, results are the same in every run. A second kernel adds up the copies, which lie side by side for
each element. Copies cost memory and that second kernel, so a tensor has them only where a thread adds about as many
numbers as it has elements, or where the order matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.cooperative import barrier, block_totals, by_kind
from dflow.backends.cuda.kernels.folds import accumulated, count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.kernels.memory import DeviceMemory
from dflow.backends.cuda.plan import Pointer
from dflow.backends.cuda.planning.places import SCRATCH
from dflow.backends.emit.kernel import accumulate, identity
from dflow.backends.emit.scalar import convert
from dflow.backends.emit.types import ZERO, index, value_type
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Block, Op, Value

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

LARGEST = 1 << 16  # bytes of a tensor that threads have copies of
NEAR = 256  # bytes of one whose copies stay near the threads, in registers if possible
TRIPS = 8  # rounds assumed of an inner loop of which nothing is known
MOST_THREADS = 1 << 18  # of a parallel loop
BLOCK = 256
MOST_BLOCKS = 1 << 16


def is_private(op: Op, b: tensors.Buffer, rounds: int, context: Context, must: bool = False) -> bool:
    """Whether the threads of a parallel loop have copies of a tensor to which ``rounds`` rounds add; ``must``: if it is
    possible."""
    if not b.type.is_static or b.bytes > LARGEST or b.type.dtype.kind == "b":
        return False
    if must or (context.deterministic and not b.type.dtype.is_integer):
        return True
    return _additions(op.regions[0], b, context) * -(-rounds // MOST_THREADS) >= count(b.type.bound)


def whole_sum(op: Op, b: tensors.Buffer, context: Context) -> set[Op]:
    """The operation itself and what it reads of a tensor in ``b``, if it adds a number to each element:

    %y = kernel { (%i) %1 = extract %x, %i; %2 = add %1, ...; yield %2 }        %x and %y lie in ``b``
    """
    if op.name != "kernel" or op.attrs["reduced"] or not any(context.plan.buffers.get(r) is b for r in op.results):
        return set()
    (region,) = op.regions
    read = {o for o in region.ops if o.name == "extract" and context.plan.buffers.get(o.operands[0]) is b}
    (y,) = (v for v, r in zip(region.results, op.results) if context.plan.buffers.get(r) is b)
    if len(read) != 1 or y.op is None or y.op.name not in ("add", "sub"):
        return set()
    (x,) = read
    is_used_once = context.used_by(x.result) == {y.op} and [v is x.result for v in y.op.operands].count(True) == 1
    is_first = y.op.name == "add" or y.op.operands[0] is x.result
    return {op, x} if is_used_once and is_first and x.operands[1:] == region.args else set()


def _additions(block: Block, b: tensors.Buffer, context: Context) -> int:
    """How many numbers a round adds, about."""
    total = 0
    for op in block.ops:
        if op.name in ("update_add", "scatter_add") and context.plan.buffers.get(op.result) is b:
            total += count(op.operands[1].type.shape)
        times = 1
        if op.name == "for":
            trips = op.operands[0].op
            times = int(trips.attrs["value"]) if trips is not None and trips.name == "constant" else TRIPS
        elif op.name in ("while", "kernel"):
            times = count(op.attrs["domain"]) if op.name == "kernel" else TRIPS
        total += times * sum(_additions(r, b, context) for r in op.regions)
    return total


class Copies(DeviceMemory):
    """The memory of a kernel whose threads have copies of some tensors."""

    def __init__(self, e: KernelEmitter, private: set[tensors.Buffer]):
        self.private = sorted(private, key=lambda b: (b.index, b.offset, b.bytes))
        self.starts: dict[tensors.Buffer, int] = {}  # where the copies are in the scratch memory, of all threads
        super().__init__(e)

    def local(self, b: tensors.Buffer) -> None:
        if b in self.private and b.bytes <= NEAR:
            self.bases[b] = self._on_stack(b)
        elif b in self.private:
            self.starts[b] = self.used
            self.striped[b] = self._stripe(b)
        else:
            super().local(b)

    def begin(self) -> None:
        """The copies are zero."""
        for b in self.private:
            if b in self.striped:
                self._clear(b)
            else:
                for k in range(count(b.type.bound)):
                    self.e.store_at(_any(b), self.e.offset(self.bases[b], b.type, index(k)), _zero(b))

    def _clear(self, b: tensors.Buffer) -> None:
        e, far, step = self.e, self.striped[b], index(self.threads)
        clear = lambda k: e.store_at(_any(b), e.offset(far, b.type, e.mul(k, step)), _zero(b))  # noqa: E731
        e.repeat(index(count(b.type.bound)), clear)

    def end(self) -> None:
        """What was kept near goes to the scratch memory."""
        e = self.e
        for b in self.private:
            if b not in self.starts:
                near = self.bases[b]
                self.starts[b] = self.used
                far, v = self._stripe(b), _any(b)
                for k in range(count(b.type.bound)):
                    value = e.load_at(v, e.offset(near, b.type, index(k)))
                    e.store_at(v, e.offset(far, b.type, index(k * self.threads)), value)

    def _on_stack(self, b: tensors.Buffer) -> ir.Value:
        return self.place(tensors.Buffer(b.type, "stack"))


def _any(b: tensors.Buffer) -> Value:
    """A tensor of the type of a buffer."""
    return Value(b.type)


def _zero(b: tensors.Buffer) -> ir.Value:
    return identity("sum", b.type.dtype)


def add_copies(s: Scheduler, op: Op, starts: dict[tensors.Buffer, int], threads: int) -> None:
    """Adds kernels that add the copies of so many threads to the tensors, a block for each element."""
    for b, start in starts.items():
        blocks, where = min(count(b.type.bound), MOST_BLOCKS), s.places.pointer(b)
        e = KernelEmitter(s.context, "copies", "lanes", Needs(s.context, []), blocks, BLOCK, [where], False)
        e.loc = op.loc
        _Sum(e, b, start, threads).into(e.parameters[where])
        s.steps.append(e.finish())


class _Sum:
    """The sum of the copies of one tensor."""

    def __init__(self, e: KernelEmitter, b: tensors.Buffer, start: int, threads: int):
        self.e, self.b, self.threads, self.tensor = e, b, threads, _any(b)
        self.wide = accumulated(b.type.dtype)
        self.copies = e.memory.at(e.parameters[Pointer(SCRATCH)], start)
        self.slot, self.me = e.slot(value_type(self.wide)), e.register("tid.x")

    def into(self, target: ir.Value) -> None:
        """Adds all elements to those of ``target``."""
        e, b = self.e, self.e.builder

        def element(k: ir.Value) -> None:
            total = self._total(k)
            with b.if_then(b.icmp_unsigned("==", self.me, ZERO)):
                here = e.offset(target, self.b.type, k)
                new = accumulate(e, "sum", self.wide, self._load(here), total)
                e.store_at(self.tensor, here, convert(b, self.wide, self.b.type.dtype, new))
            barrier(e)

        e.stride_from(e.register("ctaid.x"), e.blocks, index(count(self.b.type.bound)), element)

    def _total(self, k: ir.Value) -> ir.Value:
        """The sum of the copies of one element, which lie side by side."""
        e, b, kind = self.e, self.e.builder, value_type(self.wide)
        first = e.mul(k, index(self.threads))
        b.store(identity("sum", self.wide), self.slot)

        def add(t: ir.Value) -> None:
            value = self._load(e.offset(self.copies, self.b.type, e.add(first, t)))
            b.store(accumulate(e, "sum", self.wide, b.load(self.slot, typ=kind), value), self.slot)

        e.stride_from(self.me, BLOCK, index(self.threads), add)
        return block_totals(e, by_kind(e, ["sum"], [self.wide]), [self.wide], [b.load(self.slot, typ=kind)])[0]

    def _load(self, address: ir.Value) -> ir.Value:
        return convert(self.e.builder, self.b.type.dtype, self.wide, self.e.load_at(self.tensor, address))
