"""Random functions that strain bufferization, and an interpreter that runs a plan in the memory that it plans."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.backends.lowering.plan import Buffer, Plan
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Module, Op, Value
from dflow.ir.evaluator import _concrete, _Evaluator
from dflow.ir.types import F64, I64, TensorType

ROWS, COLUMNS = 6, 6
SIZE = ROWS * COLUMNS  # large enough for the arena
FLAT, SQUARE = TensorType(F64, (SIZE,)), TensorType(F64, (ROWS, COLUMNS))


# -- running a plan ----------------------------------------------------------------------------------------------------


def run_plan(plan: Plan, args: Sequence[Any]) -> list[np.ndarray]:
    """The results of a planned function, run with its tensors where the plan says and nowhere else.

    All memory is NaN (or all ones) until it is written. Arguments must come out as they went in, but for those whose
    memory is to hold a result.
    """
    given = [np.asarray(a, v.type.dtype.numpy) for a, v in zip(args, plan.function.args)]
    memory = Memory(plan, [a.copy() for a in given])
    with np.errstate(all="ignore"):
        results = _Planned(plan, memory).block(plan.function.body, given, memory)
    for k, (before, v) in enumerate(zip(given, plan.function.args)):
        if k in plan.in_place.values():
            continue
        np.testing.assert_array_equal(memory[v], before)
    return [np.array(r) for r in results]


class Memory(dict):
    """The environment of an evaluation: scalars by value, tensors as views of the memory of their buffers."""

    def __init__(self, plan: Plan, args: Sequence[np.ndarray]):
        super().__init__()
        self.plan = plan
        self.arena = np.full(plan.arena_bytes, 0xFF, np.uint8)
        self.places: dict[Buffer, np.ndarray] = {}
        for buffer in set(plan.buffers.values()):
            if buffer.space == "argument":
                self.places[buffer] = args[buffer.index].reshape(-1).view(np.uint8)
            elif buffer.space == "arena":
                self.places[buffer] = self.arena[buffer.offset : buffer.offset + buffer.bytes]
            elif buffer.space != "heap":
                self.places[buffer] = np.full(buffer.bytes, 0xFF, np.uint8)

    def __contains__(self, v: object) -> bool:
        return v in self.plan.buffers or super().__contains__(v)

    def __getitem__(self, v: Value) -> np.ndarray:
        if v not in self.plan.buffers:
            return super().__getitem__(v)
        place = self.places[self.plan.buffers[v]]
        if v.type.grows:
            return place
        padded = place.view(v.type.dtype.numpy).reshape(v.type.bound)
        return padded[tuple(slice(n) for n in _concrete(v.type.shape, self))]

    def write(self, v: Value, a: Any) -> None:
        if v not in self.plan.buffers:
            self[v] = np.asarray(a)
        elif v.type.grows:
            self.places[self.plan.buffers[v]] = np.array(a)
        else:
            self[v][...] = a


class _Planned(_Evaluator):
    """Evaluates in a ``Memory``. Control flow moves no tensor: that is what the plan promises."""

    def __init__(self, plan: Plan, memory: Memory):
        super().__init__(Module.of(plan.function), None)
        self.plan = plan
        self.moved = {op for copies in plan.moves.values() for op in copies}

    def op(self, op: Op, env: Any) -> Sequence[Any]:
        if op not in self.plan.moves:
            return super().op(op, env)
        homes = dict(env.places)
        results = super().op(op, env)
        held = {b: place.copy() for b, place in env.places.items() if place is not homes[b]}
        env.places.update({b: homes[b] for b in held})
        for b, content in held.items():
            homes[b][...] = content
        return results

    def block(self, block: Block, args: Sequence[np.ndarray], env: Any) -> list[np.ndarray]:
        for v, a in zip(block.args, args):
            if not v.type.rank:
                env.write(v, a)
        for op in block.ops:
            results = self.op(op, env)
            for v, a in zip(op.results, results):
                if not v.type.rank:
                    env.write(v, a)
            for v, a in zip(op.results, results):
                if op in self.moved:
                    x, y = (self.plan.buffers[t] for t in (*op.operands, v))
                    env.places[x], env.places[y] = env.places[y], env.places[x]
                elif v.type.rank and not self.stays(op, v):
                    env.write(v, a)
        return [env[v] for v in block.results]

    def stays(self, op: Op, v: Value) -> bool:
        if op.name in ("if", "for", "while"):
            return True
        alias = op.name in ("copy", "reshape") and op.operands[0].type.rank
        return bool(alias) and self.plan.buffers[v] is self.plan.buffers[op.operands[0]]

    def _kernel(self, op: Op, operands: list[np.ndarray], env: Any) -> Sequence[Any]:
        if op.attrs["reduced"]:
            return super()._kernel(op, operands, env)
        for index in np.ndindex(*_concrete(op.attrs["domain"], env)):  # element by element, as machine code does it
            elements = self.block(op.regions[0], [np.array(i, np.int64) for i in index], env)
            for r, element in zip(op.results, list(map(np.array, elements))):
                env[r][index] = element
        return [env[r] for r in op.results]


def copies(plan: Plan) -> list[tuple[int, Op]]:
    """The copies in a plan, reshapes from one buffer to another too, each with the number of loops around it."""
    found = []

    def visit(block: Block, depth: int) -> None:
        for op in block.ops:
            if op.name in ("copy", "reshape") and (x := op.operands[0]).type.rank and op.result.type.rank:
                found.extend([(depth, op)] * (plan.buffers[op.result] is not plan.buffers[x]))
            for r in op.regions:
                visit(r, depth + (op.name in ("for", "while")))

    visit(plan.function.body, 0)
    return found


# -- random functions --------------------------------------------------------------------------------------------------


def random_aliasing(rng: random.Random, steps: int = 6) -> Function:
    """A function of two tensors and a scalar, with updates in loops and branches, and values used again after."""
    b = Builder([FLAT, FLAT, TensorType(F64)], ["x", "y", "c"])
    pool = [*b.args[:2], b.constant(np.zeros(SIZE))]
    _steps(b, rng, pool, b.args[2], steps, 3)
    results = [rng.choice(pool) for _ in range(rng.randint(1, 3))]
    return b.function("f", results)


def _steps(b: Builder, rng: random.Random, pool: list[Value], c: Value, steps: int, nesting: int) -> None:
    for _ in range(rng.randint(1, steps)):
        kind = rng.choice(["update", "update", "update_add", "elementwise", "kernel", "shift", "reshape", "extract"])
        if nesting and rng.random() < 0.45:
            kind = rng.choice(["for", "for", "if", "while"])
        new = _STEPS[kind](b, rng, pool, c, max(1, steps - 1), nesting - 1)
        # Later steps see the new value more often than the old ones, as programs that assign to variables do.
        for v in new:
            if rng.random() < 0.6:
                pool[rng.randrange(len(pool))] = v
            else:
                pool.append(v)


def _position(b: Builder, rng: random.Random) -> Value:
    return b.index(rng.randrange(SIZE))


def _update(b: Builder, rng: random.Random, pool: list[Value], c: Value, *_: Any) -> list[Value]:
    x, index = rng.choice(pool), ("at",)
    return [
        b.update(
            x, b.add(b.extract(rng.choice(pool), _position(b, rng), index=index), c), _position(b, rng), index=index
        )
    ]


def _update_add(b: Builder, rng: random.Random, pool: list[Value], c: Value, *_: Any) -> list[Value]:
    return [b.update_add(rng.choice(pool), rng.choice(pool), b.index(0), index=(("slice", SIZE, 1),))]


def _elementwise(b: Builder, rng: random.Random, pool: list[Value], *_: Any) -> list[Value]:
    return [b.emit(rng.choice(["sub", "max"]), rng.choice(pool), rng.choice(pool))]


def _kernel(b: Builder, rng: random.Random, pool: list[Value], c: Value, *_: Any) -> list[Value]:
    """A kernel with two results that reads one tensor straight and one in reverse."""
    k = Builder([TensorType(I64)])
    straight = k.extract(rng.choice(pool), k.args[0], index=("at",))
    reverse = k.extract(rng.choice(pool), k.sub(k.index(SIZE - 1), k.args[0]), index=("at",))
    second = reverse if rng.random() < 0.3 else straight
    region = k.finish([k.add(straight, c), k.sub(second, straight)])
    attrs = {"domain": (SIZE,), "reduced": 0, "combine": ("", "")}
    return list(b.append("kernel", [], attrs, [region]))


def _shift(b: Builder, rng: random.Random, pool: list[Value], *_: Any) -> list[Value]:
    x = rng.choice(pool)
    part = b.extract(x, b.index(1), index=(("slice", SIZE - 1, 1),))
    return [b.update(rng.choice(pool), part, b.index(0), index=(("slice", SIZE - 1, 1),))]


def _reshape(b: Builder, rng: random.Random, pool: list[Value], c: Value, *_: Any) -> list[Value]:
    x = b.reshape(rng.choice(pool), shape=SQUARE.shape)
    if rng.random() < 0.5:
        x = b.update(x, c, b.index(1), b.index(2), index=("at", "at"))
    if rng.random() < 0.3:
        x = b.transpose(x, perm=(1, 0))
    return [b.reshape(x, shape=FLAT.shape)]


def _extract(b: Builder, rng: random.Random, pool: list[Value], *_: Any) -> list[Value]:
    return [b.copy(rng.choice(pool))]


def _region(rng: random.Random, c: Value, steps: int, nesting: int, carried: int) -> Any:
    """Fills a block that sees ``outer`` and its own arguments, and yields values from among all of these."""

    def fill(b: Builder, outer: list[Value], own: Sequence[Value]) -> list[Value]:
        pool = [*own, *own, *outer]
        _steps(b, rng, pool, c, steps, nesting)
        if own and rng.random() < 0.3:
            return rng.sample(list(own), len(own))  # swapped, with or without what the body made
        return [rng.choice(pool) for _ in range(carried)]

    return fill


def _for(b: Builder, rng: random.Random, pool: list[Value], c: Value, steps: int, nesting: int) -> list[Value]:
    inits = [rng.choice(pool) for _ in range(rng.randint(1, 3))]
    fill = _region(rng, c, steps, nesting, len(inits))
    outer = pool if rng.random() < 0.5 else []
    return list(b.for_loop(b.index(rng.randint(0, 3)), inits, lambda b, k, *own: fill(b, outer, own)))


def _while(b: Builder, rng: random.Random, pool: list[Value], c: Value, steps: int, nesting: int) -> list[Value]:
    inits = [rng.choice(pool) for _ in range(rng.randint(1, 2))]
    fill = _region(rng, c, steps, nesting, len(inits))
    trips, scratch = rng.randint(0, 2), rng.random() < 0.3

    def condition(b: Builder, k: Value, *own: Value) -> Value:
        if scratch:  # a change that only the condition sees
            b.extract(b.update(own[0], c, b.index(0), index=("at",)), b.index(0), index=("at",))
        return b.lt(k, b.index(trips))

    def body(b: Builder, k: Value, *own: Value) -> list[Value]:
        return [b.add(k, 1), *fill(b, pool, own)]

    return list(b.while_loop([b.index(0), *inits], condition, body))[1:]


def _if(b: Builder, rng: random.Random, pool: list[Value], c: Value, steps: int, nesting: int) -> list[Value]:
    fill = _region(rng, c, steps, nesting, rng.randint(1, 2))
    return list(b.if_(b.lt(c, 0.5), lambda b: fill(b, pool, []), lambda b: fill(b, pool, [])))


_STEPS = {
    "update": _update,
    "update_add": _update_add,
    "elementwise": _elementwise,
    "kernel": _kernel,
    "shift": _shift,
    "reshape": _reshape,
    "extract": _extract,
    "for": _for,
    "while": _while,
    "if": _if,
}
