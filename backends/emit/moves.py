"""Short rows are moved, cleared and added as a whole.

    y[k, 0:14] = x              one instruction where a loop, written out, would be five for each element

What LLVM makes of it is the same, in vectors of the processor's size, but it has far less to read: the loops of
derivatives keep, clear and add up many such rows. The fewest stay written out, as their elements may be numbers that
are at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from llvmlite import ir

from dflow.backends.emit.collapse import collapsed_part
from dflow.backends.emit.core import UNROLL_POINTS, Emitter
from dflow.backends.emit.once import copy_bytes, fill_bytes
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import I1, I8, index, storage_type
from dflow.ir.core import Value
from dflow.ir.types import F32, F64, TensorType

FEWEST = 8  # elements


def is_row(e: Emitter, x: Value, part: Value, entries: Sequence[Any]) -> bool:
    """Whether the part ``x[entries]``, which is as ``part`` is, is a short row of neighbours in memory."""
    if not e.vectorizes or not _is_short(part.type):
        return False
    kept = [k for k, entry in enumerate(entries) if entry != "at"]
    one_axis = all(n == 1 for n in collapsed_part(e, x, part, entries)[:-1])
    entry = entries[kept[-1]]
    return kept[-1] == x.type.rank - 1 and one_axis and (entry == "all" or entry[2] == 1)


def _is_short(t: TensorType) -> bool:
    return t.is_static and FEWEST <= prod(t.static_shape) <= UNROLL_POINTS


def move(e: Emitter, source: ir.Value, target: ir.Value, v: Value, x: Value) -> None:
    """Copies ``v`` from its address ``source`` to ``target``, an address in ``x``."""
    call = e.builder.call(copy_bytes(e.module), [target, source, index(_bytes(v.type)), I1(0)])
    e.memory.mark_both(call, v, x)


def can_add(t: TensorType) -> bool:
    """Whether rows of this type are added as vectors."""
    return t.dtype in (F32, F64)


def add(e: Emitter, source: ir.Value, target: ir.Value, v: Value, x: Value) -> None:
    """Adds ``v`` to what is at an address in ``x``."""
    t = ir.VectorType(storage_type(v.type.dtype), prod(v.type.static_shape))
    values = [e.builder.load(at, typ=t, align=v.type.dtype.itemsize) for at in (target, source)]
    for value, tensor in zip(values, (x, v)):
        e.memory.mark(value, tensor)
    total = emit_scalar(e.builder, "add", {}, [v.type.dtype] * 2, values)
    e.memory.mark(e.builder.store(total, target, align=v.type.dtype.itemsize), x)


def cleared(e: Emitter, results: Sequence[Value], elements: Sequence[Value]) -> bool:
    """Clears the ``results`` of a kernel, if all of their elements are zero and they are short rows."""
    if not e.vectorizes or not all(_is_short(r.type) and _is_zero(e.env.get(v)) for r, v in zip(results, elements)):
        return False
    for r in results:
        call = e.builder.call(fill_bytes(e.module), [e.memory.base(r), I8(0), index(_bytes(r.type)), I1(0)])
        e.memory.mark(call, r)
    return True


def _is_zero(v: ir.Value | None) -> bool:
    """Whether all of its bytes are zero: -0.0 is not."""
    return isinstance(v, ir.Constant) and str(v.constant) in ("0", "0.0", "False")


def _bytes(t: TensorType) -> int:
    return prod(t.static_shape) * t.dtype.itemsize
