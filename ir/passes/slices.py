"""Loops over elements: ``Function -> Function`` with those that compute arrays as operations on slices.

    %v = for 98, %u { (%k, %w)                      %a = extract %x, 1 {slice of 98}
        %i = add %k, 1                              %b = extract %x, 0 {slice of 98}
        %a = extract %x, %i                  ->     %c = mul %a, %b
        %b = extract %x, %k                         %v = update %u, %c, 1 {slice of 98}
        yield update %w, (mul %a, %b), %i }

Inner loops come first, so a nest over a matrix ends up as operations on matrices. What reverse mode makes of loops adds
to neighbouring elements in each round, in memory, one round after the other; what it makes of slices are sums that are
computed element by element (``backends/lowering/windows.py``), and tapes of whole arrays.

A loop is such when its length is known, its rounds do nothing but elementwise operations, and each array that it
carries is either added to, and not read; or written once in a round, at an element that moves on with the rounds, and
read only at those that are still to come. So all that is read was there before the loop.

What a recurrence has left for each of its rounds is read by a loop still, since both may run again and go side by side
with those of other rounds of a loop around (``backends/lowering/rerun.py``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import prod
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.linear_forms import Terms, emit, plus, terms
from dflow.ir.passes.overwrite import is_filled
from dflow.ir.passes.rewrite import Env, constant_of, has, has_effect, rebuild_loops, rename
from dflow.ir.registry import definition

SHORTEST = 32  # elements; fewer are better done one by one
LONGEST = 64  # elementwise operations of a round
WRITES = ("update", "update_add")
REPEATED = ("constant", "broadcast", "iota")


def slices(f: Function) -> Function:
    return rebuild_loops(f, _write) if has(f, "for") else f


def _write(b: Builder, loop: Op, body: Block, env: Env) -> bool:
    """Appends ``loop``, whose new body is ``body``, as operations on slices, if it can be."""
    trips = constant_of(loop.operands[0])
    if trips is None or not body.results or sum(definition(op).elementwise for op in body.ops) > LONGEST:
        return False
    found = _Loop(int(trips), body)
    if not found.is_known():
        return False
    writer = _Writer(b, found, dict(zip(body.args[1:], rename(loop.operands[1:], env))))
    for result, arg in zip(loop.results, body.args[1:]):
        env[result] = writer.written(arg)
    return True


@dataclass(frozen=True)
class _Access:
    """Where an operation reads or writes: ``axis`` is the one along which it goes round by round, from ``first`` on."""

    axis: int
    first: Terms


@dataclass
class _Loop:
    """What is known of a loop; ``is_known`` finds it out."""

    trips: int
    body: Block
    places: dict[Op, _Access] = field(default_factory=dict)  # of reads and writes that move on with the rounds
    writes: dict[Value, list[Op]] = field(default_factory=dict)  # to what is carried, in order
    varying: set[Value] = field(default_factory=set)  # what differs from round to round

    def is_known(self) -> bool:
        """Whether it can be operations on slices."""
        self.k, *carried = self.body.args
        self.inside = {*self.body.args, *(r for op in self.body.ops for r in op.results)}
        self.varying.add(self.k)
        states = set(carried)
        for op in self.body.ops:
            if not self._is_plain(op, states):
                return False
            if op.name in WRITES:
                states.add(op.result)
            elif not self.varying.isdisjoint(op.operands):
                self.varying.add(op.result)
        uses = count_uses(self.body)
        if not all(self._follow(a, r, uses) for a, r in zip(carried, self.body.results)):
            return False
        parts = [op.operands[1].type.static_shape for ops in self.writes.values() for op in ops]
        return any(self.trips * prod(shape) >= SHORTEST for shape in parts)

    def _is_plain(self, op: Op, states: set[Value]) -> bool:
        if op.regions or len(op.results) != 1 or not op.result.type.is_static:
            return False
        if op.name in ("extract", *WRITES):
            x, *others = op.operands
            if op.name == "extract" and _is_of_a_recurrence(x):
                return False
            if (x in states) < (x in self.inside or op.name in WRITES) or not states.isdisjoint(others):
                return False
            return self._has_place(op)
        if not states.isdisjoint(op.operands) or has_effect(op):
            return False
        alike = all(v.type.shape == op.result.type.shape for v in op.operands)
        return op.name in REPEATED or (definition(op).elementwise and alike)

    def _has_place(self, op: Op) -> bool:
        """Notes where an operation reads or writes; whether that is element by element along one axis."""
        x, starts, moving = op.operands[0], iter(places(op)), []
        if not x.type.is_static:
            return False
        for axis, entry in enumerate(op.attrs["index"]):
            first = {} if entry == "all" else terms(next(starts))
            step = first.pop(self.k, 0)
            if not self.inside.isdisjoint(first) or step not in (0, 1) or (step and entry != "at"):
                return False
            if step:
                last = x.type.static_shape[axis] - self.trips
                if not first.keys() - {None} and not 0 <= first.get(None, 0) <= last:
                    return False
                moving.append(_Access(axis, first))
        if len(moving) == 1:
            self.places[op] = moving[0]
        return len(moving) == 1 or (not moving and op.name == "extract" and x not in self.inside)

    def _follow(self, arg: Value, result: Value, uses: Counter[Value]) -> bool:
        """Notes what is written to a carried array; whether what is read of it was there before the loop."""
        ops: list[Op] = []
        state = result
        while state is not arg:
            op = state.op
            if op is None or op not in self.body.ops or op.name not in WRITES or uses[state] != 1:
                return False
            ops.insert(0, op)
            state = op.operands[0]
        self.writes[arg] = ops
        reads = [op for op in self.body.ops if op.name == "extract" and op.operands[0] is arg]
        if len(reads) + 1 != uses[arg]:
            return False
        if len(ops) == 1:
            return all(self._comes_first(self.places[op], self.places[ops[0]]) for op in reads)
        return not ops or (not reads and all(op.name == "update_add" for op in ops))

    def _comes_first(self, read: _Access, write: _Access) -> bool:
        """Whether an element is read before it is written."""
        ahead = plus(read.first, write.first, -1)
        return read.axis == write.axis and not ahead.keys() - {None} and ahead.get(None, 0) >= 0


def _is_of_a_recurrence(x: Value) -> bool:
    return x.op is not None and x.op.name == "for" and any(not v.type.rank for v in x.op.results)


def places(op: Op) -> tuple[Value, ...]:
    """The starts of a read or a write."""
    return op.operands[1 if op.name == "extract" else 2 :]


class _Writer:
    """Writes a loop as operations on slices into ``b``. ``inits``: what is carried, before the loop."""

    def __init__(self, b: Builder, loop: _Loop, inits: dict[Value, Value]):
        self.b, self.loop, self.inits = b, loop, inits
        self.outer: Env = {}  # copies of what is the same in all rounds
        self.arrays: dict[Value, Value] = {}

    def written(self, arg: Value) -> Value:
        """The carried array after the loop."""
        made = self.inits[arg]
        for op in self.loop.writes[arg]:
            self.b.loc = op.loc
            axis, index, starts = self.slice(op)
            part, rank = self.array(op.operands[1]), op.operands[1].type.rank
            if axis:
                part = self.b.transpose(part, perm=(*range(1, axis + 1), 0, *range(axis + 1, rank + 1)))
            made = self.b.emit(op.name, self.begun(op, made), part, *starts, index=index)
            made.hint = op.result.hint
        return made

    def begun(self, op: Op, x: Value) -> Value:
        """``x``, or one number where all that ``op`` leaves of it is that: nothing need be kept, or copied, then."""
        first, trips = self.loop.places[op].first, self.loop.trips
        if op.name != "update" or x.type.static_shape != (trips + 1,) or first.keys() - {None} or not is_filled(x):
            return x
        left = 0 if first else trips
        return self.b.broadcast_scalar(self.b.extract(x, self.b.index(left), index=("at",)), (trips + 1,))

    def array(self, v: Value) -> Value:
        """What ``v`` is in all rounds, along a first axis."""
        if v not in self.arrays:
            self.arrays[v] = self.varied(v) if v in self.loop.varying else self.repeated(self.outside(v))
            self.arrays[v].hint = v.hint
        return self.arrays[v]

    def varied(self, v: Value) -> Value:
        op, b, trips = v.op, self.b, self.loop.trips
        if op is None:
            return b.iota(size=trips)
        if op.name == "extract":
            axis, index, starts = self.slice(op)
            made = b.extract(self.outside(op.operands[0]), *starts, index=index)
            rank = v.type.rank
            return b.transpose(made, perm=(axis, *range(axis), *range(axis + 1, rank + 1))) if axis else made
        operands = [self.array(x) for x in op.operands]
        if op.name == "broadcast":
            dims = (0, *(d + 1 for d in op.attrs["dims"]))
            return b.broadcast(*operands, shape=(trips, *op.attrs["shape"]), dims=dims)
        return b.emit(op.name, *operands, **op.attrs)

    def repeated(self, v: Value) -> Value:
        shape = v.type.static_shape
        return self.b.broadcast(v, shape=(self.loop.trips, *shape), dims=tuple(range(1, len(shape) + 1)))

    def outside(self, v: Value) -> Value:
        """What is the same in all rounds, before the loop."""
        if v in self.inits:
            return self.inits[v]
        if v in self.loop.inside and v not in self.outer:
            assert v.op is not None
            for x in v.op.operands:
                self.outside(x)
            self.b.clone(v.op, self.outer)
        return self.outer.get(v, v)

    def slice(self, op: Op) -> tuple[int, tuple[Any, ...], list[Value]]:
        """Which axis of a slice goes round by round, and the index and the starts of the slice."""
        moving = self.loop.places[op].axis
        index = tuple(("slice", self.loop.trips, 1) if n == moving else e for n, e in enumerate(op.attrs["index"]))
        axis = sum(e != "at" for e in index[:moving])
        sums = [plus(terms(v), {self.loop.k: 1}, -terms(v).get(self.loop.k, 0)) for v in places(op)]
        return axis, index, [emit(self.b, s) or self.b.index(0) for s in sums]
