"""Eigenvalues and singular values, by LAPACK. Matrices go there by columns, and come back so. Vectors that nobody uses
are not computed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from dflow.backends.emit.core import Emitter, emits
from dflow.backends.emit.lapack import (
    BLOCK,
    INTEGER,
    At,
    Columns,
    Scratch,
    batches,
    call,
    fill_unless_done,
    identity,
    sizes,
    start,
    unavailable,
)
from dflow.backends.emit.numbers import Numbers
from dflow.backends.emit.scalar import intrinsic
from dflow.backends.emit.types import I1, ONE, constant, index, storage_type
from dflow.ir.core import Op, Value
from dflow.ir.ops.matrices import real_type


@emits("eigh")
def _eigh(e: Emitter, op: Op) -> None:
    (x,), (w, v), n, dtype = op.operands, op.results, sizes(op.operands[0])[1], op.operands[0].type.dtype
    if n == 0:
        return
    if not e.options.blas:
        raise unavailable(op)
    t, integers, info, is_complex = storage_type(dtype), 3 + 5 * n, e.slot(INTEGER), dtype.kind == "c"
    more = 1 + 6 * n + 2 * n * n
    work = (2 * n + n * n if is_complex else more) + BLOCK * n
    parts = {"columns": (n * n, t), "work": (work, t), "integers": (integers, INTEGER)}
    if is_complex:
        parts["real"] = (more, storage_type(real_type(dtype)))
    scratch = Scratch(e, **parts)

    def one(batch: At) -> None:
        columns = Columns(e, scratch["columns"], n, dtype).fill(x, batch)
        rest: tuple[Any, ...] = (start(e, w, batch), scratch["work"], work)
        rest += (scratch["real"], more) if is_complex else ()
        letters = "V" if v in e.used else "N", "L" if op.attrs["lower"] else "U"
        name = "heevd" if is_complex else "syevd"
        call(e, "lapack", name, dtype, *letters, n, columns.pointer, n, *rest, scratch["integers"], integers, info)
        if v in e.used:
            columns.copy_to(v, batch)
        fill_unless_done(e, info, [y for y in (w, v) if y in e.used], batch)

    batches(e, op, one)
    scratch.release()


# -- general matrices --------------------------------------------------------------------------------------------------


@emits("eig")
def _eig(e: Emitter, op: Op) -> None:
    (x,), (w, v), n, dtype = op.operands, op.results, sizes(op.operands[0])[1], op.operands[0].type.dtype
    if n == 0:
        return
    if not e.options.blas:
        raise unavailable(op)
    t, work, info, is_complex = storage_type(dtype), (4 + BLOCK) * n, e.slot(INTEGER), dtype.kind == "c"
    small = storage_type(real_type(dtype))
    parts = {"x": (n * n, t), "v": (n * n, t), "work": (work, t), "real": (2 * n, small)}
    scratch = Scratch(e, **parts)

    def one(batch: At) -> None:
        columns = Columns(e, scratch["x"], n, dtype).fill(x, batch)
        vectors = Columns(e, scratch["v"], n, dtype)
        rest: Any = ("N", "V" if v in e.used else "N", n, columns.pointer, n)
        space: Any = (vectors.pointer, n, vectors.pointer, n, scratch["work"], work)
        e.builder.store(INTEGER(1), info)
        with e.builder.if_then(_is_finite(e, x, batch)):  # LAPACK may not return from what is not
            if is_complex:
                call(e, "lapack", "geev", dtype, *rest, start(e, w, batch), *space, scratch["real"], info)
            else:
                imaginary = e.builder.gep(scratch["real"], [index(n)], source_etype=small)
                call(e, "lapack", "geev", dtype, *rest, scratch["real"], imaginary, *space, info)
        if not is_complex:
            _as_complex(e, scratch["real"], vectors, w, v, batch)
        elif v in e.used:
            vectors.copy_to(v, batch)
        fill_unless_done(e, info, [y for y in (w, v) if y in e.used], batch)

    batches(e, op, one)
    scratch.release()


def _is_finite(e: Emitter, x: Value, batch: At) -> ir.Value:
    """Whether all elements of a matrix are."""
    b, a, (m, n) = e.builder, Numbers(e.builder, x.type.dtype), sizes(x)

    def element(i: ir.Value, j: ir.Value) -> ir.Value:
        value = e.load(x, [*batch, i, j])
        found: ir.Value = I1(1)
        for p in a.parts(value) if a.is_complex else [value]:
            found = b.and_(found, b.fcmp_ordered("<", intrinsic(b, "llvm.fabs", p), p.type(float("inf"))))
        return found

    def row(i: ir.Value, fine: ir.Value) -> list[ir.Value]:
        return e.loop(index(n), [fine], lambda j, fine: [b.and_(fine, element(i, j))])

    return e.loop(index(m), [I1(1)], row)[0]


def _as_complex(e: Emitter, found: ir.Value, vectors: Columns, w: Value, v: Value, batch: At) -> None:
    """From the real and the imaginary parts of eigenvalues; an eigenvalue with a positive imaginary part stands before
    its conjugate, and their two columns hold the real and the imaginary part of the vector."""
    b, n, t, a = e.builder, index(vectors.rows), vectors.type, Numbers(e.builder, w.type.dtype)
    zero = constant(real_type(w.type.dtype), 0)

    def column(j: ir.Value) -> None:
        real, imag = (b.load(b.gep(found, [k], source_etype=t), typ=t) for k in (j, b.add(n, j)))
        e.store(w, [*batch, j], a.join(real, imag))
        if v not in e.used:
            return
        above, below = b.fcmp_ordered(">", imag, zero), b.fcmp_ordered("<", imag, zero)
        first, second = b.select(below, b.sub(j, ONE), j), b.select(above, b.add(j, ONE), j)

        def element(i: ir.Value) -> None:
            x, y = (b.load(vectors.at(i, k), typ=t) for k in (first, second))
            e.store(v, [*batch, i, j], a.join(x, b.select(above, y, b.select(below, b.fneg(y), zero))))

        e.repeat(n, element)

    e.repeat(n, column)


# -- singular values ---------------------------------------------------------------------------------------------------


@emits("svd")
def _svd(e: Emitter, op: Op) -> None:
    (x,), (u, s, vh), dtype = op.operands, op.results, op.operands[0].type.dtype
    (m, n), left, right, is_complex = sizes(x), sizes(u)[1], sizes(vh)[0], dtype.kind == "c"
    k, t, info = min(m, n), storage_type(dtype), e.slot(INTEGER)
    if k == 0:
        identity(e, u)
        identity(e, vh)
        return
    if not e.options.blas:
        raise unavailable(op)
    work = 4 * k * k + 7 * k + max(m, n) + BLOCK * (m + n)
    parts = {"x": (m * n, t), "u": (m * left, t), "vh": (right * n, t), "work": (work, t), "integers": (8 * k, INTEGER)}
    if is_complex:
        parts["real"] = (k * max(5 * k + 7, 2 * max(m, n) + 2 * k + 1), storage_type(real_type(dtype)))
    scratch = Scratch(e, **parts)

    def one(batch: At) -> None:
        columns = Columns(e, scratch["x"], m, dtype).fill(x, batch)
        by_columns = Columns(e, scratch["u"], m, dtype), Columns(e, scratch["vh"], right, dtype)
        job = "N" if not {u, vh} & e.used else "A" if op.attrs["full"] else "S"
        matrices = (columns.pointer, m, start(e, s, batch), scratch["u"], m, scratch["vh"], right)
        rest = (scratch["work"], work, *((scratch["real"],) if is_complex else ()), scratch["integers"], info)
        call(e, "lapack", "gesdd", dtype, job, m, n, *matrices, *rest)
        for part, y in zip(by_columns, (u, vh)):
            if y in e.used:
                part.copy_to(y, batch)
        fill_unless_done(e, info, [y for y in (u, s, vh) if y in e.used], batch)

    batches(e, op, one)
    scratch.release()
