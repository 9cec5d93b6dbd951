"""Which values of a function are linear in its ``linear`` parameters, and whether it is linear in them at all.

Every value is in one of three states: ``ZERO`` for what is structurally zero, ``LINEAR`` for what depends linearly on
the linear parameters (jointly), ``FREE`` for what does not depend on them. Zero counts as linear where it meets what is
linear, so an accumulator may start from zeros. Loops reach a fixed point, since states only rise from ``ZERO``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NoReturn, Protocol

import numpy as np

from dflow.ir.core import Block, Function, Module, Op, Value
from dflow.ir.registry import OPS
from dflow.ir.rules import RULED, as_its_region


class State(Enum):
    ZERO = "zero"
    LINEAR = "linear"
    FREE = "free of it"


ZERO, LINEAR, FREE = State


class Fail(Protocol):
    def __call__(self, where: Op | Block | Function, reason: str, value: Value | None = None) -> NoReturn: ...


def linear_groups(op: Op) -> tuple[tuple[int, ...], ...]:
    """The groups of operands in which this very operation is linear; it can depend on attributes."""
    if op.name == "reduce" and op.attrs["kind"] != "sum":
        return ()
    if any(not r.type.dtype.is_inexact for r in op.results):
        return ()
    if op.name in RULED:
        n, k = len(op.operands), op.attrs["linear"]
        return (tuple(range(n - k, n)),) if k else ()
    return OPS[op.name].linear_groups(len(op.operands))


def check_linearity(f: Function, module: Module | None, fail: Fail) -> list[State]:
    """The states of the results of ``f``; calls ``fail`` where a linear value is used in a way that is not linear."""
    if not f.linear:
        return [FREE] * len(f.results)
    states = {a: LINEAR if k in f.linear else FREE for k, a in enumerate(f.args)}
    return _Checker(module, fail, states).block(f.body)


class _Checker:
    def __init__(self, module: Module | None, fail: Fail, states: dict[Value, State]):
        self.module = module
        self.fail = fail
        self.states = states

    def block(self, block: Block) -> list[State]:
        for op in block.ops:
            rule = getattr(self, f"_{op.name}", None)
            results = rule(op) if rule else [self.plain(op)] * len(op.results)
            self.states.update(zip(op.results, results))
        return [self.states[v] for v in block.results]

    def plain(self, op: Op) -> State:
        """An operation without regions: linear values must be exactly one group, or what misses of it zero."""
        linear = {k for k, v in enumerate(op.operands) if self.states[v] is LINEAR}
        zero = {k for k, v in enumerate(op.operands) if self.states[v] is ZERO}
        groups = [set(g) for g in linear_groups(op)]
        if not linear:
            return ZERO if any(g and g <= zero for g in groups) else FREE
        if any(linear <= g <= linear | zero for g in groups):
            return LINEAR
        culprit = min(linear - set().union(*groups), default=min(linear))
        self.fail(op, self.reason(op, linear, groups), op.operands[culprit])

    def reason(self, op: Op, linear: set[int], groups: list[set[int]]) -> str:
        if not linear <= set().union(*groups):
            return f"is linear, and {op.name} is not linear in it"
        if any(linear < g for g in groups):
            return "is linear, and another operand is not: the result would be affine"
        return f"is linear, as is another operand: {op.name} is not linear in both"

    def forbid(self, op: Op, v: Value, what: str) -> None:
        if self.states[v] is LINEAR:
            self.fail(op, f"is linear and cannot be {what}", v)

    def join(self, where: Block, values: Sequence[Value], a: Sequence[State], b: Sequence[State]) -> list[State]:
        """What is either ``a`` or ``b``, in turn for each yielded value."""
        out = []
        for v, x, y in zip(values, a, b):
            if {x, y} == {LINEAR, FREE}:
                self.fail(where, f"is {y.value} here and {x.value} on the other way: neither linear nor constant", v)
            out.append(y if x is ZERO else x)
        return out

    # -- operations by name --------------------------------------------------------------------------------------

    def _constant(self, op: Op) -> list[State]:
        return [FREE if np.any(op.attrs["value"]) else ZERO]

    def _empty(self, op: Op) -> list[State]:
        return [ZERO]  # to be overwritten, whatever is in it

    def _sequence(self, op: Op) -> list[State]:
        return [ZERO]

    def _if(self, op: Op) -> list[State]:
        self.forbid(op, op.operands[0], "a condition")
        then, orelse = op.regions
        taken = self.block(then)
        return self.join(orelse, orelse.results, taken, self.block(orelse))

    def _for(self, op: Op) -> list[State]:
        self.forbid(op, op.operands[0], "a trip count")
        (body,) = op.regions
        self.states[body.args[0]] = FREE
        return self.fixed_point(op.operands[1:], body, body.args[1:], None)

    def _while(self, op: Op) -> list[State]:
        condition, body = op.regions
        return self.fixed_point(op.operands, body, body.args, condition)

    def fixed_point(
        self, inits: Sequence[Value], body: Block, args: Sequence[Value], condition: Block | None
    ) -> list[State]:
        carried = [self.states[v] for v in inits]
        while True:
            if condition:
                self.states.update(zip(condition.args, carried))
                if self.block(condition)[0] is LINEAR:
                    self.fail(condition, "is linear and cannot be a condition", condition.results[0])
            self.states.update(zip(args, carried))
            after = self.join(body, body.results, carried, self.block(body))
            if after == carried:
                return carried
            carried = after

    def _custom(self, op: Op) -> list[State]:
        if not as_its_region(op):
            return [self.plain(op)] * len(op.results)
        (region,) = op.regions
        self.states.update((a, self.states[v]) for a, v in zip(region.args, op.operands))
        return self.block(region)

    def _kernel(self, op: Op) -> list[State]:
        (region,) = op.regions
        self.states.update((a, FREE) for a in region.args)
        states = self.block(region)
        for v, state, kind in zip(region.results, states, op.attrs["combine"]):
            if state is LINEAR and kind not in ("", "sum"):
                self.fail(region, f"is linear, and {kind} is not linear in it", v)
        return states

    def _call(self, op: Op) -> list[State]:
        callee = self.module.functions.get(op.attrs["callee"]) if self.module else None
        states = [self.states[v] for v in op.operands]
        if callee is None:  # not known here: taken to be what the call needs
            return [LINEAR if LINEAR in states else FREE] * len(op.results)
        for k, (v, state) in enumerate(zip(op.operands, states)):
            if state is LINEAR and k not in callee.linear:
                self.fail(op, f"is linear, and @{callee.name} is not declared linear in it", v)
            if state is FREE and k in callee.linear and LINEAR in states:
                self.fail(op, f"is not linear, and @{callee.name} is linear in it together with others", v)
        if LINEAR not in states:
            return [FREE] * len(op.results)
        return _results_of(callee, self.module, self.fail)


def _results_of(callee: Function, module: Any, fail: Fail) -> list[State]:
    """The states of what a callee gives; where that cannot be told (it is wrong itself, or recursive), linear."""

    class Undecided(Exception):
        pass

    def undecided(where: Any, reason: str, value: Value | None = None) -> NoReturn:
        raise Undecided

    try:
        return check_linearity(callee, module, undecided)
    except (Undecided, RecursionError):
        return [LINEAR] * len(callee.results)
