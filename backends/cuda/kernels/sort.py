"""Sorting rows: a merge sort in which every thread places one element at a time.

A pass merges neighbouring runs of ``w`` positions. An element's place in the merged run is its place in its own run
plus the number of elements of the other run that come before it, which a binary search finds. Of equal elements those
of the left run come first, so that the order is stable. The first kernel does all passes within a tile, in the memory
of a block; rows that are no longer than a tile are sorted then. The other passes are rounds of a loop of the host, two
in each, to and fro. They move the keys with the order, so that a search reads neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Needs
from dflow.backends.cuda.kernels.cooperative import WARP, barrier, shared
from dflow.backends.cuda.kernels.folds import count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.plan import Launch, Loop, Pointer
from dflow.backends.emit.scalar import int_compare, is_nan
from dflow.backends.emit.types import I1, I32, I64, ONE, ZERO, from_storage, index, storage_type, strides, to_storage
from dflow.ir.core import Op, Value
from dflow.ir.types import I64 as INDEX
from dflow.ir.types import DType, TensorType, scalar

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

LONG_ROW = 32  # elements from which a row is not left to one thread
TILE = 1024  # elements that a block sorts in its memory
THREADS = 256
MOST_BLOCKS = 1 << 16


def is_parallel_sort(op: Op) -> bool:
    """Whether an operation sorts rows that are too long for one thread."""
    return op.name == "argsort" and op.result.type.bound[-1] >= LONG_ROW


@dataclass(frozen=True)
class Rows:
    """Rows that are to be sorted: the dtype of their keys, and ``key(emitter, row, i)``, the key of an element as it is
    in memory. The order goes to ``order``, a tensor or memory for as many i64 as ``type`` has elements; ``others`` is
    what the keys need."""

    type: TensorType
    dtype: DType
    key: Callable[[KernelEmitter, list[ir.Value], ir.Value], ir.Value]
    order: Value | Pointer
    others: tuple[Pointer, ...] = ()

    @property
    def tile(self) -> int:
        """The elements of a tile."""
        return min(TILE, 1 << max(1, (self.type.bound[-1] - 1).bit_length()))


def emit_sort(s: Scheduler, op: Op) -> None:
    """Adds the steps for sorting to those of the scheduler."""
    (x,), y = op.operands, op.result

    def key(e: KernelEmitter, row: list[ir.Value], i: ir.Value) -> ir.Value:
        return e.load(x, [*row, i])

    order_of(s, op, Rows(y.type, x.type.dtype, key, y))


def order_of(s: Scheduler, op: Op, rows: Rows) -> None:
    """Adds the steps that order rows, for the operation ``op``."""
    n, tile = rows.type.bound[-1], rows.tile
    step = Value(scalar(INDEX))
    if n <= tile:
        _Sort(s, op, rows, []).tiles()
        return
    size = count(rows.type.shape)
    rooms = [s.places.room(width * size) for width in (8, rows.dtype.itemsize, rows.dtype.itemsize)]
    _Sort(s, op, rows, rooms).tiles()
    number = s.context.counters[step] = len(s.context.counters)
    body = [_Sort(s, op, rows, rooms, step).merge(parity) for parity in (0, 1)]
    passes = (n - 1).bit_length() - (tile - 1).bit_length()
    s.steps.append(Loop(number, -(-passes // 2), tuple(body)))


class _Sort:
    """One kernel. ``rooms``: a second place for the order, and two for the keys."""

    def __init__(self, s: Scheduler, op: Op, rows: Rows, rooms: list[Pointer], step: Value | None = None):
        self.rows, self.s, self.shape, self.rooms, self.step = rows, s, rows.type.shape, rooms, step
        self.keys = TensorType(rows.dtype, rows.type.shape)
        extra = [step] if step is not None else []
        threads = THREADS if extra else max(WARP, min(THREADS, rows.tile // 2))
        per_block = threads if extra else rows.tile
        of_rows = count(self.shape[:-1])
        blocks = -(-of_rows * rows.type.bound[-1] // per_block) if extra else of_rows * self._tiles
        pointers = [p for p in (rows.order, *rooms, *rows.others) if isinstance(p, Pointer)]
        needs = Needs(s.context, [op], extra)
        self.e = KernelEmitter(
            s.context, "argsort", "grid", needs, max(1, min(MOST_BLOCKS, blocks)), threads, pointers, bool(extra)
        )
        self.e.loc = op.loc
        self.e.recall([op], extra)

    @property
    def _tiles(self) -> int:
        return -(-self.rows.type.bound[-1] // self.rows.tile)

    # --- within tiles

    def tiles(self) -> None:
        """Sorts each tile of a row."""
        e, b, tile = self.e, self.e.builder, self.rows.tile
        item = storage_type(self.rows.dtype)
        self.near_keys, self.near = shared(e, item, 2 * tile), shared(e, I32, 2 * tile)
        me, size = e.register("tid.x"), e.size(self.shape[-1])
        passes = (tile - 1).bit_length()

        def one(g: ir.Value) -> None:
            row = e.positions(b.udiv(g, index(self._tiles)), self.shape[:-1])
            start = e.mul(b.urem(g, index(self._tiles)), index(tile))
            there = self._clamp(b.sub(size, start), index(tile))
            each = lambda body: e.stride_from(me, e.block_size, there, body)  # noqa: E731
            each(lambda j: self._put_near(ZERO, j, self.rows.key(e, row, e.add(start, j)), j))
            barrier(e)

            def merge(shift: ir.Value) -> None:
                each(lambda j: self._merge_near(shift, j, there))
                barrier(e)

            e.repeat(index(passes), merge)
            last = index((passes & 1) * tile)

            def write(j: ir.Value) -> None:
                at = [*row, e.add(start, j)]
                e.builder.store(e.add(start, self._near_place(e.add(last, j))), self._address(0, at))
                if self.rooms:
                    e.builder.store(self._stored(self._near_key(e.add(last, j))), self._key_address(0, at))

            each(write)
            barrier(e)

        e.stride_from(e.register("ctaid.x"), e.blocks, e.mul(e.product(self.shape[:-1]), index(self._tiles)), one)
        self.s.steps.append(e.finish())

    def _merge_near(self, shift: ir.Value, j: ir.Value, there: ir.Value) -> None:
        """A pass from the one half of the memory to the other, for the element ``j``."""
        e, b = self.e, self.e.builder
        is_odd = b.trunc(shift, I1)
        source, target = (b.select(is_odd, index(x), index(y)) for x, y in ((self.rows.tile, 0), (0, self.rows.tile)))
        mine = self._near_key(e.add(source, j))
        place = self._place(shift, j, there, mine, lambda k: self._near_key(e.add(source, k)))
        self._put_near(target, place, mine, self._near_place(e.add(source, j)))

    def _near_at(self, room: ir.Value, item: ir.Type, j: ir.Value) -> ir.Value:
        return self.e.builder.gep(room, [j], inbounds=True, source_etype=item)

    def _put_near(self, half: ir.Value, j: ir.Value, key: ir.Value, place: ir.Value) -> None:
        b, j = self.e.builder, self.e.add(half, j)
        b.store(self._stored(key), self._near_at(self.near_keys, storage_type(self.rows.dtype), j))
        b.store(b.trunc(place, I32), self._near_at(self.near, I32, j))

    def _near_key(self, j: ir.Value) -> ir.Value:
        item = storage_type(self.rows.dtype)
        return self._loaded(self._near_at(self.near_keys, item, j))

    def _near_place(self, j: ir.Value) -> ir.Value:
        b = self.e.builder
        return b.zext(b.load(self._near_at(self.near, I32, j), typ=I32), I64)

    # --- of longer runs

    def merge(self, parity: int) -> Launch:
        """A pass from the result to the room, or back."""
        e, b = self.e, self.e.builder
        assert self.step is not None
        first = (self.rows.tile - 1).bit_length() + parity
        shift = b.add(b.shl(e.env[self.step], ONE), index(first))
        size = e.size(self.shape[-1])

        def one(at: list[ir.Value]) -> None:
            *row, i = at
            mine = self._key(parity, at)
            place = self._place(shift, i, size, mine, lambda k: self._key(parity, [*row, k]))
            to = [*row, place]
            b.store(b.load(self._address(parity, at), typ=I64), self._address(1 - parity, to))
            b.store(self._stored(mine), self._key_address(1 - parity, to))

        e.nest(self.shape, one)
        return e.finish()

    def _address(self, room: int, at: list[ir.Value]) -> ir.Value:
        """Where the order is: in the result, or in the room."""
        e, to = self.e, self.rooms[0] if room else self.rows.order
        base = e.parameters[to] if isinstance(to, Pointer) else e.memory.base(to)
        return e.offset(base, self.rows.type, e.dot(at, strides(self.rows.type)))

    def _key_address(self, room: int, at: list[ir.Value]) -> ir.Value:
        e = self.e
        return e.offset(e.parameters[self.rooms[1 + room]], self.keys, e.dot(at, strides(self.keys)))

    def _key(self, room: int, at: list[ir.Value]) -> ir.Value:
        return self._loaded(self._key_address(room, at))

    def _loaded(self, address: ir.Value) -> ir.Value:
        b, dtype = self.e.builder, self.rows.dtype
        return from_storage(b, dtype, b.load(address, typ=storage_type(dtype)))

    def _stored(self, key: ir.Value) -> ir.Value:
        return to_storage(self.e.builder, self.rows.dtype, key)

    # --- places

    def _place(
        self, shift: ir.Value, i: ir.Value, size: ir.Value, mine: ir.Value, other: Callable[[ir.Value], ir.Value]
    ) -> ir.Value:
        """Where the element ``i``, with the key ``mine``, goes when runs of ``1 << shift`` are merged."""
        b = self.e.builder
        width, run = b.shl(ONE, shift), b.lshr(i, shift)
        is_right, start = b.trunc(run, I1), b.shl(b.xor(run, ONE), shift)

        def before_mine(k: ir.Value) -> ir.Value:
            key = other(b.add(start, k))
            return b.select(is_right, b.not_(self._less(mine, key)), self._less(key, mine))

        found = self._search(self._clamp(b.sub(size, start), width), before_mine)
        first = b.shl(b.lshr(run, ONE), b.add(shift, ONE))
        return b.add(b.add(first, b.and_(i, b.sub(width, ONE))), found)

    def _clamp(self, v: ir.Value, most: ir.Value) -> ir.Value:
        b = self.e.builder
        v = b.select(b.icmp_signed("<", v, ZERO), ZERO, v)
        return b.select(b.icmp_signed("<", v, most), v, most)

    def _search(self, length: ir.Value, goes_on: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """The first k below ``length`` where ``goes_on(k)`` fails, which holds up to there."""
        e, b = self.e, self.e.builder
        low, high = e.slot(I64), e.slot(I64)
        b.store(ZERO, low)
        b.store(length, high)
        head, inside, done = (e.new_block(name) for name in ("search", "halve", "found"))
        b.branch(head)
        b.position_at_end(head)
        l, h = b.load(low, typ=I64), b.load(high, typ=I64)
        b.cbranch(b.icmp_signed("<", l, h), inside, done)
        b.position_at_end(inside)
        middle = b.lshr(b.add(l, h), ONE)
        right = goes_on(middle)
        b.store(b.select(right, b.add(middle, ONE), l), low)
        b.store(b.select(right, h, middle), high)
        b.branch(head)
        b.position_at_end(done)
        return b.load(low, typ=I64)

    def _less(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """Whether a key comes before another: NaN comes last."""
        b, dtype = self.e.builder, self.rows.dtype
        if not dtype.is_float:
            return int_compare(b, dtype, "<", x, y)
        return b.or_(b.fcmp_ordered("<", x, y), b.and_(is_nan(b, y), b.not_(is_nan(b, x))))
