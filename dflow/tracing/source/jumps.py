"""Removes ``return``, ``break`` and ``continue``: what they leave out becomes the other branch of an ``if``.

    while c:                          while c:  (and not broke)
        if p: break                       broke = False
        f()                               if p: broke = True
                                          else: f()

A jump at the end of its loop or function needs nothing more than that. One further inside sets a flag, and what
follows is guarded by it. A loop's flags stand in its ``flags``, and end it.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import Any

from dflow.tracing.source.names import FUNCTIONS, children, loads, nodes_of, stores

RESULT, RETURNED = "_dflow_result", "_dflow_returned"
Statements = list[ast.stmt]
YIELDS = (ast.Yield, ast.YieldFrom, ast.Await)
LOAD = ast.Load()


@dataclass(frozen=True)
class _Place:
    """Where a block stands: whether the function (the loop's body) ends where the block does, and the loop's flags."""

    ends_function: bool
    ends_body: bool = False
    broke: str | None = None
    continued: str | None = None

    def inside(self) -> _Place:
        return replace(self, ends_function=False, ends_body=False)


@dataclass
class Jumps:
    """Lowers the body of one function."""

    count: int = 0
    returned: bool = False  # whether the flag RETURNED is needed
    single: bool = False  # whether the only return stands at the end
    shared: frozenset[str] = frozenset()  # variables that other functions see too

    def function(self, body: Statements) -> Statements:
        """The body with one ``return``, at its end; unchanged when it has no other."""
        early = body[:-1] if body and isinstance(body[-1], ast.Return) else body
        self.single = not any(isinstance(s, ast.Return) for s in jumps_in(early))
        if self.single:
            return self.block(body, _Place(True))[0]
        if not always_leaves(body):
            body = body + [located(ast.Return(ast.Constant(None)), body[-1])]
        lowered, _ = self.block(body, _Place(True))
        first, last = body[0], body[-1]
        start = [assign(RESULT, runtime("UNSET", first), first)]
        if self.returned:
            start.append(assign(RETURNED, ast.Constant(False), first))
        return [*start, *lowered, located(ast.Return(load(RESULT)), last)]

    def generator(self, body: Statements) -> Statements:
        """A generator's body: what yields, or leaves what stands around it, is ``native``, run by Python itself."""
        out: Statements = []
        for s in body:
            if not _is_native(s):
                out += self.block([s], _Place(False))[0]
                continue
            new = located(type(s)(**dict(ast.iter_fields(s))), s)
            new.native = True
            for part in ("body", "orelse", "finalbody"):
                if isinstance(getattr(s, part, None), list):
                    setattr(new, part, self.generator(getattr(s, part)))
            for h in getattr(s, "handlers", []):
                h.body = self.generator(h.body)
            out.append(new)
        return out

    def block(self, body: Statements, place: _Place) -> tuple[Statements, set[str]]:
        """The block without jumps, and the flags that it may have set of which what follows must take notice."""
        out: Statements = []
        for k, s in enumerate(body):
            rest = body[k + 1 :]
            if isinstance(s, ast.Return | ast.Break | ast.Continue):
                new, flags = self.jump(s, place)
                return out + new, flags
            if not any(True for _ in jumps_in([s])):
                out.append(s)
                continue
            if isinstance(s, ast.If) and (always_leaves(s.body) or always_leaves(s.orelse)) and rest:
                if always_leaves(s.body):
                    s = located(ast.If(s.test, s.body, s.orelse + rest), s)
                else:
                    s = located(ast.If(s.test, s.body + rest, s.orelse), s)
                rest = []
            new, flags = self.statement(s, place if not rest else place.inside())
            out += new
            if not rest:
                return out, flags
            if flags:
                guarded, more = self.block(rest, place)
                return [*out, located(ast.If(none_of(flags), guarded, []), rest[0])], flags | more
        return out, set()

    def jump(self, s: ast.stmt, place: _Place) -> tuple[Statements, set[str]]:
        if isinstance(s, ast.Return):
            if self.single:
                return [s], set()
            new = [assign(RESULT, s.value or ast.Constant(None), s)]
            if place.ends_function:
                return new, set()
            self.returned = True
            return [*new, assign(RETURNED, ast.Constant(True), s)], {RETURNED}
        if isinstance(s, ast.Break):
            assert place.broke
            return [assign(place.broke, ast.Constant(True), s)], {place.broke}
        assert place.continued
        if place.ends_body:
            return [located(ast.Pass(), s)], set()
        return [assign(place.continued, ast.Constant(True), s)], {place.continued}

    def statement(self, s: ast.stmt, place: _Place) -> tuple[Statements, set[str]]:
        """A compound statement with jumps inside."""
        if isinstance(s, ast.For | ast.While):
            return self.loop(s, place)
        flags: set[str] = set()
        inside = place.inside() if isinstance(s, ast.Try) else place
        new = located(type(s)(**dict(ast.iter_fields(s))), s)
        for name in ("body", "handlers", "cases", "orelse", "finalbody"):
            part = getattr(new, name, None)
            if not part:
                continue
            if name in ("handlers", "cases"):
                lowered = []
                for h in part:
                    body, more = self.block(h.body, inside)
                    flags |= more
                    lowered.append(located(type(h)(**{**dict(ast.iter_fields(h)), "body": body}), h))
                setattr(new, name, lowered)
                continue
            body, more = self.block(part, inside)
            if isinstance(s, ast.Try) and name == "orelse" and flags:
                body = [located(ast.If(none_of(flags), body, []), part[0])]
            flags |= more
            setattr(new, name, body or [located(ast.Pass(), s)])
        return [new], flags

    def loop(self, s: Any, place: _Place) -> tuple[Statements, set[str]]:
        self.count += 1
        broke, continued = f"_dflow_broke_{self.count}", f"_dflow_continued_{self.count}"
        body, _ = self.block(s.body, _Place(False, True, broke, continued))
        used = {n.id for t in body for n in nodes_of(t) if isinstance(n, ast.Name)}
        flags = [f for f in (broke, RETURNED) if f in used]
        resets = [assign(f, ast.Constant(False), s) for f in (*flags, *([continued] if continued in used else []))]
        new = located(type(s)(**dict(ast.iter_fields(s))), s)
        new.body, new.orelse, new.flags = resets + body, [], flags
        start = [assign(broke, ast.Constant(False), s)] if broke in flags else []
        if start and s.orelse:
            start += [assign(n, filler(n, s), s) for n in sorted(_set_on_leaving(s) - self.shared)]
        out: Statements = [*start, new]
        outer = {RETURNED} & set(flags)
        if s.orelse:
            orelse, more = self.block(s.orelse, place if not outer else place.inside())
            out.append(located(ast.If(none_of(flags), orelse, []), s.orelse[0])) if flags else out.extend(orelse)
            outer |= more
        return out, outer


def jumps_in(body: Any) -> Any:
    """The jumps (and loops, which are always lowered) in statements, not those of nested functions."""
    for node in body:
        if isinstance(node, ast.Return | ast.Break | ast.Continue | ast.For | ast.While):
            yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.expr)):
            yield from jumps_in(children(node))


def yields(node: ast.AST) -> bool:
    """Whether a ``yield`` stands in a statement, not in a function inside of it."""
    if isinstance(node, YIELDS):
        return True
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return False
    return any(map(yields, children(node)))


def _is_native(s: ast.stmt) -> bool:
    if yields(s):
        return True
    if isinstance(s, ast.For | ast.While):
        return any(isinstance(j, ast.Return) for j in jumps_in([s]))
    return any(isinstance(j, ast.Return) for j in jumps_in([s])) or _breaks([s], ast.Break | ast.Continue)


def always_leaves(body: Statements) -> bool:
    """Whether control never reaches the end of the block."""
    for s in body:
        if isinstance(s, ast.Return | ast.Break | ast.Continue | ast.Raise):
            return True
        if isinstance(s, ast.If) and always_leaves(s.body) and always_leaves(s.orelse):
            return True
        if isinstance(s, ast.While) and isinstance(s.test, ast.Constant) and s.test.value and not _breaks(s.body):
            return True
    return False


def _breaks(body: Any, kind: Any = ast.Break) -> bool:
    """Whether a ``break`` of the loop itself stands in its body."""
    for node in body:
        if isinstance(node, kind):
            return True
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.expr, ast.For, ast.While)):
            if _breaks(children(node), kind):
                return True
        elif isinstance(node, ast.For | ast.While) and _breaks(node.orelse, kind):
            return True
    return False


def _set_on_leaving(loop: Any) -> set[str]:
    """The variables that a loop with ``else`` sets in whichever way it ends, and does not look at before."""
    ways = [set(stores(part)) for part in _to_breaks(loop.body, [])]
    ways.append({n for s in loop.orelse if isinstance(s, ast.Assign | ast.AugAssign) for n in stores([s])})
    looked_at = [loop.iter if isinstance(loop, ast.For) else loop.test, *loop.body]
    return set.intersection(*ways) - set().union(*map(loads, looked_at))


def _to_breaks(body: Any, before: list[ast.stmt]) -> Any:
    """For each ``break`` of a loop the assignments of its body that lead there."""
    for s in body:
        if isinstance(s, ast.Break):
            yield before
        elif isinstance(s, ast.Assign):
            before = [*before, s]
        elif isinstance(s, ast.For | ast.While):
            yield from _to_breaks(s.orelse, before)
        else:
            for part in ("body", "orelse", "finalbody"):
                yield from _to_breaks(getattr(s, part, None) or [], before)
            for h in (*getattr(s, "handlers", ()), *getattr(s, "cases", ())):
                yield from _to_breaks(h.body, before)


# -- making syntax -----------------------------------------------------------------------------------------------


def located(node: Any, where: Any) -> Any:
    """The new ``node`` at the place of ``where``, with all of its parts that have none."""
    _place(node, where)
    _locate_parts(node, node)
    return node


def _place(node: Any, where: Any) -> None:
    """As ``ast.copy_location``, in a fifth of the time."""
    if node._attributes and hasattr(where, "lineno"):  # those of new parts come later
        node.lineno, node.col_offset = where.lineno, where.col_offset
        node.end_lineno, node.end_col_offset = where.end_lineno, where.end_col_offset


def _locate_parts(node: ast.AST, where: ast.AST) -> None:
    """Gives the new nodes under ``node`` the place ``where``; what has a place has one in all of its parts."""
    for part in children(node):
        if not hasattr(part, "lineno"):
            _place(part, where)
            _locate_parts(part, where)


def load(name: str) -> ast.Name:
    return ast.Name(name, LOAD)


def assign(name: str, value: ast.expr, where: ast.AST) -> ast.stmt:
    return located(ast.Assign([ast.Name(name, ast.Store())], value), where)


def runtime(name: str, where: ast.AST) -> ast.expr:
    """A function of the runtime (``dflow.tracing.runtime``)."""
    return located(ast.Attribute(load("dflow__"), name, LOAD), where)


def filler(name: str, where: ast.AST) -> ast.expr:
    """The value of a variable that nothing reads before it is set."""
    return located(ast.Call(runtime("filler", where), [ast.Constant(name)], []), where)


def none_of(flags: Any) -> ast.expr:
    names: list[ast.expr] = [load(f) for f in sorted(flags)]
    return ast.UnaryOp(ast.Not(), names[0] if len(names) == 1 else ast.BoolOp(ast.Or(), names))
