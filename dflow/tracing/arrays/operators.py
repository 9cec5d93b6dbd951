"""The operators and methods of traced arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dflow.errors import TraceError, failure
from dflow.ir.core import Value
from dflow.tracing.arrays import dtypes
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.rounding import EXACT, python_round
from dflow.tracing.arrays.sizes import Shape
from dflow.tracing.context import builder


class Operators:
    """What the traced array inherits: filled below from tables."""

    __slots__ = ()

    if TYPE_CHECKING:
        __add__: Any
        __radd__: Any
        __sub__: Any
        __rsub__: Any
        __mul__: Any
        __rmul__: Any
        __truediv__: Any
        __rtruediv__: Any
        __floordiv__: Any
        __rfloordiv__: Any
        __mod__: Any
        __rmod__: Any
        __pow__: Any
        __rpow__: Any
        __matmul__: Any
        __rmatmul__: Any
        __and__: Any
        __rand__: Any
        __or__: Any
        __ror__: Any
        __xor__: Any
        __rxor__: Any
        __lshift__: Any
        __rlshift__: Any
        __rshift__: Any
        __rrshift__: Any
        __lt__: Any
        __le__: Any
        __gt__: Any
        __ge__: Any
        __neg__: Any
        __invert__: Any
        __abs__: Any


def numpy_functions() -> Any:
    """dflow.numpy, which is built on this module."""
    import dflow.numpy

    return dflow.numpy


def fitted(new: Any, shape: Shape, dtype: Any) -> Value:
    """The contents of ``new`` as NumPy fits them into a part of ``shape``: cast, leading axes of size 1 dropped."""
    value = _lift.convert(new.value, dtype)
    extra = value.type.rank - len(shape)
    if extra > 0 and all(n == 1 for n in value.type.shape[:extra]):
        value = builder().reshape(value, shape=value.type.shape[extra:])
    return _lift.broadcast_to(value, shape)


def same_kind(result: np.dtype[Any], target: np.dtype[Any]) -> None:
    if not dtypes.can_cast(result, target, "same_kind"):
        raise failure(
            TraceError,
            f"cannot update an array of {target} in place with a result of {result}",
            mend=f"make the array of {result} (dtype={result.name!r}), or convert the result with astype",
        )


_BINARY = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "truediv": "div",
    "floordiv": "floordiv",
    "mod": "rem",
    "and": "and",
    "or": "or",
    "xor": "xor",
    "lshift": "shl",
    "rshift": "shr",
}
_COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")


def _is_operand(x: Any) -> bool:
    return isinstance(x, Operators | int | float | complex | np.ndarray | np.generic | list | tuple)


def _operate(op: str, x: Any, y: Any) -> Any:
    if op in ("floordiv", "rem"):
        _check_divisor(x, y)
    if op == "mul" and (isinstance(x, list | tuple) or isinstance(y, list | tuple)) and _repeats(x, y):
        return NotImplemented  # Python repeats the sequence, and asks the number for its value (``__index__``)
    if op in _LOGICAL:
        return _of_python(_lift.elementwise(op, x, y), x, y)
    operands = _counted(x, y)
    if op in _OF_INTEGERS and all(_lift.lift(z).dtype == np.bool_ for z in operands):
        operands = tuple(_lift.wrap(_lift.convert(_lift.lift(z).value, np.int8)) for z in operands)
    return _lift.elementwise(op, *operands, as_float=op == "div")


_LOGICAL = ("and", "or", "xor")
_OF_INTEGERS = ("floordiv", "rem", "shl", "shr")  # NumPy takes truth values for int8 there


def _counted(*operands: Any) -> tuple[Any, ...]:
    """Python's truth values, where there are no others, as the integers 0 and 1, which they are in arithmetic."""
    if not all(map(_may_be_truth_value, operands)):
        return operands
    truth_values = [_lift.lift(x) for x in operands]
    if any(x.weak is None for x in truth_values):
        raise failure(
            TraceError,
            "arithmetic with a truth value that is Python's in some runs and NumPy's in others: True + True is 2 in "
            "Python, and True in NumPy",
            seen=" and ".join(map(repr, truth_values)),
            mend="say which is meant: int(...) of each makes them integers",
        )
    return tuple(_lift.wrap(_lift.convert(x.value, np.int64), weak=True) for x in truth_values)


def _may_be_truth_value(x: Any) -> bool:
    """Whether ``x`` is one of Python's truth values, or may be."""
    traced: Any = x
    return isinstance(x, bool) or (isinstance(x, Operators) and traced.weak is not False and traced.dtype.kind == "b")


def _repeats(x: Any, y: Any) -> bool:
    """Whether Python takes a product with a list or a tuple for a repetition of it: by its own integers, and no array.

    Raises:
        TraceError: By Python's floats, which repeat nothing, and by integers of which it is not told whether they are
            NumPy's scalars (which repeat) or arrays without axes (which multiply).
    """
    sequence, number = (x, y) if isinstance(x, list | tuple) else (y, x)
    number = _lift.lift(number)
    if number.ndim or (number.weak is False and number.dtype.kind not in "iu"):
        return False
    if number.weak and number.dtype.kind in "iub":
        return True
    kind = type(sequence).__name__
    raise failure(
        TraceError,
        f"a {kind} times a number that is no integer of Python's",
        seen=repr(number),
        wanted="an integer, which repeats it, or an array, which multiplies its elements",
        mend=f"repeat by int(n), or multiply np.array(...) of the {kind}",
    )


def _of_python(found: Any, *operands: Any) -> Any:
    """A truth value, Python's where it comes of Python's numbers."""
    if found.ndim or found.dtype.kind != "b":
        return found
    weak = _lift.together(*(_lift.lift(x).weak for x in operands))
    return _lift.wrap(found.value, weak) if weak is not False else found


def _check_divisor(x: Any, y: Any) -> None:
    """Python's integers (unlike NumPy's) refuse to be divided by zero."""
    x, y = _lift.lift(x), _lift.lift(y)
    if x.weak and y.weak and x.dtype.kind == y.dtype.kind == "i" and not _lift.static_value(y):
        b = builder()
        ok = b.ne(y.value, b.index(0))
        b.check(ok, error="ZeroDivisionError", message="integer division or modulo by zero")


def _binary(op: str) -> tuple[Any, Any, Any]:
    def forward(self: Any, other: Any) -> Any:
        return _operate(op, self, other) if _is_operand(other) else _refused(op, self, other)

    def reflected(self: Any, other: Any) -> Any:
        return _operate(op, other, self) if _is_operand(other) else _refused(op, self, other)

    def in_place(self: Any, other: Any) -> Any:
        return _in_place(self, forward(self, other))

    return forward, reflected, in_place


def _in_place(self: Any, result: Any) -> Any:
    """What ``x op= y`` leaves in x: arrays are updated, also those without axes that are views; numbers replaced."""
    if result is NotImplemented or not (self.ndim or self.steps):
        return result
    same_kind(result.dtype, self.dtype)
    self.assign(fitted(result, self.type.shape, self.dtype))
    return self


def _refused(op: str, x: Any, other: Any) -> Any:
    if isinstance(other, str | bytes | dict | set | type(None)):
        if op in ("eq", "ne") and not x.ndim:  # a number equals none of these
            return op == "ne"
        raise failure(
            TraceError,
            f"'{op}' of an array and a {type(other).__name__}",
            seen=f"{x!r} and {other!r}"[:200],
            wanted="arrays or numbers",
            mend="keep strings and other objects out of array arithmetic",
        )
    return NotImplemented


def _comparison(op: str) -> Any:
    def compare(self: Any, other: Any) -> Any:
        if _is_operand(other):
            return _of_python(_lift.elementwise(op, self, other), self, other)
        if op in ("eq", "ne") and other is None and self.ndim:  # no element is None
            return _lift.wrap(_lift.broadcast_to(_lift.lift(op == "ne").value, self.type.shape))
        return _refused(op, self, other)

    return compare


for _name, _op in _BINARY.items():
    _f, _r, _i = _binary(_op)
    setattr(Operators, f"__{_name}__", _f)
    setattr(Operators, f"__r{_name}__", _r)
    setattr(Operators, f"__i{_name}__", _i)
for _name in _COMPARE:
    setattr(Operators, f"__{_name}__", _comparison(_name))


def _delegated(name: str, swap: bool = False, inplace: bool = False) -> Any:
    """An operator that dflow.numpy defines."""

    def call(self: Any, other: Any) -> Any:
        if not _is_operand(other):
            return _refused(name, self, other)
        if inplace and name == "matmul" and not (self.ndim and np.ndim(other) > 1):
            raise ValueError("in-place matrix multiplication: x @= y needs a matrix y, and an array x with axes")
        result = getattr(numpy_functions(), name)(*((other, self) if swap else (self, other)))
        return _in_place(self, result) if inplace else result

    return call


for _name, _function in (("matmul", "matmul"), ("pow", "power"), ("divmod", "divmod")):
    setattr(Operators, f"__{_name}__", _delegated(_function))
    setattr(Operators, f"__r{_name}__", _delegated(_function, swap=True))
    setattr(Operators, f"__i{_name}__", _delegated(_function, inplace=True))


def _unary(op: str) -> Any:
    return lambda self, *args: _lift.elementwise(op, *_counted(self))


for _name, _op in (("neg", "neg"), ("abs", "abs"), ("invert", "not")):
    setattr(Operators, f"__{_name}__", _unary(_op))
setattr(Operators, "__pos__", lambda self: _lift.wrap(_counted(self)[0].value, self.weak))  # noqa: B010


def _round(self: Any, digits: int | None = None) -> Any:
    """Python's round: an integer when no digits are asked for."""
    if self.dtype.kind in "iu" and digits is not None and digits < 0:
        return _tens(self, 10**-digits)
    if digits and self.weak is True and self.dtype == np.float64 and not self.ndim and abs(digits) <= EXACT:
        return python_round(self, digits)
    rounded = numpy_functions().round(self, digits or 0)
    return rounded if digits is not None or self.ndim else _lift.wrap(_lift.convert(rounded.value, np.int64), self.weak)


def _tens(x: Any, unit: int) -> Any:
    """The nearest multiple of ``unit``, the even one of two."""
    rest = x % unit
    count = x // unit
    up = (2 * rest > unit) | ((2 * rest == unit) & (count % 2 == 1))
    return (count + up * 1) * unit


Operators.__round__ = _round  # type: ignore[attr-defined]
for _name, _op in (("floor", "floor"), ("ceil", "ceil"), ("trunc", "trunc")):  # math.floor and so on
    setattr(
        Operators,
        f"__{_name}__",
        lambda self, op=_op: _lift.wrap(
            _lift.convert(_lift.elementwise(op, self, as_float=True).value, np.int64), self.weak
        ),
    )

METHODS = (
    "all", "any", "argmax", "argmin", "argpartition", "argsort", "choose", "clip", "cumprod", "cumsum", "diagonal",
    "dot", "max", "mean", "min", "nonzero", "prod", "ptp", "put", "repeat", "round", "searchsorted", "squeeze", "std",
    "sum", "swapaxes", "take", "trace", "var",
)  # fmt: skip


def _method(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(numpy_functions(), name)(self, *args, **kwargs)

    method.__name__ = name
    return method


for _name in METHODS:
    setattr(Operators, _name, _method(_name))


def _conj(self: Any) -> Any:
    """A real array is its own conjugate, not a copy."""
    return numpy_functions().conj(self) if self.dtype.kind == "c" else self


Operators.conj = Operators.conjugate = _conj  # type: ignore[attr-defined]


def _sort(self: Any, axis: int = -1, **kwargs: Any) -> None:
    """Sorts in place."""
    self[...] = numpy_functions().sort(self, axis, **kwargs)


def _partition(self: Any, kth: Any, axis: int = -1, **kwargs: Any) -> None:
    self[...] = numpy_functions().partition(self, kth, axis, **kwargs)


Operators.sort = _sort  # type: ignore[attr-defined]
Operators.partition = _partition  # type: ignore[attr-defined]
