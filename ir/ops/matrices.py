"""What the rules of linear algebra are written with: parts of matrices, as expressions on the last two axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.types import C64, C128, DTYPES, F32, F64, Dim, DType, TensorType

SINGLE_AND_DOUBLE = (F32, F64, C64, C128)  # what LAPACK computes in


# -- real and complex numbers alike ------------------------------------------------------------------------------------


def is_complex(x: Any) -> bool:
    return bool(x.type.dtype.kind == "c")


def real_type(dtype: DType) -> DType:
    return DTYPES[f"f{dtype.bits // 2}"] if dtype.kind == "c" else dtype


def real(b: Any, x: Any) -> Any:
    return b.real(x) if is_complex(x) else x


def conjugate(b: Any, x: Any) -> Any:
    return b.emit("complex", b.real(x), b.neg(b.imag(x))) if is_complex(x) else x


def magnitude(b: Any, x: Any) -> Any:
    return b.hypot(b.real(x), b.imag(x)) if is_complex(x) else b.abs(x)


def among(b: Any, x: Any, like: Any) -> Any:
    """Real numbers in the dtype of ``like``."""
    return x if x.type.dtype == like.type.dtype else b.convert(x, dtype=like.type.dtype)


def reciprocal(b: Any, x: Any) -> Any:
    if not is_complex(x):
        return b.div(1.0, x)
    size = magnitude(b, x)
    return b.emit("complex", *(b.div(b.div(p, size), size) for p in (b.real(x), b.neg(b.imag(x)))))


# -- matrices ----------------------------------------------------------------------------------------------------------


def swap(b: Any, x: Any) -> Any:
    """The transposed matrices."""
    n = x.type.rank
    return b.transpose(x, perm=(*range(n - 2), n - 1, n - 2))


def adjoint(b: Any, x: Any) -> Any:
    """The conjugate transposed matrices."""
    return conjugate(b, swap(b, x))


def hermitian(b: Any, x: Any, lower: bool) -> Any:
    """The symmetric or hermitian matrices that have one triangle of ``x``; imaginary parts on the diagonal do not
    count."""
    inside, strictly = ("ge", "gt") if lower else ("le", "lt")
    whole = b.add(keep(b, inside, x), adjoint(b, keep(b, strictly, x)))
    if not is_complex(x):
        return whole
    return b.select(b.eq(*positions(b, x.type.shape)), among(b, b.real(whole), x), whole)


def positions(b: Any, shape: tuple[Dim, ...]) -> tuple[Any, Any]:
    """The row and the column of every element."""
    last = len(shape) - 1
    return tuple(b.broadcast(b.iota(size=shape[k]), shape=shape, dims=(k,)) for k in (last - 1, last))


def keep(b: Any, compare: str, x: Any) -> Any:
    """``x`` where row and column compare so, zero elsewhere: ``ge`` is the lower triangle, ``gt`` without diagonal."""
    return b.select(b.emit(compare, *positions(b, x.type.shape)), x, b.zeros(x.type))


def identity(b: Any, t: TensorType) -> Any:
    rows, columns = positions(b, t.shape)
    return b.convert(b.eq(rows, columns), dtype=t.dtype)


def diagonal(b: Any, x: Any) -> Any:
    """The main diagonals."""
    *batch, m, n = x.type.shape
    flat = b.reshape(x, shape=(*batch, m * n))
    return b.extract(flat, b.index(0), index=(*("all" for _ in batch), ("slice", min(m, n), n + 1)))


def as_rows(b: Any, d: Any, count: Dim) -> Any:
    """``result[..., i, j] = d[..., j]``: scales columns."""
    *batch, n = d.type.shape
    return b.broadcast(d, shape=(*batch, count, n), dims=(*range(len(batch)), len(batch) + 1))


def as_columns(b: Any, d: Any, count: Dim) -> Any:
    """``result[..., i, j] = d[..., i]``: scales rows."""
    return b.broadcast(d, shape=(*d.type.shape, count), dims=tuple(range(d.type.rank)))


def reduced(b: Any, kind: str, x: Any, axes: int) -> Any:
    """A reduction over the last ``axes`` axes."""
    return b.reduce(x, kind=kind, axes=tuple(range(x.type.rank - axes, x.type.rank)))


def all_of(b: Any, x: Any) -> Any:
    return b.reduce(x, kind="all", axes=tuple(range(x.type.rank))) if x.type.rank else x


def some_rows(b: Any, x: Any, start: int, count: int, axis: int) -> Any:
    """``count`` positions along an axis (from behind: -1 or -2)."""
    at = x.type.rank + axis
    if start == 0 and x.type.shape[at] == count:
        return x
    index = tuple(("slice", count, 1) if k == at else "all" for k in range(x.type.rank))
    return b.extract(x, b.index(start), index=index)


def permute_rows(b: Any, x: Any, permutation: Any) -> Any:
    """``x[..., permutation, :]``."""
    *batch, n, k = x.type.shape
    if not batch:
        return b.gather(x, permutation)
    count = int(np.prod(batch))
    which = b.broadcast(b.iota(size=count), shape=(count, n), dims=(0,))
    rows = b.gather(b.reshape(x, shape=(count, n, k)), which, b.reshape(permutation, shape=(count, n)))
    return b.reshape(rows, shape=x.type.shape)


def negligible(b: Any, x: Any, size: int) -> Any:
    """What counts as zero beside the largest element along the last axis: rounding errors of that many terms."""
    eps = float(np.finfo(x.type.dtype.numpy).eps)
    return b.mul(reduced(b, "max", magnitude(b, x), 1), size * eps)
