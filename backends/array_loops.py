"""Loops that compute arrays element by element, between operations on those arrays, become such operations themselves.

    %z = for 999, %z0 { (%k, %u)                  %1 = mul(%x[1:], %y[:-1])
        %i = add %k, 1                            %z = concatenate(%z0[:1], %1)
        %v = mul (extract %x, %i),                %w = mul(%z, %h)
                 (extract %y, %k)         ->
        yield (update %u, %v, %i) }
    %w = mul %z, %h

So the loop and its neighbours are fused. It is done for loops whose rounds do nothing but elementwise operations on
elements ``k + c`` of arrays from outside, and put one number each at an element ``k + c`` of an array that is new but
for a few numbers at its ends, or add it to that element. Each element is computed as before, from the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dflow.backends.windows import PARTS
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.dce import dce
from dflow.ir.passes.linear_forms import terms
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, has, rebuild, rebuild_region
from dflow.ir.registry import definition

SHORTEST = 64  # rounds; fewer are sooner done than fused
LONGEST = 40  # operations of a round


@dataclass(frozen=True)
class _Ends:
    """A new array, of which ``first`` and ``last`` are the numbers around what a loop puts in."""

    first: list[Value]
    last: list[Value]


@dataclass(frozen=True)
class _ArrayLoop:
    loop: Op
    trips: int
    writes: list[Op]  # by what is carried
    ends: list[_Ends | None]  # None where the loop adds
    reads: set[Value]  # arrays


def array_loops(f: Function) -> Function:
    """``f`` with loops over arrays as operations on arrays, where they stand beside others."""
    if not has(f, "for"):
        return f
    written: set[Op] = set()

    def fill(b: Builder, block: Block, env: Env) -> None:
        chosen = _chosen(block)
        written.update(chosen)
        for op in block.ops:
            b.loc = op.loc
            if op in chosen:
                _Written(b, env, chosen[op]).write()
            else:
                append_copy(b, op, env, [rebuild_region(r, env, fill) for r in op.regions])

    made = rebuild(f, fill)
    return dce(made) if written else f


def _chosen(block: Block) -> dict[Op, _ArrayLoop]:
    """The loops of a block that others are fused with."""
    found = {op: known for op in block.ops if op.name == "for" and (known := _known(op)) is not None}
    if not found:
        return found
    makers = {op for op in block.ops if op in found or _is_elementwise(op)}
    wanted = {v for op in makers for v in (found[op].reads if op in found else op.operands)}
    return {op: a for op, a in found.items() if _has_neighbour(a, makers, wanted)}


def _has_neighbour(a: _ArrayLoop, makers: set[Op], wanted: set[Value]) -> bool:
    return not wanted.isdisjoint(a.loop.results) or any(v.op in makers for v in a.reads)


def _is_elementwise(op: Op) -> bool:
    return len(op.results) == 1 and bool(op.result.type.rank) and definition(op).elementwise


def _known(loop: Op) -> _ArrayLoop | None:
    """What is known of a loop over arrays; None for others."""
    (body,), trips = loop.regions, constant_of(loop.operands[0])
    if trips is None or trips < SHORTEST or len(body.ops) > LONGEST or not body.results:
        return None
    k, *carried = body.args
    uses = count_uses(body)
    writes, ends, reads = [], [], set()
    for init, arg, result in zip(loop.operands[1:], carried, body.results):
        op = result.op
        if op is None or op.name not in ("update", "update_add") or op.operands[0] is not arg or op not in body.ops:
            return None
        if op.operands[1].type.rank or uses[arg] != 1 or uses[result] != 1 or _row(op, k, trips, body) is None:
            return None
        made = _ends(init, op, k, trips) if op.name == "update" else None
        if op.name == "update" and made is None:
            return None
        writes.append(op)
        ends.append(made)
    for op in body.ops:
        if op.name == "extract":
            if op.result.type.rank or op.operands[0] in carried or _row(op, k, trips, body) is None:
                return None
            reads.add(op.operands[0])
        elif op not in writes and op.name != "constant" and not definition(op).elementwise:
            return None
    return _ArrayLoop(loop, trips, writes, ends, reads)


def _row(op: Op, k: Value, trips: int, body: Block) -> tuple[int, int] | None:
    """The axis along which a read or an update goes round by round, and where it starts; None for other accesses."""
    x, starts = op.operands[0], op.operands[1 if op.name == "extract" else 2 :]
    if not x.type.is_static or any(entry != "at" for entry in op.attrs["index"]):
        return None
    inside = {*body.args, *(r for o in body.ops for r in o.results)}
    moving = [axis for axis, start in enumerate(starts) if start in inside and constant_of(start) is None]
    if len(moving) != 1:
        return None
    (axis,) = moving
    sum_ = terms(starts[axis])
    first = sum_.pop(None, 0)
    fits = 0 <= first <= x.type.static_shape[axis] - trips
    return (axis, first) if fits and sum_ == {k: 1} else None


def _ends(init: Value, op: Op, k: Value, trips: int) -> _Ends | None:
    """The numbers of a new array around what a loop puts in."""
    if init.type.rank != 1:
        return None
    (start,) = op.operands[2:]
    first, size = terms(start).get(None, 0), init.type.static_shape[0]
    outside = [*range(first), *range(first + trips, size)]
    if len(outside) >= PARTS:
        return None
    numbers = _numbers(init)
    if numbers is None or not all(place in numbers for place in outside):
        return None
    given = [numbers[place] for place in outside]
    return _Ends(given[:first], given[first:])


def _numbers(v: Value) -> dict[int, Value] | None:
    """What stands where in memory that was unspecified before; None for other arrays."""
    numbers: dict[int, Value] = {}
    while v.op is not None and v.op.name == "update":
        x, number, *starts = v.op.operands
        place = constant_of(starts[0]) if v.op.attrs["index"] == ("at",) else None
        if place is None or not 0 <= place < x.type.static_shape[0]:
            return None
        numbers.setdefault(place, number)
        v = x
    return numbers if v.op is not None and v.op.name == "empty" else None


class _Written:
    """Writes a loop as operations on arrays into ``b``."""

    def __init__(self, b: Builder, env: Env, a: _ArrayLoop):
        self.b, self.env, self.a = b, env, a
        (self.body,) = a.loop.regions
        self.arrays: dict[Value, Value] = {}
        self.shape = (a.trips,)

    def write(self) -> None:
        carried = zip(self.a.loop.operands[1:], self.a.loop.results, self.a.writes, self.a.ends)
        for init, result, op, ends in carried:
            self.b.loc = op.loc
            part = self.array(op.operands[1])
            if ends is not None:
                parts = [*self.numbers(ends.first), part, *self.numbers(ends.last)]
                made = self.b.concatenate(*parts, axis=0) if len(parts) > 1 else part
            else:
                index, starts = self.slice(op)
                made = self.b.update_add(self.env.get(init, init), part, *starts, index=index)
            made.hint = made.hint or result.hint
            self.env[result] = made

    def numbers(self, values: list[Value]) -> Iterator[Value]:
        return (self.b.reshape(self.env.get(v, v), shape=(1,)) for v in values)

    def array(self, v: Value) -> Value:
        """What ``v`` is in all rounds."""
        if v not in self.arrays:
            self.arrays[v] = self.made(v)
        return self.arrays[v]

    def made(self, v: Value) -> Value:
        op = v.op
        if v is self.body.args[0]:
            return self.b.iota(size=self.a.trips)
        if op is None or op not in self.body.ops:
            return self.b.broadcast(self.env.get(v, v), shape=self.shape, dims=())
        if op.name == "constant":
            return self.b.broadcast(self.b.clone(op, {})[0], shape=self.shape, dims=())
        if op.name == "extract":
            index, starts = self.slice(op)
            return self.b.extract(self.env.get(op.operands[0], op.operands[0]), *starts, index=index)
        made = self.b.emit(op.name, *map(self.array, op.operands), **op.attrs)
        made.hint = v.hint
        return made

    def slice(self, op: Op) -> tuple[tuple[object, ...], list[Value]]:
        """The index of a slice of all elements that an access goes over, and where it starts."""
        k = self.body.args[0]
        axis, first = _row(op, k, self.a.trips, self.body) or (0, 0)
        starts = [self.start(s) for s in op.operands[1 if op.name == "extract" else 2 :]]
        starts[axis] = self.b.index(first)
        index = tuple(("slice", self.a.trips, 1) if n == axis else "at" for n in range(len(starts)))
        return index, starts

    def start(self, v: Value) -> Value:
        """A place along an axis that all rounds have in common; or the round's own, which ``slice`` replaces."""
        if v.op is not None and v.op.name == "constant" and v.op in self.body.ops:
            return self.b.clone(v.op, {})[0]
        return self.env.get(v, v)
