"""Writing to computed places, by all threads.

*Scatter*: of several writes to one place the last one wins, as on the processor. A first kernel finds the number of the
last write to each place, by an atomic maximum; then those that won are written.

*Additions in order*: where atomic additions, in whatever order, do not do (for the same result in every run, or because
the memory cannot add numbers of this kind), the additions are sorted by their place. The sort is stable, so those to
one place follow each other in their order; one thread does them, and the result is that of the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Needs
from dflow.backends.cuda.kernels.folds import count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.kernels.memory import RELAXED
from dflow.backends.cuda.kernels.sort import Rows, order_of
from dflow.backends.cuda.plan import Pointer
from dflow.backends.emit.indexing import gathered_index
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import I32, I64, ONE, ZERO, index, strides, value_type
from dflow.ir.core import Op
from dflow.ir.types import I64 as INDEX
from dflow.ir.types import Dim, TensorType

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

At = list[ir.Value]
THREADS = 256
MOST_BLOCKS = 1 << 16


def can_be_sorted(op: Op) -> bool:
    """Whether the places of an operation are numbered along one axis."""
    shape = op.operands[2].type.shape
    return len(shape) == 1 or all(isinstance(d, int) for d in shape)


class _Scatter:
    """The kernels of one operation."""

    def __init__(self, s: Scheduler, op: Op, rooms: list[Pointer]):
        self.s, self.op, self.rooms = s, op, rooms
        self.x, self.v, *self.indices = op.operands
        self.shape = self.indices[0].type.shape  # of the places
        self.rank = len(self.shape)

    def kernel(self, what: str, shape: tuple[Dim, ...], body: Callable[[KernelEmitter, At], None]) -> None:
        """Adds a kernel that does ``body`` at all points of ``shape``."""
        needs, blocks = Needs(self.s.context, [self.op]), min(MOST_BLOCKS, max(1, -(-count(shape) // THREADS)))
        e = KernelEmitter(self.s.context, what, "grid", needs, blocks, THREADS, targets=self.rooms)
        e.loc = self.op.loc
        e.recall([self.op])
        e.nest(shape, lambda at: body(e, at))
        self.s.steps.append(e.finish())

    def number(self, e: KernelEmitter, at: At) -> ir.Value:
        """The number of a write: later ones have larger numbers."""
        return e.dot(at[: self.rank], strides(self.indices[0].type))

    def place(self, e: KernelEmitter, at: At, steps: tuple[int, ...]) -> ir.Value:
        """Where a write goes: its index times ``steps``."""
        return e.dot(gathered_index(e, self.indices, at[: self.rank]), steps)

    def element(self, e: KernelEmitter, room: int, k: ir.Value, item: ir.Type) -> ir.Value:
        return e.builder.gep(e.parameters[self.rooms[room]], [k], inbounds=True, source_etype=item)


def emit_scatter(s: Scheduler, op: Op) -> None:
    """Adds the steps for a scatter to those of the scheduler."""
    whole = TensorType(INDEX, op.operands[0].type.shape[: len(op.operands) - 2])
    item = I32 if count(op.operands[2].type.shape) < 1 << 31 else I64
    room = s.places.room(max(1, count(whole.shape)) * item.width // 8)
    made = _Scatter(s, op, [room])

    def last(e: KernelEmitter, at: At) -> ir.Value:
        """Where the number of the last write to the place of this one is."""
        return made.element(e, 0, made.place(e, at, strides(whole)), item)

    def number(e: KernelEmitter, at: At) -> ir.Value:
        k = made.number(e, at)
        return e.builder.trunc(k, item) if item != I64 else k

    def clear(e: KernelEmitter, at: At) -> None:
        e.builder.store(item(-1), made.element(e, 0, e.dot(at, strides(whole)), item))

    def claim(e: KernelEmitter, at: At) -> None:
        e.builder.atomic_rmw("max", last(e, at), number(e, at), RELAXED)

    def put(e: KernelEmitter, at: At) -> None:
        b = e.builder
        with b.if_then(b.icmp_signed("==", b.load(last(e, at), typ=item), number(e, at))):
            e.store(made.x, gathered_index(e, made.indices, at), e.load(made.v, at))

    made.kernel("scatter_clear", whole.shape, clear)
    made.kernel("scatter_claim", made.shape, claim)
    made.kernel("scatter", made.v.type.shape, put)


def emit_ordered(s: Scheduler, op: Op) -> None:
    """Adds the steps for additions in order to those of the scheduler."""
    shape = op.operands[2].type.shape
    line: tuple[Dim, ...] = shape if len(shape) == 1 else (count(shape),)
    order, keys = (s.places.room(8 * max(1, count(shape))) for _ in range(2))
    made = _Scatter(s, op, [order, keys])
    steps = strides(made.x.type)

    def key(e: KernelEmitter, k: ir.Value) -> ir.Value:
        return e.builder.load(made.element(e, 1, k, I64), typ=I64)

    def note(e: KernelEmitter, at: At) -> None:
        e.builder.store(made.place(e, at, steps), made.element(e, 1, made.number(e, at), I64))

    made.kernel("scatter_keys", made.shape, note)
    order_of(s, op, Rows(TensorType(INDEX, line), INDEX, lambda e, row, i: key(e, i), order, (keys,)))

    def add(e: KernelEmitter, at: At) -> None:
        """The first of the additions to a place does all of them."""
        b, (p, *rest) = e.builder, at
        source = lambda k: b.load(made.element(e, 0, k, I64), typ=I64)  # noqa: E731
        place = key(e, source(p))
        before = key(e, source(b.select(b.icmp_signed("==", p, ZERO), p, b.sub(p, ONE))))
        with b.if_then(b.or_(b.icmp_signed("==", p, ZERO), b.icmp_signed("!=", before, place))):
            _add_all(e, made, source, key, p, place, rest, e.size(line[0]))

    made.kernel("scatter_add", (*line, *made.v.type.shape[made.rank :]), add)


def _add_all(
    e: KernelEmitter,
    made: _Scatter,
    source: Callable[[ir.Value], ir.Value],
    key: Callable[[KernelEmitter, ir.Value], ir.Value],
    p: ir.Value,
    place: ir.Value,
    rest: At,
    count: ir.Value,
) -> None:
    """Adds all that goes to one place, from the position ``p`` in the sorted order on."""
    b, dtype = e.builder, made.x.type.dtype
    to = e.offset(
        e.memory.base(made.x), made.x.type, e.add(place, e.dot(rest, strides(made.x.type)[len(made.indices) :]))
    )
    total, q = e.slot(value_type(dtype)), e.slot(I64)
    b.store(e.load_at(made.x, to), total)
    b.store(p, q)
    head, look, same, done = (e.new_block(name) for name in ("next", "look", "same", "added"))
    b.branch(head)
    b.position_at_end(head)
    here = b.load(q, typ=I64)
    b.cbranch(b.icmp_signed("<", here, count), look, done)
    b.position_at_end(look)
    k = source(here)
    b.cbranch(b.icmp_signed("==", key(e, k), place), same, done)
    b.position_at_end(same)
    value = e.load(made.v, [*e.positions(k, made.shape), *rest])
    b.store(emit_scalar(b, "add", {}, [dtype] * 2, [b.load(total, typ=value_type(dtype)), value]), total)
    b.store(b.add(here, index(1)), q)
    b.branch(head)
    b.position_at_end(done)
    e.store_at(made.x, to, b.load(total, typ=value_type(dtype)))
