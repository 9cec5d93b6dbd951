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
import itertools
from typing import Any

from dflow.tracing.source.jumps import assign, load, located
from dflow.tracing.source.names import nodes_of

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
        first, *others = _ways(pattern)
        out: Statements = [assign(found, ast.Constant(False), pattern), *_matching(first, subject, found)]
        for way in others:
            missed = ast.UnaryOp(ast.Not(), load(found))
            out.append(located(ast.If(missed, _matching(way, subject, found), []), pattern))
        return out, located(load(found), pattern)


def _matching(pattern: ast.pattern, subject: str, found: str) -> Statements:
    """Matches the structure, leaves in ``found`` whether it was that, and binds the names if it was."""
    classes = _Classes(found)
    opened = classes.visit(pattern) if _has_classes(pattern) else pattern
    holds: ast.expr = ast.BoolOp(ast.And(), [ast.Constant(True), *classes.tests])
    case = ast.match_case(opened, None, [assign(found, holds if classes.tests else ast.Constant(True), pattern)])
    out: Statements = [located(ast.Match(load(subject), [case]), pattern)]
    if classes.names:
        named = [assign(name, load(at), pattern) for name, at in classes.names]
        out.append(located(ast.If(load(found), named, []), pattern))
    return out


def _ways(pattern: Any) -> list[Any]:
    """Patterns to be tried one after the other: those with classes in parts that bind names, without ``|`` there."""
    if not _has_classes(pattern):
        return [pattern]
    if isinstance(pattern, ast.MatchOr):
        return [pattern] if _test(pattern, "") is not None else [w for p in pattern.patterns for w in _ways(p)]
    ways = [_copy(pattern)]
    for name, old in ast.iter_fields(pattern):
        if isinstance(old, ast.pattern):
            ways = [_copy(w, **{name: new}) for w in ways for new in _ways(old)]
        elif isinstance(old, list) and any(isinstance(p, ast.pattern) for p in old):
            every = [*itertools.product(*map(_ways, old))]
            ways = [_copy(w, **{name: [*new]}) for w in ways for new in every]
    return ways


def _has_classes(pattern: ast.pattern) -> bool:
    return any(isinstance(n, ast.MatchClass) for n in ast.walk(pattern))


class _Classes(ast.NodeTransformer):
    """Makes of the classes in a pattern, `float()` and `float(v)`, tests on names: traced numbers and arrays are no
    instances for ``match``. Other names of the pattern stand in ``names`` with those that are bound instead."""

    def __init__(self, prefix: str):
        self.prefix = prefix
        self.tests: list[ast.expr] = []
        self.names: list[tuple[str, str]] = []
        self.count = 0

    def _new(self) -> str:
        self.count += 1
        return f"{self.prefix}_{self.count}"

    def visit_MatchClass(self, node: ast.MatchClass) -> Any:
        if not _is_whole(node):
            return self.generic_visit(_copy(node))
        name = self._new()
        self.tests.append(_isinstance(name, node))
        inner = [self.visit(p) for p in node.patterns]
        return located(ast.MatchAs(inner[0] if inner and not _is_wildcard(inner[0]) else None, name), node)

    def visit_MatchSequence(self, node: ast.MatchSequence) -> Any:
        return self.generic_visit(_copy(node))

    def visit_MatchAs(self, node: ast.MatchAs) -> Any:
        new = _copy(node)
        new.pattern = node.pattern and self.visit(node.pattern)
        new.name = node.name and self._bound(node.name)
        return new

    def visit_MatchStar(self, node: ast.MatchStar) -> Any:
        new = _copy(node)
        new.name = node.name and self._bound(node.name)
        return new

    def visit_MatchMapping(self, node: ast.MatchMapping) -> Any:
        new: Any = self.generic_visit(_copy(node))
        new.rest = node.rest and self._bound(node.rest)
        return new

    def visit_MatchOr(self, node: ast.MatchOr) -> Any:
        name = self._new()
        test = _test(node, name)
        if test is None or not _has_classes(node):
            return node
        self.tests.append(test)
        return located(ast.MatchAs(None, name), node)

    def _bound(self, name: str) -> str:
        self.names.append((name, self._new()))
        return self.names[-1][1]


def _copy(node: Any, **changes: Any) -> Any:
    """A node whose fields may be assigned; the lists in it are new."""
    fields = {k: [*v] if isinstance(v, list) else v for k, v in ast.iter_fields(node)} | changes
    return ast.copy_location(type(node)(**fields), node)


def _is_whole(node: ast.MatchClass) -> bool:
    """Whether a class stands alone, or with a pattern for the instance as a whole."""
    itself = isinstance(node.cls, ast.Name) and node.cls.id in _MATCH_THEMSELVES
    return not node.kwd_patterns and (not node.patterns or (itself and len(node.patterns) == 1))


_MATCH_THEMSELVES = {"bool", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"}


def _is_wildcard(pattern: ast.pattern) -> bool:
    return _is_capture(pattern) and pattern.name is None  # type: ignore[attr-defined]


def _isinstance(name: str, node: ast.MatchClass) -> ast.expr:
    return located(ast.Call(load("isinstance"), [load(name), node.cls], []), node)


def _is_capture(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and pattern.pattern is None


def _test(pattern: Any, subject: str) -> ast.expr | None:
    """The condition of a pattern of values alone; None for others."""
    if isinstance(pattern, ast.MatchValue):
        return located(ast.Compare(load(subject), [ast.Eq()], [pattern.value]), pattern)
    if isinstance(pattern, ast.MatchSingleton):
        return located(ast.Compare(load(subject), [ast.Is()], [ast.Constant(pattern.value)]), pattern)
    if isinstance(pattern, ast.MatchClass) and _is_whole(pattern):
        inner = [t for p in pattern.patterns if (t := _test(p, subject)) is not None]
        if len(inner) < len(pattern.patterns):
            return None
        test = _isinstance(subject, pattern)
        return located(ast.BoolOp(ast.And(), [test, *inner]), pattern) if inner else test
    if isinstance(pattern, ast.MatchOr):
        tests = [t for p in pattern.patterns if (t := _test(p, subject)) is not None]
        if len(tests) == len(pattern.patterns):
            return located(ast.BoolOp(ast.Or(), tests), pattern)
    return None
