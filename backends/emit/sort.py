"""The order of the elements along the last axis, or some places of it.

One function for each dtype sorts one row (`quick_sort.py`, and with positions `radix_sort.py`), looks for the places
(`selection.py`), or parts the row about one (`partition.py`). Threads share the rows, or the passes over a long one.
"""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.emit.core import Domain, Emitter, emits
from dflow.backends.emit.partition import parter
from dflow.backends.emit.parts import with_memory
from dflow.backends.emit.quick_sort import SIZES, scratch_bytes, value_sorter
from dflow.backends.emit.radix_sort import RECORD, sorter
from dflow.backends.emit.selection import ROOM, selector
from dflow.backends.emit.types import I8, I64, ZERO, index
from dflow.ir.core import Op

COST = 32  # operations for each element
VALUES = 12  # the same where positions are not wanted
SELECTION = 8  # the same where some places are wanted


@emits("argsort")
def _argsort(e: Emitter, op: Op) -> None:
    (x,), y = op.operands, op.result
    *batch, size = y.type.shape
    if 0 in y.type.bound:
        return
    function = sorter(e.module, x.type.dtype, e.options.threads)
    ops = COST * y.type.bound[-1]

    def rows(domain: Domain, scratch: ir.Value) -> None:
        def row(at: list[ir.Value]) -> None:
            here = [*at, ZERO]
            e.builder.call(function, [e.address(x, here), e.address(y, here, write=True), scratch, e.size(size)])

        e.nest(domain, row, ops)

    with_memory(e, op, batch, ops, 2 * RECORD * y.type.bound[-1], rows)


@emits("sort")
def _sort(e: Emitter, op: Op) -> None:
    (x,), y = op.operands, op.result
    *batch, size = y.type.shape
    if 0 in y.type.bound:
        return
    bound, dtype = y.type.bound[-1], x.type.dtype
    quick = e.options.avx512 and dtype.itemsize in SIZES
    function = value_sorter(e.module, dtype) if quick else sorter(e.module, dtype, e.options.threads)
    ops, room = (VALUES if quick else COST) * bound, scratch_bytes(dtype, bound) if quick else (8 + 2 * RECORD) * bound

    def rows(domain: Domain, scratch: ir.Value) -> None:
        def row(at: list[ir.Value]) -> None:
            here, b = [*at, ZERO], e.builder
            source, target, count = e.address(x, here), e.address(y, here, write=True), e.size(size)
            if quick:
                b.call(function, [source, target, scratch, count])
                return
            order = b.gep(scratch, [index(2 * RECORD * bound)], source_etype=I8)
            b.call(function, [source, order, scratch, count])
            e.repeat(
                count,
                lambda k: e.store(y, [*at, k], e.load(x, [*at, b.load(b.gep(order, [k], source_etype=I64), typ=I64)])),
            )

        e.nest(domain, row, ops)

    with_memory(e, op, batch, ops, room, rows)


@emits("ranked")
def _ranked(e: Emitter, op: Op) -> None:
    (x, ranks), y = op.operands, op.result
    *batch, size = x.type.shape
    if 0 in y.type.bound:
        return
    bound = x.type.bound[-1]
    function = selector(e.module, x.type.dtype, e.options, bound, y.type.bound[-1])

    def rows(domain: Domain, scratch: ir.Value) -> None:
        def row(at: list[ir.Value]) -> None:
            here = [*at, ZERO]
            given = [e.address(v, here) for v in (x, ranks)]
            sizes = [e.size(d) for d in (size, y.type.shape[-1])]
            e.builder.call(function, [*given, e.address(y, here, write=True), scratch, *sizes])

        e.nest(domain, row, COST * bound)

    with_memory(e, op, batch, SELECTION * bound, ROOM * bound, rows)


@emits("partition", "argpartition")
def _partition(e: Emitter, op: Op) -> None:
    (x,), y, rank = op.operands, op.result, index(op.attrs["rank"])
    *batch, size = x.type.shape
    if 0 in y.type.bound:
        return
    bound = x.type.bound[-1]
    function = parter(e.module, x.type.dtype, e.options, bound, op.name == "argpartition")

    def rows(domain: Domain, scratch: ir.Value) -> None:
        def row(at: list[ir.Value]) -> None:
            here = [*at, ZERO]
            e.builder.call(function, [e.address(x, here), e.address(y, here, write=True), scratch, e.size(size), rank])

        e.nest(domain, row, COST * bound)

    with_memory(e, op, batch, SELECTION * bound, ROOM * bound, rows)
