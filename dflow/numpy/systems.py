"""Linear systems and what else comes from elimination or singular values: ``solve``, ``inv``, ``det``, ``pinv``,
``lstsq`` and their kin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dflow.ir.builder import Builder
from dflow.ir.core import Value
from dflow.ir.ops.matrices import diagonal, identity, magnitude, real_type, reduced
from dflow.ir.ops.solutions import SINGULAR, is_regular, parity
from dflow.ir.types import Dim
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.elementwise import apply
from dflow.numpy.factorizations import in_full_size, matrices, singular_parts
from dflow.numpy.products import matrix_product
from dflow.numpy.reductions import SUM, reduce
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

SlogdetResult: Any = type(np.linalg.slogdet(np.eye(1)))
NO_VALUE: Any = np._NoValue


def eliminated(a: Value) -> tuple[Value, ...]:
    """The factors of matrices that must have an inverse."""
    b = builder()
    factors = b.append("lu", [a])
    b.emit("check", is_regular(b, factors[0]), error="LinAlgError", message=SINGULAR)
    return factors


def _unequal(a: Value, y: Value) -> ValueError:
    return ValueError(
        f"the matrices, of shape {s.show(a.type.shape)}, and the right sides, of shape {s.show(y.type.shape)}, "
        f"do not fit: {a.type.shape[-1]} rows and {y.type.shape[-2:][0]}"
    )


def columns_solved(a: Value, y: Value, solver: Any) -> Value:
    """``solver(a, y)``, both stacks of matrices, after broadcasting the leading axes. One matrix for a whole stack of
    right sides solves them as columns of one."""
    if a.type.shape[-1] != y.type.shape[-2]:
        raise _unequal(a, y)
    n, shape, rank = a.type.static_shape[-1], y.type.static_shape, y.type.rank
    if a.type.rank == 2 and rank > 2:
        first = (rank - 2, *range(rank - 2), rank - 1)
        moved = s.transposed(y, first)
        x = s.reshaped(solver(a, s.reshaped(moved, (n, math.prod(shape) // max(n, 1)))), moved.type.shape)
        return s.transposed(x, [first.index(k) for k in range(rank)])
    lead = s.broadcast_shapes(a.type.shape[:-2], y.type.shape[:-2])
    return solver(s.expand(a, (*lead, n, n)), s.expand(y, (*lead, *shape[-2:])))


def by_elimination(a: Value, y: Value) -> Value:
    return builder().lu_solve(a, *eliminated(a), y, transpose=False)


def solved(a: Value, y: Value, solver: Any = by_elimination) -> Value:
    """Right sides that are vectors are taken as columns."""
    if y.type.rank and not (a.type.is_static and y.type.is_static):
        return _solved_in_full_size(a, y, solver)
    if y.type.rank != 1:
        if y.type.rank == 0:
            raise np.linalg.LinAlgError("the right sides must be at least one-dimensional")
        return columns_solved(a, y, solver)
    x = columns_solved(a, s.reshaped(y, (*y.type.shape, 1)), solver)
    return s.reshaped(x, x.type.shape[:-1])


def _solved_in_full_size(a: Value, y: Value, solver: Any) -> Value:
    kept = y.type.shape[-2:]
    n = sizes.agreed(a.type.shape[-1], kept[0])
    if n is None:
        raise _unequal(a, y)
    a, y = (
        sizes.recast(v, (*s.static(v.type.shape[:-2], "linear algebra"), n, *rest))
        for v, rest in ((a, (n,)), (y, kept[1:]))
    )
    x = solved(in_full_size(a), in_full_size(y, Builder.zeros), solver)
    return sizes.recast(x, (*x.type.shape[: -len(kept)], n, *kept[1:]))


@implements(np.linalg.solve)
def solve(a: Any, b: Any) -> Array:
    return wrap(solved(*matrices(a, b, square=True, any_size=True)))


@implements(np.linalg.inv)
def inv(a: Any) -> Array:
    (v,) = matrices(a, square=True, any_size=True)
    return wrap(sizes.recast(inverse(in_full_size(v)), v.type.shape))


def inverse(v: Value) -> Value:
    return by_elimination(v, identity(builder(), v.type))


@implements(np.linalg.det)
def det(a: Any) -> Array:
    b, (v,) = builder(), map(in_full_size, matrices(a, square=True, any_size=True))
    return wrap(b.det(v, *b.append("lu", [v])))


@implements(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    b, (v,) = builder(), map(in_full_size, matrices(a, square=True, any_size=True))
    packed, pivots, permutation = b.append("lu", [v])
    sign = b.mul(parity(b, packed, pivots), reduced(b, "prod", apply(np.sign, wrap(diagonal(b, packed))).value, 1))
    return SlogdetResult(wrap(sign), wrap(b.log_abs_det(v, packed, pivots, permutation)))


# -- the pseudoinverse and least squares -----------------------------------------------------------------------------


def relative_limit(v: Value) -> Any:
    """Singular values below this, relative to the largest, are rounding errors. A traced number where the run decides
    how large the matrix is."""
    longest = sizes.larger(*map(sizes.int_of, v.type.shape[-2:]))
    return (wrap(longest) if isinstance(longest, Value) else longest) * float(np.finfo(v.type.dtype.numpy).eps)


@implements(np.linalg.pinv)
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = NO_VALUE) -> Array:
    (v,) = matrices(a)
    if rcond is None:
        rcond = 1e-15 if rtol is NO_VALUE else relative_limit(v) if rtol is None else rtol
    return wrap(pseudoinverse(v, rcond))


def pseudoinverse(v: Value, rcond: Any) -> Value:
    if not isinstance(rcond, Array | np.ndarray):
        return builder().pinv(v, rcond=float(rcond))
    limits = s.expand(s.cast(lift(rcond).value, real_type(v.type.dtype).numpy), v.type.shape[:-2])
    return builder().append("pinv", [v, limits], {"rcond": None})[0]


@implements(np.linalg.lstsq)
def lstsq(a: Any, b: Any, rcond: Any = None) -> Any:
    """As NumPy's; where the matrix has not full rank (which shows only when the program runs), NumPy's array of
    residuals is empty, and using them raises LinAlgError here. Where the run decides how many rows there are, zeros
    follow them, which change nothing."""
    v, y = matrices(a, b, any_size=True)
    if v.type.rank != 2 or y.type.rank not in (1, 2):
        raise np.linalg.LinAlgError(f"lstsq takes a matrix, got shape {s.show(v.type.shape)}")
    rows = sizes.agreed(v.type.shape[0], y.type.shape[0])
    if rows is None:
        raise np.linalg.LinAlgError("Incompatible dimensions")
    n, *_ = s.static((v.type.shape[1], *y.type.shape[1:]), "np.linalg.lstsq")
    dtype = v.type.dtype.numpy
    if dtype.name in ("float32", "complex64"):  # NumPy computes in twice the precision, which decides the rank
        x, rest, rank, d = lstsq.__wrapped__(
            *(s.as_dtype(wrap(z), np.result_type(dtype, float)) for z in (v, y)), rcond
        )
        return x.astype(dtype), rest.astype(np.float32), rank, d.astype(np.float32)
    limit = relative_limit(v) if rcond is None else rcond
    if not isinstance(limit, Array) and limit == -1:
        limit = float(np.finfo(dtype).eps)
    v, y = (in_full_size(sizes.recast(z, (rows, *z.type.shape[1:])), Builder.zeros) for z in (v, y))
    columns = y if y.type.rank == 2 else s.reshaped(y, (*y.type.shape, 1))
    x = matrix_product(pseudoinverse(v, limit), columns)
    _, d, _ = singular_parts(v)
    rank = _count_large(d, limit)
    rest = _residuals(v, x, columns, rank, rows) if v.type.bound[0] > n else s.full((0,), 0, d.type.dtype.numpy)
    x = x if y.type.rank == 2 else s.reshaped(x, (n,))
    least = sizes.dim(sizes.smaller(sizes.int_of(rows), n))
    return wrap(x), wrap(rest), s.as_dtype(wrap(rank), np.int32), wrap(sizes.recast(d, (least,)))


def _count_large(d: Value, limit: Any) -> Value:
    if d.type.shape == (0,):
        return builder().index(0)
    return reduce(SUM, apply(np.greater, wrap(d), wrap(_largest(d)) * limit), None, np.int64).value


def _residuals(a: Value, x: Value, y: Value, rank: Value, rows: Dim) -> Value:
    b, n = builder(), a.type.static_shape[1]
    left = magnitude(b, b.sub(y, matrix_product(a, x)))
    sums = b.reduce(b.mul(left, left), kind="sum", axes=(0,))
    message = "the residuals of lstsq are an empty array here: the columns of the matrix are linearly dependent"
    sums = b.guard(sums, b.eq(rank, n), error="LinAlgError", message=message)
    if isinstance(rows, int):
        return sums
    message = "the residuals of lstsq are an empty array here: there are no more rows than columns"
    return b.guard(sums, b.gt(b.size(rows), n), error="LinAlgError", message=message)


@implements(np.linalg.matrix_rank)
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Array:
    if lift(A).ndim < 2:
        return s.as_dtype(apply(np.not_equal, reduce(SUM, apply(np.not_equal, A, 0)), 0), np.int64)
    (v,) = matrices(A)
    d = wrap(singular_parts(v)[1])
    if 0 in v.type.static_shape[-2:]:
        return reduce(SUM, s.as_dtype(d, np.int64), -1)
    if tol is None:
        tol = _column(lift(relative_limit(v) if rtol is None else rtol)) * wrap(_largest(d.value))
    else:
        tol = _column(lift(tol))
    return reduce(SUM, apply(np.greater, d, tol), -1, np.int64)


def _column(x: Array) -> Array:
    return wrap(s.reshaped(x.value, (*s.dims(x), 1))) if x.ndim else x


def _largest(d: Value) -> Value:
    v = reduced(builder(), "max", d, 1)
    return s.reshaped(v, (*v.type.shape, 1))


# -- tensors as matrices ---------------------------------------------------------------------------------------------


@implements(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Any = None) -> Array:
    v, y = lift(a), lift(b)
    if axes is not None:
        moved = [s.one_axis(k, v.ndim) for k in axes]
        v = wrap(s.transposed(v.value, [*(k for k in range(v.ndim) if k not in moved), *moved]))
    shape = s.static(s.dims(v), "np.linalg.tensorsolve")[y.ndim :]
    size = math.prod(shape)
    if v.size != size**2:
        raise np.linalg.LinAlgError(
            "Input arrays must satisfy the requirement prod(a.shape[b.ndim:]) == prod(a.shape[:b.ndim])"
        )
    rows, right = (wrap(s.reshaped(x.value, to)) for x, to in ((v, (size, size)), (y, (y.size,))))
    return wrap(s.reshaped(solve.__wrapped__(rows, right).value, shape))


@implements(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Array:
    v = lift(a)
    if ind <= 0:
        raise ValueError("Invalid ind argument.")
    shape = s.static(s.dims(v), "np.linalg.tensorinv")
    rows = s.reshaped(v.value, (math.prod(shape[:ind]), math.prod(shape[ind:])))
    return wrap(s.reshaped(inv.__wrapped__(wrap(rows)).value, (*shape[ind:], *shape[:ind])))
