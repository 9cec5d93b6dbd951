"""Loop-invariant code motion: ``Function -> Function`` with what a loop computes anew each time computed once.

    for %n, %s { (%k, %u) ->             %e = exp %x
        %e = exp %x                ->    for %n, %s { (%k, %u) ->
        yield add %u, %e                     yield add %u, %e

One forward walk with the stack of blocks that are being built: an operation goes to the outermost block that has all
it uses, past loops, but past an ``if`` only when it is a cheap scalar. Whole loops without effects move as well.
Broadcasts and counters of elements cost nothing where they are fused, and serve as memory for updates, so they stay; a
copy goes along with what uses them outside. Nothing leaves a kernel. A loop that runs zero times pays for the move;
so what might not end (``while``), or reads or writes a position that is not known to exist, moves only out of loops
that certainly come to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, attribute_values
from dflow.ir.passes.rewrite import LOOPS, Env, append_copy, constant_of, has_effect, open_block, rename
from dflow.ir.passes.structure import entries, span
from dflow.ir.registry import OPS

# They stand where they are used ...
STAY = frozenset({"empty", "sequence", "tape", "copy"})
# ... and these too, but may be repeated elsewhere.
FOLLOW = frozenset({"broadcast", "iota"})


def licm(f: Function) -> Function:
    if not any(op.regions for op in f.body.ops):
        return f
    frame = _Motion().region(f.body, {}, "function", True)
    return Function(f.name, frame.block, f.linear, f.loc)


class _Frame:
    """A block that is being built, inside an operation of the given name."""

    def __init__(self, b: Builder, holder: str, runs: bool) -> None:
        self.b, self.holder, self.runs = b, holder, runs
        self.block = Block()  # when it is finished
        self.effect = False  # something in it stops the program, or may not end
        self.needs = 0  # the innermost frame around this one of which it uses values
        self.copies: dict[Value, Value] = {}  # results of FOLLOW, repeated here


class _Motion:
    def __init__(self) -> None:
        self.frames: list[_Frame] = []
        self.level: dict[Value, int] = {}  # the frame (by depth) in which a value stands
        self.lowest: dict[Value, int] = {}  # ... and could stand, for results of FOLLOW

    def region(self, block: Block, env: Env, holder: str, runs: bool) -> _Frame:
        """The block rebuilt. ``runs``: it is known to run at least once when its operation does."""
        b = open_block(block.args, env)
        frame = _Frame(b, holder, runs)
        self.level.update((a, len(self.frames)) for a in b.args)
        self.frames.append(frame)
        for a in b.args:
            self._use(a.type.size_values)
        for op in block.ops:
            self._op(op, env)
        results = rename(block.results, env)
        self._use(results)
        self.frames.pop()
        frame.block = b.finish(results)
        return frame

    def _op(self, op: Op, env: Env) -> None:
        depth = len(self.frames) - 1
        runs = op.name == "for" and (constant_of(env.get(op.operands[0], op.operands[0])) or 0) > 0
        inner = [self.region(r, env, op.name, runs) for r in op.regions]
        copy = append_copy(Builder(), op, env, [i.block for i in inner])
        effect = has_effect(op) or op.name == "while" or any(i.effect for i in inner)
        uses = list(uses_of(copy))
        lowest = max([0, *(i.needs for i in inner), *(self.lowest.get(v, self.level[v]) for v in uses)])
        target = depth if effect or op.name in STAY else self._reach(copy, lowest)
        self.frames[-1].effect |= effect
        if op.name in FOLLOW and target < depth:
            self.lowest.update((r, target) for r in copy.results)
            target = depth
        self._place(copy, uses, target)

    def _reach(self, op: Op, lowest: int) -> int:
        """The outermost frame, not outside of ``lowest``, that the operation may move to."""
        level = len(self.frames) - 1
        cheap, safe = _is_cheap_scalar(op), is_safe(op)
        while level > lowest:
            frame = self.frames[level]
            if not (frame.holder in LOOPS or (frame.holder == "if" and cheap)):
                break
            if not safe and (frame.effect or not frame.runs):
                break
            level -= 1
        return level

    def _place(self, copy: Op, uses: Iterable[Value], target: int) -> None:
        moved = {v: self._at(v, target) for v in uses if self.level[v] > target}
        if moved:
            copy.operands = tuple(rename(copy.operands, moved))
        self.frames[target].b.ops.append(copy)
        self.level.update((r, target) for r in copy.results)
        self._use(uses_of(copy), target)

    def _at(self, v: Value, target: int) -> Value:
        """A copy, in an outer frame, of a result of FOLLOW."""
        copies = self.frames[target].copies
        if v not in copies:
            assert v.op is not None
            copies[v] = append_copy(Builder(), v.op, {}).result
            op = copies[v].op
            assert op is not None
            self._place(op, list(uses_of(op)), target)
        return copies[v]

    def _use(self, values: Iterable[Value], at: int | None = None) -> None:
        """Values are used in frame ``at``: notes for the frames inside of which each stands."""
        at = len(self.frames) - 1 if at is None else at
        for v in values:
            level = self.level[v]
            for frame in self.frames[level + 1 : at + 1]:
                frame.needs = max(frame.needs, level)


def uses_of(op: Op) -> Iterable[Value]:
    """What an operation uses, less its own results (a count in the type beside it)."""
    own = set(op.results)
    return (v for v in op.uses() if v not in own)


def is_safe(op: Op) -> bool:
    """Whether the operation does no harm where the program would not have come to it."""
    if any(not is_safe(inner) for r in op.regions for inner in r.ops):
        return False
    if op.name in ("gather", "scatter", "scatter_add", "guard") or _makes_sizes(op):
        return False
    if op.name not in ("extract", "update", "update_add"):
        return True
    index = op.attrs["index"]
    x, starts = op.operands[0], op.operands[len(op.operands) - sum(e != "all" for e in index) :]
    return all(s is None or _inside(size, e, s) for size, (e, s) in zip(x.type.shape, entries(index, starts)))


def _makes_sizes(op: Op) -> bool:
    """Whether the result has a size that no operand has: it may be out of bounds where the program does not come."""
    known = {s for v in op.operands for s in v.type.size_values}
    return any(s not in known for a in op.attrs.values() for s in attribute_values(a))


def _inside(size: Any, e: Any, start: Value) -> bool:
    positions = span(e, start)
    return positions is not None and isinstance(size, int) and positions[0] >= 0 and positions[1] < size


def _is_cheap_scalar(op: Op) -> bool:
    definition = OPS[op.name]
    scalar = not any(v.type.shape for v in (*op.operands, *op.results))
    return scalar and definition.cheap and not op.regions
