"""Choosing, inserting and writing elements: ``choose``, ``piecewise``, ``insert``, ``put`` and their like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from dflow.numpy import support as s
from dflow.numpy.dispatch import CALLABLES, implements
from dflow.numpy.joining import take_value
from dflow.numpy.shapes import flat, moveaxis
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder, region
from dflow.tracing.python.objects import Snapshot
from dflow.tracing.source.rewrite import rewritten

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way
FEW = 4  # pieces of an array that are put together as they are


@implements(np.choose)
def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Array:
    """From each of ``choices`` the elements that ``a`` points to; ``mode`` says what becomes of other positions."""
    at, arrays = s.whole(a), [lift(c) for c in choices]
    n = len(arrays)
    if mode == "wrap":
        at = at % n
    elif mode == "clip":
        at = np.clip(at, 0, n - 1)
    else:
        inside = np.all((at >= 0) & (at < n))
        builder().check(inside.value, error="ValueError", message="invalid entry in choice array")
    found = np.broadcast_arrays(at, *arrays)[1]
    found = s.as_dtype(found, s.result_type(*arrays))
    for k, choice in enumerate(arrays[1:], 1):
        found = np.where(at == k, choice, found)
    return s.result(found.value, out)


@implements(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Any, *args: Any, **kw: Any) -> Array:
    """Functions on parts of an array. Each function sees the whole array if it works element by element."""
    x = lift(x)
    listed = isinstance(condlist, list | tuple) and bool(condlist) and s.rank(condlist[0]) > 0
    conditions = list(condlist) if listed or s.rank(condlist) > x.ndim else [condlist]
    masks = [s.as_dtype(lift(c), bool) for c in conditions]
    functions = list(funclist)
    if len(functions) == len(masks) + 1:
        covered = masks[0]
        for m in masks[1:]:
            covered = covered | m
        masks.append(~covered)
    if len(functions) != len(masks):
        n = len(masks)
        raise ValueError(f"with {n} condition(s), either {n} or {n + 1} functions are expected")
    y = wrap(s.full(s.dims(x), 0, x.dtype))
    for mask, f in zip(masks, functions):
        if not callable(f):
            y = np.where(mask, s.as_dtype(lift(f), x.dtype), y)
            continue
        mark, objects = region().mark(), Snapshot([f, *args, *kw.values()])
        piece = lift(_traced_call(f, x, *args, **kw))
        if region().is_pointwise_since(mark):
            y = np.where(mask, s.as_dtype(piece, x.dtype), y)
        else:
            region().back_to(mark)
            objects.restore()
            y[mask] = _traced_call(f, x[mask], *args, **kw)
    return y


def _traced_call(f: Callable[..., Any], *args: Any, **kw: Any) -> Any:
    from dflow.tracing.python.calls import call

    return call(f, *args, **kw)


@implements(np.insert)
def insert(arr: Any, obj: Any, values: Any, axis: Any = None) -> Array:
    """``arr`` with ``values`` before the positions ``obj``, which may be traced: how many there are must be known."""
    x = lift(arr)
    x, at = (wrap(flat(x.value)), 0) if axis is None else (x, s.one_axis(axis, x.ndim))
    (size,) = s.static((s.dims(x)[at],), "np.insert")
    new = lift(values)
    new = new.reshape((*(1,) * (x.ndim - new.ndim), *new.shape))
    before = _positions(obj, size)
    if before.ndim > 1:
        raise ValueError("index array argument obj to insert must be one dimensional or scalar")
    if before.size == 1:
        new = new if before.ndim else moveaxis.__wrapped__(new, 0, at)
        before = np.broadcast_to(before, (new.shape[at],))
    count = before.shape[0]
    layout = _after_insertion(before, size)
    shape = tuple(count if k == at else d for k, d in enumerate(s.dims(x)))
    added = s.expand(s.cast(new.value, x.dtype), shape)
    if not isinstance(layout, Array) and len(runs := _runs(layout, size)) <= FEW:
        parts = [(x.value, run[0]) if run[0] < size else (added, run[0] - size) for run in runs]
        return wrap(s.join([s.part(v, at, int(k), len(run)) for (v, k), run in zip(parts, runs)], at))
    return np.take(wrap(s.join([x.value, added], at)), layout, axis=at)


def _runs(positions: Any, size: int) -> list[Any]:
    """Positions, not all of them none, in pieces without a gap, on one side of ``size`` each."""
    ends = (np.diff(positions) != 1) | (positions[1:] == size)
    return np.split(positions, np.flatnonzero(ends) + 1)


def _positions(obj: Any, size: int) -> Any:
    """Positions as an array of integers; IndexError for other numbers."""
    if isinstance(obj, slice):
        return np.arange(*obj.indices(size))
    obj = _known(obj)
    at = obj if isinstance(obj, Array) else np.asarray(obj)
    if not isinstance(obj, Array) and (at.dtype == bool or not at.size):
        return np.flatnonzero(at)
    if at.dtype.kind not in "iu":
        raise IndexError("arrays used as indices must be of integer (or boolean) type")
    return at


def _known(x: Any) -> Any:
    """A traced constant as the NumPy array that it is; all else as it stands."""
    op = x.value.op if isinstance(x, Array) else None
    return np.asarray(op.attrs["value"]) if op is not None and op.name == "constant" else x


def _after_insertion(before: Any, size: int) -> Any:
    """Where the elements of a result come from: from ``size`` old ones and, behind them, a new one for each of the
    positions ``before`` which they stand."""
    new = size + np.arange(before.shape[0])
    if not isinstance(before, Array):
        return np.insert(np.arange(size), before, new)
    inside = np.all((before >= -size) & (before <= size))
    builder().check(inside.value, error="IndexError", message=f"an index is out of bounds for an axis of size {size}")
    before = np.where(before < 0, before + size, before)
    order = np.argsort(before, kind="stable")
    place = lift(np.zeros(new.shape, np.int64))
    place[order] = before[order] + np.arange(len(new))
    is_new = lift(np.zeros(size + len(new), np.int64))
    is_new[place] = 1
    layout = np.arange(size + len(new)) - np.cumsum(is_new)
    layout[place] = new
    return layout


@implements(np.delete)
def delete(arr: Any, obj: Any, axis: Any = None) -> Array:
    """``arr`` without the positions ``obj``. Of several traced ones the size of the result depends on the data, for
    two may be equal."""
    x = lift(arr)
    x, at = (wrap(flat(x.value)), 0) if axis is None else (x, s.one_axis(axis, x.ndim))
    (size,) = s.static((s.dims(x)[at],), "np.delete")
    obj = _known(obj)
    if not isinstance(obj, Array):
        stays = np.delete(np.arange(size), obj)
        runs = _runs(stays, size)
        if len(runs) <= FEW:
            return wrap(s.join([s.part(x.value, at, int(run[0]) if len(run) else 0, len(run)) for run in runs], at))
        return wrap(take_value(x.value, stays, at))
    if obj.dtype.kind == "b":
        return x[(*(slice(None),) * at, ~obj)]
    gone = lift(np.arange(size))[_positions(obj, size)]
    if gone.size == 1:
        rest = np.arange(size - 1)
        return np.take(x, rest + (rest >= gone.reshape(())), axis=at)
    stays = lift(np.ones(size, bool))
    stays[gone] = False
    return x[(*(slice(None),) * at, stays)]


# -- writing ---------------------------------------------------------------------------------------------------------


def _cycled(values: Any, positions: Array) -> Array:
    new = wrap(flat(lift(values).value))
    return new[positions % new.size]


@implements(np.putmask)
def putmask(a: Array, /, mask: Any, values: Any) -> None:
    """``a.flat[n] = values[n % len(values)]`` where the mask holds."""
    positions = lift(np.arange(a.size).reshape(a.shape))
    a[...] = np.where(s.as_dtype(mask, bool), s.as_dtype(_cycled(values, positions), a.dtype), a)


@implements(np.place)
def place(arr: Array, mask: Any, vals: Any) -> None:
    """The first elements of ``vals``, over and over, where the mask holds."""
    mask = s.as_dtype(mask, bool)
    if not np.size(vals):
        builder().check(np.all(~mask).value, error="ValueError", message="Cannot insert from an empty array!")
        return
    rank = np.cumsum(mask.reshape(-1)).reshape(mask.shape) - 1
    arr[...] = np.where(mask, s.as_dtype(_cycled(vals, rank), arr.dtype), arr)


@implements(np.put)
def put(a: Array, ind: Any, v: Any, mode: str = "raise") -> None:
    """``a.flat[ind] = v``, with ``v`` repeated where it is shorter."""
    where = ind if isinstance(ind, Array) else np.asarray(ind)
    if mode != "raise":
        where = where % a.size if mode == "wrap" else np.clip(where, 0, a.size - 1)
    where = where.reshape(-1)
    flat_array = a.reshape(-1).copy()
    flat_array[where] = _cycled(v, lift(np.arange(where.size)))
    a[...] = flat_array.reshape(a.shape)


# -- functions along axes --------------------------------------------------------------------------------------------


def _mapped(f: Any, rows: Any) -> Any:
    """What ``f`` gives for each row; its source is rewritten, so that the loop is one of the program."""
    first = f(rows[0])
    out = np.zeros((len(rows), *np.shape(first)), first.dtype)
    out[0] = first
    for k in range(1, len(rows)):
        out[k] = f(rows[k])
    return out


def mapped(f: Callable[[Array], Any], rows: Array) -> Array:
    """``f`` of each row, as a loop."""
    if not rows.shape[0]:
        raise ValueError("a function cannot be applied along an axis when any iteration dimensions are 0")
    loop = rewritten(_mapped)  # type: ignore[arg-type]
    return loop(lambda row: lift(_traced_call(f, row)), rows)


@implements(np.apply_along_axis)
def apply_along_axis(func1d: Any, axis: int, arr: Any, *args: Any, **kwargs: Any) -> Array:
    x = lift(arr)
    at = s.one_axis(axis, x.ndim)
    moved = moveaxis.__wrapped__(x, at, -1)
    lead, n = moved.shape[:-1], moved.shape[-1]
    out = mapped(lambda row: func1d(row, *args, **kwargs), moved.reshape((-1 if lead else 1, n)))
    out = out.reshape((*lead, *out.shape[1:]))
    for k in range(out.ndim - len(lead)):
        out = moveaxis.__wrapped__(out, len(lead) + k, at + k)
    return out


@implements(np.apply_over_axes)
def apply_over_axes(func: Any, a: Any, axes: Any) -> Array:
    x = lift(a)
    for axis in np.atleast_1d(axes).tolist():
        y = lift(_traced_call(func, x, axis))
        x = y if y.ndim == x.ndim else np.expand_dims(y, axis)
    return x


def vectorized(function: numpy.vectorize, *args: Any, **kwargs: Any) -> Any:
    """A call of ``np.vectorize(f)``: a loop over the elements of the broadcast arguments."""
    if function.signature is not None or kwargs:
        raise TypeError("np.vectorize on traced arrays takes neither a signature nor keyword arguments")
    arrays = np.broadcast_arrays(*map(lift, args))
    columns = [x.reshape(-1) for x in arrays]
    count: list[int] = []

    def row(k: Array) -> Array:
        found = _traced_call(function.pyfunc, *(c[k] for c in columns))
        parts = list(found) if isinstance(found, tuple) else [found]
        count[:] = [len(parts) if isinstance(found, tuple) else 0]
        return np.stack([lift(p) for p in parts])

    out = mapped(row, lift(np.arange(arrays[0].size)))
    kinds = list(function.otypes or ())
    parts = [out[:, k].reshape(arrays[0].shape) for k in range(out.shape[1])]
    parts = [s.as_dtype(p, np.dtype(kinds[k])) if kinds else p for k, p in enumerate(parts)]
    return tuple(parts) if count[0] else parts[0]


CALLABLES[np.vectorize] = vectorized


# -- indices ---------------------------------------------------------------------------------------------------------


@implements(np.ix_)
def ix_(*args: Any) -> tuple[Any, ...]:
    out = []
    for k, x in enumerate(args):
        if np.ndim(x) != 1:
            raise ValueError("Cross index must be 1 dimensional")
        x = x if isinstance(x, Array) else np.asarray(x, None if len(x) else np.intp)
        x = np.flatnonzero(x) if x.dtype == np.bool_ else x
        out.append(x.reshape((*(1,) * k, -1, *(1,) * (len(args) - k - 1))))
    return tuple(out)


def _indices_from(plain: Any, square: bool) -> Any:
    def call(arr: Any, k: int = 0) -> Any:
        shape = s.static(s.dims(lift(arr)), "the indices of a triangle")
        if square:
            if len(shape) < 2 or len(set(shape)) > 1:
                raise ValueError("All dimensions of input must be of equal length")
            return np.diag_indices(shape[0], len(shape))
        if len(shape) != 2:
            raise ValueError("input array must be 2-d")
        return plain(shape[0], k=k, m=shape[1])

    return call


diag_indices_from = implements(np.diag_indices_from)(_indices_from(None, True))
tril_indices_from = implements(np.tril_indices_from)(_indices_from(np.tril_indices, False))
triu_indices_from = implements(np.triu_indices_from)(_indices_from(np.triu_indices, False))


@implements(np.lib.stride_tricks.sliding_window_view)
def sliding_window_view(
    x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> Array:
    """The windows, along new axes at the end. They are a copy, which may be updated."""
    v = lift(x)
    sizes = tuple(window_shape) if isinstance(window_shape, tuple | list) else (window_shape,)
    if axis is None and len(sizes) != v.ndim:
        raise ValueError(
            "Since axis is None, must provide window_shape for all dimensions of `x`; got "
            f"{len(sizes)} window_shape elements and `x.ndim` is {v.ndim}."
        )
    axes = range(v.ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    if len(sizes) != len(axes):
        raise ValueError("Must provide matching length window_shape and axis")
    rank = v.ndim
    for size, k in zip(sizes, axes):
        at, size = s.one_axis(k, rank), s.static_int(size, "the size of a window")
        count = v.shape[at] - size + 1
        if size < 0 or count < 1:
            raise ValueError("window shape cannot be larger than input array shape")
        v = np.moveaxis(np.take(v, numpy.arange(count)[:, None] + numpy.arange(size), at), at + 1, -1)
    return v
