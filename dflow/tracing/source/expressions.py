"""Expressions and simple statements, rewritten to calls of ``dflow.tracing.runtime``; see ``rewrite``."""

from __future__ import annotations

import ast
from typing import Any

from dflow.tracing.source.jumps import assign, load, located, runtime
from dflow.tracing.source.names import COMPREHENSIONS, arguments, nodes_of

# Calls that look at the frame of their caller, or that need no rewriting.
UNTOUCHED = {"super", "locals", "globals", "vars", "dir", "eval", "exec"}
OPERATORS = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
    ast.LShift: "lshift",
    ast.RShift: "rshift",
}
UNARY = {ast.USub: "neg", ast.UAdd: "pos", ast.Invert: "invert"}
COMPARISONS = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Is: "is_",
    ast.IsNot: "is_not",
    ast.In: "in_",
    ast.NotIn: "not_in",
}


class Expressions(ast.NodeTransformer):
    """Makes new nodes and leaves the old ones alone: a parsed file serves many functions."""

    def __init__(self, owner: str | None = None):
        self.owner = owner  # the class that the function stands in, for private names
        self.checked: set[str] = set()  # variables that may be undefined where they are read
        self.outer_checked: set[str] = set()  # those of the functions around
        self.updated: set[str] = set()  # variables that may be arrays which are updated
        self.temporaries = 0
        self.first: str | None = None  # the first parameter of the function

    def generic_visit(self, node: Any) -> Any:
        fields: dict[str, Any] = {}
        for name, old in ast.iter_fields(node):
            if isinstance(old, list):
                fields[name] = [self.visit(x) if isinstance(x, ast.AST) else x for x in old]
            else:
                fields[name] = self.visit(old) if isinstance(old, ast.AST) else old
        return ast.copy_location(type(node)(**fields), node)

    # -- expressions ---------------------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> Any:
        if isinstance(node.ctx, ast.Load) and node.id in self.checked | self.outer_checked:
            return call("load", node, node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        name = self._mangled(node.attr)
        if isinstance(node.ctx, ast.Load):
            return call("attribute", node, self.visit(node.value), ast.Constant(name))
        return ast.copy_location(ast.Attribute(self.visit(node.value), name, node.ctx), node)

    def _mangled(self, name: str) -> str:
        """The name of an attribute, private names with their class."""
        private = self.owner and name.startswith("__") and not name.endswith("__")
        return f"_{self.owner.lstrip('_')}{name}" if self.owner and private else name

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        op = ast.Constant(OPERATORS[type(node.op)])
        return call("binary", node, op, self.visit(node.left), self.visit(node.right))

    def visit_Call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id in UNTOUCHED:
            if node.func.id == "super" and not node.args and self.first:  # a block has no first argument of its own
                return located(ast.Call(node.func, [load("__class__"), load(self.first)], []), node)
            return self.generic_visit(node)
        keywords = [ast.keyword(k.arg, self.visit(k.value)) for k in node.keywords]
        args = [self.visit(node.func), *(self.visit(a) for a in node.args)]
        return located(ast.Call(runtime("call", node), args, keywords), node)

    def visit_Starred(self, node: ast.Starred) -> Any:
        if isinstance(node.ctx, ast.Load):
            node.value = call("unpacked", node.value, self.visit(node.value))
        return node

    def visit_List(self, node: ast.List) -> Any:
        if not isinstance(node.ctx, ast.Load) or not any(isinstance(x, ast.Starred) for x in node.elts):
            return self.generic_visit(node)
        parts = (x.value if isinstance(x, ast.Starred) else ast.List([x], ast.Load()) for x in node.elts)
        return call("listed", node, *map(self.visit, parts))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> Any:
        parts = [v if isinstance(v, ast.Constant) else self._formatted(v) for v in node.values]
        return call("joined", node, *parts)

    def _formatted(self, node: Any) -> ast.expr:
        """A value of an f-string with its conversion and its format."""
        conversion = ast.Constant("" if node.conversion < 0 else chr(node.conversion))
        spec = ast.Constant("") if node.format_spec is None else self.visit(node.format_spec)
        return located(ast.Tuple([self.visit(node.value), conversion, spec], ast.Load()), node)

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        if _binds(node):
            return self.generic_visit(node)
        name = "and_" if isinstance(node.op, ast.And) else "or_"
        return call(name, node, *(lambda_(self.visit(v)) for v in node.values))

    def condition(self, node: ast.expr) -> Any:
        """An expression of which only the truth is wanted: the operands of ``and`` and ``or`` may differ in type."""
        if isinstance(node, ast.Compare | ast.Constant) or (isinstance(node, ast.BoolOp) and _binds(node)):
            return self.visit(node)
        if not isinstance(node, ast.BoolOp):
            return call("truth_value", node, self.visit(node))
        name = "and_" if isinstance(node.op, ast.And) else "or_"
        tests = (call("test", v, self.condition(v)) for v in node.values)
        return call(name, node, *map(lambda_, tests))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not):
            return call("not_", node, self.condition(node.operand))
        if isinstance(node.operand, ast.Constant):
            return node
        return call("unary", node, ast.Constant(UNARY[type(node.op)]), self.visit(node.operand))

    def visit_Compare(self, node: ast.Compare) -> Any:
        if len(node.ops) == 1:
            op = ast.Constant(COMPARISONS[type(node.ops[0])])
            return call("comparison", node, op, self.visit(node.left), self.visit(node.comparators[0]))
        if _binds(node):
            return self.generic_visit(node)
        names = strings([COMPARISONS[type(o)] for o in node.ops])
        rest = [lambda_(self.visit(c)) for c in node.comparators]
        return call("compare", node, names, self.visit(node.left), *rest)

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        if _binds(node.body) or _binds(node.orelse):  # the test is evaluated where it stands
            return self.generic_visit(node)
        return call(
            "choose", node, self.condition(node.test), lambda_(self.visit(node.body)), lambda_(self.visit(node.orelse))
        )

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        if not isinstance(node.ctx, ast.Load):
            return self.generic_visit(node)
        return call("getitem", node, self.visit(node.value), self.index(node.slice))

    def index(self, node: ast.expr) -> ast.expr:
        """An index as an ordinary expression."""
        if isinstance(node, ast.Slice):
            bounds = [ast.Constant(None) if x is None else self.visit(x) for x in (node.lower, node.upper, node.step)]
            return call("slice", node, *bounds)
        if isinstance(node, ast.Tuple) and any(isinstance(e, ast.Slice) for e in node.elts):
            return located(ast.Tuple([self.index(e) for e in node.elts], ast.Load()), node)
        return self.visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> Any:
        hidden = set(arguments(node.args))
        saved = self.checked, self.outer_checked
        self.checked, self.outer_checked = self.checked - hidden, self.outer_checked - hidden
        new = located(ast.Lambda(self.defaults(node.args), self.visit(node.body)), node)
        self.checked, self.outer_checked = saved
        return new

    def defaults(self, a: ast.arguments) -> ast.arguments:
        new = ast.arguments(**dict(ast.iter_fields(a)))
        new.defaults = [self.visit(d) for d in a.defaults]
        new.kw_defaults = [d and self.visit(d) for d in a.kw_defaults]
        return new

    def _comprehension(self, node: Any) -> Any:
        hidden = {n.id for g in node.generators for n in nodes_of(g.target) if isinstance(n, ast.Name)}
        saved = self.checked, self.outer_checked
        self.checked, self.outer_checked = self.checked - hidden, self.outer_checked - hidden
        new = self.generic_visit(node)
        for g in new.generators:
            g.iter = call("iterated", node, g.iter)
        self.checked, self.outer_checked = saved
        return new

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    # -- simple statements ---------------------------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> Any:
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            return located(
                ast.Assign(node.targets, self._named(node.targets[0].id, self.visit(node.value), node)), node
            )
        value = self.visit(node.value)
        if any(isinstance(t, ast.Tuple | ast.List) for t in node.targets) and not isinstance(node.value, ast.Tuple):
            value = call("unpacked", node.value, value)
        if not any(isinstance(n, ast.Subscript | ast.Attribute) for t in node.targets for n in nodes_of(t)):
            return located(ast.Assign([self.visit(t) for t in node.targets], value), node)
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Subscript | ast.Attribute):
            return self._set_part(node.targets[0], value)
        name = self._temporary()
        out: list[ast.stmt] = [assign(name, value, node)]
        for target in node.targets:
            parts: list[tuple[ast.Subscript | ast.Attribute, str]] = []
            plain = self._target(target, parts)
            out.append(located(ast.Assign([plain], load(name)), node))
            out += [self._set_part(t, load(n)) for t, n in parts]
        return out

    def _named(self, name: str, value: ast.expr, where: ast.AST) -> ast.expr:
        """The value, with the variable's name for printed programs."""
        if name.startswith("_dflow") or isinstance(value, ast.Constant):
            return value
        return call("owned" if name in self.updated else "named", where, ast.Constant(name), value)

    def _target(self, target: ast.expr, parts: list[tuple[ast.Subscript | ast.Attribute, str]]) -> ast.expr:
        """The target with names for its items and attributes."""
        if isinstance(target, ast.Subscript | ast.Attribute):
            parts.append((target, self._temporary()))
            return ast.copy_location(ast.Name(parts[-1][1], ast.Store()), target)
        if isinstance(target, ast.Tuple | ast.List):
            elements = [self._target(e, parts) for e in target.elts]
            return ast.copy_location(type(target)(elements, ast.Store()), target)
        if isinstance(target, ast.Starred):
            return ast.copy_location(ast.Starred(self._target(target.value, parts), ast.Store()), target)
        return self.visit(target)

    def _temporary(self) -> str:
        self.temporaries += 1
        return f"_dflow_t{self.temporaries}"

    def _set_part(self, target: ast.Subscript | ast.Attribute, value: ast.expr) -> ast.stmt:
        base = self.visit(target.value)
        if isinstance(target, ast.Attribute):
            new = call("set_attribute", target, value, base, ast.Constant(self._mangled(target.attr)))
        else:
            new = call("setitem", target, value, base, self.index(target.slice))
        return located(ast.Expr(new), target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is None:
            return located(ast.Pass(), node)
        return self.visit(located(ast.Assign([node.target], node.value), node))

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        op = ast.Constant(OPERATORS[type(node.op)])
        if isinstance(node.target, ast.Subscript):
            base, index = self.visit(node.target.value), self.index(node.target.slice)
            if any(isinstance(n, ast.Call) for n in nodes_of(node.value)):
                start = call("begun", node, base, index)
                return located(ast.Expr(call("augment_begun", node, op, start, self.visit(node.value))), node)
            return located(ast.Expr(call("augment_item", node, op, base, index, self.visit(node.value))), node)
        if isinstance(node.target, ast.Name):
            old = self.visit(ast.copy_location(load(node.target.id), node.target))
            new = call("augment", node, op, old, self.visit(node.value))
            return located(ast.Assign([node.target], self._named(node.target.id, new, node)), node)
        name = ast.Constant(self._mangled(node.target.attr))
        start = call("begun_attribute", node, self.visit(node.target.value), name)
        new = call("augment_attribute", node, op, start, self.visit(node.value))
        return located(ast.Expr(new), node)

    def visit_Delete(self, node: ast.Delete) -> Any:
        out = []
        for target in node.targets:
            if isinstance(target, ast.Name) and target.id in self.checked:
                out.append(assign(target.id, call("Undefined", node, ast.Constant(target.id)), node))
                continue
            if isinstance(target, ast.Subscript):
                out.append(located(ast.Expr(call("shortened", target, self.visit(target.value))), node))
            out.append(located(ast.Delete([target]), node))
        return out

    def visit_Assert(self, node: ast.Assert) -> Any:
        message = self.visit(node.msg) if node.msg else ast.Constant("")
        return located(ast.Expr(call("assert_", node, self.condition(node.test), lambda_(message))), node)

    def visit_Raise(self, node: ast.Raise) -> Any:
        if node.exc is None:
            return node
        cause = node.cause and self.visit(node.cause)
        return located(ast.Raise(call("raised", node, self.visit(node.exc)), cause), node)


def call(name: str, where: ast.AST, *args: ast.expr) -> ast.expr:
    """A call of the runtime's function ``name``."""
    return located(ast.Call(runtime(name, where), list(args), []), where)


def lambda_(body: ast.expr) -> ast.expr:
    return ast.Lambda(ast.arguments([], [], None, [], [], None, []), body)


def strings(names: list[str]) -> ast.expr:
    return ast.Tuple([ast.Constant(n) for n in names], ast.Load())


def _binds(node: ast.AST) -> bool:
    """Whether evaluating it in a function of its own would lose a binding."""
    return any(isinstance(n, ast.NamedExpr | ast.Yield | ast.YieldFrom | ast.Await) for n in nodes_of(node))


__all__ = ["COMPREHENSIONS", "Expressions", "call", "lambda_", "strings"]
