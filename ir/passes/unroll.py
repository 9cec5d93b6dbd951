"""Short loops that add arrays up become straight code, which fusion makes one pass over memory of:

    for 25, %y { (%k, %y) -> yield add %y, mul(%x[%k:], %w[%k]) }      ->      add(add(%y, mul(...)), mul(...)), ...

A loop over arrays goes over memory in each iteration. That is so here only where each element of what is carried
depends on the element before at the same place, and the rest is cheap: the body moves elements and does arithmetic.
Branches may depend on loop counters alone, and so go away.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, walk
from dflow.ir.passes.canonicalize import canonicalize
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, rebuild, rebuild_region, rename
from dflow.ir.registry import definition

COPIES = 32  # of a body, all levels together
OPERATIONS = 320  # of all copies
LARGE = 1024  # elements of an array
ARITHMETIC = frozenset({"add", "sub", "mul", "div", "neg", "max", "min", "abs", "select", "square"})
MOVES = frozenset({"extract", "broadcast", "reshape", "transpose", "constant", "convert"})


def unroll(f: Function) -> Function:
    if not any(_is_short(op, set()) for op in walk(f.body)):
        return f
    return canonicalize(rebuild(f, _fill))


def _fill(b: Builder, block: Block, env: Env) -> None:
    for op in block.ops:
        b.loc = op.loc
        if _is_short(op, set()):
            _unrolled(b, op, env)
        else:
            append_copy(b, op, env, [rebuild_region(r, env, _fill) for r in op.regions])


def _unrolled(b: Builder, loop: Op, env: Env) -> None:
    (body,), count, carried = loop.regions, constant_of(loop.operands[0]), rename(loop.operands[1:], env)
    for k in range(count):
        env.update(zip(body.args, (b.index(k), *carried)))
        for op in body.ops:
            b.loc = op.loc
            if op.name == "for":
                _unrolled(b, op, env)
            else:
                append_copy(b, op, env, [rebuild_region(r, env, _fill) for r in op.regions])
        carried = rename(body.results, env)
    env.update(zip(loop.results, carried))


# -- which loops -----------------------------------------------------------------------------------------------------


def _is_short(loop: Op, counters: set[Value]) -> bool:
    """Whether a loop is worth its copies; ``counters`` are those of the loops around that are unrolled with it."""
    if loop.name != "for" or not any(_is_large(r) for r in loop.results):
        return False
    copies, operations = _size(loop)
    (body,) = loop.regions
    carried = {a for a in body.args if a.type.rank}
    return (
        1 < copies <= COPIES
        and operations <= OPERATIONS
        and _is_plain(body, {*counters, body.args[0]})
        and _stay(body, carried)
    )


def _is_large(v: Value) -> bool:
    return v.type.is_static and bool(v.type.rank) and prod(v.type.static_shape) >= LARGE


def _size(loop: Op) -> tuple[int, int]:
    """How many copies of the innermost bodies, and how many operations, a loop becomes; too many where unknown."""
    count = constant_of(loop.operands[0])
    if not isinstance(count, int) or not 0 < count <= COPIES:
        return COPIES + 1, OPERATIONS + 1
    copies, operations = 1, sum(1 for _ in walk(loop.regions[0]))
    for op in _loops(loop.regions[0].ops):
        inner_copies, inner = _size(op)
        copies, operations = max(copies, inner_copies), operations + inner
    return count * copies, count * operations


def _loops(ops: Iterable[Op]) -> Iterable[Op]:
    for op in ops:
        if op.name == "for":
            yield op
        elif op.name == "if":
            for r in op.regions:
                yield from _loops(r.ops)


def _is_plain(block: Block, counters: set[Value]) -> bool:
    """Whether all operations are cheap, and branches known once the counters are."""
    known = set(counters)
    for op in block.ops:
        if op.operands and known.issuperset(v for v in op.operands if constant_of(v) is None):
            known.update(op.results)
        if op.name == "for":
            if not _is_short(op, known):
                return False
        elif op.name == "if":
            if op.operands[0] not in known or not all(_is_plain(r, known) for r in op.regions):
                return False
        elif any(r.type.rank for r in op.results):
            if op.name not in ARITHMETIC | MOVES:
                return False
        elif not (op.name in MOVES or definition(op).elementwise):
            return False
    return True


def _stay(block: Block, places: set[Value]) -> bool:
    """Whether elements of ``places``, and of what is computed from them, are only wanted at their own place."""
    places = set(places)
    for op in block.ops:
        if op.name == "if":
            if not all(_stay(r, places) for r in op.regions):
                return False
            places.update(r for r in op.results if r.type.rank)
        elif not places.isdisjoint(op.operands):
            if op.name == "for":
                places.update(r for r in op.results if r.type.rank)
            elif definition(op).elementwise:
                places.add(op.result)
            else:
                return False
    return True
