"""Loops that keep what passes a test, several rounds at a time, on processors that can compress vectors.

    for k in n:                              for k in 0, 8, ...:
        kept[found] = f(k)            ->         m = test(k), ..., test(k + 7)
        found += test(k)                         kept[found : found + count(m)] = compress(f(k), ..., f(k + 7) by m)
                                                 found += count(m)

Some hundred rounds at a time, tests and values are first computed into short buffers, by loops that LLVM makes ones
over vectors. The last rounds come one by one, so that what the very last one writes behind the elements found is there
too: what others wrote there has been written over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from dflow.backends.emit.core import Emitter
from dflow.backends.emit.types import I8, I32, I64, PTR, VOID, ZERO, index, storage_type, to_storage
from dflow.ir.core import Block, Op, Value
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.rewrite import has_effect
from dflow.ir.registry import definition

ROUNDS = 256  # in one go
TESTS = 64  # that are looked at together: often none holds
VECTOR_BYTES = 64
SIZES = (4, 8)  # bytes of the elements that all such processors compress


@dataclass(frozen=True)
class Filter:
    """``values`` go to the array carried beside them where ``test`` holds; ``ops`` compute both."""

    ops: list[Op]
    test: Value
    values: list[tuple[Value, Value]]


def filter_of(e: Emitter, loop: Op) -> Filter | None:
    """What ``loop`` keeps, if that is all it does."""
    (body,) = loop.regions
    if not e.vectorizes or not e.options.avx512:
        return None
    arrays = [a for a in body.args[1:] if a.type.rank]
    counts = [(a, r) for a, r in zip(body.args[1:], body.results) if not a.type.rank]
    if len(counts) != 1 or not arrays:
        return None
    (found, total), uses = counts[0], count_uses(body)
    add = total.op
    if add is None or add.name != "add" or found not in add.operands or uses[total] != 1:
        return None
    step = add.operands[add.operands[0] is found]
    if step.op is None or step.op.name != "convert" or step.op.operands[0].type.dtype.kind != "b":
        return None
    writes = [r.op for a, r in zip(body.args[1:], body.results) if a.type.rank]
    if not all(_keeps(w, a, found, uses) for w, a in zip(writes, arrays)) or uses[found] != 1 + len(arrays):
        return None
    others = [op for op in body.ops if op is not add and op not in writes]
    if not all(_is_plain(e, op, arrays) for op in others):
        return None
    return Filter(others, step.op.operands[0], [(a, w.operands[1]) for a, w in zip(arrays, writes) if w])


def _keeps(write: Op | None, array: Value, found: Value, uses: dict[Value, int]) -> bool:
    """Whether it puts a number at the place ``found`` of an array that is used for nothing else."""
    return (
        write is not None
        and write.name == "update"
        and array.type.rank == 1
        and not array.type.grows
        and array.type.dtype.itemsize in SIZES
        and array.type.dtype.kind in "iuf"
        and write.operands[0] is array
        and write.operands[2] is found
        and write.attrs["index"] == ("at",)
        and uses[array] == uses[write.result] == 1
    )


def _is_plain(e: Emitter, op: Op, arrays: Sequence[Value]) -> bool:
    """Whether it is arithmetic, or an element of an array that the loop does not change."""
    if op.regions or has_effect(op) or any(r.type.rank for r in op.results):
        return False
    if op.name != "extract":
        return op.name == "constant" or definition(op).elementwise
    source = op.operands[0]
    return not source.type.grows and not any(source is a or e.memory.same(source, a) for a in arrays)


def filtered(
    e: Emitter, body: Block, found: Filter, count: ir.Value, inits: Sequence[ir.Value], begin: ir.Value
) -> tuple[ir.Value, list[ir.Value]]:
    """Writes all rounds but the last ones: how many that are, and the number of elements found so far."""
    b = e.builder
    lanes = VECTOR_BYTES // max(a.type.dtype.itemsize for a, _ in found.values)
    # Several arrays with elements of different sizes are compressed by masks of one length.
    marks = e.slot(ir.ArrayType(I8, ROUNDS))
    rows = [e.slot(ir.ArrayType(storage_type(a.type.dtype), ROUNDS)) for a, _ in found.values]
    most = e.sub(count, index(1))
    whole = b.select(b.icmp_signed(">", most, ZERO), b.and_(most, index(-ROUNDS)), ZERO)

    def rounds(start: ir.Value, before: ir.Value) -> list[ir.Value]:
        def compute(i: ir.Value) -> None:
            e.env[body.args[0]] = e.add(begin, e.add(start, i))
            for op in found.ops:
                e.op(op)
            for (a, v), row in zip(found.values, rows):
                value = to_storage(b, v.type.dtype, e.env[v])
                b.store(value, b.gep(row, [i], source_etype=storage_type(a.type.dtype)))
            b.store(b.zext(e.env[found.test], I8), b.gep(marks, [i], source_etype=I8))

        e.repeat(index(ROUNDS), compute)

        def compress(i: ir.Value, tests: ir.Value, at: ir.Value) -> ir.Value:
            number = b.zext(b.ctpop(tests), I32)
            first = b.trunc(b.sub(b.shl(I32(1), number), I32(1)), tests.type)
            for (a, _), row in zip(found.values, rows):
                size = a.type.dtype.itemsize
                vector = ir.VectorType(ir.IntType(8 * size), lanes)
                values = b.load(b.gep(row, [i], source_etype=storage_type(a.type.dtype)), typ=vector, align=size)
                _store(e, a, e.address(a, [at], write=True), _compressed(e, values, tests), first)
            return e.add(at, b.zext(number, at.type))

        def some(i: ir.Value, at: ir.Value) -> list[ir.Value]:
            held = b.load(b.gep(marks, [i], source_etype=I8), typ=ir.VectorType(I8, TESTS), align=1)
            tests = b.bitcast(b.icmp_unsigned("!=", held, ir.Constant(held.type, None)), I64)

            def each() -> list[ir.Value]:
                end = at
                for j in range(0, TESTS, lanes):
                    end = compress(e.add(i, index(j)), b.trunc(b.lshr(tests, I64(j)), ir.IntType(lanes)), end)
                return [end]

            return e.either(b.icmp_unsigned("!=", tests, ZERO), each, lambda: [at])

        return e.loop(index(ROUNDS), [before], some, step=TESTS)

    return whole, e.loop(whole, inits, rounds, step=ROUNDS)


def _compressed(e: Emitter, values: ir.Value, bits: ir.Value) -> ir.Value:
    """The values for which there is a bit, one behind the other."""
    t = values.type
    mask = e.builder.bitcast(bits, ir.VectorType(ir.IntType(1), t.count))
    name = f"llvm.experimental.vector.compress.v{t.count}i{t.element.width}"
    function = e.module.globals.get(name) or ir.Function(e.module, ir.FunctionType(t, [t, mask.type, t]), name)
    return e.builder.call(function, [values, mask, ir.Constant(t, ir.Undefined)])


def _store(e: Emitter, x: Value, address: ir.Value, values: ir.Value, bits: ir.Value) -> None:
    """Stores the values for which there is a bit."""
    t = values.type
    mask = e.builder.bitcast(bits, ir.VectorType(ir.IntType(1), t.count))
    name = f"llvm.masked.store.v{t.count}i{t.element.width}.p0"
    kind = ir.FunctionType(VOID, [t, PTR, I32, mask.type])
    function = e.module.globals.get(name) or ir.Function(e.module, kind, name)
    e.memory.mark(e.builder.call(function, [values, address, I32(t.element.width // 8), mask]), x)
