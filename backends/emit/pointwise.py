"""Tensors whose elements are computed each on its own: an operation is a formula for the element at an index."""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.emit.collapse import collapsed_part
from dflow.backends.emit.core import Domain, Emitter, emits, pointwise
from dflow.backends.emit.memory import copy_sequence
from dflow.backends.emit.moves import is_row, move
from dflow.backends.emit.once import copy_bytes, data
from dflow.backends.emit.outline import outlined
from dflow.backends.emit.parts import MOVE, in_parts
from dflow.backends.emit.turning import exchange
from dflow.backends.emit.types import I1, ZERO, constant, index
from dflow.ir.core import Op
from dflow.ir.types import Dim

At = list[ir.Value]


@emits("constant")
def _constant(e: Emitter, op: Op) -> None:
    result, value = op.result, op.attrs["value"]
    if result.type.is_scalar:
        e.env[result] = constant(result.type.dtype, value)
    elif result in e.memory.buffers:
        size = index(e.memory.buffers[result].bytes)
        source = data(e.module, e.function.name, result)
        call = e.builder.call(copy_bytes(e.module), [e.memory.base(result), source, size, I1(0)])
        e.memory.mark(call, result)


@emits("empty")
def _empty(e: Emitter, op: Op) -> None:
    """Nothing to do: the buffer is there. A scalar is 0, for an undefined register would not even equal itself."""
    if op.result.type.is_scalar:
        e.env[op.result] = constant(op.result.type.dtype, 0)


@emits("copy")
@outlined
def _copy(e: Emitter, op: Op) -> None:
    (x,) = op.operands
    if e.memory.same(x, op.result) or exchange(e, op):
        return
    if x.type.grows:
        copy_sequence(e, x, op.result)
    elif is_row(e, op.result, x, ["all"] * x.type.rank):
        zeros = [ZERO] * x.type.rank
        move(e, e.address(x, zeros), e.address(op.result, zeros, write=True), x, op.result)
    else:
        shape = collapsed_part(e, op.result, x, ["all"] * x.type.rank)
        in_parts(e, op, shape, MOVE, lambda d: e.nest(d, lambda at: e.store(op.result, at, e.load(x, at))))


@pointwise("iota")
def _iota(e: Emitter, op: Op, at: At) -> ir.Value:
    return at[0]


@pointwise("broadcast")
def _broadcast(e: Emitter, op: Op, at: At) -> ir.Value:
    return e.load(op.operands[0], [at[d] for d in op.attrs["dims"]])


@pointwise("transpose")
def _transpose(e: Emitter, op: Op, at: At) -> ir.Value:
    perm = op.attrs["perm"]
    return e.load(op.operands[0], [at[perm.index(k)] for k in range(len(perm))])


@emits("reshape")
def _reshape(e: Emitter, op: Op) -> None:
    (x,) = op.operands
    if x.type.is_static and not (x.type.is_scalar or op.result.type.is_scalar):
        if not e.memory.same(x, op.result):
            _copy_flat(e, op)
        return
    if x.type.is_scalar or not e.memory.same(x, op.result):
        e.fill(op, _reshaped)


def _copy_flat(e: Emitter, op: Op) -> None:
    """Elements keep their place, whatever the shape."""
    (x,), y = op.operands, op.result
    count = 1
    for size in x.type.static_shape:
        count *= size

    def move(at: At) -> None:
        value = e.load_at(x, e.offset(e.memory.base(x), x.type, at[0]))
        e.store_at(y, e.offset(e.memory.base(y), y.type, at[0]), value)

    in_parts(e, op, (count,), MOVE, lambda d: e.nest(d, move))


def _reshaped(e: Emitter, op: Op, at: At) -> ir.Value:
    """The element with the same row-major position, sizes being those of this run."""
    (x,) = op.operands
    return e.load(x, unflatten(e, flatten(e, at, op.result.type.shape), x.type.shape))


def flatten(e: Emitter, at: At, shape: tuple[Dim, ...]) -> ir.Value:
    position: ir.Value = ZERO
    for i, size in zip(at, shape):
        position = e.add(e.mul(position, e.size(size)), i)
    return position


def unflatten(e: Emitter, position: ir.Value, shape: tuple[Dim, ...]) -> At:
    at: At = []
    for size in reversed(shape[1:]):
        count = e.size(size)
        at.append(e.builder.urem(position, count))
        position = e.builder.udiv(position, count)
    return [position, *reversed(at)] if shape else []


@emits("concatenate")
def _concatenate(e: Emitter, op: Op) -> None:
    axis, start = op.attrs["axis"], 0
    for x in op.operands:

        def move(domain: Domain, x=x, start=start) -> None:
            to = [index(start) if k == axis else ZERO for k in range(x.type.rank)]
            e.nest(domain, lambda at: e.store(op.result, [e.add(i, k) for i, k in zip(at, to)], e.load(x, at)))

        in_parts(e, op, x.type.shape, MOVE, move)
        start += x.type.shape[axis]
