"""Source text that travels with pickled functions.

Functions of a script or a notebook are pickled by value (``cloudpickle``), and arrive where their file is not, or is
another. dflow compiles from source, so a pickled transformation brings the text along.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from dflow.programs.identity import is_transformed, mentioned
from dflow.tracing.source.rewrite import brought, is_library, is_user_code

MAX_NODES = 5000  # values looked at for one function


def name_of(x: Any) -> str | None:
    """The name that stands for ``x`` in the pickle that is being written, when there is one that leads to it.

    ``cloudpickle`` (also under the roof of joblib or Ray) writes what belongs to ``__main__`` by value.
    """
    writer = sys._getframe(2).f_globals.get("__name__", "")
    name = getattr(x, "__qualname__", "")  # a partial has none
    if x.__module__ == "__main__" and "cloudpickle" in writer:
        return None
    with contextlib.suppress(AttributeError, KeyError):
        return name if attrgetter(name)(sys.modules[x.__module__]) is x else None
    return None


def sources(function: Any) -> dict[str, str]:
    """The files, with their text, of all functions that ``function`` reaches and that no import finds."""
    files = {f.__code__.co_filename for f in _functions(function) if not _is_imported(f)}
    texts = {name: "".join(linecache.getlines(name)) for name in sorted(files)}
    return {name: text for name, text in texts.items() if text}


def remade(texts: dict[str, str], function: Callable[..., Any], make: Callable[..., Any], *options: Any) -> Any:
    """A transformation where it arrives: ``make(function, *options)``, with the text that came with it."""
    for name, text in texts.items():
        brought[name] = tuple(dict.fromkeys((text, *brought.get(name, ()))))
        if not linecache.getlines(name):  # for messages
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return make(function, *options)


def _is_imported(f: types.FunctionType) -> bool:
    """Whether a pickle holds the name of ``f`` alone."""
    try:
        return f.__module__ != "__main__" and attrgetter(f.__qualname__)(sys.modules[f.__module__]) is f
    except (AttributeError, KeyError):
        return False


def _functions(x: Any) -> Iterator[types.FunctionType]:
    """The functions, none of libraries, that are reached from ``x``."""
    seen: dict[int, Any] = {}
    todo = [x]
    while todo and len(seen) < MAX_NODES:
        x = todo.pop()
        if id(x) not in seen:
            seen[id(x)] = x
            if isinstance(x, types.FunctionType) and is_user_code(x):
                yield x
            todo += _reached(x)


def _reached(x: Any) -> list[Any]:
    """What ``x`` refers to."""
    if isinstance(x, types.FunctionType):
        return _named(x) if is_user_code(x) else []
    if is_transformed(x):
        return [x.function]
    if isinstance(x, types.MethodType):
        return [x.__func__, x.__self__]
    if isinstance(x, functools.partial):
        return [x.func, *x.args, *x.keywords.values()]
    if isinstance(x, list | tuple):
        return list(x)
    if isinstance(x, dict):
        return list(x.values())
    if isinstance(x, type):
        return [] if is_library(x.__module__) else [v for c in x.__mro__ for v in vars(c).values()]
    if isinstance(x, types.ModuleType):  # pickled by name
        return []
    return [type(x), *getattr(x, "__dict__", {}).values()]


def _named(f: types.FunctionType) -> list[Any]:
    table = f.__globals__
    named = [table[name] for name in mentioned(f.__code__) if name in table]
    for cell in f.__closure__ or ():
        with contextlib.suppress(ValueError):  # not bound yet
            named.append(cell.cell_contents)
    return [*named, *(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()]


__all__ = ["remade", "sources"]
