"""Arguments that functions of ``jax.numpy`` have and NumPy's do not.

``precision`` changes nothing: products are computed in the precision of their operands. ``preferred_element_type`` is
the dtype in which a product is computed. With ``promote_integers=False`` sums have the dtype of the elements. The
``method`` of a search changes nothing. With ``inplace=False`` a function that writes gives a written copy. ``mode`` is
what an index outside means: an error (None), the nearest inside ("clip"), counting on from the start ("wrap") or
``fill_value`` ("fill"). ``size`` is the number of places to find, as in ``nonzero``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy

from dflow.numpy.dispatch import own
from dflow.numpy.sorting import nonzero
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way
Function = Callable[..., Any]

PRODUCTS = (
    *("convolve", "correlate", "cross", "dot", "einsum", "inner", "matmul", "matvec", "outer", "tensordot", "vdot"),
    *("vecdot", "vecmat"),
)
WRITERS = ("fill_diagonal", "place", "put", "put_along_axis")


def _taking(function: Function, names: tuple[str, ...], instead: Function) -> Function:
    """``function``; ``instead`` where one of the named arguments is given."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (function if kwargs.keys().isdisjoint(names) else instead)(*args, **kwargs)

    call.__wrapped__ = getattr(function, "__wrapped__", function)
    return call


def _cast(a: Any, dtype: Any) -> Any:
    return a.astype(dtype) if isinstance(a, Array) else numpy.asarray(a, dtype)


def product(function: Function) -> Function:
    def computed(*args: Any, precision: Any = None, preferred_element_type: Any = None, **kwargs: Any) -> Any:
        if preferred_element_type is not None:
            args = tuple(a if isinstance(a, str | int) else _cast(a, preferred_element_type) for a in args)
        return function(*args, **kwargs)

    return _taking(function, ("precision", "preferred_element_type"), computed)


def writer(function: Function) -> Function:
    def written(a: Any, *args: Any, inplace: bool = True, **kwargs: Any) -> Any:
        if inplace:
            return function(a, *args, **kwargs)
        copy = a.copy() if isinstance(a, Array) else numpy.array(a)
        function(copy, *args, **kwargs)
        return copy

    return _taking(function, ("inplace",), written)


def search(function: Function) -> Function:
    def searched(*args: Any, method: str = "", **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return _taking(function, ("method",), searched)


def total(function: Function) -> Function:
    def added(a: Any, *args: Any, promote_integers: bool = True, **kwargs: Any) -> Any:
        if not promote_integers and len(args) < 2:
            kwargs.setdefault("dtype", a.dtype if hasattr(a, "dtype") else np.asarray(a).dtype)
        return function(a, *args, **kwargs)

    return _taking(function, ("promote_integers",), added)


@own
def _taken(a: Any, indices: Any, axis: Any = None, *, mode: Any = None, fill_value: Any = None, **hints: Any) -> Any:
    a = lift(a)
    a, axis = (a.reshape(-1), 0) if axis is None else (a, axis % a.ndim)
    return a.at[(*(slice(None),) * axis, indices)].get(mode=mode, fill_value=fill_value)


@own
def _taken_along(
    arr: Any, indices: Any, axis: Any = -1, *, mode: Any = None, fill_value: Any = None, **hints: Any
) -> Any:
    from dflow.lax.at import nothing_of

    x, indices = lift(arr), lift(indices).astype(np.int64)
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    n = x.shape[axis]
    at = np.where(indices < 0, indices + n, indices)
    found = np.take_along_axis(x, np.clip(at, 0, n - 1) if mode in ("clip", "fill") else at, axis)
    if mode != "fill":
        return found
    return np.where((at >= 0) & (at < n), found, nothing_of(x.dtype) if fill_value is None else fill_value)


def _where(function: Function) -> Function:
    def places(condition: Any, x: Any = None, y: Any = None, *, size: Any = None, fill_value: Any = None) -> Any:
        if x is not None or y is not None:
            return function(condition, x, y)
        return nonzero(condition, size=size, fill_value=fill_value)

    return _taking(function, ("size", "fill_value"), places)


def _take(function: Function) -> Function:
    names = ("fill_value", "indices_are_sorted", "mode", "unique_indices")

    def taken(*args: Any, mode: Any = None, **kwargs: Any) -> Any:
        if mode in ("raise", "wrap") or (mode == "clip" and kwargs.keys().isdisjoint(names)):
            return function(*args, mode=mode, **kwargs)
        return _taken(*args, mode=mode, **kwargs)

    return _taking(function, names, taken)


def _take_along_axis(function: Function) -> Function:
    return _taking(function, ("fill_value", "mode"), _taken_along)


KEYWORDS: dict[str, Callable[[Function], Function]] = {
    **dict.fromkeys(PRODUCTS, product),
    **dict.fromkeys(WRITERS, writer),
    **dict.fromkeys(("digitize", "isin", "searchsorted"), search),
    **dict.fromkeys(("prod", "sum"), total),
    "where": _where,
    "take": _take,
    "take_along_axis": _take_along_axis,
}
