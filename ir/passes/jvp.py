"""Forward mode: ``(x) -> y`` becomes ``(x, x_dot) -> (y, y_dot)``.

    %y = sin %x          ->    %y = sin %x
                               %c = cos %x
                               %y_dot = mul %c, %x_dot

Tangents that are known to be zero are ``None`` while the pass runs: they cost nothing, and what does not depend on the
inputs of interest is copied as it is. A tangent has the type of its primal. Loops carry the tangents of their active
carried values beside them; conditions see primals only.

Where a choice (``select``, ``max``, ``min``, a scalar ``if``) took what does not vary, the tangent is zero, and stays
zero through the elementwise operations that follow, even where their slope is infinite, as that of ``log(max(x, 0))``
is: the tangent is selected. So reverse mode has it, too (``transpose.py`` selects the cotangents).
"""

from __future__ import annotations

from collections.abc import Sequence

from dflow.ir.builder import Builder, clone_block
from dflow.ir.core import Block, Function, Location, Op, Value, substitute
from dflow.ir.passes.dependence import carried_values, dependents
from dflow.ir.registry import NoDerivativeError, definition
from dflow.ir.rules import RULED
from dflow.ir.types import TensorType

CHOICES = {"select": "", "max": "ge", "min": "le"}  # operations that take one of two operands, and when the first
MOVES = frozenset(("broadcast", "reshape", "transpose"))
PLAIN = frozenset(("neg", "add", "sub", "convert"))  # their slope is a finite number


def jvp(f: Function, wrt: Sequence[int] | None = None, *, selecting: bool = True) -> Function:
    """The function with tangents for the parameters ``wrt`` (all inexact ones by default).

    ``(x...) -> y...`` becomes ``(x..., x_dot for wrt...) -> (y..., y_dot for inexact y...)``. ``selecting`` is off for
    what is transposed, which selects by itself. Raises NoDerivativeError.
    """
    wrt = differentiable(f.args) if wrt is None else list(wrt)
    n = len(f.args)
    b = Builder.like([*f.args, *(Value(f.args[i].type, dot(f.args[i].hint)) for i in wrt)])
    pass_ = Jvp(f.body, [f.args[i] for i in wrt], selecting)
    pass_.start(f.args, b.args[:n], [f.args[i] for i in wrt], b.args[n:])
    pass_.block(b, f.body)
    ys = [pass_.primal[y] for y in f.results]
    dots = [pass_.tangent_or_zero(b, y) for y in f.results if y.type.dtype.is_inexact]
    return b.function(f"jvp_{f.name}", ys + dots, loc=f.loc)


def differentiable(values: Sequence[Value]) -> list[int]:
    """The positions of the values that can carry a derivative."""
    return [i for i, v in enumerate(values) if v.type.dtype.is_inexact]


def dot(hint: str | None) -> str | None:
    return None if hint is None else f"{hint}_dot"


class Jvp:
    """The state of the pass: new primals and tangents of old values."""

    def __init__(self, block: Block, active: Sequence[Value], selecting: bool):
        self.active = dependents(block, active)
        self.selecting = selecting
        self.primal: dict[Value, Value] = {}
        self.tangent: dict[Value, Value] = {}
        self.masks: dict[Value, Value] = {}  # a tangent that a choice makes zero -> where it is not

    def start(
        self, args: Sequence[Value], primals: Sequence[Value], wrt: Sequence[Value], tangents: Sequence[Value]
    ) -> None:
        self.primal.update(zip(args, primals))
        self.tangent.update(zip(wrt, tangents))

    def get(self, v: Value) -> Value:
        return self.primal.get(v, v)

    def type(self, v: Value) -> TensorType:
        return substitute(v.type, self.primal)

    def tangent_or_zero(self, b: Builder, v: Value) -> Value:
        t = self.tangent.get(v)
        return b.zeros(self.type(v)) if t is None else t

    def block(self, b: Builder, block: Block) -> None:
        for op in block.ops:
            b.loc = op.loc or b.loc
            if not any(r in self.active for r in op.results):
                b.clone(op, self.primal)
            elif op.name == "if":
                self.if_(b, op)
            elif op.name == "for":
                self.for_(b, op)
            elif op.name == "while":
                self.while_(b, op)
            elif op.name in RULED:
                self.ruled(b, op)
            else:
                self.primitive(b, op)

    def primitive(self, b: Builder, op: Op) -> None:
        ys = b.clone(op, self.primal)
        dots_in = [self.tangent.get(v) for v in op.operands]
        if all(t is None for t in dots_in):
            return
        rule = definition(op).jvp
        if rule is None:
            reason = definition(op).no_derivative or "it must be expanded before differentiation"
            raise NoDerivativeError(f"{op.name} has no derivative: {reason}", op.loc)
        attrs = {k: substitute(v, self.primal) for k, v in op.attrs.items()}
        dots = rule(b, attrs, [self.get(v) for v in op.operands], ys, dots_in)
        if self.selecting and len(dots) == 1 and dots[0] is not None:
            dots = [self.selected(b, op, dots[0], dots_in)]
        for r, t in zip(op.results, dots):
            if t is not None and r in self.active:
                t.hint = t.hint or dot(r.hint)
                self.tangent[r] = t

    def selected(self, b: Builder, op: Op, t: Value, dots_in: Sequence[Value | None]) -> Value:
        """The tangent of an operation, zero where choices say so: elements that are moved take their choice along."""
        moving = {i: d for i, d in enumerate(dots_in) if d is not None}
        masks = {self.masks.get(d) for d in moving.values()}
        if len(masks) != 1 or not (definition(op).elementwise or op.name in MOVES):
            return t
        (mask,) = masks
        if op.name in CHOICES:
            if len(moving) != 1:
                return t
            chosen = self.chosen(b, op, *moving)
            mask = chosen if mask is None else b.and_(mask, chosen)
        elif mask is not None and op.name in MOVES:
            mask = b.emit(op.name, mask, **{k: substitute(v, self.primal) for k, v in op.attrs.items()})
        elif mask is not None and op.name not in PLAIN:
            t = b.select(mask, t, b.zeros(t.type))
        if mask is not None:
            self.masks[t] = mask
        return t

    def chosen(self, b: Builder, op: Op, i: int) -> Value:
        """Where a choice takes its operand ``i``."""
        operands = [self.get(v) for v in op.operands]
        if op.name == "select":
            return operands[0] if i == 1 else b.not_(operands[0])
        return b.emit(CHOICES[op.name], operands[i], operands[1 - i])

    def ruled(self, b: Builder, op: Op) -> None:
        """An operation that brings its derivative along."""
        dots_in = [self.tangent.get(v) for v in op.operands]
        if all(t is None for t in dots_in):
            b.clone(op, self.primal)
            return
        renamed = Builder()
        renamed.clone(op, dict(self.primal))
        ys, dots = op.attrs["rule"].jvp(b, renamed.ops[0], dots_in)
        self.primal.update(zip(op.results, ys))
        for r, y, t in zip(op.results, ys, dots):
            y.hint = y.hint or r.hint
            if t is not None and r in self.active:
                t.hint = t.hint or dot(r.hint)
                self.tangent[r] = t

    def if_(self, b: Builder, op: Op) -> None:
        moving = [i for i, r in enumerate(op.results) if r in self.active]
        regions = []
        for region in op.regions:
            inner = Builder(loc=b.loc)
            self.block(inner, region)
            dots = [self.tangent_or_zero(inner, region.results[i]) for i in moving]
            regions.append(inner.finish([self.get(v) for v in region.results] + dots))
        varying = [[region.results[i] in self.tangent for i in moving] for region in op.regions]
        chosen = self.get(op.operands[0])
        self.finish(b, op, [chosen], regions, moving)
        for i, first, second in zip(moving, *varying):
            t = self.tangent[op.results[i]]
            if self.selecting and first != second and t.type.is_scalar:
                self.masks[t] = chosen if first else b.not_(chosen)

    def for_(self, b: Builder, op: Op) -> None:
        carried, inits = carried_values(op)
        moving = [i for i, c in enumerate(carried) if c in self.active]
        operands = [self.get(v) for v in op.operands] + [self.tangent_or_zero(b, inits[i]) for i in moving]
        body = self.body(op.regions[0], moving, [carried[i] for i in moving], b.loc)
        self.finish(b, op, operands, [body], moving)

    def while_(self, b: Builder, op: Op) -> None:
        carried, inits = carried_values(op)
        moving = [i for i, c in enumerate(carried) if c in self.active]
        operands = [self.get(v) for v in op.operands] + [self.tangent_or_zero(b, inits[i]) for i in moving]
        cond = clone_block(op.regions[0], self.primal)
        extra = tuple(Value(self.type(carried[i]), dot(carried[i].hint)) for i in moving)
        cond = Block(cond.args + extra, cond.ops, cond.results)
        body = self.body(op.regions[1], moving, [carried[i] for i in moving], b.loc)
        self.finish(b, op, operands, [cond, body], moving)

    def body(self, region: Block, moving: list[int], active: list[Value], loc: Location | None) -> Block:
        """The body of a loop, with tangents of the carried values at ``moving`` carried too."""
        types = [self.type(a) for a in region.args] + [self.type(a) for a in active]
        inner = Builder(types, [a.hint for a in region.args] + [dot(a.hint) for a in active], loc)
        n = len(region.args)
        self.start(region.args, inner.args[:n], active, inner.args[n:])
        self.block(inner, region)
        dots = [self.tangent_or_zero(inner, region.results[i]) for i in moving]
        return inner.finish([self.get(v) for v in region.results] + dots)

    def finish(self, b: Builder, op: Op, operands: list[Value], regions: list[Block], moving: list[int]) -> None:
        hints = [r.hint for r in op.results] + [dot(op.results[i].hint) for i in moving]
        results = b.append(op.name, operands, op.attrs, regions, hints, op.loc)
        n = len(op.results)
        self.start(op.results, results[:n], [op.results[i] for i in moving], results[n:])
