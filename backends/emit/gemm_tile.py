"""The innermost parts of a product of matrices (`gemm.py`), as functions in LLVM's language: copies of parts of
matrices, and tiles of the result that stay in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from dflow.backends.emit.function_writer import FunctionWriter, internal_function
from dflow.backends.emit.tiles import transposed
from dflow.backends.emit.types import I1, I32, I64, ONE, PTR, VOID, ZERO, constant, declare, index, splat, storage_type
from dflow.ir.types import DType

STEPS = 512  # of the inner axis at a time
PAD = 8  # elements behind a row of a copy, so that rows are not a power of two apart
SQUARE = 8  # that are transposed in registers
UNROLLED = 4  # steps


@dataclass(frozen=True)
class Tile:
    """What the registers of a processor hold: ``rows`` by ``vectors`` of ``bytes``."""

    rows: int
    vectors: int
    bytes: int

    @staticmethod
    def of(features: Mapping[str, bool]) -> Tile:
        if features.get("avx512f"):
            return Tile(8, 3, 64)
        return Tile(4, 3, 32) if features.get("avx") else Tile(4, 2, 16)


class MatrixWriter(FunctionWriter):
    """Writes a function on matrices of ``dtype``."""

    def __init__(self, f: ir.Function, dtype: DType, tile: Tile):
        super().__init__(f)
        self.dtype, self.tile, self.number = dtype, tile, storage_type(dtype)
        self.lanes = tile.bytes // dtype.itemsize
        self.vector = ir.VectorType(self.number, self.lanes)
        self.width = tile.vectors * self.lanes
        self.zero = self.vector([constant(dtype, 0)] * self.lanes)

    def write(self) -> None:
        raise NotImplementedError

    def function(self, kind: Any, name: str, args: Sequence[ir.Type], *more: Any) -> ir.Function:
        """Another function of the module, which ``kind`` writes."""
        f, fresh = internal_function(self.module, name, args)
        if fresh:
            kind(f, self.dtype, self.tile, *more).write()
        return f

    # --- numbers

    def least(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def most(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed(">", x, y), x, y)

    def divided(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """Rounded up."""
        return self.b.sdiv(self.b.add(x, self.b.sub(y, ONE)), y)

    # --- memory

    def place(self, base: ir.Value, row: ir.Value, length: ir.Value, column: ir.Value) -> ir.Value:
        """The address of an element of a matrix, whose rows have the distance ``length``."""
        return self.at(base, self.b.add(self.b.mul(row, length), column), self.number)

    def load(self, at: ir.Value, t: ir.Type | None = None) -> ir.Value:
        return self.b.load(at, typ=t or self.vector, align=self.dtype.itemsize)

    def store(self, value: ir.Value, at: ir.Value) -> None:
        self.b.store(value, at).align = self.dtype.itemsize

    def mask(self, count: ir.Value) -> ir.Value:
        """The lanes before ``count``."""
        t = ir.VectorType(I32, self.lanes)
        return self.b.icmp_signed("<", t(list(range(self.lanes))), splat(self.b, self.b.trunc(count, I32), t))

    def masked(self, at: ir.Value, mask: ir.Value) -> ir.Value:
        """A vector, zero where the mask is not set."""
        return self._masked("load", self.vector, [at, I32(self.dtype.itemsize), mask, self.zero])

    def store_masked(self, value: ir.Value, at: ir.Value, mask: ir.Value) -> None:
        self._masked("store", VOID, [value, at, I32(self.dtype.itemsize), mask])

    def fetch(self, at: ir.Value) -> None:
        """What is there will be wanted soon."""
        prefetch = declare(self.module, "llvm.prefetch.p0", ir.FunctionType(VOID, [PTR, I32, I32, I32]))
        self.b.call(prefetch, [at, I32(0), I32(3), I32(1)])

    def along(
        self,
        count: ir.Value,
        whole: Callable[[ir.Value], None],
        part: Callable[[ir.Value, ir.Value], None],
    ) -> None:
        """``whole(j)`` for vectors of ``count`` elements, from ``j`` on, ``part(j, mask)`` for what is no vector."""
        b, end = self.b, self.b.and_(count, index(-self.lanes))
        self.count(ZERO, end, whole, index(self.lanes))
        with b.if_then(b.icmp_signed("<", end, count)):
            part(end, self.mask(b.sub(count, end)))

    def _masked(self, what: str, result: ir.Type, args: list[ir.Value]) -> ir.Value:
        name = f"llvm.masked.{what}.v{self.lanes}f{self.dtype.bits}.p0"
        return self.b.call(declare(self.module, name, ir.FunctionType(result, [a.type for a in args])), args)


class Copy(MatrixWriter):
    """``(x, distance of its rows, y, distance of its rows, rows, columns)``: the elements of x go to y."""

    ARGS = (PTR, I64, PTR, I64, I64, I64)

    def write(self) -> None:
        b, (x, x_row, y, y_row, rows, columns) = self.b, self.f.args
        whole = b.and_(columns, index(-self.lanes))
        mask, ragged = self.mask(b.sub(columns, whole)), b.icmp_signed("<", whole, columns)

        def row(i: ir.Value) -> None:
            def some(j: ir.Value) -> None:
                self.store(self.load(self.place(x, i, x_row, j)), self.place(y, i, y_row, j))

            self.count(ZERO, whole, some, index(self.lanes))
            with b.if_then(ragged):
                rest = self.masked(self.place(x, i, x_row, whole), mask)
                self.store_masked(rest, self.place(y, i, y_row, whole), mask)

        self.count(ZERO, rows, row)
        b.ret_void()


class Turn(MatrixWriter):
    """``(x, distance of its rows, y, distance of its rows, rows, columns)``, the last two of y: the elements of x go to
    y, which is x transposed."""

    ARGS = Copy.ARGS

    def write(self) -> None:
        b, (x, x_row, y, y_row, rows, columns) = self.b, self.f.args
        step, vector = index(SQUARE), ir.VectorType(self.number, SQUARE)
        whole_rows, whole_columns = (b.and_(v, index(-SQUARE)) for v in (rows, columns))

        def square(i: ir.Value, j: ir.Value) -> None:
            found = [self.load(self.place(x, b.add(j, index(c)), x_row, i), vector) for c in range(SQUARE)]
            for r, values in enumerate(transposed(b, found)):
                self.store(values, self.place(y, b.add(i, index(r)), y_row, j))

        def one(i: ir.Value, j: ir.Value) -> None:
            self.store(self.load(self.place(x, j, x_row, i), self.number), self.place(y, i, y_row, j))

        self.count(ZERO, whole_rows, lambda i: self.count(ZERO, whole_columns, lambda j: square(i, j), step), step)
        self.count(ZERO, whole_rows, lambda i: self.count(whole_columns, columns, lambda j: one(i, j)))
        self.count(whole_rows, rows, lambda i: self.count(ZERO, columns, lambda j: one(i, j)))
        b.ret_void()


class Mirror(MatrixWriter):
    """``(context, number)``: of a square matrix, ``ROWS`` columns below the diagonal become the rows beside it. The
    context holds its place, the distance of its rows, and their number."""

    LAYOUT = ir.LiteralStructType([PTR, I64, I64])
    ROWS = 32

    def write(self) -> None:
        b, (context, number) = self.b, self.f.args
        places = (b.gep(context, [I32(0), I32(i)], source_etype=self.LAYOUT) for i in range(3))
        z, z_row, n = (b.load(at, typ=t) for at, t in zip(places, self.LAYOUT.elements))
        begin = b.mul(number, index(self.ROWS))
        end = self.least(n, b.add(begin, index(self.ROWS)))

        def element(i: ir.Value, j: ir.Value) -> None:
            self.store(self.load(self.place(z, i, z_row, j), self.number), self.place(z, j, z_row, i))

        self.count(begin, end, lambda i: self.count(begin, i, lambda j: element(i, j)))
        f = self.function(Turn, "dflow.gemm.turn", Turn.ARGS)
        below, beside = self.place(z, end, z_row, begin), self.place(z, begin, z_row, end)
        b.call(f, [below, z_row, beside, z_row, b.sub(end, begin), b.sub(n, end)])
        b.ret_void()


class Kernel(MatrixWriter):
    """``(steps, x, distance of rows of x, panel, z, distance of rows of z, rows, columns, add)``: sets a tile of z to a
    product, or adds that.

    Rows of x that are not there are read as copies of the last one that is. What the columns of the panel hold that are
    not there goes nowhere."""

    ARGS = (I64, PTR, I64, PTR, PTR, I64, I64, I64, I1)

    def __init__(self, f: ir.Function, dtype: DType, tile: Tile, vectors: int):
        super().__init__(f, dtype, tile)
        self.vectors = vectors

    def write(self) -> None:
        b, (length, x, x_row, panel, z, z_row, rows, columns, _) = self.b, self.f.args
        last = b.sub(rows, ONE)
        for r in range(self.tile.rows):
            for v in range(self.vectors):
                self.fetch(self.place(z, index(r), z_row, index(v * self.lanes)))
        lines = [self.place(x, self.least(index(r), last), x_row, ZERO) for r in range(self.tile.rows)]
        totals = [[self.slot(self.zero) for _ in range(self.vectors)] for _ in lines]

        def step(p: ir.Value) -> None:
            first = b.mul(p, index(self.vectors))
            row = [self.load(self.at(panel, b.add(first, index(v)), self.vector)) for v in range(self.vectors)]
            for line, slots in zip(lines, totals):
                of_x = splat(b, self.load(self.at(line, p, self.number), self.number), self.vector)
                for slot, of_y in zip(slots, row):
                    product = b.fmul(of_x, of_y, flags=("contract",))
                    b.store(b.fadd(self.read(slot, self.vector), product, flags=("contract",)), slot)

        def steps(p: ir.Value) -> None:
            for u in range(UNROLLED):
                step(b.add(p, index(u)))

        whole = b.and_(length, index(-UNROLLED))
        self.count(ZERO, whole, steps, index(UNROLLED))
        self.count(whole, length, step)
        results = [[self.read(slot, self.vector) for slot in slots] for slots in totals]
        all_columns = b.icmp_signed("==", columns, index(self.vectors * self.lanes))
        with b.if_else(b.and_(b.icmp_signed("==", rows, index(self.tile.rows)), all_columns)) as (whole_tile, part):
            with whole_tile:
                self.leave(results, [None] * self.vectors)
            with part:
                self.leave(results, [self.mask(b.sub(columns, index(v * self.lanes))) for v in range(self.vectors)])
        b.ret_void()

    def leave(self, results: Sequence[Sequence[ir.Value]], masks: Sequence[ir.Value | None]) -> None:
        """Results go to z, under masks where the tile is not whole."""
        b, (*_, rows, _, add) = self.b, self.f.args
        with b.if_else(add) as branches:
            for branch, adds in zip(branches, (True, False)):
                with branch:
                    for r, row in enumerate(results):
                        if masks[0] is None:
                            self.leave_row(r, row, masks, adds)
                        else:
                            with b.if_then(b.icmp_signed("<", index(r), rows)):
                                self.leave_row(r, row, masks, adds)

    def leave_row(self, r: int, row: Sequence[ir.Value], masks: Sequence[ir.Value | None], adds: bool) -> None:
        z, z_row = self.f.args[4:6]
        for v, (value, mask) in enumerate(zip(row, masks)):
            at = self.place(z, index(r), z_row, index(v * self.lanes))
            if mask is None:
                self.store(self.b.fadd(self.load(at), value) if adds else value, at)
            else:
                self.store_masked(self.b.fadd(self.masked(at, mask), value) if adds else value, at, mask)
