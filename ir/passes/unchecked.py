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

from collections.abc import Iterator, Sequence
from functools import reduce

from dflow.ir.builder import Builder, clone_block
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.linear_forms import emit, plus, terms
from dflow.ir.passes.rewrite import Env, constant_of, has, has_effect, rebuild_loops, rename
from dflow.ir.types import I64, scalar

LARGEST_STEP = 16  # times a number of iterations it does not overflow
LONGEST = 100  # operations of a body
SHORTEST = 8  # iterations, where that is known


def unchecked(f: Function) -> Function:
    return rebuild_loops(f, _both) if has(f, "for") else f


def _both(b: Builder, loop: Op, body: Block, env: Env) -> bool:
    """Appends the loop around ``body`` without its checks and, for when they would not pass, as it was."""
    count, *inits = rename(loop.operands, env)
    trips = constant_of(count)
    if len(body.ops) > LONGEST or (trips is not None and trips < SHORTEST):
        return False
    asked = _asked(body)
    if not asked:
        return False

    def fast(inner: Builder) -> Sequence[Value]:
        return inner.append("for", [count, *inits], regions=[_without(body, set(asked))])

    def slow(inner: Builder) -> Sequence[Value]:
        return inner.append("for", [count, *inits], regions=[clone_block(body, {})])

    for old, new in zip(loop.results, b.if_(_holds(b, body.args[0], count, asked), fast, slow)):
        new.hint = old.hint
        env[old] = new
    return True


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
    results = rename(body.results, env)
    needed, kept = set(results), []
    for op in reversed(b.ops):
        if op.name == "check" or not needed.isdisjoint(op.results):
            needed.update(op.uses())
            kept.append(op)
    b.ops = kept[::-1]
    return b.finish(results)
