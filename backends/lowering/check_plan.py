"""Checks that a ``Plan`` keeps what ``plan.py`` promises, by other means than those that made it.

The program is followed with, for every buffer, the value that it holds. Every read must find the value it asks for.
Before a loop, what the loop writes is forgotten, but for what it carries; after an ``if``, what only one branch kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from dflow.backends.lowering.liveness import LOOPS, WRITES, identity_reads
from dflow.backends.lowering.plan import Buffer, Plan
from dflow.ir.core import Block, Op, Value, free_values, walk


class PlanError(AssertionError):
    """A plan breaks an invariant."""


def check_plan(plan: Plan) -> None:
    """Raises PlanError unless ``plan`` keeps the invariants of ``plan.py``."""
    _Checker(plan).run()


def _require(condition: object, message: str) -> None:
    if not condition:
        raise PlanError(message)


class _Checker:
    def __init__(self, plan: Plan):
        self.plan = plan
        self.held: dict[Buffer, Value] = {}
        self.alias: dict[Value, Value] = {}  # copies and reshapes within a buffer, to what they are copies of
        self.written: dict[Block, set[Buffer]] = {}
        self.overlapping = _overlapping(set(plan.buffers.values()), plan.arena_bytes)
        self.moved = {op for copies in plan.moves.values() for op in copies}

    def run(self) -> None:
        f = self.plan.function
        for k, v in enumerate(f.args):
            if v.type.rank:
                b = self.buffer(v)
                _require(b.space == "argument" and b.index == k, f"argument {k} lies in {b}")
                _require(b.writable == (k in self.plan.in_place.values()), f"{b} is written")
                self.held[b] = v
        self.block(f.body)
        for k, v in enumerate(f.results):
            if v.type.rank:
                b, argument = self.buffer(v), self.plan.in_place.get(k)
                wanted = ("result", k) if argument is None else ("argument", argument)
                _require((b.space, b.index) == wanted, f"result {k} lies in {b}")

    def buffer(self, v: Value) -> Buffer:
        b = self.plan.buffers.get(v)
        _require(b is not None, f"{v} has no buffer")
        assert b is not None
        if v.type.grows:
            _require(b.space == "heap", f"the sequence {v} lies in {b}")
            return b
        _require(b.type.dtype == v.type.dtype and b.bytes == Buffer(v.type, "arena").bytes, f"{v} does not fit {b}")
        return b

    # -- the state ---------------------------------------------------------------------------------------------------

    def read(self, v: Value, by: str) -> None:
        if v.type.rank:
            held = self.held.get(self.buffer(v))
            _require(held is self.alias.get(v, v), f"{by} reads {v} but its buffer holds {held}")

    def write(self, v: Value, by: str) -> None:
        if v.type.rank:
            b = self.buffer(v)
            _require(b.writable, f"{by} writes to an argument")
            self.forget([b])
            self.held[b] = v

    def forget(self, buffers: Iterable[Buffer]) -> None:
        for b in buffers:
            for c in (b, *self.overlapping.get(b, ())):
                self.held.pop(c, None)

    # -- the program -------------------------------------------------------------------------------------------------

    def block(self, block: Block) -> None:
        for op in block.ops:
            self.op(op)
        for v in block.results:
            self.read(v, "a yield")

    def op(self, op: Op) -> None:
        for v in op.operands:
            self.read(v, op.name)
        if op.name == "if":
            self.branch(op)
        elif op.name in LOOPS:
            self.loop(op)
        elif op.name in ("copy", "reshape") and op.result.type.rank and self.same(op.result, op.operands[0]):
            self.alias[op.result] = self.alias.get(op.operands[0], op.operands[0])
        else:
            self.plain(op)
            if op in self.moved:
                self.forget([self.buffer(op.operands[0])])

    def same(self, *values: Value) -> bool:
        return len({self.buffer(v) for v in values}) == 1

    def plain(self, op: Op) -> None:
        reads = free_values(*op.regions) if op.regions else op.operands
        reusable = identity_reads(op)
        for v in reads:
            self.read(v, op.name)
        written = [self.buffer(r) for r in op.results if r.type.rank]
        _require(len(set(written)) == len(written), f"two results of {op.name} share a buffer")
        for b in written:
            for k, v in enumerate(reads):
                if not v.type.rank:
                    continue
                source = self.buffer(v)
                same = source is b and (v in reusable or (op.name in WRITES and k == 0))
                clear = source is not b and source not in self.overlapping.get(b, ())
                _require(same or clear, f"{op.name} writes over its operand {v}")
        if op.name in WRITES:
            _require(self.same(op.result, op.operands[0]), f"{op.name} is not in place")
        for r in op.results:
            self.write(r, op.name)

    def loop(self, op: Op) -> None:
        inits = op.operands[1:] if op.name == "for" else op.operands
        body = op.regions[-1]
        carried = [r.args[1:] if op.name == "for" else r.args for r in op.regions]
        for group in zip(op.results, inits, body.results, *carried):
            _require(not group[0].type.rank or self.same(*group), f"{op.name} carries {group} in several buffers")
        self.places(op)
        self.forget(b for r in op.regions for b in self.writes(r))
        self.assign(op.results)
        entered = dict(self.held)
        for r, args in zip(op.regions, carried):
            self.assign(args)
            self.block(r)
            if r is not body:
                for v in args:  # they go on to the body
                    self.read(v, "the body of a while")
        self.held = entered

    def places(self, op: Op) -> None:
        """Whether the buffers that change places in a loop have their bytes for themselves."""
        moved = {self.buffer(v) for copy in self.plan.moves.get(op, ()) for v in (*copy.operands, copy.result)}
        used = set().union(*(self.writes(r) for r in op.regions))
        for b in moved:
            _require(b.space in ("arena", "result"), f"{b} cannot change places")
            _require(used.isdisjoint(self.overlapping.get(b, ())), f"{b}, which changes places, overlaps others")

    def branch(self, op: Op) -> None:
        for group in zip(op.results, *(r.results for r in op.regions)):
            _require(not group[0].type.rank or self.same(*group), f"if yields {group} in several buffers")
        before, after = dict(self.held), []
        for r in op.regions:
            self.held = dict(before)
            self.block(r)
            after.append(self.held)
        first, second = after
        self.held = {b: v for b, v in first.items() if second.get(b) is v}
        self.assign(op.results)

    def assign(self, values: Iterable[Value]) -> None:
        tensors = [v for v in values if v.type.rank]
        _require(len({self.buffer(v) for v in tensors}) == len(tensors), f"two of {tensors} share a buffer")
        for v in tensors:
            self.write(v, "control flow")

    def writes(self, block: Block) -> set[Buffer]:
        """The buffers that anything in ``block`` writes."""
        if block not in self.written:
            found = set()
            for op in walk(block):
                for r in op.results:
                    alias = op.name in ("copy", "reshape") and self.same(r, op.operands[0]) if r.type.rank else True
                    if not alias:
                        found.add(self.buffer(r))
            self.written[block] = found
        return self.written[block]


def _overlapping(buffers: set[Buffer], arena_bytes: int) -> dict[Buffer, list[Buffer]]:
    """For every buffer of the arena, those that overlap it."""
    arena = sorted((b for b in buffers if b.space == "arena"), key=lambda b: b.offset)
    for b in arena:
        _require(b.offset % 64 == 0 and b.offset >= 0 and b.offset + b.bytes <= arena_bytes, f"{b} leaves the arena")
    starts = [b.offset for b in arena]
    found: dict[Buffer, list[Buffer]] = {}
    for k, b in enumerate(arena):
        for other in arena[k + 1 : bisect_left(starts, b.offset + b.bytes)]:
            found.setdefault(b, []).append(other)
            found.setdefault(other, []).append(b)
    return found
