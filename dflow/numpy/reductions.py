"""Reductions: sums, products, extrema and their positions. One row of a table for each kind.

Integers and bools are summed in 64 bits, as NumPy does. Equal extrema share the derivative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.numpy import support as s
from dflow.numpy.dispatch import UFUNC_METHODS, implements
from dflow.numpy.elementwise import apply
from dflow.numpy.shapes import flat
from dflow.numpy.ufunc_rules import rule_for
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

EVERYTHING: Any = np._NoValue
_NO_ELEMENTS = "zero-size array to reduction operation {} which has no identity"

# kind of the operation, the ufunc that it repeats, its neutral element
SUM = ("sum", np.add, 0)
PROD = ("prod", np.multiply, 1)
MAX = ("max", np.maximum, None)
MIN = ("min", np.minimum, None)
ANY = ("any", np.logical_or, False)
ALL = ("all", np.logical_and, True)


def given(x: Any) -> bool:
    return x is not None and x is not EVERYTHING


def accumulator(x: Array, dtype: Any) -> np.dtype[Any]:
    """The dtype in which NumPy sums: at least 64 bits for integers."""
    if given(dtype):
        return np.dtype(dtype)
    return np.result_type(x.dtype, np.uint64 if x.dtype.kind == "u" else np.int64) if x.dtype.kind in "biu" else x.dtype


def reduce(
    row: tuple[str, np.ufunc, Any],
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = True,
) -> Array:
    """One row of the table above, along axes."""
    kind, ufunc, neutral = row
    x = lift(a)
    v = s.cast(x.value, {"sum": accumulator, "prod": accumulator}.get(kind, lambda x, d: x.dtype)(x, dtype))
    if kind in ("any", "all"):
        v = s.cast(v, bool)
    axes = () if not v.type.rank and axis in (0, -1) else s.some_axes(axis, v.type.rank)
    if v.type.dtype.kind == "c" and kind in ("max", "min"):
        return _one_by_one(ufunc, v, axes, out, keepdims, initial, where)
    if given(where) and where is not True:
        v = _masked(v, where, initial if neutral is None and given(initial) else neutral, ufunc.__name__)
    if kind in ("max", "min"):
        v = _with_initial(v, axes, initial, ufunc)
        if not given(initial):
            sizes.require_elements(v.type.shape, axes, _NO_ELEMENTS.format(ufunc.__name__))
    y = reduce_value(v, kind, axes)
    if given(initial):
        first = s.expand(s.cast_operand(lift(initial), y.type.dtype.numpy), y.type.shape)
        y = rule_for(ufunc.__name__, y.type.dtype)(builder(), first, y)
    return s.result(kept(y, v.type.shape, axes) if given(keepdims) and keepdims else y, out)


def _one_by_one(ufunc: np.ufunc, v: Value, axes: Any, out: Any, keepdims: Any, initial: Any, where: Any) -> Array:
    """What the IR has for real numbers alone."""
    from dflow.numpy.ufunc_methods import fold

    found = fold(ufunc, v, axes, initial if given(initial) else None, where if given(where) else True)
    return s.result(kept(found, v.type.shape, axes) if given(keepdims) and keepdims else found, out)


def reduce_value(v: Value, kind: str, axes: tuple[int, ...]) -> Value:
    """A reduction of the IR; bools are summed by other names."""
    if not axes:
        return v
    if v.type.dtype.kind == "b":
        kind = {"max": "any", "min": "all", "sum": "any", "prod": "all"}.get(kind, kind)
    return builder().reduce(v, kind=kind, axes=axes)


def kept(y: Value, shape: s.Shape, axes: tuple[int, ...]) -> Value:
    """``y`` with the reduced axes back, of size 1."""
    return s.reshaped(y, tuple(1 if k in axes else d for k, d in enumerate(shape)))


def _masked(v: Value, where: Any, neutral: Any, name: str) -> Value:
    if neutral is None:
        raise ValueError(
            f"reduction operation '{name}' does not have an identity, so to use a where mask one has to specify "
            "'initial'"
        )
    mask = s.expand(s.cast(lift(where).value, bool), v.type.shape)
    other = s.expand(s.cast_operand(lift(neutral), v.type.dtype.numpy), v.type.shape)
    return builder().select(mask, v, other)


def _with_initial(v: Value, axes: tuple[int, ...], initial: Any, ufunc: np.ufunc) -> Value:
    """Extrema need an element: with ``initial``, an axis without any gets one."""
    empty = [k for k in axes if v.type.shape[k] == 0]
    if not empty:
        return v
    if not given(initial):
        raise ValueError(_NO_ELEMENTS.format(ufunc.__name__))
    shape = tuple(1 if k in empty else d for k, d in enumerate(v.type.shape))
    return s.expand(s.cast_operand(lift(initial), v.type.dtype.numpy), shape)


@implements(np.sum)
def sum(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = True,
) -> Array:
    return reduce(SUM, a, axis, dtype, out, keepdims, initial, where)


@implements(np.prod)
def prod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = True,
) -> Array:
    return reduce(PROD, a, axis, dtype, out, keepdims, initial, where)


@implements(np.max, np.amax)
def max(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Array:
    return reduce(MAX, a, axis, None, out, keepdims, initial, where)


@implements(np.min, np.amin)
def min(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Array:
    return reduce(MIN, a, axis, None, out, keepdims, initial, where)


@implements(np.any)
def any(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Array:
    return reduce(ANY, a, axis, None, out, keepdims, None, where)


@implements(np.all)
def all(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Array:
    return reduce(ALL, a, axis, None, out, keepdims, None, where)


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Array:
    high, low = (reduce(row, a, axis, keepdims=keepdims) for row in (MAX, MIN))
    return apply(np.subtract, high, low, out=out)


@implements(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> Array:
    return reduce(SUM, s.as_dtype(a, bool), axis, keepdims=keepdims)


def _ufunc_reduce(row: tuple[str, np.ufunc, Any]) -> Any:
    def call(
        array: Any,
        axis: Any = 0,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
        initial: Any = None,
        where: Any = True,
    ) -> Array:
        return reduce(row, array, axis, dtype, out, keepdims, initial, where)

    return call


for _row in (SUM, PROD, MAX, MIN, ANY, ALL):
    UFUNC_METHODS[_row[1], "reduce"] = _ufunc_reduce(_row)


# -- positions -------------------------------------------------------------------------------------------------------


def _is_extreme(v: Value, row: tuple[str, np.ufunc, Any], axis: int) -> Value:
    """1 where complex elements are the extremum (in lexicographic order) along an axis; NaN is, where there is one."""
    best = reduce(row, wrap(v), axis, keepdims=True)
    found = apply(np.logical_or, apply(np.isnan, wrap(v)), apply(np.equal, wrap(v), best))
    return s.cast(found.value, np.int8)


def _position(op: str) -> Any:
    def call(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Array:
        v = lift(a).value
        shape = v.type.shape
        if v.type.dtype.kind == "b":
            v = s.cast(v, np.int8)
        if axis is None:
            v, at = flat(v), 0
        else:
            at = s.one_axis(axis, v.type.rank)
        sizes.require_elements(v.type.shape, (at,), f"attempt to get {op} of an empty sequence")
        if v.type.shape[at] == 0:
            raise ValueError(f"attempt to get {op} of an empty sequence")
        if v.type.dtype.kind == "c":
            y = builder().argmax(_is_extreme(v, MAX if op == "argmax" else MIN, at), axis=at)
        else:
            y = builder().emit(op, v, axis=at)
        axes = tuple(range(len(shape))) if axis is None else (at,)
        return s.result(kept(y, shape, axes) if given(keepdims) and keepdims else y, out)

    return call


argmax = implements(np.argmax)(_position("argmax"))
argmin = implements(np.argmin)(_position("argmin"))
