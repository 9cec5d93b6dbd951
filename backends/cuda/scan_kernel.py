"""Running sums: loops of which each round sees the sum of what the rounds before it have added. (Or the product, or
the largest, or the smallest: what is said of sums here holds for these as well.)

Every thread has a *share* of rounds that follow each other. One kernel adds up what each share adds, a second, of one
block, what comes before each share; then the loop itself runs, every thread beginning with its own sum. (This is the
prefix sum by blocks of Blelloch, "Prefix Sums and Their Applications", 1990.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Needs
from dflow.backends.cuda.cooperative import barrier, shared
from dflow.backends.cuda.kernel import KernelEmitter
from dflow.backends.cuda.offsets import LANE_BITS
from dflow.backends.cuda.plan import Pointer
from dflow.backends.emit_kernel import accumulate, identity
from dflow.backends.emit_scalar import emit_scalar
from dflow.backends.emit_types import I64, ZERO, from_storage, index, storage_type, to_storage, value_type
from dflow.ir.core import Op, Value
from dflow.ir.types import DType

if TYPE_CHECKING:
    from dflow.backends.cuda.lanes import Lanes
    from dflow.backends.cuda.schedule import Scheduler

THREADS = 128  # in a block of a parallel loop: loops need many registers
SHARE = 8  # rounds that a thread should have at least
MOST_SCANNING = 256  # blocks
PREFIX_THREADS = 256


def enter_round(e: KernelEmitter, op: Op, lanes: Lanes, i: ir.Value) -> None:
    """What the round ``i`` of a parallel loop knows from the start."""
    b, (k, *carried) = e.builder, op.regions[0].args
    e.env[k] = i
    for position, step in lanes.steps.items():
        init = e.env[op.operands[1 + position]]
        t = init.type
        if step and t == I64:
            init = b.add(init, e.mul(i, index(step)))
        elif step:
            init = b.add(init, b.mul(b.trunc(i, t), t(step)))
        e.env[carried[position]] = init
    for position in lanes.offsets:
        e.env[carried[position]] = b.shl(i, index(LANE_BITS))


def share(e: KernelEmitter, count: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The rounds of this thread: the first, and the one after the last."""
    b, threads = e.builder, index(e.blocks * e.block_size)
    each = b.sdiv(b.add(count, b.sub(threads, index(1))), threads)
    first = b.mul(each, e.thread, flags=("nsw",))
    last = b.add(first, each, flags=("nsw",))
    return first, b.select(b.icmp_signed("<", last, count), last, count)


def load_number(e: KernelEmitter, d: DType, base: ir.Value, k: ir.Value) -> ir.Value:
    loaded = e.builder.load(_at(e, d, base, k), typ=storage_type(d))
    return from_storage(e.builder, d, loaded)


def _at(e: KernelEmitter, d: DType, base: ir.Value, k: ir.Value) -> ir.Value:
    return e.builder.gep(base, [k], inbounds=True, source_etype=storage_type(d))


def emit_prefixes(s: Scheduler, op: Op, lanes: Lanes, blocks: int) -> dict[Value, Pointer]:
    """Adds the first two kernels; where each thread finds what the scalar of a scan begins with."""
    carried = op.regions[0].args[1:]
    scanned = {carried[i]: scan for i, scan in lanes.scans.items()}
    rooms = {v: s.places.room(blocks * THREADS * v.type.dtype.itemsize) for v in scanned}
    e = KernelEmitter(s.context, "shares", "lanes", Needs(s.context, [op]), blocks, THREADS, targets=[*rooms.values()])
    b, e.loc = e.builder, op.loc
    e.recall([op])
    totals = {v: e.slot(value_type(v.type.dtype)) for v in scanned}
    for v, slot in totals.items():
        b.store(identity(scanned[v].kind, v.type.dtype), slot)

    def one(i: ir.Value) -> None:
        enter_round(e, op, lanes, i)
        done: set[Op] = set()
        for v, scan in scanned.items():
            for o in scan.ops:
                if o not in done:
                    e.op(o)
                    done.add(o)
            d = v.type.dtype
            old, added = b.load(totals[v], typ=value_type(d)), e.scalar(scan.increment)
            if scan.is_subtracted:
                new = emit_scalar(b, "sub", {}, [d, d], [old, added])
            else:
                new = accumulate(e, scan.kind, d, old, added)
            b.store(new, totals[v])

    first, last = share(e, e.env[op.operands[0]])
    e.stride_from(first, 1, last, one)
    for v, slot in totals.items():
        d = v.type.dtype
        b.store(to_storage(b, d, b.load(slot, typ=value_type(d))), _at(e, d, e.parameters[rooms[v]], e.thread))
    s.steps.append(e.finish())
    _add_up(s, op, rooms, {v: scan.kind for v, scan in scanned.items()}, blocks * THREADS)
    return rooms


def _add_up(s: Scheduler, op: Op, rooms: dict[Value, Pointer], kinds: dict[Value, str], count: int) -> None:
    """Each number becomes the sum of those before it; the sum of all is the result of the loop."""
    carried = op.regions[0].args[1:]
    inits = {v: op.operands[1 + carried.index(v)] for v in rooms}
    e = KernelEmitter(
        s.context,
        "prefixes",
        "lanes",
        Needs(s.context, [], inits.values()),
        1,
        PREFIX_THREADS,
        targets=[*rooms.values()],
    )
    e.recall([], list(inits.values()))
    for v, p in rooms.items():
        total = _prefixes(e, kinds[v], v.type.dtype, e.parameters[p], count, e.scalar(inits[v]))
        result = op.results[carried.index(v)]
        e.env[result] = total
        with e.builder.if_then(e.builder.icmp_unsigned("==", e.thread, index(PREFIX_THREADS - 1))):
            e.keep(result)
    s.steps.append(e.finish())


def _prefixes(e: KernelEmitter, kind: str, d: DType, base: ir.Value, count: int, init: ir.Value) -> ir.Value:
    """Works in place; what the last thread gets is the sum of all and ``init``."""
    b, slot, room = e.builder, e.slot(value_type(d)), shared(e, storage_type(d), PREFIX_THREADS)
    first, last = share(e, index(count))

    def add(value: ir.Value) -> ir.Value:
        old = b.load(slot, typ=value_type(d))
        b.store(accumulate(e, kind, d, old, value), slot)
        return old

    b.store(identity(kind, d), slot)
    e.stride_from(first, 1, last, lambda k: add(load_number(e, d, base, k)))
    b.store(to_storage(b, d, b.load(slot, typ=value_type(d))), _at(e, d, room, e.thread))
    barrier(e)
    b.store(init, slot)
    e.stride_from(ZERO, 1, e.thread, lambda k: add(load_number(e, d, room, k)))

    def put(k: ir.Value) -> None:
        value = load_number(e, d, base, k)
        b.store(to_storage(b, d, add(value)), _at(e, d, base, k))

    e.stride_from(first, 1, last, put)
    return b.load(slot, typ=value_type(d))
