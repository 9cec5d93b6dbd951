"""Factorizations of matrices by loops of our own: for small matrices, and where there is no LAPACK.

The methods are the plain ones of Golub and Van Loan, "Matrix Computations" (4th edition): 3.1 (triangular systems), 3.4
(elimination with row pivoting), 4.2 (Cholesky), 5.1 and 5.2 (Householder reflections).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from dflow.backends.emit.core import Emitter
from dflow.backends.emit.numbers import Numbers
from dflow.backends.emit.scalar import intrinsic
from dflow.backends.emit.types import I1, ONE, ZERO, constant, index
from dflow.ir.core import Value

At = list[ir.Value]


def between(e: Emitter, first: ir.Value, stop: ir.Value, body: Callable[[ir.Value], Any]) -> None:
    """``body(i)`` for i in first .. stop-1."""
    e.repeat(e.builder.sub(stop, first), lambda k: body(e.add(first, k)))


def sum_between(
    e: Emitter,
    zero: ir.Value,
    first: ir.Value,
    stop: ir.Value,
    term: Callable[[ir.Value], ir.Value],
    add: Callable[[ir.Value, ir.Value], ir.Value],
) -> ir.Value:
    """The sum of ``term(i)`` for i in first .. stop-1, begun with ``zero``."""
    step = lambda k, total: [add(total, term(e.add(first, k)))]  # noqa: E731
    return e.loop(e.builder.sub(stop, first), [zero], step)[0]


def cholesky(e: Emitter, x: Value, y: Value, batch: At) -> None:
    """Row by row; all NaN when a pivot is not positive."""
    b, dtype, n = e.builder, y.type.dtype, index(y.type.static_shape[-1])
    a = Numbers(b, dtype)

    def row(i: ir.Value, fine: ir.Value) -> list[ir.Value]:
        def rest(j: ir.Value) -> ir.Value:
            product = lambda p: a.mul(e.load(y, [*batch, i, p]), a.conj(e.load(y, [*batch, j, p])))  # noqa: E731
            return a.sub(e.load(x, [*batch, i, j]), sum_between(e, a.zero, ZERO, j, product, a.add))

        pivot_of = lambda j: a.real(e.load(y, [*batch, j, j]))  # noqa: E731
        between(e, ZERO, i, lambda j: e.store(y, [*batch, i, j], a.over_real(rest(j), pivot_of(j))))
        pivot = a.real(rest(i))
        e.store(y, [*batch, i, i], a.number(intrinsic(b, "llvm.sqrt", pivot)))
        between(e, e.add(i, ONE), n, lambda j: e.store(y, [*batch, i, j], a.zero))
        return [b.and_(fine, b.fcmp_ordered(">", pivot, pivot.type(0.0)))]

    (fine,) = e.loop(n, [I1(1)], row)
    with b.if_then(b.not_(fine), likely=False):
        nan = constant(dtype, math.nan)
        e.repeat(n, lambda i: e.repeat(n, lambda j: e.store(y, [*batch, i, j], nan)))


def lu(e: Emitter, x: Value, y: Value, pivots: Value, permutation: Value, batch: At) -> None:
    b, dtype, (m, n) = e.builder, y.type.dtype, y.type.static_shape[-2:]
    a, rows, columns = Numbers(b, dtype), index(m), index(n)
    e.nest((m, n), lambda at: e.store(y, [*batch, *at], e.load(x, [*batch, *at])))
    e.repeat(rows, lambda k: e.store(permutation, [*batch, k], k))

    def exchange(v: Value, p: At, q: At) -> None:
        mine, other = (e.load(v, [*batch, *at]) for at in (p, q))
        e.store(v, [*batch, *p], other)
        e.store(v, [*batch, *q], mine)

    def step(k: ir.Value) -> None:
        def larger(i: ir.Value, most: ir.Value, at: ir.Value) -> list[ir.Value]:
            row = e.add(k, i)
            size = a.size(e.load(y, [*batch, row, k]))
            more = b.fcmp_ordered(">", size, most)
            return [b.select(more, size, most), b.select(more, row, at)]

        _, row = e.loop(b.sub(rows, k), [constant(a.real_dtype, -1), k], larger)
        e.store(pivots, [*batch, k], row)
        exchange(permutation, [k], [row])
        e.repeat(columns, lambda j: exchange(y, [k, j], [row, j]))
        pivot = e.load(y, [*batch, k, k])

        def eliminate(i: ir.Value) -> None:
            ratio = a.div(e.load(y, [*batch, i, k]), pivot)
            factor = b.select(a.is_zero(pivot), a.zero, ratio)
            e.store(y, [*batch, i, k], factor)

            def element(j: ir.Value) -> None:
                product = a.mul(factor, e.load(y, [*batch, k, j]))
                e.store(y, [*batch, i, j], a.sub(e.load(y, [*batch, i, j]), product))

            between(e, e.add(k, ONE), columns, element)

        between(e, e.add(k, ONE), rows, eliminate)

    e.repeat(index(min(m, n)), step)


def triangular_solve(e: Emitter, a: Value, x: Value, lower: bool, transpose: bool, unit: bool, batch: At) -> None:
    """Substitution in place: ``x`` holds the right sides."""
    b, (size, columns) = e.builder, x.type.static_shape[-2:]
    n, forward, number = index(size), lower != transpose, Numbers(b, x.type.dtype)

    def coefficient(i: ir.Value, j: ir.Value) -> ir.Value:
        return e.load(a, [*batch, j, i] if transpose else [*batch, i, j])

    def row(k: ir.Value) -> None:
        i = k if forward else b.sub(b.sub(n, ONE), k)

        def subtract(j: ir.Value) -> None:
            factor = coefficient(i, j)

            def element(c: ir.Value) -> None:
                product = number.mul(factor, e.load(x, [*batch, j, c]))
                e.store(x, [*batch, i, c], number.sub(e.load(x, [*batch, i, c]), product))

            e.repeat(index(columns), element)

        between(e, *((ZERO, i) if forward else (e.add(i, ONE), n)), subtract)
        if not unit:
            pivot = coefficient(i, i)
            divide = lambda c: e.store(x, [*batch, i, c], number.div(e.load(x, [*batch, i, c]), pivot))  # noqa: E731
            e.repeat(index(columns), divide)

    e.repeat(n, row)


# -- Householder reflections, the matrix stored by columns -----------------------------------------------------------


def reflect(e: Emitter, columns: Any, tau: ir.Value, m: int, n: int) -> None:
    """R in the upper triangle, the vectors of the reflections below, their factors in ``tau``; signs as in LAPACK: the
    diagonal of R is real."""
    b, t, rows, a = e.builder, columns.type, index(m), columns.numbers
    get = lambda i, j: b.load(columns.at(i, j), typ=t)  # noqa: E731
    put = lambda i, j, v: b.store(v, columns.at(i, j))  # noqa: E731
    plus = lambda x, y: b.fadd(x, y, flags=("contract",))  # noqa: E731
    zero, one = (constant(a.real_dtype, k) for k in (0, 1))

    def step(k: ir.Value) -> None:
        below, alpha = e.add(k, ONE), get(k, k)
        square = sum_between(e, zero, below, rows, lambda i: a.square(get(i, k)), plus)
        length = intrinsic(b, "llvm.sqrt", b.fadd(a.square(alpha), square))
        real = a.real(alpha)
        nothing = b.fcmp_ordered("==", square, zero)
        if a.is_complex:
            nothing = b.and_(nothing, b.fcmp_ordered("==", a.parts(alpha)[1], zero))
        beta = b.select(nothing, real, b.fneg(intrinsic(b, "llvm.copysign", length, real)))
        difference = a.sub(a.number(beta), alpha)
        factor = b.select(nothing, a.zero, a.over_real(difference, beta))
        scale = b.select(nothing, a.zero, a.div(a.number(one), a.sub(alpha, a.number(beta))))
        b.store(factor, b.gep(tau, [k], source_etype=t))
        between(e, below, rows, lambda i: put(i, k, a.mul(get(i, k), scale)))
        put(k, k, a.number(beta))
        between(e, below, index(n), lambda j: apply_reflection(e, columns, k, a.conj(factor), rows, get, put, j))

    e.repeat(index(min(m, n)), step)


def apply_reflection(
    e: Emitter, columns: Any, k: ir.Value, factor: ir.Value, rows: ir.Value, get: Any, put: Any, j: ir.Value
) -> None:
    """Column ``j`` (of what ``get`` and ``put`` reach) reflected by the vector in column ``k`` of ``columns``."""
    a, below = columns.numbers, e.add(k, ONE)
    vector = lambda i: e.builder.load(columns.at(i, k), typ=columns.type)  # noqa: E731
    product = sum_between(e, get(k, j), below, rows, lambda i: a.mul(a.conj(vector(i)), get(i, j)), a.add)
    moved = a.mul(product, factor)
    put(k, j, a.sub(get(k, j), moved))
    between(e, below, rows, lambda i: put(i, j, a.sub(get(i, j), a.mul(vector(i), moved))))


def orthogonal(e: Emitter, columns: Any, tau: ir.Value, count: int, q: Value, batch: At) -> None:
    """The product of the reflections, applied to the first columns of the identity."""
    b, t, (m, wide) = e.builder, columns.type, q.type.static_shape[-2:]
    get = lambda i, j: e.load(q, [*batch, i, j])  # noqa: E731
    put = lambda i, j, v: e.store(q, [*batch, i, j], v)  # noqa: E731
    one, zero = constant(q.type.dtype, 1), constant(q.type.dtype, 0)
    e.nest((m, wide), lambda at: put(at[0], at[1], b.select(b.icmp_signed("==", *at), one, zero)))

    def step(r: ir.Value) -> None:
        k = b.sub(index(count - 1), r)
        factor = b.load(b.gep(tau, [k], source_etype=t), typ=t)
        e.repeat(index(wide), lambda j: apply_reflection(e, columns, k, factor, index(m), get, put, j))

    e.repeat(index(count), step)
