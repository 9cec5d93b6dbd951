"""Rewrites functions once, so that control flow, calls and item assignments go through ``dflow.tracing.runtime``.

The rewritten function has the name, file, lines, globals, closure cells and defaults of the original. Statements with
blocks become local functions that share the variables of the function around them (``nonlocal``), each with a way to
read and to set the variables that it assigns:

    if c:              def then(): nonlocal y; y = 1
        y = 1    ->    def otherwise(): nonlocal y; y = 2
    else:              def read(): return (y,)
        y = 2          def write(values): nonlocal y; (y,) = values
                       dflow__.if_(c, then, otherwise, read, write, ("y",), ("y",))
"""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import sys
import time
import types
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from dflow.errors import TraceError, failure
from dflow.ir.core import Location
from dflow.tracing.source.blocks import Blocks
from dflow.tracing.source.jumps import located

RUNTIME = "dflow__"
FUNCTION = "_dflow_function"  # the name while compiling, which must not hide a global of the same name


def rewritten(function: types.FunctionType) -> types.FunctionType:
    """The function with its source rewritten; itself when there is no source."""
    code = function.__code__
    if RUNTIME in code.co_freevars:
        return function
    new = _rewritten_code(code, code.co_filename, function.__qualname__)
    if new is None:
        return function
    cells = dict(zip(code.co_freevars, function.__closure__ or ()))
    cells[RUNTIME] = _runtime_cell()
    closure = tuple(cells[name] for name in new.co_freevars)
    out = types.FunctionType(new, function.__globals__, function.__name__, function.__defaults__, closure)
    out.__kwdefaults__ = function.__kwdefaults__
    out.__qualname__ = function.__qualname__
    out.__module__ = function.__module__
    return out


def is_user_code(function: types.FunctionType) -> bool:
    """Whether a function is to be rewritten: it is neither dflow's, a numeric library's nor Python's own."""
    return not (is_library(function.__module__) and is_library(home(function)))


def home(function: Any) -> str:
    """The module that a function is written in; ``functools.wraps`` gives it the name of another's."""
    if isinstance(function, types.FunctionType):
        return str(function.__globals__.get("__name__", ""))
    return getattr(function, "__module__", None) or ""


def is_library(module: str | None) -> bool:
    """Whether a module is dflow's, a numeric library's or Python's own, by its name."""
    package = (module or "").partition(".")[0]
    if module in PLAIN or (module or "").startswith("numpy.polynomial."):
        return False
    return package in LIBRARIES or package in sys.stdlib_module_names


# Modules of dflow's that are written as a user would write them. NumPy's polynomials are, too: plain Python on its
# other functions.
PLAIN = {
    "dflow.lax.control",
    "dflow.tracing.lists.totals",
    "dflow.transforms.revolve",
    "dflow.scipy.optimize",
    "dflow.solvers",
    "dflow.numpy.integer_functions",
    "dflow.numpy.fourier_blocks",
}
LIBRARIES = {"dflow", "numpy", "scipy", "optree"}


@lru_cache(maxsize=1)
def _runtime_cell() -> types.CellType:
    from dflow.tracing import runtime

    return types.CellType(runtime)


@lru_cache(maxsize=4096)
def _rewritten_code(code: types.CodeType, file: str, qualname: str) -> types.CodeType | None:
    """``file`` is there for the cache: code objects of two files with the same text are equal."""
    if code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        return None
    node = _find(code)
    if node is None:
        return None
    outer = qualname.split(".")[:-1]
    owner = outer[-1] if outer and outer[-1] != "<locals>" else None
    function = Blocks(owner).function_of(node, FUNCTION)
    free = sorted({*code.co_freevars, RUNTIME})
    factory = ast.FunctionDef(
        "factory",
        ast.arguments([], [ast.arg(n) for n in free], None, [], [], None, []),
        [function, ast.Return(ast.Constant(None))],
        [],
    )
    module = ast.Module([located(factory, node)], [])
    compiled = compile(module, code.co_filename, "exec", flags=code.co_flags & _FUTURES, dont_inherit=True)
    made = next(c for c in compiled.co_consts if isinstance(c, types.CodeType))
    result = next(c for c in made.co_consts if isinstance(c, types.CodeType) and c.co_name == FUNCTION)
    return result.replace(co_name=code.co_name, co_qualname=code.co_qualname)


_FUTURES = 0x1FF0000  # the flags of `from __future__ import ...`


# -- finding the source ------------------------------------------------------------------------------------------


def _find(code: types.CodeType) -> ast.FunctionDef | ast.Lambda | None:
    """The definition of a code object in its file."""
    source = _brought_along(code)
    if source is None:
        linecache.checkcache(code.co_filename)
        source = "".join(linecache.getlines(code.co_filename))
        if not source:
            return None
        if not _is_compiled_from(code, source):
            raise failure(
                TraceError,
                f"the source of {code.co_name} is not what Python runs: its file has changed since it was imported",
                mend="import the module again (importlib.reload), or start Python anew",
                location=Location(code.co_filename, code.co_firstlineno, function=code.co_name),
            )
    found = [n for n in _functions_at(source, code.co_firstlineno) if _matches(n, code)]
    if len(found) > 1:  # the innermost: one lambda may stand in another
        found = sorted((n for n in found if _holds(n, code)), key=lambda n: (n.lineno, n.col_offset), reverse=True)
    return found[0] if found else None


def return_of(function: Any) -> Location | None:
    """The place of what the function returns, if it has one ``return``."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    node = _find(code) if code is not None else None
    if node is None or code is None:
        return None
    found = [node.body] if isinstance(node, ast.Lambda) else [n.value for n in returns(node)]
    value = found[0] if len(found) == 1 else None
    if value is None:
        return None
    end = value.end_col_offset or 0 if value.end_lineno == value.lineno else 0
    return Location(code.co_filename, value.lineno, value.col_offset, end, code.co_name)


def returns(node: ast.AST) -> list[ast.Return]:
    """The ``return`` statements of a function, without those of functions in it."""
    found = []
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.Return):
            found.append(inner)
        elif not isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            found += returns(inner)
    return found


brought: dict[str, tuple[str, ...]] = {}  # what the files of pickled functions held where they come from


def _brought_along(code: types.CodeType) -> str | None:
    texts = brought.get(code.co_filename, ())
    return next((text for text in texts if _is_among(code, text)), None)


def _is_compiled_from(code: types.CodeType, source: str) -> bool:
    """Whether ``source`` is what ``code`` was made from.

    It is when its file is older than this process. Otherwise it is compiled again, and compared; names with an ``@``
    come from tools that add code of their own to a module (pytest to each ``assert``), and prevent that.
    """
    try:
        if os.stat(code.co_filename).st_mtime < _STARTED:
            return True
    except OSError:  # a cell of a notebook, say, which cannot change
        return True
    if any("@" in name for name in (*code.co_names, *code.co_varnames)):
        return True
    return _is_among(code, source)


_STARTED = time.time()


def _is_among(code: types.CodeType, source: str) -> bool:
    """Whether ``code`` is of a module with this source, compiled as a whole or each statement by itself, as notebooks
    do it: an import beside a function changes how it is compiled."""
    flags = code.co_flags & _FUTURES
    return code in _codes(source, flags, True) or code in _codes(source, flags, False)


@lru_cache(maxsize=64)
def _codes(source: str, flags: int, whole: bool) -> frozenset[types.CodeType]:
    tree = _parsed(source)
    if tree is None:
        return frozenset()
    parts = [tree] if whole else [ast.Module([statement], []) for statement in tree.body]
    found = [compile(part, "<source>", "exec", flags=flags, dont_inherit=True) for part in parts]
    for code in found:  # which grows
        found += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return frozenset(found)


def _functions_at(source: str, line: int) -> Iterator[Any]:
    tree = _parsed(source)
    for node in _functions(tree):
        decorators = getattr(node, "decorator_list", [])
        if min([node.lineno, *(d.lineno for d in decorators)]) == line:
            yield node


@lru_cache(maxsize=64)
def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


@lru_cache(maxsize=64)
def _functions(tree: ast.Module | None) -> tuple[Any, ...]:
    nodes = ast.walk(tree) if tree is not None else ()
    return tuple(n for n in nodes if isinstance(n, ast.FunctionDef | ast.Lambda))


def _matches(node: ast.FunctionDef | ast.Lambda, code: types.CodeType) -> bool:
    name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
    a = node.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return name == code.co_name and len(names) == len(given)


def _holds(node: ast.FunctionDef | ast.Lambda, code: types.CodeType) -> bool:
    """Whether the instructions of ``code`` stand inside the body of ``node`` and reach from its start to its end."""
    spots = [(p[0], p[2]) for p in code.co_positions() if p[0] is not None and p[2] is not None and p[3] != 0]
    body = node.body if isinstance(node, ast.Lambda) else node
    start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    spots = [s for s in spots if s[1] or s[0] != code.co_firstlineno]
    return bool(spots) and min(spots) >= start and max(spots) < end
