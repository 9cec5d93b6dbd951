"""Norms of vectors and matrices. They have derivative 0 where they are 0, which is among the subgradients there."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.ops.matrices import diagonal, identity, reduced
from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.elementwise import apply
from dflow.numpy.factorizations import matrices, singular_parts
from dflow.numpy.reductions import MAX, MIN, SUM, reduce
from dflow.numpy.ufunc_rules import safe_sqrt
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder


def _numbers(x: Any) -> Array:
    """At least float64 for what is no float."""
    x = lift(x)
    return x if kind_of(x.dtype) in "fc" else s.as_dtype(x, np.float64)


def _euclidean(x: Array, axes: Any, keepdims: bool) -> Array:
    parts = [builder().real(x.value), builder().imag(x.value)] if x.dtype.kind == "c" else [x.value]
    sums = [reduce(SUM, apply(np.square, wrap(p)), axes, keepdims=keepdims) for p in parts]
    return wrap(safe_sqrt(builder(), (sums[0] if len(sums) == 1 else sums[0] + sums[1]).value))


def _vector_norm(x: Array, order: Any, axes: Any, keepdims: bool) -> Array:
    if order is None or order == 2:
        return _euclidean(x, axes, keepdims)
    size = apply(np.absolute, x)
    if order in (np.inf, -np.inf):
        return reduce(MAX if order > 0 else MIN, size, axes, keepdims=keepdims)
    if order == 0:
        return s.as_dtype(reduce(SUM, apply(np.not_equal, x, 0), axes, keepdims=keepdims), size.dtype)
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
        return _euclidean(x, axes, keepdims)
    if order in (2, -2, "nuc"):
        return _spectral_norm(x, order, axes, keepdims)
    if order not in (1, -1, np.inf, -np.inf):
        raise ValueError("Invalid norm order for matrices.")
    down, along = axes if abs(order) == 1 else axes[::-1]
    sums = reduce(SUM, apply(np.absolute, x), down, keepdims=True)
    found = reduce(MAX if order > 0 else MIN, sums, along, keepdims=True)
    return (
        found
        if keepdims
        else wrap(s.reshaped(found.value, tuple(d for k, d in enumerate(s.dims(found)) if k not in axes)))
    )


def _spectral_norm(x: Array, order: Any, axes: tuple[int, int], keepdims: bool) -> Array:
    """The largest, the least, or the sum of the singular values."""
    moved = s.transposed(x.value, [*(k for k in range(x.ndim) if k not in axes), *axes])
    kind = {2: MAX, -2: MIN, "nuc": SUM}[order]
    found = reduce(kind, wrap(singular_parts(moved)[1]), -1)
    return (
        wrap(s.reshaped(found.value, tuple(1 if k in axes else d for k, d in enumerate(s.dims(x)))))
        if keepdims
        else found
    )


@implements(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Array:
    """Norm times norm of the inverse; infinite (with derivative 0) where there is no inverse."""
    (v,) = matrices(x, square=p not in (None, 2, -2))
    if 0 in v.type.shape:
        raise np.linalg.LinAlgError("cond is not defined on empty arrays")
    b = builder()
    if p in (None, 2, -2):
        d = singular_parts(v)[1]
        ends = [s.part(d, d.type.rank - 1, k) for k in (0, d.type.static_shape[-1] - 1)]
        nothing = b.and_(*(b.eq(end, 0.0) for end in ends))
        low, high = (b.select(nothing, b.full(1.0, end.type), end) for end in reversed(ends))
        found = apply(np.divide, *map(wrap, (high, low) if p != -2 else (low, high))).value
        return wrap(b.select(nothing, b.full(np.inf, found.type), found))
    packed, *rest = b.append("lu", [v])
    pivots = diagonal(b, packed)
    regular = reduced(b, "all", b.ne(pivots, 0.0), 1)
    everywhere = b.broadcast(regular, shape=v.type.shape, dims=tuple(range(regular.type.rank)))
    one = identity(b, v.type)
    inverse = b.lu_solve(v, b.select(everywhere, packed, one), *rest, one, transpose=False)
    product = (norm.__wrapped__(wrap(m), p, (-2, -1)) for m in (v, inverse))
    found = apply(np.multiply, *product).value
    return wrap(b.select(regular, found, b.full(np.inf, found.type)))


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    x = _numbers(x)
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


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Array:
    return _vector_norm(_numbers(x), ord, axis, keepdims)


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Array:
    return norm.__wrapped__(x, ord, (-2, -1), keepdims)
