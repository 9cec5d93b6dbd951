"""The discrete Fourier transform along one axis, of sizes without large prime factors.

The matrix of the transform is symmetric, so that its transpose, which reverse mode wants, is the transform itself. For
CPUs it is one operation to the end; where there is none, it comes down to products of matrices by Cooley and Tukey's
method: with n = p m, positions j = a m + b and frequencies k = c + p d, a transform of size p over a, factors
exp(-2 pi i b c / n), and a transform of size m over b.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.registry import OpDef, Sample, define, linear_jvp, require
from dflow.ir.types import C64, C128, TensorType

PRIME = 31  # the largest prime factor of a size
RADIX = 8  # of a product of matrices: more would take more multiplications, less more passes
Z = [1.0 + 2.0j, -0.5j, 3.0, 0.25 - 1.0j, 2.0, 1.5j]


def is_smooth(n: int) -> bool:
    """Whether the operation takes rows of ``n`` elements."""
    return n >= 1 and all(p <= PRIME for p in prime_factors(n))


def prime_factors(n: int) -> list[int]:
    """In increasing order."""
    found, p = [], 2
    while p * p <= n:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return [*found, n] if n > 1 else found


def roots(exponents: Any, n: int, sign: int, dtype: Any) -> Any:
    """exp(sign 2 pi i e / n), the exponents reduced exactly."""
    return np.exp(sign * 2j * np.pi * (exponents % n) / n).astype(dtype)


def _infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 1, f"takes 1 operand, got {len(types)}")
    (x,), axis = types, attrs["axis"]
    require(x.dtype in (C64, C128), f"takes complex numbers, got {x}")
    require(isinstance(axis, int) and 0 <= axis < x.rank, f"{x} has no axis {axis}")
    n = x.shape[axis]
    require(isinstance(n, int) and is_smooth(n), f"takes sizes with prime factors up to {PRIME}, got {n}")
    return [x]


def _fourier(attrs: Any, x: Any) -> Any:
    if attrs["inverse"]:
        return np.fft.ifft(x, axis=attrs["axis"], norm="forward").astype(x.dtype)
    return np.fft.fft(x, axis=attrs["axis"]).astype(x.dtype)


def _transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    return [b.fourier(cts[0], **attrs)]


def _products(b: Any, attrs: Any, xs: Any) -> list[Any]:
    (x,), axis = xs, attrs["axis"]
    others = [k for k in range(x.type.rank) if k != axis]
    back = [*range(axis), x.type.rank - 1, *range(axis, x.type.rank - 1)]
    y = _rows(b, b.transpose(x, perm=(*others, axis)), 1 if attrs["inverse"] else -1)
    return [b.transpose(y, perm=tuple(back))]


def _rows(b: Any, z: Any, sign: int) -> Any:
    """Of each row."""
    *lead, n = z.type.shape
    dtype = z.type.dtype.numpy
    p = next((p for p in range(RADIX, 1, -1) if n % p == 0), None) or prime_factors(n)[0] if n > 1 else 1
    if p == n or n <= RADIX:
        return _times(b, z, roots(np.outer(np.arange(n), np.arange(n)), n, sign, dtype))
    m, k = n // p, len(lead)
    swap = (*range(k), k + 1, k)
    inner = _rows(b, b.transpose(b.reshape(z, shape=(*lead, p, m)), perm=swap), sign)
    factors = b.constant(roots(np.outer(np.arange(m), np.arange(p)), n, sign, dtype))
    twisted = b.mul(inner, b.broadcast(factors, shape=inner.type.shape, dims=(k, k + 1)))
    outer = _rows(b, b.transpose(twisted, perm=swap), sign)
    return b.reshape(b.transpose(outer, perm=swap), shape=(*lead, n))


def _times(b: Any, z: Any, matrix: Any) -> Any:
    """Each row times a matrix: one product of matrices, or where that has a size of the run, one for each stack."""
    *lead, n = z.type.shape
    if all(isinstance(d, int) for d in lead):
        rows = b.reshape(z, shape=(int(np.prod(lead, dtype=int)), n))
        return b.reshape(b.matmul(rows, b.constant(matrix)), shape=z.type.shape)
    stack = lead if len(lead) == 1 else lead[:-1]
    shape = (*lead, 1, n) if len(lead) == 1 else z.type.shape
    matrices = b.broadcast(b.constant(matrix), shape=(*stack, n, n), dims=(len(stack), len(stack) + 1))
    return b.reshape(b.matmul(b.reshape(z, shape=shape), matrices), shape=z.type.shape)


define(
    OpDef(
        "fourier",
        "sum over j of x[j] exp(-2 pi i j k / n) along an axis of size n, which has no large prime factor; with "
        "`inverse` exp(2 pi i j k / n), not scaled either",
        _infer,
        _fourier,
        linear_jvp("fourier", lambda n: ((0,),)),
        _transpose,
        ((0,),),
        (C64, C128),
        decomposition=_products,
        samples=(
            Sample((Z,), {"axis": 0, "inverse": False}),
            Sample(([[1.0 + 1.0j, 2.0, -0.5j], [0.5, -1.0j, 3.0]],), {"axis": 1, "inverse": True}),
            Sample(([[Z, Z[::-1]], [Z[::-1], Z]],), {"axis": 1, "inverse": False}),
        ),
    )
)
