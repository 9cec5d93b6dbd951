"""From Python and NumPy values to traced arrays, and what every operation on them needs: promotion and broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.errors import ShapeError, TraceError, failure
from dflow.ir.core import Value
from dflow.ir.registry import OpTypeError
from dflow.ir.types import BOOL, DType, dtype_of
from dflow.tracing import array as _array
from dflow.tracing import sizes
from dflow.tracing.context import Cell, builder, constant, region
from dflow.tracing.sizes import Shape

Array = Any  # dflow.tracing.array.Array, which itself needs this module


def wrap(value: Value, weak: bool = False) -> Array:
    """A traced array that refers to ``value``."""
    return _array.Array(Cell(value, region()), value.type, weak=weak)


def lift(x: Any, like_dtype: Any = None) -> Array:
    """``x`` as a traced array: NumPy values become constants, Python numbers weak ones (of ``like_dtype`` if given)."""
    if isinstance(x, _array.Array):
        return x
    if isinstance(x, bool | np.bool_):
        return wrap(builder().constant(bool(x)))
    if isinstance(x, int | float) and not isinstance(x, np.generic):
        weak = like_dtype is None
        return wrap(builder().constant(x, None if weak else dtype_of(like_dtype)), weak=weak)
    if isinstance(x, np.generic) and supported(x.dtype):
        return wrap(builder().constant(x))
    if isinstance(x, np.ndarray) and supported(x.dtype):
        return wrap(constant(x) if x.ndim else builder().constant(x[()]))
    if isinstance(x, list | tuple):
        return stacked(x)
    raise failure(
        TraceError,
        f"a {type(x).__name__} cannot take part in array operations",
        seen=f"{x!r}"[:200],
        wanted="an array or a number",
        mend="convert it before the call",
    )


def supported(dtype: np.dtype[Any]) -> bool:
    """Whether the IR has this NumPy dtype."""
    try:
        return dtype_of(dtype).kind != "c"
    except TypeError:
        return False


def stacked(items: Sequence[Any]) -> Array:
    """A (nested) list of numbers and arrays as one new array, as ``np.array`` makes it."""
    if not contains_traced(items):
        return lift(np.array(items))
    rows = [lift(i) for i in items]
    values = promote(*rows)[1]
    shapes = list(dict.fromkeys(v.type.shape for v in values))
    shape = shapes[0] if len(shapes) == 1 else sizes.joint(*shapes) if len({len(s) for s in shapes}) == 1 else None
    if shape is None or any(1 in s for s in shapes if s != shape):
        raise failure(ShapeError, "the parts of an array must have one shape", seen=", ".join(map(sizes.show, shapes)))
    values = [sizes.recast(v, shape) for v in values]
    b = builder()
    values = [b.reshape(v, shape=(1, *v.type.shape)) for v in values]
    return wrap(b.concatenate(*values, axis=0))


def contains_traced(x: Any) -> bool:
    """Whether ``x`` is a traced array or a (nested) list or tuple with one in it."""
    if isinstance(x, list | tuple):
        return any(contains_traced(i) for i in x)
    return isinstance(x, _array.Array)


def static_value(x: Any) -> np.ndarray[Any, Any] | None:
    """The elements of ``x`` where they are known while tracing, else None."""
    if isinstance(x, _array.Array):
        value = x.value
        return np.asarray(value.op.attrs["value"], x.dtype) if value.op and value.op.name == "constant" else None
    return np.asarray(x)


# -- promotion ---------------------------------------------------------------------------------------------------


def result_dtype(*arrays: Array) -> np.dtype[Any]:
    """The dtype that NumPy 2 gives the arrays' result; numbers that came from Python are weak."""
    examples = [(0.0 if a.dtype.kind == "f" else 0) if a.weak else a.dtype for a in arrays]
    return np.dtype(np.result_type(*examples)) if not all(a.weak for a in arrays) else _weak_dtype(arrays)


def _weak_dtype(arrays: Sequence[Array]) -> np.dtype[Any]:
    return np.dtype(np.float64 if any(a.dtype.kind == "f" for a in arrays) else np.int64)


def convert(value: Value, dtype: Any) -> Value:
    """``value`` as another dtype (a constant as a constant)."""
    to = dtype_of(dtype)
    if value.type.dtype == to:
        return value
    b = builder()
    if value.op and value.op.name == "constant" and value.type.is_scalar:
        return b.constant(np.asarray(value.op.attrs["value"]).astype(to.numpy).item(), to)
    return b.convert(value, dtype=to)


def promote(*arrays: Array) -> tuple[np.dtype[Any], list[Value]]:
    """The common dtype of arrays, and their values in it."""
    dtype = result_dtype(*arrays)
    return dtype, [convert(a.value, dtype) for a in arrays]


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which NumPy computes a function such as ``sin`` for arguments of ``dtype``."""
    return dtype if dtype.kind == "f" else np.result_type(dtype, np.float16)


# -- broadcasting ------------------------------------------------------------------------------------------------


def broadcast_shape(*shapes: Shape) -> Shape:
    found = sizes.joint(*shapes)
    if found is None:
        raise sizes.mismatch("operands could not be broadcast together with shapes", *shapes)
    return found


def broadcast_to(value: Value, shape: Shape) -> Value:
    """``value`` broadcast to ``shape`` as NumPy does it: axes of size 1 are repeated."""
    found = sizes.spread(value, shape)
    if found is None:
        old, new = sizes.show(value.type.shape), sizes.show(shape)
        raise failure(ShapeError, f"could not broadcast an array of shape {old} into shape {new}")
    return found


def broadcast_together(*values: Value) -> list[Value]:
    """The values, all broadcast to their common shape."""
    shape = broadcast_shape(*(v.type.shape for v in values))
    return [broadcast_to(v, shape) for v in values]


# -- elementwise operations --------------------------------------------------------------------------------------

_ON_BOOLS = {"add": "or", "mul": "and", "max": "or", "min": "and", "abs": "copy"}


def elementwise(op: str, *args: Any, as_float: bool = False, dtype: Any = None, **attrs: Any) -> Array:
    """An elementwise operation as NumPy has it: lift, promote, broadcast, emit.

    ``as_float`` computes in the float dtype that NumPy takes for integers; ``dtype`` prescribes the operands' dtype.
    """
    arrays = [lift(a) for a in args]
    weak = all(a.weak for a in arrays)
    common = result_dtype(*arrays) if dtype is None else np.dtype(dtype)
    if as_float and common.kind != "f":
        common = np.dtype(np.float64) if weak or op == "div" else floating(common)
    if common.kind == "b" and op in _ON_BOOLS:
        op = _ON_BOOLS[op]
    values = broadcast_together(*(convert(a.value, common) for a in arrays))
    result = emit(op, *values, **attrs)
    return wrap(result, weak=weak and result.type.dtype is not BOOL)


def emit(op: str, *values: Value, **attrs: Any) -> Value:
    """``builder().emit``, refusals told with the user's line."""
    try:
        return builder().emit(op, *values, **attrs)
    except OpTypeError as e:
        raise failure(TraceError, str(e), seen=", ".join(str(v.type) for v in values)) from None


def ir_dtype(dtype: Any) -> DType:
    """The IR's dtype for anything that names one; refusals told with the user's line."""
    try:
        return dtype_of(dtype)
    except TypeError as e:
        raise failure(TraceError, str(e)) from None
