"""The discrete Fourier transform along one axis, of any size, in O(n log n).

Sizes without large prime factors are one operation of the IR. Others are a convolution with a chirp, of a size
that has none (Bluestein). What the caches do not hold is done in blocks (`fourier_blocks.py`).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from dflow.ir.ops.fourier import is_smooth
from dflow.ir.ops.fourier import roots as _roots
from dflow.numpy.fourier_blocks import by_columns, turned_columns
from dflow.numpy.support import static_int
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder
from dflow.tracing.source.rewrite import rewritten

np: Any = numpy
_traced: Any = rewritten  # of a function, with its loops
SHORT = 32  # rows of which real numbers are transformed as complex ones
FAR = 1 << 15  # elements of a row that is done in blocks
NEAR = 8192  # elements that the caches hold
LINE = 8  # columns that are read together, at least
TABLE = 1 << 16  # factors that a program holds, at most: more are made when it runs, from two short tables


def transform(z: Array, sign: int, axis: int = -1) -> Array:
    """sum over j of z[j] exp(sign 2 pi i j k / n) along an axis, not scaled."""
    axis %= z.ndim
    n = static_int(z.shape[axis], "the size of the axis")
    if n <= 1:
        return z
    if n > FAR and z.value.type.is_static and z.size == n:
        blocks = _in_blocks(z.reshape(n), sign)
        if blocks is not None:
            return blocks.reshape(z.shape)
    if not is_smooth(n):
        return np.moveaxis(_chirp(np.moveaxis(z, axis, -1), sign), -1, axis)
    return wrap(builder().fourier(z.value, axis=axis, inverse=sign > 0))


def of_reals(x: Array) -> Array:
    """The frequencies that are not negative of n real numbers, not scaled.

    An even n is a transform of half the size, of x[0] + i x[1], x[2] + i x[3], ...: what the even and the odd ones give
    are its parts that are, at frequencies k and -k, conjugate and opposite to that."""
    n = x.shape[-1]
    kind = np.result_type(x.dtype, np.complex64)
    if n % 2 or n < SHORT:
        return transform(x.astype(kind), -1)[..., : n // 2 + 1]
    z = transform(x[..., ::2] + x[..., 1::2] * numpy.asarray(1j, kind), -1)
    z = np.concatenate([z, z[..., :1]], -1)
    back = np.conj(z[..., ::-1])
    turn = _factors(_up_to(n // 2 + 1), n, -1, kind) * numpy.asarray(-0.5j, kind)
    return (z + back) * numpy.asarray(0.5, z.real.dtype) + (z - back) * turn


def to_reals(y: Array, n: int) -> Array:
    """The n real numbers, not scaled, from their frequencies that are not negative: the way back."""
    if n % 2 or n < SHORT:
        full = np.concatenate([y, np.conj(y[..., 1 : (n + 1) // 2])[..., ::-1]], -1)
        return np.real(transform(full, 1))
    ends = _up_to(n // 2 + 1) % (n // 2) == 0
    y = np.where(ends, y.real, y)
    front, back = y[..., :-1], np.conj(y[..., :0:-1])
    turn = _factors(_up_to(n // 2), n, 1, y.dtype) * numpy.asarray(1j, y.dtype)
    z = transform(front + back + (front - back) * turn, 1)
    return np.stack([z.real, z.imag], -1).reshape((*z.shape[:-1], n))


def _in_blocks(z: Array, sign: int) -> Array | None:
    """A large transform in blocks; None where that is not worth it."""
    n = z.shape[0]
    p = _middle(n)
    if p is None:
        return None
    m, each = n // p, functools.partial(transform, sign=sign)
    inner = _traced(turned_columns)(z.reshape((p, m)), _block(m, p), each, *_tables(n, sign, z.dtype))
    return _traced(by_columns)(inner, _block(p, m), each).reshape(z.shape)


def _block(count: int, n: int) -> int:
    """How many of ``count`` columns of ``n`` elements go together."""
    return max(k for k in range(1, max(LINE, NEAR // n) + 1) if count % k == 0)


def _middle(n: int) -> int | None:
    """The largest factor up to the square root, if it and its counterpart are of use: neither is short."""
    p = next(p for p in range(math.isqrt(n), 0, -1) if n % p == 0)
    return p if p >= SHORT and n // p <= NEAR else None


def _enough(least: int) -> int:
    """The smallest size from ``least`` on that is quick: a multiple of 8, and beside that of 2, 3 and 5."""
    odd = [3**k * 5**j for k in range(least.bit_length()) for j in range(least.bit_length() // 2)]
    return min(p << max(3, (-(-least // p) - 1).bit_length()) for p in odd)


def _tables(n: int, sign: int, dtype: Any) -> tuple[Any, Any]:
    """The factors of exponents that are multiples of a power of two near the root of ``n``, and of those below it."""
    short = 1 << (n.bit_length() // 2)
    return _roots(numpy.arange(0, n, short), n, sign, dtype), _roots(numpy.arange(short), n, sign, dtype)


def _up_to(n: int) -> Any:
    """The whole numbers below ``n``; many are made when the program runs."""
    return numpy.arange(n) if n <= TABLE else wrap(builder().iota(size=n))


def _factors(exponents: Any, n: int, sign: int, dtype: Any) -> Any:
    """exp(sign 2 pi i e / n), the exponents reduced exactly."""
    if not isinstance(exponents, Array):
        return _roots(exponents, n, sign, dtype)
    far, near = _tables(n, sign, dtype)
    exponents = exponents % n
    return lift(far)[exponents // len(near)] * lift(near)[exponents % len(near)]


def _chirp(z: Array, sign: int) -> Array:
    """j k = (j^2 + k^2 - (j - k)^2) / 2, so the transform is a convolution between two products."""
    n = z.shape[-1]
    size = _enough(2 * n - 1)
    numbers = _up_to(n)
    chirp = _factors(numbers * numbers, 2 * n, sign, numpy.complex128 if n <= TABLE else z.dtype)
    kernel = np.conj(np.concatenate([chirp, np.zeros(size - 2 * n + 1, chirp.dtype), chirp[1:][::-1]]))
    weights = transform(kernel, -1) if isinstance(kernel, Array) else numpy.fft.fft(kernel).astype(z.dtype)
    chirp = chirp.astype(z.dtype)
    padded = np.pad(z * chirp, [(0, 0)] * (z.ndim - 1) + [(0, size - n)])
    convolved = transform(transform(padded, -1) * weights, 1)[..., :n]
    return convolved * (chirp / numpy.asarray(size, z.real.dtype))
