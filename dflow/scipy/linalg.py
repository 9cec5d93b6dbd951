"""``scipy.linalg`` on traced arrays.

The options about overwriting and checking of arguments mean nothing: what is not finite gives results that are not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.linalg

from dflow.ir.core import Value
from dflow.ir.ops.matrices import (
    adjoint,
    conjugate,
    diagonal,
    hermitian,
    identity,
    keep,
    permute_rows,
    real_type,
    some_rows,
    swap,
)
from dflow.ir.types import TensorType
from dflow.numpy import linalg as numpy_linalg
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements, refusing
from dflow.numpy.factorizations import check, general_parts, lower_factor, matrices, singular_parts, symmetric_parts
from dflow.numpy.joining import concatenate
from dflow.numpy.systems import by_elimination, solved
from dflow.scipy.matrix_functions import exponential, square_root
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder


def turned(v: Value, when: bool) -> Value:
    """The transposed matrices, or the matrices."""
    return swap(builder(), v) if when else v


# -- linear systems --------------------------------------------------------------------------------------------------

_GENERAL = (None, "gen", "general", "sym", "symmetric", "her", "hermitian", "banded", "tridiagonal")


@implements(scipy.linalg.solve)
def solve(
    a: Any,
    b: Any,
    lower: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    assume_a: Any = None,
    transposed: bool = False,
) -> Array:
    """Symmetric matrices are given by one triangle; ``assume_a="pos"`` takes Cholesky's factors, a triangle itself."""
    v, y = matrices(a, b, square=True, any_size=True)
    v = turned(v, transposed)
    if assume_a in ("pos", "positive definite"):
        return wrap(solved(conjugate_turned(v, lower == transposed), y, _by_cholesky))
    if assume_a in ("lower triangular", "upper triangular"):
        below = (assume_a == "lower triangular") != transposed
        return wrap(solved(v, y, lambda v, y: _by_substitution(v, y, below, False, False)))
    if assume_a == "diagonal":
        v = keep(builder(), "eq", v)
    elif assume_a in ("her", "hermitian"):
        v = hermitian(builder(), v, lower != transposed)
    elif assume_a in ("sym", "symmetric"):
        v = _symmetric(v, lower != transposed)
    elif assume_a not in _GENERAL:
        raise ValueError(f"{assume_a} is not a recognized matrix structure")
    return wrap(solved(v, y, by_elimination))


def _symmetric(v: Value, lower: bool) -> Value:
    b = builder()
    triangle = keep(b, "ge" if lower else "le", v)
    return b.add(triangle, swap(b, keep(b, "gt" if lower else "lt", v)))


def conjugate_turned(v: Value, when: bool) -> Value:
    """The conjugate transposed matrices, or the matrices."""
    return adjoint(builder(), v) if when else v


def _by_cholesky(v: Value, y: Value) -> Value:
    return _with_factor(lower_factor(v), y)


def _with_factor(low: Value, y: Value) -> Value:
    b = builder()
    z = b.triangular_solve(low, y, lower=True, transpose=False, unit=False)
    return b.triangular_solve(conjugate(b, low), z, lower=True, transpose=True, unit=False)


def _by_substitution(v: Value, y: Value, lower: bool, transpose: bool, unit: bool) -> Value:
    b = builder()
    if not unit:
        check(b.ne(diagonal(b, v), 0.0), "singular matrix: zero on the diagonal")
    return b.triangular_solve(v, y, lower=lower, transpose=transpose, unit=unit)


@implements(scipy.linalg.solve_triangular)
def solve_triangular(
    a: Any,
    b: Any,
    trans: Any = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Array:
    if trans not in (0, 1, 2, "N", "T", "C"):
        raise ValueError(f"trans must be 0, 1, 2, 'N', 'T' or 'C', got {trans!r}")
    v, y = matrices(a, b, square=True, any_size=True)
    v = conjugate(builder(), v) if trans in (2, "C") else v
    transpose, unit = trans not in (0, "N"), bool(unit_diagonal)
    return wrap(solved(v, y, lambda v, y: _by_substitution(v, y, bool(lower), transpose, unit)))


@implements(scipy.linalg.inv)
def inv(
    a: Any, overwrite_a: bool = False, check_finite: bool = True, *, assume_a: Any = None, lower: bool = False
) -> Array:
    """What a symmetric or triangular matrix has in the other triangle is not looked at, as in ``solve``."""
    if assume_a in (None, "gen", "general"):
        return numpy_linalg.inv.__wrapped__(a)
    (v,) = matrices(a, square=True)
    return solve.__wrapped__(wrap(v), wrap(identity(builder(), v.type)), lower, assume_a=assume_a)


@implements(scipy.linalg.det)
def det(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Array:
    return numpy_linalg.det.__wrapped__(a)


# -- factorizations ----------------------------------------------------------------------------------------------------


@implements(scipy.linalg.cholesky)
def cholesky(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Array:
    return numpy_linalg.cholesky.__wrapped__(a, upper=not lower)


@implements(scipy.linalg.cho_factor)
def cho_factor(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The other triangle, which SciPy leaves as it happens to be, is zero."""
    return cholesky.__wrapped__(a, lower), lower


@implements(scipy.linalg.cho_solve)
def cho_solve(c_and_lower: Any, b: Any, overwrite_b: bool = False, check_finite: bool = True) -> Array:
    c, lower = c_and_lower
    v, y = matrices(c, b, square=True, any_size=True)
    return wrap(solved(conjugate_turned(v, not lower), y, _with_factor))


@implements(scipy.linalg.lu_factor)
def lu_factor(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    packed, pivots, _ = builder().append("lu", matrices(a))
    return wrap(packed), wrap(s.cast(pivots, np.int32))


@implements(scipy.linalg.lu_solve)
def lu_solve(lu_and_piv: Any, b: Any, trans: int = 0, overwrite_b: bool = False, check_finite: bool = True) -> Array:
    packed, pivots = lu_and_piv
    v, y = matrices(packed, b, square=True)
    v = conjugate(builder(), v) if trans == 2 else v
    rows = _permutation(s.cast(lift(pivots).value, np.int64))

    def solver(v: Value, y: Value) -> Value:
        at = builder()
        own = s.expand(rows, v.type.static_shape[:-1])
        if not trans:
            return _substituted(v, permute_rows(at, y, own), ((True, True), (False, False)), False)
        z = _substituted(v, y, ((False, False), (True, True)), True)
        return permute_rows(at, z, at.argsort(own))

    return wrap(solved(v, y, solver))


def _substituted(v: Value, y: Value, order: Any, transpose: bool) -> Value:
    for lower, unit in order:
        y = _by_substitution(v, y, lower, transpose, unit)
    return y


def _permutation(pivots: Value) -> Value:
    """From the rows that were exchanged, one after the other."""
    b = builder()
    *batch, n = pivots.type.static_shape
    count = math.prod(batch)
    flat = b.reshape(pivots, shape=(count, n))
    which = b.iota(size=count)

    def exchange(b: Any, k: Value, rows: Value) -> list[Value]:
        here = b.broadcast_scalar(k, (count,))
        there = b.gather(flat, which, here)
        mine, theirs = (b.gather(rows, which, at) for at in (here, there))
        return [b.scatter(b.scatter(rows, theirs, which, here), mine, which, there)]

    start = b.broadcast(b.iota(size=n), shape=(count, n), dims=(1,))
    (rows,) = b.for_loop(b.index(n), [start], exchange)
    return b.reshape(rows, shape=(*batch, n))


@implements(scipy.linalg.lu)
def lu(
    a: Any, permute_l: bool = False, overwrite_a: bool = False, check_finite: bool = True, p_indices: bool = False
) -> Any:
    (v,) = matrices(a)
    b = builder()
    *batch, m, n = v.type.static_shape
    k = min(m, n)
    packed, _, rows = b.append("lu", [v])
    left = some_rows(b, packed, 0, k, -1)
    low, up = b.add(keep(b, "gt", left), identity(b, left.type)), keep(b, "le", some_rows(b, packed, 0, k, -2))
    gone = b.argsort(rows)  # where each row has gone
    if p_indices:
        return wrap(s.cast(gone, np.int32)), wrap(low), wrap(up)
    if permute_l:
        return wrap(permute_rows(b, low, gone)), wrap(up)
    square = TensorType(real_type(v.type.dtype), (*batch, m, m))
    return wrap(permute_rows(b, identity(b, square), gone)), wrap(low), wrap(up)


@implements(scipy.linalg.qr)
def qr(
    a: Any,
    overwrite_a: bool = False,
    lwork: Any = None,
    mode: str = "full",
    pivoting: bool = False,
    check_finite: bool = True,
) -> Any:
    if pivoting or mode not in ("full", "r", "economic"):
        raise ValueError("scipy.linalg.qr of a traced array takes mode 'full', 'r' or 'economic', without pivoting")
    q, r = builder().append("qr", matrices(a), {"full": mode != "economic"})
    return (wrap(r),) if mode == "r" else (wrap(q), wrap(r))


@implements(scipy.linalg.svd)
def svd(
    a: Any,
    full_matrices: bool = True,
    compute_uv: bool = True,
    overwrite_a: bool = False,
    check_finite: bool = True,
    lapack_driver: str = "gesdd",
) -> Any:
    parts = numpy_linalg.svd.__wrapped__(a, full_matrices, compute_uv)
    return tuple(parts) if compute_uv else parts


@implements(scipy.linalg.svdvals)
def svdvals(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Array:
    return wrap(singular_parts(matrices(a)[0])[1])


@implements(scipy.linalg.eig)
def eig(
    a: Any,
    b: Any = None,
    left: bool = False,
    right: bool = True,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    homogeneous_eigvals: bool = False,
) -> Any:
    if b is not None or left or homogeneous_eigvals:
        raise ValueError("scipy.linalg.eig of a traced array takes one matrix and gives right eigenvectors")
    w, v = general_parts(a)
    return (wrap(w), wrap(v)) if right else wrap(w)


@implements(scipy.linalg.eigvals)
def eigvals(
    a: Any, b: Any = None, overwrite_a: bool = False, check_finite: bool = True, homogeneous_eigvals: bool = False
) -> Array:
    return eig.__wrapped__(a, b, right=False, homogeneous_eigvals=homogeneous_eigvals)


@implements(scipy.linalg.eigh)
def eigh(
    a: Any,
    b: Any = None,
    *,
    lower: bool = True,
    eigvals_only: bool = False,
    subset_by_index: Any = None,
    **options: Any,
) -> Any:
    if b is not None or subset_by_index is not None or options.get("subset_by_value") is not None:
        raise ValueError("scipy.linalg.eigh of a traced array takes one matrix and gives all of its eigenvalues")
    w, v = symmetric_parts(a, "L" if lower else "U")
    return wrap(w) if eigvals_only else (wrap(w), wrap(v))


@implements(scipy.linalg.eigvalsh)
def eigvalsh(a: Any, b: Any = None, *, lower: bool = True, **options: Any) -> Array:
    return eigh.__wrapped__(a, b, lower=lower, eigvals_only=True, **options)


# -- functions of matrices, matrices of a form -----------------------------------------------------------------------


@implements(scipy.linalg.expm)
def expm(A: Any) -> Array:
    return wrap(exponential(matrices(A, square=True)[0]))


@implements(scipy.linalg.sqrtm)
def sqrtm(A: Any, *unused: Any, **options: Any) -> Array:
    """The principal square root. Raises LinAlgError where there is none that is real and regular."""
    return wrap(square_root(matrices(A, square=True)[0]))


@implements(scipy.linalg.block_diag)
def block_diag(*arrs: Any) -> Array:
    blocks = [lift(a) for a in arrs]
    if any(a.ndim > 2 for a in blocks):
        raise ValueError("scipy.linalg.block_diag of traced arrays takes arrays with at most two axes")
    dtype = s.result_type(*blocks)
    blocks = [wrap(s.reshaped(s.cast(a.value, dtype), (1,) * (2 - a.ndim) + a.shape)) for a in blocks]
    width, start, rows = sum(a.shape[1] for a in blocks), 0, []
    for a in blocks:
        (height, own), end = a.shape, start + a.shape[1]
        sides = (wrap(s.full((height, k), 0, dtype)) for k in (start, width - end))
        left, right = sides
        rows.append(concatenate.__wrapped__([left, a, right], 1))
        start += own
    return concatenate.__wrapped__(rows, 0)


@implements(scipy.linalg.toeplitz)
def toeplitz(c: Any, r: Any = None) -> Array:
    c = lift(c)
    r = wrap(conjugate(builder(), c.value)) if r is None else lift(r)
    if c.ndim != 1 or r.ndim != 1:
        raise ValueError("scipy.linalg.toeplitz of traced arrays takes vectors")
    values = concatenate.__wrapped__([c[::-1], r[1:]])
    m, n = c.size, r.size
    return values[np.arange(m - 1, -1, -1)[:, None] + np.arange(n)]


def __getattr__(name: str) -> Any:
    found = getattr(scipy.linalg, name)
    return refusing(found) if callable(found) and not isinstance(found, type) else found


__all__ = [
    "block_diag",
    "cho_factor",
    "cho_solve",
    "cholesky",
    "det",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "expm",
    "inv",
    "lu",
    "lu_factor",
    "lu_solve",
    "qr",
    "solve",
    "solve_triangular",
    "sqrtm",
    "svd",
    "svdvals",
    "toeplitz",
]
