"""Reads of elements that no later iteration writes: the linear part finds them in the finished tensor, without a tape.

    %L = for %n, %x { (%j, %u) ->                      %v is %L[%i, %k] as well, since all that is written from
        ... for %j, ... { (%k, ...) ->                 then on lies in columns from %j on, and %k < %j
            %v = extract %u, %i, %k ... }
        %w = update %u, %s, %i, %j; yield %w }

Tables of dynamic programming, factorizations and substitutions are filled in this way. Of each read and each write of
a tensor that loops carry it is asked whether the write can hit the same element later, for each loop around both: in
the iterations after this one, or after the read in this one. Positions are sums of counters and of what is known
before the loops; counters lie between 0 and counts, which are such sums too. (The dependence test by levels of
J. R. Allen and K. Kennedy, 1987, with bounds of forms in the place of inequalities between coefficients.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from dflow.ir.core import Block, Op, Value, walk
from dflow.ir.passes.intervals import Form, Known
from dflow.ir.passes.positions import Span, apart, counter, note_count, spans
from dflow.ir.passes.rewrite import UPDATES

MOST = 64  # accesses to one tensor that are compared with each other

Place = tuple[Op, int]  # a loop, and the position among what it carries


@dataclass(frozen=True)
class _Access:
    op: Op
    loops: tuple[Op, ...]  # around it, from the one that carries the tensor on
    order: int  # in the text


def settled(block: Block, linear: Collection[Value]) -> dict[Op, Place]:
    """Reads in loops with the outermost loop that carries the tensor: its result holds what was read. Of tensors that
    are not ``linear``."""
    order = {op: i for i, op in enumerate(walk(block))}
    found: dict[Op, Place] = {}
    for loop, position in _outermost(block):
        if loop.regions[0].args[1 + position] not in linear:
            _Chain(loop, position, order).add_settled(found)
    return found


def _outermost(block: Block) -> Iterator[Place]:
    """Where tensors are carried that no loop around carries."""
    states: set[Value] = set()  # of tensors that some loop carries

    def visit(block: Block) -> Iterator[Place]:
        for op in block.ops:
            if op.name == "for":
                carried = op.regions[0].args[1:]
                for n, (a, init) in enumerate(zip(carried, op.operands[1:])):
                    if init not in states and a.type.shape and not a.type.grows:
                        yield op, n
                states.update(carried)
            elif op.name == "while":
                states.update(op.regions[1].args)
            for region in op.regions:
                yield from visit(region)
            if op.name == "if":
                ends = zip(op.results, *(region.results for region in op.regions))
                states.update(r for r, *before in ends if not states.isdisjoint(before))
            elif op.name == "for":
                states.update(r for r, init in zip(op.results, op.operands[1:]) if init in states)
            elif op.name in UPDATES and op.operands[0] in states:
                states.add(op.result)

    return visit(block)


class _Chain:
    """The states of one tensor in a loop, each of which is used up by the update that makes the next."""

    def __init__(self, loop: Op, position: int, order: dict[Op, int]):
        self.loop, self.position, self.order = loop, position, order
        self.reads: list[_Access] = []
        self.writes: list[_Access] = []
        self.passed: set[Value] = set()  # states that are no more
        body = loop.regions[0]
        self.inside = set(body.args).union(
            *((*op.results, *(a for r in op.regions for a in r.args)) for op in walk(body))
        )
        self.is_one = self._follow(body, body.args[1 + position], (loop,)) is body.results[position]

    def add_settled(self, found: dict[Op, Place]) -> None:
        if not self.is_one or not self.writes or len(self.reads) + len(self.writes) > MOST:
            return
        certain = [w for w in self.writes if w.op.name == "update" and None not in self._spans(w, {})]
        for access in (*self.reads, *certain):
            if all(self._never_meet(access, write) for write in self.writes):
                found[access.op] = self.loop, self.position

    def _follow(self, block: Block, state: Value, loops: tuple[Op, ...]) -> Value | None:
        """Notes what a block reads and writes of ``state``; the state at its end, None where there are several."""
        for op in block.ops:
            uses = [i for i, v in enumerate(op.operands) if v is state]
            if op.name == "extract" and uses == [0]:
                self.reads.append(_Access(op, loops, self.order[op]))
            elif op.name in ("update", "update_add") and uses == [0]:
                self.writes.append(_Access(op, loops, self.order[op]))
                self.passed.add(state)
                state = op.result
            elif op.regions:
                after = self._into(op, state, loops, uses)
                if after is None:
                    return None
                state = after
            elif any(v in self.passed for v in op.operands):
                return None
        return state

    def _into(self, op: Op, state: Value, loops: tuple[Op, ...], uses: Sequence[int]) -> Value | None:
        """The state after an operation with regions."""
        if op.name == "for" and len(uses) == 1 and uses[0]:
            (body,) = op.regions
            self.passed.add(state)
            end = self._follow(body, body.args[uses[0]], (*loops, op))
            return op.results[uses[0] - 1] if end is not None and end is body.results[uses[0] - 1] else None
        if uses or op.name == "while":
            return None if uses or _touches(op, {state, *self.passed}) else state
        before = len(self.writes)
        ends = [self._follow(region, state, (*loops, op) if op.name == "for" else loops) for region in op.regions]
        if len(self.writes) == before:
            return state if all(end is state for end in ends) else None
        if op.name != "if" or None in ends:
            return None
        self.passed.add(state)
        pairs = zip(op.results, *(region.results for region in op.regions))
        return next((r for r, *yields in pairs if all(y is end for y, end in zip(yields, ends))), None)

    # -- whether a write comes to what was read ----------------------------------------------------------------------

    def _never_meet(self, read: _Access, write: _Access) -> bool:
        """Whether no write that comes after the access ``read``, to another state, is to the same elements."""
        shared = 0
        while shared < min(len(read.loops), len(write.loops)) and read.loops[shared] is write.loops[shared]:
            shared += 1
        levels = [*range(shared), *([shared] if write.order > read.order else [])]
        return all(self._apart(read, write, level, shared) for level in levels)

    def _apart(self, read: _Access, write: _Access, level: int, shared: int) -> bool:
        """Whether the write is elsewhere in later iterations of the loop ``level`` around both, in the same ones of
        those around it; with ``level == shared`` in the same ones of all."""
        known = Known()
        for n, loop in enumerate(read.loops):
            note_count(known, counter(loop), loop.operands[0], self._name(read.loops[:n], {}))
        later: dict[Value, Value] = {}
        for n, loop in enumerate(write.loops):
            if n >= level:
                k = counter(loop)
                later[k] = Value(k.type)
                note_count(known, later[k], loop.operands[0], self._name(write.loops[:n], later))
                if n == level < shared:
                    known.at_most_zero(Form(1, {k: 1, later[k]: -1}))
        return apart(known, self._spans(read, {}), self._spans(write, later))

    def _spans(self, access: _Access, names: dict[Value, Value]) -> Iterator[Span]:
        return spans(access.op, self._name(access.loops, names))

    def _name(self, loops: Sequence[Op], names: dict[Value, Value]) -> Callable[[Value], Value | None]:
        """Names of the counters of ``loops`` and of values from before all of them."""
        counters = [counter(loop) for loop in loops]
        return lambda v: None if v in self.inside and v not in counters else names.get(v, v)


def _touches(op: Op, values: Collection[Value]) -> bool:
    return any(v in values for region in op.regions for inner in walk(region) for v in inner.operands)
