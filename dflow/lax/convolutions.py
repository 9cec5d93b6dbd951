"""Convolutions with the parameters of ``jax.lax``: any order of axes, strides, dilation of both sides, groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from dflow.lax.padding import padded, padtype_to_pads
from dflow.nn.windows import conv as correlated
from dflow.numpy.dispatch import own
from dflow.tracing.arrays.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

Axes = tuple[int, ...]


class ConvDimensionNumbers(NamedTuple):
    """Where the axes are: batch, channels and space of the images; out, in and space of kernels; and of results."""

    lhs_spec: Axes
    rhs_spec: Axes
    out_spec: Axes


def conv_dimension_numbers(
    lhs_shape: Sequence[int], rhs_shape: Sequence[int], dimension_numbers: Any
) -> ConvDimensionNumbers:
    """The axes that three strings such as ``("NHWC", "HWIO", "NHWC")`` name; None stands for ``NC..``, ``OI..``.

    Raises ValueError for strings that do not name every axis.
    """
    rank = len(lhs_shape)
    if isinstance(dimension_numbers, ConvDimensionNumbers):
        return dimension_numbers
    if dimension_numbers is None:
        first = tuple(range(rank))
        return ConvDimensionNumbers(first, first, first)
    images, kernels, results = dimension_numbers
    space = [c for c in kernels if c not in "OI"]
    orders = (images, ["N", "C", *space]), (kernels, ["O", "I", *space]), (results, ["N", "C", *space])
    if any(sorted(names) != sorted(wanted) or len(names) != rank for names, wanted in orders):
        raise ValueError(f"dimension_numbers {dimension_numbers!r} do not name the axes of {lhs_shape} and {rhs_shape}")
    return ConvDimensionNumbers(*(tuple(names.index(c) for c in wanted) for names, wanted in orders))


@own
def conv_general_dilated(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """The cross-correlation of images ``lhs`` and kernels ``rhs``.

    ``lhs_dilation`` puts zeros between the elements of the images (a transposed convolution), ``rhs_dilation`` between
    those of the kernels; ``padding`` is "SAME", "VALID" or a pair of widths for each axis of space, which may be
    negative. ``precision`` changes nothing. Raises ValueError where shapes do not fit.
    """
    numbers = conv_dimension_numbers(np.shape(lhs), np.shape(rhs), dimension_numbers)
    x, kernel = np.transpose(lift(lhs), numbers.lhs_spec), np.transpose(lift(rhs), numbers.rhs_spec)
    if preferred_element_type is not None:
        x, kernel = x.astype(preferred_element_type), kernel.astype(preferred_element_type)
    between = tuple(lhs_dilation or (1,) * (x.ndim - 2))
    apart = tuple(rhs_dilation or (1,) * (x.ndim - 2))
    if isinstance(padding, str):
        if any(d != 1 for d in between):
            raise ValueError(f"with lhs_dilation, padding must be widths, got {padding!r}; or use conv_transpose")
        reach = [d * (w - 1) + 1 for w, d in zip(kernel.shape[2:], apart)]
        padding = padtype_to_pads(x.shape[2:], reach, window_strides, padding)
    widths = [(0, 0, 0), (0, 0, 0), *((low, high, d - 1) for (low, high), d in zip(padding, between, strict=True))]
    x = padded(x, np.zeros((), x.dtype), widths)
    count = batch_group_count
    if x.shape[0] % count or kernel.shape[0] % count:
        raise ValueError(
            f"batch_group_count {count} divides not both {x.shape[0]} images and {kernel.shape[0]} kernels"
        )
    images, weights = (np.split(v, count) if count > 1 else [v] for v in (x, kernel))
    strides = tuple(window_strides)
    parts = [
        correlated.__wrapped__(v, w, strides, "VALID", apart, feature_group_count) for v, w in zip(images, weights)
    ]
    found = parts[0] if count == 1 else np.concatenate(parts, 1)
    return np.transpose(found, tuple(numpy.argsort(numbers.out_spec).tolist()))


@own
def conv(lhs: Any, rhs: Any, window_strides: Sequence[int], padding: str, precision: Any = None) -> Any:
    """``conv_general_dilated`` of (batch, channels, \\*space) and (out, in, \\*space)."""
    return conv_general_dilated.__wrapped__(lhs, rhs, window_strides, padding)


@own
def conv_with_general_padding(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    precision: Any = None,
) -> Any:
    """``conv`` with widths of padding and dilation."""
    return conv_general_dilated.__wrapped__(lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation)


_LAST = {1: "NHC", 2: "NHWC", 3: "NHWDC"}  # the orders that conv_transpose takes for granted, by the axes of space


@own
def conv_transpose(
    lhs: Any,
    rhs: Any,
    strides: Sequence[int],
    padding: Any,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
) -> Any:
    """The convolution that makes images larger by ``strides``; "SAME" to exactly so much, "VALID" with all of the rim.

    Channels are last unless ``dimension_numbers`` says otherwise. ``transpose_kernel`` takes the kernel of the
    convolution whose transpose it is: flipped in space, in and out exchanged.
    """
    kernel = lift(rhs)
    if dimension_numbers is None:
        order = _LAST[kernel.ndim - 2]
        dimension_numbers = (order, order[1:-1] + "IO", order)
    numbers = conv_dimension_numbers(np.shape(lhs), kernel.shape, dimension_numbers)
    out, into, *space = numbers.rhs_spec
    if isinstance(padding, str):
        apart = rhs_dilation or (1,) * len(space)
        reach = [d * (kernel.shape[k] - 1) + 1 for k, d in zip(space, apart)]
        padding = [_rim(r, s, padding) for r, s in zip(reach, strides)]
    if transpose_kernel:
        kernel = np.swapaxes(np.flip(kernel, tuple(space)), out, into)
    once = (1,) * len(space)
    return conv_general_dilated.__wrapped__(lhs, kernel, once, padding, tuple(strides), rhs_dilation, numbers)


def _rim(reach: int, stride: int, padding: str) -> tuple[int, int]:
    """The widths for which ``n`` elements, ``stride`` apart, become ``n * stride`` ("SAME") or all that there are."""
    whole = reach + stride - 2
    if padding == "SAME":
        low = reach - 1 if stride > reach - 1 else -(-whole // 2)
        return low, whole - low
    if padding == "VALID":
        return reach - 1, whole + max(reach - stride, 0) - (reach - 1)
    raise ValueError(f"padding must be 'SAME', 'VALID' or widths, got {padding!r}")
