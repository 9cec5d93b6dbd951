"""Derivative rules that a program brings along: what is done in place of differentiating a function of it.

A rule is an object that the operation names, ``custom %x {rule = @swish, linear = 0} {...}``. It makes the code of the
derivative when a pass asks for it, so a rule may use the very function that it belongs to. Text keeps the name alone:
a parsed program finds the rule as long as somebody in the process holds it, and runs without.

Three rules stand here, for they need nothing but the IR: ``stop_gradient``, ``checkpoint`` and names of values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, free_values
from dflow.ir.registry import NoDerivativeError

if TYPE_CHECKING:
    from dflow.ir.registry import Linear

RULED = ("custom", "reverse_only")  # the operations that name a rule
Tangents = Sequence["Value | None"]


class Rule:
    """The derivative of one ``custom`` operation. Subclasses give ``jvp``, and ``transpose`` where it is linear."""

    recomputes = False  # whether the operation stands for its region, to be computed apart from what is around it
    constant = False  # whether its results count as constants where a derivative is taken

    def __init__(self, name: str):
        self.name = name
        _rules[name] = self

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        """Appends results and tangents of ``op``, given those of its operands (None for zero)."""
        raise NoDerivativeError(f"the derivative rule @{self.name} is not known in this process", op.loc)

    def transpose(self, b: Builder, op: Op, known: Sequence[Value | Linear], bars: Tangents) -> Tangents:
        """Appends the cotangents of the operands of ``op``, a linear operation, given those of its results.

        ``known`` are the operands, with a ``Linear`` in place of those that are linear.
        """
        raise NoDerivativeError(f"the derivative rule @{self.name} has no transpose", op.loc)

    def __repr__(self) -> str:
        return f"@{self.name}"


_rules: WeakValueDictionary[str, Rule] = WeakValueDictionary()


def find_rule(name: str) -> Rule:
    """The rule of this name; one that refuses to differentiate where there is none."""
    return _rules.get(name) or Rule(name)


def unused_name(name: str) -> str:
    """``name``, or with a number behind it when a rule has that name."""
    return next(n for k in itertools.count() if (n := f"{name}.{k}" if k else name) not in _rules)


def apply(
    b: Builder, rule: Rule, operands: Sequence[Value], region: Block, linear: int = 0, hints: Sequence[str | None] = ()
) -> tuple[Value, ...]:
    """Appends a ``custom`` operation, linear in its last ``linear`` operands."""
    return b.append("custom", operands, {"rule": rule, "linear": linear}, [region], hints)


def as_its_region(op: Op) -> bool:
    """Whether a ``custom`` operation is linear in what its region is linear in, for its rule says nothing of that."""
    rule = op.attrs["rule"]
    return rule.recomputes or not (op.attrs["linear"] or rule.constant)


class _StopGradient(Rule):
    """The value without a tangent, of any order."""

    constant = True

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        return apply(b, self, op.operands, op.regions[0]), [None] * len(op.results)


class Named(Rule):
    """The value itself, under a name by which a checkpoint may keep it."""

    def __init__(self, label: str):
        super().__init__(unused_name(f"named_{label}"))
        self.label = label

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        return apply(b, self, op.operands, op.regions[0]), dots


class Checkpoint(Rule):
    """The derivative of the region, of which nothing is kept but the operands, and values of the region's that
    ``keeps`` chooses: what else it needs is computed again.

    The tangent is an operation of the same kind that holds the region and its derivative. So the linear part has the
    operands, and what is kept, as residuals, and its transpose runs the rest of the region again.
    """

    recomputes = True

    def __init__(self, name: str, keeps: Callable[[Block], Sequence[Value]] | None = None):
        super().__init__(unused_name(name))
        self.keeps = keeps

    def kept(self, region: Block) -> list[Value]:
        """Values of fixed shapes that operations directly in the region make."""
        if self.keeps is None:
            return []
        made = {r for o in region.ops for r in o.results if o.name != "constant"}
        return [
            v for v in dict.fromkeys(self.keeps(region)) if v in made and all(isinstance(d, int) for d in v.type.shape)
        ]

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        from dflow.ir.passes.dce import dce
        from dflow.ir.passes.jvp import differentiable, jvp

        wrt = [i for i, d in enumerate(dots) if d is not None]
        moving = differentiable(op.results)
        (region,) = op.regions
        kept, n, m = self.kept(region), len(op.results), len(op.operands) + len(wrt)
        f = jvp(Function(self.name, Block(region.args, region.ops, [*region.results, *kept])), wrt)
        shares, dots_of = f.results[n : n + len(kept)], f.results[n + len(kept) :][: len(moving)]
        rest = dce(Function(f.name, _given(Block(f.args, f.body.ops, dots_of), shares)), quiet=True).body
        used = free_values(Block(rest.args[:m], rest.ops, rest.results))
        needed = [(v, a) for v, a in zip(kept, rest.args[m:]) if a in used]
        made = Block(region.args, region.ops, [*region.results, *(v for v, _ in needed)])
        values = apply(b, self, op.operands, made)
        given = [d for d in dots if d is not None]
        rest = Block([*rest.args[:m], *(a for _, a in needed)], rest.ops, rest.results)
        outs = iter(apply(b, self, [*op.operands, *given, *values[n:]], rest))
        return values[:n], [next(outs) if i in moving else None for i in range(n)]

    def transpose(self, b: Builder, op: Op, known: Sequence[Value | Linear], bars: Tangents) -> Tangents:
        from dflow.ir.passes.linearize import split
        from dflow.ir.passes.transpose import transpose_block

        region = op.regions[0]
        dots = [a for a, v in zip(region.args, known) if not isinstance(v, Value)]
        parts = split(region, dots, 0)
        values = [v for v in known if isinstance(v, Value)]
        given = [v for v in bars if v is not None]
        env: dict[Value, Value] = {}
        inner = Builder.like([*parts.b.args, *given], env, b.loc)
        inner.inline(parts.b.finish([]), inner.args[: len(values)], env)
        seeds = iter(inner.args[len(values) :])
        outs = transpose_block(
            inner, parts.linear, parts.linear.args, [None if d is None else next(seeds) for d in bars], env
        )
        results = iter(apply(b, self, [*values, *given], inner.finish(outs)))
        return [None if isinstance(v, Value) else next(results) for v in known]


def _given(block: Block, known: Sequence[Value]) -> Block:
    """``block``, which takes further arguments in place of computing what is ``known``."""
    env: dict[Value, Value] = {}
    b = Builder.like([*block.args, *known], env)
    for op in block.ops:
        if not all(r in known for r in op.results) or not op.results:
            b.clone(op, env)
    return b.finish([env[r] for r in block.results])


STOP_GRADIENT: Rule = _StopGradient("stop_gradient")
CHECKPOINT: Rule = Checkpoint("checkpoint")
