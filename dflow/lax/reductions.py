"""Reductions with any function of two elements, over axes and over windows; and products over chosen axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy

from dflow import trees
from dflow.lax.control import fori_loop
from dflow.lax.padding import padded, padtype_to_pads
from dflow.numpy.dispatch import own
from dflow.tracing.arrays.lift import lift
from dflow.tracing.python.calls import call

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

_WHOLE: dict[Any, Any] = {  # a function of two elements, and that of whole axes
    numpy.add: np.sum,
    numpy.multiply: np.prod,
    numpy.maximum: np.max,
    numpy.minimum: np.min,
    numpy.logical_and: np.all,
    numpy.logical_or: np.any,
}


def _known(computation: Any) -> Any:
    return _WHOLE.get(computation) if isinstance(computation, numpy.ufunc) else None


@own
def reduce(operands: Any, init_values: Any, computation: Callable[..., Any], dimensions: Sequence[int]) -> Any:
    """``computation`` folded over the axes ``dimensions``, from ``init_values`` on.

    Operands are an array, or a tree of arrays of one shape; ``computation(a, b)`` takes and gives what is of their
    structure, and must be associative: it is called with whole arrays, elementwise.
    """
    arrays, spec = trees.flatten(operands)
    arrays = [lift(x) for x in arrays]
    first = [lift(v).astype(x.dtype) for v, x in zip(trees.flatten(init_values)[0], arrays, strict=True)]
    axes = tuple(sorted(range(arrays[0].ndim)[d] for d in dimensions))
    whole = _known(computation)
    if whole is not None and len(arrays) == 1 and 0 not in arrays[0].shape:
        found = whole(arrays[0], axis=axes).astype(arrays[0].dtype)
        return trees.unflatten(spec, [computation(first[0], found)])
    rows = [_rows(x, axes) for x in arrays]
    start = [np.broadcast_to(v, r.shape[1:]).copy() for v, r in zip(first, rows)]

    def step(k: Any, state: Any) -> Any:
        return call(computation, state, trees.unflatten(spec, [r[k] for r in rows]))

    return fori_loop(0, rows[0].shape[0], step, trees.unflatten(spec, start))


def _rows(x: Any, axes: tuple[int, ...]) -> Any:
    """``x`` with what is folded in one axis, the first."""
    kept = [n for k, n in enumerate(x.shape) if k not in axes]
    moved = np.moveaxis(x, axes, range(len(axes)))
    return moved.reshape((prod(x.shape[a] for a in axes), *kept))


def _over_axes(name: str, of: Any, doc: str) -> Any:
    def reduced(operand: Any, axes: Sequence[int]) -> Any:
        x = lift(operand)
        return of(x, axis=tuple(axes)).astype(x.dtype)

    reduced.__name__ = reduced.__qualname__ = name
    reduced.__doc__ = f"{doc} over axes, in the dtype of the operand."
    return own(reduced)


reduce_sum = _over_axes("reduce_sum", np.sum, "The sum")
reduce_prod = _over_axes("reduce_prod", np.prod, "The product")
reduce_max = _over_axes("reduce_max", np.max, "The maximum")
reduce_min = _over_axes("reduce_min", np.min, "The minimum")
reduce_and = _over_axes("reduce_and", np.bitwise_and.reduce, "The bits that all have")
reduce_or = _over_axes("reduce_or", np.bitwise_or.reduce, "The bits that any has")
reduce_xor = _over_axes("reduce_xor", np.bitwise_xor.reduce, "The bits that an odd number has")


@own
def reduce_window(
    operand: Any,
    init_value: Any,
    computation: Callable[..., Any],
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: Any = "VALID",
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
) -> Any:
    """``computation`` folded over every window, from ``init_value`` on, which is also what the padding holds.

    The operand is an array, or a tree of arrays of one shape. ``computation`` must be associative, and works
    elementwise on whole arrays; windows have a size for each axis. ``padding`` is "SAME", "VALID" or pairs of widths.
    Of equal largest elements, all share the derivative.
    """
    arrays, spec = trees.flatten(operand)
    arrays = [lift(x) for x in arrays]
    rank, shape = arrays[0].ndim, arrays[0].shape
    once = (1,) * rank
    strides, apart = tuple(window_strides or once), tuple(window_dilation or once)
    between = tuple(base_dilation or once)
    first = [lift(v).astype(x.dtype) for v, x in zip(trees.flatten(init_value)[0], arrays, strict=True)]
    spans = [(n - 1) * d + 1 if n else 0 for n, d in zip(shape, between)]
    reach = [(w - 1) * d + 1 for w, d in zip(window_dimensions, apart, strict=True)]
    pads = padtype_to_pads(spans, reach, strides, padding) if isinstance(padding, str) else padding
    config = [(low, high, d - 1) for (low, high), d in zip(pads, between, strict=True)]
    found = trees.unflatten(spec, [padded(x, v, config) for x, v in zip(arrays, first)])
    for axis, (size, stride, d) in enumerate(zip(window_dimensions, strides, apart)):
        found = _folded(found, computation, axis, size, stride, d)
    filled = [np.broadcast_to(v, x.shape) for v, x in zip(first, trees.flatten(found)[0])]
    return call(computation, trees.unflatten(spec, filled), found)


def _folded(x: Any, computation: Callable[..., Any], axis: int, size: int, stride: int, apart: int) -> Any:
    """The windows along one axis of every array in a tree."""
    length = trees.flatten(x)[0][0].shape[axis]
    count = max(0, (length - apart * (size - 1) - 1) // stride + 1)
    whole = (slice(None),) * axis
    total = None
    for k in range(size):
        begin = k * apart
        window = (*whole, slice(begin, begin + stride * max(count - 1, 0) + min(count, 1), stride))
        part = trees.map_leaves(lambda v, window=window: v[window], x)
        total = part if total is None else call(computation, total, part)
    return total


@own
def dot_general(
    lhs: Any,
    rhs: Any,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """The product of arrays summed over chosen axes, ``((lhs, rhs) axes summed over, (lhs, rhs) axes of the batch)``.

    The axes of the result are those of the batch, the others of ``lhs``, the others of ``rhs``. ``precision`` changes
    nothing.
    """
    x, y = lift(lhs), lift(rhs)
    if preferred_element_type is not None:
        x, y = x.astype(preferred_element_type), y.astype(preferred_element_type)
    (summed, with_), (batch, of) = dimension_numbers
    left, right = list(range(x.ndim)), list(range(x.ndim, x.ndim + y.ndim))
    for a, b in (*zip(summed, with_, strict=True), *zip(batch, of, strict=True)):
        if x.shape[a] != y.shape[b]:
            raise ValueError(f"axis {a} of {x.shape} and axis {b} of {y.shape} have different sizes")
        right[b] = left[a]
    shared = [left[a] for a in batch]
    gone = {*shared, *(left[a] for a in summed)}
    result = [*shared, *(k for k in (*left, *right) if k not in gone)]
    letters = [chr(97 + k) if k < 26 else chr(65 + k - 26) for k in range(x.ndim + y.ndim)]
    text = ["".join(letters[k] for k in axes) for axes in (left, right, result)]
    return np.einsum(f"{text[0]},{text[1]}->{text[2]}", x, y)


@own
def batch_matmul(lhs: Any, rhs: Any, precision: Any = None) -> Any:
    """Products of stacks of matrices: ``np.matmul``."""
    return np.matmul(lift(lhs), lift(rhs))
