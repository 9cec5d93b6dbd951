"""Products of matrices, in tiles.

A block computes a tile of the result, and each of its threads some rows and columns of that, which stay in registers.
Step by step along the inner axis, the threads copy a strip of both factors to the memory of the block and multiply from
there; what the next step needs is on its way from memory meanwhile. Where the result has too few tiles for all
processors, several blocks share the inner axis of one, and a second kernel adds up their parts, in a fixed order.

    x   | strip |         y  -------         z  | tile |        z_tile += x_strip @ y_strip
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Needs
from dflow.backends.cuda.kernels.cooperative import barrier, shared
from dflow.backends.cuda.kernels.folds import accumulated, count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.plan import Pointer
from dflow.backends.emit.kernel import accumulate
from dflow.backends.emit.linalg import multiply_add
from dflow.backends.emit.scalar import convert
from dflow.backends.emit.types import ZERO, constant, index, strides, value_type
from dflow.ir.core import Op, Value
from dflow.ir.types import C128, F32, F64

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

THIN = 8  # rows or columns: with fewer, most of a tile would be wasted
ENOUGH = 128  # blocks for all processors of a large device
STRIPS = 8  # that a block should have at least, when several share the inner axis
MOST_BLOCKS = 1 << 16
COMBINING = 256  # threads
VECTOR = 16  # bytes that a thread reads at a time
NUMBERS = "iufc"


@dataclass(frozen=True)
class Tile:
    """Of the result, ``rows`` by ``columns`` by a block, ``tall`` by ``wide`` by a thread; strips of ``depth``."""

    rows: int
    columns: int
    depth: int
    tall: int
    wide: int

    @property
    def threads(self) -> int:
        return (self.rows // self.tall) * (self.columns // self.wide)


LARGE, MIDDLE, SMALL = Tile(128, 128, 8, 8, 8), Tile(64, 64, 8, 4, 4), Tile(32, 32, 16, 2, 2)


def is_tiled(op: Op) -> bool:
    """Whether an operation is a product of matrices that tiles are good for."""
    if op.name != "matmul" or op.result.type.dtype.kind not in NUMBERS:
        return False
    x, y = op.operands
    if not (x.type.is_static and y.type.is_static) or x.type.dtype != op.result.type.dtype:
        return False
    *batch, m, n = op.result.type.static_shape
    return min(m, n) >= THIN and x.type.static_shape[-1] > 0 and 0 not in batch


def tile_for(op: Op) -> Tile:
    """The largest tile of which there are enough."""
    dtype = op.result.type.dtype
    narrow = dtype.itemsize <= 4 and dtype.kind != "c"
    for tile in (LARGE, MIDDLE) if narrow else (MIDDLE,):
        if tiles(op, tile) >= ENOUGH:
            return tile
    return SMALL


def tiles(op: Op, tile: Tile) -> int:
    """The tiles of the result."""
    *batch, m, n = op.result.type.static_shape
    return count(batch) * -(-m // tile.rows) * -(-n // tile.columns)


def emit_product(s: Scheduler, op: Op) -> None:
    """Adds the steps for a product of matrices to those of the scheduler."""
    tile, dtype = tile_for(op), accumulated(op.result.type.dtype)
    strips = -(-op.operands[0].type.static_shape[-1] // tile.depth)
    total = tiles(op, tile)
    parts = max(1, min(-(-ENOUGH // total), strips // STRIPS))
    room = s.places.room(parts * count(op.result.type.shape) * dtype.itemsize) if parts > 1 else None
    rooms = [room] if room is not None else []
    blocks = min(MOST_BLOCKS, total * parts)
    e = ProductEmitter(
        s.context, "matmul", "grid", Needs(s.context, [op]), blocks, tile.threads, targets=rooms, is_divisible=False
    )
    e.loc = op.loc
    e.recall([op])
    e.product_of(op, tile, total, parts, room)
    s.steps.append(e.finish())
    if room is not None:
        _add_parts(s, op, parts, room)


def _add_parts(s: Scheduler, op: Op, parts: int, room: Pointer) -> None:
    z, total = op.result, count(op.result.type.shape)
    dtype, needs = accumulated(z.type.dtype), Needs(s.context, [op])
    e = KernelEmitter(s.context, "combine", "grid", needs, -(-total // COMBINING), COMBINING, targets=[room])
    e.loc = op.loc
    b, base, item = e.builder, e.parameters[room], value_type(dtype)

    def element(k: ir.Value) -> None:
        def add(part: ir.Value, found: ir.Value) -> list[ir.Value]:
            here = b.gep(base, [e.add(e.mul(part, index(total)), k)], inbounds=True, source_etype=item)
            return [accumulate(e, "sum", dtype, found, b.load(here, typ=item))]

        (found,) = e.loop(index(parts), [constant(dtype, 0)], add)
        e.store_at(z, e.offset(e.memory.base(z), z.type, k), convert(b, dtype, z.type.dtype, found))

    e.stride(index(total), element)
    s.steps.append(e.finish())


@dataclass(frozen=True)
class Side:
    """A factor in the memory of the block: ``depth`` lines of ``width`` elements, of which a thread has ``own``. Each
    line is longer by a vector, so that a column does not lie in one bank."""

    x: Value
    room: ir.Value
    width: int
    own: int
    thread: ir.Value  # the number of the thread along this side
    vector: int  # elements that a thread has side by side

    @property
    def line(self) -> int:
        return self.width + self.vector

    def place(self, k: int) -> int:
        """Where the element ``k`` of the thread number 0 is in a line; those of the next are ``vector`` further."""
        group, rest = divmod(k, self.vector)
        return group * (self.width // self.own) * self.vector + rest


class ProductEmitter(KernelEmitter):
    """Writes such a kernel."""

    inside_nest = True

    def product_of(self, op: Op, tile: Tile, total: int, parts: int, room: Pointer | None) -> None:
        b, (x, y), self.z = self.builder, op.operands, op.result
        self.tile, self.parts = tile, parts
        self.dtype = accumulated(self.z.type.dtype)
        self.item = value_type(self.dtype)
        self.base = self.parameters[room] if room is not None else None
        self.shape = self.z.type.static_shape[-2:]
        self.inner = x.type.static_shape[-1]
        across = tile.columns // tile.wide
        self.me = self.register("tid.x")
        self.left = self._side(x, tile.rows, tile.tall, b.udiv(self.me, index(across)))
        self.right = self._side(y, tile.columns, tile.wide, b.urem(self.me, index(across)))
        self.stride_from(self.register("ctaid.x"), self.blocks, index(total * parts), self._tile)

    def _side(self, x: Value, width: int, own: int, thread: ir.Value) -> Side:
        vector = 1 if self.dtype.kind == "c" else min(own, max(1, VECTOR // self.dtype.itemsize))
        made = Side(x, ZERO, width, own, thread, vector)
        return Side(x, shared(self, self.item, self.tile.depth * made.line), width, own, thread, vector)

    def _tile(self, k: ir.Value) -> None:
        """One tile of the result, or the part of it that comes of some strips."""
        b, tile = self.builder, self.tile
        strips = -(-self.inner // tile.depth)
        each = -(-strips // self.parts)
        down, across = -(-self.shape[0] // tile.rows), -(-self.shape[1] // tile.columns)
        k, part = (b.udiv(k, index(self.parts)), b.urem(k, index(self.parts))) if self.parts > 1 else (k, ZERO)
        rest, column = b.udiv(k, index(across)), self.mul(b.urem(k, index(across)), index(tile.columns))
        row = self.mul(b.urem(rest, index(down)), index(tile.rows))
        self.corner = (b.udiv(rest, index(down)), row, column)
        first = self.mul(part, index(each))
        last = self._least(self.add(first, index(each)), index(strips))
        totals = [constant(self.dtype, 0)] * (tile.tall * tile.wide)
        coming = self._fetch(first)

        def strip(p: ir.Value, *carried: ir.Value) -> list[ir.Value]:
            own = len(self.slices)
            for (side, line, at), value in zip(self.slices, carried[:own]):
                b.store(value, self._near(side, line, at))
            barrier(self)
            following = self._fetch(self.add(first, self.add(p, index(1))))
            added = self._multiply(list(carried[own:]))
            barrier(self)
            return [*following, *added]

        found = self.loop(b.sub(last, first), [*coming, *totals], strip)
        self._hand_out(part, found[len(coming) :])

    def _least(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed("<", x, y), x, y)

    # --- strips

    def _fetch(self, strip: ir.Value) -> list[ir.Value]:
        """What this thread copies of a strip; zero beyond the edges."""
        b, tile = self.builder, self.tile
        batch, row, column = self.corner
        start = self.mul(strip, index(tile.depth))
        self.slices: list[tuple[Side, ir.Value, ir.Value]] = []
        found = []
        for side, first, limit in ((self.left, row, self.shape[0]), (self.right, column, self.shape[1])):
            steps = strides(side.x.type)
            for turn in range(0, side.width * tile.depth, tile.threads):
                k = self.add(self.me, index(turn))
                if side is self.left:  # threads side by side read along the inner axis, which rows of x have
                    line, at = b.urem(k, index(tile.depth)), b.udiv(k, index(tile.depth))
                else:
                    line, at = b.udiv(k, index(side.width)), b.urem(k, index(side.width))
                self.slices.append((side, line, at))
                inner, outer = self.add(start, line), self.add(first, at)
                inside = b.and_(b.icmp_signed("<", inner, index(self.inner)), b.icmp_signed("<", outer, index(limit)))
                place = (outer, inner) if side is self.left else (inner, outer)
                position = self.dot((batch, *place), (steps[-2] * side.x.type.static_shape[-2], *steps[-2:]))
                position = b.select(inside, position, ZERO)
                value = self.load_at(side.x, self.offset(self.memory.base(side.x), side.x.type, position))
                wide = convert(b, side.x.type.dtype, self.dtype, value)
                found.append(b.select(inside, wide, constant(self.dtype, 0)))
        return found

    def _near(self, side: Side, line: ir.Value, at: ir.Value) -> ir.Value:
        position = self.add(self.mul(line, index(side.line)), at)
        return self.builder.gep(side.room, [position], inbounds=True, source_etype=self.item)

    def _multiply(self, totals: list[ir.Value]) -> list[ir.Value]:
        """Adds the product of the strips."""
        for line in range(self.tile.depth):
            xs, ys = self._own(self.left, line), self._own(self.right, line)
            for i, x in enumerate(xs):
                for j, y in enumerate(ys):
                    k = i * len(ys) + j
                    totals[k] = self._multiply_add(x, y, totals[k])
        return totals

    def _multiply_add(self, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
        b = self.builder
        if self.dtype.kind != "c":
            return multiply_add(b, self.dtype, x, y, total)
        part = F64 if self.dtype == C128 else F32
        (x_re, x_im), (y_re, y_im), (re, im) = ([b.extract_value(v, k) for k in (0, 1)] for v in (x, y, total))
        re = multiply_add(b, part, b.fneg(x_im), y_im, multiply_add(b, part, x_re, y_re, re))
        im = multiply_add(b, part, x_im, y_re, multiply_add(b, part, x_re, y_im, im))
        return b.insert_value(b.insert_value(total, re, 0), im, 1)

    def _own(self, side: Side, line: int) -> list[ir.Value]:
        """The elements of a line that this thread multiplies."""
        b, found = self.builder, list[ir.Value]()
        first = self.mul(side.thread, index(side.vector))
        for k in range(0, side.own, side.vector):
            at = self.add(first, index(line * side.line + side.place(k)))
            here = b.gep(side.room, [at], inbounds=True, source_etype=self.item)
            if side.vector == 1:
                found.append(b.load(here, typ=self.item))
                continue
            vector = b.load(here, typ=ir.VectorType(self.item, side.vector), align=side.vector * self.dtype.itemsize)
            found += [b.extract_element(vector, ir.IntType(32)(j)) for j in range(side.vector)]
        return found

    # --- results

    def _hand_out(self, part: ir.Value, totals: list[ir.Value]) -> None:
        b, z, (batch, row, column) = self.builder, self.z, self.corner
        rows, columns = self.shape
        for i in range(self.tile.tall):
            for j in range(self.tile.wide):
                r, c = self._place(self.left, row, i), self._place(self.right, column, j)
                inside = b.and_(b.icmp_signed("<", r, index(rows)), b.icmp_signed("<", c, index(columns)))
                with b.if_then(inside):
                    k = self.dot((batch, r, c), (rows * columns, columns, 1))
                    value = totals[i * self.tile.wide + j]
                    if self.base is None:
                        value = convert(b, self.dtype, z.type.dtype, value)
                        self.store_at(z, self.offset(self.memory.base(z), z.type, k), value)
                    else:
                        k = self.add(k, self.mul(part, index(count(z.type.shape))))
                        b.store(value, b.gep(self.base, [k], inbounds=True, source_etype=self.item))

    def _place(self, side: Side, first: ir.Value, k: int) -> ir.Value:
        """The row or column of the result that the element ``k`` of this thread along a side is."""
        return self.add(first, self.add(self.mul(side.thread, index(side.vector)), index(side.place(k))))
