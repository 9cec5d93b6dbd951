"""Statements with blocks to local functions; see ``rewrite``."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from typing import Any

from dflow.tracing.source.bindings import Bindings
from dflow.tracing.source.cases import Cases
from dflow.tracing.source.expressions import Expressions, call, lambda_, strings
from dflow.tracing.source.folds import Folds
from dflow.tracing.source.jumps import YIELDS, Jumps, assign, load, located, yields
from dflow.tracing.source.names import (
    COMPREHENSIONS,
    FUNCTIONS,
    annotate_liveness,
    arguments,
    assigned_inside,
    captured,
    children,
    declared,
    kinds_of,
    loads,
    nodes_of,
    stores,
    updated,
)

BUILTINS = set(dir(builtins))


class Blocks(Expressions):
    """Rewrites one function (and, each by a ``Blocks`` of its own, those nested in it)."""

    def __init__(self, owner: str | None = None):
        super().__init__(owner)
        self.count = 0
        self.shared: set[str] = set()  # names that blocks assign
        self.globals: set[str] = set()
        self.assigned_inside: set[str] = set()  # by nested functions
        self.locals: set[str] = set()

    def function_of(self, node: ast.FunctionDef | ast.Lambda, name: str) -> ast.FunctionDef:
        """A definition named like ``node`` with its rewritten body, without decorators, defaults and annotations."""
        if isinstance(node, ast.Lambda):
            body: list[ast.stmt] = [located(ast.Return(node.body), node.body)]
        else:
            body = node.body
        plain = _plain_arguments(node.args)
        return located(ast.FunctionDef(name, plain, self.body(body, node.args), []), node)

    def body(self, body: list[ast.stmt], args: ast.arguments) -> list[ast.stmt]:
        """The rewritten body of a function."""
        doc, body = _without_doc(body)
        kinds = kinds_of(body)
        body = Folds(not kinds.isdisjoint(COMPREHENSIONS)).body(body)
        if ast.Match in kinds:
            body = Cases().block(body)
        parameters = arguments(args)
        self.first = parameters[0] if args.posonlyargs or args.args else None
        self.updated = updated(body) if not kinds.isdisjoint((ast.AugAssign, ast.Subscript)) else set()
        self.globals = declared(body, ast.Global) if ast.Global in kinds else set()
        outer = declared(body, ast.Nonlocal) if ast.Nonlocal in kinds else set()
        inner = not kinds.isdisjoint((*FUNCTIONS, ast.ClassDef, *COMPREHENSIONS))
        always = ((captured(body) if inner else set()) | outer | self.globals) - {"dflow__"}
        self.global_stores = self.globals & set(stores(body)) if self.globals else set()
        spelled_out = Bindings().block(body) if ast.NamedExpr in kinds else body
        jumps, native = Jumps(shared=frozenset(always)), not kinds.isdisjoint(YIELDS)
        lowered = self._lowered(spelled_out, jumps) if native else jumps.function(spelled_out)
        annotate_liveness(lowered, always)
        self.locals = ({*parameters, *stores(lowered)} | outer) - self.globals
        self.assigned_inside = ((assigned_inside(body) if inner else set()) | outer) & self.locals
        self.shared = self._shared(lowered) | self.assigned_inside
        undefined = self.shared - set(parameters) - outer
        self.checked = {n for n in undefined if not n.startswith("_dflow")}
        rest = self.statements(lowered)
        declarations = [s for s in rest if isinstance(s, ast.Global | ast.Nonlocal)]
        rest = [s for s in rest if not isinstance(s, ast.Global | ast.Nonlocal)]
        start = [assign(n, call("Undefined", body[0], ast.Constant(n)), body[0]) for n in sorted(undefined)]
        return [*doc, *declarations, *start, *rest]

    def _lowered(self, body: list[ast.stmt], jumps: Jumps) -> list[ast.stmt]:
        """The body without jumps, as far as it can be."""
        if not any(map(yields, body)):
            return jumps.function(body)
        lowered = jumps.generator(body)
        everything = set().union(*map(loads, lowered))
        for s in lowered:
            for node in nodes_of(s):
                if isinstance(node, ast.Return | ast.Break | ast.Continue):
                    node.live = everything  # type: ignore[union-attr]
        return lowered

    def _shared(self, body: list[ast.stmt]) -> set[str]:
        found: set[str] = set()

        def visit(node: ast.AST) -> None:
            if isinstance(node, ast.If | ast.For | ast.While):
                found.update(stores([node]))
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr):
                for child in children(node):
                    visit(child)

        for s in body:
            visit(s)
        return found & self.locals

    def statements(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for s in body:
            new = self.visit(s)
            out.extend(new if isinstance(new, list) else [new])
        return out

    # -- control flow --------------------------------------------------------------------------------------------

    def visit_If(self, node: Any) -> Any:
        if hasattr(node, "native"):
            return self._native(node)
        names = self._state([*node.body, *node.orelse])
        k = self._number()
        then, orelse = f"_dflow_then_{k}", f"_dflow_else_{k}"
        live = [n for n in names if n in node.live_out]
        return [
            self._block(then, node.body, names, node),
            self._block(orelse, node.orelse, names, node.orelse[0] if node.orelse else node),
            *self._access(k, names, node),
            self._run(
                "if_",
                node.test,
                self.condition(node.test),
                load(then),
                load(orelse),
                *_access(k),
                strings(names),
                strings(live),
                self._uses([*node.body, *node.orelse], names, node),
            ),
        ]

    def visit_While(self, node: Any) -> Any:
        if hasattr(node, "native"):
            return self._native(node)
        names = self._state(node.body)
        k = self._number()
        return [
            self._block(f"_dflow_body_{k}", node.body, names, node),
            *self._access(k, names, node),
            self._run(
                "while_",
                node.test,
                lambda_(self.condition(node.test)),
                load(f"_dflow_body_{k}"),
                *_access(k),
                *self._facts(node, names),
            ),
        ]

    def visit_For(self, node: Any) -> Any:
        if hasattr(node, "native"):
            return self._native(node)
        item = f"_dflow_item_{self.count + 1}"
        bind = located(ast.Assign([node.target], load(item)), node.target)
        names = self._state([bind, *node.body])
        k = self._number()
        return [
            self._block(f"_dflow_body_{k}", [bind, *node.body], names, node, [item]),
            *self._access(k, names, node),
            self._run(
                "for_",
                node.iter,
                self.visit(node.iter),
                load(f"_dflow_body_{k}"),
                ast.Constant(_levels(node)),
                *_access(k),
                *self._facts(node, names),
            ),
        ]

    def _native(self, node: Any) -> Any:
        """A statement of a generator that Python runs."""
        new = located(type(node)(**dict(ast.iter_fields(node))), node)
        if isinstance(node, ast.For):
            new.iter = call("iterated", node.iter, self.visit(node.iter))
        else:
            new.test = self.condition(node.test)
        new.body, new.orelse = self.statements(node.body), self.statements(node.orelse)
        return new

    def _number(self) -> int:
        self.count += 1
        return self.count

    def _state(self, body: list[ast.stmt]) -> list[str]:
        """The variables that a block may assign, if only through functions that it calls."""
        names = stores(body)
        if any(isinstance(n, ast.Call) for s in body for n in nodes_of(s)):
            names += sorted(self.assigned_inside - set(names))
        return [n for n in names if n in self.shared]

    def _facts(self, node: Any, names: list[str]) -> list[ast.expr]:
        live_in = [n for n in names if n in node.live_in]
        live_out = [n for n in names if n in node.live_out]
        test = [node.test] if isinstance(node, ast.While) else []
        uses = self._uses([*test, *node.body], names, node)
        return [strings(names), strings(live_in), strings(live_out), strings(node.flags), uses]

    def _uses(self, body: Sequence[ast.AST], names: list[str], where: ast.AST) -> ast.expr:
        """A function that gives the values of the other variables that a block reads."""
        reads = sorted({n for s in body for n in loads(s)} - set(names) - BUILTINS)
        return lambda_(call("values", where, *(lambda_(load(n)) for n in reads)))

    def _run(self, name: str, where: Any, *args: ast.expr) -> ast.stmt:
        return located(ast.Expr(call(name, where, *args)), where)

    def _block(
        self, name: str, body: list[ast.stmt], names: list[str], where: ast.AST, parameters: list[str] | None = None
    ) -> ast.stmt:
        lines = self.statements(body)
        everywhere = [n for n in stores(body) if n in self.globals]
        start: list[ast.stmt] = []
        if names:
            start.append(ast.Nonlocal(names))
        if everywhere:
            start.append(ast.Global(everywhere))
        new = [*start, *lines] or [ast.Pass()]
        return located(ast.FunctionDef(name, _parameters(parameters or []), new, []), where)

    def _access(self, k: int, names: list[str], where: ast.AST) -> list[ast.stmt]:
        """The functions that read and set the variables of a block."""
        read: list[ast.stmt] = [ast.Return(ast.Tuple([load(n) for n in names], ast.Load()))]
        write: list[ast.stmt] = [ast.Pass()]
        if names:
            target = ast.Tuple([ast.Name(n, ast.Store()) for n in names], ast.Store())
            write = [ast.Nonlocal(names), ast.Assign([target], load("_dflow_values"))]
        return [
            located(ast.FunctionDef(f"_dflow_get_{k}", _parameters([]), read, []), where),
            located(ast.FunctionDef(f"_dflow_set_{k}", _parameters(["_dflow_values"]), write, []), where),
        ]

    # -- other statements ----------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        new = located(ast.FunctionDef(**dict(ast.iter_fields(node))), node)
        inner = Blocks(self.owner)
        inner.outer_checked = (self.checked | self.outer_checked) - set(arguments(node.args)) - set(stores(node.body))
        new.body = inner.body(node.body, node.args)
        new.decorator_list = [self.visit(d) for d in node.decorator_list]
        new.args = self.defaults(node.args)
        return new

    def visit_Global(self, node: ast.Global) -> Any:
        assigned = [n for n in node.names if n in self.global_stores]
        return [node, self._run("refuse_globals", node, strings(assigned))] if assigned else node

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        return node

    def visit_With(self, node: ast.With) -> Any:
        new = located(ast.With(**dict(ast.iter_fields(node))), node)
        new.items = [
            ast.withitem(call("managed", i.context_expr, self.visit(i.context_expr)), i.optional_vars)
            for i in node.items
        ]
        new.body = self.statements(node.body)
        return new

    def visit_Try(self, node: ast.Try) -> Any:
        new = located(type(node)(**dict(ast.iter_fields(node))), node)
        new.body, new.orelse = self.statements(node.body), self.statements(node.orelse)
        if node.handlers:
            kinds = [ast.Constant(None) if h.type is None else self.visit(h.type) for h in node.handlers]
            item = ast.withitem(call("trying", node, lambda_(ast.Tuple(kinds, ast.Load()))), None)
            new.body = [located(ast.With([item], new.body), node)]
        new.finalbody = self.statements(node.finalbody)
        new.handlers = [
            located(
                ast.ExceptHandler(
                    h.type and self.visit(h.type), h.name, [self._run("caught", h), *self.statements(h.body)]
                ),
                h,
            )
            for h in node.handlers
        ]
        return new

    def visit_Match(self, node: ast.Match) -> Any:
        cases = [
            ast.match_case(c.pattern, c.guard and self.visit(c.guard), self.statements(c.body)) for c in node.cases
        ]
        patterns = [p for c in node.cases for p in ast.walk(c.pattern) if isinstance(p, ast.pattern)]
        whole = [c.pattern for c in node.cases]
        inner = any(isinstance(p, _STRUCTURE) and p not in whole for p in patterns)
        truths = any(isinstance(p, ast.MatchSingleton) and p.value is not None for p in patterns)
        subject = call("matched", node, self.visit(node.subject), ast.Constant(inner), ast.Constant(truths))
        return located(ast.Match(subject, cases), node)


_STRUCTURE = ast.MatchSingleton | ast.MatchClass | ast.MatchSequence | ast.MatchMapping


def _levels(node: ast.AST) -> int:
    """How many loops stand in each other, at most."""
    inner = max((_levels(child) for child in ast.iter_child_nodes(node)), default=0)
    return inner + isinstance(node, ast.For | ast.While)


def _without_doc(body: list[ast.stmt]) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """The docstring, and the statements after it (one at least)."""
    first = body[0]
    if not (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    ):
        return [], body
    return [first], body[1:] or [located(ast.Pass(), first)]


def _access(k: int) -> list[ast.expr]:
    return [load(f"_dflow_get_{k}"), load(f"_dflow_set_{k}")]


def _parameters(names: list[str]) -> ast.arguments:
    return ast.arguments([], [ast.arg(n) for n in names], None, [], [], None, [])


def _plain_arguments(a: ast.arguments) -> ast.arguments:
    """Parameters without annotations and defaults, which the original function holds already."""

    def bare(x: ast.arg | None) -> Any:
        return None if x is None else ast.copy_location(ast.arg(x.arg), x)

    return ast.arguments(
        [bare(x) for x in a.posonlyargs],
        [bare(x) for x in a.args],
        bare(a.vararg),
        [bare(x) for x in a.kwonlyargs],
        [None] * len(a.kwonlyargs),
        bare(a.kwarg),
        [],
    )
