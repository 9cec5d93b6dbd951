"""Spells out conditions that bind names.

    if a and (y := f()): ...    ->    if a:
                                          if y := f(): ...

An operand of ``and`` and ``or`` that may not be evaluated becomes a function of its own later (``Expressions``), in
which a binding would be lost. Where the nested form would repeat statements, a variable tells whether the condition
holds. A loop's condition that binds a name is part of its body: ``while True: if c: pass; else: break``.
"""

from __future__ import annotations

import ast
from typing import Any

from dflow.tracing.source.jumps import assign, load, located
from dflow.tracing.source.names import nodes_of

Statements = list[ast.stmt]


class Bindings:
    """Rewrites the body of one function."""

    def __init__(self) -> None:
        self.count = 0

    def block(self, body: Statements) -> Statements:
        if not any(map(_binds, body)):
            return body
        return [new for s in body for new in self.statement(s)]

    def statement(self, s: Any) -> Statements:
        if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return [s]
        new = located(type(s)(**dict(ast.iter_fields(s))), s)
        for part in ("body", "orelse", "finalbody"):
            if isinstance(getattr(s, part, None), list):
                setattr(new, part, self.block(getattr(s, part)))
        if isinstance(s, ast.While) and not s.orelse and _binds(s.test):
            leave = self.branch(s.test, [ast.Pass()], [ast.Break()])
            return [located(ast.While(ast.Constant(True), [*leave, *new.body], []), s)]
        if isinstance(s, ast.If) and _binds(s.test):
            return self.branch(s.test, new.body, new.orelse)
        return [new]

    def branch(self, test: ast.expr, then: Statements, orelse: Statements) -> Statements:
        """``if test: then; else: orelse``."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return self.branch(test.operand, orelse, then)
        if isinstance(test, ast.BoolOp) and _binds(test):
            first, *rest = test.values
            more = located(ast.BoolOp(test.op, rest), test) if len(rest) > 1 else rest[0]
            if isinstance(test.op, ast.And) and _is_short(orelse):
                return self.branch(first, self.branch(more, then, orelse), orelse)
            if isinstance(test.op, ast.Or) and _is_short(then):
                return self.branch(first, then, self.branch(more, then, orelse))
            self.count += 1
            name = f"_dflow_test_{self.count}"
            return [*self.condition(test, name), *self.branch(load(name), then, orelse)]
        return [located(ast.If(test, then or [ast.Pass()], orelse), test)]

    def condition(self, test: ast.expr, name: str) -> Statements:
        """Statements that leave in ``name`` whether ``test`` holds."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return [*self.condition(test.operand, name), assign(name, _not(load(name)), test)]
        if not isinstance(test, ast.BoolOp):
            return [assign(name, _not(_not(test)), test)]
        first, *rest = test.values
        out = self.condition(first, name)
        goes_on = load(name) if isinstance(test.op, ast.And) else _not(load(name))
        if rest:
            inner = located(ast.BoolOp(test.op, rest), test) if len(rest) > 1 else rest[0]
            out.append(located(ast.If(goes_on, self.condition(inner, name), []), test))
        return out


def _is_short(body: Statements) -> bool:
    """Whether a block may stand in two places."""
    return not body or (len(body) == 1 and isinstance(body[0], ast.Pass | ast.Break | ast.Continue))


def _not(x: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), x)


def _binds(node: ast.AST) -> bool:
    return any(isinstance(n, ast.NamedExpr) for n in nodes_of(node))
