"""Range analysis: ``Function -> Function`` with conditions on integers decided where their ranges say so.

    for 9, %s { (%k, %u) ->              for 9, %s { (%k, %u) ->
        %i = add %k, 1                       %i = add %k, 1
        %ok = lt %i, 10            ->        ...
        check %ok, ...

One forward walk. Facts come from constants, loop indices, sizes, carried integers that grow by known steps, the
conditions of the ``if`` and ``while`` around, and checks that have been passed; ``intervals`` keeps them, ``transfer``
knows the operations. Decided bools and integers become constants, decided checks go. No loop is taken to run more than
2**58 times, which no machine does in years.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.intervals import Form, Interval, Known, counts, hull, type_range
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, has_effect, open_block, rename
from dflow.ir.passes.transfer import assume, learn
from dflow.ir.types import BOOL, GROWS

TRIPS = 2**58
FOLLOWED = 100  # operations between a carried integer and its next value
MADE = frozenset({"constant", "broadcast"})  # constants already


def ranges(f: Function) -> Function:
    return analyse(f)[0]


def analyse(f: Function) -> tuple[Function, Known]:
    """The function with what is decided put in, and what is known of its values."""
    walker = _Ranges()
    env: dict[Value, Value] = {}
    b = open_block(f.args, env)
    walker.arguments(b.args)
    walker.block(b, f.body, env)
    return Function(f.name, b.finish(rename(f.results, env)), f.linear, f.loc), walker.known


def trip_bounds(block: Block) -> dict[Op, int]:
    """How often each ``for`` of a block runs at most, whenever it is reached. The block uses nothing from around it."""
    walker = _Ranges()
    env: dict[Value, Value] = {}
    b = open_block(block.args, env)
    walker.arguments(b.args)
    walker.block(b, block, env)
    return walker.trips


class _Ranges:
    def __init__(self) -> None:
        self.known = Known()
        self.trips: dict[Op, int] = {}

    def arguments(self, args: Sequence[Value]) -> None:
        for a in args:
            self.known.sizes(a.type.shape)

    def block(self, b: Builder, block: Block, env: Env) -> None:
        for op in block.ops:
            b.loc = op.loc
            if op.regions:
                self._control(b, op, env)
            else:
                self._op(b, op, env)

    def _op(self, b: Builder, op: Op, env: Env) -> None:
        known = self.known
        if op.name in ("check", "select"):
            c = env.get(op.operands[0], op.operands[0])
            lo, hi = known.interval(c)
            if op.name == "check" and lo == 1:
                return
            if op.name == "select" and lo == hi:
                env[op.result] = rename(op.operands, env)[1 if lo else 2]
                return
            copy = append_copy(b, op, env)
            if op.name == "check":
                assume(known, c, True)
        else:
            copy = append_copy(b, op, env)
        learn(known, copy)
        if len(copy.results) == 1 and copy.name not in MADE and not has_effect(copy):
            self._decide(b, op.result, copy.result, env)

    def _decide(self, b: Builder, old: Value, new: Value, env: Env) -> None:
        """Puts a constant in the place of the last operation when its result can only be one number."""
        if not counts(new.type.dtype) or GROWS in new.type.shape:
            return
        lo, hi = self.known.interval(new)
        if lo != hi:
            return
        b.ops.pop()
        start = len(b.ops)
        c = b.full(bool(lo) if new.type.dtype == BOOL else lo, new.type)
        for op in b.ops[start:]:
            learn(self.known, op)
        c.hint = old.hint
        env[old] = c

    # -- regions ---------------------------------------------------------------------------------------------------

    def _control(self, b: Builder, op: Op, env: Env) -> None:
        if op.name == "if":
            self._if(b, op, env)
        elif op.name == "for":
            self._for(b, op, env)
        elif op.name == "while":
            self._while(b, op, env)
        else:
            self._other(b, op, env)

    def _other(self, b: Builder, op: Op, env: Env) -> None:
        """A kernel (or what is not known here): indices lie in the domain."""
        regions = []
        domain = op.attrs.get("domain", ())
        for block in op.regions:
            with self.known.scope():
                inner = open_block(block.args, env)
                self.arguments(inner.args)
                for a, size in zip(inner.args, domain):
                    extent = Form(size) if isinstance(size, int) else self.known.form(env.get(size.value, size.value))
                    self._index(a, extent)
                self.block(inner, block, env)
            regions.append(inner.finish(rename(block.results, env)))
        learn(self.known, append_copy(b, op, env, regions))

    def _index(self, k: Value, count: Form) -> None:
        """0 <= k < count, where the code with ``k`` runs."""
        self.known.define(k, (0, TRIPS))
        self.known.at_most_zero(Form(1, {k: 1}) - count)

    def _if(self, b: Builder, op: Op, env: Env) -> None:
        known, regions, yields = self.known, [], []
        pred = env.get(op.operands[0], op.operands[0])
        for block, truth in zip(op.regions, (True, False)):
            with known.scope():
                assume(known, pred, truth)
                inner = open_block(block.args, env)
                self.block(inner, block, env)
                results = rename(block.results, env)
                yields.append([known.interval(v) if counts(v.type.dtype) else (0, 0) for v in results])
            regions.append(inner.finish(results))
        copy = append_copy(b, op, env, regions)
        for r, x, y in zip(copy.results, *yields):
            known.sizes(r.type.shape)
            if counts(r.type.dtype):
                known.define(r, hull(x, y))

    def _for(self, b: Builder, op: Op, env: Env) -> None:
        known, block = self.known, op.regions[0]
        count, *inits = rename(op.operands, env)
        growth = [self._growth(block.results[i], block.args[i + 1], env) for i in range(len(inits))]
        trips = self.trips[op] = max(0, min(known.interval(count)[1], TRIPS))
        with known.scope():
            inner = open_block(block.args, env)
            k, *carried = inner.args
            # The body runs, so there is a first time.
            known.at_most_zero(-known.form(count) + 1)
            self._index(k, known.form(count))
            if (positive := _positive_part(count)) is not None:
                self._index_below(k, known.form(positive))
            for a, init, g in zip(carried, inits, growth):
                self._carried(a, init, g, max(trips - 1, 0), Form(0, {k: 1}))
            self.arguments(inner.args)
            self.block(inner, block, env)
        copy = append_copy(b, op, env, [inner.finish(rename(block.results, env))])
        steps = known.form(count) if known.interval(count)[0] >= 0 else None
        for r, init, g in zip(copy.results, inits, growth):
            known.sizes(r.type.shape)
            self._carried(r, init, g, trips, steps)

    def _index_below(self, k: Value, count: Form) -> None:
        self.known.at_most_zero(Form(1, {k: 1}) - count)

    def _while(self, b: Builder, op: Op, env: Env) -> None:
        known = self.known
        cond, body = op.regions
        inits = rename(op.operands, env)
        growth = [self._growth(r, a, env) for r, a in zip(body.results, body.args)]
        with known.scope():
            test = open_block(cond.args, env)
            for a, init, g in zip(test.args, inits, growth):
                self._carried(a, init, g, TRIPS, None)
            self.arguments(test.args)
            self.block(test, cond, env)
            cond_block = test.finish(rename(cond.results, env))
            assume(known, cond_block.results[0], True)
            inner = open_block(body.args, env)
            for a, c in zip(inner.args, test.args):
                if counts(a.type.dtype):  # the body is entered with what the condition saw
                    known.define(a, known.interval(c), known.form(c) if not a.type.shape else None)
            self.arguments(inner.args)
            self.block(inner, body, env)
        copy = append_copy(b, op, env, [cond_block, inner.finish(rename(body.results, env))])
        for r, init, g in zip(copy.results, inits, growth):
            known.sizes(r.type.shape)
            self._carried(r, init, g, TRIPS, None)

    # -- carried integers ------------------------------------------------------------------------------------------

    def _carried(self, v: Value, init: Value, growth: Interval | None, trips: int, steps: Form | None) -> None:
        """What is known of ``init`` after up to ``trips`` steps (exactly ``steps``) that each add ``growth``."""
        if not counts(v.type.dtype):
            return
        known, whole = self.known, type_range(v.type.dtype)
        if growth is None or v.type.shape:
            known.define(v, whole)
            return
        (lo, hi), (a, z) = known.interval(init), growth
        lo, hi = lo + min(0, a * trips), hi + max(0, z * trips)
        if lo < whole[0] or whole[1] < hi:
            known.define(v, whole)
        elif a == z and steps is not None:
            known.define(v, (lo, hi), known.form(init) + steps * a)
        else:
            known.define(v, (lo, hi))

    def _growth(self, result: Value, arg: Value, env: Env) -> Interval | None:
        """Between what numbers ``result - arg`` lies, for old values of a body that has not been visited."""
        if arg.type.shape or not arg.type.dtype.is_integer:
            return None
        seen: dict[Value, Interval | None] = {}

        def of(v: Value) -> Interval | None:
            if v not in seen and len(seen) < FOLLOWED:
                seen[v] = None
                seen[v] = (0, 0) if v is arg else self._growth_by(v, of, env)
            return seen.get(v)

        return of(result)

    def _growth_by(self, v: Value, of: Any, env: Env) -> Interval | None:
        op = v.op
        if op is None:
            return None
        if op.name == "add":
            for x, y in (op.operands, op.operands[::-1]):
                step = self._step(y, env)
                if step is not None and (g := of(x)) is not None:
                    return g[0] + step[0], g[1] + step[1]
        elif op.name == "sub":
            step = self._step(op.operands[1], env)
            if step is not None and (g := of(op.operands[0])) is not None:
                return g[0] - step[1], g[1] - step[0]
        elif op.name in ("select", "if"):
            i = op.results.index(v)
            choices = op.operands[1:] if op.name == "select" else [r.results[i] for r in op.regions]
            x, y = (of(c) for c in choices)
            return None if x is None or y is None else hull(x, y)
        elif op.name == "for":
            return self._growth_by_loop(op, op.results.index(v), of, env)
        return None

    def _growth_by_loop(self, op: Op, i: int, of: Any, env: Env) -> Interval | None:
        """Of an inner loop: its trips times its own growth."""
        first = of(op.operands[i + 1])
        if first is None:
            return None
        each = self._growth(op.regions[0].results[i], op.regions[0].args[i + 1], env)
        count = self._step(op.operands[0], env)
        trips = TRIPS if count is None else max(0, min(count[1], TRIPS))
        return None if each is None else (first[0] + min(0, each[0] * trips), first[1] + max(0, each[1] * trips))

    def _step(self, v: Value, env: Env) -> Interval | None:
        """The interval of a constant, or of a value from around the loop."""
        c = constant_of(v)
        if c is not None:
            return int(c), int(c)
        return self.known.interval(env[v]) if v in env and counts(v.type.dtype) else None


def _positive_part(count: Value) -> Value | None:
    """``n`` of ``max(n, c)`` with ``c <= 0``: equal where the loop runs."""
    op = count.op
    if op is None or op.name != "max":
        return None
    for x, y in (op.operands, op.operands[::-1]):
        c = constant_of(y)
        if c is not None and c <= 0:
            return x
    return None
