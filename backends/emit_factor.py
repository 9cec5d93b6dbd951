"""Factorizations of matrices by loops of our own: for small matrices, and where there is no LAPACK.

The methods are the plain ones of Golub and Van Loan, "Matrix Computations" (4th edition): 3.1 (triangular systems), 3.4
(elimination with row pivoting), 4.2 (Cholesky), 5.1 and 5.2 (Householder reflections).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from dflow.backends.emit_core import Emitter
from dflow.backends.emit_scalar import intrinsic
from dflow.backends.emit_types import I1, ONE, ZERO, constant, index
from dflow.ir.core import Value

At = list[ir.Value]
CONTRACT = ("contract",)


def between(e: Emitter, first: ir.Value, stop: ir.Value, body: Callable[[ir.Value], Any]) -> None:
    """``body(i)`` for i in first .. stop-1."""
    e.repeat(e.builder.sub(stop, first), lambda k: body(e.add(first, k)))


def sum_between(
    e: Emitter, zero: ir.Value, first: ir.Value, stop: ir.Value, term: Callable[[ir.Value], ir.Value]
) -> ir.Value:
    """The sum of ``term(i)`` for i in first .. stop-1, begun with ``zero``."""
    b = e.builder
    step = lambda k, total: [b.fadd(total, term(e.add(first, k)), flags=CONTRACT)]  # noqa: E731
    return e.loop(b.sub(stop, first), [zero], step)[0]


def cholesky(e: Emitter, x: Value, y: Value, batch: At) -> None:
    """Row by row; all NaN when a pivot is not positive."""
    b, dtype, n = e.builder, y.type.dtype, index(y.type.static_shape[-1])
    zero = constant(dtype, 0)

    def row(i: ir.Value, fine: ir.Value) -> list[ir.Value]:
        def rest(j: ir.Value) -> ir.Value:
            product = lambda p: b.fmul(e.load(y, [*batch, i, p]), e.load(y, [*batch, j, p]))  # noqa: E731
            return b.fsub(e.load(x, [*batch, i, j]), sum_between(e, zero, ZERO, j, product))

        between(e, ZERO, i, lambda j: e.store(y, [*batch, i, j], b.fdiv(rest(j), e.load(y, [*batch, j, j]))))
        pivot = rest(i)
        e.store(y, [*batch, i, i], intrinsic(b, "llvm.sqrt", pivot))
        between(e, e.add(i, ONE), n, lambda j: e.store(y, [*batch, i, j], zero))
        return [b.and_(fine, b.fcmp_ordered(">", pivot, zero))]

    (fine,) = e.loop(n, [I1(1)], row)
    with b.if_then(b.not_(fine), likely=False):
        nan = constant(dtype, math.nan)
        e.repeat(n, lambda i: e.repeat(n, lambda j: e.store(y, [*batch, i, j], nan)))


def lu(e: Emitter, x: Value, y: Value, pivots: Value, permutation: Value, batch: At) -> None:
    b, dtype, n = e.builder, y.type.dtype, index(y.type.static_shape[-1])
    zero = constant(dtype, 0)
    e.nest(y.type.shape[-2:], lambda at: e.store(y, [*batch, *at], e.load(x, [*batch, *at])))
    e.repeat(n, lambda k: e.store(permutation, [*batch, k], k))

    def exchange(v: Value, p: At, q: At) -> None:
        mine, other = (e.load(v, [*batch, *at]) for at in (p, q))
        e.store(v, [*batch, *p], other)
        e.store(v, [*batch, *q], mine)

    def step(k: ir.Value) -> None:
        def larger(i: ir.Value, most: ir.Value, at: ir.Value) -> list[ir.Value]:
            row = e.add(k, i)
            size = intrinsic(b, "llvm.fabs", e.load(y, [*batch, row, k]))
            more = b.fcmp_ordered(">", size, most)
            return [b.select(more, size, most), b.select(more, row, at)]

        _, row = e.loop(b.sub(n, k), [constant(dtype, -1), k], larger)
        e.store(pivots, [*batch, k], row)
        exchange(permutation, [k], [row])
        e.repeat(n, lambda j: exchange(y, [k, j], [row, j]))
        pivot = e.load(y, [*batch, k, k])

        def eliminate(i: ir.Value) -> None:
            ratio = b.fdiv(e.load(y, [*batch, i, k]), pivot)
            factor = b.select(b.fcmp_ordered("==", pivot, zero), zero, ratio)
            e.store(y, [*batch, i, k], factor)

            def element(j: ir.Value) -> None:
                product = b.fmul(factor, e.load(y, [*batch, k, j]), flags=CONTRACT)
                e.store(y, [*batch, i, j], b.fsub(e.load(y, [*batch, i, j]), product, flags=CONTRACT))

            between(e, e.add(k, ONE), n, element)

        between(e, e.add(k, ONE), n, eliminate)

    e.repeat(n, step)


def triangular_solve(e: Emitter, a: Value, x: Value, lower: bool, transpose: bool, unit: bool, batch: At) -> None:
    """Substitution in place: ``x`` holds the right sides."""
    b, (size, columns) = e.builder, x.type.static_shape[-2:]
    n, forward = index(size), lower != transpose

    def coefficient(i: ir.Value, j: ir.Value) -> ir.Value:
        return e.load(a, [*batch, j, i] if transpose else [*batch, i, j])

    def row(k: ir.Value) -> None:
        i = k if forward else b.sub(b.sub(n, ONE), k)

        def subtract(j: ir.Value) -> None:
            factor = coefficient(i, j)

            def element(c: ir.Value) -> None:
                product = b.fmul(factor, e.load(x, [*batch, j, c]), flags=CONTRACT)
                e.store(x, [*batch, i, c], b.fsub(e.load(x, [*batch, i, c]), product, flags=CONTRACT))

            e.repeat(index(columns), element)

        between(e, *((ZERO, i) if forward else (e.add(i, ONE), n)), subtract)
        if not unit:
            pivot = coefficient(i, i)
            divide = lambda c: e.store(x, [*batch, i, c], b.fdiv(e.load(x, [*batch, i, c]), pivot))  # noqa: E731
            e.repeat(index(columns), divide)

    e.repeat(n, row)


# -- Householder reflections, the matrix stored by columns -----------------------------------------------------------


def reflect(e: Emitter, columns: Any, tau: ir.Value, m: int, n: int) -> None:
    """R in the upper triangle, the vectors of the reflections below, their factors in ``tau``; signs as in LAPACK."""
    b, t, rows = e.builder, columns.type, index(m)
    zero = ir.Constant(t, 0.0)
    get = lambda i, j: b.load(columns.at(i, j), typ=t)  # noqa: E731
    put = lambda i, j, v: b.store(v, columns.at(i, j))  # noqa: E731

    def step(k: ir.Value) -> None:
        below, alpha = e.add(k, ONE), get(k, k)
        square = sum_between(e, zero, below, rows, lambda i: b.fmul(get(i, k), get(i, k)))
        length = intrinsic(b, "llvm.sqrt", b.fadd(b.fmul(alpha, alpha), square))
        nothing = b.fcmp_ordered("==", square, zero)
        beta = b.select(nothing, alpha, b.fneg(intrinsic(b, "llvm.copysign", length, alpha)))
        factor = b.select(nothing, zero, b.fdiv(b.fsub(beta, alpha), beta))
        scale = b.select(nothing, zero, b.fdiv(t(1.0), b.fsub(alpha, beta)))
        b.store(factor, b.gep(tau, [k], source_etype=t))
        between(e, below, rows, lambda i: put(i, k, b.fmul(get(i, k), scale)))
        put(k, k, beta)
        between(e, below, index(n), lambda j: apply_reflection(e, columns, k, factor, rows, get, put, j))

    e.repeat(index(min(m, n)), step)


def apply_reflection(
    e: Emitter, columns: Any, k: ir.Value, factor: ir.Value, rows: ir.Value, get: Any, put: Any, j: ir.Value
) -> None:
    """Column ``j`` (of what ``get`` and ``put`` reach) reflected by the vector in column ``k`` of ``columns``."""
    b, t, below = e.builder, columns.type, e.add(k, ONE)
    vector = lambda i: b.load(columns.at(i, k), typ=t)  # noqa: E731
    product = sum_between(e, get(k, j), below, rows, lambda i: b.fmul(vector(i), get(i, j)))
    moved = b.fmul(product, factor)
    put(k, j, b.fsub(get(k, j), moved))
    between(e, below, rows, lambda i: put(i, j, b.fsub(get(i, j), b.fmul(vector(i), moved))))


def orthogonal(e: Emitter, columns: Any, tau: ir.Value, count: int, q: Value, batch: At) -> None:
    """The product of the reflections, applied to the first columns of the identity."""
    b, t, (m, wide) = e.builder, columns.type, q.type.static_shape[-2:]
    get = lambda i, j: e.load(q, [*batch, i, j])  # noqa: E731
    put = lambda i, j, v: e.store(q, [*batch, i, j], v)  # noqa: E731
    one, zero = t(1.0), t(0.0)
    e.nest((m, wide), lambda at: put(at[0], at[1], b.select(b.icmp_signed("==", *at), one, zero)))

    def step(r: ir.Value) -> None:
        k = b.sub(index(count - 1), r)
        factor = b.load(b.gep(tau, [k], source_etype=t), typ=t)
        e.repeat(index(wide), lambda j: apply_reflection(e, columns, k, factor, index(m), get, put, j))

    e.repeat(index(count), step)
