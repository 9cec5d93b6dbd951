"""``x.at[index].set(v)`` of traced arrays: updates that give a new array, as JAX has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from dflow.errors import ShapeError, TraceError, failure
from dflow.ir.types import kind_of
from dflow.lax.control import fori_loop
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift
from dflow.tracing.python.calls import call

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

CHECKED = (None, "promise_in_bounds")
MODES = (*CHECKED, "clip", "drop", "fill")


class At:
    """``x.at``."""

    def __init__(self, x: Array):
        self.x = x

    def __getitem__(self, index: Any) -> Places:
        return Places(self.x, index)


class Places:
    """Parts of an array. Every method gives a new array (``get``, the part); repeated positions count as often as they
    occur, and of those that are set the last holds.

    ``mode`` says what an index outside does: raise IndexError (None), count as the nearest inside ("clip"), or name
    nothing ("drop", "fill"). What else JAX takes (``unique_indices``, ``indices_are_sorted``) changes nothing.
    """

    def __init__(self, x: Array, index: Any):
        self.x, self.index = x, index

    def get(self, *, mode: str | None = None, fill_value: Any = None, **hints: Any) -> Any:
        """The part; ``fill_value`` (NaN, of integers the least) for an index outside where ``mode`` is "fill"."""
        if mode in CHECKED:
            return self.x[self.index]
        fill = nothing_of(self.x.dtype) if fill_value is None else fill_value
        x, index, _ = _arranged(self.x, self.index, mode, fill)
        return x[index]

    def set(self, values: Any, **options: Any) -> Any:
        """With ``values`` in these places."""

        def put(y: Any, index: Any) -> None:
            y[index] = lift(values).astype(y.dtype)

        return self._updated(put, options)

    def add(self, values: Any, **options: Any) -> Any:
        """With ``values`` added."""
        return self._combined(np.add, values, options)

    def subtract(self, values: Any, **options: Any) -> Any:
        """With ``values`` subtracted."""
        return self._combined(np.subtract, values, options)

    def multiply(self, values: Any, **options: Any) -> Any:
        """With these places times ``values``."""
        return self._combined(np.multiply, values, options)

    mul = multiply

    def divide(self, values: Any, **options: Any) -> Any:
        """With these places over ``values``."""
        return self._combined(np.divide, values, options)

    def power(self, values: Any, **options: Any) -> Any:
        """With these places to the power of ``values``."""
        return self._combined(np.power, values, options)

    def min(self, values: Any, **options: Any) -> Any:
        """With the lesser of these places and ``values``."""
        return self._combined(np.minimum, values, options)

    def max(self, values: Any, **options: Any) -> Any:
        """With the greater of these places and ``values``."""
        return self._combined(np.maximum, values, options)

    def apply(self, function: Callable[[Any], Any], **options: Any) -> Any:
        """With ``function`` of these places."""

        def put(y: Any, index: Any) -> None:
            if not _may_repeat(index):
                y[index] = call(function, y[index])
                return
            places = lift(np.arange(y.size).reshape(y.shape))[index].ravel()

            def step(k: Any, flat: Any) -> Any:
                flat[places[k]] = call(function, flat[places[k]])
                return flat

            y[...] = fori_loop(0, places.size, step, y.ravel()).reshape(y.shape)

        return self._updated(put, options)

    def _combined(self, ufunc: Any, values: Any, options: dict[str, Any]) -> Any:
        new = lift(values)

        def put(y: Any, index: Any) -> None:
            if _may_repeat(index):
                ufunc.at(y, index, new.astype(y.dtype))
            else:
                y[index] = ufunc(y[index], new).astype(y.dtype)

        return self._updated(put, options)

    def _updated(self, put: Callable[[Any, Any], None], options: dict[str, Any]) -> Any:
        mode = options.get("mode")
        if mode in CHECKED:
            y = self.x.copy()
            put(y, self.index)
            return y
        y, index, kept = _arranged(self.x, self.index, mode, 0)
        put(y, index)
        return y[kept]


def _may_repeat(index: Any) -> bool:
    """Whether an array of integers, which may name a place twice, is in the index."""
    return any(_is_integer(i) and np.ndim(i) > 0 for i in (index if isinstance(index, tuple) else (index,)))


def _is_integer(i: Any) -> bool:
    if isinstance(i, slice | bool) or i is None or i is Ellipsis:
        return False
    return kind_of(i.dtype if hasattr(i, "dtype") else numpy.asarray(i).dtype) in "iu"


def nothing_of(dtype: Any) -> Any:
    kind = kind_of(dtype)
    if kind in "iu":
        return numpy.iinfo(dtype).min if kind == "i" else numpy.iinfo(dtype).max
    return True if kind == "b" else np.nan


def _arranged(x: Any, index: Any, mode: Any, fill: Any) -> tuple[Any, Any, Any]:
    """A copy of ``x`` and an index that is inside of it, and where ``x`` is in the copy.

    For places that name nothing, the copy has one slice more along the first axis that integers index.
    """
    if mode not in MODES:
        raise failure(TraceError, f"the mode of an index is one of {MODES}", seen=repr(mode))
    entries = _entries(x, index)
    axes = [a for a, e in enumerate(entries) if not isinstance(e, slice)]
    y = x.copy()
    kept: tuple[Any, ...] = (slice(None),) * x.ndim
    if not axes:
        return y, tuple(entries), kept
    inside: Any = True
    for a in axes:
        n = x.shape[a]
        i = lift(entries[a])
        i = np.where(i < 0, i + n, i)
        inside = (i >= 0) & (i < n) & inside
        entries[a] = np.clip(i, 0, n - 1)
    if mode != "clip":
        first = axes[0]
        more = np.full((*x.shape[:first], 1, *x.shape[first + 1 :]), fill).astype(x.dtype)
        y = np.concatenate([y, more], axis=first)
        entries[first] = np.where(inside, entries[first], x.shape[first])
        kept = tuple(slice(0, x.shape[first]) if a == first else slice(None) for a in range(x.ndim))
    return y, tuple(entries), kept


def _entries(x: Any, index: Any) -> list[Any]:
    """A slice or integers for each axis."""
    given = list(index) if isinstance(index, tuple) else [index]
    if any(not (isinstance(i, slice) or i is Ellipsis or _is_integer(i)) for i in given):
        raise failure(
            ShapeError,
            "with a mode, an index has slices and integers alone",
            seen=", ".join(map(repr, given)),
            mend="leave the mode out",
        )
    missing = [slice(None)] * (x.ndim - sum(i is not Ellipsis for i in given))
    at = next((k for k, i in enumerate(given) if i is Ellipsis), len(given))
    return [*given[:at], *missing, *given[at + 1 :]]
