"""Products of a few rows with a large matrix (`gemm.py`): it is read once, as it lies, for a copy would be as large.

    for strips of columns:
        sums = 0
        for some steps p of the inner axis:
            for some rows i of x:
                for vectors of columns j:
                    sums[i, j] += x[i, p] * y[p, j] + x[i, p + 1] * y[p + 1, j] + ...
        copy the sums to z

What is read of x stays in registers, and the sums, which lie side by side, in the nearest cache: rows of z may be a
power of two apart, and drive each other out of it. Where y lies transposed, elements of z are sums along
rows of both, sixteen at a time::

    for parts of the inner axis:
        for some rows j of y:
            for some rows i of x:
                z[i, j] += sum of x[i, p] * y[j, p]       for vectors of steps p
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from dflow.backends.emit.gemm_tile import Copy, MatrixWriter, Tile
from dflow.backends.emit.types import I1, I32, I64, ONE, PTR, ZERO, constant, index, splat
from dflow.ir.types import DType

STRIP = 2048  # bytes of a row of y, at most
NEAR = 1 << 15  # bytes of sums, which the nearest cache holds
TOGETHER = 4  # steps
PART = 1 << 14  # bytes of a row of y that lies transposed


class Rows(MatrixWriter):
    """``(m, n, k, x, distance of its rows, of its columns, y, distance of its rows, z, distance of its rows)``: sets z
    to a product. Where y is large and in no cache, what the next steps read is fetched beforehand."""

    ARGS = (I64, I64, I64, PTR, I64, I64, PTR, I64, PTR, I64)

    def write(self) -> None:
        b, (m, n, k, x, x_row, x_column, y, y_row, z, z_row) = self.b, self.f.args
        rows, whole = index(_rows(self.tile)), b.and_(k, index(-TOGETHER))
        near = b.and_(b.sdiv(index(NEAR // self.dtype.itemsize), m), index(-self.lanes))
        width = self.least(index(STRIP // self.dtype.itemsize), near)
        sums = self.room(ir.ArrayType(self.vector, NEAR // self.tile.bytes))

        def strip(j: ir.Value) -> None:
            columns = self.least(width, b.sub(n, j))
            clear = lambda at: self.store(self.zero, self.at(sums, at, self.number))  # noqa: E731
            self.count(ZERO, b.mul(m, width), clear, index(self.lanes))

            def steps(p: ir.Value, together: int) -> None:
                kernel = self.function(Strip, f"dflow.gemm.strip.{together}", Strip.ARGS, together)

                def some(i: ir.Value) -> None:
                    at_x = self.at(x, b.add(b.mul(i, x_row), b.mul(p, x_column)), self.number)
                    last = self.least(b.sub(rows, ONE), b.sub(b.sub(m, i), ONE))
                    at_y, at_sums = self.place(y, p, y_row, j), self.place(sums, i, width, ZERO)
                    b.call(kernel, [at_x, x_row, x_column, last, at_y, y_row, at_sums, width, columns])

                self.count(ZERO, m, some, rows)

            self.count(ZERO, whole, lambda p: steps(p, TOGETHER), index(TOGETHER))
            self.count(whole, k, lambda p: steps(p, 1))
            copy = self.function(Copy, "dflow.gemm.copy", Copy.ARGS)
            b.call(copy, [sums, width, self.at(z, j, self.number), z_row, m, columns])

        self.count(ZERO, n, strip, width)
        b.ret_void()


class Strip(MatrixWriter):
    """``(x, distance of its rows, of its columns, number of the last row, y, distance of its rows, z, distance of its
    rows, columns)``: adds to some rows of z what some steps contribute. Rows that are not there are the last one again,
    which is computed and written again."""

    ARGS = (PTR, I64, I64, I64, PTR, I64, PTR, I64, I64)

    def __init__(self, f: ir.Function, dtype: DType, tile: Tile, steps: int):
        super().__init__(f, dtype, tile)
        self.steps = steps

    def write(self) -> None:
        b, (x, x_row, x_column, last, y, y_row, z, z_row, columns) = self.b, self.f.args
        numbers = [self.least(index(r), last) for r in range(_rows(self.tile))]
        lines = [self.place(z, i, z_row, ZERO) for i in numbers]
        at_y = [self.place(y, index(u), y_row, ZERO) for u in range(self.steps)]
        next_y = self.place(y, index(self.steps), y_row, ZERO)
        of_x = []
        for i in numbers:
            at = self.at(x, b.mul(i, x_row), self.number)
            places = (self.at(at, b.mul(index(u), x_column), self.number) for u in range(self.steps))
            of_x.append([splat(b, self.load(place, self.number), self.vector) for place in places])

        def once(load: Callable[[ir.Value], ir.Value], store: Callable[[ir.Value, ir.Value], None]) -> None:
            row = [load(place) for place in at_y]
            totals = [load(line) for line in lines]
            for r, factors in enumerate(of_x):
                for a, of_y in zip(factors, row):
                    totals[r] = b.fadd(totals[r], b.fmul(a, of_y, flags=("contract",)), flags=("contract",))
            for total, line in zip(totals, lines):
                store(total, line)

        def whole(j: ir.Value) -> None:
            at = lambda place: self.at(place, j, self.number)  # noqa: E731
            for u in range(self.steps if self.steps > 1 else 0):
                self.fetch(self.at(next_y, b.add(b.mul(index(u), y_row), j), self.number))
            once(lambda p: self.load(at(p)), lambda v, p: self.store(v, at(p)))

        def rest(j: ir.Value, mask: ir.Value) -> None:
            at = lambda place: self.at(place, j, self.number)  # noqa: E731
            once(lambda p: self.masked(at(p), mask), lambda v, p: self.store_masked(v, at(p), mask))

        self.along(columns, whole, rest)
        b.ret_void()


class TurnedRows(MatrixWriter):
    """``(m, n, k, x, distance of its rows, y, distance of its rows, z, distance of its rows)``: sets z to a product, of
    y transposed."""

    ARGS = (I64, I64, I64, PTR, I64, PTR, I64, PTR, I64)

    def write(self) -> None:
        b, (m, n, k, x, x_row, y, y_row, z, z_row) = self.b, self.f.args
        kernel = self.function(Dots, "dflow.gemm.dots", Dots.ARGS)
        unit, length = index(_rows(self.tile)), index(PART // self.dtype.itemsize)

        def tile(i: ir.Value, j: ir.Value, p: ir.Value, steps: ir.Value) -> None:
            at_x, at_y, at_z = self.place(x, i, x_row, p), self.place(y, j, y_row, p), self.place(z, i, z_row, j)
            last_i, last_j = (b.sub(self.least(unit, b.sub(size, at)), ONE) for size, at in ((m, i), (n, j)))
            b.call(kernel, [at_x, x_row, last_i, at_y, y_row, last_j, at_z, z_row, steps, b.icmp_signed(">", p, ZERO)])

        def part(p: ir.Value) -> None:
            steps = self.most(ZERO, self.least(length, b.sub(k, p)))
            self.count(ZERO, n, lambda j: self.count(ZERO, m, lambda i: tile(i, j, p, steps), unit), unit)

        self.count(ZERO, self.most(k, ONE), part, length)
        b.ret_void()


class Dots(MatrixWriter):
    """``(x, distance of its rows, number of the last row, the same of y, z, distance of its rows, steps, add)``: sets
    elements of z to sums along rows of x and y, or adds them. Rows that are not there are the last one again."""

    ARGS = (PTR, I64, I64, PTR, I64, I64, PTR, I64, I64, I1)

    def write(self) -> None:
        b, (x, x_row, last_x, y, y_row, last_y, z, z_row, steps, add) = self.b, self.f.args
        rows = range(_rows(self.tile))
        of_x, of_y = ([self.least(index(r), last) for r in rows] for last in (last_x, last_y))
        at_x, at_y = ([self.place(v, r, row, ZERO) for r in rs] for v, row, rs in ((x, x_row, of_x), (y, y_row, of_y)))
        totals = [[self.slot(self.zero) for _ in rows] for _ in rows]

        def once(load: Callable[[ir.Value], ir.Value]) -> None:
            ys = [load(place) for place in at_y]
            for place, slots in zip(at_x, totals):
                factor = load(place)
                for slot, v in zip(slots, ys):
                    product = b.fmul(factor, v, flags=("contract",))
                    b.store(b.fadd(self.read(slot, self.vector), product, flags=("contract",)), slot)

        self.along(
            steps,
            lambda p: once(lambda place: self.load(self.at(place, p, self.number))),
            lambda p, mask: once(lambda place: self.masked(self.at(place, p, self.number), mask)),
        )
        places = [self.place(z, i, z_row, j) for i in of_x for j in of_y]
        sums = [self.sum(self.read(slot, self.vector)) for slots in totals for slot in slots]
        zero = constant(self.dtype, 0)
        before = [self.slot(zero) for _ in places]
        with b.if_then(add):
            for place, slot in zip(places, before):
                b.store(self.load(place, self.number), slot)
        for place, slot, total in zip(places, before, sums):
            self.store(b.fadd(self.read(slot, self.number), total), place)
        b.ret_void()

    def sum(self, v: ir.Value) -> ir.Value:
        """Halves are added to each other, until one number is left."""
        while (half := v.type.count // 2) > 0:
            masks = (ir.Constant(ir.VectorType(I32, half), list(range(k, k + half))) for k in (0, half))
            low, high = (self.b.shuffle_vector(v, v.type(ir.Undefined), mask) for mask in masks)
            v = self.b.fadd(low, high)
        return self.b.extract_element(v, I32(0))


def _rows(tile: Tile) -> int:
    """So many that their numbers for all steps fit into registers."""
    return tile.rows // 2
