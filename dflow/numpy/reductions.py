"""Reductions: sums, products, extrema, statistics, norms.

Integers and bools are summed in 64 bits and averaged in float64, as NumPy does; float16 is averaged in float32. Equal
extrema share the derivative. The standard deviation and the norms have derivative 0 where they are 0 (a subgradient).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.numpy import support as s
from dflow.numpy.dispatch import METHODS, UFUNC_METHODS, implements
from dflow.numpy.elementwise import apply
from dflow.numpy.ufunc_rules import rule_for, safe_sqrt
from dflow.tracing.array import Array
from dflow.tracing.context import builder
from dflow.tracing.lift import lift, wrap

EVERYTHING: Any = np._NoValue  # type: ignore[attr-defined]

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
    axes = s.some_axes(axis, v.type.rank)
    if given(where) and where is not True:
        v = _masked(v, where, neutral if initial is None or initial is EVERYTHING else initial, ufunc.__name__)
    if kind in ("max", "min"):
        v = _with_initial(v, axes, initial, ufunc)
    y = reduce_value(v, kind, axes)
    if given(initial):
        first = s.expand(s.cast_operand(lift(initial), y.type.dtype.numpy), y.type.shape)
        y = rule_for(ufunc.__name__, y.type.dtype)(builder(), first, y)
    return s.result(kept(y, v.type.shape, axes) if given(keepdims) and keepdims else y, out)


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
        raise ValueError(f"zero-size array to reduction operation {ufunc.__name__} which has no identity")
    shape = tuple(1 if k in empty else d for k, d in enumerate(v.type.shape))
    return s.expand(s.cast_operand(lift(initial), v.type.dtype.numpy), shape)


@implements(np.sum, method="sum")
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


@implements(np.prod, method="prod")
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


@implements(np.max, np.amax, method="max")
def max(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Array:
    return reduce(MAX, a, axis, None, out, keepdims, initial, where)


@implements(np.min, np.amin, method="min")
def min(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Array:
    return reduce(MIN, a, axis, None, out, keepdims, initial, where)


@implements(np.any, method="any")
def any(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Array:
    return reduce(ANY, a, axis, None, out, keepdims, None, where)


@implements(np.all, method="all")
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


# -- statistics ------------------------------------------------------------------------------------------------------


def _averaging(x: Array, dtype: Any) -> np.dtype[Any]:
    """The dtype in which NumPy averages."""
    if given(dtype):
        return np.dtype(dtype)
    wide = {"b": np.float64, "i": np.float64, "u": np.float64}.get(x.dtype.kind, x.dtype)
    return np.dtype(np.float32 if wide == np.float16 else wide)


def _number(v: Value, axes: tuple[int, ...], where: Any, shape: s.Shape) -> Value:
    """How many elements go into each result, in the dtype of ``v`` and of its shape."""
    b = builder()
    if given(where) and where is not True:
        mask = s.expand(s.cast(lift(where).value, bool), shape)
        return s.cast(kept(reduce_value(s.cast(mask, np.int64), "sum", axes), shape, axes), v.type.dtype)
    count = s.size_of(shape[k] for k in axes)
    return s.expand(s.cast(count, v.type.dtype), v.type.shape) if v.type.rank else b.convert(count, dtype=v.type.dtype)


def _mean_kept(v: Value, axes: tuple[int, ...], where: Any) -> Value:
    shape = v.type.shape
    total = reduce(SUM, wrap(v), axes, v.type.dtype.numpy, keepdims=True, where=where).value
    return builder().div(total, _number(total, axes, where, shape))


def _narrow(v: Value, x: Array, dtype: Any) -> Value:
    return s.cast(v, np.float16) if x.dtype == np.float16 and not given(dtype) else v


def _finish(v: Value, axes: tuple[int, ...], keepdims: Any, out: Any) -> Array:
    shape = tuple(d for k, d in enumerate(v.type.shape) if k not in axes)
    return s.result(v if given(keepdims) and keepdims else s.reshaped(v, shape), out)


@implements(np.mean, method="mean")
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Array:
    x = lift(a)
    axes = s.some_axes(axis, x.ndim)
    v = _mean_kept(s.cast(x.value, _averaging(x, dtype)), axes, where)
    return _finish(_narrow(v, x, dtype), axes, keepdims, out)


def _variance(x: Array, axes: tuple[int, ...], dtype: Any, ddof: Any, where: Any) -> Value:
    """Two passes: the mean first, then the mean of squared deviations (no cancellation)."""
    b, v = builder(), s.cast(x.value, _averaging(x, dtype))
    deviation = b.sub(v, s.expand(_mean_kept(v, axes, where), v.type.shape))
    squares = wrap(b.mul(deviation, deviation))
    total = reduce(SUM, squares, axes, v.type.dtype.numpy, keepdims=True, where=where).value
    freedom = apply(np.subtract, wrap(_number(total, axes, where, v.type.shape)), ddof)
    return b.div(total, s.cast(apply(np.maximum, freedom, 0).value, v.type.dtype))


def _ddof(ddof: Any, correction: Any) -> Any:
    if given(correction):
        if ddof != 0:
            raise ValueError("ddof and correction can't be provided simultaneously.")
        return correction
    return ddof


@implements(np.var, method="var")
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
    mean: Any = None,
    correction: Any = None,
) -> Array:
    x = lift(a)
    axes = s.some_axes(axis, x.ndim)
    v = _variance(x, axes, dtype, _ddof(ddof, correction), where)
    return _finish(_narrow(v, x, dtype), axes, keepdims, out)


@implements(np.std, method="std")
def std(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
    mean: Any = None,
    correction: Any = None,
) -> Array:
    x = lift(a)
    axes = s.some_axes(axis, x.ndim)
    v = safe_sqrt(_variance(x, axes, dtype, _ddof(ddof, correction), where))
    return _finish(_narrow(v, x, dtype), axes, keepdims, out)


@implements(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    x = lift(a)
    if weights is None:
        out = mean.__wrapped__(x, axis, keepdims=keepdims)
        count = s.size_of(s.dims(x)[k] for k in s.some_axes(axis, x.ndim))
        total = wrap(s.expand(s.cast(count, out.dtype), s.dims(out)))
        return (out, total) if returned else out
    w, axes = lift(weights), s.some_axes(axis, x.ndim)
    if s.dims(w) != s.dims(x):
        if s.dims(w) != tuple(s.dims(x)[k] for k in axes):
            raise ValueError("Shape of weights must be consistent with shape of a along specified axis.")
        w = wrap(kept(w.value, s.dims(x), tuple(k for k in range(x.ndim) if k not in axes)))
    dtype = s.result_type(x, w, np.float64) if x.dtype.kind in "biu" else s.result_type(x, w)
    shape = s.dims(x)
    w = wrap(s.expand(s.cast(w.value, dtype), shape))
    total = reduce(SUM, w, axes, keepdims=keepdims)
    out = reduce(SUM, apply(np.multiply, s.as_dtype(x, dtype), w), axes, keepdims=keepdims) / total
    return (out, total) if returned else out


# -- reductions that pass over NaN -----------------------------------------------------------------------------------


def _without_nan(row: tuple[str, np.ufunc, Any], substitute: Any) -> Any:
    def call(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
        initial: Any = None,
        where: Any = True,
    ) -> Array:
        x = lift(a)
        if x.dtype.kind == "f":
            missing = apply(np.isnan, x)
            y = builder().select(missing.value, s.full(s.dims(x), substitute, x.dtype), x.value)
            value = reduce(row, wrap(y), axis, dtype, None, keepdims, initial, where)
            if row in (MAX, MIN):
                empty = reduce(ALL, missing, axis, keepdims=keepdims)
                nothing = s.full(s.dims(value), np.nan, x.dtype)
                value = wrap(builder().select(empty.value, nothing, value.value))
            return s.result(value.value, out)
        return reduce(row, x, axis, dtype, out, keepdims, initial, where)

    return call


nansum = implements(np.nansum)(_without_nan(SUM, 0.0))
nanprod = implements(np.nanprod)(_without_nan(PROD, 1.0))
_nanmax, _nanmin = _without_nan(MAX, -np.inf), _without_nan(MIN, np.inf)


@implements(np.nanmax)
def nanmax(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Array:
    return _nanmax(a, axis, None, out, keepdims, initial, where)


@implements(np.nanmin)
def nanmin(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> Array:
    return _nanmin(a, axis, None, out, keepdims, initial, where)


def _present(a: Any, where: Any) -> tuple[Array, Array]:
    """The array with 0 for NaN (which would spoil derivatives even under a mask), and the mask of the others."""
    x = lift(a)
    missing = apply(np.isnan, x).value
    filled = wrap(builder().select(missing, builder().zeros(x.value.type), x.value))
    present = apply(np.logical_not, wrap(missing))
    return filled, present if where is True or not given(where) else apply(np.logical_and, present, where)


@implements(np.nanmean)
def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Array:
    filled, present = _present(a, where)
    return mean.__wrapped__(filled, axis, dtype, out, keepdims, where=present)


@implements(np.nanvar)
def nanvar(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
) -> Array:
    filled, present = _present(a, where)
    return var.__wrapped__(filled, axis, dtype, out, ddof, keepdims, where=present)


@implements(np.nanstd)
def nanstd(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
) -> Array:
    filled, present = _present(a, where)
    return std.__wrapped__(filled, axis, dtype, out, ddof, keepdims, where=present)


# -- positions -------------------------------------------------------------------------------------------------------


def _position(op: str) -> Any:
    def call(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Array:
        v = lift(a).value
        shape = v.type.shape
        if v.type.dtype.kind == "b":
            v = s.cast(v, np.int8)
        if axis is None:
            v, at = s.reshaped(v, (int(np.prod(s.static(shape, f"np.{op} of the flattened array"))),)), 0
        else:
            at = s.one_axis(axis, v.type.rank)
        if v.type.shape[at] == 0:
            raise ValueError(f"attempt to get {op} of an empty sequence")
        y = builder().emit(op, v, axis=at)
        axes = tuple(range(len(shape))) if axis is None else (at,)
        return s.result(kept(y, shape, axes) if given(keepdims) and keepdims else y, out)

    return call


argmax = implements(np.argmax, method="argmax")(_position("argmax"))
argmin = implements(np.argmin, method="argmin")(_position("argmin"))


# -- running sums and products ---------------------------------------------------------------------------------------


def _running(ufunc: np.ufunc) -> Any:
    """A loop along the axis that carries the running value and the results so far."""

    def call(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Array:
        x = lift(a)
        v = s.cast(x.value, accumulator(x, dtype))
        if axis is None:
            v = s.reshaped(v, (int(np.prod(s.static(v.type.shape, "a running sum over the flattened array"))),))
        return s.result(_scan(ufunc, v, 0 if axis is None else s.one_axis(axis, v.type.rank)), out)

    return call


def _scan(ufunc: np.ufunc, v: Value, axis: int) -> Value:
    b, rule = builder(), rule_for(ufunc.__name__, v.type.dtype)
    index = tuple("at" if k == axis else "all" for k in range(v.type.rank))
    first = b.full({np.add: 0, np.multiply: 1}[ufunc], v.type.with_shape(_dropped(v.type.shape, axis)))

    def body(b: Any, k: Value, so_far: Value, results: Value) -> list[Value]:
        so_far = rule(b, so_far, b.extract(v, k, index=index))
        return [so_far, b.update(results, so_far, k, index=index)]

    return b.for_loop(b.size(v.type.shape[axis]), [first, b.zeros(v.type)], body)[1]


def _dropped(shape: s.Shape, axis: int) -> s.Shape:
    return tuple(d for k, d in enumerate(shape) if k != axis)


cumsum = implements(np.cumsum, method="cumsum")(_running(np.add))
cumprod = implements(np.cumprod, method="cumprod")(_running(np.multiply))


def _accumulate(scan: Any) -> Any:
    return lambda array, axis=0, dtype=None, out=None: scan(array, axis, dtype, out)


UFUNC_METHODS[np.add, "accumulate"] = _accumulate(METHODS["cumsum"])
UFUNC_METHODS[np.multiply, "accumulate"] = _accumulate(METHODS["cumprod"])


# -- norms -----------------------------------------------------------------------------------------------------------


def _vector_norm(x: Array, order: Any, axes: Any, keepdims: bool) -> Array:
    size = apply(np.absolute, x)
    if order is None or order == 2:
        return wrap(safe_sqrt(reduce(SUM, x * x, axes, keepdims=keepdims).value))
    if order in (np.inf, -np.inf):
        return reduce(MAX if order > 0 else MIN, size, axes, keepdims=keepdims)
    if order == 0:
        return s.as_dtype(reduce(SUM, apply(np.not_equal, x, 0), axes, keepdims=keepdims), x.dtype)
    if order == 1:
        return reduce(SUM, size, axes, keepdims=keepdims)
    return _power_norm(size, order, axes, keepdims)


def _power_norm(size: Array, order: Any, axes: Any, keepdims: bool) -> Array:
    """(sum of powers) to the 1/order, kept away from the infinite slope of the root at 0."""
    b = builder()
    total = reduce(SUM, apply(np.power, size, order), axes, keepdims=keepdims).value
    zero = b.eq(total, 0.0)
    root = apply(np.power, wrap(b.select(zero, b.full(1.0, total.type), total)), 1.0 / order).value
    return wrap(b.select(zero, b.zeros(total.type), root))


def _matrix_norm(x: Array, order: Any, axes: tuple[int, int], keepdims: bool) -> Array:
    if order in (None, "fro", "f"):
        return wrap(safe_sqrt(reduce(SUM, x * x, axes, keepdims=keepdims).value))
    if order not in (1, -1, np.inf, -np.inf):
        raise TypeError(
            f"np.linalg.norm of a matrix with ord={order!r} is not supported on traced arrays; supported are 'fro', 1, "
            "-1, inf and -inf"
        )
    down, along = axes if abs(order) == 1 else axes[::-1]
    sums = reduce(SUM, apply(np.absolute, x), down, keepdims=True)
    found = reduce(MAX if order > 0 else MIN, sums, along, keepdims=True)
    return (
        found
        if keepdims
        else wrap(s.reshaped(found.value, tuple(d for k, d in enumerate(s.dims(found)) if k not in axes)))
    )


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    x = lift(x)
    x = x if x.dtype.kind == "f" else s.as_dtype(x, np.float64)
    if axis is None and ord is None:
        return _vector_norm(x, None, None, keepdims)
    axes = tuple(range(x.ndim)) if axis is None else axis
    axes = tuple(s.one_axis(k, x.ndim) for k in (axes if isinstance(axes, tuple | list) else (axes,)))
    if len(axes) == 1:
        if isinstance(ord, str):
            raise ValueError(f"Invalid norm order '{ord}' for vectors")
        return _vector_norm(x, ord, axes, keepdims)
    if len(axes) != 2:
        raise ValueError("Improper number of dimensions to norm.")
    return _matrix_norm(x, ord, (axes[0], axes[1]), keepdims)
