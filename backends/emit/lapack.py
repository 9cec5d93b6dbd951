"""Factorizations of matrices, by LAPACK.

LAPACK stores columns where we store rows. Where that matters it gets a transposed copy, so that it computes what NumPy
has it compute (the signs of columns of Q and of singular vectors are a matter of convention). Small matrices, and all
of them where there is no LAPACK, are factorized by code of our own (`emit_factor`).

What LAPACK cannot factorize becomes NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from dflow.backends.emit import factor as emit_factor
from dflow.backends.emit.core import Emitter, emits
from dflow.backends.emit.numbers import Numbers
from dflow.backends.emit.stacks import each_matrix
from dflow.backends.emit.types import I8, I32, I64, PTR, VOID, ZERO, constant, declare, index, storage_type
from dflow.backends.native.blas import integer_bits
from dflow.ir.core import Op, Value
from dflow.ir.types import DType

At = list[ir.Value]
INTEGER = ir.IntType(integer_bits())  # of the library
SMALL = 8  # up to this size a call of LAPACK costs more than our own loops
BLOCK = 64  # columns that LAPACK takes at a time
ON_STACK = 4096  # up to so many bytes
LETTER = {"f64": "d", "f32": "s", "c128": "z", "c64": "c"}


def call(e: Emitter, library: str, name: str, dtype: DType, *args: Any) -> None:
    """A function with the Fortran interface, which takes everything by address: letters, ints, pointers."""
    symbol = f"dflow_{library}_{LETTER[dtype.name]}{name}"
    t = ir.FunctionType(VOID, [PTR] * len(args))
    function = declare(e.module, symbol, t)
    e.builder.call(function, [_address(e, a) for a in args])


def _address(e: Emitter, a: Any) -> ir.Value:
    if isinstance(a, ir.Value):
        return a
    value = I8(ord(a)) if isinstance(a, str) else INTEGER(a)
    slot = e.slot(value.type)
    e.builder.store(value, slot)
    return slot


class Scratch:
    """Memory for the time of one operation, in parts: ``{name: (elements, type)}``."""

    def __init__(self, e: Emitter, **parts: tuple[int, ir.Type]):
        self.e = e
        sizes = {k: -(-max(1, count) * _bytes(t) // 64) * 64 for k, (count, t) in parts.items()}
        total = sum(sizes.values())
        self.is_heap = total > ON_STACK
        if self.is_heap:
            self.base = e.memory.borrow(total)
        else:
            self.base = e.slot(ir.ArrayType(I8, total))
            self.base.align = 64
        self.parts, start = {}, 0
        for name, size in sizes.items():
            self.parts[name] = e.builder.gep(self.base, [index(start)], source_etype=I8)
            start += size

    def __getitem__(self, name: str) -> ir.Value:
        return self.parts[name]

    def release(self) -> None:
        if self.is_heap:
            self.e.memory.give_back(self.base)


def _bytes(t: ir.Type) -> int:
    if isinstance(t, ir.LiteralStructType):
        return sum(map(_bytes, t.elements))
    return {I32: 4, ir.FloatType(): 4}.get(t, 8)


class Columns:
    """A matrix stored by columns in scratch memory."""

    def __init__(self, e: Emitter, pointer: ir.Value, rows: int, dtype: DType):
        self.e, self.pointer, self.rows, self.type = e, pointer, rows, storage_type(dtype)
        self.numbers = Numbers(e.builder, dtype)

    def at(self, i: ir.Value, j: ir.Value) -> ir.Value:
        position = self.e.add(self.e.mul(j, index(self.rows)), i)
        return self.e.builder.gep(self.pointer, [position], source_etype=self.type)

    def fill(self, x: Value, batch: At) -> Columns:
        """Takes the elements of a matrix of the program."""
        shape = x.type.shape[-2:]
        self.e.nest(shape, lambda at: self.e.builder.store(self.e.load(x, [*batch, *at]), self.at(*at)))
        return self

    def copy_to(self, y: Value, batch: At, upper: bool = False) -> None:
        """Writes the elements to a matrix of the program; with ``upper``, zeros below the diagonal."""

        def element(at: At) -> None:
            if upper:
                inside = self.e.builder.icmp_signed("<=", *at)
                where = self.at(self.e.builder.select(inside, at[0], ZERO), at[1])
                found = self.e.builder.load(where, typ=self.type)
                value = self.e.builder.select(inside, found, constant(y.type.dtype, 0))
            else:
                value = self.e.builder.load(self.at(*at), typ=self.type)
            self.e.store(y, [*batch, *at], value)

        self.e.nest(y.type.shape[-2:], element)


def batches(e: Emitter, op: Op, body: Any, ops: int = 1000) -> None:
    """``body(index)`` for every matrix of the stack."""
    e.nest(op.operands[0].type.shape[:-2], body, ops=ops)


def fill_unless_done(e: Emitter, info: ir.Value, results: Sequence[Value], batch: At) -> None:
    """NaN where LAPACK has failed."""
    b = e.builder
    with b.if_then(b.icmp_signed("!=", b.load(info, typ=INTEGER), INTEGER(0)), likely=False):
        for y in results:
            set_all(e, y, batch, math.nan)


def set_all(e: Emitter, y: Value, batch: At, number: float) -> None:
    """Gives all elements of one part of a stack the same value."""
    value = constant(y.type.dtype, number)
    e.nest(y.type.shape[len(batch) :], lambda at: e.store(y, [*batch, *at], value), ops=100)


def start(e: Emitter, v: Value, batch: At) -> ir.Value:
    """The address of a matrix (or row) of a stack."""
    return e.address(v, [*batch, *[ZERO] * (v.type.rank - len(batch))], write=True)


def sizes(v: Value) -> tuple[int, int]:
    m, n = v.type.static_shape[-2:]
    return m, n


@emits("cholesky")
def _cholesky(e: Emitter, op: Op) -> None:
    (x,), y = op.operands, op.result
    n = sizes(x)[1]
    if n <= SMALL or not e.options.blas:
        each_matrix(e, op, lambda at: emit_factor.cholesky(e, x, y, at), n**3)
        return
    info = e.slot(INTEGER)

    def one(batch: At) -> None:
        def element(at: At) -> None:
            inside = e.builder.icmp_signed(">=", *at)
            value = e.builder.select(inside, e.load(x, [*batch, *at]), constant(y.type.dtype, 0))
            e.store(y, [*batch, *at], value)

        e.nest((n, n), element)
        call(e, "lapack", "potrf", y.type.dtype, "U", n, start(e, y, batch), n, info)
        fill_unless_done(e, info, [y], batch)

    batches(e, op, one)


@emits("lu")
def _lu(e: Emitter, op: Op) -> None:
    (x,), (y, pivots, permutation) = op.operands, op.results
    (m, n), dtype, b = sizes(x), x.type.dtype, e.builder
    if max(m, n) <= SMALL or 0 in (m, n) or not e.options.blas:
        each_matrix(e, op, lambda at: emit_factor.lu(e, x, y, pivots, permutation, at), m * n * n)
        return
    scratch = Scratch(e, columns=(m * n, storage_type(dtype)), pivots=(min(m, n), INTEGER))

    def one(batch: At) -> None:
        columns = Columns(e, scratch["columns"], m, dtype).fill(x, batch)
        call(e, "lapack", "getrf", dtype, m, n, columns.pointer, m, scratch["pivots"], e.slot(INTEGER))
        columns.copy_to(y, batch)
        e.repeat(index(m), lambda k: e.store(permutation, [*batch, k], k))

        def exchange(k: ir.Value) -> None:
            pivot = b.load(b.gep(scratch["pivots"], [k], source_etype=INTEGER), typ=INTEGER)
            row = b.sub(pivot if pivot.type == I64 else b.sext(pivot, I64), index(1))
            e.store(pivots, [*batch, k], row)
            mine, other = (e.load(permutation, [*batch, r]) for r in (k, row))
            e.store(permutation, [*batch, k], other)
            e.store(permutation, [*batch, row], mine)

        e.repeat(index(min(m, n)), exchange)

    batches(e, op, one)
    scratch.release()


@emits("triangular_solve")
def _triangular_solve(e: Emitter, op: Op) -> None:
    (a, y), x, (n, k) = op.operands, op.result, sizes(op.result)
    lower, transpose, unit = (bool(op.attrs[name]) for name in ("lower", "transpose", "unit"))
    small = n * n * k <= SMALL**3 or not e.options.blas

    def one(batch: At) -> None:
        e.nest((n, k), lambda at: e.store(x, [*batch, *at], e.load(y, [*batch, *at])))
        if small:
            emit_factor.triangular_solve(e, a, x, lower, transpose, unit, batch)
            return
        one = e.slot(storage_type(x.type.dtype))
        e.builder.store(constant(x.type.dtype, 1), one)
        # By columns, our matrices are their transposes: x' op(a)' = y'. None is conjugated.
        letters = "R", "U" if lower else "L", "T" if transpose else "N", "U" if unit else "N"
        call(e, "blas", "trsm", x.type.dtype, *letters, k, n, one, start(e, a, batch), n, start(e, x, batch), k)

    if n and k and small:
        each_matrix(e, op, one, n * n * k)
    elif n and k:
        batches(e, op, one)


@emits("qr")
def _qr(e: Emitter, op: Op) -> None:
    (x,), (q, r) = op.operands, op.results
    (m, n), wide, dtype = sizes(x), sizes(q)[1], x.type.dtype
    k, t, work = min(m, n), storage_type(x.type.dtype), BLOCK * max(1, m, n)
    if k == 0:
        identity(e, q)
        return
    small = max(m, n) <= SMALL or not e.options.blas
    scratch = Scratch(e, columns=(m * max(n, wide), t), tau=(k, t), work=(0 if small else work, t))

    def one(batch: At) -> None:
        columns = Columns(e, scratch["columns"], m, dtype).fill(x, batch)
        if small:
            emit_factor.reflect(e, columns, scratch["tau"], m, n)
            columns.copy_to(r, batch, upper=True)
            emit_factor.orthogonal(e, columns, scratch["tau"], k, q, batch)
            return
        info, rest = e.slot(INTEGER), (scratch["tau"], scratch["work"], work)
        call(e, "lapack", "geqrf", dtype, m, n, columns.pointer, m, *rest, info)
        columns.copy_to(r, batch, upper=True)
        call(e, "lapack", "ungqr" if dtype.kind == "c" else "orgqr", dtype, m, wide, k, columns.pointer, m, *rest, info)
        columns.copy_to(q, batch)

    batches(e, op, one)
    scratch.release()


def identity(e: Emitter, y: Value) -> None:
    def element(at: At) -> None:
        b, dtype = e.builder, y.type.dtype
        value = b.select(b.icmp_signed("==", *at[-2:]), constant(dtype, 1), constant(dtype, 0))
        e.store(y, at, value)

    e.nest(y.type.shape, element)


class Unavailable(Exception):
    """An operation that needs a library, in code that may use none."""


def unavailable(op: Op) -> Unavailable:
    where = f"{op.loc}: " if op.loc else ""
    what = "singular values" if op.name == "svd" else "eigenvalues"
    return Unavailable(
        f"{where}{what} need LAPACK, and a C library has none (solve, inv, det, cholesky and qr need none)"
    )
