"""The traced array: a mutable reference to an SSA value, with NumPy's behaviour."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dflow.errors import NeedsStatic, TraceError, failure
from dflow.ir.core import Value
from dflow.ir.types import TensorType
from dflow.tracing import index as _index
from dflow.tracing import lift as _lift
from dflow.tracing import views
from dflow.tracing.context import Cell, builder, region


class Array:
    """A traced array. It refers to a cell (whose contents updates replace), or as a view to a part of one.

    ``weak`` marks a number that came from Python: of rank 0, and of no weight in promotion.
    """

    __slots__ = ("__weakref__", "cell", "steps", "type", "weak")
    __array_priority__ = 1000.0
    __hash__ = None  # type: ignore[assignment]
    inside = False  # whether it is a position that needs no check

    def __init__(self, cell: Cell, type: TensorType, steps: tuple[views.Step, ...] = (), weak: bool = False):
        self.cell = cell
        self.type = type
        self.steps = steps
        self.weak = weak

    # -- contents ------------------------------------------------------------------------------------------------

    @property
    def value(self) -> Value:
        """The current contents."""
        if self.cell.poison:
            raise failure(TraceError, self.cell.poison, mend="copy the array (x.copy()) before the two ways part")
        base = region().read(self.cell)
        return views.read(builder(), self.steps, base) if self.steps else base

    def assign(self, value: Value) -> None:
        """Replaces the contents; all that refer to the same cell see it."""
        if self.cell.read_only:
            raise failure(TraceError, self.cell.read_only, mend="copy the array (x.copy()) before updating it")
        for other in self.cell.copies:
            other.poison = "this array may be another name of an array that has been updated since"
        here = region()
        if self.steps:
            value = views.write(builder(), self.steps, here.read(self.cell), value)
        here.write(self.cell, value)

    def view(self, steps: tuple[views.Step, ...], shape: tuple[int, ...]) -> Array:
        """The part to which ``steps`` lead, as a view."""
        joined = self.steps
        for step in steps:
            joined = views.extend(joined, step)
        return Array(self.cell, TensorType(self.type.dtype, shape), joined)

    # -- what it is ----------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type.dtype.numpy

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.static_shape

    @property
    def ndim(self) -> int:
        return self.type.rank

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def T(self) -> Array:
        return self.transpose()

    @property
    def real(self) -> Array:
        return self

    @property
    def imag(self) -> Array:
        return _numpy().zeros_like(self)

    @property
    def flat(self) -> Array:
        return self.ravel()

    def __repr__(self) -> str:
        return f"<traced {self.type}{' (Python number)' if self.weak else ''}>"

    def __format__(self, spec: str) -> str:
        return repr(self)

    # -- parts ---------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Array:
        part = _index.resolve(self.shape, index)
        if part.basic and part.shape:
            return self.view(part.steps, part.shape)
        found = self.view(part.steps, part.shape)
        return found if part.basic and _has_ellipsis(index) else _lift.wrap(found.value)

    def __setitem__(self, index: Any, value: Any) -> None:
        new = _lift.lift(value, self.dtype)
        mask = _index.mask_of(index, self.shape)
        if mask is not None:
            return self.assign(_where(mask, _spread(mask, new, self.shape), self.value, self.dtype))
        part = _index.resolve(self.shape, index)
        fitted = _fitted(new, part.shape, self.dtype)
        self.view(part.steps, part.shape).assign(fitted)

    def update(self, index: Any, operation: Callable[[Any, Any], Any], value: Any, op: str = "") -> None:
        """``self[index] = operation(self[index], value)``, as an augmented assignment does it."""
        new = _lift.lift(value, self.dtype)
        mask = _index.mask_of(index, self.shape)
        if mask is not None:
            changed = operation(self, _lift.wrap(_spread(mask, new, self.shape)))
            return self.assign(_where(mask, changed.value, self.value, self.dtype))
        part = _index.resolve(self.shape, index)
        target = self.view(part.steps, part.shape)
        if op in ("add", "sub") and part.basic and self.dtype.kind in "iuf" and _adds_in_place(target):
            _same_kind(_lift.result_dtype(self, new), self.dtype)
            term = _fitted(new if op == "add" else -new, part.shape, self.dtype)
            (step,) = target.steps
            b, base = builder(), region().read(self.cell)
            target_value = b.update_add(base, term, *step.operands(b), index=step.entries)
            return Array(self.cell, self.type).assign(target_value)
        changed = _lift.lift(operation(target if part.shape else _lift.wrap(target.value), new))
        _same_kind(changed.dtype, self.dtype)
        target.assign(_fitted(changed, part.shape, self.dtype))

    def __len__(self) -> int:
        if not self.ndim:
            raise failure(TraceError, "len() of a number", seen=repr(self))
        return self.shape[0]

    def __iter__(self) -> Iterator[Array]:
        if not self.ndim:
            raise failure(NeedsStatic, "iteration over a traced number", seen=repr(self), wanted="an array")
        return (self[k] for k in range(self.shape[0]))

    def __contains__(self, x: Any) -> Array:
        return (self == x).any()

    # -- where Python needs a value ------------------------------------------------------------------------------

    def _known(self, what: str, mend: str) -> Any:
        static = _lift.static_value(self)
        if static is None or static.ndim:
            raise failure(NeedsStatic, f"{what} is known only when the program runs", seen=repr(self), mend=mend)
        return static.item()

    def __bool__(self) -> bool:
        if self.ndim and self.size != 1:
            raise failure(
                TraceError,
                "the truth value of an array with more than one element is ambiguous",
                seen=repr(self),
                mend="use x.any() or x.all()",
            )
        return bool(self._known("whether this holds", "use np.where, or an `if` in a function whose source is a file"))

    def __float__(self) -> float:
        return float(self._known("the value of this float()", "leave it an array; float(x) of a number is x"))

    def __int__(self) -> int:
        return int(self._known("the value of this int()", "use x.astype(int) for a number; sizes must be known"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise failure(TraceError, "only integers can be used as an index or a size", seen=repr(self))
        return int(
            self._known(
                "this index or size", "pass it as a static argument, or derive it from shapes; index arrays, not lists"
            )
        )

    def __complex__(self) -> complex:
        return complex(float(self))

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        static = _lift.static_value(self)
        if static is not None:
            return np.array(static, dtype)
        raise failure(
            NeedsStatic,
            "a traced array cannot become a NumPy array while the program is traced",
            seen=repr(self),
            mend="use a function that dflow.numpy has; an array that is updated must be made by the traced function "
            "(np.zeros, x.copy()) or be an argument",
        )

    def item(self, *index: int) -> Any:
        """The only element, or the one at ``index``; still traced."""
        found = self[index] if index else self.reshape(())
        return _lift.wrap(found.value)

    def tolist(self) -> Any:
        return [row.tolist() for row in self] if self.ndim else _lift.wrap(self.value)

    # -- NumPy's protocols ---------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from dflow.tracing.calls import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from dflow.tracing.calls import call_numpy

        return call_numpy(function, args, kwargs)

    # -- methods -------------------------------------------------------------------------------------------------

    def copy(self, order: str = "C") -> Array:
        """A new array with the same contents (values are immutable, so nothing is emitted)."""
        return _lift.wrap(self.value)

    def __copy__(self) -> Array:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Array:
        return self.copy()

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Array:
        return _lift.wrap(_lift.convert(self.value, _lift.ir_dtype(dtype)))

    def fill(self, value: Any) -> None:
        self[...] = value

    def reshape(self, *shape: Any, order: str = "C") -> Array:
        """A view of the same elements under another shape."""
        return _numpy().reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Array:
        """A view with the axes permuted."""
        given = axes[0] if len(axes) == 1 and (axes[0] is None or not isinstance(axes[0], int)) else axes
        return _numpy().transpose(self, given or None)

    def reshaped_view(self, shape: tuple[int, ...]) -> Array:
        """The view under ``shape`` (which must fit); for dflow.numpy."""
        return self if shape == self.shape else self.view((views.Reshape(self.shape, shape),), shape)

    def transposed_view(self, perm: tuple[int, ...]) -> Array:
        """The view with the axes permuted; for dflow.numpy."""
        return self.view((views.Transpose(perm),), tuple(self.shape[p] for p in perm))

    def flatten(self, order: str = "C") -> Array:
        return self.reshape(-1).copy()

    def ravel(self, order: str = "C") -> Array:
        return self.reshape(-1)


def _numpy() -> Any:
    """dflow.numpy, which is built on this module."""
    import dflow.numpy

    return dflow.numpy


def _has_ellipsis(index: Any) -> bool:
    return index is Ellipsis or (isinstance(index, tuple) and any(i is Ellipsis for i in index))


def _adds_in_place(target: Array) -> bool:
    return len(target.steps) == 1 and isinstance(target.steps[0], views.Index)


def _fitted(new: Array, shape: tuple[int, ...], dtype: Any) -> Value:
    """The contents of ``new`` as NumPy fits them into a part of ``shape``: cast, leading axes of size 1 dropped."""
    value = _lift.convert(new.value, dtype)
    extra = value.type.rank - len(shape)
    if extra > 0 and all(n == 1 for n in value.type.static_shape[:extra]):
        value = builder().reshape(value, shape=value.type.static_shape[extra:])
    return _lift.broadcast_to(value, shape)


def _spread(mask: Array, new: Array, shape: tuple[int, ...]) -> Value:
    """What is assigned through a traced mask, for every element of the array."""
    if new.ndim > len(shape) - mask.ndim:
        raise failure(
            NeedsStatic,
            "an array assigned through a traced mask would be spread over elements whose number is not known",
            seen=f"{new!r} into {mask!r}",
            mend="assign a number, or use np.where",
        )
    return _lift.broadcast_to(new.value, shape)


def _where(mask: Array, yes: Value, no: Value, dtype: Any) -> Value:
    b = builder()
    kept = tuple(range(mask.ndim))
    shape = no.type.shape
    condition = mask.value if mask.shape == shape else b.broadcast(mask.value, shape=shape, dims=kept)
    return b.select(condition, _lift.convert(yes, dtype), no)


def _same_kind(result: np.dtype[Any], target: np.dtype[Any]) -> None:
    if not np.can_cast(result, target, "same_kind"):
        raise failure(
            TraceError,
            f"cannot update an array of {target} in place with a result of {result}",
            mend=f"make the array of {result} (dtype={result.name!r}), or convert the result with astype",
        )


# -- operators ---------------------------------------------------------------------------------------------------

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
    return isinstance(x, Array | int | float | np.ndarray | np.generic | list | tuple)


def _operate(op: str, x: Any, y: Any) -> Array:
    if op in ("floordiv", "rem"):
        _check_divisor(x, y)
    return _lift.elementwise(op, x, y, as_float=op == "div")


def _check_divisor(x: Any, y: Any) -> None:
    """Python's integers (unlike NumPy's) refuse to be divided by zero."""
    x, y = _lift.lift(x), _lift.lift(y)
    if x.weak and y.weak and x.dtype.kind == y.dtype.kind == "i" and not _lift.static_value(y):
        b = builder()
        ok = b.ne(y.value, b.index(0))
        b.check(ok, error="ZeroDivisionError", message="integer division or modulo by zero")


def _binary(op: str) -> tuple[Any, Any, Any]:
    def forward(self: Array, other: Any) -> Any:
        return _operate(op, self, other) if _is_operand(other) else _refused(op, self, other)

    def reflected(self: Array, other: Any) -> Any:
        return _operate(op, other, self) if _is_operand(other) else _refused(op, self, other)

    def in_place(self: Array, other: Any) -> Any:
        return _in_place(self, forward(self, other))

    return forward, reflected, in_place


def _in_place(self: Array, result: Array) -> Array:
    """What ``x op= y`` leaves in x: arrays are updated, numbers replaced."""
    if not self.ndim:
        return result
    _same_kind(result.dtype, self.dtype)
    self.assign(_fitted(result, self.shape, self.dtype))
    return self


def _refused(op: str, x: Any, other: Any) -> Any:
    if isinstance(other, str | bytes | dict | set | type(None)):
        raise failure(
            TraceError,
            f"'{op}' of an array and a {type(other).__name__}",
            seen=f"{x!r} and {other!r}"[:200],
            wanted="arrays or numbers",
            mend="keep strings and other objects out of array arithmetic",
        )
    return NotImplemented


def _comparison(op: str) -> Any:
    def compare(self: Array, other: Any) -> Any:
        if _is_operand(other):
            return _lift.elementwise(op, self, other)
        if op in ("eq", "ne") and other is None:
            return op == "ne"
        return _refused(op, self, other)

    return compare


for _name, _op in _BINARY.items():
    _f, _r, _i = _binary(_op)
    setattr(Array, f"__{_name}__", _f)
    setattr(Array, f"__r{_name}__", _r)
    setattr(Array, f"__i{_name}__", _i)
for _name in _COMPARE:
    setattr(Array, f"__{_name}__", _comparison(_name))


def _delegated(name: str, swap: bool = False, inplace: bool = False) -> Any:
    """An operator that dflow.numpy defines."""

    def call(self: Array, other: Any) -> Any:
        if not _is_operand(other):
            return _refused(name, self, other)
        result = getattr(_numpy(), name)(*((other, self) if swap else (self, other)))
        return _in_place(self, result) if inplace else result

    return call


for _name, _function in (("matmul", "matmul"), ("pow", "power"), ("divmod", "divmod")):
    setattr(Array, f"__{_name}__", _delegated(_function))
    setattr(Array, f"__r{_name}__", _delegated(_function, swap=True))
    setattr(Array, f"__i{_name}__", _delegated(_function, inplace=True))


def _unary(op: str) -> Any:
    return lambda self, *args: _lift.elementwise(op, self)


Array.__neg__ = _unary("neg")  # type: ignore[attr-defined]
Array.__abs__ = _unary("abs")  # type: ignore[attr-defined]
Array.__invert__ = _unary("not")  # type: ignore[attr-defined]
Array.__pos__ = lambda self: _lift.wrap(self.value, self.weak)  # type: ignore[attr-defined]


def _round(self: Array, digits: int | None = None) -> Array:
    """Python's round: an integer when no digits are asked for."""
    rounded = _numpy().round(self, digits or 0)
    return rounded if digits is not None or self.ndim else _lift.wrap(_lift.convert(rounded.value, np.int64), self.weak)


Array.__round__ = _round  # type: ignore[attr-defined]
for _name, _op in (("floor", "floor"), ("ceil", "ceil"), ("trunc", "trunc")):  # math.floor and so on
    setattr(
        Array,
        f"__{_name}__",
        lambda self, op=_op: _lift.wrap(
            _lift.convert(_lift.elementwise(op, self, as_float=True).value, np.int64), self.weak
        ),
    )

METHODS = (
    "all", "any", "argmax", "argmin", "argsort", "clip", "cumprod", "cumsum", "diagonal", "dot", "max", "mean", "min",
    "nonzero", "prod", "ptp", "repeat", "round", "searchsorted", "squeeze", "std", "sum", "swapaxes", "take", "trace",
    "var",
)  # fmt: skip


def _method(name: str) -> Any:
    def method(self: Array, *args: Any, **kwargs: Any) -> Any:
        return getattr(_numpy(), name)(self, *args, **kwargs)

    method.__name__ = name
    return method


for _name in METHODS:
    setattr(Array, _name, _method(_name))


def _sort(self: Array, axis: int = -1, **kwargs: Any) -> None:
    """Sorts in place."""
    self[...] = _numpy().sort(self, axis, **kwargs)


Array.sort = _sort  # type: ignore[attr-defined]
