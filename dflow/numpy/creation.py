"""New arrays. While a function is traced these give fresh traced arrays, which may be written to."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.errors import NeedsStatic, failure
from dflow.ir.core import Value
from dflow.numpy import eager
from dflow.numpy import support as s
from dflow.numpy.dispatch import CREATION, any_traced, implements, located
from dflow.numpy.elementwise import apply
from dflow.numpy.joining import stack
from dflow.numpy.shapes import as_dim
from dflow.numpy.ufunc_rules import rule_for
from dflow.tracing.arrays import dtypes, layouts, sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder, tracing
from dflow.tracing.lists import earlier, rows

FAR = 2**62  # beyond every diagonal, and an int64 still


def creates(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Registers a function that makes an array from nothing: traced whenever a function is being traced."""

    def register(f: Callable[..., Any]) -> Any:
        implements(function)(f)
        CREATION[function] = located(f)

        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            if tracing() or any_traced(args, kwargs):
                return CREATION[function](*args, **kwargs)
            if eager.compiles(args, kwargs) and not (function is np.asarray and _keeps(args, kwargs)):
                return eager.as_array(eager.compiled(CREATION[function], args, kwargs))
            return function(*args, **kwargs)

        return call

    return register


def _keeps(args: Any, kwargs: Any) -> bool:
    """Whether the result of ``asarray`` may be the argument itself."""
    return bool(args) and isinstance(args[0], np.ndarray | np.generic) and not kwargs.get("copy")


def as_shape(shape: Any) -> s.Shape:
    sizes = shape if isinstance(shape, tuple | list | np.ndarray) else (shape,)
    out = tuple(as_dim(d) for d in sizes)
    if any(isinstance(d, int) and d < 0 for d in out):
        raise ValueError(f"negative dimensions are not allowed, got shape {s.show(out)}")
    return out


def _filled(number: Any) -> Callable[..., Any]:
    def call(shape: Any, dtype: Any = None, order: str = "C", *, device: Any = None, like: Any = None) -> Array:
        new: Array = layouts.in_order(wrap(s.full(as_shape(shape), number, np.dtype(dtype or np.float64))), order)
        return new

    return call


def _filled_like(number: Any) -> Callable[..., Any]:
    def call(
        a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
    ) -> Array:
        x = lift(a)
        new = wrap(s.full(s.dims(x) if shape is None else as_shape(shape), number, np.dtype(dtype or x.dtype)))
        return like(new, x, order, shape)

    return call


# NumPy leaves the elements of `empty` open; zeros make every run the same.
zeros = creates(np.zeros)(_filled(0))
ones = creates(np.ones)(_filled(1))
empty = creates(np.empty)(_filled(0))
zeros_like = creates(np.zeros_like)(_filled_like(0))
ones_like = creates(np.ones_like)(_filled_like(1))
empty_like = creates(np.empty_like)(_filled_like(0))


@creates(np.full)
def full(
    shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", *, device: Any = None, like: Any = None
) -> Array:
    x = lift(fill_value)
    new: Array = layouts.in_order(wrap(s.expand(s.cast(x.value, dtype or x.dtype), as_shape(shape))), order)
    return new


@creates(np.full_like)
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Array:
    x = lift(a)
    new = full.__wrapped__(s.dims(x) if shape is None else shape, fill_value, dtype or x.dtype, order="K")
    return like(new, x, order, shape)


def like(new: Array, x: Array, order: str, shape: Any) -> Array:
    if order in "KA" and (shape is None or len(as_shape(shape)) == x.ndim):
        layouts.lies_like(new.cell, x.value)
        return new
    found: Array = layouts.in_order(new, order)
    return found


@creates(np.array)
def array(
    object: Any,
    dtype: Any = None,
    *,
    copy: Any = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    ndmax: int = 0,
    like: Any = None,
) -> Array:
    """A new array, from an array, a number, or (nested) sequences of both; with ``copy=None`` that itself."""
    x = asarray.__wrapped__(object, dtype, order, copy=copy)
    return x.reshaped_view((*(1,) * (ndmin - x.ndim), *s.dims(x)))


@creates(np.asarray)
def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, device: Any = None, copy: Any = None, like: Any = None
) -> Array:
    """An array as it is where it has the dtype; otherwise a new one. One from outside must not be updated under it."""
    if order in ("C", "F") and not copy:
        return _in_order(a, dtype, order)
    if isinstance(a, np.ndarray) and not copy and (dtype is None or a.dtype == np.dtype(dtype)):
        x = lift(a)
        x.cell.read_only = "this array was made outside of the traced function, where the update would not be seen"
        return x
    if isinstance(a, Array) and not copy and (dtype is None or a.dtype == np.dtype(dtype)) and not a.weak:
        return a
    if copy is False:
        raise ValueError(
            "Unable to avoid copy while creating an array as requested. If a copy may be made, use copy=None"
        )
    new: Array = layouts.in_order(wrap(built(a, dtype)), order)
    return new


CREATION[np.asanyarray] = CREATION[np.asarray]
implements(np.asanyarray)(asarray.__wrapped__)


@creates(np.ascontiguousarray)
def ascontiguousarray(a: Any, dtype: Any = None, *, like: Any = None) -> Array:
    return _with_axes(_in_order(a, dtype, "C"))


@creates(np.asfortranarray)
def asfortranarray(a: Any, dtype: Any = None, *, like: Any = None) -> Array:
    return _with_axes(_in_order(a, dtype, "F"))


def _with_axes(x: Array) -> Array:
    return x if x.ndim else x.reshaped_view((1,))


def _in_order(a: Any, dtype: Any, order: str) -> Array:
    """The array itself where its elements lie in that order; else a copy."""
    x = asarray.__wrapped__(a, dtype)
    if not x.is_contiguous(order):
        x = x.copy() if layouts.ordered(x.cell) else x.copied_part(x.value)
        if order == "F" and x.ndim > 1:
            layouts.by_columns(x.cell)
    return x


def built(x: Any, dtype: Any = None) -> Value:
    """The value of a nested sequence; a sequence without traced parts is one constant."""
    if not any_traced((x,), {}):
        plain = np.array(x, dtype)
        return builder().constant(plain if plain.ndim else plain[()])
    if isinstance(x, Array):
        return s.cast(x.value, dtype or x.dtype)
    found = rows.run(x) if earlier.earlier(x) is None else earlier.stacked(x)
    if found is not None:
        return s.cast(found.value, dtype or found.dtype)
    return stack.__wrapped__(
        [e if isinstance(e, Array) else wrap(built(e, dtype)) for e in x], dtype=dtype, casting="unsafe"
    ).value


@creates(np.copy)
def copy(a: Any, order: str = "K", subok: bool = False) -> Array:
    new: Array = layouts.in_order(wrap(built(a)), order)
    return new


@creates(np.arange)
def arange(
    start: Any, stop: Any = None, step: Any = None, dtype: Any = None, *, device: Any = None, like: Any = None
) -> Array:
    if stop is None:
        start, stop = 0, start
    bounds = [_constant(x) for x in (start, stop, 1 if step is None else step)]
    if any(isinstance(x, Array) for x in bounds):
        return _traced_range(bounds[0], bounds[1], bounds[2], dtype)
    plain = np.arange(*bounds, dtype=dtype)
    return wrap(_counting(plain)) if plain.dtype.kind in "iu" and len(plain) > 1 else wrap(builder().constant(plain))


def _constant(x: Any) -> Any:
    """A traced number that is known, as the number."""
    c = s.constant_of(x.value) if isinstance(x, Array) and not x.ndim else None
    return x if c is None else c


def _traced_range(start: Any, stop: Any, step: Any, dtype: Any) -> Array:
    """Integers between bounds that are known when the program runs."""
    if any(lift(x).dtype.kind not in "iu" for x in (start, stop, step)) or isinstance(step, Array) or step == 0:
        raise failure(
            NeedsStatic,
            "the bounds of np.arange must be integers, and its step known, when one of them is traced",
            seen=f"np.arange({start!r}, {stop!r}, {step!r})",
            mend="write start + step * np.arange(count), or np.linspace",
        )
    first, last = sizes.number(start), sizes.number(stop)
    distance = sizes.minus(last, first) if step > 0 else sizes.minus(first, last)
    size = sizes.dim(sizes.divided_up(sizes.larger(distance, 0), abs(step)))
    b = builder()
    v = b.iota(size=size)
    v = v if step == 1 else b.mul(v, step)
    v = v if first == 0 else b.add(v, b.broadcast_scalar(b.index(first), (size,)))
    return wrap(s.cast(v, dtype or s.result_type(*(x for x in (start, stop) if isinstance(x, Array)), np.int64)))


def _counting(plain: np.ndarray) -> Value:
    """start + step * (0, 1, ...), without a table of constants."""
    b, start, step = builder(), int(plain[0]), int(plain[1]) - int(plain[0])
    v = b.iota(size=len(plain))
    v = v if step == 1 else b.mul(v, step)
    return s.cast(v if start == 0 else b.add(v, start), plain.dtype)


@creates(np.linspace)
def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
    *,
    device: Any = None,
) -> Any:
    """``num`` points from ``start`` to ``stop``, which may be traced: the points are differentiable by both."""
    size = as_dim(num)
    if isinstance(size, int) and size < 0:
        raise ValueError(f"Number of samples, {size}, must be non-negative.")
    first, last = lift(start), lift(stop)
    real = s.result_type(first, last, 1.0)
    x, y = s.broadcast(*(s.cast(v.value, real) for v in (first, last)))
    b, kind = builder(), x.type.dtype
    parts = sizes.minus(sizes.int_of(size), 1) if endpoint else sizes.int_of(size)
    width = b.broadcast_scalar(b.convert(b.index(sizes.larger(parts, 1)), dtype=kind), x.type.shape)
    step = rule_for("divide", kind)(b, b.sub(y, x), width)
    shape = (size, *x.type.shape)
    positions = b.broadcast(b.iota(size=size), shape=shape, dims=(0,))
    points = b.add(b.mul(b.convert(positions, dtype=kind), s.expand(step, shape)), s.expand(x, shape))
    if endpoint and size not in (0, 1):  # the end exactly
        end = b.broadcast_scalar(b.index(sizes.larger(parts, 1)), shape)
        points = b.select(b.eq(positions, end), s.expand(y, shape), points)
    if not isinstance(parts, int):
        step = b.select(b.broadcast_scalar(b.gt(parts, 0), step.type.shape), step, b.full(np.nan, step.type))
    elif parts <= 0:
        step = b.full(np.nan, step.type)
    wanted = np.dtype(dtype or real)
    points = b.floor(points) if wanted.kind in "iu" else points
    points = s.transposed(points, _to_axis(points.type.rank, axis))
    return (wrap(s.cast(points, wanted)), wrap(step)) if retstep else wrap(s.cast(points, wanted))


def _to_axis(rank: int, axis: int) -> list[int]:
    perm = list(range(1, rank))
    perm.insert(s.one_axis(axis, rank), 0)
    return perm


@creates(np.logspace)
def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None, axis: int = 0
) -> Array:
    points = apply(np.power, base, linspace.__wrapped__(start, stop, num, endpoint, axis=axis))
    return s.as_dtype(points, dtype or points.dtype)


@creates(np.eye)
def eye(
    N: Any, M: Any = None, k: int = 0, dtype: Any = float, order: str = "C", *, device: Any = None, like: Any = None
) -> Array:
    shape, b = as_shape((N, N if M is None else M)), builder()
    k = min(max(operator.index(k), -FAR), FAR)
    rows = s.counter(shape, 0)
    diagonal = b.eq(s.counter(shape, 1), b.add(rows, k) if k else rows)
    new: Array = layouts.in_order(wrap(s.cast(diagonal, np.dtype(dtype))), order)
    return new


@creates(np.identity)
def identity(n: Any, dtype: Any = None, *, like: Any = None) -> Array:
    return eye.__wrapped__(n, dtype=dtype or float)


@creates(np.tri)
def tri(N: Any, M: Any = None, k: int = 0, dtype: Any = float, *, like: Any = None) -> Array:
    shape, b = as_shape((N, N if M is None else M)), builder()
    return wrap(s.cast(b.le(s.counter(shape, 1), b.add(s.counter(shape, 0), k)), np.dtype(dtype)))


@implements(np.vander)
def vander(x: Any, N: Any = None, increasing: bool = False) -> Array:
    v = lift(x)
    if v.ndim != 1:
        raise ValueError(f"x must be a one-dimensional array or sequence, got shape {s.show(s.dims(v))}")
    count = s.static(s.dims(v), "np.vander")[0] if N is None else s.static_int(N, "N")
    v = s.as_dtype(v, dtypes.result_type(v.dtype, np.int64))
    if not count:
        return wrap(s.full((*s.dims(v), 0), 0, v.dtype))
    powers = [wrap(s.full(s.dims(v), 1, v.dtype))]
    for _ in range(count - 1):
        powers.append(apply(np.multiply, powers[-1], v))
    return stack.__wrapped__(powers if increasing else powers[::-1], 1)
