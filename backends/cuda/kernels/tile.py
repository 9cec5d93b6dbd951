"""Kernels that read a tensor across: transposes, and what is computed of transposed tensors.

    %y = kernel {domain = (n, m)} { (%i, %j)
      %a = extract %x, %j, %i             threads side by side have %j side by side: they read %x in strides

The threads of a block do a tile of the result together. First they copy the part of %x that it needs to the memory of
the block, side by side along %i; then they read that across, and write side by side along %j. A row in the memory of
the block is one element longer than the tile, so that a column of it lies in different banks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.analysis.affine import Forms
from dflow.backends.cuda.context import FAILING, Context, Needs
from dflow.backends.cuda.kernels.cooperative import barrier, shared
from dflow.backends.cuda.kernels.folds import count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.emit.core import cost
from dflow.backends.emit.kernel import write
from dflow.backends.emit.types import from_storage, index, storage_type, to_storage
from dflow.ir.core import Op, Value, walk
from dflow.ir.types import Dim

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

TILE = 32  # elements along both axes: a warp's width
ROWS = 8  # of a tile that the threads do at a time
NARROW = 16  # axes shorter than this waste most of a tile
SHARED_BYTES = 36 << 10
UNROLLED = 256  # operations that are written out
MOST_BLOCKS = 1 << 16


@dataclass(frozen=True)
class Tiles:
    """The tiles of a kernel lie along ``axis`` and the last axis; ``reads`` are what is read across."""

    axis: int
    reads: tuple[Op, ...]


def find_tiles(op: Op, context: Context) -> Tiles | None:
    """What a kernel reads across, if it does."""
    if op.name != "kernel" or op.attrs["reduced"] or len(op.attrs["domain"]) < 2:
        return None
    (region,) = op.regions
    if any(o.name in FAILING for o in walk(region)):  # which leave before the barrier
        return None
    domain, by_axis = op.attrs["domain"], dict[int, list[Op]]()
    made = {r for o in region.ops for r in o.results}
    forms = Forms(lambda v: v not in made)
    written = [context.plan.buffers[r] for r in op.results if r in context.plan.buffers]
    for o in region.ops:
        if o.name != "extract" or context.plan.buffers.get(o.operands[0]) in written:
            continue
        axis = _axis_across(o, region.args, forms)
        if axis is not None and min(count(domain[axis : axis + 1]), count(domain[-1:])) >= NARROW:
            by_axis.setdefault(axis, []).append(o)
    if not by_axis:
        return None
    axis = max(by_axis, key=lambda k: len(by_axis[k]))
    reads, room = list[Op](), SHARED_BYTES
    for o in by_axis[axis]:
        room -= _room(o)
        if room >= 0:
            reads.append(o)
    return Tiles(axis, tuple(reads))


def _room(o: Op) -> int:
    return TILE * (TILE + 1) * o.operands[0].type.dtype.itemsize


def _axis_across(o: Op, args: tuple[Value, ...], forms: Forms) -> int | None:
    """The axis of the domain along which an element is read side by side, where that is not the last."""
    x, *starts = o.operands
    if x.type.grows or any(entry != "at" for entry in o.attrs["index"]):
        return None
    found = [forms.of(v) for v in starts]
    if any(f is None for f in found):
        return None
    *others, inner = [f for f in found if f is not None]
    near = [k for k, a in enumerate(args) if inner.of(a)]
    if len(near) != 1 or near[0] == len(args) - 1 or abs(inner.of(args[near[0]])) != 1:
        return None
    return near[0] if any(f.of(args[-1]) for f in others) else None


def emit_tiles(s: Scheduler, op: Op) -> None:
    """Adds the step for a kernel that reads across to those of the scheduler."""
    tiles = find_tiles(op, s.context)
    assert tiles is not None
    domain = op.attrs["domain"]
    sides = (tiles.axis, len(domain) - 1)
    total = 1
    for k, d in enumerate(domain):
        total *= -(-count((d,)) // TILE) if k in sides else count((d,))
    blocks = min(MOST_BLOCKS, max(1, total))
    e = TileEmitter(s.context, "tiles", "grid", Needs(s.context, [op]), blocks, TILE * ROWS, is_divisible=False)
    e.loc = op.loc
    e.recall([op])
    e.tiles(op, tiles)
    s.steps.append(e.finish())


class TileEmitter(KernelEmitter):
    """Writes such a kernel. ``near`` holds what has been read already, while an element is computed."""

    near: dict[Op, ir.Value] = {}  # noqa: RUF012 (replaced, never changed)
    inside_nest = True

    def tiles(self, op: Op, tiles: Tiles) -> None:
        b, (self.region,), self.domain = self.builder, op.regions, op.attrs["domain"]
        self.kernel, self.reads = op, tiles.reads
        self.made = {r for o in self.region.ops for r in o.results}
        self.sides = (tiles.axis, len(self.domain) - 1)
        me = self.register("tid.x")
        self.along, self.across = b.and_(me, index(TILE - 1)), b.lshr(me, index(TILE.bit_length() - 1))
        self.rooms = {o: shared(self, _item(o), TILE * (TILE + 1)) for o in tiles.reads}
        counts = [self._tiles_along(d) if k in self.sides else self.size(d) for k, d in enumerate(self.domain)]
        total = counts[0]
        for c in counts[1:]:
            total = self.mul(total, c)
        self.stride_from(self.register("ctaid.x"), self.blocks, total, lambda k: self._tile(self.unravel(k, counts)))

    def _tile(self, first: list[ir.Value]) -> None:
        for side in self.sides:
            first[side] = self.mul(first[side], index(TILE))
        self._copy(first)
        barrier(self)
        if cost(walk(self.region)) * TILE // ROWS <= UNROLLED:
            for row in range(0, TILE, ROWS):
                self._compute(first, self.add(self.across, index(row)))
        else:
            below = lambda k: self.add(self.across, self.mul(k, index(ROWS)))  # noqa: E731
            self.repeat(index(TILE // ROWS), lambda k: self._compute(first, below(k)))
        barrier(self)

    def _element(self, first: list[ir.Value], row: ir.Value, side: int) -> list[ir.Value]:
        """The element of a thread in a row of the tile, where ``side`` is the axis along the rows."""
        at, other = list(first), sum(self.sides) - side
        at[side], at[other] = self.add(at[side], self.along), self.add(at[other], row)
        return at

    def _copy(self, first: list[ir.Value]) -> None:
        """All loads before the first store, so that they run at the same time; beyond the edges any element does."""
        b, loaded = self.builder, list[tuple[Op, ir.Value, ir.Value]]()
        for step in range(0, TILE, ROWS):
            row = self.add(self.across, index(step))
            at = self._element(first, row, self.sides[0])
            for k in self.sides:
                at[k] = b.select(b.icmp_signed("<", at[k], self.size(self.domain[k])), at[k], first[k])
            self.env.update(zip(self.region.args, at))
            for o in self.reads:
                x, *starts = o.operands
                here = self._near(o, row, self.along)
                loaded.append((o, here, self.load(x, [self._index(v) for v in starts])))
        for o, here, value in loaded:
            b.store(to_storage(b, o.result.type.dtype, value), here)

    def _compute(self, first: list[ir.Value], row: ir.Value) -> None:
        b, at = self.builder, self._element(first, row, self.sides[1])
        with b.if_then(b.and_(*(b.icmp_signed("<", at[k], self.size(self.domain[k])) for k in self.sides))):
            self.env.update(zip(self.region.args, at))
            self.near = {o: self._near(o, self.along, row) for o in self.reads}
            self.block(self.region)
            write(self, self.kernel.results, at, [self.env[v] for v in self.region.results])
            self.near = {}

    def _near(self, o: Op, row: ir.Value, column: ir.Value) -> ir.Value:
        """The address of an element of the tile in the memory of the block."""
        position = self.add(self.mul(row, index(TILE + 1)), column)
        return self.builder.gep(self.rooms[o], [position], inbounds=True, source_etype=_item(o))

    def _index(self, v: Value) -> ir.Value:
        """An index, computed anew for the element at hand."""
        if v in self.made:
            assert v.op is not None
            for x in v.op.operands:
                self._index(x)
            self.op(v.op)
        return self.env[v]

    def op(self, op: Op) -> None:
        if op in self.near:
            dtype = op.result.type.dtype
            loaded = self.builder.load(self.near[op], typ=_item(op))
            self.env[op.result] = from_storage(self.builder, dtype, loaded)
        else:
            super().op(op)

    def _tiles_along(self, d: Dim) -> ir.Value:
        if isinstance(d, int):
            return index(-(-d // TILE))
        return self.builder.udiv(self.add(self.size(d), index(TILE - 1)), index(TILE))

    def unravel(self, k: ir.Value, counts: list[ir.Value]) -> list[ir.Value]:
        """The index with the row-major position ``k``."""
        b, at = self.builder, list[ir.Value]()
        for c in reversed(counts[1:]):
            at.append(b.urem(k, c))
            k = b.udiv(k, c)
        return [k, *reversed(at)]


def _item(o: Op) -> ir.Type:
    return storage_type(o.result.type.dtype)
