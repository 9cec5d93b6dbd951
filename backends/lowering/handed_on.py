"""Elements of a tensor that each round of a loop takes over from the round before, carried as numbers.

    for %n, %x { (%k, %t) ->                               for %n, %x, %x[0] { (%k, %t, %w) ->
        %a = %t[%k + 1]                                        %a = %t[%k + 1]
        %t[%k + 1] = f(%a);  %t[%k] += g(%a)      ->           %t[%k] = %w + g(%a)
        yield %t }                                             yield %t, f(%a) }
                                                           %t[%n] = %w

A round writes what the next one reads: through memory, each waits for the one before. As a number that does not itself
depend on the one before it lets rounds become vectors. So are the reverses of sweeps over a grid in place, and those of
differences of neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.forwards import ACCESSES
from dflow.ir.passes.linear_forms import Terms, emit, plus, terms
from dflow.ir.passes.rewrite import Env, constant_of, has, has_effect, rebuild_loops, rename

MOST = 3  # numbers for one tensor


def handed_on(f: Function) -> Function:
    """``f`` with such numbers."""
    return rebuild_loops(f, _write) if has(f, "for") else f


@dataclass(eq=False)
class _Window:
    """The accesses to what a loop carries at ``position``. All lie at ``place``, but along ``axis`` at some distance
    from it, in rounds. A round sees an element at the largest distance first, and at the smallest for the last time."""

    position: int
    axis: int
    sign: int  # whether rounds go up or down along the axis
    place: list[Terms]  # that of distance 0, without what the counter adds
    distances: dict[Op, int]

    def __post_init__(self) -> None:
        self.first, self.last = min(self.distances.values()), max(self.distances.values())
        self.carried = range(self.first, self.last)

    def at(self, b: Builder, distance: int, round_: Value | None = None) -> list[Value]:
        """The place at a distance, in a round, by default that before all."""
        step: Terms = {None: distance}
        if round_ is not None:
            step = plus(step, terms(round_))
        moved = [plus(t, step, self.sign) if n == self.axis else t for n, t in enumerate(self.place)]
        return [emit(b, t) or b.index(0) for t in moved]


def _write(b: Builder, loop: Op, body: Block, env: Env) -> bool:
    """Appends ``loop`` around ``body`` with what rounds hand on as numbers, if they do."""
    trips = constant_of(loop.operands[0])
    if any(op.regions or has_effect(op) for op in body.ops) or (trips is not None and trips < 1):
        return False
    uses = count_uses(body)
    found = [_window(body, n, uses) for n in range(len(loop.results))]
    windows = [w for w in found if w is not None]
    if not windows:
        return False
    count, *inits = rename(loop.operands, env)
    runs = None if trips else b.gt(count, b.index(0))

    def at(w: _Window, distance: int, round_: Value | None) -> list[Value]:
        """The place, or the first element where the loop does not run and the place may not exist."""
        where = w.at(b, distance, round_)
        return where if runs is None else [b.select(runs, i, b.index(0)) for i in where]

    starts = [b.extract(inits[w.position], *at(w, d, None), index=_single(w)) for w in windows for d in w.carried]
    results = b.append(
        "for", [count, *inits, *starts], regions=[_with_numbers(body, windows)], hints=[r.hint for r in loop.results]
    )
    env.update(zip(loop.results, results))
    numbers = iter(results[len(inits) :])
    for w in windows:
        x = env[loop.results[w.position]]
        for d in w.carried:
            x = b.update(x, next(numbers), *at(w, d, count), index=_single(w))
        x.hint = loop.results[w.position].hint
        env[loop.results[w.position]] = x
    return True


def _single(w: _Window) -> tuple[str, ...]:
    return ("at",) * len(w.place)


def _with_numbers(body: Block, windows: Sequence[_Window]) -> Block:
    """The body with one read and one write of each tensor, and numbers between them."""
    b, k = Builder(), body.args[0]
    numbers: dict[_Window, dict[int, Value]] = {}
    taken = list[Value]()
    accesses = {op: w for w in windows for op in w.distances}
    for w in windows:
        x = body.args[w.position + 1]
        numbers[w] = {d: Value(x.type.with_shape(())) for d in w.carried}
        taken += numbers[w].values()
        numbers[w][w.last] = b.extract(x, *w.at(b, w.last, k), index=_single(w))
    b.args = (*body.args, *taken)
    env: dict[Value, Value] = {}
    for op in body.ops:
        b.loc = op.loc
        if op not in accesses:
            b.clone(op, env)
            continue
        now, d = numbers[accesses[op]], accesses[op].distances[op]
        if op.name == "extract":
            env[op.result] = now[d]
        else:
            v = env.get(op.operands[1], op.operands[1])
            now[d] = v if op.name == "update" else b.add(now[d], v)
    results = rename(body.results, env)
    for w in windows:
        x = body.args[w.position + 1]
        results[w.position] = b.update(x, numbers[w][w.first], *w.at(b, w.first, k), index=_single(w))
    return b.finish([*results, *(numbers[w][d + 1] for w in windows for d in w.carried)])


def _window(body: Block, position: int, uses: Counter[Value]) -> _Window | None:
    """How the body goes over a tensor that it carries, if a round hands on to the next what is a number of its own."""
    arg, result = body.args[position + 1], body.results[position]
    if arg is result or not arg.type.shape or not arg.type.is_static or 0 in arg.type.static_shape:
        return None
    accesses, x, used = list[Op](), arg, 0
    for op in body.ops:
        if x not in op.operands:
            continue
        used += 1
        if op.name not in ACCESSES or op.operands[0] is not x or x in op.operands[1:]:
            return None
        if any(e != "at" for e in op.attrs["index"]):
            return None
        accesses.append(op)
        if op.name != "extract":
            if used != uses[x]:
                return None
            x, used = op.result, 0
    if x is not result or uses[x] != used + 1:
        return None
    found = _aligned(body, position, accesses)
    return found if found is not None and _hands_on(body, found) else None


def _aligned(body: Block, position: int, accesses: Sequence[Op]) -> _Window | None:
    """The window, where all places differ by constants along the one axis along which they move."""
    k, inside = body.args[0], {*body.args, *(r for op in body.ops for r in op.results)}
    places = [[terms(v) for v in op.operands[1 if op.name == "extract" else 2 :]] for op in accesses]
    moving = {n for place in places for n, t in enumerate(place) if k in t}
    if len(moving) != 1:
        return None
    (axis,) = moving
    sign = places[0][axis].get(k, 0)
    if sign not in (1, -1):
        return None
    first = [plus(t, {k: t.get(k, 0)}, -1) for t in places[0]]
    distances = {}
    for op, place in zip(accesses, places):
        apart = [plus(t, s, -1) for t, s in zip(place, places[0])]
        offset = apart[axis].pop(None, 0)
        if any(apart) or any(not inside.isdisjoint(t) for t in first):
            return None
        distances[op] = sign * offset
    steps = set(distances.values())
    contiguous = steps == set(range(min(steps), max(steps) + 1))
    return _Window(position, axis, sign, first, distances) if contiguous and 1 < len(steps) <= MOST + 1 else None


def _hands_on(body: Block, w: _Window) -> bool:
    """Whether a round writes what a later one sees, and the numbers that it hands on do not depend on those that it has
    taken over, but for what it hands on in turn."""
    if not any(op.name != "extract" and d > w.first for op, d in w.distances.items()):
        return False
    others = {a for a, r in zip(body.args[1:], body.results) if a.type.is_scalar and a is not r}
    known: dict[Value, set[int]] = {}  # the numbers on which values depend; -1 stands for all others that go round
    now = {d: {d} for d in w.carried}
    now[w.last] = set()
    for op in body.ops:
        found = set[int]().union(*(known.get(v, {-1} if v in others else set()) for v in op.operands))
        if op in w.distances:
            d = w.distances[op]
            if op.name == "extract":
                known[op.result] = now[d]
                continue
            value = known.get(op.operands[1], {-1} if op.operands[1] in others else set())
            now[d] = value if op.name == "update" else now[d] | value
        else:
            known.update((r, found) for r in op.results)
    return all(all(n > d for n in now[d + 1]) for d in w.carried)
