"""Large nests of loops in parts, which threads share.

    for i in n: for j in m: element(i, j)    ->    part(context, k): for i in k * length ... : for j in m: element(i, j)
                                                   dflow_parallel(part, context, parts)

How a nest is cut follows from its size alone, and what the parts of a sum have found is added up in their order. So
results are the same for every number of threads (`thread_pool.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from llvmlite import ir

from dflow.backends.emit.core import Domain, Emitter, Part
from dflow.backends.emit.memory import SMALL_ARENA
from dflow.backends.emit.outline import can_move, needs, new_function
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import (
    I8,
    I32,
    I64,
    ONE,
    PTR,
    VOID,
    ZERO,
    constant,
    declare,
    index,
    storage_type,
    strides,
)
from dflow.backends.native.thread_pool import SYMBOL
from dflow.ir.core import Op, Value
from dflow.ir.types import HALVES, Dim, Size

LEAST = 1 << 19  # operations that are worth waking a thread for, which takes some 10 us
MOVE = 2  # operations for each element of a copy
GRAIN = 1 << 15  # operations of a part, at least
MOST = 64  # parts
MANY = 32  # the size of an axis that is cut before all others are looked at
ALIGNED = 64  # elements: parts of the innermost axis are a multiple
WIDE = 2048  # the same where all rows of a matrix are read, part by part: narrow parts of rows are slow to find
LINE = 64  # bytes that caches hold together: no two threads write to the same
MOST_ROOM = 1 << 24  # bytes that the parts of a nest may have to work in
PARTIAL_BYTES = 1 << 15  # of the results of all parts of a reduction
Combine = Callable[[ir.Value, ir.Value], ir.Value]  # of two totals one


@dataclass(frozen=True)
class _Cut:
    """``axis`` in at most ``parts`` parts, all but the last a multiple of ``unit`` long; ``ops`` operations for each
    point."""

    axis: int
    parts: int
    unit: int
    ops: int


def in_parts(e: Emitter, op: Op, domain: Domain, ops: int, write: Callable[[Domain], None], unit: int = 1) -> None:
    """``write(domain)``, which writes the results of ``op`` by a nest of loops over ``domain``; where that is much
    work, in parts of one axis, which are multiples of ``unit`` long. What it writes for different indices must be
    independent."""
    cut = _cut(e, op, domain, ops, range(len(domain)), len(domain) - 1, unit)
    if cut is None:
        write(domain)
    else:
        _call_parts(e, op, domain, cut, lambda part, k: write(part))


def with_memory(
    e: Emitter,
    op: Op,
    domain: Domain,
    ops: int,
    room: int,
    write: Callable[[Domain, ir.Value], None],
) -> None:
    """The same for ``write(domain, memory)``, which needs ``room`` bytes to work in: each part has its own."""
    room = -(-room // LINE) * LINE
    most = MOST_ROOM // room
    cut = _cut(e, op, domain, ops, range(len(domain)), -1) if most > 1 else None
    if cut is not None:
        cut = replace(cut, parts=min(cut.parts, most))
    total = room * (1 if cut is None else cut.parts)
    on_stack = total <= SMALL_ARENA
    if on_stack:
        memory = e.slot(ir.ArrayType(I8, total))
        memory.align = LINE
    else:
        memory = e.memory.borrow(total)

    def part(inner: Domain, k: ir.Value, whole: ir.Value) -> None:
        write(inner, e.builder.gep(whole, [e.mul(k, index(room))], source_etype=I8))

    if cut is None:
        write(domain, memory)
    else:
        _call_parts(e, op, domain, cut, part, [memory])
    if not on_stack:
        e.memory.give_back(memory)


def fold_in_parts(
    e: Emitter,
    op: Op,
    results: Sequence[Value],
    domain: Domain,
    reduced: int,
    ops: int,
    write: Callable[[Domain], None],
    combine: Sequence[Combine],
    rows: bool,
) -> None:
    """The same for a reduction of the last ``reduced`` axes, which may be cut too: each part has ``results`` of its
    own, and ``combine`` says for each how two become one. ``rows``: the innermost loop is over the last kept axis."""
    kept = len(domain) - reduced
    along = (kept if rows else len(domain)) - 1
    cut = _cut(e, op, domain, ops, range(len(domain)), along, wide=rows)
    if cut is not None and cut.axis >= kept:
        cut = _Partials.fitted(e, op, results, cut) or _cut(e, op, domain, ops, range(kept), along, wide=rows)
    if cut is None:
        write(domain)
    elif cut.axis < kept:
        _call_parts(e, op, domain, cut, lambda part, k: write(part))
    else:
        _Partials(e, op, results, cut).fold(domain, write, combine)


def add_in_parts(e: Emitter, op: Op, domain: Domain, ops: int, add: Callable[[Domain], None]) -> None:
    """``add(domain)``, which adds to any elements of the result of ``op``: each part to zeros of its own, if there is
    room for them."""
    cut, r = _cut(e, op, domain, ops, range(len(domain)), -1), op.result
    fits = r.type.is_static and r.type.dtype not in HALVES and _bytes(r) > 0
    parts = min(cut.parts, PARTIAL_BYTES // _bytes(r)) if cut and fits else 1
    if cut is None or parts < 2:
        add(domain)
        return
    apart = _Partials(e, op, [r], replace(cut, parts=parts))
    zero = constant(r.type.dtype, 0)
    place = e.slot(ir.ArrayType(storage_type(r.type.dtype), parts * _count(r)))

    def part(inner: Domain, k: ir.Value, place: ir.Value) -> None:
        e.memory.bases[e.memory.buffers[r]] = apart.at(r, place, k)
        e.nest(r.type.shape, lambda at: e.store(r, at, zero))
        add(inner)

    count = _call_parts(e, op, domain, apart.cut, part, [place])

    def total(at: list[ir.Value]) -> None:
        def step(k: ir.Value, found: ir.Value) -> list[ir.Value]:
            own = e.load_at(r, e.offset(apart.at(r, place, k), r.type, e.dot(at, strides(r.type))))
            return [emit_scalar(e.builder, "add", {}, [r.type.dtype] * 2, [found, own])]

        e.store(r, at, e.loop(count, [e.load(r, at)], step)[0])

    e.nest(r.type.shape, total, ops=MOST)


# --- what is cut


def _cut(
    e: Emitter,
    op: Op,
    domain: Domain,
    ops: int,
    axes: Sequence[int],
    along: int,
    unit: int = 1,
    wide: bool = False,
) -> _Cut | None:
    """How one of ``axes`` is cut, if it is; ``along`` is the axis of the innermost loop, which is in parts that are
    long, and longer with ``wide``."""
    if not e.threads or not axes:
        return None
    bounds = [_bound(d) for d in domain]
    work = math.prod(bounds) * ops
    if work < LEAST or not can_move(e, op):
        return None
    units = {k: (WIDE if wide else ALIGNED) if k == along else unit for k in axes}
    sizes = {k: bounds[k] // units[k] for k in axes}
    axis = next((k for k in axes if sizes[k] >= MANY), max(axes, key=sizes.__getitem__))
    parts = min(MOST, sizes[axis], work // GRAIN)
    return _Cut(axis, parts, units[axis], ops) if parts > 1 else None


def _bound(d: Dim | Part) -> int:
    return d.bound if isinstance(d, Size) else int(d)  # type: ignore[arg-type]


# --- how it is called


def _call_parts(
    e: Emitter,
    op: Op,
    domain: Domain,
    cut: _Cut,
    write: Callable[..., None],
    lent: Sequence[ir.Value] = (),
) -> ir.Value:
    """``write(domain, k, *lent)`` in a function for the part number k of the domain, and the call of all parts; their
    number."""
    size = e.size(domain[cut.axis])
    parts, length = lengths(e, size, e.mul(e.product(domain), index(cut.ops)), cut.parts, cut.unit)
    with new_function(e, op, [I64, I64, I64, *(PTR for _ in lent)]) as (function, given, (begin, count, k, *own)):
        before, e.threads = e.threads, False
        write([*domain[: cut.axis], Part(begin, count), *domain[cut.axis + 1 :]], k, *own)
        e.threads = before
    run_parts(e, function, [*lent, *given], size, length, parts)
    return parts


def run_parts(
    e: Emitter, function: ir.Function, given: Sequence[ir.Value], size: ir.Value, length: ir.Value, parts: ir.Value
) -> None:
    """Calls ``function(begin, count, k, *given)`` for the parts k of ``size`` that are ``length`` long."""
    given = [size, length, *given]
    b, layout = e.builder, ir.LiteralStructType([v.type for v in given])
    context = e.slot(layout, "context")
    for i, v in enumerate(given):
        b.store(v, _field(b, layout, context, i))
    pool = declare(e.module, SYMBOL, ir.FunctionType(VOID, [PTR, PTR, I64]))
    b.call(pool, [_entry(e, function, layout), context, parts])


def _field(b: ir.IRBuilder, layout: ir.LiteralStructType, context: ir.Value, i: int) -> ir.Value:
    return b.gep(context, [I32(0), I32(i)], inbounds=True, source_etype=layout)


def _entry(e: Emitter, function: ir.Function, layout: ir.LiteralStructType) -> ir.Function:
    """``(context, k)``: calls the function with what the context holds."""
    made = ir.Function(e.module, ir.FunctionType(VOID, [PTR, I64]), e.module.get_unique_name(f"{function.name}.part"))
    made.linkage = "internal"
    made.attributes.add("nounwind")
    b = ir.IRBuilder(made.append_basic_block("entry"))
    context, k = made.args
    size, length, *given = (b.load(_field(b, layout, context, i), typ=t) for i, t in enumerate(layout.elements))
    begin = b.mul(k, length)
    b.call(function, [begin, _least(b, b.sub(size, begin), length), k, *given])
    b.ret_void()
    return made


def lengths(e: Emitter, size: ir.Value, work: ir.Value, most: int, unit: int) -> tuple[ir.Value, ir.Value]:
    """How ``size`` steps, ``work`` operations together, are cut: the number of parts, at most ``most``, and the length
    of all but the last, a multiple of ``unit``."""
    if isinstance(size, ir.Constant) and isinstance(work, ir.Constant):
        length = max(1, _rounded_up(size.constant, most * unit)) * unit
        return index(max(1, _rounded_up(size.constant, length))), index(length)
    b = e.builder
    wanted = _least(b, b.sdiv(work, index(GRAIN)), index(most))
    wanted = b.select(b.icmp_signed("<", work, index(LEAST)), ONE, wanted)
    blocks = b.sdiv(b.add(size, index(unit - 1)), index(unit))
    blocks = b.select(b.icmp_signed("<", blocks, ONE), ONE, blocks)
    length = b.sdiv(b.add(blocks, b.sub(wanted, ONE)), wanted)
    return b.sdiv(b.add(blocks, b.sub(length, ONE)), length), b.mul(length, index(unit))


def _rounded_up(size: int, step: int) -> int:
    return -(-size // step)


def _least(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed("<", x, y), x, y)


# --- results of parts


class _Partials:
    """A reduction of which every part leaves its results in memory of its own."""

    def __init__(self, e: Emitter, op: Op, results: Sequence[Value], cut: _Cut):
        self.e, self.op, self.results, self.cut = e, op, results, cut

    @staticmethod
    def fitted(e: Emitter, op: Op, results: Sequence[Value], cut: _Cut) -> _Cut | None:
        """The cut into as many parts as there is room for; None where there is not, or where something reads the
        results meanwhile."""
        read = {e.memory.buffers.get(v) for v in needs(op) if v.type.rank}
        places = [(r.type.dtype, e.memory.buffers.get(r)) for r in results]
        fine = all(dtype not in HALVES and (place is None or place not in read) for dtype, place in places)
        parts = min(cut.parts, PARTIAL_BYTES // max(1, sum(map(_bytes, results))))
        return replace(cut, parts=parts) if fine and parts > 1 else None

    def fold(self, domain: Domain, write: Callable[[Domain], None], combine: Sequence[Combine]) -> None:
        e, results = self.e, self.results
        places = [e.slot(ir.ArrayType(storage_type(r.type.dtype), self.cut.parts * _count(r))) for r in results]

        def part(inner: Domain, k: ir.Value, *places: ir.Value) -> None:
            own = [self.at(r, place, k) for r, place in zip(results, places)]
            for r, place in zip(results, own):
                if r.type.rank:
                    e.memory.bases[e.memory.buffers[r]] = place
            write(inner)
            for r, place in zip(results, own):
                if not r.type.rank:
                    e.store_at(r, place, e.env[r])

        parts = _call_parts(e, self.op, domain, self.cut, part, places)
        for r, place, two in zip(results, places, combine):
            e.nest(r.type.shape, partial(self.total, r, place, two, parts))

    def at(self, r: Value, place: ir.Value, k: ir.Value) -> ir.Value:
        """Where part k leaves a result."""
        return self.e.offset(place, r.type, self.e.mul(k, index(_count(r))))

    def total(self, r: Value, place: ir.Value, two: Combine, parts: ir.Value, at: list[ir.Value]) -> None:
        e, position = self.e, self.e.dot(at, strides(r.type))

        def element(k: ir.Value) -> ir.Value:
            return e.load_at(r, e.offset(self.at(r, place, k), r.type, position))

        def step(k: ir.Value, found: ir.Value) -> list[ir.Value]:
            return [two(found, element(e.add(k, ONE)))]

        (total,) = e.loop(e.sub(parts, ONE), [element(ZERO)], step)
        if r.type.rank:
            e.store(r, at, total)
        else:
            e.env[r] = total


def _count(r: Value) -> int:
    return math.prod(r.type.bound)


def _bytes(r: Value) -> int:
    return _count(r) * r.type.dtype.itemsize


__all__ = ["add_in_parts", "fold_in_parts", "in_parts", "lengths", "run_parts", "with_memory"]
