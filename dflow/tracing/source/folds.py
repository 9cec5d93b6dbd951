"""List comprehensions, and ``sum``, ``min``, ``max``, ``any``, ``all`` of generator expressions, as the loops that they
are; see ``rewrite``.

    sum(x[i] for i in r if p(i))    ->    def fold(total):
                                              for i in r:
                                                  if p(i):
                                                      total = total + x[i]
                                              return total

    [x[i] for i in r]               ->    def collected(r):
                                              items = []
                                              for i in r:
                                                  items.append(x[i])
                                              return items

The function stands at the start of the one around it, whose variables it sees as the expression does. So the loop can
be one of the program, of any length.
"""

from __future__ import annotations

import ast
from typing import Any

from dflow.tracing.source.jumps import assign, load, located, runtime
from dflow.tracing.source.names import COMPREHENSIONS, FUNCTIONS, nodes_of

FOLDS = ("sum", "min", "max", "any", "all")
TOTAL, FIRST, ITEMS, SOURCE = "_dflow_total", "_dflow_first", "_dflow_items", "_dflow_source"
SIMPLE = (ast.Assign, ast.AugAssign, ast.Expr)  # statements that nobody writes on
FRAMES = {"super", "locals", "globals", "vars", "dir", "eval", "exec"}  # calls that look at the frame around them


class Folds:
    """Finds the expressions of one function body; ``functions`` are the definitions for them. ``any_there``: whether
    there can be any."""

    def __init__(self, any_there: bool = True) -> None:
        self.functions: list[ast.stmt] = []
        self.any_there = any_there

    def body(self, body: list[ast.stmt]) -> list[ast.stmt]:
        new = [self._copy(s) for s in body]
        doc = 1 if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) else 0
        return [*new[:doc], *self.functions, *new[doc:]]

    def _copy(self, node: Any) -> Any:
        if _is_list(node):
            return self._list(node)
        if _is_list_of_generator(node):
            items = ast.ListComp(node.args[0].elt, node.args[0].generators)
            return located(ast.Call(node.func, [self._list(located(items, node.args[0]))], []), node)
        if not isinstance(node, ast.AST) or isinstance(node, (*FUNCTIONS, *COMPREHENSIONS, ast.ClassDef)):
            return node
        if _is_fold(node):
            return self._fold(node)
        if isinstance(node, SIMPLE) and not (self.any_there and has_comprehension(node)):
            return node
        fields = {
            name: [self._copy(x) for x in old] if isinstance(old, list) else self._copy(old)
            for name, old in ast.iter_fields(node)
        }
        return ast.copy_location(type(node)(**fields), node)

    def _fold(self, node: Any) -> ast.expr:
        name = f"_dflow_fold_{len(self.functions)}"
        generator, *start = node.args
        self.functions.append(_function(name, node.func.id, generator))
        thunk = ast.Lambda(ast.arguments([], [], None, [], [], None, []), generator)
        args = [node.func, thunk, load(name), *map(self._copy, start)]
        return located(ast.Call(runtime("fold", node), args, []), node)

    def _list(self, node: ast.ListComp) -> ast.expr:
        """The first iterable, evaluated where the comprehension stands; the comprehension; and the loop, both of it."""
        name = f"_dflow_list_{len(self.functions)}"
        first, *others = node.generators
        source = ast.comprehension(first.target, load(SOURCE), first.ifs, 0)
        inner = located(ast.ListComp(node.elt, [source, *others]), node)
        self.functions.append(_collector(name, inner))
        plain = ast.Lambda(_one(SOURCE), inner)
        chooses = ast.Constant(any(isinstance(n, ast.comprehension) and n.ifs for n in ast.walk(node)))
        args = [self._copy(first.iter), plain, load(name), chooses]
        return located(ast.Call(runtime("collected", node), args, []), node)


def has_comprehension(node: ast.AST) -> bool:
    return any(isinstance(n, COMPREHENSIONS) for n in nodes_of(node))


def _one(name: str) -> ast.arguments:
    return ast.arguments([], [ast.arg(name)], None, [], [], None, [])


def _is_list(node: Any) -> bool:
    if not isinstance(node, ast.ListComp) or any(g.is_async for g in node.generators):
        return False
    odd = ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom
    return not any(isinstance(n, odd) or (isinstance(n, ast.Name) and n.id in FRAMES) for n in nodes_of(node))


def _is_list_of_generator(node: Any) -> bool:
    """``list(x for x in xs)``, which is ``list([x for x in xs])``."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "list"):
        return False
    if node.keywords or len(node.args) != 1 or not isinstance(node.args[0], ast.GeneratorExp):
        return False
    return _is_list(located(ast.ListComp(node.args[0].elt, node.args[0].generators), node.args[0]))


def _collector(name: str, comprehension: ast.ListComp) -> ast.stmt:
    add = ast.Call(ast.Attribute(load(ITEMS), "append", ast.Load()), [comprehension.elt], [])
    loop = _loops(comprehension, [located(ast.Expr(add), comprehension.elt)])
    start = assign(ITEMS, ast.List([], ast.Load()), comprehension)
    last = located(ast.Return(load(ITEMS)), comprehension)
    return located(ast.FunctionDef(name, _one(SOURCE), [start, *loop, last], []), comprehension)


def _is_fold(node: Any) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FOLDS):
        return False
    if node.keywords or len(node.args) not in ((1, 2) if node.func.id == "sum" else (1,)):
        return False
    generator = node.args[0]
    # A list is made before it is folded: only where nothing is left out is that the same.
    kinds = ast.GeneratorExp if node.func.id in ("any", "all") else ast.GeneratorExp | ast.ListComp
    if not isinstance(generator, kinds) or any(g.is_async for g in generator.generators):
        return False
    return not any(isinstance(n, ast.NamedExpr | ast.Await) for n in nodes_of(generator))


def _function(name: str, fold: str, generator: ast.GeneratorExp | ast.ListComp) -> ast.stmt:
    inner, last, start = _parts(fold, generator.elt)
    body = [*start, *_loops(generator, inner), last]
    return located(ast.FunctionDef(name, _one(TOTAL), body, []), generator)


def _loops(node: ast.GeneratorExp | ast.ListComp, inner: list[ast.stmt]) -> list[ast.stmt]:
    """The loops and conditions of a comprehension around what is done with an element."""
    for g in reversed(node.generators):
        for test in reversed(g.ifs):
            inner = [located(ast.If(test, inner, []), test)]
        inner = [located(ast.For(g.target, g.iter, inner, []), g.iter)]
    return inner


def _parts(fold: str, element: ast.expr) -> tuple[list[ast.stmt], ast.stmt, list[ast.stmt]]:
    """What is done with an element, the end of the function, and its beginning."""
    if fold == "sum":
        added = ast.BinOp(load(TOTAL), ast.Add(), element)
        return [assign(TOTAL, added, element)], located(ast.Return(load(TOTAL)), element), []
    if fold in ("any", "all"):
        test = element if fold == "any" else ast.UnaryOp(ast.Not(), element)
        leave = ast.Return(ast.Constant(fold == "any"))
        end = located(ast.Return(ast.Constant(fold == "all")), element)
        return [located(ast.If(test, [leave], []), element)], end, []
    name = ast.Constant(fold)
    better = ast.Call(runtime("better", element), [name, load(FIRST), load(TOTAL), element], [])
    step = [assign(TOTAL, better, element), assign(FIRST, ast.Constant(False), element)]
    end = ast.Call(runtime("not_empty", element), [name, load(FIRST), load(TOTAL)], [])
    return step, located(ast.Return(end), element), [assign(FIRST, ast.Constant(True), element)]
