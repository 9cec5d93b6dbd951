"""Factorizations of matrices: ``np.linalg.cholesky``, ``qr``, ``eigh``, ``svd`` and what they have in common.

What cannot be factorized raises LinAlgError from the compiled program, with the user's line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.ir.builder import Builder
from dflow.ir.core import Value
from dflow.ir.ops.matrices import adjoint, all_of, diagonal, identity, keep
from dflow.ir.types import TensorType
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.tracing.arrays import dtypes, sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

_ONE = np.eye(1)
QRResult: Any = type(np.linalg.qr(_ONE))
EigResult: Any = type(np.linalg.eig(_ONE))
EighResult: Any = type(np.linalg.eigh(_ONE))
SVDResult: Any = type(np.linalg.svd(_ONE))


def matrices(*args: Any, square: bool = False, any_size: bool = False) -> list[Value]:
    """The arguments in their common dtype (float64 for integers), the first checked to be a stack of matrices.
    ``any_size`` is for callers that work ``in_full_size`` where the run decides how large the matrices are."""
    dtype = dtypes.result_type(*(np.float64 if (d := lift(a).dtype).kind in "biu" else d for a in args))
    if dtype.char not in "fdFD":
        raise TypeError(f"array type {dtype} is unsupported in linalg")
    values = [s.cast(lift(a).value, dtype) for a in args]
    shape = values[0].type.shape
    s.static(shape[:-2] if any_size else shape, "linear algebra")
    if len(shape) < 2:
        raise np.linalg.LinAlgError(f"{len(shape)}-dimensional array given. Array must be at least two-dimensional")
    if square:
        n = sizes.agreed(shape[-1], shape[-2])
        if n is None:
            raise np.linalg.LinAlgError(f"Last 2 dimensions of the array must be square, got shape {s.show(shape)}")
        values[0] = sizes.recast(values[0], (*shape[:-2], n, n))
    return values


def in_full_size(v: Value, ground: Callable[[Builder, TensorType], Value] = identity) -> Value:
    """Matrices whose size the run decides, in the corner of the largest that they can become. With the identity as
    ``ground``, elimination and Cholesky's factorization do to the corner what they do to the matrices alone."""
    if v.type.is_static:
        return v
    b = builder()
    index = tuple("all" if isinstance(d, int) else ("slice", d, 1) for d in v.type.shape)
    whole = ground(b, v.type.with_shape(v.type.bound))
    return b.update(whole, v, *(b.index(0) for e in index if e != "all"), index=index)


def check(ok: Value, message: str) -> None:
    """Raises LinAlgError unless all of ``ok`` hold."""
    b = builder()
    b.emit("check", all_of(b, ok), error="LinAlgError", message=message)


def lower_factor(v: Value) -> Value:
    b = builder()
    low = b.cholesky(v)
    pivots = diagonal(b, low)
    check(b.eq(pivots, pivots), "Matrix is not positive definite")
    return low


@implements(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Array:
    (v,) = matrices(a, square=True, any_size=True)
    b, whole = builder(), in_full_size(v)
    factor = adjoint(b, lower_factor(adjoint(b, whole))) if upper else lower_factor(whole)
    return wrap(sizes.recast(factor, v.type.shape))


@implements(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f"np.linalg.qr of a traced array takes mode 'reduced', 'complete' or 'r', got {mode!r}")
    q, r = builder().append("qr", matrices(a), {"full": mode == "complete"})
    return wrap(r) if mode == "r" else QRResult(wrap(q), wrap(r))


def symmetric_parts(a: Any, uplo: str) -> tuple[Value, Value]:
    """Eigenvalues and eigenvectors."""
    if uplo.upper() not in ("L", "U"):
        raise ValueError("UPLO argument must be 'L' or 'U'")
    b = builder()
    w, v = b.append("eigh", matrices(a, square=True), {"lower": uplo.upper() == "L"})
    check(b.eq(w, w), "Eigenvalues did not converge")
    return w, v


@implements(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:
    return EighResult(*map(wrap, symmetric_parts(a, UPLO)))


@implements(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Array:
    return wrap(symmetric_parts(a, UPLO)[0])


def general_parts(a: Any) -> tuple[Value, Value]:
    """Eigenvalues and eigenvectors of a matrix that need not be symmetric: complex numbers."""
    b, (v,) = builder(), matrices(a, square=True)
    w, vectors = b.append("eig", [v])
    for p in (b.real(v), b.imag(v)) if v.type.dtype.kind == "c" else (v,):
        check(b.isfinite(p), "Array must not contain infs or NaNs")
    check(b.eq(w, w), "Eigenvalues did not converge")
    return w, vectors


@implements(np.linalg.eig)
def eig(a: Any) -> Any:
    return EigResult(*map(wrap, general_parts(a)))


@implements(np.linalg.eigvals)
def eigvals(a: Any) -> Array:
    return wrap(general_parts(a)[0])


def singular_parts(v: Value, full: bool = False) -> tuple[Value, Value, Value]:
    """U, s and Vh."""
    b = builder()
    u, d, vh = b.append("svd", [v], {"full": full})
    check(b.eq(d, d), "SVD did not converge")
    return u, d, vh


@implements(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    u, d, vh = singular_parts(matrices(a)[0], bool(full_matrices and compute_uv))
    return SVDResult(wrap(u), wrap(d), wrap(vh)) if compute_uv else wrap(d)


@implements(np.linalg.svdvals)
def svdvals(x: Any, /) -> Array:
    return wrap(singular_parts(matrices(x)[0])[1])


def upper_part(v: Value) -> Value:
    return keep(builder(), "le", v)


def lower_part(v: Value) -> Value:
    return keep(builder(), "ge", v)
