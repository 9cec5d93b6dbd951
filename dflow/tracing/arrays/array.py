"""The traced array: a mutable reference to an SSA value, with NumPy's behaviour."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from dflow.errors import (
    CarriedError,
    NeedsStatic,
    NoAttributeError,
    ShapeError,
    TraceAttributeError,
    TraceError,
    failure,
    in_generator,
    user_location,
)
from dflow.ir.core import Value
from dflow.ir.types import TensorType, dtype_of, kind_of
from dflow.tracing.arrays import index as _index
from dflow.tracing.arrays import layouts, sizes, views
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.operators import Operators, fitted, numpy_functions, same_kind
from dflow.tracing.arrays.sizes import Shape
from dflow.tracing.context import Cell, builder, region

UPDATED = "this array may be another name of an array that has been updated since"
_HABITS = {  # of other libraries
    "block_until_ready": "leave it out: results are there when a call returns",
    "backward": "make the function of the loss, and call dflow.grad of it",
    "detach": "use dflow.stop_gradient(x)",
    "numpy": "leave it out: arrays are NumPy's",
    "requires_grad": "leave it out: dflow.grad differentiates by arguments",
}


class Array(Operators):
    """A traced array. It refers to a cell (whose contents updates replace), or as a view to a part of one.

    ``weak`` marks a number that came from Python: of rank 0, and of no weight in promotion. It is None where that is
    known only when the program runs.
    """

    __slots__ = ("__weakref__", "_type", "cell", "steps", "weak")
    __array_priority__ = 1000.0
    inside = False  # whether it is a position that needs no check

    def __init__(self, cell: Cell, type: TensorType, steps: tuple[views.Step, ...] = (), weak: bool | None = False):
        self.cell = cell
        self._type = type
        self.steps = steps
        self.weak = weak

    # -- contents ------------------------------------------------------------------------------------------------

    @property
    def value(self) -> Value:
        """The current contents."""
        if self.cell.poison:
            raise failure(TraceError, self.cell.poison, mend="copy the array (x.copy()) before the two ways part")
        base = region().read(self.cell)
        return views.read(builder(), self._seen_steps(), base) if self.steps else base

    def _seen_steps(self) -> tuple[views.Step, ...]:
        """The steps; in a trace inside of the one that they belong to, with the sizes as they are known there."""
        here, home = region(), self.cell.home
        if here.root() is home.root():
            return self.steps
        return views.resized(self.steps, lambda d: here.seen_type(self._type.with_shape((d,)), home).shape[0])

    def assign(self, value: Value) -> None:
        """Replaces the contents; all that refer to the same cell see it."""
        if self.cell.read_only:
            raise failure(CarriedError, self.cell.read_only, mend="copy the array (x.copy()) before updating it")
        for other in self.cell.copies:
            other.poison = UPDATED
        here = region()
        if self.steps:
            value = views.write(builder(), self.steps, here.read(self.cell), value)
        here.write(self.cell, value)
        if self.cell.ordered is False:
            here.root().disordered.add(value)

    def refer(self, steps: tuple[views.Step, ...], shape: Shape) -> Array:
        """The part to which ``steps`` lead, as a view."""
        joined = self.steps
        for step in steps:
            joined = views.extend(joined, step)
        return Array(self.cell, TensorType(self.type.dtype, shape), joined)

    def copied_part(self, value: Value) -> Array:
        """A copy of what may be a view in NumPy (bits): once one is updated, the other must not be used."""
        part = _lift.wrap(value)
        if part.ndim:
            part.cell.copies.append(self.cell)
            self.cell.copies.append(part.cell)
        return part

    # -- what it is ----------------------------------------------------------------------------------------------

    @property
    def type(self) -> TensorType:
        if self._type.is_static:
            return self._type
        return region().seen_type(self._type, self.cell.home)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._type.dtype.numpy

    @property
    def shape(self) -> tuple[Any, ...]:
        """The sizes: ints, and traced integers for those that are known only when the program runs."""
        return tuple(d if isinstance(d, int) else _lift.wrap(d.value, weak=True) for d in self.type.shape)  # type: ignore[union-attr]

    @shape.setter
    def shape(self, shape: Any) -> None:
        here = region()
        if self.cell.home is not here:
            raise failure(
                TraceError,
                "the shape of an array is assigned in a loop or a branch",
                mend="make a view: x = x.reshape(shape)",
            )
        wanted = self.reshape(shape).type.shape
        view = self.refer((views.Reshape(self.type.shape, wanted),), wanted)
        if not views.is_view(view.steps, self.cell.value.type.shape):
            raise failure(
                NoAttributeError,
                "Incompatible shape for in-place modification",
                mend="make a copy: x = x.reshape(shape)",
            )
        if here.undo is not None:
            here.undo.append(partial(self._refer_to, self._type, self.steps))
        self._refer_to(view._type, view.steps)

    def _refer_to(self, type: TensorType, steps: tuple[views.Step, ...]) -> None:
        self._type, self.steps = type, steps

    @property
    def ndim(self) -> int:
        return self.type.rank

    @property
    def size(self) -> Any:
        n = sizes.count(self.type.shape)
        return n if isinstance(n, int) else _lift.wrap(n, weak=True)

    @property
    def nbytes(self) -> Any:
        return self.size * self.itemsize

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def T(self) -> Array:
        return self.transpose()

    @property
    def mT(self) -> Array:
        return numpy_functions().matrix_transpose(self)

    @property
    def real(self) -> Array:
        return numpy_functions().real(self)

    @real.setter
    def real(self, value: Any) -> None:
        (self.component(imaginary=False) if self.dtype.kind == "c" else self)[...] = value

    @property
    def imag(self) -> Array:
        return numpy_functions().imag(self)

    @imag.setter
    def imag(self, value: Any) -> None:
        if self.dtype.kind != "c":
            raise TypeError("array does not have imaginary part to set")
        self.component(imaginary=True)[...] = value

    def component(self, imaginary: bool) -> Array:
        """The real or the imaginary parts of complex numbers, as a view."""
        steps = (*self.steps, views.Component(imaginary))
        floats = dtype_of(f"f{self.dtype.itemsize // 2}")
        return Array(self.cell, TensorType(floats, self.type.shape), steps)

    @property
    def device(self) -> str:
        return "cpu"

    def to_device(self, device: Any, /, *, stream: Any = None) -> Array:
        if device != "cpu":
            raise failure(TraceError, f"there is no device {device!r}; arrays are on the 'cpu'")
        return self

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return numpy_functions()

    @property
    def flat(self) -> Array:
        shape = self.ravel().type.shape
        return self.refer((views.Reshape(self.type.shape, shape),), shape)

    def __repr__(self) -> str:
        return f"<traced {self.type}{' (Python number)' if self.weak else ''}>"

    def __format__(self, spec: str) -> str:
        return repr(self)

    # -- parts ---------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Array:
        part = _index.resolve(self.type.shape, index)
        if part.basic and part.shape:
            return self.refer(part.steps, part.shape)
        found = self.refer(part.steps, part.shape)
        return found if part.basic and _has_ellipsis(index) else _lift.wrap(found.value)

    def __setitem__(self, index: Any, value: Any) -> None:
        new = _lift.lift(value, self.dtype)
        mask = _index.mask_of(index, self.type.shape)
        if mask is not None and new.ndim <= self.ndim - mask.ndim:  # one value for all that it selects
            return self.assign(_where(mask, _lift.broadcast_to(new.value, self.type.shape), self.value, self.dtype))
        part = _index.resolve(self.type.shape, index)
        contents = fitted(new, part.shape, self.dtype)
        self.refer(part.steps, part.shape).assign(contents)

    def __delitem__(self, index: Any) -> None:
        raise failure(
            TraceError,
            "elements cannot be deleted from an array",
            seen=repr(self),
            mend="np.delete(x, k) and slices (x[1:]) give an array without them",
        )

    @property
    def at(self) -> Any:
        """Updates that give a new array: ``x.at[index].set(v)``."""
        from dflow.lax.at import At

        return At(self)

    def update(self, index: Any, operation: Callable[[Any, Any], Any], value: Any, op: str = "") -> None:
        """``self[index] = operation(self[index], value)``, as an augmented assignment does it."""
        new = _lift.lift(value, self.dtype)
        mask = _index.mask_of(index, self.type.shape)
        if mask is not None and new.ndim <= self.ndim - mask.ndim:
            changed = operation(self, _lift.wrap(_lift.broadcast_to(new.value, self.type.shape)))
            return self.assign(_where(mask, changed.value, self.value, self.dtype))
        part = _index.resolve(self.type.shape, index)
        target = self.refer(part.steps, part.shape)
        step = target.steps[0] if len(target.steps) == 1 else None
        if op in ("add", "sub") and part.basic and kind_of(self.dtype) in "iuf" and isinstance(step, views.Index):
            same_kind(_lift.result_dtype(self, new), self.dtype)
            term = fitted(new if op == "add" else -new, part.shape, self.dtype)
            b, base = builder(), region().read(self.cell)
            target_value = b.update_add(base, term, *step.operands(b), index=step.entries)
            return Array(self.cell, self.type).assign(target_value)
        changed = _lift.lift(operation(target if part.shape else _lift.wrap(target.value), new))
        same_kind(changed.dtype, self.dtype)
        target.assign(fitted(changed, part.shape, self.dtype))

    def __len__(self) -> int:
        if not self.ndim:
            raise failure(TraceError, "len() of a number", seen=repr(self))
        return self._length("use x.shape[0], or len(x) in a function whose source is a file")

    def __iter__(self) -> Iterator[Array]:
        if not self.ndim:
            raise failure(NeedsStatic, "iteration over a traced number", seen=repr(self), wanted="an array")
        return (self[k] for k in range(self._length("loop over it with `for`")))

    def _length(self, mend: str) -> int:
        n = self.type.shape[0]
        if not isinstance(n, int):
            raise failure(NeedsStatic, "this length is known only when the program runs", seen=repr(self), mend=mend)
        return n

    def __contains__(self, x: Any) -> Array:
        return (self == x).any()

    # -- where Python needs a value ------------------------------------------------------------------------------

    def _known(self, what: str, mend: str) -> Any:
        static = _lift.static_value(self)
        if static is None or static.ndim:
            raise failure(NeedsStatic, f"{what} is known only when the program runs", seen=repr(self), mend=mend)
        return static.item()

    def __hash__(self) -> int:
        raise failure(
            NeedsStatic,  # the index of a loop is known when the loop is unrolled
            "a traced value is used as a key of a dict, an element of a set or an argument of a cached function",
            seen=repr(self),
            mend="compare with ==, or use an array that the value indexes",
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        from dflow.tracing.arrays.numbers import number_attribute, stands_for

        found = number_attribute(self, name)
        if found is not None:
            return found
        raise failure(
            TraceAttributeError if hasattr(stands_for(self), name) else NoAttributeError,
            f"a traced {'array' if self.ndim else 'number'} has no attribute .{name}",
            seen=repr(self),
            mend=_HABITS.get(name, "use the functions of dir(dflow.numpy), or do it outside of the traced function"),
        )

    def __bool__(self) -> bool:
        if not sizes.is_one(self.type.shape):
            raise failure(
                TraceError,
                "the truth value of an array with more than one element is ambiguous",
                seen=repr(self),
                mend="use x.any() or x.all()",
            )
        return bool(self._known("whether this holds", _how_to_choose()))

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
        return complex(self._known("the value of this complex()", "leave it an array; x + 0j is complex"))

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

    def item(self, *index: Any) -> Any:
        """The only element, or the one at ``index``, in the order of all elements if it is one number; still traced."""
        if not index and not sizes.is_one(self.type.shape):
            message = "only an array of one element can be converted to a number"
            if isinstance(self.size, int):
                mend = "x.item(k) or x[k] is one of several elements"
                raise failure(ShapeError, message, seen=repr(self), mend=mend)
            builder().check((self.size == 1).value, error="ValueError", message=message)
            index = (0,)
        if len(index) == 1 and not isinstance(index[0], tuple):
            found = self.reshape(-1)[index[0]]
        else:
            found = self[index[0] if len(index) == 1 else index] if index else self.reshape(())
        wide = {"i": np.int64, "f": np.float64, "c": np.complex128}.get(kind_of(found.dtype))  # Python's numbers
        value = _lift.convert(found.value, _lift.ir_dtype(wide)) if wide else found.value
        return _lift.wrap(value, weak=bool(wide) or found.dtype.kind == "b")

    def tolist(self) -> Any:
        return [row.tolist() for row in self] if self.ndim else self.item()

    # -- NumPy's protocols ---------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from dflow.tracing.python.calls import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from dflow.tracing.python.calls import call_numpy

        return call_numpy(function, args, kwargs)

    # -- methods -------------------------------------------------------------------------------------------------

    def copy(self, order: str = "C") -> Array:
        """A new array with the same contents (values are immutable, so nothing is emitted)."""
        new: Array = layouts.in_order(_lift.wrap(self.value), order)
        return new

    def __copy__(self) -> Array:
        return self.copy("K")

    def __deepcopy__(self, memo: Any) -> Array:
        return self.copy("K")

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = "unsafe", subok: bool = True, copy: bool = True
    ) -> Array:
        if not np.can_cast(self.dtype, dtype, casting):
            types = f"{self.dtype!r} to {np.dtype(dtype)!r}"
            raise TypeError(f"Cannot cast array data from {types} according to the rule {casting!r}")
        if not copy and np.dtype(dtype) == self.dtype and (order in "KA" or self.is_contiguous(order)):
            return self
        new: Array = layouts.in_order(_lift.wrap(_lift.convert(self.value, _lift.ir_dtype(dtype))), order)
        return new

    def view(self, dtype: Any = None, type: Any = None) -> Array:
        """The same bits as another dtype of the same size (a copy), or without one a view of the whole."""
        if dtype is None or np.dtype(dtype) == self.dtype:
            return self.refer((), self.shape)
        return self.copied_part(_lift.emit("bitcast", self.value, dtype=_lift.ir_dtype(dtype)))

    def fill(self, value: Any) -> None:
        self[...] = value

    def reshape(self, *shape: Any, order: str = "C", copy: bool | None = None) -> Array:
        """A view of the same elements under another shape."""
        return numpy_functions().reshape(self, shape[0] if len(shape) == 1 else shape, order, copy=copy)

    def transpose(self, *axes: Any) -> Array:
        """A view with the axes permuted."""
        given = axes[0] if len(axes) == 1 and (axes[0] is None or not isinstance(axes[0], int)) else axes
        return numpy_functions().transpose(self, given or None)

    def reshaped_view(self, shape: Shape) -> Array:
        """The view under ``shape`` (which must fit), or a copy where NumPy makes one; for dflow.numpy."""
        if shape == self.type.shape:
            return self.refer((), shape)
        view = self.refer((views.Reshape(self.type.shape, shape),), shape)
        if [d for d in shape if d != 1] == [d for d in self.type.shape if d != 1]:
            return view
        if not layouts.ordered(self.cell):
            return self.copied_part(view.value)
        return view if views.is_view(view.steps, self.cell.value.type.shape) else _lift.wrap(view.value)

    def transposed_view(self, perm: tuple[int, ...]) -> Array:
        """The view with the axes permuted; for dflow.numpy."""
        return self.refer((views.Transpose(perm),), tuple(self.type.shape[p] for p in perm))

    def is_contiguous(self, order: str = "C") -> bool:
        """Whether the elements lie one behind the other in what this is a view of; for dflow.numpy."""
        return views.is_contiguous(self.steps, self.cell.value.type.shape, order) and layouts.ordered(self.cell)

    def memory_order(self) -> str | None:
        """``"C"``, ``"F"`` or ``"mixed"``: how the elements lie in memory, where that is certain; for dflow.numpy."""
        return views.order(self.steps, self.cell.value.type.shape) if layouts.ordered(self.cell) else None

    def flatten(self, order: str = "C") -> Array:
        return self.ravel(order).copy()

    def ravel(self, order: str = "C") -> Array:
        return numpy_functions().ravel(self, order)

    def compress(self, condition: Any, axis: int | None = None, out: Any = None) -> Array:
        return numpy_functions().compress(condition, self, axis, out)


def _how_to_choose() -> str:
    """The mend for a condition that Python decides, by what stands in its line."""
    place = user_location()
    line = linecache.getline(place.file, place.line) if place else ""
    if ":=" in line:
        return "assign in a statement of its own before the condition, in place of `:=`"
    if in_generator() or "filter(" in line:
        return "write `[v for v in x if condition]` over an array, or a `for` loop that appends to a list"
    return (
        "use np.where, or write it as an `if` statement of a function whose source is a file; which elements a list "
        "has must be known"
    )


def _has_ellipsis(index: Any) -> bool:
    return index is Ellipsis or (isinstance(index, tuple) and any(i is Ellipsis for i in index))


def _where(mask: Array, yes: Value, no: Value, dtype: Any) -> Value:
    b = builder()
    kept = tuple(range(mask.ndim))
    shape = no.type.shape
    condition = mask.value if mask.ndim == len(shape) else b.broadcast(mask.value, shape=shape, dims=kept)
    return b.select(condition, _lift.convert(yes, dtype), no)
