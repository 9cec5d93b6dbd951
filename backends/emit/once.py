"""Functions and constants that a module has once: of libc, for sequences, for the error record; dense constants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from llvmlite import ir

from dflow.backends.emit.core import untyped
from dflow.backends.emit.types import I1, I8, I64, NOT_KEPT, PTR, VOID, ZERO, declare, index
from dflow.ir.core import Value

ZERO_ROW = 4096  # rows up to this size are read from a constant beyond the end of a sequence
ARENA_ALIGNMENT = 64
HEADER = 64  # bytes before the first element of a sequence
MOST_KEPT = 1 << 28  # larger blocks of sequences are not kept
EXCHANGED = 4096  # bytes that are exchanged at once
DETAILS = 3  # numbers in an error record

LIBC = {
    "aligned_alloc": ir.FunctionType(PTR, [I64, I64]),
    "calloc": ir.FunctionType(PTR, [I64, I64]),
    "realloc": ir.FunctionType(PTR, [PTR, I64]),
    "free": ir.FunctionType(VOID, [PTR]),
}


def libc(module: ir.Module, name: str) -> ir.Function:
    return declare(module, name, LIBC[name])


def fill_bytes(module: ir.Module) -> ir.Function:
    t = ir.FunctionType(VOID, [PTR, I8, I64, I1])
    return module.declare_intrinsic("llvm.memset", [PTR, I64], t)


def copy_bytes(module: ir.Module) -> ir.Function:
    t = ir.FunctionType(VOID, [PTR, PTR, I64, I1])
    return module.declare_intrinsic("llvm.memcpy", [PTR, PTR, I64], t)


def zeros(module: ir.Module) -> ir.GlobalVariable:
    """Zeros for rows that do not exist."""
    if "dflow.zeros" not in module.globals:
        made = untyped(ir.GlobalVariable(module, ir.ArrayType(I8, ZERO_ROW), "dflow.zeros"))
        made.initializer, made.linkage, made.global_constant = ir.Constant(made.value_type, None), "internal", True
        made.align = ARENA_ALIGNMENT
    return module.globals["dflow.zeros"]


def data(module: ir.Module, prefix: str, x: Value) -> ir.GlobalVariable:
    """A dense constant as bytes."""
    assert x.op is not None
    array = np.ascontiguousarray(x.op.attrs["value"], x.type.dtype.numpy)
    raw = bytearray(np.broadcast_to(array, x.type.static_shape).tobytes())
    name = module.get_unique_name(f"{prefix}.data")
    made = untyped(ir.GlobalVariable(module, ir.ArrayType(I8, len(raw)), name))
    made.initializer, made.linkage, made.global_constant = ir.Constant(made.value_type, raw), "internal", True
    made.align = ARENA_ALIGNMENT
    return made


def grow(module: ir.Module) -> ir.Function:
    """``grow(pointer, capacity, position, bytes of a row, whether it is a tape)``: the sequence with room for the row
    at the position, moved and, unless it is a tape, zero in its new part, or NULL; and its capacity, at least twice
    that before, or all that the block has room for."""
    t = ir.LiteralStructType([PTR, I64])
    f, fresh = _once(module, "dflow.grow", ir.FunctionType(t, [PTR, I64, I64, I64, I1]))
    if not fresh:
        return f
    pointer, capacity, position, row, tape = f.args
    b = ir.IRBuilder(f.append_basic_block("entry"))
    least, doubled = b.add(position, index(1)), b.shl(capacity, index(1))
    new = b.select(b.icmp_signed(">", doubled, least), doubled, least)
    with b.if_then(b.icmp_unsigned(">", new, b.udiv(index(2**46), row)), likely=False):  # more than there can be
        b.ret(t(None))
    old_bytes, new_bytes = b.mul(capacity, row), b.mul(new, row)

    def give(p: ir.Value) -> None:
        b.ret(b.insert_value(b.insert_value(t(ir.Undefined), p, 0), new, 1))

    def clear_rest(p: ir.Value) -> None:
        added = b.sub(new_bytes, old_bytes)
        with b.if_then(b.not_(tape)):
            b.call(fill_bytes(module), [b.gep(p, [old_bytes], source_etype=I8), I8(0), added, I1(0)])

    def require(p: ir.Value) -> None:
        with b.if_then(b.icmp_unsigned("==", p, PTR(None)), likely=False):
            b.ret(t(None))

    with b.if_then(b.icmp_unsigned("!=", pointer, PTR(None))):
        room = b.load(_shifted(b, pointer, -HEADER), typ=I64)
        with b.if_then(b.and_(tape, b.icmp_unsigned(">=", room, b.mul(least, row)))):
            b.ret(b.insert_value(b.insert_value(t(ir.Undefined), pointer, 0), b.udiv(room, row), 1))
        fits = b.icmp_unsigned(">=", room, new_bytes)
        with b.if_then(fits):
            clear_rest(pointer)
            give(pointer)
    size = b.add(new_bytes, index(HEADER))
    with b.if_then(b.icmp_unsigned("==", capacity, ZERO)):
        made = b.call(libc(module, "calloc"), [size, index(1)])  # pages are zero without being touched
        require(made)
        b.call(free_block(module), [pointer])
        b.store(new_bytes, made)
        give(_shifted(b, made, HEADER))
    made = b.call(libc(module, "realloc"), [_shifted(b, pointer, -HEADER), size])
    require(made)
    b.store(new_bytes, made)
    moved = _shifted(b, made, HEADER)
    clear_rest(moved)
    give(moved)
    return f


def bring_back(module: ir.Module) -> ir.Function:
    """``bring_back(homes, found, count, bytes)``: what is at the first ``count`` addresses ``found``, which are
    ``homes`` in another order, at those of ``homes``."""
    f, fresh = _once(module, "dflow.bring_back", ir.FunctionType(VOID, [PTR, PTR, I64, I64]))
    if not fresh:
        return f
    homes, found, count, size = f.args
    b = ir.IRBuilder(f.append_basic_block("entry"))
    room = untyped(b.alloca(ir.ArrayType(I8, EXCHANGED)))

    def place(array: ir.Value, k: ir.Value) -> ir.Value:
        return b.gep(array, [k], source_etype=PTR)

    def exchange(x: ir.Value, y: ir.Value) -> None:
        with _counting(b, size, EXCHANGED) as at:
            rest = b.sub(size, at)
            bytes_ = b.select(b.icmp_unsigned("<", rest, index(EXCHANGED)), rest, index(EXCHANGED))
            p, q = (b.gep(v, [at], source_etype=I8) for v in (x, y))
            for target, origin in ((room, p), (p, q), (q, room)):
                b.call(copy_bytes(module), [target, origin, bytes_, I1(0)])

    with _counting(b, count) as k:
        home, here = (b.load(place(array, k), typ=PTR) for array in (homes, found))
        with b.if_then(b.icmp_unsigned("!=", home, here)):
            before, search, done = b.block, f.append_basic_block("search"), f.append_basic_block("done")
            b.branch(search)
            b.position_at_end(search)
            j = b.phi(I64)
            following = b.add(j, index(1))
            j.add_incoming(k, before)
            j.add_incoming(following, search)
            other = b.load(place(found, following), typ=PTR)
            b.cbranch(b.icmp_unsigned("==", other, home), done, search)
            b.position_at_end(done)
            exchange(home, here)
            b.store(here, place(found, following))
    b.ret_void()
    return f


@contextmanager
def _counting(b: ir.IRBuilder, stop: ir.Value, step: int = 1) -> Iterator[ir.Value]:
    """A loop over 0, ``step``, ... below ``stop``."""
    before = b.block
    head, inside, done = (b.append_basic_block(name) for name in ("loop", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    k = b.phi(I64)
    k.add_incoming(ZERO, before)
    b.cbranch(b.icmp_unsigned("<", k, stop), inside, done)
    b.position_at_end(inside)
    yield k
    k.add_incoming(b.add(k, index(step)), b.block)
    b.branch(head)
    b.position_at_end(done)


def write_error(module: ir.Module) -> ir.Function:
    """``write_error(record, code, details...)``: writes the error record, where there is one."""
    f, fresh = _once(module, "dflow.write_error", ir.FunctionType(VOID, [PTR, *[I64] * (1 + DETAILS)]))
    if fresh:
        record, *values = f.args
        b = ir.IRBuilder(f.append_basic_block("entry"))
        with b.if_then(b.icmp_unsigned("!=", record, PTR(None))):
            for k, value in enumerate(values):
                b.store(value, b.gep(record, [index(k)], source_etype=I64))
        b.ret_void()
    return f


def put_back(module: ir.Module) -> ir.Function:
    """``put_back(left, kept)``: keeps the block of a sequence, which is at ``left``, or frees it where it is large."""
    f, fresh = _once(module, "dflow.put_back", ir.FunctionType(VOID, [PTR, PTR]))
    if not fresh:
        return f
    left, kept = f.args
    left.add_attribute(NOT_KEPT)
    b = ir.IRBuilder(f.append_basic_block("entry"))
    pointer = b.load(left, typ=PTR)
    with b.if_then(b.icmp_unsigned("==", pointer, PTR(None))):
        b.ret_void()
    with b.if_then(b.icmp_unsigned(">", b.load(_shifted(b, pointer, -HEADER), typ=I64), index(MOST_KEPT))):
        b.call(free_block(module), [pointer])
        b.ret_void()
    b.call(free_block(module), [b.atomic_rmw("xchg", kept, pointer, "acq_rel")])
    b.ret_void()
    return f


def free_block(module: ir.Module) -> ir.Function:
    """``free_block(pointer)``: frees the block of a sequence; NULL is none."""
    f, fresh = _once(module, "dflow.free_block", ir.FunctionType(VOID, [PTR]))
    if fresh:
        b = ir.IRBuilder(f.append_basic_block("entry"))
        with b.if_then(b.icmp_unsigned("!=", f.args[0], PTR(None))):
            b.call(libc(module, "free"), [_shifted(b, f.args[0], -HEADER)])
        b.ret_void()
    return f


def _once(module: ir.Module, name: str, t: ir.FunctionType) -> tuple[ir.Function, bool]:
    """The function of that name, and whether it is new and has no body yet."""
    if name in module.globals:
        return module.globals[name], False
    f = ir.Function(module, t, name)
    f.linkage = "internal"
    for attribute in ("noinline", "cold", "nounwind"):
        f.attributes.add(attribute)
    return f, True


def _shifted(b: ir.IRBuilder, pointer: ir.Value, bytes_: int) -> ir.Value:
    return b.gep(pointer, [index(bytes_)], source_etype=I8)
