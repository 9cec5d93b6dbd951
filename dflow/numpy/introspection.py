"""Functions that ask about arrays, and those that write into one."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.tracing.arrays import dtypes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap


@implements(np.shape)
def shape(a: Any) -> tuple[Any, ...]:
    return lift(a).shape


@implements(np.ndim)
def ndim(a: Any) -> int:
    return lift(a).ndim


@implements(np.size)
def size(a: Any, axis: Any = None) -> Any:
    x = lift(a)
    return x.size if axis is None else x.shape[s.one_axis(axis, x.ndim)]


@implements(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    return s.result_type(*arrays_and_dtypes)


@implements(np.can_cast)
def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    return dtypes.can_cast(from_.dtype if isinstance(from_, Array) else from_, to, casting)


@implements(np.min_scalar_type)
def min_scalar_type(a: Any, /) -> np.dtype[Any]:
    return lift(a).dtype


@implements(np.common_type)
def common_type(*arrays: Any) -> Any:
    return np.common_type(*(np.empty(0, lift(a).dtype) for a in arrays))


@implements(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    return bool(lift(x).dtype.kind == "c")


@implements(np.isrealobj)
def isrealobj(x: Any) -> bool:
    return not iscomplexobj.__wrapped__(x)


@implements(np.shares_memory, np.may_share_memory)
def shares_memory(a: Any, b: Any, /, max_work: Any = None) -> bool:
    return isinstance(a, Array) and isinstance(b, Array) and a.cell is b.cell


@implements(np.copyto)
def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    """Writes ``src`` into ``dst``, where the mask holds."""
    if not isinstance(dst, Array):
        raise TypeError("np.copyto: the destination must be an array of the traced function, not a captured one")
    x = lift(src)
    if not x.weak and not dtypes.can_cast(x.dtype, dst.dtype, casting):
        raise TypeError(f"Cannot cast array data from {x.dtype} to {dst.dtype} according to the rule {casting!r}")
    v = s.expand(s.cast_operand(x, dst.dtype), s.dims(dst))
    if where is not True:
        mask = s.expand(s.cast(lift(where).value, bool), s.dims(dst))
        v = s.builder().select(mask, v, dst.value)
    dst[...] = wrap(v)
