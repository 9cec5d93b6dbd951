"""Overwritten tensors: ``Function -> Function`` whose loops find nothing that they overwrite, and write what is read.

    %z = broadcast 0.0 : f64[9]                     %z = empty : f64[9]
    %y = update %z, %a, 0                     ->    %y = update %z, %a, 0
    %s = for 8, %y { (%k, %u) ->                    %s = for 8, %y { (%k, %u) ->
        yield update %u, %v, (add %k, 1) }              yield update %u, %v, (add %k, 1) }

The loop runs a known number of times, its iterations write one position after the other, and none reads what a later
one writes. So nothing need be cleared before (or copied, where the cleared tensor has moved out of a loop around), and
the derivative knows that nothing flows from there. What is added to a cleared tensor in this way is written.

The other way round, what a loop writes stays away where only other positions are read later: reverse mode clears the
cotangents of what has been overwritten.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, walk
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.linear_forms import terms
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, has_effect, open_block, rebuild, rename, splat_source
from dflow.ir.passes.structure import span


def overwrite(f: Function) -> Function:
    if not any(op.name == "for" and any(inner.name in WRITES for inner in op.regions[0].ops) for op in walk(f.body)):
        return f
    return rebuild(f, _Overwrite(f).fill)


WRITES = frozenset({"update", "update_add"})


@dataclass
class _Walk:
    """The accesses of a loop's body to what it carries in one place: all at ``k + c`` on the first axis."""

    writes: list[Op] = field(default_factory=list)
    first: int = 0  # the position that the first iteration writes
    before: list[int] = field(default_factory=list)  # positions that it reads before it writes
    after: list[int] = field(default_factory=list)


class _Overwrite:
    def __init__(self, f: Function) -> None:
        self.uses = count_uses(f.body)
        self.reads: dict[Value, list[Op]] = {}  # by single positions and slices that are known
        for op in walk(f.body):
            if op.name == "extract":
                self.reads.setdefault(op.operands[0], []).append(op)
        self.added: dict[Op, Value] = {}  # additions to a repeated number, which become writes
        self.dropped: set[Op] = set()

    def fill(self, b: Builder, block: Block, env: Env) -> None:
        for op in block.ops:
            b.loc = op.loc
            if op in self.dropped:
                env[op.result] = env.get(op.operands[0], op.operands[0])
                continue
            operands = rename(op.operands, env)
            if op in self.added:
                number = b.add(self.added[op], operands[1])
                env[op.result] = b.update(operands[0], number, *operands[2:], index=op.attrs["index"])
                continue
            if op.name == "for" and (trips := constant_of(op.operands[0]) or 0) > 0:
                operands[1:] = [self._carried(b, op, i, trips, x) for i, x in enumerate(operands[1:])]
            append_copy(b, op, env, [self._region(r, env) for r in op.regions], operands)

    def _region(self, block: Block, env: Env) -> Block:
        b = open_block(block.args, env)
        self.fill(b, block, env)
        return b.finish(rename(block.results, env))

    def _carried(self, b: Builder, loop: Op, i: int, trips: int, x: Value) -> Value:
        """``x``, which the loop carries in place ``i``, or a tensor that agrees with it where it matters."""
        if not x.type.shape or not x.type.is_static or any(map(has_effect, walk(loop.regions[0]))):
            return x  # an argument may be updated in place, and after an error holds what was written so far
        found = _accesses(loop.regions[0], i, self.uses)
        if found is None or found.first < 0 or found.first + trips > x.type.static_shape[0]:
            return x
        if (
            len(found.writes) == 1
            and found.writes[0].name == "update"
            and self._is_unread(loop.results[i], found, trips)
        ):
            self.dropped.update(found.writes)
            return x
        if any(at >= found.first for at in found.before) or any(at > found.first for at in found.after):
            return x
        write, *others = found.writes
        if write.name == "update_add":
            number = splat_source(x)
            if others or number is None or write.operands[1].type.shape:
                return x
            self.added[write] = number
        elif not is_filled(x):
            return x
        return _edges(b, x, found.first, found.first + trips)

    def _is_unread(self, result: Value, found: _Walk, trips: int) -> bool:
        """Whether nothing reads what the loop writes; itself, it may read a position before it writes there."""
        reads = self.reads.get(result, [])
        if found.after or any(at != found.first for at in found.before) or self.uses[result] != len(reads):
            return False
        for op in reads:
            entry = op.attrs["index"][0]
            where = None if entry == "all" else span(entry, op.operands[1])
            if where is None or (where[1] >= found.first and where[0] < found.first + trips):
                return False
        return True


def _accesses(body: Block, i: int, uses: Counter[Value]) -> _Walk | None:
    """How the body treats what it carries in place ``i``; None when otherwise than said above."""
    k, version, result = body.args[0], body.args[i + 1], body.results[i]
    if version is result:
        return None
    found, used = _Walk(), 0
    for op in body.ops:
        if version not in op.operands:
            continue
        at = _offset(op, k)
        if op.operands[0] is not version or version in op.operands[1:] or at is None:
            return None
        used += 1
        if op.name == "extract":
            (found.after if found.writes else found.before).append(at)
            continue
        if used != uses[version] or (found.writes and at != found.first):
            return None
        if not found.writes and any(e != "all" for e in op.attrs["index"][1:]):
            return None
        found.writes.append(op)
        found.first, version, used = at, op.result, 0
    return found if version is result and found.writes and uses[version] == used + 1 else None


def _offset(op: Op, k: Value) -> int | None:
    """``c`` where an operation reads or writes the first axis at ``k + c``."""
    if op.name not in ("extract", "update", "update_add") or op.attrs["index"][:1] != ("at",):
        return None
    place = terms(op.operands[1 if op.name == "extract" else 2])
    return place.get(None, 0) if place.pop(k, 0) == 1 and not place.keys() - {None} else None


def is_filled(x: Value) -> bool:
    """Whether the tensor repeats one number, but for what was written to it since."""
    while x.op is not None and x.op.name == "update":
        x = x.op.operands[0]
    return splat_source(x) is not None


def _edges(b: Builder, x: Value, start: int, stop: int) -> Value:
    """``x`` with unspecified elements from ``start`` to ``stop``."""
    made = b.emit("empty", type=x.type)
    rest = ["all"] * (x.type.rank - 1)
    for first, end in ((0, start), (stop, x.type.static_shape[0])):
        if first < end:
            index = ("at" if end - first == 1 else ("slice", end - first, 1), *rest)
            made = b.update(made, b.extract(x, b.index(first), index=index), b.index(first), index=index)
    return made
