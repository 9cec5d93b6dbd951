"""Products of vectors, matrices and tensors; all of them come down to one batched matrix product.

A product without a contracted axis is a multiplication, and one without a free axis on either side a multiplication and
a sum, which fuse with what stands around them.
"""

from __future__ import annotations

import math
import operator
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.numpy import support as s
from dflow.numpy.contraction import contract
from dflow.numpy.dispatch import implements
from dflow.numpy.elementwise import apply
from dflow.numpy.reductions import SUM, reduce
from dflow.numpy.shapes import diagonal, flat, moveaxis
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder


def operands(*args: Any, dtype: Any = None) -> list[Value]:
    """Arrays of one dtype; a Python number counts as an array does here, as in NumPy's products."""
    arrays = [wrap(lift(a).value) for a in args]
    common = s.result_type(*arrays) if dtype is None else np.dtype(dtype)
    return [s.cast_operand(a, common) for a in arrays]


def mismatch(x: Value, y: Value) -> ValueError:
    inner = y.type.shape[-2 if y.type.rank > 1 else 0]
    return ValueError(
        f"matmul: mismatch in the inner dimension: shapes {s.show(x.type.shape)} and {s.show(y.type.shape)} "
        f"(size {inner} is different from {x.type.shape[-1]})"
    )


def matrix_product(x: Value, y: Value) -> Value:
    """The product of stacks of matrices, their leading axes broadcast; bools are joined by `or` of `and`."""
    b = builder()
    if x.type.dtype.kind == "b":
        return s.cast(matrix_product(s.cast(x, np.int64), s.cast(y, np.int64)), bool)
    inner = sizes.agreed(x.type.shape[-1], y.type.shape[-2])
    if inner is None:
        raise mismatch(x, y)
    if x.type.rank > y.type.rank == 2 and x.type.is_static:  # one matrix for a stack: all rows in one product
        *rows, k = x.type.static_shape
        product = b.matmul(s.reshaped(x, (math.prod(rows), k)), sizes.recast(y, (inner, y.type.shape[-1])))
        return s.reshaped(product, (*rows, y.type.shape[-1]))
    lead = s.broadcast_shapes(x.type.shape[:-2], y.type.shape[:-2])
    x = s.expand(x, (*lead, x.type.shape[-2], inner))
    return b.matmul(x, s.expand(y, (*lead, inner, y.type.shape[-1])))


def vector_product(x: Value, y: Value) -> Value:
    """The sum of products along the last axis."""
    product = apply(np.multiply, wrap(x), wrap(y))
    return reduce(SUM, product, -1, product.dtype).value


@implements(np.matmul, np.linalg.matmul)
def matmul(x1: Any, x2: Any, /, out: Any = None, *, dtype: Any = None, casting: str = "same_kind") -> Array:
    x, y = operands(x1, x2, dtype=dtype)
    if 0 in (x.type.rank, y.type.rank):
        raise ValueError("matmul: Input operand does not have enough dimensions (has 0, needs at least 1)")
    return s.result(_matmul(x, y), out)


def _matmul(x: Value, y: Value) -> Value:
    if x.type.rank == y.type.rank == 1:
        if not s.same_shape(x.type.shape, y.type.shape):
            raise ValueError(f"matmul: shapes {s.show(x.type.shape)} and {s.show(y.type.shape)} do not fit")
        return vector_product(x, y)
    if sizes.agreed(x.type.shape[-1], y.type.shape[-2 if y.type.rank > 1 else 0]) is None:
        raise mismatch(x, y)
    rows = s.reshaped(x, (1, *x.type.shape)) if x.type.rank == 1 else x
    columns = s.reshaped(y, (*y.type.shape, 1)) if y.type.rank == 1 else y
    z = matrix_product(rows, columns)
    shape = z.type.shape
    if x.type.rank == 1:
        return s.reshaped(z, (*shape[:-2], shape[-1]))
    return s.reshaped(z, shape[:-1]) if y.type.rank == 1 else z


@implements(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Array:
    x, y = operands(a, b)
    if 0 in (x.type.rank, y.type.rank):
        return apply(np.multiply, wrap(x), wrap(y), out=out)
    at = max(y.type.rank - 2, 0)
    if sizes.agreed(x.type.shape[-1], y.type.shape[at]) is None:
        shapes = f"{s.show(x.type.shape)} and {s.show(y.type.shape)}"
        raise ValueError(
            f"shapes {shapes} not aligned: {x.type.shape[-1]} (dim {x.type.rank - 1}) != {y.type.shape[at]} (dim {at})"
        )
    if x.type.rank <= 2 and y.type.rank <= 2:
        return s.result(_matmul(x, y), out)
    return s.result(_tensordot(x, y, (x.type.rank - 1,), (at,)), out)


@implements(np.vdot)
def vdot(a: Any, b: Any, /) -> Array:
    x, y = map(flat, operands(a, b))
    if not s.same_shape(x.type.shape, y.type.shape):
        raise ValueError(f"cannot take the vdot of shapes {s.show(s.dims(a))} and {s.show(s.dims(b))}")
    return wrap(vector_product(_conjugated(x), y))


def _conjugated(x: Value) -> Value:
    return apply(np.conjugate, wrap(x)).value if x.type.dtype.kind == "c" else x


@implements(np.vecdot, np.linalg.vecdot)
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Array:
    x, y = operands(x1, x2)
    x, y = (moveaxis.__wrapped__(wrap(v), axis, -1).value for v in (x, y))
    if sizes.agreed(x.type.shape[-1], y.type.shape[-1]) is None:
        raise ValueError(f"vecdot: shapes {s.show(x.type.shape)} and {s.show(y.type.shape)} do not fit")
    return wrap(vector_product(_conjugated(x), y))


@implements(np.inner)
def inner(a: Any, b: Any, /) -> Array:
    x, y = operands(a, b)
    if 0 in (x.type.rank, y.type.rank):
        return apply(np.multiply, wrap(x), wrap(y))
    if sizes.agreed(x.type.shape[-1], y.type.shape[-1]) is None:
        raise ValueError(
            f"shapes {s.show(x.type.shape)} and {s.show(y.type.shape)} not aligned: "
            f"{x.type.shape[-1]} (dim {x.type.rank - 1}) != {y.type.shape[-1]} (dim {y.type.rank - 1})"
        )
    return wrap(_tensordot(x, y, (x.type.rank - 1,), (y.type.rank - 1,)))


@implements(np.outer, np.linalg.outer)
def outer(a: Any, b: Any, out: Any = None) -> Array:
    x, y = (wrap(flat(lift(v).value)) for v in (a, b))
    return apply(np.multiply, wrap(s.reshaped(x.value, (*s.dims(x), 1))), y, out=out)


@implements(np.tensordot, np.linalg.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Array:
    x, y = operands(a, b)
    m, n = x.type.rank, y.type.rank
    if isinstance(axes, int | np.integer):
        left, right = tuple(range(m - int(axes), m)), tuple(range(int(axes)))
    else:
        left, right = (tuple(np.atleast_1d(k).tolist()) for k in axes)
    left, right = tuple(s.one_axis(k, m) for k in left), tuple(s.one_axis(k, n) for k in right)
    if len(set(left)) < len(left) or len(set(right)) < len(right):
        raise ValueError("duplicate axes are not allowed in tensordot")
    if [x.type.shape[k] for k in left] != [y.type.shape[k] for k in right]:
        shapes = f"{s.show(x.type.shape)} over {left}, {s.show(y.type.shape)} over {right}"
        raise ValueError(f"shape-mismatch for sum: {shapes}")
    return wrap(_tensordot(x, y, left, right))


def _tensordot(x: Value, y: Value, left: Sequence[int], right: Sequence[int]) -> Value:
    names = list(range(x.type.rank + y.type.rank))
    mine, other = names[: x.type.rank], names[x.type.rank :]
    for i, j in zip(left, right):
        other[j] = mine[i]
    kept = [k for i, k in enumerate(mine) if i not in left] + [k for j, k in enumerate(other) if j not in right]
    return contract([x, y], [mine, other], kept)


@implements(np.einsum)
def einsum(subscripts: Any, /, *args: Any, out: Any = None, dtype: Any = None, **kwargs: Any) -> Array:
    """Sums of products by subscripts (letters, an ellipsis, with or without the result's; or lists of numbers)."""
    if not isinstance(subscripts, str):
        subscripts, args = _from_lists([subscripts, *args])
    values = operands(*args, dtype=dtype)
    terms, result = parse(subscripts, [v.type.rank for v in values])
    return s.result(contract(values, terms, result), out)


def _from_lists(args: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """``einsum(x, [0, 1], y, [1, 2], [0, 2])`` with letters."""
    letters: dict[int, str] = {}

    def term(axes: Any) -> str:
        return "".join("..." if k is Ellipsis else letters[k] for k in axes)

    terms = list(args[1::2]) + list(args[-1:] if len(args) % 2 else [])
    numbers = sorted({operator.index(k) for axes in terms for k in axes if k is not Ellipsis})
    letters.update(zip(numbers, string.ascii_letters))
    text = ",".join(map(term, args[1::2]))
    return (f"{text}->{term(args[-1])}" if len(args) % 2 else text), tuple(args[: len(args) // 2 * 2 : 2])


def parse(subscripts: str, ranks: Sequence[int]) -> tuple[list[list[Any]], list[Any]]:
    """The names of the operands' axes and of the result's; axes under an ellipsis are named by negative numbers."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"einsum subscripts {subscripts!r} name {len(terms)} operands, {len(ranks)} were given")
    names: list[list[Any]] = []
    for term, rank in zip(terms, ranks):
        letters = term.replace("...", "")
        hidden = rank - len(letters)
        if hidden < 0 or (hidden and "..." not in term) or not (letters == "" or letters.isalpha()):
            raise ValueError(f"einsum subscripts {term!r} do not fit an operand with {rank} axes")
        before, _, after = term.partition("...")
        names.append([*before, *range(-hidden, 0), *after] if "..." in term else list(term))
    widest = max((sum(isinstance(k, int) for k in n) for n in names), default=0)
    if not arrow:
        once = sorted(k for k in set(left) if k.isalpha() and left.count(k) == 1)
        return names, [*range(-widest, 0), *once]
    before, _, after = right.partition("...")
    return names, [*before, *(range(-widest, 0) if "..." in right else ()), *after]


@implements(np.kron)
def kron(a: Any, b: Any) -> Array:
    x, y = operands(a, b)
    rank = max(x.type.rank, y.type.rank)
    rows, columns = (s.static((*(1,) * (rank - v.type.rank), *v.type.shape), "np.kron") for v in (x, y))
    x = s.reshaped(x, tuple(d for n in rows for d in (n, 1)))
    y = s.reshaped(y, tuple(d for n in columns for d in (1, n)))
    product = apply(np.multiply, wrap(x), wrap(y)).value
    return wrap(s.reshaped(product, tuple(math.prod(pair) for pair in zip(rows, columns))))


@implements(np.cross)
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None) -> Array:
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = operands(a, b)
    x, y = (moveaxis.__wrapped__(wrap(v), k, -1).value for v, k in ((x, axisa), (y, axisb)))
    if not {x.type.shape[-1], y.type.shape[-1]} <= {2, 3}:
        raise ValueError(
            "incompatible dimensions for cross product (dimension must be 2 or 3): shapes "
            f"{s.show(x.type.shape)} and {s.show(y.type.shape)}"
        )
    (x0, x1, *x3), (y0, y1, *y3) = (
        [wrap(s.part(v, v.type.rank - 1, k)) for k in range(v.type.shape[-1])] for v in (x, y)
    )
    if not x3 and not y3:  # vectors of a plane: the component across it
        return x0 * y1 - x1 * y0
    x2, y2 = (w[0] if w else 0 for w in (x3, y3))
    parts = [(x1 * y2 - x2 * y1), (x2 * y0 - x0 * y2), (x0 * y1 - x1 * y0)]
    z = wrap(s.join([s.reshaped(p.value, (*s.dims(p), 1)) for p in parts], parts[0].ndim))
    return moveaxis.__wrapped__(z, -1, axisc)


@implements(np.linalg.cross)
def cross_of_three(x1: Any, x2: Any, /, *, axis: int = -1) -> Array:
    if {lift(x).shape[axis] for x in (x1, x2)} != {3}:
        raise ValueError("Both input arrays must be (arrays of) 3-dimensional vectors")
    return cross.__wrapped__(x1, x2, axis=axis)


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Array:
    return reduce(SUM, diagonal.__wrapped__(a, offset, axis1, axis2), -1, dtype, out)


@implements(np.linalg.trace)
def matrix_trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Array:
    return trace.__wrapped__(x, offset, -2, -1, dtype)


@implements(getattr(np, "matvec", None))  # since NumPy 2.2
def matvec(x1: Any, x2: Any, /, out: Any = None, *, dtype: Any = None) -> Array:
    return s.result(_matvec(*operands(x1, x2, dtype=dtype)), out)


@implements(getattr(np, "vecmat", None))
def vecmat(x1: Any, x2: Any, /, out: Any = None, *, dtype: Any = None) -> Array:
    return s.result(_vecmat(*operands(x1, x2, dtype=dtype)), out)


def _matvec(x: Value, y: Value) -> Value:
    z = matrix_product(x, s.reshaped(y, (*y.type.shape, 1)))
    return s.reshaped(z, z.type.shape[:-1])


def _vecmat(x: Value, y: Value) -> Value:
    x = _conjugated(x)
    z = matrix_product(s.reshaped(x, (*x.type.shape[:-1], 1, x.type.shape[-1])), y)
    return s.reshaped(z, (*z.type.shape[:-2], z.type.shape[-1]))
