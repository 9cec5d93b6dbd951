"""From Python and NumPy values to traced arrays, and what every operation on them needs: promotion and broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.errors import RangeError, ShapeError, TraceError, failure
from dflow.ir.core import Value
from dflow.ir.registry import OpTypeError
from dflow.ir.types import BOOL, I64, DType, dtype_of, kind_of
from dflow.records import has, in_gpu_memory
from dflow.tracing.arrays import array as _array
from dflow.tracing.arrays import dtypes, sizes
from dflow.tracing.arrays.sizes import Shape
from dflow.tracing.context import Cell, builder, constant, region
from dflow.tracing.lists import rows
from dflow.tracing.python.choice import Choice, Standing
from dflow.tracing.python.optional import Optional

Array = Any  # dflow.tracing.arrays.array.Array, which itself needs this module


def wrap(value: Value, weak: bool | None = False) -> Array:
    """A traced array that refers to ``value``."""
    return _array.Array(Cell(value, region()), value.type, weak=weak)


def either(a: bool | None, b: bool | None) -> bool | None:
    """``weak`` of what is one of two numbers; None where only one came from Python: which, the run decides."""
    return a if a is b else None


def together(*weak: bool | None) -> bool | None:
    """``weak`` of what Python computes from several numbers: one of NumPy's makes it NumPy's."""
    return all(weak) or (None if False not in weak else False)


class Placeholder(Standing):
    """The base of what stands for traced items of a list."""

    __slots__ = ()


def lift(x: Any, like_dtype: Any = None) -> Array:
    """``x`` as a traced array: NumPy values become constants, Python numbers weak ones (of ``like_dtype`` if given)."""
    if isinstance(x, _array.Array):
        return x
    if isinstance(x, bool | np.bool_):
        return wrap(builder().constant(bool(x)), weak=isinstance(x, bool))
    if isinstance(x, int | float | complex) and not isinstance(x, np.generic):
        if isinstance(x, int) and not -(2**63) <= x < 2**64:
            raise failure(RangeError, f"the integer {x} has more than 64 bits", mend=f"write it as a float: {x:.6g}")
        weak = like_dtype is None
        return wrap(builder().constant(x, None if weak else dtype_of(like_dtype)), weak=weak)
    if isinstance(x, np.generic) and supported(x.dtype):
        return wrap(builder().constant(x))
    if isinstance(x, np.ndarray) and supported(x.dtype):
        refuse_subclass(x)
        return wrap(constant(x) if x.ndim else builder().constant(x[()]))
    if isinstance(x, list | tuple):
        return stacked(x)
    if isinstance(x, Optional):
        return lift(x.get())
    if in_gpu_memory(x):  # an array on a device that the function closes over
        return lift(x.get() if hasattr(x, "get") else np.asarray(x))
    numpys = isinstance(x, np.ndarray | np.generic)  # of a dtype that programs do not have
    # Another library's array in the memory of this machine.
    if not numpys and has(x, "__array__") and has(x, "__dlpack__"):
        return lift(np.asarray(x))
    what = f"an array of dtype {x.dtype}" if numpys else f"a {type(x).__name__}"
    raise failure(
        TraceError,
        f"{what} cannot take part in array operations",
        seen=f"{x!r}"[:200],
        wanted="an array or a number",
        mend="convert it before the call",
    )


def is_plain(x: Any) -> bool:
    """Whether NumPy's own rules hold for an array: not for masked arrays, matrices and other subclasses."""
    return type(x) in (np.ndarray, np.memmap)


def refuse_subclass(x: np.ndarray[Any, Any]) -> None:
    if not is_plain(x):
        name = type(x).__name__
        raise failure(
            TraceError,
            f"a {name} cannot take part in array operations, since its own rules are not known",
            seen=f"an array of class {name}",
            mend="pass a plain array: x.filled(...) of a masked array, np.asarray(x) of others",
        )


def supported(dtype: np.dtype[Any]) -> bool:
    """Whether the IR has this NumPy dtype."""
    try:
        dtype_of(dtype)
    except TypeError:
        return False
    return True


def stacked(items: Sequence[Any]) -> Array:
    """A (nested) list of numbers and arrays as one new array, as ``np.array`` makes it."""
    found = rows.stacked(items)
    if found is None and len(items) and isinstance(items[0], Placeholder):
        found = _earlier().stacked(items)
    if found is not None:
        return found
    if not contains_traced(items):
        return lift(np.array(items))
    parts = [wrap(p.value) if p.weak else p for p in map(lift, items)]  # as np.array: a float is a float64 there
    values = promote(*parts)[1]
    shapes = list(dict.fromkeys(v.type.shape for v in values))
    shape = shapes[0] if len(shapes) == 1 else sizes.joint(*shapes) if len({len(s) for s in shapes}) == 1 else None
    if shape is None or any(1 in s for s in shapes if s != shape):
        raise failure(ShapeError, "the parts of an array must have one shape", seen=", ".join(map(sizes.show, shapes)))
    values = [sizes.recast(v, shape) for v in values]
    b = builder()
    values = [b.reshape(v, shape=(1, *v.type.shape)) for v in values]
    return wrap(b.concatenate(*values, axis=0))


def _earlier() -> Any:
    from dflow.tracing.lists import earlier

    return earlier


def contains_traced(x: Any) -> bool:
    """Whether ``x`` is a traced array or a (nested) list or tuple with one in it."""
    if isinstance(x, list | tuple):
        return any(contains_traced(i) for i in x)
    return isinstance(x, _array.Array | Placeholder | Optional | Choice)


def any_traced(values: Any) -> bool:
    return any(contains_traced(v) or (isinstance(v, dict) and any_traced(v.values())) for v in values)


def static_value(x: Any) -> np.ndarray[Any, Any] | None:
    """The elements of ``x`` where they are known while tracing, else None."""
    if isinstance(x, _array.Array):
        value = x.value
        return np.asarray(value.op.attrs["value"], x.dtype) if value.op and value.op.name == "constant" else None
    return np.asarray(x)


def is_constant(x: Array) -> bool:
    """Whether the elements of a traced array are known while tracing."""
    return x.value.op is not None and x.value.op.name == "constant"


# -- promotion ---------------------------------------------------------------------------------------------------


WEAK: dict[str, Any] = {"f": 0.0, "c": 0j, "b": np.dtype(bool)}  # examples of Python's numbers


def result_dtype(*arrays: Array) -> np.dtype[Any]:
    """The dtype that NumPy 2 gives the arrays' result; numbers that came from Python are weak."""
    examples = [WEAK.get(a.dtype.kind, 0) if a.weak else a.dtype for a in arrays]
    return dtypes.result_type(*examples) if not all(a.weak for a in arrays) else _weak_dtype(arrays)


def _weak_dtype(arrays: Sequence[Array]) -> np.dtype[Any]:
    kinds = {a.dtype.kind for a in arrays}
    if kinds == {"b"}:
        return np.dtype(bool)
    return np.dtype(np.complex128 if "c" in kinds else np.float64 if "f" in kinds else np.int64)


def convert(value: Value, dtype: Any) -> Value:
    """``value`` as another dtype (a constant as a constant)."""
    to = dtype_of(dtype)
    if value.type.dtype == to:
        return value
    b = builder()
    if value.op and value.op.name == "constant" and value.type.is_scalar:
        return b.constant(np.asarray(value.op.attrs["value"]).astype(to.numpy).item(), to)
    return b.convert(value, dtype=to)


def position(index: Array) -> Array:
    """An integer as one of Python's: a length can be added to it, which the narrow types of integers may not hold."""
    return wrap(convert(index.value, I64), weak=True)


def promote(*arrays: Array) -> tuple[np.dtype[Any], list[Value]]:
    """The common dtype of arrays, and their values in it."""
    dtype = result_dtype(*arrays)
    return dtype, [_operand(a, dtype) for a in arrays]


def _operand(a: Array, dtype: np.dtype[Any]) -> Value:
    """The value of ``a`` as ``dtype``. As in NumPy, a Python number that does not fit is refused."""
    if not _fits(a, dtype):
        raise failure(
            RangeError,
            f"the Python integer {static_value(a)} is out of bounds for {dtype}",
            mend=f"convert the array first (astype), or use a number that {dtype} holds",
        )
    return convert(a.value, dtype)


def _fits(a: Array, dtype: np.dtype[Any]) -> bool:
    """Whether a Python integer is known to be one of ``dtype``; other values are not looked at."""
    if not a.weak or a.dtype.kind not in "iu" or np.dtype(dtype).kind not in "iu" or not is_constant(a):
        return True
    bounds = np.iinfo(dtype)
    return bool(bounds.min <= int(static_value(a)) <= bounds.max)  # type: ignore[arg-type]


COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def _comparison_dtype(arrays: Sequence[Array], common: np.dtype[Any]) -> np.dtype[Any]:
    """Where integers are compared with a Python integer: by their values, as NumPy does it."""
    if common.kind not in "iu" or not any(a.weak for a in arrays):
        return common
    if all(is_constant(a) and _fits(a, common) for a in arrays if a.weak):
        return common
    return np.dtype(np.int64)


def _is_mixed(arrays: Sequence[Array]) -> bool:
    """Whether 64-bit unsigned integers meet signed ones, which no common dtype of integers holds."""
    signed = [a for a in arrays if a.dtype.kind == "i" and not (a.weak and is_constant(a) and _fits(a, _UNSIGNED))]
    return len(arrays) == 2 and len(signed) == 1 and any(a.dtype == _UNSIGNED for a in arrays)


_UNSIGNED = np.dtype(np.uint64)


def _compare_mixed(op: str, arrays: Sequence[Array]) -> Array:
    """As numbers: a negative one is below all unsigned ones."""
    values = broadcast_together(*(a.value for a in arrays))
    k = next(k for k, a in enumerate(arrays) if a.dtype != _UNSIGNED)
    negative = emit("lt", values[k], builder().zeros(values[k].type))
    unsigned = emit(op, *(convert(v, _UNSIGNED) for v in values))
    below = op == "ne" or op in (("gt", "ge") if k else ("lt", "le"))
    return wrap(builder().select(negative, builder().full(below, negative.type), unsigned))


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which NumPy computes a function such as ``sin`` for arguments of ``dtype``."""
    return dtype if kind_of(dtype) in "fc" else np.result_type(dtype, np.float16)


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

_ON_BOOLS = {"add": "or", "mul": "and", "max": "or", "min": "and"}


def elementwise(op: str, *args: Any, as_float: bool = False, dtype: Any = None, **attrs: Any) -> Array:
    """An elementwise operation as NumPy has it: lift, promote, broadcast, emit.

    ``as_float`` computes in the float dtype that NumPy takes for integers; ``dtype`` prescribes the operands' dtype.
    """
    arrays = [lift(a) for a in args]
    weak = together(*(a.weak for a in arrays))
    common = result_dtype(*arrays) if dtype is None else np.dtype(dtype)
    if common.kind == "c":
        return _complex(op, arrays, weak)
    if as_float and kind_of(common) != "f":
        common = np.dtype(np.float64) if weak or op == "div" else floating(common)
    if op in COMPARISONS and _is_mixed(arrays):
        return _compare_mixed(op, arrays)
    if op in COMPARISONS:
        common = _comparison_dtype(arrays, common)
    if common.kind == "b" and op == "abs":
        return wrap(arrays[0].value)
    if common.kind == "b" and op in _ON_BOOLS:
        op = _ON_BOOLS[op]
    values = broadcast_together(*(_operand(a, common) for a in arrays))
    result = emit(op, *values, **attrs)
    return wrap(result, weak=False if result.type.dtype is BOOL else weak)


_UFUNCS = {"div": "divide", "mul": "multiply", "abs": "absolute", "floordiv": "floor_divide", "rem": "remainder"}
_UFUNCS |= {"sub": "subtract", "neg": "negative", "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal"}
_UFUNCS |= {"gt": "greater", "ge": "greater_equal"}


def _complex(op: str, arrays: Sequence[Array], weak: bool | None) -> Array:
    """An operator on complex numbers: the ufunc, which is written with their parts."""
    import dflow.numpy

    name = _UFUNCS.get(op, op)
    result = getattr(dflow.numpy, name).__wrapped__(*arrays) if hasattr(dflow.numpy, name) else None
    if result is None:
        raise failure(TraceError, f"{op} of complex numbers is not supported")
    return wrap(result.value, weak=False if result.type.dtype is BOOL else weak)


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
