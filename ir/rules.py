"""Derivative rules that a program brings along: what is done in place of differentiating a function of it.

A rule is an object that the operation names, ``custom %x {rule = @swish, linear = 0} {...}``. It makes the code of the
derivative when a pass asks for it, so a rule may use the very function that it belongs to. Text keeps the name alone:
a parsed program finds the rule as long as somebody in the process holds it, and runs without.

Two rules stand here, for they need nothing but the IR: ``stop_gradient`` and ``checkpoint``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
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


class _Checkpoint(Rule):
    """The derivative of the region, of which nothing is kept but the operands: what else it needs is computed again.

    The tangent is an operation of the same kind that holds the region and its derivative. So the linear part has the
    operands as residuals, and its transpose runs the region again.
    """

    recomputes = True

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        from dflow.ir.passes.dce import dce
        from dflow.ir.passes.jvp import differentiable, jvp

        wrt = [i for i, d in enumerate(dots) if d is not None]
        moving = differentiable(op.results)
        f = jvp(Function(self.name, op.regions[0]), wrt)
        n = len(op.results)
        tangent = dce(Function(f.name, Block(f.args, f.body.ops, f.results[n:])), quiet=True)
        ys = apply(b, self, op.operands, op.regions[0])
        given = [d for d in dots if d is not None]
        outs = iter(apply(b, self, [*op.operands, *given], tangent.body))
        return ys, [next(outs) if i in moving else None for i in range(n)]

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


STOP_GRADIENT: Rule = _StopGradient("stop_gradient")
CHECKPOINT: Rule = _Checkpoint("checkpoint")
