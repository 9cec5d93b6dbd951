"""Functions of arrays that ``jax.lax`` has under names, or with parameters, of its own, by those of NumPy and SciPy."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy
import scipy.special

from dflow.ir.types import kind_of
from dflow.numpy.dispatch import own
from dflow.numpy.namespace import EXPORTED
from dflow.tracing.arrays.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

_ALIASES = {
    **{name: name for name in ("add", "sqrt", "cbrt", "square", "exp", "exp2", "expm1", "log", "log1p", "sign")},
    **{
        name: name for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "floor", "ceil", "nextafter", "reciprocal")
    },
    **{name: name for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "real", "imag", "conj", "squeeze")},
    **{"sub": "subtract", "mul": "multiply", "neg": "negative", "abs": "absolute", "pow": "power", "rem": "fmod"},
    **{"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2"},
    **{"asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "is_finite": "isfinite", "bitwise_not": "invert"},
    **{"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"},
    **{"max": "maximum", "min": "minimum", "shift_left": "left_shift", "population_count": "bitwise_count"},
    **{"transpose": "transpose", "expand_dims": "expand_dims", "full": "full", "full_like": "full_like", "dot": "dot"},
}
_SPECIAL = {
    **{name: name for name in ("erf", "erfc", "digamma", "betainc", "polygamma", "zeta")},
    **{"erf_inv": "erfinv", "lgamma": "gammaln", "logistic": "expit", "igamma": "gammainc", "igammac": "gammaincc"},
    **{"bessel_i0e": "i0e", "bessel_i1e": "i1e"},
}
ALIASES = {
    **{name: getattr(np, of) for name, of in _ALIASES.items()},
    **{name: getattr(scipy.special, of) for name, of in _SPECIAL.items()},
    "dot": EXPORTED["dot"],
}


@own
def div(x: Any, y: Any) -> Any:
    """x / y; of integers the whole part of the quotient, towards zero."""
    x, y = lift(x), lift(y)
    if kind_of(x.dtype) in "iu" and kind_of(y.dtype) in "iu":
        return (x - np.fmod(x, y)) // y
    return x / y


@own
def convert_element_type(operand: Any, new_dtype: Any) -> Any:
    """``operand.astype(new_dtype)``."""
    return lift(operand).astype(new_dtype)


@own
def concatenate(operands: Sequence[Any], dimension: int) -> Any:
    """The arrays one behind the other along an axis."""
    return np.concatenate(list(operands), axis=dimension)


@own
def reshape(operand: Any, new_sizes: Sequence[int], dimensions: Sequence[int] | None = None) -> Any:
    """The elements in another shape; ``dimensions`` is the order in which the axes are read."""
    x = lift(operand)
    return (x if dimensions is None else np.transpose(x, tuple(dimensions))).reshape(tuple(new_sizes))


@own
def rev(operand: Any, dimensions: Sequence[int]) -> Any:
    """The elements in reverse order along these axes."""
    return np.flip(lift(operand), tuple(dimensions))


@own
def broadcast(operand: Any, sizes: Sequence[int]) -> Any:
    """Copies of ``operand`` along new first axes."""
    x = lift(operand)
    return np.broadcast_to(x, (*sizes, *x.shape))


@own
def broadcast_in_dim(operand: Any, shape: Sequence[int], broadcast_dimensions: Sequence[int]) -> Any:
    """``operand`` in a larger shape; ``broadcast_dimensions`` says which axis of it each axis becomes."""
    x = lift(operand)
    sizes = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, x.shape, strict=True):
        sizes[axis] = size
    return np.broadcast_to(x.reshape(tuple(sizes)), tuple(shape))


@own
def slice(
    operand: Any, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Sequence[int] | None = None
) -> Any:
    """The part between these indices, which are known."""
    x = lift(operand)
    steps = strides or (1,) * x.ndim
    bounds = zip(start_indices, limit_indices, steps, x.shape, strict=True)
    return x[tuple(_part(first, limit, step, size) for first, limit, step, size in bounds)]


def _part(start: int, limit: int, step: int, size: int) -> Any:
    if not 0 <= start <= limit <= size:
        raise ValueError(f"the part from {start} to {limit} of an axis of size {size}")
    return np.s_[start:limit:step]


@own
def slice_in_dim(operand: Any, start_index: int | None, limit_index: int | None, stride: int = 1, axis: int = 0) -> Any:
    """``operand[start_index:limit_index:stride]`` along one axis."""
    x = lift(operand)
    parts: list[Any] = [np.s_[:]] * x.ndim
    parts[axis] = np.s_[start_index:limit_index:stride]
    return x[tuple(parts)]


@own
def index_in_dim(operand: Any, index: int, axis: int = 0, keepdims: bool = True) -> Any:
    """One slice along an axis, which stays with size 1 unless ``keepdims`` is False."""
    part = np.take(lift(operand), index, axis=axis)
    return np.expand_dims(part, axis) if keepdims else part


def _running(name: str, of: Any, doc: str) -> Any:
    def running(operand: Any, axis: int = 0, reverse: bool = False) -> Any:
        x = lift(operand)
        return np.flip(of(np.flip(x, axis), axis=axis), axis) if reverse else of(x, axis=axis)

    running.__name__ = running.__qualname__ = name
    running.__doc__ = f"{doc} along an axis; ``reverse`` starts at the end."
    return own(running)


cumsum = _running("cumsum", np.cumsum, "Running sums")
cumprod = _running("cumprod", np.cumprod, "Running products")
cummax = _running("cummax", np.maximum.accumulate, "Running maxima")
cummin = _running("cummin", np.minimum.accumulate, "Running minima")
cumlogsumexp = _running("cumlogsumexp", np.logaddexp.accumulate, "Logarithms of running sums of exponentials")


@own
def sort(operand: Any, dimension: int = -1, is_stable: bool = True, num_keys: int = 1) -> Any:
    """The elements in order along an axis. Of a tuple of arrays, all in the order of the first ``num_keys``."""
    if not isinstance(operand, tuple | list):
        return np.sort(lift(operand), axis=dimension, stable=is_stable)
    arrays = [lift(x) for x in operand]
    order = np.lexsort(tuple(arrays[:num_keys][::-1]), axis=dimension)
    return tuple(np.take_along_axis(x, order, axis=dimension) for x in arrays)


@own
def sort_key_val(keys: Any, values: Any, dimension: int = -1, is_stable: bool = True) -> Any:
    """The keys in order along an axis, and the values in the order of the keys."""
    return sort.__wrapped__((keys, values), dimension, is_stable)


@own
def iota(dtype: Any, size: int) -> Any:
    """0, 1, ... ``size - 1``."""
    return np.arange(size).astype(dtype)


@own
def broadcasted_iota(dtype: Any, shape: Sequence[int], dimension: int) -> Any:
    """An array of this shape that counts from 0 along one axis."""
    sizes = [1] * len(shape)
    sizes[dimension] = shape[dimension]
    return np.broadcast_to(np.arange(shape[dimension]).astype(dtype).reshape(tuple(sizes)), tuple(shape))


def split(operand: Any, sizes: Sequence[int], axis: int = 0) -> Any:
    """Parts of these sizes, one behind the other along an axis."""
    return _split(operand, tuple(int(n) for n in sizes), axis)


@own
def _split(operand: Any, sizes: tuple[int, ...], axis: int) -> Any:
    x = lift(operand)
    if sum(sizes) != x.shape[axis]:
        raise ValueError(f"parts of sizes {tuple(sizes)} of an axis of size {x.shape[axis]}")
    return tuple(np.split(x, numpy.cumsum(sizes)[:-1].tolist(), axis=axis))


@own
def tile(operand: Any, reps: Sequence[int]) -> Any:
    """``np.tile``."""
    return np.tile(lift(operand), tuple(reps))


@own
def argmax(operand: Any, axis: int, index_dtype: Any) -> Any:
    """The position of the largest element along an axis."""
    return np.argmax(lift(operand), axis=axis).astype(index_dtype)


@own
def argmin(operand: Any, axis: int, index_dtype: Any) -> Any:
    """The position of the smallest element along an axis."""
    return np.argmin(lift(operand), axis=axis).astype(index_dtype)


@own
def bitcast_convert_type(operand: Any, new_dtype: Any) -> Any:
    """The bits of the elements as those of another dtype of the same size: ``operand.view(new_dtype)``."""
    return lift(operand).view(new_dtype)


def optimization_barrier(operand: Any) -> Any:
    """``operand``; it is there for programs of JAX."""
    return operand


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """``np.broadcast_shapes``."""
    return numpy.broadcast_shapes(*map(tuple, shapes))


@own
def stack(operands: Sequence[Any], axis: int = 0) -> Any:
    """``np.stack``."""
    return np.stack(list(operands), axis=axis)


@own
def unstack(operand: Any, axis: int = 0) -> Any:
    """The slices along an axis."""
    return tuple(np.moveaxis(lift(operand), axis, 0))


@own
def collapse(operand: Any, start_dimension: int, stop_dimension: int | None = None) -> Any:
    """The axes from ``start_dimension`` to before ``stop_dimension`` as one."""
    x = lift(operand)
    axes = range(x.ndim)[start_dimension:stop_dimension]
    return x.reshape((*x.shape[: axes.start], prod(x.shape[k] for k in axes), *x.shape[axes.stop :]))


@own
def complex(x: Any, y: Any) -> Any:
    """x + 1j * y."""
    return lift(x) + 1j * lift(y)


@own
def shift_right_arithmetic(x: Any, y: Any) -> Any:
    """``x >> y`` with copies of the sign."""
    x = lift(x)
    signed = np.dtype(f"i{x.dtype.itemsize}")
    return (x.astype(signed) >> lift(y).astype(signed)).astype(x.dtype)


@own
def shift_right_logical(x: Any, y: Any) -> Any:
    """``x >> y`` with zeros."""
    x = lift(x)
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    return (x.astype(unsigned) >> lift(y).astype(unsigned)).astype(x.dtype)


@own
def fft(x: Any, fft_type: Any, fft_lengths: Sequence[int]) -> Any:
    """The Fourier transform over the last ``len(fft_lengths)`` axes: "FFT", "IFFT", "RFFT" or "IRFFT"."""
    name = str(getattr(fft_type, "name", fft_type)).lower()
    if name not in ("fft", "ifft", "rfft", "irfft"):
        raise ValueError(f"fft_type is one of FFT, IFFT, RFFT and IRFFT, got {fft_type!r}")
    x, axes = lift(x), tuple(range(-len(fft_lengths), 0))
    return getattr(np.fft, f"{name}n")(x, s=tuple(fft_lengths), axes=axes) if axes else x


class RoundingMethod(enum.Enum):
    """Where the middle between two integers goes: away from zero, or to the even one."""

    AWAY_FROM_ZERO = 0
    TO_NEAREST_EVEN = 1


class Precision(enum.Enum):
    """For programs of JAX: products are computed in the precision of their operands."""

    DEFAULT = 0
    HIGH = 1
    HIGHEST = 2


@own
def _away_from_zero(x: Any) -> Any:
    x = lift(x)
    half = np.abs(x - np.trunc(x)) == 0.5
    return np.where(half, np.trunc(x + np.copysign(0.5, x).astype(x.dtype)), np.rint(x))


def round(x: Any, rounding_method: RoundingMethod | int = RoundingMethod.AWAY_FROM_ZERO) -> Any:
    """The nearest integer, as a float."""
    even = RoundingMethod(rounding_method) is RoundingMethod.TO_NEAREST_EVEN
    return np.rint(x) if even else _away_from_zero(x)
