"""The steps of a program: which operations make a kernel together, and what the host does between kernels.

A block of operations is cut into kernels in program order. An operation with many elements is a kernel of its own, one
thread an element or so (small ones that do not depend on each other are launched together); a loop whose rounds are
independent is one with a thread a round; what remains between them is done by one thread. Loops and branches around
kernels are the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels import ops as device_ops  # noqa: F401
from dflow.backends.cuda.kernels.block import BlockEmitter, threads_for
from dflow.backends.cuda.kernels.cooperative import barrier
from dflow.backends.cuda.kernels.fold import emit_fold
from dflow.backends.cuda.kernels.group import Group, Touched
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.kernels.lane import emit_lanes
from dflow.backends.cuda.kernels.line import Lines, emit_lines, find_lines
from dflow.backends.cuda.kernels.product import emit_product
from dflow.backends.cuda.kernels.row import emit_rows
from dflow.backends.cuda.kernels.row_scan import emit_row_scan
from dflow.backends.cuda.kernels.scatter import emit_ordered, emit_scatter
from dflow.backends.cuda.kernels.sort import emit_sort
from dflow.backends.cuda.kernels.tails import add_result, find_tails
from dflow.backends.cuda.kernels.tile import emit_tiles
from dflow.backends.cuda.kernels.vector import emit_vectors
from dflow.backends.cuda.plan import (
    Choice,
    Counter,
    HostCall,
    If,
    Launch,
    Loop,
    Place,
    Pointer,
    Read,
    Scalar,
    Step,
    While,
)
from dflow.backends.cuda.planning.dense import emit_dense, is_dense
from dflow.backends.cuda.planning.lanes import Lanes
from dflow.backends.cuda.planning.work import decide, is_nothing, needs_host, points
from dflow.backends.emit.types import ZERO, to_storage
from dflow.backends.interface import by_value
from dflow.ir.core import Block, Function, Op, Value, free_values, substitute
from dflow.ir.types import BOOL, I64


@dataclass(frozen=True)
class Move:
    """A scalar that is to be written to memory: to the slot of ``target``, or to a result."""

    target: object
    source: Value


@dataclass
class Run:
    """Operations for one thread, then moves (all sources are read before any target is written)."""

    ops: list[Op] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)


class Scheduler:
    """Writes the kernels of a program; ``program()`` gives its steps."""

    def __init__(self, context: Context):
        self.context, self.places = context, context.places
        self.steps: list[Step] = []
        self.run = Run()
        self.group = Group(self)  # launched before the run
        self.done: set[Op] = set()  # by the kernels of others

    def program(self) -> tuple[Step, ...]:
        f = self.context.plan.function
        decide(f.body, self.context)
        find_tails(f.body, self.context)
        self.done = {op for tail in self.context.tails.values() for op in tail.checks}
        moves = []
        for k, v in enumerate(f.results):
            if v.type.is_scalar and v.op in f.body.ops and self.context.ways.get(v.op) == "fold":
                self.context.direct.setdefault(v, []).append(self.places.result(k))  # its kernel writes it
            elif v.type.is_scalar and not add_result(self.places.result(k), v, f.body, self.context):
                moves.append(Move(self.places.result(k), v))
        return self._block(f.body, moves)

    def _block(self, block: Block, moves: Sequence[Move]) -> tuple[Step, ...]:
        outer, self.steps = self.steps, []
        assert not self.run.ops and not self.run.moves
        spared = {x for op in block.ops for x in self.context.spared.get(op, ())}
        lines = find_lines(block, self.context, lambda op: op in spared or self._is_done(op))
        for op in block.ops:
            if op in lines:
                self._lines(lines[op])
            elif op not in spared:
                self._op(op)
        self._move(moves)
        self._flush()
        made, self.steps = tuple(self.steps), outer
        return made

    def _is_done(self, op: Op) -> bool:
        """Whether nothing is left to do for an operation."""
        context = self.context
        return (
            op in context.dead
            or op in self.done
            or is_nothing(op, context.plan)
            or all(context.is_repeated(r) for r in op.results or [_NEVER])
        )

    def _lines(self, lines: Lines | None) -> None:
        """Those that go together, at the first of them."""
        if lines is not None:
            self._flush()
            emit_lines(self, lines)

    def _op(self, op: Op) -> None:
        context = self.context
        if self._is_done(op):
            return
        if is_dense(op):
            self._dense(op)
        else:
            self._work(op, context.ways[op])

    def _dense(self, op: Op) -> None:
        """By a library, or as it would be done without."""
        self._flush()
        outer, self.steps = self.steps, []
        emit_dense(self, op)
        library, self.steps = tuple(self.steps), []
        for each in (*self.context.spared.get(op, ()), op):
            self._work(each, self.context.ways[each])
        self._flush()
        outer.append(Choice(library, tuple(self.steps)))
        self.steps = outer

    def _work(self, op: Op, way: object) -> None:
        if way == "one":
            if self.run.moves:
                self._flush()
            self.run.ops.append(op)
        elif way == "grid":
            self._grid(op)
        elif isinstance(way, Lanes):
            self._flush()
            emit_lanes(self, op, way)
        elif way == "rows":
            self._flush()
            emit_rows(self, op)
        elif way == "rowscan":
            self._flush()
            emit_row_scan(self, op)
        elif way in KERNELS:
            self._flush_unless_apart(op)
            self.group.launch()
            KERNELS[way](self, op)
        elif op.name in HOST:
            self._flush()
            HOST[op.name](self, op)
        else:
            self._flush()
            self._host_call(op)

    def _move(self, moves: Sequence[Move]) -> None:
        moves = [m for m in moves if m.target is not m.source]
        if self.run.moves and moves:
            self._flush()
        self.run.moves += moves

    # --- kernels

    def _flush(self) -> None:
        """Ends what waits: the group of operations, then the run."""
        self.group.launch()
        run, self.run = self.run, Run()
        if not run.ops and not run.moves:
            return
        sources = [m.source for m in run.moves]
        needs = Needs(self.context, run.ops, sources)
        targets = [m.target for m in run.moves if isinstance(m.target, Pointer)]
        threads = threads_for(run.ops, lambda op: points(op, self.context))
        e: KernelEmitter
        if threads > 1:
            e = BlockEmitter(self.context, needs, threads, targets)
        else:
            e = KernelEmitter(self.context, "steps", "one", needs, targets=targets)
        e.loc = next((op.loc for op in run.ops if op.loc), None)
        e.recall(run.ops, sources)
        for op in run.ops:
            e.op(op)
        values = [to_storage(e.builder, v.type.dtype, e.scalar(v)) for v in sources]
        if threads == 1:
            self._keep(e, run.ops)
            self._store(e, run.moves, values)
        else:
            barrier(e)  # the slots have been read
            with e.builder.if_then(e.builder.icmp_unsigned("==", e.thread, ZERO)):
                self._keep(e, run.ops)
                self._store(e, run.moves, values)
        self.steps.append(e.finish())

    def _store(self, e: KernelEmitter, moves: Sequence[Move], values: Sequence[Any]) -> None:
        for m, value in zip(moves, values):
            e.builder.store(value, e.target(m.target))

    def _keep(self, e: KernelEmitter, ops: Sequence[Op]) -> None:
        """Writes the scalars to memory that others use."""
        for op in ops:
            for r in op.results:
                if r.type.is_scalar and self.context.escapes(r, e.needs.blocks):
                    e.keep(r)

    def _grid(self, op: Op) -> None:
        self._flush_unless_apart(op)
        self.group.add(op, points(op, self.context))

    def _flush_unless_apart(self, op: Op) -> None:
        if not self._is_apart(op):
            self._flush()

    def _is_apart(self, op: Op) -> bool:
        """Whether a kernel may start before what waits in the run: neither touches what the other does."""
        run, context, needs = self.run, self.context, self.context.needs(op)
        if run.moves or any(o.name in ("check", "guard") or o.regions for o in run.ops):
            return not run.ops and not run.moves
        mine = Needs(context, run.ops)
        theirs = Touched.by([op], context, needs)
        return Touched.by(run.ops, context, mine).is_apart(theirs) and not mine.inside & set(needs.scalars)

    # --- what the host does

    def _in_memory(self, v: Value, key: object) -> Read | Scalar | Counter | int:
        """A condition or a count, for the host."""
        context = self.context
        if _without_bound(v) in context.position or _without_bound(v) in context.counters:
            v = _without_bound(v)
        if v.op is not None and v.op.name == "constant" and v.type.dtype == I64:
            return int(v.op.attrs["value"])
        if v in context.counters:
            return Counter(context.counters[v])
        if v in context.position and by_value(v.type):
            return Scalar(context.position[v], v.type.dtype)
        if context.is_repeated(v):
            self._move([Move(key, v)])
        else:
            key = v
        p = self.places.slot(key)
        return Read(p.buffer, p.offset, v.type.dtype)

    def _carry(self, values: Sequence[Value], inits: Sequence[Value], *others: Sequence[Value]) -> None:
        """Gives scalars that go round in a loop a slot, and fills it."""
        for group in zip(values, *others):
            if group[0].type.is_scalar:
                for v in group[1:]:
                    self.places.alias(v, group[0])
        self._move(_moves(values, inits))

    def _for(self, op: Op) -> None:
        (body,) = op.regions
        k, *carried = body.args
        number = len(self.context.counters)
        self.context.counters[k] = number
        self._carry(carried, op.operands[1:], op.results)
        count = self._in_memory(op.operands[0], ("count", op))
        self._flush()
        assert not isinstance(count, Read) or count.dtype == I64
        self.steps.append(Loop(number, count, self._block(body, _moves(carried, body.results))))

    def _while(self, op: Op) -> None:
        condition, body = op.regions
        self._carry(condition.args, op.operands, body.args, op.results)
        self._flush()
        p = self.places.slot(("condition", op))
        before = self._block(condition, [Move(("condition", op), condition.results[0])])
        inside = self._block(body, _moves(condition.args, body.results))
        self.steps.append(While(before, Read(p.buffer, p.offset, BOOL), inside))

    def _if(self, op: Op) -> None:
        condition = self._in_memory(op.operands[0], ("condition", op))
        self._flush()
        assert isinstance(condition, Read | Scalar)
        branches = [self._block(r, _moves(op.results, r.results)) for r in op.regions]
        self.steps.append(If(condition, branches[0], branches[1]))

    def _host_call(self, op: Op) -> None:
        """One operation as a function of its own."""
        free = sorted(free_values(Block((), [op], ())), key=lambda v: v.type.rank > 0)
        inputs: list[Place | Scalar | Counter] = []
        env: dict[Value, Value] = {}
        for v in free:
            env[v] = Value(substitute(v.type, env), v.hint)
            if v.type.is_scalar:
                known = self._in_memory_or_slot(v)
                inputs.append(known)
            else:
                inputs.append(self.tensor_place(v))
        self._flush()
        results = [Value(substitute(r.type, env), r.hint) for r in op.results]
        attrs = {k: substitute(a, env) for k, a in op.attrs.items()}
        made = Op(op.name, [env[v] for v in op.operands], results, attrs, (), op.loc)
        f = Function(op.name, Block(tuple(env.values()), [made], tuple(results)), frozenset(), op.loc)
        self.steps.append(HostCall(f, tuple(inputs), tuple(self.places.place(r) for r in op.results)))

    def _in_memory_or_slot(self, v: Value) -> Place | Scalar | Counter:
        found = None if v.op is not None and v.op.name == "constant" else self._in_memory(v, ("input", v))
        if isinstance(found, Scalar | Counter):
            return found
        if found is None:
            self._move([Move(("input", v), v)])
            p = self.places.slot(("input", v))
            return Place(p.buffer, p.offset, v.type)
        assert isinstance(found, Read)
        return Place(found.buffer, found.offset, v.type)

    def tensor_place(self, v: Value) -> Place:
        if v in self.context.plan.buffers:
            return self.places.place(v)
        assert v.op is not None
        return Place(self.places.constant(v.op).buffer, 0, v.type)


def _moves(targets: Sequence[Value], sources: Sequence[Value]) -> list[Move]:
    return [Move(t, s) for t, s in zip(targets, sources) if t.type.is_scalar and t is not s]


def _without_bound(v: Value) -> Value:
    """The count itself, where it is kept from being negative: a loop runs as often."""
    if v.op is not None and v.op.name == "max":
        for x, other in (v.op.operands, v.op.operands[::-1]):
            if other.op is not None and other.op.name == "constant" and other.op.attrs["value"] == 0:
                return x
    return v


class _Never:
    """Stands for the result of an operation that has none, and is done for its effect."""

    op = None


_NEVER: Value = _Never()  # type: ignore[assignment]
# The kernels of one operation each, by the way of doing it.
KERNELS: dict[object, Callable[[Scheduler, Op], None]] = {
    "fold": emit_fold,
    "ordered": emit_ordered,
    "product": emit_product,
    "scatter": emit_scatter,
    "sort": emit_sort,
    "tiles": emit_tiles,
    "vectors": emit_vectors,
}
HOST = {"for": Scheduler._for, "while": Scheduler._while, "if": Scheduler._if}

__all__ = ["Launch", "Pointer", "Scheduler", "needs_host"]
