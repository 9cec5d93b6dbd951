"""The discrete Fourier transform along the last axis, of any size, in O(n log n).

Sizes up to ``RADIX``, and primes up to ``DIRECT``, are a product with the matrix of the transform. Others are split by
Cooley and Tukey's method: with n = p m, positions j = a m + b and frequencies k = c + p d, a transform of size p over
a, factors exp(-2 pi i b c / n), and a transform of size m over b. A larger prime size is a convolution with a chirp, of
a size that is a power of two (Bluestein). What the caches do not hold is done in blocks (`fourier_blocks.py`).
The transform is made of products with constants, so its derivatives need no rule.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from dflow.numpy.fourier_blocks import by_columns, by_rows, turned_columns
from dflow.tracing.array import Array
from dflow.tracing.rewrite import rewritten

np: Any = numpy
_traced: Any = rewritten  # of a function, with its loops
RADIX = 8  # more would take more multiplications, less more passes
DIRECT = 32
NEAR = 8192  # elements that the caches hold
LINE = 8  # columns that are read together, at least


def transform(z: Array, sign: int) -> Array:
    """sum over j of z[..., j] exp(sign 2 pi i j k / n), not scaled."""
    n = z.shape[-1]
    if n <= 1:
        return z
    blocks = _in_blocks(z, sign)
    if blocks is not None:
        return blocks
    p = _factor(n)
    if n <= RADIX or p == n <= DIRECT:
        return z @ _roots(numpy.outer(numpy.arange(n), numpy.arange(n)), n, sign, z.dtype)
    return _chirp(z, sign) if p == n else _split(z, p, sign)


def of_columns(z: Array, sign: int) -> Array:
    """The transform of each column of a matrix, not scaled."""
    n, count = z.shape
    if isinstance(n, int) and isinstance(count, int) and n > 1 and n * count > 2 * NEAR:
        block = _block(count, n, LINE)
        if LINE <= block < count:
            return _traced(by_columns)(z, block, functools.partial(transform, sign=sign))
    return np.swapaxes(transform(np.swapaxes(z, 0, 1), sign), 0, 1)


def of_reals(x: Array) -> Array:
    """The frequencies that are not negative of n real numbers, not scaled.

    An even n is a transform of half the size, of x[0] + i x[1], x[2] + i x[3], ...: what the even and the odd ones give
    are its parts that are, at frequencies k and -k, conjugate and opposite to that."""
    n = x.shape[-1]
    kind = np.result_type(x.dtype, np.complex64)
    if n % 2 or n < DIRECT:
        return transform(x.astype(kind), -1)[..., : n // 2 + 1]
    z = transform(x[..., ::2] + x[..., 1::2] * numpy.asarray(1j, kind), -1)
    z = np.concatenate([z, z[..., :1]], -1)
    back = np.conj(z[..., ::-1])
    turn = _roots(numpy.arange(n // 2 + 1), n, -1, kind) * numpy.asarray(-0.5j, kind)
    return (z + back) * numpy.asarray(0.5, z.real.dtype) + (z - back) * turn


def to_reals(y: Array, n: int) -> Array:
    """The n real numbers, not scaled, from their frequencies that are not negative: the way back."""
    if n % 2 or n < DIRECT:
        full = np.concatenate([y, np.conj(y[..., 1 : (n + 1) // 2])[..., ::-1]], -1)
        return np.real(transform(full, 1))
    ends = numpy.arange(n // 2 + 1) % (n // 2) == 0
    y = np.where(ends, y.real, y)
    front, back = y[..., :-1], np.conj(y[..., :0:-1])
    turn = _roots(numpy.arange(n // 2), n, 1, y.dtype) * numpy.asarray(1j, y.dtype)
    z = transform(front + back + (front - back) * turn, 1)
    return np.stack([z.real, z.imag], -1).reshape((*z.shape[:-1], n))


def _roots(exponents: Any, n: int, sign: int, dtype: Any) -> Any:
    """exp(sign 2 pi i e / n), the exponents reduced exactly."""
    return numpy.exp(sign * 2j * numpy.pi * (exponents % n) / n).astype(dtype)


def _factor(n: int) -> int:
    """The largest factor up to ``RADIX``; else the smallest prime factor."""
    return next(p for p in (*range(RADIX, 1, -1), *range(RADIX + 1, n + 1)) if n % p == 0)


def _split(z: Array, p: int, sign: int) -> Array:
    *lead, n = z.shape
    m = n // p
    rows = np.swapaxes(z.reshape((*lead, p, m)), -1, -2)
    inner = transform(rows, sign)  # b, c
    twisted = inner * _roots(numpy.outer(numpy.arange(m), numpy.arange(p)), n, sign, z.dtype)
    outer = transform(np.swapaxes(twisted, -1, -2), sign)  # c, d
    return np.swapaxes(outer, -1, -2).reshape((*lead, n))


def _in_blocks(z: Array, sign: int) -> Array | None:
    """A large transform, or many small ones, in blocks; None where that is not worth it."""
    *lead, n = z.shape
    if not all(isinstance(d, int) for d in z.shape):
        return None
    count = math.prod(lead)
    if count * n <= 2 * NEAR:
        return None
    each = functools.partial(transform, sign=sign)
    if count > 1:
        block = _block(count, n, 1)
        return _traced(by_rows)(z.reshape((count, n)), block, each).reshape(z.shape) if block < count else None
    p = _middle(n)
    if p is None:
        return None
    m, short = n // p, 1 << (n.bit_length() // 2)
    tables = (_roots(numpy.arange(0, n, short), n, sign, z.dtype), _roots(numpy.arange(short), n, sign, z.dtype))
    inner = _traced(turned_columns)(z.reshape((p, m)), _block(m, p, LINE), each, *tables)
    return _traced(by_columns)(inner, _block(p, m, LINE), each).reshape(z.shape)


def _block(count: int, n: int, least: int) -> int:
    """How many of ``count`` transforms of ``n`` elements go together, ``least`` where that may be."""
    return max(k for k in range(1, max(least, NEAR // n) + 1) if count % k == 0)


def _middle(n: int) -> int | None:
    """The largest factor up to the square root, if it and its counterpart are of use: neither is short."""
    p = next(p for p in range(math.isqrt(n), 0, -1) if n % p == 0)
    return p if p >= DIRECT and n // p <= NEAR else None


def _chirp(z: Array, sign: int) -> Array:
    """j k = (j^2 + k^2 - (j - k)^2) / 2, so the transform is a convolution between two products."""
    n = z.shape[-1]
    size = 1 << (2 * n - 2).bit_length()
    squares = numpy.arange(n) ** 2
    chirp = _roots(squares, 2 * n, sign, numpy.complex128)
    kernel = numpy.zeros(size, complex)
    kernel[:n] = chirp.conj()
    kernel[size - n + 1 :] = chirp[1:][::-1].conj()
    weights = numpy.fft.fft(kernel).astype(z.dtype)
    chirp = chirp.astype(z.dtype)
    padded = np.pad(z * chirp, [(0, 0)] * (z.ndim - 1) + [(0, size - n)])
    convolved = transform(transform(padded, -1) * weights, 1)[..., :n]
    return convolved * (chirp / numpy.asarray(size, z.real.dtype))
