"""Factorizations of matrices, and the solution of triangular systems.

All take stacks of matrices in the last two axes, of sizes known at compile time. What cannot be factorized gives NaN,
as in NumPy's own loops: who emits one of these operations also emits the check that raises. Derivatives of factors that
are not determined (eigenvectors of equal eigenvalues) raise through a ``guard``, when they are used.

Derivatives after Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation"
(2008), and Walter and Lehmann, "Algorithmic differentiation of linear algebra functions" (2010).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.ir.ops.matrices import (
    SINGLE_AND_DOUBLE,
    all_of,
    as_columns,
    as_rows,
    diagonal,
    identity,
    keep,
    negligible,
    permute_rows,
    positions,
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
    require(x.dtype in SINGLE_AND_DOUBLE, f"operands must be f32 or f64, got {x}")
    require(x.rank >= 2, f"takes matrices in the last two axes, got {x}")
    require(x.is_static, f"matrices must have sizes known at compile time, got {x}")
    require(not square or x.shape[-1] == x.shape[-2], f"matrices must be square, got {x}")
    return x


def each(f: Callable[..., Any], x: Any, *others: Any) -> tuple[Any, ...]:
    """``f`` of every matrix of a stack, the results stacked; NaN where it raises LinAlgError. ``f`` returns a tuple."""
    batch = np.shape(x)[:-2]
    shapes = f(np.eye(*np.shape(x)[-2:], dtype=x.dtype), *(np.ones(o.shape[len(batch) :], o.dtype) for o in others))
    outs = tuple(np.full((*batch, *s.shape), np.nan if s.dtype.kind == "f" else 0, s.dtype) for s in shapes)
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
    """L' = L * half(L^-1 A' L^-T), half: the lower triangle with half of the diagonal."""
    (low,), (t,) = ys, ts
    t = b.add(keep(b, "ge", t), swap(b, keep(b, "gt", t)))
    inner = _solve_lower(b, low, swap(b, _solve_lower(b, low, t)))
    halved = b.sub(keep(b, "ge", inner), b.mul(keep(b, "eq", inner), 0.5))
    return [b.matmul(low, halved)]


def _solve_lower(b: Any, a: Any, y: Any) -> Any:
    return b.triangular_solve(a, y, lower=True, transpose=False, unit=False)


define(
    OpDef(
        "cholesky",
        "the lower triangular L with L @ L.T the symmetric matrix whose lower triangle is that of x; NaN when x is not "
        "positive definite",
        lambda attrs, types: [matrices(types, 1, square=True)],
        lambda attrs, x: each(lambda a: (np.linalg.cholesky(a),), x)[0],
        _cholesky_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        samples=(Sample((POSITIVE,)), Sample(([POSITIVE, np.multiply(2.0, POSITIVE)],)), Sample(([[4.0]],))),
    )
)


# -- LU ----------------------------------------------------------------------------------------------------------------


def _lu_infer(attrs: Any, types: Any) -> list[TensorType]:
    x = matrices(types, 1, square=True)
    rows = TensorType(I64, x.shape[:-1])
    return [x, rows, rows]


def _lu(a: Any) -> tuple[Any, Any, Any]:
    """Right-looking elimination. A column without a pivot is left as it is."""
    a = a.copy()
    n = len(a)
    pivots, permutation = np.arange(n), np.arange(n)
    for k in range(n):
        p = pivots[k] = k + int(np.argmax(np.abs(a[k:, k])))
        a[[k, p]], permutation[[k, p]] = a[[p, k]], permutation[[p, k]]
        if a[k, k] != 0:
            a[k + 1 :, k] /= a[k, k]
            a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
    return a, pivots, permutation


def _lu_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """With X = L^-1 P A' U^-1: L' = L * (X below the diagonal), U' = (X on it and above) * U."""
    packed, _, permutation = ys
    t = b.triangular_solve(packed, permute_rows(b, ts[0], permutation), lower=True, transpose=False, unit=True)
    inner = swap(b, b.triangular_solve(packed, swap(b, t), lower=False, transpose=True, unit=False))
    low = b.add(keep(b, "gt", packed), identity(b, packed.type))
    return [
        b.add(b.matmul(low, keep(b, "gt", inner)), b.matmul(keep(b, "le", inner), keep(b, "le", packed))),
        None,
        None,
    ]


define(
    OpDef(
        "lu",
        "elimination with row pivoting, x[permutation] = L @ U: L (without its unit diagonal) and U in one matrix; "
        "pivots[k] is the row that row k was exchanged with; permutation",
        _lu_infer,
        lambda attrs, x: each(_lu, x),
        _lu_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        samples=(Sample((A,)), Sample(([A, POSITIVE],)), Sample(([[-2.0]],))),
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
    """With Y = A' R^-1 (of the leading square) and X = Q^T Y: Q' = Y + Q (W - X), R' = Q^T A' - W R, where W is the
    antisymmetric matrix that has the part of X below the diagonal."""
    (q, r), (t,) = ys, ts
    *_, m, n = xs[0].type.static_shape
    k = min(m, n)
    if k == 0:
        return [None, None]
    thin = some_rows(b, q, 0, k, -1), some_rows(b, r, 0, k, -2)
    square = some_rows(b, thin[1], 0, k, -1)
    magnitude = b.abs(diagonal(b, square))
    limit = as_columns(b, negligible(b, magnitude, max(m, n)), k)
    message = "the QR factors have no derivative here: the (leading) columns of the matrix are linearly dependent"
    square = b.guard(square, all_of(b, b.gt(magnitude, limit)), error="LinAlgError", message=message)
    quotient = swap(
        b,
        b.triangular_solve(square, swap(b, some_rows(b, t, 0, k, -1)), lower=False, transpose=True, unit=False),
    )
    inner = b.matmul(swap(b, thin[0]), quotient)
    below = keep(b, "gt", inner)
    turn = b.sub(below, swap(b, below))
    q_dot = b.add(quotient, b.matmul(thin[0], b.sub(turn, inner)))
    r_dot = keep(b, "le", b.sub(b.matmul(swap(b, thin[0]), t), b.matmul(turn, thin[1])))
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


# -- eigenvalues of symmetric matrices, singular values --------------------------------------------------------------


def _eigh_infer(attrs: Any, types: Any) -> list[TensorType]:
    x = matrices(types, 1, square=True)
    return [x.with_shape(x.shape[:-1]), x]


def _inverse_gaps(b: Any, w: Any, square: bool, message: str) -> Any:
    """1 / (w[j] - w[i]) off the diagonal (of squares: 1 / (w[j]**2 - w[i]**2)); raises when used where that is not."""
    n = w.type.shape[-1]
    along, down = as_rows(b, w, n), as_columns(b, w, n)
    gap = b.sub(along, down)
    same = b.eq(*positions(b, gap.type.shape))
    limit = b.broadcast(negligible(b, w, n), shape=gap.type.shape, dims=tuple(range(w.type.rank - 1)))
    apart = b.or_(same, b.gt(b.abs(gap), limit))
    product = b.mul(gap, b.add(along, down)) if square else gap
    inverse = b.select(same, b.zeros(gap.type), b.div(1.0, b.select(same, b.full(1.0, gap.type), product)))
    return b.guard(inverse, all_of(b, apart), error="LinAlgError", message=message)


def _eigh_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """With S = V^T A' V: w' = diag S, V' = V * (S over the gaps between the eigenvalues)."""
    (w, v), (t,) = ys, ts
    if v.type.shape[-1] == 0:
        return [None, None]
    inside, strictly = ("ge", "gt") if attrs["lower"] else ("le", "lt")
    t = b.add(keep(b, inside, t), swap(b, keep(b, strictly, t)))
    inner = b.matmul(swap(b, v), b.matmul(t, v))
    message = "the eigenvectors have no derivative here: eigenvalues are equal"
    gaps = _inverse_gaps(b, w, False, message)
    return [diagonal(b, inner), b.matmul(v, b.mul(gaps, inner))]


define(
    OpDef(
        "eigh",
        "eigenvalues in increasing order, and orthonormal eigenvectors as columns, of the symmetric matrix whose lower "
        "(or upper) triangle is that of x; NaN when they are not found",
        _eigh_infer,
        lambda attrs, x: each(lambda a: tuple(np.linalg.eigh(a, "L" if attrs["lower"] else "U")), x),
        _eigh_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        samples=(
            Sample((POSITIVE,), {"lower": True}),
            Sample(([POSITIVE, A],), {"lower": False}),
            Sample(([[-4.0]],), {"lower": True}),
        ),
    )
)


def _svd_infer(attrs: Any, types: Any) -> list[TensorType]:
    x = matrices(types, 1)
    *batch, m, n = x.static_shape
    k = min(m, n)
    left, right = (m, n) if attrs["full"] else (k, k)
    return [x.with_shape((*batch, m, left)), x.with_shape((*batch, k)), x.with_shape((*batch, right, n))]


def _svd_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """With P = U^T A' V: s' = diag P; U' and V' from P over the gaps between squares of singular values, and from what
    of A' lies outside of the spaces that U and V span."""
    (left, s, right), (t,) = ys, ts
    *_, m, n = xs[0].type.static_shape
    k = min(m, n)
    if k == 0:
        return [None, None, None]
    u, v = some_rows(b, left, 0, k, -1), swap(b, some_rows(b, right, 0, k, -2))
    t_v = b.matmul(t, v)
    p = b.matmul(swap(b, u), t_v)
    s_dot = b.select(b.gt(s, 0.0), diagonal(b, p), b.zeros(s.type))
    gaps = _inverse_gaps(b, s, True, "the singular vectors have no derivative here: singular values are equal")
    rows, columns, turned = as_columns(b, s, k), as_rows(b, s, k), swap(b, p)
    u_dot = b.matmul(u, b.mul(gaps, b.add(b.mul(p, columns), b.mul(rows, turned))))
    v_dot = b.matmul(v, b.mul(gaps, b.add(b.mul(rows, p), b.mul(turned, columns))))
    if m != n:
        message = "the singular vectors have no derivative here: a singular value is zero"
        limit = as_columns(b, negligible(b, s, max(m, n)), k)
        inverse = b.guard(b.div(1.0, s), all_of(b, b.gt(s, limit)), error="LinAlgError", message=message)
        if m > n:
            u_dot = b.add(u_dot, b.mul(b.sub(t_v, b.matmul(u, p)), as_rows(b, inverse, m)))
        else:
            outside = b.sub(b.matmul(swap(b, t), u), b.matmul(v, turned))
            v_dot = b.add(v_dot, b.mul(outside, as_rows(b, inverse, n)))
    return [_with_rest(b, t, u_dot, left.type), s_dot, swap(b, _with_rest(b, t, v_dot, swap(b, right).type))]


def _with_rest(b: Any, t: Any, columns: Any, whole: TensorType) -> Any:
    """The tangents of the first columns, with those beyond, which no derivative has."""
    if columns.type == whole:
        return columns
    count = whole.static_shape[-1] - columns.type.static_shape[-1]
    rest = undetermined(b, t, whole.with_shape((*whole.shape[:-1], count)), "full_matrices=False")
    return b.concatenate(columns, rest, axis=whole.rank - 1)


define(
    OpDef(
        "svd",
        "U, s and Vh with U * s @ Vh = x: orthonormal columns, decreasing singular values, orthonormal rows; U and Vh "
        "square with `full`; NaN when they are not found",
        _svd_infer,
        lambda attrs, x: each(lambda a: tuple(np.linalg.svd(a, full_matrices=attrs["full"])), x),
        _svd_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        samples=(
            *(Sample((x,), {"full": False}) for x in (A, TALL, WIDE, [TALL, TALL])),
            Sample((A,), {"full": True}),
            *(Sample((x,), {"full": True}, smooth=False) for x in (TALL, WIDE)),
        ),
    )
)

__all__ = ["each", "matrices"]
