"""Products of matrices, as a function in LLVM's language that all programs of a process share.

    dflow_gemm_f64(m, n, k, x, y, z, ...)        z = x @ y, [m, k] and [k, n]; x and y may lie transposed

Of a product that is symmetric, the blocks below the diagonal are computed, and copied to the other side.

The result is cut into blocks, which threads share (`thread_pool.py`); each is computed so::

    for some steps p of the inner axis:
        for some rows of x:
            copy this part of x                          to the larger caches
            for some columns j of y:                     as many as fill some vectors
                copy this panel of y                     to the nearest caches
                for fewer rows i of x:
                    add to a tile of z in registers (rows of x) times (vectors of the panel), for each step

This is the scheme of K. Goto and R. van de Geijn, "Anatomy of high-performance matrix multiplication" (ACM Transactions
on Mathematical Software 34, 2008). How each element is added up follows from the inner size alone, so results are the
same for every number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from dflow.backends.emit.core import untyped
from dflow.backends.emit.function_writer import internal_function
from dflow.backends.emit.gemm_memory import Kept
from dflow.backends.emit.gemm_rows import STRIP, Rows, TurnedRows
from dflow.backends.emit.gemm_tile import PAD, STEPS, Copy, Kernel, MatrixWriter, Mirror, Tile, Turn
from dflow.backends.emit.types import I1, I8, I32, I64, ONE, PTR, VOID, ZERO, declare, index
from dflow.backends.lowering.large_products import GEMM
from dflow.backends.native.thread_pool import LIMIT, SYMBOL
from dflow.ir.types import DTYPES, DType

ROWS = 512  # of x that are copied at a time
LEAST = 1 << 18  # multiplications of a block that is worth a thread
BLOCKS = 4  # for each thread, as some may be slower
TILES = 4  # of a block, at least
FEW, FEW_TURNED = 32, 16  # rows of x, where y lies as it is read, and transposed
WIDE = 128  # columns, which are worth to be read as they lie
ALIGNED = 64  # bytes

# m, n, k; of x and of y the place, the distance of its rows, and whether it lies transposed; of z place and distance,
# and whether it is symmetric.
TURNED = (5, 8)  # of the arguments: whether x and y lie transposed
SIGNATURE = ir.FunctionType(VOID, [I64, I64, I64, PTR, I64, I1, PTR, I64, I1, PTR, I64, I1])


def module(name: str, tile: Tile) -> ir.Module:
    """A module with the function of that name, ``dflow_gemm_`` and a dtype, for matrices of that dtype."""
    made = ir.Module(name)
    _Product(made, name, DTYPES[name.removeprefix(GEMM)], tile).write()
    return made


class _Writer(MatrixWriter):
    """Writes a function of the product."""

    def has_few(self, m: ir.Value, n: ir.Value, x_turned: ir.Value, y_turned: ir.Value) -> ir.Value:
        """Whether x has so few rows that y is not worth a copy."""
        b = self.b
        most = b.select(y_turned, index(FEW_TURNED), index(FEW))
        few, wide = b.icmp_signed("<=", m, most), b.icmp_signed(">=", n, index(WIDE))
        return b.and_(b.and_(few, wide), b.not_(b.and_(x_turned, y_turned)))


class _Product(_Writer):
    """The function that programs call."""

    def __init__(self, module: ir.Module, name: str, dtype: DType, tile: Tile):
        super().__init__(ir.Function(module, SIGNATURE, name), dtype, tile)

    def write(self) -> None:
        b, (m, n, k, *_) = self.b, self.f.args
        with b.if_then(b.icmp_signed(">", b.mul(m, n), ZERO)):
            self.in_blocks(m, n, *self.cut(m, n, self.wanted(b.mul(b.mul(m, n), k))))
            with b.if_then(self.f.args[-1]):
                self.mirror(n)
        b.ret_void()

    def wanted(self, work: ir.Value) -> ir.Value:
        """How many blocks are worth while."""
        b = self.b
        limit = ir.GlobalVariable(self.module, I32, LIMIT)
        threads = b.zext(b.load(limit, typ=I32), I64)
        several = self.least(b.sdiv(work, index(LEAST)), b.mul(threads, index(BLOCKS)))
        return b.select(b.icmp_signed(">", threads, ONE), several, ONE)

    def cut(self, m: ir.Value, n: ir.Value, wanted: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The rows and columns of a block: the longer of the two is halved until there are enough blocks."""
        b, rows, columns = self.b, self.slot(m), self.slot(n)
        # A longer side than a panel has columns, so that half of it, rounded up to tiles, is less.
        least = index(max(TILES * self.tile.rows, self.width) * self.width)
        strip = b.mul(m, index(STRIP // self.dtype.itemsize))
        least = b.select(self.has_few(m, n, *(self.f.args[i] for i in TURNED)), strip, least)

        def continues() -> ir.Value:
            large = b.icmp_signed(">", b.mul(self.read(rows), self.read(columns)), least)
            count = b.mul(self.divided(m, self.read(rows)), self.divided(n, self.read(columns)))
            return b.and_(large, b.icmp_signed("<", count, wanted))

        def halve(size: ir.Value, unit: ir.Value) -> None:
            b.store(b.mul(self.divided(self.divided(self.read(size), index(2)), unit), unit), size)

        def once() -> None:
            with b.if_else(b.icmp_signed(">", self.read(columns), self.read(rows))) as (wide, high):
                with wide:
                    halve(columns, index(self.width))
                with high:
                    halve(rows, index(self.tile.rows))

        self.repeat(continues, once)
        return self.read(rows), self.read(columns)

    def in_blocks(self, m: ir.Value, n: ir.Value, rows: ir.Value, columns: ir.Value) -> None:
        b, given = self.b, [*self.f.args, rows, columns]
        layout = ir.LiteralStructType([v.type for v in given])
        part, _ = internal_function(self.module, "dflow.gemm.block", [PTR, I64])
        _Block(part, self.dtype, self.tile, layout).write()
        parts = b.mul(self.divided(m, rows), self.divided(n, columns))
        self.run(part, layout, given, parts, b.icmp_signed(">", parts, ONE))

    def mirror(self, n: ir.Value) -> None:
        """The elements below the diagonal go above it."""
        b, part = self.b, self.function(Mirror, "dflow.gemm.mirror", [PTR, I64])
        several = b.icmp_signed(">", b.mul(n, n), index(LEAST))
        self.run(part, Mirror.LAYOUT, [*self.f.args[-3:-1], n], self.divided(n, index(Mirror.ROWS)), several)

    def run(
        self, part: ir.Function, layout: ir.Type, given: Sequence[ir.Value], parts: ir.Value, several: ir.Value
    ) -> None:
        """``part(context, k)`` for all parts, on ``several`` threads or on this one; the context is what is given."""
        b, context = self.b, self.room(layout)
        for i, v in enumerate(given):
            b.store(v, b.gep(context, [I32(0), I32(i)], source_etype=layout))
        pool = declare(self.module, SYMBOL, ir.FunctionType(VOID, [PTR, PTR, I64]))
        with b.if_else(several) as (together, alone):
            with together:
                b.call(pool, [part, context, parts])
            with alone:
                self.count(ZERO, parts, lambda k: b.call(part, [context, k]))


@dataclass(frozen=True)
class _Matrix:
    place: ir.Value
    row: ir.Value
    turned: ir.Value


class _Block(_Writer):
    """``(context, number)``: that block of the result."""

    def __init__(self, f: ir.Function, dtype: DType, tile: Tile, layout: ir.LiteralStructType):
        super().__init__(f, dtype, tile)
        self.layout = layout

    def write(self) -> None:
        b, (context, number) = self.b, self.f.args
        places = (b.gep(context, [I32(0), I32(i)], source_etype=self.layout) for i in range(len(self.layout.elements)))
        m, n, self.k, *xy, self.z, self.z_row, self.lower, rows, columns = (
            b.load(at, typ=t) for at, t in zip(places, self.layout.elements)
        )
        self.x, self.y = _Matrix(*xy[:3]), _Matrix(*xy[3:])
        across = self.divided(n, columns)
        self.first_row, self.first_column = b.mul(b.sdiv(number, across), rows), b.mul(b.srem(number, across), columns)
        self.last_row = self.least(m, b.add(self.first_row, rows))
        self.last_column = self.least(n, b.add(self.first_column, columns))
        with b.if_then(self.has_few(m, n, self.x.turned, self.y.turned), likely=False):
            self.few_rows(m)
            b.ret_void()
        # Of one panel the rows of x are read once, as they lie.
        self.direct = b.not_(b.or_(self.x.turned, b.icmp_signed(">", n, index(self.width))))
        memory, kept = self.memory()
        self.part, self.lines = memory, self.room(PTR)
        self.line = b.select(self.direct, self.x.row, index(STEPS + PAD))
        self.panel = self.at(memory, index(ROWS * (STEPS + PAD)), self.number)
        rounds = self.most(ONE, self.divided(self.k, index(STEPS)))
        length = self.divided(self.k, rounds)

        def steps(r: ir.Value) -> None:
            p = b.mul(r, length)
            self.steps(p, self.most(ZERO, self.least(length, b.sub(self.k, p))))

        self.count(ZERO, rounds, steps)
        with b.if_then(b.icmp_unsigned("!=", kept, PTR(None))):
            b.call(self.kept.put(), [kept])
        b.ret_void()

    def few_rows(self, m: ir.Value) -> None:
        b, x, y, j = self.b, self.x, self.y, self.first_column
        count, at_z = b.sub(self.last_column, j), self.at(self.z, j, self.number)
        with b.if_else(y.turned) as (turned, plain):
            with turned:
                f = self.function(TurnedRows, "dflow.gemm.turned_rows", TurnedRows.ARGS)
                at_y = self.place(y.place, j, y.row, ZERO)
                b.call(f, [m, count, self.k, x.place, x.row, at_y, y.row, at_z, self.z_row])
            with plain:
                f = self.function(Rows, "dflow.gemm.rows", Rows.ARGS)
                x_row, x_column = (b.select(x.turned, *v) for v in ((ONE, x.row), (x.row, ONE)))
                at_y = self.at(y.place, j, self.number)
                b.call(f, [m, count, self.k, x.place, x_row, x_column, at_y, y.row, at_z, self.z_row])

    def memory(self) -> tuple[ir.Value, ir.Value]:
        """Where the copies go, and what to give back, NULL if that is on the stack."""
        b, size = self.b, (ROWS * (STEPS + PAD) + self.width * STEPS) * self.dtype.itemsize + ALIGNED
        self.kept = Kept(self.module, size)
        slot = self.room(PTR)
        b.call(self.kept.take(), [slot])
        kept = self.read(slot, PTR)
        with b.if_then(b.icmp_unsigned("==", kept, PTR(None)), likely=False):
            b.store(untyped(b.alloca(I8, index(size))), slot)
        begin = b.ptrtoint(self.read(slot, PTR), I64)
        return b.inttoptr(b.and_(b.add(begin, index(ALIGNED - 1)), index(-ALIGNED)), PTR), kept

    def steps(self, p: ir.Value, length: ir.Value) -> None:
        """What ``length`` steps from ``p`` on contribute."""
        b, lines = self.b, self.lines

        def rows(i: ir.Value) -> None:
            count = self.least(index(ROWS), b.sub(self.last_row, i))
            with b.if_then(b.not_(self.direct)):
                self.copy(self.x, (i, p), (count, length), self.part, STEPS + PAD)
            b.store(b.select(self.direct, self.place(self.x.place, i, self.x.row, p), self.part), lines)

            def columns(j: ir.Value) -> None:
                self.columns((i, count), (p, length), j)

            self.count(self.first_column, self.last_column, columns, index(self.width))

        self.count(self.first_row, self.last_row, rows, index(ROWS))

    def columns(self, rows: tuple[ir.Value, ir.Value], steps: tuple[ir.Value, ir.Value], j: ir.Value) -> None:
        """A panel of y, with as many vectors as it needs."""
        b, done = self.b, self.f.append_basic_block("done")
        count = self.least(index(self.width), b.sub(self.last_column, j))
        choice = b.switch(self.divided(count, index(self.lanes)), done)
        for vectors in range(1, self.tile.vectors + 1):
            block = self.f.append_basic_block("panel")
            choice.add_case(index(vectors), block)
            b.position_at_end(block)
            self.copy(self.y, (steps[0], j), (steps[1], count), self.panel, vectors * self.lanes)
            self.tiles(vectors, rows, steps, (j, count))
            b.branch(done)
        b.position_at_end(done)

    def tiles(
        self,
        vectors: int,
        rows: tuple[ir.Value, ir.Value],
        steps: tuple[ir.Value, ir.Value],
        columns: tuple[ir.Value, ir.Value],
    ) -> None:
        b, (first, height), (p, length), (j, count) = self.b, rows, steps, columns
        kernel = self.function(Kernel, f"dflow.gemm.tile.{vectors}", Kernel.ARGS, vectors)
        unit = index(self.tile.rows)

        def tile(r: ir.Value) -> None:
            x = self.place(self.read(self.lines, PTR), r, self.line, ZERO)
            z = self.place(self.z, b.add(first, r), self.z_row, j)
            some = self.least(unit, b.sub(height, r))
            b.call(kernel, [length, x, self.line, self.panel, z, self.z_row, some, count, b.icmp_signed(">", p, ZERO)])

        above = self.divided(self.most(ZERO, b.sub(b.sub(j, first), b.sub(unit, ONE))), unit)
        self.count(b.select(self.lower, b.mul(above, unit), ZERO), height, tile, unit)

    def copy(
        self, v: _Matrix, at: tuple[ir.Value, ir.Value], shape: tuple[ir.Value, ir.Value], to: ir.Value, row: int
    ) -> None:
        """A part of a matrix goes to memory where its rows have the distance ``row``."""
        with self.b.if_else(v.turned) as (turned, plain):
            with turned:
                f = self.function(Turn, "dflow.gemm.turn", Turn.ARGS)
                self.b.call(f, [self.place(v.place, at[1], v.row, at[0]), v.row, to, index(row), *shape])
            with plain:
                f = self.function(Copy, "dflow.gemm.copy", Copy.ARGS)
                self.b.call(f, [self.place(v.place, at[0], v.row, at[1]), v.row, to, index(row), *shape])
