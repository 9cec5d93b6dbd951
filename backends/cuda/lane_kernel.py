"""The kernel of a parallel loop: one thread a round, sums of all rounds added up at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Needs
from dflow.backends.cuda.cooperative import block_totals, by_kind
from dflow.backends.cuda.kernel import KernelEmitter
from dflow.backends.cuda.lanes import Lanes, rounds
from dflow.backends.cuda.plan import Pointer
from dflow.backends.cuda.scan_kernel import (
    MOST_SCANNING,
    SHARE,
    THREADS,
    emit_prefixes,
    enter_round,
    load_number,
    share,
)
from dflow.backends.emit_kernel import accumulate, identity
from dflow.backends.emit_types import I64, ZERO, from_storage, index, storage_type, to_storage, value_type
from dflow.ir.core import Op, Value
from dflow.ir.types import DType

if TYPE_CHECKING:
    from dflow.backends.cuda.schedule import Scheduler

MOST_BLOCKS = 2048  # what the largest processors run at a time
FEWEST_BLOCKS = 128
MOST_SCRATCH = 1 << 30  # bytes for the arrays of all threads, as far as there are enough threads


class LaneEmitter(KernelEmitter):
    """Writes a parallel loop."""

    lanes: Lanes

    def adds_atomically(self, op: Op) -> bool:
        return self.memory.buffers.get(op.result) in self.lanes.added

    def leave(self) -> None:
        """The sums of the block, for the second kernel."""
        if not self.totals:
            return
        b = self.builder
        dtypes = [v.type.dtype for v in self.totals]
        values = [b.load(slot, typ=value_type(d)) for slot, d in zip(self.totals.values(), dtypes)]
        found = block_totals(self, by_kind(self, ["sum"] * len(dtypes), dtypes), dtypes, values)
        with b.if_then(b.icmp_unsigned("==", self.register("tid.x"), ZERO)):
            block = self.register("ctaid.x")
            for p, d, value in zip(self.partials, dtypes, found):
                to = b.gep(self.parameters[p], [block], inbounds=True, source_etype=storage_type(d))
                b.store(to_storage(b, d, value), to)

    totals: dict[Value, ir.Value] = {}  # noqa: RUF012 (replaced, never changed)
    partials: list[Pointer] = []  # noqa: RUF012


def emit_lanes(s: Scheduler, op: Op, lanes: Lanes) -> None:
    """Adds the steps for a parallel loop to those of the scheduler."""
    (body,) = op.regions
    carried = body.args[1:]
    needs = Needs(s.context, [op])
    blocks = min(_most_blocks(s, needs), max(1, -(-rounds(op) // (SHARE * THREADS if lanes.scans else THREADS))))
    inits, results = dict(zip(carried, op.operands[1:])), dict(zip(carried, op.results))
    starts = emit_prefixes(s, op, lanes, min(blocks, MOST_SCANNING)) if lanes.scans else {}
    blocks = min(blocks, MOST_SCANNING) if lanes.scans else blocks
    sums = [carried[i] for i in lanes.sums]
    partials = [s.places.room(blocks * v.type.dtype.itemsize) for v in sums]
    targets = [*partials, *starts.values()]
    e = LaneEmitter(s.context, "lanes", "lanes", needs, blocks, THREADS, targets, is_divisible=not sums)
    e.lanes, e.partials, e.loc = lanes, partials, op.loc
    e.recall([op])
    e.totals = {v: e.slot(value_type(v.type.dtype)) for v in sums}
    b = e.builder
    with b.goto_block(e.entry):
        for v, slot in e.totals.items():
            b.store(identity("sum", v.type.dtype), slot)
    slots = dict(e.totals)
    for v, p in starts.items():
        slots[v] = e.slot(value_type(v.type.dtype))
        b.store(load_number(e, v.type.dtype, e.parameters[p], e.thread), slots[v])

    def one(i: ir.Value) -> None:
        enter_round(e, op, lanes, i)
        for v, slot in slots.items():
            e.env[v] = b.load(slot, typ=value_type(v.type.dtype))
        e.block(body)
        for v, slot in slots.items():
            b.store(e.env[body.results[carried.index(v)]], slot)

    if lanes.scans:
        first, last = share(e, e.env[op.operands[0]])
        e.stride_from(first, 1, last, one)
    else:
        e.stride(e.env[op.operands[0]], one)
    _keep_steps(e, op, lanes)
    s.steps.append(e.finish())
    if sums:
        _add_partials(s, [inits[v] for v in sums], [results[v] for v in sums], partials, blocks)


def _most_blocks(s: Scheduler, needs: Needs) -> int:
    """How many blocks there may be, considering the memory of their threads."""
    local = [b for b in needs.buffers(s.context) if b.space == "arena" and needs.is_local(s.context, b)]
    size = THREADS * sum(b.bytes for b in local)
    return min(MOST_BLOCKS, max(FEWEST_BLOCKS, MOST_SCRATCH // size)) if size else MOST_BLOCKS


def _keep_steps(e: LaneEmitter, op: Op, lanes: Lanes) -> None:
    """The last values of what is a multiple of the counter."""
    b = e.builder
    wanted = [(i, step) for i, step in lanes.steps.items() if e.context.escapes(op.results[i], e.needs.blocks)]
    if not wanted:
        return
    with b.if_then(b.icmp_signed("==", e.thread, ZERO)):
        n = e.env[op.operands[0]]
        n = b.select(b.icmp_signed("<", n, ZERO), ZERO, n)
        for i, step in wanted:
            init = e.env[op.operands[1 + i]]
            if step:
                count = n if init.type == I64 else b.trunc(n, init.type)
                init = b.add(init, b.mul(count, init.type(step)))
            e.env[op.results[i]] = init
            e.keep(op.results[i])


def _add_partials(
    s: Scheduler, inits: Sequence[Value], results: Sequence[Value], partials: Sequence[Pointer], count: int
) -> None:
    """A kernel of one block that adds the sums of the blocks to what the loop began with."""
    needs = Needs(s.context, [], inits)
    threads = 32 if count <= 64 else 256
    e = KernelEmitter(s.context, "total", "lanes", needs, 1, threads, targets=partials)
    b = e.builder
    e.recall([], inits)
    first = b.icmp_unsigned("==", e.thread, ZERO)
    for init, result, p in zip(inits, results, partials):
        d = result.type.dtype
        total = fold_partials(e, "sum", d, e.parameters[p], index(count))
        with b.if_then(first):
            e.env[result] = accumulate(e, "sum", d, e.scalar(init), total)
            e.keep(result)
    s.steps.append(e.finish())


def fold_partials(e: KernelEmitter, kind: str, d: DType, base: ir.Value, count: ir.Value) -> ir.Value:
    """``count`` elements side by side, combined by the threads of the only block."""
    b, slot = e.builder, e.slot(value_type(d))
    b.store(identity(kind, d), slot)

    def add(k: ir.Value) -> None:
        loaded = b.load(b.gep(base, [k], inbounds=True, source_etype=storage_type(d)), typ=storage_type(d))
        old = b.load(slot, typ=value_type(d))
        b.store(accumulate(e, kind, d, old, from_storage(b, d, loaded)), slot)

    e.stride(count, add)
    (total,) = block_totals(e, by_kind(e, [kind], [d]), [d], [b.load(slot, typ=value_type(d))])
    return total
