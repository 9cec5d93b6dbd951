"""What is computed from the factors of a matrix, and has a derivative simpler than theirs.

The operands ``packed, pivots, permutation`` are the factors of the first operand, as ``lu`` gives them: a result is a
function of the matrix alone, and the derivative is taken by the matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.ops.factorizations import POSITIVE, TALL, WIDE, A, B, each, matrices
from dflow.ir.ops.matrices import (
    SINGLE_AND_DOUBLE,
    adjoint,
    all_of,
    among,
    as_columns,
    diagonal,
    identity,
    is_complex,
    magnitude,
    permute_rows,
    real,
    real_type,
    reduced,
    swap,
)
from dflow.ir.registry import OpDef, Sample, define, require
from dflow.ir.types import INTEGERS, TensorType

# The factors of A.
PACKED = [[4.0, 1.0, 0.5], [0.0625, 4.9375, -2.03125], [-0.25, 0.6582278481012658, 3.462025316455696]]
PIVOTS, PERMUTATION = [0, 2, 2], [0, 2, 1]
FACTORS = (A, PACKED, PIVOTS, PERMUTATION)
PAIR = tuple([x, x] for x in FACTORS)
SINGULAR = "Singular matrix"


def _factored(types: Any, count: int) -> TensorType:
    a = matrices(types, count, square=True)
    _, packed, pivots, permutation, *_ = types
    require(packed == a, f"the factors {packed} do not fit the matrices {a}")
    for t in (pivots, permutation):
        require(t.dtype in INTEGERS and t.shape == a.shape[:-1], f"{t} does not fit the matrices {a}")
    return a


def is_regular(b: Any, packed: Any) -> Any:
    """Whether all matrices have an inverse, as far as their factors tell."""
    return all_of(b, b.ne(diagonal(b, packed), 0.0))


# -- linear systems --------------------------------------------------------------------------------------------------


def _solve_infer(attrs: Any, types: Any) -> list[TensorType]:
    a = _factored(types, 5)
    y = types[4]
    fits = y.dtype == a.dtype and y.rank == a.rank and y.is_static and y.shape[:-1] == a.shape[:-1]
    require(fits, f"right sides {y} do not fit the matrices {a}")
    return [y]


def _solve(attrs: Any, a: Any, packed: Any, pivots: Any, permutation: Any, y: Any) -> Any:
    return each(lambda a, y: (np.linalg.solve(a.T if attrs["transpose"] else a, y),), a, y)[0]


def _solve_decomposition(b: Any, attrs: Any, xs: Any) -> list[Any]:
    _, packed, _, permutation, y = xs
    low = {"lower": True, "transpose": attrs["transpose"], "unit": True}
    up = {"lower": False, "transpose": attrs["transpose"], "unit": False}
    if attrs["transpose"]:
        z = b.triangular_solve(packed, b.triangular_solve(packed, y, **up), **low)
        return [permute_rows(b, z, _inverse_permutation(b, permutation))]
    return [b.triangular_solve(packed, b.triangular_solve(packed, permute_rows(b, y, permutation), **low), **up)]


def _inverse_permutation(b: Any, p: Any) -> Any:
    *batch, n = p.type.shape
    count = int(np.prod(batch))
    flat = b.reshape(p, shape=(count, n))
    which, order = (b.broadcast(b.iota(size=k), shape=(count, n), dims=(d,)) for k, d in ((count, 0), (n, 1)))
    return b.reshape(b.scatter(b.zeros(order.type), order, which, flat), shape=p.type.shape)


def _solve_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """x' = A^-1 (y' - A' x)."""
    t, u = ts[0], ts[4]
    if t is not None:
        moved = b.matmul(swap(b, t) if attrs["transpose"] else t, ys[0])
        u = b.neg(moved) if u is None else b.sub(u, moved)
    return [None if u is None else b.lu_solve(*xs[:4], u, **attrs)]


define(
    OpDef(
        "lu_solve",
        "x with a @ x = y (a.T @ x = y with `transpose`); operands a, packed, pivots, permutation, y",
        _solve_infer,
        _solve,
        _solve_jvp,
        lambda b, attrs, xs, cts: [*[None] * 4, b.lu_solve(*xs[:4], cts[0], transpose=not attrs["transpose"])],
        ((4,),),
        SINGLE_AND_DOUBLE,
        decomposition=_solve_decomposition,
        samples=(
            Sample((*FACTORS, B), {"transpose": False}, integer=(2, 3)),
            Sample((*FACTORS, B), {"transpose": True}, integer=(2, 3)),
            Sample((*PAIR, [B, B]), {"transpose": True}, integer=(2, 3)),
        ),
    )
)


# -- determinants ------------------------------------------------------------------------------------------------------


def _scalars_infer(attrs: Any, types: Any) -> list[TensorType]:
    a = _factored(types, 4)
    return [a.with_shape(a.shape[:-2])]


def parity(b: Any, packed: Any, pivots: Any) -> Any:
    """The sign of the permutation, 1 or -1."""
    *batch, n = pivots.type.shape
    own = b.broadcast(b.convert(b.iota(size=n), dtype=pivots.type.dtype), shape=(*batch, n), dims=(len(batch),))
    t = packed.type.with_shape((*batch, n))
    return reduced(b, "prod", b.select(b.eq(pivots, own), b.full(1.0, t), b.full(-1.0, t)), 1)


def _det_decomposition(b: Any, attrs: Any, xs: Any) -> list[Any]:
    _, packed, pivots, _ = xs
    return [b.mul(parity(b, packed, pivots), reduced(b, "prod", diagonal(b, packed), 1))]


def _det_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """The sum of A' times the cofactors. Those are det A * A^-T, and polynomials where A has no inverse."""
    a, packed = xs[:2]
    n = a.type.static_shape[-1]
    if ts[0] is None or n == 0:
        return [None]

    def by_inverse(b: Any) -> list[Any]:
        inverse = b.lu_solve(*xs, identity(b, a.type), transpose=True)
        return [b.mul(inverse, as_columns(b, as_columns(b, ys[0], n), n))]

    (cofactors,) = b.if_(is_regular(b, packed), by_inverse, lambda b: [swap(b, _adjugate(b, a))])
    return [reduced(b, "sum", b.mul(cofactors, ts[0]), 2)]


def _adjugate(b: Any, a: Any) -> Any:
    """By the method of Faddeev and LeVerrier, whose intermediate results are polynomials in the elements of ``a``."""
    n = a.type.static_shape[-1]
    one = identity(b, a.type)

    def step(b: Any, k: Any, m: Any) -> list[Any]:
        product = b.matmul(a, m)
        trace = reduced(b, "sum", diagonal(b, product), 1)
        count = b.broadcast_scalar(b.convert(b.add(k, 1), dtype=real_type(a.type.dtype)), trace.type.shape)
        part = b.mul(trace, among(b, b.div(1.0, count), trace)) if is_complex(trace) else b.div(trace, count)
        return [b.sub(product, b.mul(one, as_columns(b, as_columns(b, part, n), n)))]

    (m,) = b.for_loop(b.index(n - 1), [one], step)
    return m if n % 2 else b.neg(m)


define(
    OpDef(
        "det",
        "determinants; operands a, packed, pivots, permutation",
        _scalars_infer,
        lambda attrs, a, *factors: np.asarray(np.linalg.det(a)),
        _det_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        decomposition=_det_decomposition,
        samples=(
            Sample(FACTORS, integer=(2, 3)),
            Sample(PAIR, integer=(2, 3)),
            Sample(([[0.0, 2.0], [0.0, 3.0]], [[0.0, 2.0], [0.0, 3.0]], [0, 1], [0, 1]), integer=(2, 3)),
        ),
    )
)


def _logarithms_infer(attrs: Any, types: Any) -> list[TensorType]:
    (t,) = _scalars_infer(attrs, types)
    return [t.with_dtype(real_type(t.dtype))]


def _logdet_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """The (real part of the) trace of A^-1 A'."""
    a, packed = xs[:2]
    if ts[0] is None:
        return [None]
    message = "the logarithm of a determinant has no derivative where the determinant is zero"
    fine = b.guard(packed, is_regular(b, packed), error="LinAlgError", message=message)
    inverse = b.lu_solve(a, fine, *xs[2:], identity(b, a.type), transpose=True)
    return [real(b, reduced(b, "sum", b.mul(inverse, ts[0]), 2))]


define(
    OpDef(
        "log_abs_det",
        "logarithms of the absolute values of determinants; operands a, packed, pivots, permutation",
        _logarithms_infer,
        lambda attrs, a, *factors: np.asarray(np.linalg.slogdet(a)[1]),
        _logdet_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        decomposition=lambda b, attrs, xs: [reduced(b, "sum", b.log(magnitude(b, diagonal(b, xs[1]))), 1)],
        samples=(Sample(FACTORS, integer=(2, 3)), Sample(PAIR, integer=(2, 3))),
    )
)


# -- the pseudoinverse -------------------------------------------------------------------------------------------------


def _pinv_infer(attrs: Any, types: Any) -> list[TensorType]:
    x = matrices(types, len(types))
    *batch, m, n = x.static_shape
    limit = TensorType(real_type(x.dtype), tuple(batch))
    require(len(types) == 1 or list(types[1:]) == [limit], f"takes matrices {x} and limits {limit}, got {types}")
    return [x.with_shape((*batch, n, m))]


def _pinv_decomposition(b: Any, attrs: Any, xs: Any) -> list[Any]:
    x, *limits = xs
    u, s, vh = b.append("svd", [x], {"full": False})
    if 0 in s.type.shape:
        return [b.zeros(_pinv_infer(attrs, [x.type])[0])]
    limit = b.mul(reduced(b, "max", s, 1), limits[0] if limits else attrs["rcond"])
    large = b.gt(s, b.broadcast(limit, shape=s.type.shape, dims=tuple(range(s.type.rank - 1))))
    inverse = b.select(large, b.div(1.0, b.select(large, s, b.full(1.0, s.type))), b.zeros(s.type))
    return [b.matmul(b.mul(adjoint(b, vh), among(b, _columns_of(b, inverse, vh), vh)), adjoint(b, u))]


def _columns_of(b: Any, d: Any, vh: Any) -> Any:
    return swap(b, as_columns(b, d, vh.type.shape[-1]))


def _pinv_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """Golub and Pereyra (1973), for changes that leave the rank as it is."""
    a, p, t = xs[0], ys[0], ts[0]
    if t is None:
        return [None]
    turned, p_turned = adjoint(b, t), adjoint(b, p)
    total = b.neg(b.matmul(p, b.matmul(t, p)))
    left = b.matmul(b.matmul(p, p_turned), turned)
    total = b.add(total, b.sub(left, b.matmul(b.matmul(left, a), p)))
    right = b.matmul(turned, b.matmul(p_turned, p))
    return [b.add(total, b.sub(right, b.matmul(p, b.matmul(a, right))))]


define(
    OpDef(
        "pinv",
        "pseudoinverses; singular values up to `rcond` (or a second operand) times the largest count as zero",
        _pinv_infer,
        lambda attrs, a, *limits: np.linalg.pinv(a, rcond=limits[0] if limits else attrs["rcond"]),
        _pinv_jvp,
        dtypes=SINGLE_AND_DOUBLE,
        decomposition=_pinv_decomposition,
        samples=tuple(Sample((x,), {"rcond": 1e-6}) for x in (POSITIVE, TALL, WIDE, [TALL, TALL]))
        + (Sample(([TALL, TALL], [1e-6, 0.0]), {"rcond": None}, smooth=False),),
    )
)
