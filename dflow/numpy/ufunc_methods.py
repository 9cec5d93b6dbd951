"""The methods of ufuncs: reduce, accumulate, reduceat and at, as loops that apply the ufunc's rule.

What the IR has as one operation (sums, products, extrema) stands in ``reductions`` and keeps its place there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dflow.errors import TraceError, failure
from dflow.ir.core import Value
from dflow.numpy import support as s
from dflow.numpy.dispatch import UFUNC_METHODS
from dflow.numpy.elementwise import loop_dtypes
from dflow.numpy.joining import stack
from dflow.numpy.reductions import given, kept
from dflow.numpy.running import scan
from dflow.numpy.ufunc_rules import NAMES, rule_for
from dflow.tracing.arrays import dtypes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder


def _in_loop_dtype(ufunc: np.ufunc, x: Array, dtype: Any) -> Value:
    """The elements in the dtype in which the ufunc combines them; TypeError when it gives another one."""
    kinds = loop_dtypes(ufunc, [x, x], dtype if given(dtype) else None, "same_kind")
    if kinds[0] != kinds[-1]:
        raise TypeError(f"np.{ufunc.__name__} of {x.dtype} gives {kinds[-1]}, so it cannot be repeated")
    return s.cast(x.value, kinds[0])


def _reduce(ufunc: np.ufunc) -> Any:
    def reduce(
        array: Any,
        axis: Any = 0,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
        initial: Any = None,
        where: Any = True,
    ) -> Array:
        x = lift(array)
        v = _in_loop_dtype(ufunc, x, dtype)
        axes = s.some_axes(axis, x.ndim)
        y = fold(ufunc, v, axes, initial if given(initial) else None, where if given(where) else True)
        return s.result(kept(y, v.type.shape, axes) if keepdims else y, out)

    return reduce


def fold(ufunc: np.ufunc, v: Value, axes: tuple[int, ...], initial: Any, where: Any) -> Value:
    """The elements along ``axes`` where a mask holds, combined from ``initial`` on."""
    masked, empty = where is not True, any(v.type.shape[k] == 0 for k in axes)
    start = ufunc.identity if initial is None else initial
    if initial is None and start == -1:  # all bits, also of unsigned integers
        start = np.array(-1).astype(v.type.dtype.numpy)[()]
    if start is None and (masked or empty):
        raise ValueError(f"reduction operation {ufunc.__name__} has no identity; say what to start from: initial=")
    mask = s.expand(s.cast(lift(where).value, bool), v.type.shape) if masked else None
    return _fold(ufunc, v, mask, axes, start if initial is not None or masked or empty else None)


def _fold(ufunc: np.ufunc, v: Value, mask: Value | None, axes: tuple[int, ...], start: Any) -> Value:
    """The elements along ``axes`` combined one after the other, from ``start`` or else from the first one on."""
    b, rule = builder(), rule_for(ufunc.__name__, v.type.dtype)
    rest = [k for k in range(v.type.rank) if k not in axes]
    shape = tuple(v.type.shape[k] for k in rest)
    count = math.prod(s.static((v.type.shape[k] for k in axes), f"np.{ufunc.__name__}.reduce"))
    rows, masks = (
        None if x is None else s.reshaped(s.transposed(x, [*axes, *rest]), (count, *shape)) for x in (v, mask)
    )
    index = ("at", *("all" for _ in shape))
    skip = 1 if start is None else 0
    if start is None:
        first = b.extract(rows, b.index(0), index=index)
    else:
        first = s.expand(s.cast_operand(lift(start), v.type.dtype.numpy), shape)

    def body(b: Any, k: Value, total: Value) -> list[Value]:
        at = b.add(k, skip) if skip else k
        following = rule(b, total, b.extract(rows, at, index=index))
        return [following if masks is None else b.select(b.extract(masks, at, index=index), following, total)]

    return b.for_loop(b.index(count - skip), [first], body)[0]


def _accumulate(ufunc: np.ufunc) -> Any:
    def accumulate(array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Array:
        x = lift(array)
        v = _in_loop_dtype(ufunc, x, dtype)
        return s.result(scan(ufunc, v, s.one_axis(axis, x.ndim)), out)

    return accumulate


def _reduceat(ufunc: np.ufunc) -> Any:
    def reduceat(array: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Array:
        """The reductions of the slices between neighbouring indices, which must be known."""
        x = lift(array)
        at = s.one_axis(axis, x.ndim)
        starts = [s.static_int(i, "the indices of reduceat") for i in indices]
        size = x.shape[at]
        for i in starts:
            if not 0 <= i < size:
                raise IndexError(f"index {i} out-of-bounds in {ufunc.__name__}.reduceat [0, {size})")
        parts = []
        for i, j in zip(starts, [*starts[1:], size]):
            piece = x[(*(slice(None),) * at, slice(i, j if j > i else i + 1))]
            parts.append(UFUNC_METHODS[ufunc, "reduce"](piece, at, dtype))
        return s.result(stack.__wrapped__(parts, at).value, out)

    return reduceat


def at(ufunc: np.ufunc, target: Any, index: Any, value: Any = None) -> None:
    """``target[index] = ufunc(target[index], value)`` for one position after the other, repeated ones as often as they
    occur."""
    from dflow.tracing.arrays.index import resolve
    from dflow.tracing.arrays.scatter import add_at

    if ufunc in (np.add, np.subtract) and target.dtype.kind != "b":
        return add_at(target, resolve(target.type.shape, index), value if ufunc is np.add else -lift(value))
    if ufunc.__name__ not in NAMES or ufunc.nout != 1:
        raise failure(TraceError, f"np.{ufunc.__name__}.at is not supported on traced arrays")
    places: Value = lift(np.arange(target.size).reshape(target.shape))[index].value
    shape = s.static(places.type.shape, f"np.{ufunc.__name__}.at")
    other = [] if ufunc.nin == 1 else [lift(value)]
    kinds = loop_dtypes(ufunc, [target, *other], None, "same_kind")
    if not dtypes.can_cast(kinds[-1], target.dtype, "same_kind"):
        raise TypeError(f"Cannot cast ufunc '{ufunc.__name__}' output from {kinds[-1]} to {target.dtype}")
    flat_other = [s.reshaped(s.expand(s.cast_operand(x, kinds[1]), shape), (math.prod(shape),)) for x in other]
    _write(ufunc, target, s.reshaped(places, (math.prod(shape),)), flat_other, kinds[0])
    return None


def _write(ufunc: np.ufunc, target: Array, places: Value, other: list[Value], kind: Any) -> None:
    b, wide, rule = builder(), s.dtype_of(kind), rule_for(ufunc.__name__, s.dtype_of(kind))

    def body(b: Any, k: Value, flat: Value) -> list[Value]:
        p = b.extract(places, k, index=("at",))
        old = b.extract(flat, p, index=("at",))
        old = old if old.type.dtype == wide else b.convert(old, dtype=wide)
        new = rule(b, old, *(b.extract(v, k, index=("at",)) for v in other))
        new = new if new.type.dtype == flat.type.dtype else b.convert(new, dtype=flat.type.dtype)
        return [b.update(flat, new, p, index=("at",))]

    count = b.size(places.type.shape[0])
    (flat,) = b.for_loop(count, [s.reshaped(target.value, (target.size,))], body)
    target[...] = wrap(s.reshaped(flat, s.dims(target)))


for _name in NAMES:
    _ufunc = getattr(np, _name)
    if _ufunc.nin == 2 and _ufunc.nout == 1:
        UFUNC_METHODS.setdefault((_ufunc, "reduce"), _reduce(_ufunc))
        UFUNC_METHODS.setdefault((_ufunc, "accumulate"), _accumulate(_ufunc))
        UFUNC_METHODS[_ufunc, "reduceat"] = _reduceat(_ufunc)
