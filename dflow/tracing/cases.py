"""Spells out ``match`` as ``if``, so that a traced value may decide which case it is.

    match x:                     if x == 1 or x == 2: f()
        case 1 | 2: f()    ->    else:
        case y if p: g()             y = x
                                     if p: g()

Whether a sequence, a mapping or an object has a structure is known while tracing: that stays a ``match``, which leaves
in a variable whether the case is this one.
"""

from __future__ import annotations

import ast
from typing import Any

from dflow.tracing.jumps import assign, load, located
from dflow.tracing.names import nodes_of

Statements = list[ast.stmt]


class Cases:
    """Rewrites the body of one function."""

    def __init__(self) -> None:
        self.count = 0

    def block(self, body: Statements) -> Statements:
        return [new for s in body for new in self.statement(s)]

    def statement(self, s: Any) -> Statements:
        if not any(isinstance(n, ast.Match) for n in nodes_of(s)):
            return [s]
        if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return [s]
        if isinstance(s, ast.Match):
            self.count += 1
            name = f"_dflow_subject_{self.count}"
            return [assign(name, s.subject, s.subject), *self.chain(s.cases, name)]
        new = located(type(s)(**dict(ast.iter_fields(s))), s)
        for part in ("body", "orelse", "finalbody"):
            if isinstance(getattr(s, part, None), list):
                setattr(new, part, self.block(getattr(s, part)))
        if isinstance(s, ast.Try):
            new.handlers = [located(ast.ExceptHandler(h.type, h.name, self.block(h.body)), h) for h in s.handlers]
        return [new]

    def chain(self, cases: list[ast.match_case], subject: str) -> Statements:
        if not cases:
            return []
        case, *rest = cases
        body = self.block(case.body)
        pattern: Any = case.pattern
        guard = case.guard
        if _is_capture(pattern):
            start = [assign(pattern.name, load(subject), pattern)] if pattern.name else []
            if guard is None:
                return [*start, *body]
            return [*start, located(ast.If(guard, body, self.chain(rest, subject)), guard)]
        start, test, name = [], _test(pattern, subject), None
        if test is None and isinstance(pattern, ast.MatchAs) and guard is None:
            test, name = _test(pattern.pattern, subject), pattern.name
        if test is None:
            start, test = self.structure(pattern, subject)
        elif name:
            body = [assign(name, load(subject), pattern), *body]
        if guard is not None:
            test = located(ast.BoolOp(ast.And(), [test, guard]), pattern)
        return [*start, located(ast.If(test, body, self.chain(rest, subject)), pattern)]

    def structure(self, pattern: ast.pattern, subject: str) -> tuple[Statements, ast.expr]:
        """A ``match`` for the structure alone, and whether it was that."""
        self.count += 1
        found = f"_dflow_case_{self.count}"
        case = ast.match_case(pattern, None, [assign(found, ast.Constant(True), pattern)])
        match = located(ast.Match(load(subject), [case]), pattern)
        return [assign(found, ast.Constant(False), pattern), match], located(load(found), pattern)


def _is_capture(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and pattern.pattern is None


def _test(pattern: Any, subject: str) -> ast.expr | None:
    """The condition of a pattern of values alone; None for others."""
    if isinstance(pattern, ast.MatchValue):
        return located(ast.Compare(load(subject), [ast.Eq()], [pattern.value]), pattern)
    if isinstance(pattern, ast.MatchSingleton):
        return located(ast.Compare(load(subject), [ast.Is()], [ast.Constant(pattern.value)]), pattern)
    if isinstance(pattern, ast.MatchOr):
        tests = [t for p in pattern.patterns if (t := _test(p, subject)) is not None]
        if len(tests) == len(pattern.patterns):
            return located(ast.BoolOp(ast.Or(), tests), pattern)
    return None
