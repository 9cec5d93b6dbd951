"""Eigenvalues and singular values of matrices, with their vectors.

As in ``dflow.ir.ops.factorizations``: stacks of matrices, NaN for what is not found, and a ``guard`` around derivatives
that do not exist. Eigenvectors of hermitian matrices and singular vectors of complex ones are determined but for a
factor of size one; their derivatives are those with that factor held (``v^H v' = 0``), right for whatever does not
depend on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.ops.complex import complex_type
from dflow.ir.ops.factorizations import POSITIVE, TALL, WIDE, A, each, matrices, undetermined
from dflow.ir.ops.matrices import (
    SINGLE_AND_DOUBLE,
    adjoint,
    all_of,
    among,
    as_columns,
    as_rows,
    conjugate,
    diagonal,
    hermitian,
    is_complex,
    magnitude,
    negligible,
    positions,
    real,
    real_type,
    reciprocal,
    some_rows,
    swap,
)
from dflow.ir.registry import OpDef, Sample, define
from dflow.ir.types import TensorType

TURNING = [[1.0, 2.0, 0.0], [-3.0, 1.5, 0.5], [0.25, 0.0, -1.0]]


def _inverse_gaps(b: Any, w: Any, square: bool, message: str) -> Any:
    """1 / (w[j] - w[i]) off the diagonal (of squares: 1 / (w[j]**2 - w[i]**2)); raises when used where that is not."""
    n = w.type.shape[-1]
    along, down = as_rows(b, w, n), as_columns(b, w, n)
    gap = b.sub(along, down)
    same = b.eq(*positions(b, gap.type.shape))
    limit = b.broadcast(negligible(b, w, n), shape=gap.type.shape, dims=tuple(range(w.type.rank - 1)))
    apart = b.or_(same, b.gt(magnitude(b, gap), limit))
    product = b.mul(gap, b.add(along, down)) if square else gap
    inverse = b.select(same, b.zeros(gap.type), reciprocal(b, b.select(same, b.full(1.0, gap.type), product)))
    return b.guard(inverse, all_of(b, apart), error="LinAlgError", message=message)


# -- hermitian matrices ------------------------------------------------------------------------------------------------


def _eigh_infer(attrs: Any, types: Any) -> list[TensorType]:
    x = matrices(types, 1, square=True)
    return [x.with_shape(x.shape[:-1]).with_dtype(real_type(x.dtype)), x]


def _eigh_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """With S = V^H A' V: w' = diag S, V' = V * (S over the gaps between the eigenvalues)."""
    (w, v), (t,) = ys, ts
    if v.type.shape[-1] == 0:
        return [None, None]
    inner = b.matmul(adjoint(b, v), b.matmul(hermitian(b, t, attrs["lower"]), v))
    message = "the eigenvectors have no derivative here: eigenvalues are equal"
    gaps = _inverse_gaps(b, w, False, message)
    return [real(b, diagonal(b, inner)), b.matmul(v, b.mul(among(b, gaps, v), inner))]


define(
    OpDef(
        "eigh",
        "eigenvalues in increasing order, and orthonormal eigenvectors as columns, of the hermitian matrix whose lower "
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


# -- general matrices --------------------------------------------------------------------------------------------------


def _eig_infer(attrs: Any, types: Any) -> list[TensorType]:
    x = matrices(types, 1, square=True)
    v = x if x.dtype.kind == "c" else x.with_dtype(complex_type(x.dtype))
    return [v.with_shape(x.shape[:-1]), v]


def _eig(attrs: Any, x: Any) -> Any:
    kind = np.result_type(x, np.complex64)
    return each(lambda a: tuple(part.astype(kind) for part in np.linalg.eig(a)), x)


def _eig_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """With S = V^-1 A' V: w' = diag S, V' = V * (S over the gaps between the eigenvalues), kept normalized."""
    (w, v), (t,) = ys, ts
    n = v.type.static_shape[-1]
    if n == 0:
        return [None, None]
    packed, *rest = b.append("lu", [v])
    sizes = magnitude(b, diagonal(b, packed))
    enough = all_of(b, b.gt(sizes, as_columns(b, negligible(b, sizes, n), n)))
    message = "the eigenvalues have no derivative here: the matrix has too few eigenvectors"
    packed = b.guard(packed, enough, error="LinAlgError", message=message)
    inner = b.lu_solve(v, packed, *rest, b.matmul(among(b, t, v), v), transpose=False)
    gaps = _inverse_gaps(b, w, False, "the eigenvectors have no derivative here: eigenvalues are equal")
    return [diagonal(b, inner), _normalized(b, v, b.matmul(v, b.mul(gaps, inner)))]


def _normalized(b: Any, v: Any, v_dot: Any) -> Any:
    """``v_dot`` and multiples of the vectors, such that their length and the phase of their largest element, which is
    real, stay."""
    n, row = v.type.static_shape[-1], v.type.rank - 2
    stretch = b.reduce(b.real(b.mul(conjugate(b, v), v_dot)), kind="sum", axes=(row,))
    x = b.real(v)
    candidates = b.select(b.eq(b.imag(v), 0.0), b.abs(x), b.full(-1.0, x.type))
    largest = b.eq(positions(b, x.type.shape)[0], as_rows(b, b.argmax(candidates, axis=row), n))
    of_largest = (b.reduce(b.select(largest, p, b.zeros(p.type)), kind="sum", axes=(row,)) for p in (b.imag(v_dot), x))
    turn = b.div(*of_largest)
    return b.sub(v_dot, b.mul(v, as_rows(b, b.emit("complex", stretch, turn), n)))


define(
    OpDef(
        "eig",
        "complex eigenvalues, and eigenvectors as columns, of length 1 and with a real largest element; NaN when they "
        "are not found",
        _eig_infer,
        _eig,
        _eig_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        samples=tuple(Sample((x,), smooth=False) for x in (TURNING, [A, TURNING], [[-4.0]])),
    )
)


# -- singular values ---------------------------------------------------------------------------------------------------


def _svd_infer(attrs: Any, types: Any) -> list[TensorType]:
    x = matrices(types, 1)
    *batch, m, n = x.static_shape
    k = min(m, n)
    left, right = (m, n) if attrs["full"] else (k, k)
    values = x.with_shape((*batch, k)).with_dtype(real_type(x.dtype))
    return [x.with_shape((*batch, m, left)), values, x.with_shape((*batch, right, n))]


def _svd_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """With P = U^H A' V: s' = diag P; U' and V' from P over the gaps between squares of singular values, and from what
    of A' lies outside of the spaces that U and V span. Complex P turns the phases by its diagonal: U takes that."""
    (left, s, right), (t,) = ys, ts
    *_, m, n = xs[0].type.static_shape
    k = min(m, n)
    if k == 0:
        return [None, None, None]
    u, v = some_rows(b, left, 0, k, -1), adjoint(b, some_rows(b, right, 0, k, -2))
    t_v = b.matmul(t, v)
    p = b.matmul(adjoint(b, u), t_v)
    s_dot = b.select(b.gt(s, 0.0), real(b, diagonal(b, p)), b.zeros(s.type))
    gaps = _inverse_gaps(b, s, True, "the singular vectors have no derivative here: singular values are equal")
    rows, columns, gaps = (among(b, x, p) for x in (as_columns(b, s, k), as_rows(b, s, k), gaps))
    turned = adjoint(b, p)
    u_turn = b.mul(gaps, b.add(b.mul(p, columns), b.mul(rows, turned)))
    v_dot = b.matmul(v, b.mul(gaps, b.add(b.mul(rows, p), b.mul(turned, columns))))
    message = "the singular vectors have no derivative here: a singular value is zero"
    limit = as_columns(b, negligible(b, s, max(m, n)), k)
    inverse = b.guard(b.div(1.0, s), all_of(b, b.gt(s, limit)), error="LinAlgError", message=message)
    if is_complex(p):
        on = b.select(b.eq(*positions(b, p.type.shape)), b.imag(p), b.zeros(rows.type.with_dtype(s.type.dtype)))
        phase = b.mul(on, as_rows(b, inverse, k))
        u_turn = b.add(u_turn, b.emit("complex", b.zeros(phase.type), phase))
    u_dot = b.matmul(u, u_turn)
    if m > n:
        outside = b.sub(t_v, b.matmul(u, p))
        u_dot = b.add(u_dot, b.mul(outside, among(b, as_rows(b, inverse, m), p)))
    elif m < n:
        outside = b.sub(b.matmul(adjoint(b, t), u), b.matmul(v, turned))
        v_dot = b.add(v_dot, b.mul(outside, among(b, as_rows(b, inverse, n), p)))
    return [_with_rest(b, t, u_dot, left.type), s_dot, adjoint(b, _with_rest(b, t, v_dot, swap(b, right).type))]


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
