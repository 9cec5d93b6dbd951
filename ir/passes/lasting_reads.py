"""Lasting reads: what a loop reads from a tensor that it fills, at places that it does not write any more.

    %y = for %n, %x { (%k, %u) ->
        %v = extract %u, %k                        %v is %y[%k]: only later positions are written from here on
        ...
        yield update %u, %w, (add %k, 1) }

Such a value need not be saved for the reverse pass, which finds it in the tensor that the loop has left. Recurrences,
tables of dynamic programming, triangular systems and factorizations are of this kind.

The proof is by positions: along some axis, all that is written later lies on one side of what is read. Positions are
sums of multiples of the counters of loops (``linear_forms``) and of numbers from outside of the loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from dflow.ir.core import Block, Op, Value
from dflow.ir.passes.linear_forms import Terms, plus, terms
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.passes.structure import entries
from dflow.ir.types import Size

WRITES = ("update", "update_add")
MOST = 4000  # pairs of a read and a write that are looked at for one tensor


def lasting_reads(block: Block) -> dict[Op, Value]:
    """Reads in the loops of ``block``, each with the result of the outermost loop, which holds what was read."""
    found: dict[Op, Value] = {}
    for op in block.ops:
        if op.name == "for":
            for i, r in enumerate(op.results):
                if r.type.shape and r.type.is_static and r.type.dtype.is_inexact and (thread := _thread(op, i)):
                    found.update((read, r) for read in _lasting(thread, r))
    return found


@dataclass
class _Thread:
    """What the body of ``loop`` does to one tensor that it carries: ``steps``, which are writes and inner loops.

    ``reads`` are those of the tensor as it is after so many steps, with the loops that they are in besides.
    """

    loop: Op
    steps: list[Op | _Thread] = field(default_factory=list)
    reads: list[tuple[Op, int, tuple[Op, ...]]] = field(default_factory=list)


def _thread(loop: Op, i: int) -> _Thread | None:
    """None where the tensor goes another way from one iteration to the next."""
    (body,) = loop.regions
    made, version = _Thread(loop), body.args[i + 1]
    after = {version: 0}
    for op in body.ops:
        step: Op | _Thread | None = None
        if op.name in WRITES and op.operands[0] is version:
            step, version = op, op.result
        elif op.name == "for" and version in op.operands[1:]:
            place = op.operands.index(version, 1) - 1
            step, version = _thread(op, place), op.results[place]
            if step is None:
                return None
        if step is not None:
            made.steps.append(step)
            after[version] = len(made.steps)
    if version is not body.results[i] or not made.steps:
        return None
    made.reads = [(op, after[op.operands[0]], around) for op, around in _reads(body) if op.operands[0] in after]
    return made


def _reads(block: Block, around: tuple[Op, ...] = ()) -> Iterator[tuple[Op, tuple[Op, ...]]]:
    """All reads in a block, with the loops inside of it that they are in."""
    for op in block.ops:
        if op.name == "extract":
            yield op, around
        elif op.name in ("if", "for"):
            for region in op.regions:
                yield from _reads(region, (*around, op) if op.name == "for" else around)


@dataclass(frozen=True)
class _Access:
    op: Op
    loops: tuple[Op, ...]  # around it, the outermost first

    def ranges(self) -> Iterator[tuple[Terms, Terms] | None]:
        """The first and last position on each axis; None where that is not known."""
        starts = self.op.operands[1 if self.op.name == "extract" else 2 :]
        for size, (entry, start) in zip(self.op.operands[0].type.static_shape, entries(self.op.attrs["index"], starts)):
            yield ({}, _number(size - 1)) if start is None else _range(entry, terms(start))


def _range(entry: Any, start: Terms) -> tuple[Terms, Terms] | None:
    if entry == "at":
        return start, start
    _, size, step = entry
    if step != 1:
        return None
    length = terms(size.value) if isinstance(size, Size) else _number(size)
    return start, plus(plus(start, length), _number(1), -1)


def _number(c: int) -> Terms:
    return {None: c} if c else {}


def _lasting(thread: _Thread, final: Value) -> list[Op]:
    """The reads in a thread and in those inside of it that last to the end."""
    writes = {id(t): _writes(t, loops) for t, loops in _all(thread, ())}
    found = []
    for reader, path in _paths(thread):
        for op, after, around in reader.reads:
            read = _Access(op, (*(t.loop for t, _ in path), reader.loop, *around))
            pairs = sum(len(writes[id(t)]) for t in (*(t for t, _ in path), reader))
            if pairs <= MOST and _pays(read, final) and _lasts(read, [*path, (reader, after)], writes):
                found.append(op)
    return found


def _pays(read: _Access, final: Value) -> bool:
    """Whether tapes would be about as large as the tensor, which may have to be copied to be kept."""
    counts = [constant_of(loop.operands[0]) for loop in read.loops]
    trips = prod(int(c) for c in counts if c is not None)
    return None in counts or 2 * trips * prod(read.op.result.type.bound) >= prod(final.type.static_shape)


def _all(thread: _Thread, around: tuple[Op, ...]) -> Iterator[tuple[_Thread, tuple[Op, ...]]]:
    loops = (*around, thread.loop)
    yield thread, loops
    for step in thread.steps:
        if isinstance(step, _Thread):
            yield from _all(step, loops)


def _paths(thread: _Thread, path: tuple[tuple[_Thread, int], ...] = ()) -> Iterator[tuple[_Thread, Any]]:
    """Each thread with those around it and the number of their steps that are over after it."""
    yield thread, path
    for n, step in enumerate(thread.steps):
        if isinstance(step, _Thread):
            yield from _paths(step, (*path, (thread, n + 1)))


def _writes(thread: _Thread, loops: tuple[Op, ...], first: int = 0) -> list[_Access]:
    """All writes of the steps from the ``first`` on."""
    out = []
    for step in thread.steps[first:]:
        out += [_Access(step, loops)] if isinstance(step, Op) else _writes(step, (*loops, step.loop))
    return out


def _lasts(read: _Access, path: Sequence[tuple[_Thread, int]], writes: dict[int, list[_Access]]) -> bool:
    """Whether nothing is written to the place: later in an iteration of a loop, or in later ones."""
    for depth, (thread, over) in enumerate(path):
        rest = _writes(thread, tuple(t.loop for t, _ in path[: depth + 1]), over)
        if not all(_apart(read, w, depth + 1, later=False) for w in rest):
            return False
        if not all(_apart(read, w, depth, later=True) for w in writes[id(thread)]):
            return False
    return True


def _apart(read: _Access, write: _Access, shared: int, later: bool) -> bool:
    """Whether a write is elsewhere, in the same iterations of the ``shared`` outermost loops.

    With ``later``, in a later iteration of the loop inside of these than the read.
    """
    for reads, writes in zip(read.ranges(), write.ranges()):
        if reads is not None and writes is not None:
            here = [_own(t, read.loops, shared, "read") for t in reads]
            there = [_own(t, write.loops, shared, "write") for t in writes]
            if any(
                _is_positive(plus(low, high, -1), read, write, shared, later)
                for low, high in ((there[0], here[1]), (here[0], there[1]))
            ):
                return True
    return False


# A counter that the read and the write do not share, or any other value.
_Terms = dict[Any, int]


def _own(t: Terms, loops: Sequence[Op], shared: int, whose: str) -> _Terms:
    counters = {loop.regions[0].args[0] for loop in loops[shared:]}
    return {(whose, v) if v in counters else v: c for v, c in t.items()}


def _is_positive(difference: Terms, read: _Access, write: _Access, shared: int, later: bool) -> bool:
    """Whether a difference of positions is at least 1 for all iterations that there can be."""
    d: _Terms = dict(difference)
    if later:  # the counter of the write is that of the read, and 1, and any number more
        loop = write.loops[shared]
        counter = loop.regions[0].args[0]
        step = d.pop(("write", counter), 0)
        if step < 0:
            return False
        of_read: _Terms = {("read", counter): step, None: step}
        d = plus(d, of_read)
    for whose, access in (("read", read), ("write", write)):
        for n in reversed(range(shared, len(access.loops))):
            d = _least(d, access.loops[n], (whose, access.loops[n].regions[0].args[0]), access.loops, shared, whose)
    for n in reversed(range(shared)):
        d = _least(d, read.loops[n], read.loops[n].regions[0].args[0], read.loops, shared, "read")
    return d.keys() <= {None} and d.get(None, 0) >= 1


def _least(d: _Terms, loop: Op, counter: Any, loops: Sequence[Op], shared: int, whose: str) -> _Terms:
    """``d`` for the iteration of ``loop`` that makes it least, the first or the last."""
    factor = d.pop(counter, 0)
    if factor >= 0:
        return d
    last = plus(_own(terms(loop.operands[0]), loops, shared, whose), _number(1), -1)
    return plus(d, last, factor)
