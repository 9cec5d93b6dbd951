"""Which names a piece of Python stores and loads, and which are live where."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from typing import Any

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
STORED = (ast.Store, ast.Del)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)  # statements with others inside
_NO_NODES = {"id", "ctx", "op", "ops", "attr", "arg", "kind", "type_comment", "conversion", "is_async"}


@functools.cache
def _parts(kind: Any) -> tuple[str, ...]:
    """The fields in which there may be nodes that have nodes or names in them."""
    return () if kind is ast.Constant else tuple(name for name in kind._fields if name not in _NO_NODES)


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below, as ``ast.iter_child_nodes`` gives them, but for those that say load or store."""
    found: list[ast.AST] = []
    kind: Any = type(node)
    for name in _parts(kind):
        x = getattr(node, name, None)
        if isinstance(x, list):
            found += [part for part in x if isinstance(part, ast.AST)]
        elif isinstance(x, ast.AST) and x._fields:
            found.append(x)
    return found


def nodes_of(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, in no particular order."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += children(node)


def kinds_of(nodes: Iterable[ast.AST]) -> set[type]:
    """The kinds of the nodes and of all below them: what is not there need not be looked for."""
    return {type(node) for n in nodes for node in nodes_of(n)}


def stores(nodes: Iterable[ast.AST]) -> list[str]:
    """The names bound by statements, in order, not inside nested functions, classes and comprehensions."""
    found: dict[str, None] = {}

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, STORED):
                found[node.id] = None
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = None
            return
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, COMPREHENSIONS):
            for n in nodes_of(node):
                if isinstance(n, ast.NamedExpr):
                    visit(n.target)
            return
        if isinstance(node, ast.alias):
            found[(node.asname or node.name).partition(".")[0]] = None
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            found[node.name] = None
        for child in children(node):
            visit(child)

    for n in nodes:
        visit(n)
    return list(found)


def loads(node: ast.AST | None) -> set[str]:
    """The names read, also inside nested functions."""
    if node is None:
        return set()
    return {n.id for n in nodes_of(node) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)}


def declared(body: Iterable[ast.stmt], kind: type[ast.Global] | type[ast.Nonlocal]) -> set[str]:
    """The names declared ``global`` (``nonlocal``) in a function's body."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, kind):
            found.update(node.names)
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.expr)):
            for child in children(node):
                visit(child)

    for s in body:
        visit(s)
    return found


def updated(body: Iterable[ast.stmt]) -> set[str]:
    """The variables that may be arrays which are updated: by ``x[i] = v`` or ``x += v``, also in nested functions."""
    found: set[str] = set()
    for s in body:
        for node in nodes_of(s):
            if isinstance(node, ast.AugAssign):
                found.add(_base(node.target))
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                found.add(_base(node))
    return found


def _base(target: ast.expr) -> str:
    while isinstance(target, ast.Subscript):
        target = target.value
    return target.id if isinstance(target, ast.Name) else ""


def arguments(a: ast.arguments) -> list[str]:
    every = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
    return [x.arg for x in every if x is not None]


def captured(body: Iterable[ast.stmt]) -> set[str]:
    """The names that nested functions and classes read: they are live everywhere."""
    found: set[str] = set()
    for s in body:
        for node in nodes_of(s):
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                found |= loads(node)
    return found


def assigned_inside(body: Iterable[ast.stmt]) -> set[str]:
    """The names that nested functions declare ``nonlocal``."""
    found: set[str] = set()
    for s in body:
        for node in nodes_of(s):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found |= declared(node.body, ast.Nonlocal)
    return found


def annotate_liveness(body: list[ast.stmt], always: set[str]) -> None:
    """Gives every ``if`` and loop of a body without jumps the names that are live after it (``live_out``) and, loops,
    at the start of an iteration (``live_in``). Where a generator has jumps, everything that it reads is live."""
    first = next((k for k, s in enumerate(body) if isinstance(s, BLOCKS)), len(body))
    _block(body[first:], set(always), always)


def _block(body: Iterable[Any], live: set[str], always: set[str]) -> set[str]:
    for s in reversed(list(body)):
        live = _statement(s, live, always) | always
    return live


def _statement(s: Any, live: set[str], always: set[str]) -> set[str]:
    """The names live before ``s``, given those live after it."""
    if hasattr(s, "live"):  # a jump of a generator
        return s.live | loads(s)
    if isinstance(s, ast.If):
        s.live_out = set(live)  # type: ignore[attr-defined]
        return loads(s.test) | _block(s.body, live, always) | _block(s.orelse, live, always)
    if isinstance(s, ast.For | ast.While):
        return _loop(s, live, always)
    if isinstance(s, ast.With):
        inner = _block(s.body, live, always)
        for item in s.items:
            inner = (inner - set(stores([item]))) | loads(item.context_expr)
        return inner
    if isinstance(s, ast.Try | ast.Match):  # any part may be left at any point
        everything = live | loads(s)
        for part in ("body", "handlers", "cases", "orelse", "finalbody"):
            for p in getattr(s, part, []):
                _block(p.body if hasattr(p, "body") and not isinstance(p, ast.stmt) else [p], everything, always)
        return everything
    if isinstance(s, ast.AugAssign):
        return live | loads(s) | set(stores([s]))
    return (live - set(stores([s]))) | loads(s)


def _loop(s: Any, live: set[str], always: set[str]) -> set[str]:
    s.live_out = set(live)
    test = loads(s.test) if isinstance(s, ast.While) else set()
    flags = set(getattr(s, "flags", ()))
    target = set(stores([s.target])) if isinstance(s, ast.For) else set()
    start: set[str] = set()
    while True:  # what an iteration needs, the one before it must leave
        head = live | test | flags | start
        again = (_block(s.body, head, always) - target) | test
        if again <= start:
            break
        start |= again
    s.live_in = start
    return live | start | (loads(s.iter) if isinstance(s, ast.For) else set())
