"""``print`` and ``warn`` in machine code: a call back into Python with the addresses of the values.

What is written is told by the number of a *site*, kept in this process; so programs that print are not kept on disk and
make no libraries.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir

from dflow.backends.emit.core import Emitter, emits
from dflow.backends.emit.types import I64, PTR, index, strides, to_storage
from dflow.ir.core import Op, Value
from dflow.ir.ops.printing import show
from dflow.ir.types import TensorType

_sites: list[tuple[dict[str, Any], list[TensorType]]] = []
_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int64))


@_SIGNATURE
def _write(site: int, addresses: Any, sizes: Any) -> None:
    attrs, types = _sites[site]
    lengths = iter(sizes[: sum(t.rank for t in types)])
    show(attrs, [_array(a, t, tuple(next(lengths) for _ in t.shape)) for a, t in zip(addresses, types)])


def _array(address: int, t: TensorType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A copy of the array at an address."""
    dtype = t.dtype.numpy
    if 0 in shape:
        return np.zeros(shape, dtype)
    steps = strides(t)
    elements = sum((n - 1) * s for n, s in zip(shape, steps)) + 1
    flat = np.frombuffer(ctypes.string_at(address, elements * dtype.itemsize), dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, [s * dtype.itemsize for s in steps]).copy()


@emits("print", "warn")
def _print(e: Emitter, op: Op) -> None:
    b = e.builder
    values = op.operands
    site = len(_sites)
    _sites.append((dict(op.attrs), [v.type for v in values]))
    sizes = [e.size(d) for v in values for d in v.type.shape]
    addresses = _table(e, [_address(e, v) for v in values], PTR)
    kind = ir.FunctionType(ir.VoidType(), [I64, PTR, PTR])
    target = ctypes.cast(_write, ctypes.c_void_p).value
    function = b.inttoptr(I64(target), kind.as_pointer())
    b.call(function, [index(site), addresses, _table(e, sizes, I64)])


def _address(e: Emitter, v: Value) -> ir.Value:
    if not v.type.is_scalar:
        return e.memory.base(v)
    stored = to_storage(e.builder, v.type.dtype, e.env[v])
    slot = e.slot(stored.type)
    e.builder.store(stored, slot)
    return slot


def _table(e: Emitter, values: list[ir.Value], t: ir.Type) -> ir.Value:
    table = e.slot(ir.ArrayType(t, max(len(values), 1)))
    for k, v in enumerate(values):
        e.builder.store(v, e.builder.gep(table, [index(k)], source_etype=t))
    return table
