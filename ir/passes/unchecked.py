"""Unchecked loops: ``Function -> Function`` that asks once, before an innermost loop, what it would ask each time.

    for %n, %x { (%k, %u) ->                    %ok = and (ge %a, 0), (lt (add %a, (sub %n, 1)), 9)
        %i = add %a, %k                         if %ok { for %n, %x { (%k, %u) ->
        check (and (ge %i, -9), (lt %i, 9))  ->     %i = add %a, %k
        %j = select (lt %i, 0), (add %i, 9), %i     ... extract %y, %i ... } }
        ... extract %y, %j ... }                else { the loop as it was }

Positions that change by the same step in each iteration lie within bounds when the first and the last do. Where that
is not so, and where positions count from the end, the loop runs as it was written, so that the error, and what has
happened before it, are the same. Without checks the loop can be vectorized. Other checks stay. This is for the last
stages: derivatives are taken of the loop before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

from dflow.ir.builder import Builder, clone_block
from dflow.ir.core import Block, Function, Op, Value, free_values, walk
from dflow.ir.passes.linear_forms import emit, plus, terms
from dflow.ir.passes.rewrite import Env, constant_of, has, has_effect, rebuild_loops, rename
from dflow.ir.types import I64, scalar

LARGEST_STEP = 16  # times a number of iterations it does not overflow
LONGEST = 100  # operations of a body
SHORTEST = 8  # iterations, where that is known


def unchecked(f: Function) -> Function:
    return rebuild_loops(f, _Writer().write) if has(f, "for") else f


class _Writer:
    """Writes loops both ways. ``pairs`` are the branches that choose between the two."""

    def __init__(self) -> None:
        self.pairs: set[Op] = set()

    def write(self, b: Builder, loop: Op, body: Block, env: Env) -> bool:
        """Appends the loop around ``body`` without its checks and, for when they would not pass, as it was."""
        return self._innermost(b, loop, body, env) or self._around(b, loop, body, env)

    def _innermost(self, b: Builder, loop: Op, body: Block, env: Env) -> bool:
        count = rename(loop.operands[:1], env)[0]
        trips = constant_of(count)
        if len(body.ops) > LONGEST or (trips is not None and trips < SHORTEST):
            return False
        asked = _asked(body)
        if asked:
            blocks = _without(body, set(asked)), clone_block(body, {})
            self._both(b, loop, env, _holds(b, body.args[0], count, asked), blocks)
        return bool(asked)

    def _around(self, b: Builder, loop: Op, body: Block, env: Env) -> bool:
        """For a loop in which a branch chooses the same loop each time."""
        fixed = _fixed(body)
        chosen = {op for op in body.ops if op in self.pairs and op.operands[0] in fixed}
        if not chosen or sum(1 for _ in walk(body)) > LONGEST:
            return False
        names: Env = {}
        for op in body.ops:
            if not fixed.isdisjoint(op.results):
                b.clone(op, names)
        holds = reduce(b.and_, dict.fromkeys(rename([op.operands[0] for op in body.ops if op in chosen], names)))
        self._both(b, loop, env, holds, (_taken(body, chosen, 0), _taken(body, chosen, 1)))
        return True

    def _both(self, b: Builder, loop: Op, env: Env, holds: Value, bodies: tuple[Block, Block]) -> None:
        operands = rename(loop.operands, env)

        def around(body: Block) -> Callable[[Builder], Sequence[Value]]:
            return lambda inner: inner.append("for", operands, regions=[body])

        for old, new in zip(loop.results, b.if_(holds, *map(around, bodies))):
            new.hint = old.hint
            env[old] = new
        self.pairs.add(b.ops[-1])


def _fixed(body: Block) -> set[Value]:
    """The numbers that the body computes from what is around it alone."""
    changing, found = set(body.args), set[Value]()
    for op in body.ops:
        plain = not op.regions and not has_effect(op) and all(v.type.is_scalar for v in (*op.operands, *op.results))
        if plain and changing.isdisjoint(op.operands):
            found.update(op.results)
        else:
            changing.update(op.results)
    return found


def _taken(body: Block, chosen: set[Op], region: int) -> Block:
    """The body where the branches ``chosen`` take that region."""
    env: Env = {}
    b = Builder.like(body.args, env)
    for op in body.ops:
        if op in chosen:
            for old, new in zip(op.results, b.inline(op.regions[region], (), env)):
                new.hint = new.hint or old.hint
                env[old] = new
        else:
            b.clone(op, env)
    return _finished(b, rename(body.results, env))


Test = tuple[str, Value, Value]  # a comparison


def _asked(body: Block) -> list[Test]:
    """What must hold in each iteration, as far as it can be decided before the loop; nothing if the loop has parts."""
    inside = {*body.args, *(r for op in body.ops for r in op.results)}
    found: dict[Test, None] = {}
    for op in body.ops:
        if op.name != "check" and (op.regions or has_effect(op)):
            return []
        tests = list(_tests(op))
        if all(_is_linear(*test, body.args[0], inside) for test in tests):
            found.update(dict.fromkeys(tests))
    return list(found)


def _tests(op: Op) -> Iterator[Test]:
    if _may_be_from_the_end(op):
        yield "ge", op.operands[2], op.operands[0].op.operands[1]  # type: ignore[union-attr]
    elif op.name == "check":
        for v in _conjuncts(op.operands[0]):
            compares = v.op is not None and v.op.name in ("lt", "le", "gt", "ge")
            yield (v.op.name, *v.op.operands) if compares else ("", v, v)  # type: ignore[union-attr]


def _conjuncts(v: Value) -> Iterator[Value]:
    if v.op is not None and v.op.name == "and":
        for x in v.op.operands:
            yield from _conjuncts(x)
    else:
        yield v


def _may_be_from_the_end(op: Op) -> bool:
    """Whether this is ``select (i < 0), (i + size), i``."""
    if op.name != "select" or op.result.type.shape:
        return False
    test = op.operands[0].op
    if test is None or test.name != "lt" or constant_of(test.operands[1]) != 0:
        return False
    return test.operands[0] is op.operands[2]


def _is_linear(name: str, x: Value, y: Value, k: Value, inside: set[Value]) -> bool:
    """Whether a position that changes by a small step is compared with something from around the loop."""
    if not name or x.type != scalar(I64):
        return False
    position, bound = terms(x), terms(y)
    return abs(position.pop(k, 0)) <= LARGEST_STEP and inside.isdisjoint(position) and inside.isdisjoint(bound)


def _holds(b: Builder, k: Value, count: Value, asked: Sequence[tuple[str, Value, Value]]) -> Value:
    """Whether the comparisons hold in the first and in the last iteration, and so in all."""
    last = plus(terms(count), {None: -1})
    tests: dict[tuple[object, ...], Value] = {}
    for name, x, y in asked:
        first = terms(x)
        step = first.pop(k, 0)
        bound = terms(y)
        for position in (first, plus(first, last, step)):
            key = name, frozenset(position.items()), frozenset(bound.items())
            if key not in tests:
                tests[key] = b.emit(name, emit(b, position) or b.index(0), emit(b, bound) or b.index(0))
    return reduce(b.and_, tests.values())


def _without(body: Block, known: set[Test]) -> Block:
    """The body where ``known`` holds: checks of it pass, positions count from the start."""
    env: dict[Value, Value] = {}
    b = Builder.like(body.args, env)
    for op in body.ops:
        tests = set(_tests(op))
        if not tests or not tests <= known:
            b.clone(op, env)
        elif op.name != "check":
            env[op.result] = env.get(op.operands[2], op.operands[2])
    return _finished(b, rename(body.results, env))


def _finished(b: Builder, results: list[Value]) -> Block:
    """The block, without what only tests have asked for that are there no more."""
    needed, kept = set(results), []
    for op in reversed(b.ops):
        if has_effect(op) or op.regions or not needed.isdisjoint(op.results):
            needed.update(op.uses(), free_values(*op.regions))
            kept.append(op)
    b.ops = kept[::-1]
    return b.finish(results)
