"""Inlining: ``Module -> Function`` with the callee's body in place of every ``call``, through all levels.

    @f(%x) { %y = call %x {callee = "g"}; return %y }           @f(%x) { %y = sin %x; return %y }
    @g(%x) { %y = sin %x; return %y }                    ->

Locations say where they were called from. Each function is expanded once, and the cost is that of what is written.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Location, Module, Op
from dflow.ir.passes.rewrite import Env, append_copy, open_block, rebuild, rename


def inline_calls(module: Module, name: str | None = None) -> Function:
    """The function ``name`` (or the entry) without calls. Raises ValueError for recursion and unknown callees."""
    return _Inliner(module).expand(module.entry.name if name is None else name, ())


class _Inliner:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.done: dict[str, Function] = {}

    def expand(self, name: str, callers: tuple[str, ...]) -> Function:
        if name in callers:
            circle = " -> ".join((*callers[callers.index(name) :], name))
            raise ValueError(f"function {name!r} calls itself ({circle}); recursion is not supported, write a loop")
        if name not in self.module.functions:
            raise ValueError(f"there is no function {name!r}; there are {', '.join(self.module.functions)}")
        if name not in self.done:

            def fill(b: Builder, block: Block, env: Env) -> None:
                self._fill(b, block, env, (*callers, name))

            self.done[name] = rebuild(self.module.functions[name], fill)
        return self.done[name]

    def _fill(self, b: Builder, block: Block, env: Env, callers: tuple[str, ...]) -> None:
        for op in block.ops:
            if op.name == "call":
                self._call(b, op, env, callers)
            else:
                append_copy(b, op, env, [self._region(r, env, callers) for r in op.regions])

    def _region(self, block: Block, env: Env, callers: tuple[str, ...]) -> Block:
        b = open_block(block.args, env)
        self._fill(b, block, env, callers)
        return b.finish(rename(block.results, env))

    def _call(self, b: Builder, op: Op, env: Env, callers: tuple[str, ...]) -> None:
        body = self.expand(op.attrs["callee"], callers).body
        start = len(b.ops)
        inner = dict(zip(body.args, rename(op.operands, env)))
        self._fill(b, body, inner, callers)
        for old, new in zip(op.results, rename(body.results, inner)):
            env[old] = new
            if new.op is not None:
                new.hint = new.hint or old.hint
        called = cache(lambda loc: called_from(loc, op.loc))
        _relocate(b.ops[start:], called)


def called_from(loc: Location | None, call: Location | None) -> Location | None:
    """``loc`` with ``call`` as its outermost caller."""
    if loc is None or call is None:
        return loc or call
    return replace(loc, caller=called_from(loc.caller, call))


def _relocate(ops: list[Op], called: Any) -> None:
    """Sets the locations of operations that have just been made."""
    for op in ops:
        op.loc = called(op.loc)
        for r in op.regions:
            _relocate(r.ops, called)
