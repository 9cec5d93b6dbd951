"""Factorizations of matrices, and the solution of triangular systems.

All take stacks of matrices in the last two axes, of sizes known at compile time. What cannot be factorized gives NaN,
as in NumPy's own loops: who emits one of these operations also emits the check that raises. Derivatives of factors that
are not determined (columns of Q that may be any) raise through a ``guard``, when they are used.

Derivatives after Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation"
(2008), and Walter and Lehmann, "Algorithmic differentiation of linear algebra functions" (2010).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.ir.ops.matrices import (
    SINGLE_AND_DOUBLE,
    adjoint,
    all_of,
    among,
    as_columns,
    diagonal,
    hermitian,
    identity,
    is_complex,
    keep,
    magnitude,
    negligible,
    permute_rows,
    some_rows,
    swap,
)
from dflow.ir.registry import OpDef, Sample, define, require
from dflow.ir.types import I64, TensorType

A = [[4.0, 1.0, 0.5], [-1.0, 3.0, 2.0], [0.25, 5.0, -2.0]]
POSITIVE = [[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 2.0]]
TALL = [[2.0, 1.0], [0.5, -3.0], [1.0, 1.5]]
WIDE = [[2.0, 0.5, 1.0], [1.0, -3.0, 1.5]]
B = [[1.0, 2.0], [0.5, -1.0], [3.0, 1.0]]
LOWER = [[2.0, 7.0, 7.0], [0.5, -1.5, 7.0], [1.0, 0.25, 3.0]]


def matrices(types: Any, count: int, *, square: bool = False) -> TensorType:
    """Checks the number of operands and the first of them, a stack of matrices, and returns its type."""
    require(len(types) == count, f"takes {count} operands, got {len(types)}")
    x = types[0]
    require(x.dtype in SINGLE_AND_DOUBLE, f"operands must be f32, f64 or complex, got {x}")
    require(x.rank >= 2, f"takes matrices in the last two axes, got {x}")
    require(x.is_static, f"matrices must have sizes known at compile time, got {x}")
    require(not square or x.shape[-1] == x.shape[-2], f"matrices must be square, got {x}")
    return x


def each(f: Callable[..., Any], x: Any, *others: Any) -> tuple[Any, ...]:
    """``f`` of every matrix of a stack, the results stacked; NaN where it raises LinAlgError. ``f`` returns a tuple."""
    batch = np.shape(x)[:-2]
    shapes = f(np.eye(*np.shape(x)[-2:], dtype=x.dtype), *(np.ones(o.shape[len(batch) :], o.dtype) for o in others))
    outs = tuple(np.full((*batch, *s.shape), np.nan if s.dtype.kind in "fc" else 0, s.dtype) for s in shapes)
    for at in np.ndindex(*batch):
        try:
            found = f(x[at], *(o[at] for o in others))
        except np.linalg.LinAlgError:
            continue
        for out, part in zip(outs, found):
            out[at] = part
    return outs


# -- Cholesky --------------------------------------------------------------------------------------------------------


def _cholesky_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """L' = L * half(L^-1 A' L^-H), half: the lower triangle with half of the diagonal."""
    (low,), (t,) = ys, ts
    inner = _solve_lower(b, low, adjoint(b, _solve_lower(b, low, hermitian(b, t, True))))
    halved = b.sub(keep(b, "ge", inner), b.mul(keep(b, "eq", inner), 0.5))
    return [b.matmul(low, halved)]


def _solve_lower(b: Any, a: Any, y: Any) -> Any:
    return b.triangular_solve(a, y, lower=True, transpose=False, unit=False)


define(
    OpDef(
        "cholesky",
        "the lower triangular L with L @ L.conj().T the hermitian matrix whose lower triangle is that of x; NaN when x "
        "is not positive definite",
        lambda attrs, types: [matrices(types, 1, square=True)],
        lambda attrs, x: each(lambda a: (np.linalg.cholesky(a),), x)[0],
        _cholesky_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        samples=(Sample((POSITIVE,)), Sample(([POSITIVE, np.multiply(2.0, POSITIVE)],)), Sample(([[4.0]],))),
    )
)


# -- LU ----------------------------------------------------------------------------------------------------------------


def _lu_infer(attrs: Any, types: Any) -> list[TensorType]:
    x = matrices(types, 1)
    *batch, m, n = x.static_shape
    return [x, TensorType(I64, (*batch, min(m, n))), TensorType(I64, (*batch, m))]


def _lu(a: Any) -> tuple[Any, Any, Any]:
    """Right-looking elimination. A column without a pivot is left as it is. The size of a complex number is, as in
    LAPACK, the sum of those of its parts."""
    a = a.copy()
    m, n = a.shape
    pivots, permutation = np.arange(min(m, n)), np.arange(m)
    for k in range(min(m, n)):
        p = pivots[k] = k + int(np.argmax(np.abs(a[k:, k].real) + np.abs(a[k:, k].imag)))
        a[[k, p]], permutation[[k, p]] = a[[p, k]], permutation[[p, k]]
        if a[k, k] != 0:
            a[k + 1 :, k] /= a[k, k]
            a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
    return a, pivots, permutation


def _lu_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """With X = L^-1 P A' U^-1: L' = L * (X below the diagonal), U' = (X on it and above) * U. The smaller of L and U is
    made square by parts of the identity."""
    packed, _, permutation = ys
    if 0 in packed.type.shape[-2:]:
        return [None, None, None]
    low, up = _square_factors(b, packed)
    message = "the LU factors have no derivative here: the (leading) columns of the matrix are linearly dependent"
    up = b.guard(up, all_of(b, b.ne(diagonal(b, packed), 0.0)), error="LinAlgError", message=message)
    t = b.triangular_solve(low, permute_rows(b, ts[0], permutation), lower=True, transpose=False, unit=True)
    inner = swap(b, b.triangular_solve(up, swap(b, t), lower=False, transpose=True, unit=False))
    low = b.add(keep(b, "gt", low), identity(b, low.type))
    return [
        b.add(b.matmul(low, keep(b, "gt", inner)), b.matmul(keep(b, "le", inner), keep(b, "le", up))),
        None,
        None,
    ]


def _square_factors(b: Any, packed: Any) -> tuple[Any, Any]:
    """Square matrices with L below the diagonal, and with U on it and above."""
    *batch, m, n = packed.type.static_shape
    k, last = min(m, n), packed.type.rank - 1
    low, up = some_rows(b, packed, 0, k, -1), some_rows(b, packed, 0, k, -2)
    if m > k:
        low = b.concatenate(low, b.zeros(packed.type.with_shape((*batch, m, m - k))), axis=last)
    if n > k:
        rest = packed.type.with_shape((*batch, n - k, k)), packed.type.with_shape((*batch, n - k, n - k))
        up = b.concatenate(up, b.concatenate(b.zeros(rest[0]), identity(b, rest[1]), axis=last), axis=last - 1)
    return low, up


define(
    OpDef(
        "lu",
        "elimination with row pivoting, x[permutation] = L @ U: L (without its unit diagonal) and U in one matrix; "
        "pivots[k] is the row that row k was exchanged with; permutation. For matrices that are not square, the "
        "larger of L and U is not square either",
        _lu_infer,
        lambda attrs, x: each(_lu, x),
        _lu_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        samples=(Sample((A,)), Sample(([A, POSITIVE],)), Sample(([[-2.0]],)), Sample((TALL,)), Sample((WIDE,))),
    )
)


# -- triangular systems ------------------------------------------------------------------------------------------------


def _triangular_infer(attrs: Any, types: Any) -> list[TensorType]:
    a = matrices(types, 2, square=True)
    y = types[1]
    fits = y.dtype == a.dtype and y.rank == a.rank and y.is_static and y.shape[:-1] == a.shape[:-1]
    require(fits, f"right sides {y} do not fit the matrices {a}")
    return [y]


def _triangle(attrs: Any, a: Any) -> Any:
    a = np.tril(a) if attrs["lower"] else np.triu(a)
    if attrs["unit"]:
        a = a - np.diag(np.diag(a)) + np.eye(len(a), dtype=a.dtype)
    return a.T if attrs["transpose"] else a


def _triangular_solve(attrs: Any, a: Any, y: Any) -> Any:
    """Substitution; a zero on the diagonal divides as IEEE has it."""

    def solve(a: Any, y: Any) -> tuple[Any]:
        t, x = _triangle(attrs, a), np.array(y)
        order = range(len(t)) if attrs["lower"] != attrs["transpose"] else range(len(t) - 1, -1, -1)
        for k in order:
            others = [j for j in order if (j < k) == (order.step > 0) and j != k]
            x[k] = (x[k] - t[k, others] @ x[others]) / t[k, k]
        return (x,)

    return each(solve, a, y)[0]


def _triangular_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    (a, _), (x,), (t, u) = xs, ys, ts
    if t is not None:
        part = ("gt" if attrs["lower"] else "lt") if attrs["unit"] else ("ge" if attrs["lower"] else "le")
        t = keep(b, part, t)
        moved = b.matmul(swap(b, t) if attrs["transpose"] else t, x)
        u = b.neg(moved) if u is None else b.sub(u, moved)
    return [b.triangular_solve(a, u, **attrs)]


def _triangular_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    return [None, b.triangular_solve(xs[0], cts[0], **{**attrs, "transpose": not attrs["transpose"]})]


define(
    OpDef(
        "triangular_solve",
        "x with T @ x = y (T.T @ x = y with `transpose`), T the lower or upper triangle of a, its diagonal taken as "
        "ones with `unit`",
        _triangular_infer,
        _triangular_solve,
        _triangular_jvp,
        _triangular_transpose,
        ((1,),),
        SINGLE_AND_DOUBLE,
        samples=tuple(
            Sample((LOWER if low else A, B), {"lower": low, "transpose": turn, "unit": unit})
            for low, turn, unit in (
                (True, False, False),
                (True, True, True),
                (False, False, True),
                (False, True, False),
            )
        )
        + (Sample(([LOWER, A], [B, B]), {"lower": True, "transpose": False, "unit": False}),),
    )
)


# -- QR ----------------------------------------------------------------------------------------------------------------


def _qr_infer(attrs: Any, types: Any) -> list[TensorType]:
    x = matrices(types, 1)
    *batch, m, n = x.static_shape
    k = m if attrs["full"] else min(m, n)
    return [x.with_shape((*batch, m, k)), x.with_shape((*batch, k, n))]


def _qr_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """With Y = A' R^-1 (of the leading square) and X = Q^H Y: Q' = Y + Q (W - X), R' = Q^H A' - W R, where W is the
    skew-hermitian matrix that has the part of X below the diagonal, and its imaginary part on it: the diagonal of R is
    real."""
    (q, r), (t,) = ys, ts
    *_, m, n = xs[0].type.static_shape
    k = min(m, n)
    if k == 0:
        return [None, None]
    thin = some_rows(b, q, 0, k, -1), some_rows(b, r, 0, k, -2)
    square = some_rows(b, thin[1], 0, k, -1)
    sizes = magnitude(b, diagonal(b, square))
    limit = as_columns(b, negligible(b, sizes, max(m, n)), k)
    message = "the QR factors have no derivative here: the (leading) columns of the matrix are linearly dependent"
    square = b.guard(square, all_of(b, b.gt(sizes, limit)), error="LinAlgError", message=message)
    quotient = swap(
        b,
        b.triangular_solve(square, swap(b, some_rows(b, t, 0, k, -1)), lower=False, transpose=True, unit=False),
    )
    inner = b.matmul(adjoint(b, thin[0]), quotient)
    below = keep(b, "gt", inner)
    turn = b.sub(below, adjoint(b, below))
    if is_complex(inner):
        on = keep(b, "eq", inner)
        turn = b.add(turn, b.sub(on, among(b, b.real(on), on)))
    q_dot = b.add(quotient, b.matmul(thin[0], b.sub(turn, inner)))
    r_dot = keep(b, "le", b.sub(b.matmul(adjoint(b, thin[0]), t), b.matmul(turn, thin[1])))
    if not attrs["full"] or m == k:
        return [q_dot, r_dot]
    below = b.zeros(r.type.with_shape((*r.type.shape[:-2], m - k, n)))
    rest = undetermined(b, t, q.type.with_shape((*q.type.shape[:-1], m - k)), "mode='reduced'")
    return [b.concatenate(q_dot, rest, axis=q.type.rank - 1), b.concatenate(r_dot, below, axis=r.type.rank - 2)]


def undetermined(b: Any, t: Any, columns: TensorType, mend: str) -> Any:
    """The tangent of columns that may be any orthonormal basis: an error once it is used. It depends on the tangent
    ``t`` of the matrix, so that reverse mode meets it too."""
    message = f"the columns beyond the smaller size are no function of the matrix; use {mend}"
    nothing = b.mul(b.reduce(t, kind="sum", axes=tuple(range(t.type.rank))), 0.0)
    return b.guard(b.broadcast_scalar(nothing, columns.shape), b.constant(False), error="LinAlgError", message=message)


define(
    OpDef(
        "qr",
        "Q with orthonormal columns and upper triangular R with Q @ R = x; Q square with `full`",
        _qr_infer,
        lambda attrs, x: each(lambda a: tuple(np.linalg.qr(a, "complete" if attrs["full"] else "reduced")), x),
        _qr_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        samples=(
            *(Sample((x,), {"full": False}) for x in (A, TALL, WIDE, [TALL, TALL])),
            Sample((A,), {"full": True}),
            Sample((TALL,), {"full": True}, smooth=False),
        ),
    )
)
