"""The kernel of a parallel loop: one thread a round, sums of all rounds added up at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.cooperative import block_totals, by_kind
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.kernels.memory import Key
from dflow.backends.cuda.kernels.offsets import LANE_BITS
from dflow.backends.cuda.kernels.private import Copies, add_copies
from dflow.backends.cuda.kernels.scan import Scanner, Split
from dflow.backends.cuda.plan import Pointer
from dflow.backends.cuda.planning.lanes import Lanes, rounds
from dflow.backends.emit.kernel import accumulate, identity
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import I64, ZERO, constant, from_storage, index, storage_type, to_storage, value_type
from dflow.ir.core import Op, Value
from dflow.ir.types import DType

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

THREADS = 128  # in a block of a parallel loop: loops need many registers
MOST_BLOCKS = 2048  # what the largest processors run at a time
TAPED_BLOCKS = 1024  # where every thread has tapes: they take memory, and such loops so many registers that no more run
FEWEST_BLOCKS = 128
MOST_SCRATCH = 1 << 30  # bytes for the arrays of all threads, as far as there are enough threads


class LaneEmitter(KernelEmitter):
    """Writes a parallel loop."""

    def __init__(self, lanes: Lanes, context: Context, *args: Any, **options: Any):
        self.lanes, self.stays_together = lanes, bool(lanes.scans)
        super().__init__(context, *args, **options)

    def find_pointers(self) -> dict[Key, Pointer]:
        return {b: p for b, p in super().find_pointers().items() if b not in self.lanes.private}

    def make_memory(self) -> Copies:
        self.copies = Copies(self, self.lanes.private)
        return self.copies

    def enter_round(self, op: Op, i: ir.Value) -> None:
        """What the round ``i`` of a parallel loop knows from the start."""
        b, (k, *carried) = self.builder, op.regions[0].args
        self.env[k] = i
        for position, step in self.lanes.steps.items():
            init = self.env[op.operands[1 + position]]
            t = init.type
            if step and t == I64:
                init = b.add(init, self.mul(i, index(step)))
            elif step:
                init = b.add(init, b.mul(b.trunc(i, t), t(step)))
            self.env[carried[position]] = init
        for position in self.lanes.offsets:
            self.env[carried[position]] = b.shl(i, index(LANE_BITS))

    def increments(self, op: Op, i: ir.Value) -> list[ir.Value]:
        """What the round ``i`` adds to each running number."""
        self.enter_round(op, i)
        found, done = list[ir.Value](), set[Op]()
        for position, scan in self.lanes.scans.items():
            for o in scan.ops:
                if o not in done:
                    self.op(o)
                    done.add(o)
            d, value = op.operands[1 + position].type.dtype, self.scalar(scan.increment)
            if scan.is_subtracted:
                value = emit_scalar(self.builder, "sub", {}, [d, d], [constant(d, 0), value])
            found.append(value)
        return found

    def scanner(self, op: Op, split: Split, rooms: list[Pointer]) -> Scanner:
        scans = self.lanes.scans
        dtypes = [op.operands[1 + i].type.dtype for i in scans]
        return Scanner(self, split, [scan.kind for scan in scans.values()], dtypes, rooms)

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
    most, split, rooms = _most_blocks(s, needs, lanes), None, list[Pointer]()
    blocks = min(most, max(1, -(-rounds(op) // THREADS)))
    if lanes.scans:
        split = Split.of(1, rounds(op), THREADS, most)
        blocks, rooms = split.blocks, emit_totals(s, op, lanes, split)
    inits, results = dict(zip(carried, op.operands[1:])), dict(zip(carried, op.results))
    sums = [carried[i] for i in lanes.sums]
    partials = [s.places.room(blocks * v.type.dtype.itemsize) for v in sums]
    threads = THREADS if split is None else split.threads
    targets, is_divisible = [*partials, *rooms], not sums and split is None
    e = LaneEmitter(lanes, s.context, "lanes", "lanes", needs, blocks, threads, targets, is_divisible=is_divisible)
    e.partials, e.loc = partials, op.loc
    e.recall([op])
    e.totals = {v: e.slot(value_type(v.type.dtype)) for v in sums}
    b = e.builder
    with b.goto_block(e.entry):
        for v, slot in e.totals.items():
            b.store(identity("sum", v.type.dtype), slot)

    def one(i: ir.Value) -> None:
        e.enter_round(op, i)
        for v, slot in e.totals.items():
            e.env[v] = b.load(slot, typ=value_type(v.type.dtype))
        e.block(body)
        for v, slot in e.totals.items():
            b.store(e.env[body.results[carried.index(v)]], slot)

    e.copies.begin()
    if split is not None:
        _scan(e, op, split, rooms, one)
    else:
        e.stride(e.env[op.operands[0]], one)
    e.copies.end()
    _keep_steps(e, op, lanes)
    s.steps.append(e.finish())
    add_copies(s, op, e.copies.starts, blocks * threads)
    if sums:
        _add_partials(s, [inits[v] for v in sums], [results[v] for v in sums], partials, blocks)


def emit_totals(s: Scheduler, op: Op, lanes: Lanes, split: Split) -> list[Pointer]:
    """Adds the kernel that says what each chunk of the rounds adds to the running numbers; the places for that. There
    are none where a single block does all."""
    if split.chunks == 1:
        return []
    rooms = [s.places.room(split.places * op.operands[1 + i].type.dtype.itemsize) for i in lanes.scans]
    needs = Needs(s.context, [op])
    e = LaneEmitter(lanes, s.context, "totals", "lanes", needs, split.blocks, split.threads, rooms, is_divisible=False)
    e.loc = op.loc
    e.recall([op])
    scanner, inits = e.scanner(op, split, rooms), [e.scalar(op.operands[1 + i]) for i in lanes.scans]
    scanner.each(e.env[op.operands[0]], lambda *at: scanner.totals(at, inits, lambda i: e.increments(op, i)))
    s.steps.append(e.finish())
    return rooms


def _scan(e: LaneEmitter, op: Op, split: Split, rooms: list[Pointer], one: Callable[[ir.Value], None]) -> None:
    """All rounds, each with the running numbers that it sees; the last chunk has the results."""
    b, scanner, carried = e.builder, e.scanner(op, split, rooms), op.regions[0].args[1:]
    inits = [e.scalar(op.operands[1 + i]) for i in e.lanes.scans]

    def chunk(line: ir.Value, k: ir.Value, first: ir.Value, last: ir.Value) -> None:
        def body(i: ir.Value, numbers: list[ir.Value]) -> None:
            e.env.update(zip([carried[position] for position in e.lanes.scans], numbers))
            one(i)

        start = scanner.before(line, k) if rooms else inits
        found = scanner.run(first, last, start, lambda i: e.increments(op, i), body)
        is_last = b.icmp_unsigned("==", k, index(split.chunks - 1))
        with b.if_then(b.and_(is_last, b.icmp_unsigned("==", scanner.me, ZERO))):
            for position, value in zip(e.lanes.scans, found):
                e.env[op.results[position]] = value
                e.keep(op.results[position])

    scanner.each(e.env[op.operands[0]], chunk)


def _most_blocks(s: Scheduler, needs: Needs, lanes: Lanes) -> int:
    """How many blocks there may be, considering the memory of their threads."""
    local = [b for b in needs.buffers(s.context) if b.space == "arena" and needs.is_local(s.context, b)]
    size = THREADS * sum(b.bytes for b in (*local, *lanes.private))
    taped = any(b.space == "heap" and needs.is_local(s.context, b) for b in needs.buffers(s.context))
    most = TAPED_BLOCKS if taped else MOST_BLOCKS
    return min(most, max(FEWEST_BLOCKS, MOST_SCRATCH // size)) if size else most


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
