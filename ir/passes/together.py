"""Reverse mode round by round: a loop whose linear results are sums runs once, forwards, and each round is followed by
its own transpose.

    %total = for %n, %zero { (%k, %s) ->                  %total, %x_bar = for %n, %zero, %zeros { (%k, %s, %a) ->
        ...; yield add %s, %f }                               ...
    %x_bar = for %n, %zeros { (%j, %a) ->         ->          (the transpose of round %k)
        (the transpose of round %n - 1 - %j) }                yield (add %s, %f), (add %a, %b) }

What is only added to has one cotangent for all rounds, so the transpose of a round waits for no other. The tapes are
those of one round, and it reads what the nonlinear part has left as it is. That cotangent must be known before the
loop: it is not where it depends on the total, as in ``sqrt(total)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Op, Value, free_values, substitute, walk
from dflow.ir.passes.dependence import dependents
from dflow.ir.passes.linearize import LinearParts, Rounds
from dflow.ir.passes.rewrite import has_effect
from dflow.ir.passes.sums import Sum
from dflow.ir.passes.transpose import Transpose, bar


def transpose_together(
    b: Builder, parts: LinearParts, bars: Sequence[Value | None], env: dict[Value, Value]
) -> list[Value]:
    """Appends the transpose of the linear part to ``b``, where the nonlinear part stands already, with names in
    ``env``; returns the cotangents of the arguments. ``bars`` are those of the results."""
    dots = parts.linear.args
    return _Together(dependents(parts.linear, dots), env, parts.rounds).block(b, parts.linear, dots, bars)


class _Together(Transpose):
    def __init__(self, linear: set[Value], env: dict[Value, Value], rounds: Mapping[Op, Rounds]):
        super().__init__(linear, env)
        self.rounds = rounds

    def for_(self, b: Builder, op: Op) -> None:
        if op not in self.rounds or not self.join(b, op, self.rounds[op]):
            super().for_(b, op)

    def join(self, b: Builder, linear: Op, rounds: Rounds) -> bool:
        """Appends the transpose of the rounds of the loop ``linear`` to those of its nonlinear loop, if that can be.
        That loop moves to the end of ``b``, and behind it what depends on it."""
        body = rounds.body
        loop = next((self.env[r].op for r in rounds.nonlinear.results if r in self.env), None)
        sums = all(Sum(a).reaches(body, r) for a, r in zip(body.args, body.results))
        if loop is None or loop not in b.ops or not sums or not any(op.name == "for" for op in body.ops):
            return False
        after = b.ops[b.ops.index(loop) + 1 :]
        behind, late = _behind(after, loop)
        bars = [self.bars.get(r) for r in linear.results]
        masks = [self.masks.get(v) for v in bars if v is not None]
        if not late.isdisjoint((*bars, *masks, *map(self.get, free_values(body)))):
            return False
        if any(has_effect(op) for op in walk(Block((), after))):
            return False
        for r in linear.results:
            self.bars.pop(r, None)
        gone = {loop, *behind}
        b.ops = [op for op in b.ops if op not in gone]
        self.linear |= dependents(body, [*body.args, *(v for v in free_values(body) if v in self.linear)])
        used = self.around(body)
        before = [self.bars.get(v) for v in used]
        starts = [b.zeros(substitute(v.type, self.env)) if x is None or x in late else x for v, x in zip(used, before)]
        totals = self.rounds_of(b, loop, body, bars, dict(zip(used, starts)))
        b.ops += behind
        for v, x, total in zip(used, before, totals):
            self.bars[v] = b.add(total, x) if x is not None and x in late else total
        for init, y_bar in zip(linear.operands[1:], bars):
            self.add(b, init, y_bar)
        return True

    def rounds_of(
        self, b: Builder, loop: Op, body: Block, bars: Sequence[Value | None], starts: Mapping[Value, Value]
    ) -> list[Value]:
        """Appends ``loop`` with the transpose of ``body`` in each round. ``starts`` are the cotangents, before, of what
        that uses; returns those after."""
        (region,) = loop.regions
        inner = Builder(loc=loop.loc)
        totals = {v: Value(x.type, bar(v.hint)) for v, x in starts.items()}
        inner.args, inner.ops = (*region.args, *totals.values()), list(region.ops)
        outside, self.bars = self.bars, dict(totals)
        self.nonlinear(inner, body.ops)
        for y, y_bar in zip(body.results, bars):
            self.add(inner, y, y_bar)
        self.linear_ops(inner, body.ops)
        both = inner.finish([*region.results, *(self.bar_or_zero(inner, v) for v in starts)])
        self.bars = outside
        results = [Value(x.type, bar(v.hint)) for v, x in starts.items()]
        b.ops.append(
            Op("for", (*loop.operands, *starts.values()), (*loop.results, *results), loop.attrs, [both], loop.loc)
        )
        return results


def _behind(ops: Sequence[Op], loop: Op) -> tuple[list[Op], set[Value | None]]:
    """Those of the operations that depend on ``loop``, and the values that do."""
    found, late = list[Op](), set[Value | None](loop.results)
    for op in ops:
        if not late.isdisjoint((*op.uses(), *free_values(*op.regions))):
            found.append(op)
            late.update(op.results)
    return found, late
