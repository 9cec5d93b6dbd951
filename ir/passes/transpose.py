"""Transposing linear code: ``x_dot -> y_dot`` becomes ``y_bar -> x_bar``.

    %y_dot = mul %c, %x_dot        ->        %x_bar = mul %c, %y_bar

Operations are visited backwards; each adds its contribution to the cotangents of its operands. A contribution to part
of a tensor is added in place (``Accumulate``), so reading one element in a loop costs O(1) in reverse too. A loop runs
backwards; it carries the cotangents of what it carried and the running cotangents of linear values from around it.

What a ``select`` did not choose gets the cotangent zero, and must not touch the derivative even where a coefficient is
infinite: zero times infinity is NaN. So cotangents that a ``select`` made are followed with their *mask*, the predicate
under which they may be other than zero, and a product of one is taken under its mask alone. What is selected last in a
run of products need not be selected before.

What was not the least of many has the cotangent zero, too, as ``min`` selects it out. A long loop in which the
derivative goes on from there is passed by where the mask does not hold.
"""

from __future__ import annotations

import cmath
import functools
from collections.abc import Callable, Sequence

import numpy as np

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Location, Op, Value, free_values, substitute, walk
from dflow.ir.linearity import linear_groups
from dflow.ir.passes.dependence import dependents
from dflow.ir.passes.packing import packed_type, unpack
from dflow.ir.passes.rewrite import constant_of, splat_of
from dflow.ir.registry import Accumulate, Linear, definition
from dflow.ir.rules import RULED, as_its_region
from dflow.ir.types import I64, scalar

LONG = 8  # iterations that are worth a question
LEAST = 1e-4  # what has a finite reciprocal in all types


def transpose(f: Function, linear: Sequence[int] | None = None, *, strict: bool = False) -> Function:
    """``(r..., x_dot...) -> y_dot...`` becomes ``(r..., y_bar...) -> x_bar...``.

    Results that are not inexact have no cotangent. ``linear`` are the positions of the parameters in which ``f`` is
    linear (by default what ``f.linear`` says). With ``strict``, nothing but zeros may be added to linear values, as in
    code that a user says is linear. Raises NotLinearError when ``f`` is not linear in them.
    """
    at = sorted(f.linear if linear is None else linear)
    kept = [i for i in range(len(f.args)) if i not in at]
    known = [f.args[i] for i in kept]
    env: dict[Value, Value] = {}
    b = Builder.like([*known, *cotangents(f.results, known)], env)
    dots = [f.args[i] for i in at]
    block = Block(f.args, f.body.ops, f.results)
    if strict:
        check_linear(block, dependents(block, dots))
    given = iter(b.args[len(kept) :])
    y_bars = [next(given) if y.type.dtype.is_inexact else None for y in f.results]
    bars = transpose_block(b, block, dots, y_bars, env)
    return b.function(f"{f.name}_transpose", bars, linear=frozenset(range(len(kept), len(b.args))), loc=f.loc)


def cotangents(ys: Sequence[Value], known: Sequence[Value]) -> list[Value]:
    """Stand-ins, for ``Builder.like``, for parameters that take the cotangents of results.

    A size that is not among the ``known`` parameters is known to the function alone: such a cotangent is packed.
    """
    bars = []
    for y in ys:
        if y.type.dtype.is_inexact:
            inside = not set(y.type.size_values) <= set(known)
            bars.append(Value(packed_type(y.type) if inside else y.type, bar(y.hint)))
    return bars


def bar(hint: str | None) -> str | None:
    if hint is None:
        return None
    return f"{hint.removesuffix('_dot')}_bar"


def transpose_block(
    b: Builder, block: Block, dots: Sequence[Value], bars: Sequence[Value | None], env: dict[Value, Value]
) -> list[Value]:
    """Appends the transpose of ``block`` to ``b``; returns the cotangents of ``dots``.

    ``bars`` are the cotangents of the block's results, packed where they have another type; ``env`` renames nonlinear
    values that it uses.
    """
    return Transpose(dependents(block, dots), env).block(b, block, dots, bars)


class NotLinearError(TypeError):
    """Code that should be linear is not. ``loc`` is the user's line."""

    def __init__(self, message: str, loc: Location | None):
        super().__init__(message)
        self.loc = loc


class Transpose:
    """The state of the pass: names of nonlinear values, and running cotangents of linear ones."""

    def __init__(self, linear: set[Value], env: dict[Value, Value]):
        self.linear = linear
        self.env = env
        self.bars: dict[Value, Value] = {}
        self.masks: dict[Value, Value] = {}  # of cotangents
        self.bare: dict[Value, Value] = {}  # what cotangents are where their masks hold

    def block(self, b: Builder, block: Block, dots: Sequence[Value], bars: Sequence[Value | None]) -> list[Value]:
        """Appends the transpose of ``block``, as ``transpose_block`` does."""
        self.nonlinear(b, block.ops)
        for y, y_bar in zip(block.results, bars):
            if y_bar is not None and y_bar.type != substitute(y.type, self.env):
                y_bar = unpack(b, y_bar, y.type, self.env)
            self.add(b, y, y_bar)
        self.linear_ops(b, block.ops)
        return [self.bar_or_zero(b, d) for d in dots]

    def get(self, v: Value) -> Value:
        return self.env.get(v, v)

    def bar_or_zero(self, b: Builder, v: Value) -> Value:
        found = self.bars.get(v)
        return b.zeros(substitute(v.type, self.env)) if found is None else found

    def add(self, b: Builder, v: Value, contribution: Value | Accumulate | None) -> None:
        """Adds to the cotangent of ``v``; nothing when ``v`` is not linear (a zero)."""
        if contribution is None or v not in self.linear:
            return
        if isinstance(contribution, Accumulate):
            total = contribution.add(self.bar_or_zero(b, v))
        elif v in self.bars:
            total = b.add(self.bars[v], contribution)
            masks = [self.masks.get(x) for x in (self.bars[v], contribution)]
            if masks[0] is not None and masks[1] is not None:
                self.masks[total] = masks[0] if masks[0] is masks[1] else b.or_(*masks)
        else:
            total = contribution
        total.hint = total.hint or bar(v.hint)
        self.bars[v] = total

    def nonlinear(self, b: Builder, ops: Sequence[Op]) -> None:
        """Nonlinear operations, forwards."""
        for op in ops:
            if not any(r in self.linear for r in op.results):
                b.loc = op.loc or b.loc
                b.clone(op, self.env)

    def linear_ops(self, b: Builder, ops: Sequence[Op]) -> None:
        """Linear operations, backwards."""
        for op in reversed(ops):
            if any(r in self.bars for r in op.results):
                b.loc = op.loc or b.loc
                if op.name == "if":
                    self.if_(b, op)
                elif op.name == "for":
                    self.for_(b, op)
                elif op.name in RULED:
                    self.ruled(b, op)
                else:
                    self.primitive(b, op)

    def primitive(self, b: Builder, op: Op) -> None:
        rule = definition(op).transpose
        if rule is None or not _fits(op, self.linear):
            raise NotLinearError(f"{op.name} is not linear in its operands", op.loc)
        xs = [Linear(substitute(v.type, self.env)) if v in self.linear else self.get(v) for v in op.operands]
        attrs = {k: substitute(v, self.env) for k, v in op.attrs.items()}
        cts = [self.bars.pop(r, None) for r in op.results]
        ct = cts[0]
        if ct is None or not definition(op).elementwise:
            contributions = rule(b, attrs, xs, cts)
        else:
            contributions = self.elementwise(b, op, xs, ct, lambda y_bar: rule(b, attrs, xs, [y_bar]))
        for v, contribution in zip(op.operands, contributions):
            self.add(b, v, contribution)

    def ruled(self, b: Builder, op: Op) -> None:
        """A linear operation that brings its transpose along."""
        inside = op.name == "custom" and as_its_region(op)
        if inside and not op.attrs["rule"].recomputes:
            self.opened(b, op)
            return
        if not (inside or _fits(op, self.linear)):
            raise NotLinearError(f"the function @{op.attrs['rule'].name} is not linear in its operands", op.loc)
        renamed = Builder()
        renamed.clone(op, dict(self.env))
        known = [Linear(substitute(v.type, self.env)) if v in self.linear else self.get(v) for v in op.operands]
        bars = [self.bars.pop(r, None) for r in op.results]
        for v, contribution in zip(op.operands, op.attrs["rule"].transpose(b, renamed.ops[0], known, bars)):
            self.add(b, v, contribution)

    def opened(self, b: Builder, op: Op) -> None:
        """A function with a rule of its own for forward mode: its transpose is that of the function itself."""
        (region,) = op.regions
        inside = [(a, v) for a, v in zip(region.args, op.operands) if v in self.linear]
        env = {**self.env, **{a: self.get(v) for a, v in zip(region.args, op.operands) if v not in self.linear}}
        bars = [self.bars.pop(r, None) for r in op.results]
        for (_, v), contribution in zip(inside, transpose_block(b, region, [a for a, _ in inside], bars, env)):
            self.add(b, v, contribution)

    def elementwise(
        self,
        b: Builder,
        op: Op,
        xs: Sequence[Value | Linear],
        ct: Value,
        rule: Callable[[Value], Sequence[Value | None]],
    ) -> Sequence[Value | None]:
        """The contributions of an elementwise operation, zero where the mask of its cotangent does not hold.

        Of a run of factors the last product alone is selected: each is taken of what its cotangent is before that.
        """
        mask, bare = self.masks.get(ct), self.bare.get(ct, ct)
        if op.name == "select":
            return [self.chosen(b, op, i, c, mask, bare) for i, c in enumerate(rule(ct))]
        if mask is None:
            return rule(ct)
        factor = next((x for x in xs if isinstance(x, Value)), None)
        unsafe = op.name in ("mul", "div", "scale") and not (factor and _is_finite(factor))
        if unsafe or (op.name == "neg" and bare is not ct):
            return [None if c is None else self.selected(b, c, mask) for c in rule(bare)]
        contributions = rule(ct)
        self.masks.update((c, mask) for c in contributions if c is not None)
        return contributions

    def selected(self, b: Builder, bare: Value, mask: Value) -> Value:
        """A contribution under a mask."""
        contribution = b.select(mask, bare, b.zeros(bare.type))
        self.masks[contribution], self.bare[contribution] = mask, bare
        return contribution

    def chosen(
        self, b: Builder, op: Op, i: int, contribution: Value | None, mask: Value | None, bare: Value
    ) -> Value | None:
        """The contribution of a ``select`` to operand ``i``, with its mask."""
        if contribution is not None:
            holds = self.get(op.operands[0]) if i == 1 else b.not_(self.get(op.operands[0]))
            self.masks[contribution] = holds if mask is None else b.and_(mask, holds)
            self.bare[contribution] = bare
        return contribution

    def around(self, *regions: Block) -> list[Value]:
        """Linear values from around the regions that they use."""
        return [v for v in free_values(*regions) if v in self.linear]

    def if_(self, b: Builder, op: Op) -> None:
        used = self.around(*op.regions)
        y_bars = [self.bars.pop(r, None) for r in op.results]
        before = dict(self.bars)
        regions, reached = [], []
        for region in op.regions:
            inner = Builder(loc=b.loc)
            self.bars = dict(before)
            self.nonlinear(inner, region.ops)
            for y, y_bar in zip(region.results, y_bars):
                self.add(inner, y, y_bar)
            self.linear_ops(inner, region.ops)
            reached.append(set(self.bars))
            regions.append(inner.finish([self.bar_or_zero(inner, v) for v in used]))
        self.bars = before
        chosen = self.get(op.operands[0])
        outs = b.append("if", [chosen], regions=regions, hints=[bar(v.hint) for v in used])
        self.bars.update(zip(used, outs))
        for v, out in zip(used, outs):
            if v.type.is_scalar and (v in reached[0]) != (v in reached[1]):
                self.masks[out] = chosen if v in reached[0] else b.not_(chosen)

    def for_(self, b: Builder, op: Op) -> None:
        (body,) = op.regions
        k, *carried = body.args
        count = self.get(op.operands[0])
        used = self.around(body)
        inits = [self.bar_or_zero(b, v) for v in (*op.results, *used)]
        given = [v for r in op.results if (v := self.bars.pop(r, None)) is not None]
        taken = self.predicate(b, given)
        before = dict(self.bars)
        hints = ["j", *(bar(v.hint) for v in (*carried, *used))]
        inner = Builder([scalar(I64), *(v.type for v in inits)], hints, b.loc)
        n = len(carried)
        self.env[k] = inner.sub(inner.sub(count, 1), inner.args[0])
        self.bars = dict(zip(used, inner.args[1 + n :]))
        self.nonlinear(inner, body.ops)
        for y, y_bar in zip(body.results, inner.args[1 : 1 + n]):
            self.add(inner, y, y_bar)
        self.linear_ops(inner, body.ops)
        region = inner.finish([self.bar_or_zero(inner, v) for v in (*carried, *used)])
        self.bars = before
        outs = self.run(b, [count, *inits], region, hints[1:], taken)
        self.bars.update(zip(used, outs[n:]))
        for init, init_bar in zip(op.operands[1:], outs[:n]):
            self.add(b, init, init_bar)

    def predicate(self, b: Builder, bars: Sequence[Value]) -> Value | None:
        """Under which any of the cotangents may be other than zero, where each has a mask, a single one."""
        found = [self.masks.get(v) for v in bars]
        known = [p for p in found if p is not None and p.type.is_scalar]
        return functools.reduce(b.or_, dict.fromkeys(known)) if known and len(known) == len(bars) else None

    def run(
        self, b: Builder, operands: Sequence[Value], region: Block, hints: Sequence[str | None], taken: Value | None
    ) -> Sequence[Value]:
        """Appends the loop, under the predicate where that is worth it: else, it gives back what it is given."""
        if taken is None or not _is_long(operands[0], region):
            return b.append("for", operands, regions=[region], hints=hints)
        inner = Builder(loc=b.loc)
        then = inner.finish(inner.append("for", operands, regions=[region], hints=hints))
        return b.append("if", [taken], regions=[then, Builder().finish(operands[1:])], hints=hints)


def _is_long(count: Value, region: Block) -> bool:
    trips = constant_of(count)
    return trips is None or trips >= LONG or any(op.name == "for" for op in region.ops)


def _is_finite(x: Value) -> bool:
    """Whether zero times ``x``, or divided by it, is certainly zero."""
    if x.op is not None and x.op.name == "div":  # a reciprocal, as derivatives of quotients have it
        one, divisor = map(splat_of, x.op.operands)
        return one == 1 and divisor is not None and cmath.isfinite(divisor) and abs(divisor) > LEAST
    c = splat_of(x)
    return c is not None and cmath.isfinite(c) and c != 0


def _fits(op: Op, linear: set[Value]) -> bool:
    """Whether the operation is jointly linear in its linear operands."""
    at = {i for i, v in enumerate(op.operands) if v in linear}
    return any(at <= set(group) for group in linear_groups(op))


def check_linear(block: Block, linear: set[Value]) -> None:
    """Raises NotLinearError where ``block`` is not linear: a wrong operation, or something added that is not zero."""
    for v in block.results:
        if v not in linear and v.type.dtype.is_inexact and not _is_zero(v):
            raise NotLinearError(
                "a result does not depend on the arguments and is not zero", v.op.loc if v.op else None
            )
    for op in block.ops:
        if not any(r in linear for r in op.results):
            continue
        if op.name == "custom" and as_its_region(op):
            (region,) = op.regions
            inside = [a for a, v in zip(region.args, op.operands) if v in linear]
            check_linear(region, dependents(region, inside))
            continue
        if op.name == "for":
            _check_carried(op, linear)
        for region in op.regions if op.name not in RULED else ():
            check_linear(region, linear)
        if op.name == "while" or ((not op.regions or op.name in RULED) and not _fits(op, linear)):
            raise NotLinearError(f"{op.name} is not linear in its operands", op.loc)
        starts = op.operands[1:] if op.name == "for" else () if op.name == "if" else _added(op, linear)
        for v in starts:
            if v not in linear and v.type.dtype.is_inexact and not _is_zero(v):
                raise NotLinearError(f"{op.name} adds a value that does not depend on the arguments", op.loc)


def _check_carried(loop: Op, linear: set[Value]) -> None:
    """Its transpose runs backwards, and has no tape of what else it carries."""
    (body,) = loop.regions
    others = {a for a, r in zip(body.args[1:], loop.results) if r not in linear}
    for op in walk(body):
        if not others.isdisjoint(op.uses()):
            raise NotLinearError("the loop carries a value that does not depend on the arguments, and uses it", op.loc)


def _added(op: Op, linear: set[Value]) -> list[Value]:
    """The operands that are added to the linear ones of an operation, in effect."""
    at = {i for i, v in enumerate(op.operands) if v in linear}
    groups = [g for g in linear_groups(op) if at <= set(g)]
    return [op.operands[i] for i in max(groups, key=len, default=())]


def _is_zero(v: Value) -> bool:
    op = v.op
    if op is None:
        return False
    if op.name == "constant":
        return not np.any(op.attrs["value"])
    if op.name in ("broadcast", "reshape", "transpose", "extract", "copy", "neg", "convert"):
        return _is_zero(op.operands[0])
    if op.name == "update":
        return _is_zero(op.operands[0]) and _is_zero(op.operands[1])
    return op.name in ("sequence", "tape", "empty")
