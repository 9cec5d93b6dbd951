"""Sorting large rows: a merge sort in which every thread places one element.

A pass merges neighbouring runs of ``w`` positions. An element's place in the merged run is its place in its own run
plus the number of elements of the other run that come before it, which a binary search finds. Of equal elements those
of the left run come first, so that the order is stable. The passes are rounds of a loop of the host, two in each, to
and fro.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Needs
from dflow.backends.cuda.folds import count
from dflow.backends.cuda.kernel import KernelEmitter
from dflow.backends.cuda.plan import Launch, Loop, Pointer
from dflow.backends.emit_scalar import int_compare, is_nan
from dflow.backends.emit_types import I1, I64, ONE, ZERO, index, strides
from dflow.ir.core import Op, Value
from dflow.ir.types import I64 as INDEX
from dflow.ir.types import DType, TensorType, scalar

if TYPE_CHECKING:
    from dflow.backends.cuda.schedule import Scheduler

LONG_ROW = 256  # elements from which a row is not left to one thread
BLOCK = 256
MOST_BLOCKS = 1 << 16


def is_parallel_sort(op: Op) -> bool:
    """Whether an operation sorts rows that are too long for one thread."""
    return op.name == "argsort" and op.result.type.bound[-1] >= LONG_ROW


@dataclass(frozen=True)
class Rows:
    """Rows that are to be sorted: the dtype of their keys, and ``key(emitter, row, i)``, the key of an element as it is
    in memory. The order goes to ``order``, a tensor or memory for as many i64 as ``type`` has elements; ``room`` is as
    large, and ``others`` is what else the keys need."""

    type: TensorType
    dtype: DType
    key: Callable[[KernelEmitter, list[ir.Value], ir.Value], ir.Value]
    order: Value | Pointer
    room: Pointer
    others: tuple[Pointer, ...] = ()

    @property
    def pointers(self) -> list[Pointer]:
        """All memory that is not the operation's."""
        return [p for p in (self.order, self.room, *self.others) if isinstance(p, Pointer)]


def emit_sort(s: Scheduler, op: Op) -> None:
    """Adds the steps for sorting to those of the scheduler."""
    (x,), y = op.operands, op.result

    def key(e: KernelEmitter, row: list[ir.Value], i: ir.Value) -> ir.Value:
        return e.load(x, [*row, i])

    order_of(s, op, Rows(y.type, x.type.dtype, key, y, s.places.room(8 * count(y.type.shape))))


def order_of(s: Scheduler, op: Op, rows: Rows) -> None:
    """Adds the steps that order rows, for the operation ``op``."""
    n = rows.type.bound[-1]
    passes = max(1, (n - 1).bit_length())
    step = Value(scalar(INDEX))
    number = s.context.counters[step] = len(s.context.counters)
    _Sort(s, op, rows, step).numbers()
    body = [_Sort(s, op, rows, step).merge(parity) for parity in (0, 1)]
    s.steps.append(Loop(number, -(-passes // 2), tuple(body)))


class _Sort:
    """One kernel."""

    def __init__(self, s: Scheduler, op: Op, rows: Rows, step: Value):
        self.rows, self.s, self.shape = rows, s, rows.type.shape
        blocks = min(MOST_BLOCKS, -(-count(self.shape) // BLOCK))
        needs = Needs(s.context, [op], [step])
        self.e = KernelEmitter(s.context, "argsort", "grid", needs, blocks, BLOCK, targets=rows.pointers)
        self.e.loc = op.loc
        self.e.recall([op], [step])
        self.step = step

    def numbers(self) -> None:
        """The positions in order."""
        e = self.e
        e.nest(self.shape, lambda at: self._write(1, at[:-1], at[-1], at[-1]))
        self.s.steps.append(e.finish())

    def merge(self, parity: int) -> Launch:
        """A pass from the result to the room, or back."""
        e, b = self.e, self.e.builder
        shift = b.add(b.shl(e.env[self.step], ONE), index(parity))
        width, size = b.shl(ONE, shift), e.size(self.shape[-1])

        def place(at: list[ir.Value]) -> None:
            *row, i = at
            run = b.lshr(i, shift)
            is_right = b.trunc(run, I1)
            start = b.shl(b.xor(run, ONE), shift)
            length = self._clamp(b.sub(size, start), width)
            mine = self._read(parity, row, i)

            def before_mine(k: ir.Value) -> ir.Value:
                other = self._read(parity, row, b.add(start, k))
                return b.select(is_right, b.not_(self._less(row, mine, other)), self._less(row, other, mine))

            found = self._search(length, before_mine)
            first = b.shl(b.lshr(run, ONE), b.add(shift, ONE))
            self._write(parity, row, b.add(b.add(first, b.and_(i, b.sub(width, ONE))), found), mine)

        e.nest(self.shape, place)
        return e.finish()

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

    def _address(self, in_room: bool, row: list[ir.Value], i: ir.Value) -> ir.Value:
        e, to = self.e, self.rows.room if in_room else self.rows.order
        base = e.parameters[to] if isinstance(to, Pointer) else e.memory.base(to)
        return e.offset(base, self.rows.type, e.dot([*row, i], strides(self.rows.type)))

    def _read(self, parity: int, row: list[ir.Value], i: ir.Value) -> ir.Value:
        return self.e.builder.load(self._address(parity == 1, row, i), typ=I64)

    def _write(self, parity: int, row: list[ir.Value], i: ir.Value, value: ir.Value) -> None:
        self.e.builder.store(value, self._address(parity == 0, row, i))

    def _less(self, row: list[ir.Value], i: ir.Value, j: ir.Value) -> ir.Value:
        """Whether element i comes before element j: NaN comes last."""
        b, dtype = self.e.builder, self.rows.dtype
        x, y = (self.rows.key(self.e, row, k) for k in (i, j))
        if not dtype.is_float:
            return int_compare(b, dtype, "<", x, y)
        return b.or_(b.fcmp_ordered("<", x, y), b.and_(is_nan(b, y), b.not_(is_nan(b, x))))
