"""Dead code elimination: ``Function -> Function`` without what no result and no effect needs.

    %a = sin %x                              %s = for %n, %x { (%k, %u) -> mul %u, %u }
    %s, %t = for %n, %x, %y {         ->     return %s
        (%k, %u, %w) -> (mul %u, %u), %w
    }
    return %s

Liveness runs from results and effects back through operands, sizes and region results, each value once. A loop carries
a value only if something outside of its own circle needs it. A carry that every iteration hands on unchanged is its
initial value; loops over nothing are their initial values. A ``while`` is taken to end.
"""

from __future__ import annotations

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.ops.printing import WRITING
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, has_effect, open_block, rebuild, rename

# Control operations of which single results can be dropped. Of others (kernels) all results stay or none.
SHOWING = WRITING | {"breakpoint"}
_SPLIT = ("if", "for", "while")


def dce(f: Function, quiet: bool = False) -> Function:
    """``quiet`` also drops what only writes texts, from a program that computes once more what has been computed."""
    alias = _Aliases()
    alias.block(f.body)
    live = _Liveness(alias, SHOWING if quiet else frozenset())
    live.roots(f.body)
    for r in f.results:
        live.need(r)
    live.run()
    if not alias.to and all(op in live.ops and not op.regions for op in f.body.ops):
        return f
    sweep = _Sweep(alias, live)
    return rebuild(f, sweep.fill)


class _Aliases:
    """Results and block arguments that are always equal to another value; loops that never run."""

    def __init__(self) -> None:
        self.to: dict[Value, Value] = {}
        self.idle: set[Op] = set()

    def __call__(self, v: Value) -> Value:
        seen = []
        while (w := self.to.get(v)) is not None:
            seen.append(v)
            v = w
        for u in seen[:-1]:
            self.to[u] = v
        return v

    def block(self, block: Block) -> None:
        for op in block.ops:
            if op.name == "for" and constant_of(self(op.operands[0])) == 0:
                self.idle.add(op)
                self.to.update(zip(op.results, op.operands[1:]))
                continue
            for r in op.regions:
                self.block(r)
            if op.name == "if":
                self._choice(op)
            elif op.name in ("for", "while"):
                self._carries(op)

    def _choice(self, op: Op) -> None:
        for r, x, y in zip(op.results, *(b.results for b in op.regions)):
            if self(x) is self(y):
                self.to[r] = x

    def _carries(self, op: Op) -> None:
        for i, init in enumerate(carried_inits(op)):
            *others, arg = carried_args(op, i)
            if self(op.regions[-1].results[i]) is arg:
                for v in (*others, arg, op.results[i]):
                    self.to[v] = init


def carried_inits(op: Op) -> tuple[Value, ...]:
    return op.operands[1:] if op.name == "for" else op.operands


def carried_args(op: Op, i: int) -> list[Value]:
    """The block arguments of carry ``i``, that of the body last."""
    return [op.regions[0].args[i + 1]] if op.name == "for" else [r.args[i] for r in op.regions]


class _Liveness:
    def __init__(self, alias: _Aliases, dropped: frozenset[str]) -> None:
        self.alias = alias
        self.dropped = dropped
        self.values: set[Value] = set()
        self.ops: set[Op] = set()
        self.todo: list[Value] = []
        self.place: dict[Value, tuple[Op, int]] = {}  # results and block arguments of control operations

    def roots(self, block: Block) -> bool:
        """Keeps operations with effects and those around them; notes whose part a value is. True: has effects."""
        effects = False
        for op in block.ops:
            if op in self.alias.idle:
                continue
            effect = has_effect(op) and op.name not in self.dropped
            if op.regions:
                self._note(op)
                effect |= any([self.roots(r) for r in op.regions])
            if effect:
                self.keep(op)
                effects = True
        return effects

    def _note(self, op: Op) -> None:
        if op.name in _SPLIT:
            self.place.update((r, (op, i)) for i, r in enumerate(op.results))
        if op.name in ("for", "while"):
            for i in range(len(op.results)):
                self.place.update((a, (op, i)) for a in carried_args(op, i))

    def need(self, v: Value) -> None:
        v = self.alias(v)
        if v not in self.values:
            self.values.add(v)
            self.todo.append(v)

    def run(self) -> None:
        while self.todo:
            v = self.todo.pop()
            for s in v.type.size_values:
                self.need(s)
            if v in self.place:
                self._part(*self.place[v])
            elif v.op is not None:
                self.keep(v.op)

    def _part(self, op: Op, i: int) -> None:
        """Result or carry ``i`` of a control operation is needed."""
        self.keep(op)
        self.need(op.results[i])
        if op.name == "if":
            for r in op.regions:
                self.need(r.results[i])
        else:
            self.need(carried_inits(op)[i])
            self.need(op.regions[-1].results[i])

    def keep(self, op: Op) -> None:
        """The operation is needed, whatever its results."""
        if op in self.ops:
            return
        self.ops.add(op)
        if op.name not in _SPLIT:
            for v in (*op.uses(), *(v for r in op.regions for v in r.results)):
                self.need(v)
        elif op.name == "while":
            self.need(op.regions[0].results[0])
        else:
            self.need(op.operands[0])


class _Sweep:
    """Rebuilds what is live."""

    def __init__(self, alias: _Aliases, live: _Liveness) -> None:
        self.alias, self.live = alias, live

    def fill(self, b: Builder, block: Block, env: Env) -> None:
        for op in block.ops:
            for r in op.results:
                self._rename(r, env)
            if op in self.live.ops:
                self._op(b, op, env)

    def _rename(self, v: Value, env: Env) -> None:
        w = self.alias(v)
        if w is not v:
            env[v] = env.get(w, w)

    def _op(self, b: Builder, op: Op, env: Env) -> None:
        if op.name not in _SPLIT:
            append_copy(b, op, env, [self._region(r, env) for r in op.regions])
            return
        kept = [i for i, r in enumerate(op.results) if self._is_kept(op, i)]
        results = [op.results[i] for i in kept]
        if op.name == "if":
            regions = [self._region(r, env, results=kept) for r in op.regions]
            append_copy(b, op, env, regions, results=results)
            return
        inits = carried_inits(op)
        operands = [*op.operands[: len(op.operands) - len(inits)], *(inits[i] for i in kept)]
        args = [0, *(i + 1 for i in kept)] if op.name == "for" else kept
        last = len(op.regions) - 1
        regions = [
            self._region(r, env, args=args, results=kept if n == last else None) for n, r in enumerate(op.regions)
        ]
        append_copy(b, op, env, regions, operands=operands, results=results)

    def _is_kept(self, op: Op, i: int) -> bool:
        parts = [op.results[i]] if op.name == "if" else [op.results[i], *carried_args(op, i)]
        return self.alias(op.results[i]) is op.results[i] and any(p in self.live.values for p in parts)

    def _region(self, block: Block, env: Env, args: list[int] | None = None, results: list[int] | None = None) -> Block:
        for a in block.args:
            self._rename(a, env)
        kept = block.args if args is None else [block.args[i] for i in args]
        b = open_block(kept, env)
        self.fill(b, block, env)
        yields = block.results if results is None else [block.results[i] for i in results]
        return b.finish(rename(yields, env))
