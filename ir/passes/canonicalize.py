"""Canonicalization: ``Function -> Function`` with constants folded, identities applied and decided control flow gone.

    %z = sub %x, 0.0                    return (mul %x, %x)
    %y = pow %z, 2.0             ->
    if true { yield %y } ...

One forward walk: each operation is offered, with its new operands, to the rules of ``folding``, ``algebra`` and
``structure`` (see ``simplifier``). Control flow is decided here. What becomes unused is left to ``dce``.
"""

from __future__ import annotations

import cmath
from collections import Counter
from collections.abc import Sequence

from dflow.ir.core import Block, Function, Op, Value, substitute, walk
from dflow.ir.passes.algebra import ALGEBRA, exact
from dflow.ir.passes.folding import EVERY
from dflow.ir.passes.products import PRODUCTS
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, has_sizes, open_block, overwritten, rename
from dflow.ir.passes.simplifier import Facts, Simplifier
from dflow.ir.passes.structure import STRUCTURE
from dflow.ir.registry import OPS

RULES = {**ALGEBRA, **STRUCTURE, **PRODUCTS}
# The most operations of an `if` that are computed whether it is taken or not.
SPECULATED = 8


def canonicalize(f: Function) -> Function:
    walker = _Canonicalizer(f)
    env: dict[Value, Value] = {}
    b = Simplifier(RULES, EVERY, walker.facts)
    open_block(f.args, env, lambda: b)
    walker.note(f.args, b.args)
    walker.block(b, f.body, env)
    return Function(f.name, b.finish(rename(f.results, env)), f.linear, f.loc)


class _Canonicalizer:
    def __init__(self, f: Function) -> None:
        self.overwritten = overwritten(f)
        uses = Counter(v for op in walk(f.body) for v in op.operands)
        # What a branch yields stands for the result where the branch is decided, and has the uses of that.
        yielded = {v for op in walk(f.body) for r in op.regions for v in r.results}
        self.single = {v for v, n in uses.items() if n == 1 and v.type.shape} - yielded - {*f.results}
        self.facts = Facts()

    def note(self, old: Sequence[Value], new: Sequence[Value]) -> None:
        """The new values stand for the old ones; what is known of these holds for them."""
        for v, w in zip(old, new):
            if v in self.overwritten:
                self.facts.overwritten.add(w)
            if v in self.single and w.op is not None and w.op.name == "update":
                self.facts.single.add(w)

    def block(self, b: Simplifier, block: Block, env: Env) -> None:
        for op in block.ops:
            b.loc = op.loc
            found = self._op(b, op, env)
            if found is None:
                append_copy(b, op, env)
            else:
                for r, v in zip(op.results, found):
                    env[r] = v
                    v.hint = v.hint or r.hint
            self.note(op.results, rename(op.results, env))

    def _op(self, b: Simplifier, op: Op, env: Env) -> Sequence[Value] | None:
        """Equal values for the results, or None when the operation is to be copied."""
        if op.name in _CONTROL:
            return _CONTROL[op.name](self, b, op, env)
        if op.regions:
            append_copy(b, op, env, [self._region(b, r, env) for r in op.regions])
            return rename(op.results, env)
        operands = rename(op.operands, env)
        if op.name == "check":
            return () if constant_of(operands[0]) is True else None
        if len(op.results) != 1 or (op.name not in RULES and not op.operands):
            return None
        attrs = {k: substitute(a, env) if has_sizes(a) else a for k, a in op.attrs.items()}
        found = b.simplify(op.name, operands, attrs)
        return None if found is None or found.type != substitute(op.result.type, env) else [found]

    def _region(self, b: Simplifier, block: Block, env: Env) -> Block:
        inner = b.inner()
        open_block(block.args, env, lambda: inner)
        self.note(block.args, inner.args)
        self.block(inner, block, env)
        return inner.finish(rename(block.results, env))

    def _inlined(self, b: Simplifier, block: Block, args: Sequence[Value], env: Env) -> list[Value]:
        env.update(zip(block.args, args))
        self.note(block.args, args)
        self.block(b, block, env)
        return rename(block.results, env)

    # -- control flow ----------------------------------------------------------------------------------------------

    def _if(self, b: Simplifier, op: Op, env: Env) -> Sequence[Value]:
        pred = env.get(op.operands[0], op.operands[0])
        taken = constant_of(pred)
        if taken is not None:
            return self._inlined(b, op.regions[0 if taken else 1], (), env)
        regions = [self._region(b, r, env) for r in op.regions]
        choices = list(zip(*(r.results for r in regions)))
        if op.results and all(_is_light(r) for r in regions) and not any(x.type.shape for x, _ in choices):
            for r in regions:
                b.ops.extend(r.ops)
            b.loc = op.loc
            return [b.select(pred, x, y) for x, y in choices]
        append_copy(b, op, env, regions)
        return rename(op.results, env)

    def _for(self, b: Simplifier, op: Op, env: Env) -> Sequence[Value]:
        count, *inits = rename(op.operands, env)
        trips = constant_of(count)
        if trips is not None and trips <= 0:
            return inits
        if trips == 1:
            return self._inlined(b, op.regions[0], [b.index(0), *inits], env)
        append_copy(b, op, env, [self._region(b, op.regions[0], env)])
        return rename(op.results, env)

    def _while(self, b: Simplifier, op: Op, env: Env) -> Sequence[Value]:
        regions = [self._region(b, r, env) for r in op.regions]
        if constant_of(regions[0].results[0]) is False:
            return rename(op.operands, env)
        append_copy(b, op, env, regions)
        return rename(op.results, env)


_CONTROL = {"if": _Canonicalizer._if, "for": _Canonicalizer._for, "while": _Canonicalizer._while}


def _is_light(block: Block) -> bool:
    """Whether a region may as well be computed when it is not taken: little work, and no harm to derivatives."""
    return len(block.ops) <= SPECULATED and all(_is_harmless(op) for op in block.ops)


def _is_harmless(op: Op) -> bool:
    """A cheap scalar operation with finite partial derivatives at every point.

    The choice of a ``select`` that is not taken hands back a zero cotangent, which times an infinite partial derivative
    (of ``x * y`` for infinite ``y``, of ``abs`` at NaN) would be NaN.
    """
    if op.name == "constant":
        return not op.result.type.shape
    if not OPS[op.name].elementwise or not OPS[op.name].cheap or any(v.type.shape for v in op.operands):
        return False
    if not op.result.type.dtype.is_inexact or all(exact(v) for v in op.operands):
        return True
    if op.name == "mul":
        return any(cmath.isfinite(constant_of(v) or 0) for v in op.operands if v.op and v.op.name == "constant")
    return op.name in ("add", "sub", "neg", "max", "min", "select", "convert")
