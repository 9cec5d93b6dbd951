"""Matrix products.

Small ones, and all of them where there is no BLAS, are computed in tiles that stay in registers: 4 rows by a vector of
columns of the result, to which each step along the inner axis adds (a column of x) times (a row of y). The inner axis
is cut into blocks whose part of y stays in the nearest cache. Products with a vector, and those of sizes known only at
run time, are plain reductions. Matrices of bf16 are multiplied as ones of f32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from llvmlite import ir

from dflow.backends.emit.core import Emitter, emits
from dflow.backends.emit.gemm import SIGNATURE
from dflow.backends.emit.kernel import REASSOCIATE, fold
from dflow.backends.emit.lapack import INTEGER, Scratch
from dflow.backends.emit.loop_hints import loop_id
from dflow.backends.emit.outline import outlined
from dflow.backends.emit.parts import LEAST, in_parts
from dflow.backends.emit.scalar import emit_scalar, rounded
from dflow.backends.emit.types import (
    I1,
    I8,
    I32,
    I64,
    PTR,
    VOID,
    ZERO,
    constant,
    declare,
    index,
    splat,
    storage_type,
    strides,
    value_type,
)
from dflow.backends.lowering.large_products import BLAS, GEMM, inner_size, is_large, is_square
from dflow.ir.core import Op, Value
from dflow.ir.types import BF16, F32, HALVES, Dim, DType

At = list[ir.Value]
TILE_ROWS = 4
TILE_BYTES = 64  # of a row of the tile
BLOCK = 256  # along the inner axis
UNROLLED = 64  # iterations of a loop that gains by it, and may go away
GROUP = 64  # rows that a thread does at a time, at most
MIRRORED = 32  # rows and columns of a block that is copied to the other side of the diagonal
MANY = 16  # matrices, of which threads take some each
PACK_ROWS = 48  # fewer are not worth a copy


@emits("matmul", "gemm")
def _matmul(e: Emitter, op: Op) -> None:
    if op.result.type.dtype == BF16 and 1 not in op.result.type.shape[-2:]:
        _in_single(e, op)
    else:
        _product(e, op)


def _in_single(e: Emitter, op: Op) -> None:
    """A product of bf16 matrices as one of f32, which they are in registers, in memory of its own."""
    wide = {v: Value(v.type.with_dtype(F32)) for v in (*op.operands, op.result)}
    scratch = Scratch(e, **{str(k): (math.prod(v.type.bound), value_type(F32)) for k, v in enumerate(wide)})
    for k, v in enumerate(wide.values()):
        e.memory.lend(v, scratch[str(k)])
    for v in op.operands:
        e.nest(v.type.shape, partial(_move, e, v, wide[v]))
    _product(e, Op(op.name, [wide[v] for v in op.operands], [wide[op.result]], op.attrs, loc=op.loc))
    e.nest(op.result.type.shape, lambda at: e.store(op.result, at, rounded(e.builder, e.load(wide[op.result], at))))
    scratch.release()


def _move(e: Emitter, x: Value, y: Value, at: At) -> None:
    e.store(y, at, e.load(x, at))


@outlined
def _product(e: Emitter, op: Op) -> None:
    x = op.operands[0]
    *batch, m, n = op.result.type.shape
    k = inner_size(op)
    turned = any(op.attrs.get("transposed", ()))
    if m == 1 or n == 1 or x.type.dtype in HALVES:  # of which there are no vectors
        _reduction(e, op, rows=n != 1)
        return
    is_static = all(isinstance(d, int) for d in (m, n, k))
    if e.options.blas and is_large(op):
        _by_call(e, op, batch)
    elif is_static and not turned:
        _in_tiles(e, op, batch, int(m), int(n), int(k))  # type: ignore[arg-type]
    else:
        _reduction(e, op, rows=True)


def _in_tiles(e: Emitter, op: Op, batch: Sequence[Dim], m: int, n: int, k: int) -> None:
    """A product in groups of rows, which threads share where there are enough of them."""
    size = next((g for g in range(GROUP, GROUP // 4, -TILE_ROWS) if m % g == 0), GROUP)
    many = m - m % size if m * n * k >= LEAST else 0

    def group(at: At) -> None:
        *of_batch, g, _ = at
        _Tiles(e, op, of_batch, e.mul(g, index(size))).write(size, n, k)

    def rest(at: At) -> None:
        _Tiles(e, op, at, index(many)).write(m - many, n, k)

    if many:
        groups = (*batch, many // size, 1)  # rows are contiguous: no part is too narrow
        in_parts(e, op, groups, size * n * k, lambda d: e.nest(d, group, size * n * k))
    if many < m:
        ops = (m - many) * n * k
        in_parts(e, op, batch, ops, lambda d: e.nest(d, rest, ops))


def _reduction(e: Emitter, op: Op, *, rows: bool) -> None:
    (x, y), (turn_x, turn_y) = op.operands, op.attrs.get("transposed", (False, False))
    dtype = F32 if x.type.dtype == BF16 else x.type.dtype  # which it is in a register: what is summed is not rounded

    def element(at: At) -> list[ir.Value]:
        *batch, i, j, k = at
        rest = [k, i] if turn_x else [i, k], [j, k] if turn_y else [k, j]
        factors = [e.load(v, [*batch, *r]) for v, r in zip((x, y), rest)]
        return [emit_scalar(e.builder, "mul", {}, [dtype] * 2, factors)]

    fold(e, op, [*op.result.type.shape, inner_size(op)], 1, ("sum",), element, rows=rows)


# --- calls


def _by_call(e: Emitter, op: Op, batch: Sequence[Dim]) -> None:
    """Each matrix by a call, which has threads of its own; or threads share the matrices, where these are many."""
    one = partial(_symmetric if is_square(op) else _general, e, op)
    *others, m, n = op.result.type.bound
    ops = m * n * max(op.operands[0].type.bound[-2:])
    if math.prod(others) < MANY:
        e.nest(batch, one)
    else:
        in_parts(e, op, batch, ops, lambda d: e.nest(d, one, ops))


def _general(e: Emitter, op: Op, batch: At) -> None:
    (_call_blas if op.result.type.dtype.kind == "c" else _call_own)(e, op, batch)


def _symmetric(e: Emitter, op: Op, batch: At) -> None:
    """A matrix by itself transposed: the elements below the diagonal, in half of the time, and then those above it."""
    if op.result.type.dtype.kind == "c":
        _call_syrk(e, op, batch)
        _mirror(e, op.result, batch)
    else:
        _call_own(e, op, batch, symmetric=True)


def _call_own(e: Emitter, op: Op, batch: At, symmetric: bool = False) -> None:
    (x, y), z = op.operands, op.result
    sizes = [e.size(d) for d in (*z.type.shape[-2:], inner_size(op))]
    places = [e.address(v, [*batch, ZERO, ZERO], write=v is z) for v in (x, y, z)]
    rows = [index(max(1, strides(v.type)[-2])) for v in (x, y, z)]
    turned = [I1(t) for t in op.attrs.get("transposed", (False, False))]
    given = [v for three in zip(places, rows, [*turned, I1(symmetric)]) for v in three]
    e.builder.call(declare(e.module, f"{GEMM}{z.type.dtype.name}", SIGNATURE), [*sizes, *given])


def _call_blas(e: Emitter, op: Op, batch: At) -> None:
    """BLAS stores columns where we store rows, so it is asked for the transposed product: z' = y' x'."""
    (x, y), z = op.operands, op.result
    m, n, k = (e.size(d) for d in (*z.type.shape[-2:], inner_size(op)))
    one, zero = (constant(z.type.dtype, v) for v in (1, 0))
    how = ["T" if t else "N" for t in op.attrs.get("transposed", (False, False))]
    (at_x, step_x), (at_y, step_y), (at_z, step_z) = (_matrix(e, v, batch, v is z) for v in (x, y, z))
    name = BLAS[z.type.dtype.name]
    _call(e, name, how[1], how[0], n, m, k, one, at_y, step_y, at_x, step_x, zero, at_z, step_z)


def _call_syrk(e: Emitter, op: Op, batch: At) -> None:
    """The elements on the diagonal and below it."""
    x, z = op.operands[0], op.result
    n, k = e.size(z.type.shape[-1]), e.size(inner_size(op))
    one, zero = (constant(z.type.dtype, v) for v in (1, 0))
    (at_x, step_x), (at_z, step_z) = (_matrix(e, v, batch, v is z) for v in (x, z))
    name = BLAS[z.type.dtype.name].replace("gemm", "syrk")
    _call(e, name, "U", "N" if op.attrs["transposed"][0] else "T", n, k, one, at_x, step_x, zero, at_z, step_z)


def _mirror(e: Emitter, z: Value, batch: At) -> None:
    """The elements above the diagonal become those below it."""
    n = e.size(z.type.shape[-1])

    def block(rows: ir.Value, columns: ir.Value) -> None:
        end = _least(e, e.add(rows, index(MIRRORED)), n)

        def row(i: ir.Value) -> None:
            def element(j: ir.Value) -> None:
                e.store(z, [*batch, j, i], e.load(z, [*batch, i, j]))

            e.steps(columns, _least(e, i, e.add(columns, index(MIRRORED))), 1, element)

        e.steps(rows, end, 1, row)

    e.steps(ZERO, n, MIRRORED, lambda i: e.steps(ZERO, e.add(i, index(1)), MIRRORED, lambda j: block(i, j)))


def _least(e: Emitter, x: ir.Value, y: ir.Value) -> ir.Value:
    return e.builder.select(e.builder.icmp_signed("<", x, y), x, y)


def _matrix(e: Emitter, v: Value, batch: At, write: bool) -> tuple[ir.Value, ir.Value]:
    """Where a matrix begins, and how far its rows are apart."""
    return e.address(v, [*batch, ZERO, ZERO], write=write), INTEGER(max(1, strides(v.type)[-2]))


def _call(e: Emitter, name: str, *args: ir.Value | str) -> None:
    """A function of BLAS, which takes all by address: letters, numbers and arrays."""
    symbol = f"dflow_blas_{name}"
    t = ir.FunctionType(VOID, [PTR] * len(args))
    function = declare(e.module, symbol, t)
    e.builder.call(function, [_address(e, a) for a in args])


def _address(e: Emitter, a: ir.Value | str) -> ir.Value:
    if isinstance(a, str):
        return _passed(e, I8(ord(a)))
    if a.type == PTR:
        return a
    return _passed(e, e.builder.trunc(a, INTEGER) if a.type == I64 != INTEGER else a)


def _passed(e: Emitter, value: ir.Value) -> ir.Value:
    """Fortran takes everything by address."""
    slot = e.slot(value.type)
    e.builder.store(value, slot)
    return slot


# --- tiles


class _Tiles:
    """The product of two matrices of static size, at ``batch`` of the operands of ``op``, or rows of it from ``first``
    on."""

    def __init__(self, e: Emitter, op: Op, batch: At, first: ir.Value):
        self.e, self.batch, self.first = e, batch, first
        self.x, self.y, self.z = *op.operands, op.result
        self.dtype = self.z.type.dtype
        # Complex numbers are two columns each, and x is one matrix of real parts and one of imaginary ones.
        self.part = DType(f"f{self.dtype.bits // 2}", "f", self.dtype.bits // 2) if self.is_complex else self.dtype
        self.packed: dict[int, ir.Value] = {}

    @property
    def is_complex(self) -> bool:
        return self.dtype.kind == "c"

    def write(self, m: int, n: int, k: int) -> None:
        if k > BLOCK:
            zero = constant(self.dtype, 0)
            self.e.nest((m, n), lambda at: self.e.store(self.z, self.row(at[0], at[1]), zero))
        cut = k - k % BLOCK
        if cut:
            self.repeat(0, cut, BLOCK, lambda p: self.block(m, n, p, BLOCK, k > BLOCK))
        if k > cut or k == 0:
            self.block(m, n, index(cut), k - cut, k > BLOCK)

    def block(self, m: int, n: int, p: ir.Value, length: int, add: bool) -> None:
        """Adds (or sets) what ``length`` steps from ``p`` on contribute."""
        for j0, j1, width in pieces(n, TILE_BYTES // self.dtype.itemsize):
            self.repeat(j0, j1, width, partial(self.column, m, width, p, length, add))

    def column(self, m: int, width: int, p: ir.Value, length: int, add: bool, j: ir.Value) -> None:
        vector = ir.VectorType(storage_type(self.part), 2 * width if self.is_complex else width)
        part = self.pack(p, length, j, vector) if m >= PACK_ROWS and length >= PACK_ROWS else None

        def of_y(q: ir.Value) -> ir.Value:
            if part is None:
                return self.vector(self.y, [self.e.add(p, q), j], vector)
            return self.e.builder.load(self.e.builder.gep(part, [q], source_etype=vector), typ=vector)

        for i0, i1, height in pieces(m, TILE_ROWS):
            self.repeat(i0, i1, height, partial(self.tile, height, j, vector, p, length, of_y, add))

    def pack(self, p: ir.Value, length: int, j: ir.Value, vector: ir.VectorType) -> ir.Value:
        """A copy of the columns of y that all rows of x meet. In y they are far apart, and where that distance is
        a power of two, they would drive each other out of the cache."""
        b, part = self.e.builder, self.packed.get(vector.count)
        if part is None:
            part = self.packed[vector.count] = self.e.slot(ir.ArrayType(vector, BLOCK))

        def copy(q: ir.Value) -> None:
            b.store(self.vector(self.y, [self.e.add(p, q), j], vector), b.gep(part, [q], source_etype=vector))

        self.repeat(0, length, 1, copy)
        return part

    def tile(
        self,
        height: int,
        j: ir.Value,
        vector: ir.VectorType,
        p: ir.Value,
        length: int,
        of_y: Callable[[ir.Value], ir.Value],
        add: bool,
        i: ir.Value,
    ) -> None:
        e, rows = self.e, [self.e.add(self.first, self.e.add(i, index(r))) for r in range(height)]
        zero = ir.Constant(vector, [constant(self.part, 0)] * vector.count)
        hints = loop_id(e.module, ("llvm.loop.unroll.count", 2)) if length > UNROLLED else None
        start = [self.vector(self.z, [r, j], vector) if add else zero for r in rows]
        start += [zero] * len(rows) if self.is_complex else []

        def step(q: ir.Value, *totals: ir.Value) -> list[ir.Value]:
            row = of_y(q)
            found = [e.load(self.x, [*self.batch, r, e.add(p, q)]) for r in rows]
            if self.is_complex:
                found = [e.builder.extract_value(x, k) for k in (0, 1) for x in found]
            of_x = [splat(e.builder, x, vector) for x in found]
            return [multiply_add(e.builder, self.part, a, row, t) for a, t in zip(of_x, totals)]

        totals = e.loop(index(length), start, step, hints=hints)
        if self.is_complex:
            totals = [self.turned(real, imaginary) for real, imaginary in zip(totals, totals[len(rows) :])]
        for r, total in zip(rows, totals):
            stored = e.builder.store(total, e.address(self.z, [*self.batch, r, j], write=True))
            stored.align = self.part.itemsize
            e.memory.mark(stored, self.z)

    def turned(self, real: ir.Value, imaginary: ir.Value) -> ir.Value:
        """real + i imaginary, where i (a + ib) = -b + ia."""
        b, t = self.e.builder, real.type
        swapped = ir.Constant(ir.VectorType(I32, t.count), [k ^ 1 for k in range(t.count)])
        signs = ir.Constant(t, [t.element(-1.0 if k % 2 == 0 else 1.0) for k in range(t.count)])
        other = b.shuffle_vector(imaginary, t(ir.Undefined), swapped)
        return b.fadd(real, b.fmul(other, signs, flags=("contract",)), flags=("contract",))

    def row(self, i: ir.Value, j: ir.Value) -> At:
        return [*self.batch, self.e.add(self.first, i), j]

    def vector(self, v: Value, at: At, t: ir.VectorType) -> ir.Value:
        loaded = self.e.builder.load(self.e.address(v, [*self.batch, *at]), typ=t, align=self.part.itemsize)
        self.e.memory.mark(loaded, v)
        return loaded

    def repeat(self, start: int, stop: int, step: int, body: Callable[[ir.Value], None]) -> None:
        """``body`` at start, start + step, ... below stop; without a loop when that is once."""
        if stop - start <= step:
            body(index(start))
            return

        def once(k: ir.Value) -> tuple[()]:
            body(self.e.add(index(start), k))
            return ()

        self.e.loop(index(stop - start), (), once, step=step)


def pieces(size: int, largest: int) -> list[tuple[int, int, int]]:
    """Cuts ``0 .. size`` into (start, stop, width) with widths ``largest``, then smaller powers of two."""
    found, start, width = [], 0, largest
    while start < size:
        stop = size - (size - start) % width
        if stop > start:
            found.append((start, stop, width))
        start, width = stop, width // 2
    return found


def multiply_add(b: ir.IRBuilder, dtype: DType, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
    if dtype.is_float:
        return b.fadd(total, b.fmul(x, y, flags=("contract",)), flags=REASSOCIATE)
    return b.add(total, b.mul(x, y))
