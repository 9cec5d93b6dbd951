"""Values whose sizes depend on the run, kept in a place of static size: the bounds of their type."""

from __future__ import annotations

from collections.abc import Mapping

from dflow.ir.builder import Builder
from dflow.ir.core import Value, substitute
from dflow.ir.types import Size, TensorType


def packed_type(t: TensorType) -> TensorType:
    """The static type that has room for a value of type ``t``."""
    return t if t.is_static or t.grows else t.with_shape(t.bound)


def pack(b: Builder, v: Value) -> Value:
    """The value in the corner of a static tensor; the rest is unspecified."""
    if v.type.is_static or v.type.grows:
        return v
    starts, index = _corner(b, v.type)
    return b.update(b.emit("empty", type=packed_type(v.type)), v, *starts, index=index)


def unpack(b: Builder, packed: Value, t: TensorType, env: Mapping[Value, Value]) -> Value:
    """The value of type ``t``, with its sizes renamed by ``env``, out of a packed one."""
    if t.is_static or t.grows:
        return packed
    starts, index = _corner(b, substitute(t, env))
    return b.extract(packed, *starts, index=index)


def unspecified(b: Builder, t: TensorType) -> Value:
    return b.zeros(t) if t.is_scalar or t.grows else b.emit("empty", type=t)


def _corner(b: Builder, t: TensorType) -> tuple[list[Value], tuple[object, ...]]:
    """The part of a packed tensor that holds a value of type ``t``: index operands, and the index."""
    index = tuple(("slice", d, 1) if isinstance(d, Size) else "all" for d in t.shape)
    return [b.index(0) for e in index if e != "all"], index
