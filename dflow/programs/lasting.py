"""Keys of programs that hold in every process: what a function means (``identity.py``), in names and contents alone.

A function has such a key when all that tracing it can depend on is known by value: its code, and that of all functions
of the user's that it reaches, with the constants, arrays, objects and classes in their closures, defaults and global
variables; functions and modules of Python's and of NumPy's and SciPy's that compute and do nothing else; and the types
and static values of the arguments. Where something else is reached (another library, a file, the environment, names
made while running), there is no key, and the function is traced in every process.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from dflow.programs.identity import Same, identity, imported
from dflow.programs.signature import Arguments, LeafType
from dflow.programs.treecode import is_plain
from dflow.tracing.source.rewrite import is_library
from dflow.transforms import custom

# Modules whose functions depend on their arguments alone.
LANGUAGE = frozenset({"__future__", "abc", "builtins", "collections", "copy", "dataclasses", "enum", "functools"})
PURE = LANGUAGE | {"cmath", "dflow", "itertools", "math", "numbers", "numpy", "operator", "scipy", "typing", "warnings"}
# Names by which code gets at what is not in it: what lies on disk, variables by their names, this very process.
READING = frozenset({"fromfile", "fromregex", "genfromtxt", "load", "loadmat", "loadtxt", "memmap", "open", "read_csv"})
WRITING = frozenset({"save", "savetxt", "savez", "savez_compressed", "tofile"})
MODULES = frozenset({"DataSource", "ctypeslib", "datasets", "import_module", "io", "modules", "__import__"})
BY_NAME = frozenset({"compile", "eval", "exec", "getattr", "globals", "locals", "vars", "__dict__", "__globals__"})
PROCESS = frozenset({"environ", "getenv", "hash", "id", "input", "__builtins__", "_getframe"})
IMPURE = READING | WRITING | MODULES | BY_NAME | PROCESS


class _NoName(Exception):
    """Something that no other process would know."""


def lasting_key(function: Callable[..., Any], recipe: Sequence[Any], arguments: Arguments) -> str | None:
    """The key of the program of ``function``, transformed by ``recipe``, for these arguments; None if there is none."""
    if not is_plain(arguments.spec) or custom.registered:
        return None
    meaning = identity(function)
    if meaning is None:
        return None
    try:
        signature = (str(arguments.spec), tuple(arguments.types), arguments.key.static)
        return "\n".join(_words((meaning, tuple(recipe), signature)))
    except _NoName:
        return None


def _words(x: Any) -> Iterator[str]:
    """The parts of a key as text, each with its type, so that no two keys read the same."""
    if x is None or isinstance(x, bool | int | float | complex | str | bytes):
        if type(x) not in (bool, int, float, complex, str, bytes, types.NoneType):
            raise _NoName
        yield f"{type(x).__name__} {x!r}"
    elif isinstance(x, tuple):
        yield f"({len(x)}"
        for part in x:
            yield from _words(part)
    elif isinstance(x, frozenset):
        yield f"set {sorted(' '.join(_words(part)) for part in x)}"
    elif isinstance(x, LeafType):
        yield f"leaf {x.type!r} {x.weak}"
    elif isinstance(x, types.CodeType):
        yield from _code(x)
    elif isinstance(x, Same):
        yield _name(x.value)
    elif isinstance(x, type) and not is_library(x.__module__):
        raise _NoName  # its contents are not part of the key
    else:
        yield _name(x)


@functools.lru_cache(maxsize=4096)
def _code(code: types.CodeType) -> tuple[str, ...]:
    if not IMPURE.isdisjoint(code.co_names):
        raise _NoName
    for module in imported(code):
        _require_pure(module)
    facts = (code.co_code, code.co_linetable, code.co_exceptiontable, code.co_firstlineno, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    return tuple(_words((code.co_filename, code.co_qualname, facts, names, counts, code.co_consts)))


def _name(x: Any) -> str:
    """The name of what is known by its name: library functions and modules, classes, dtypes."""
    if x is Ellipsis or x is NotImplemented:
        return repr(x)
    if isinstance(x, np.dtype):
        if x.hasobject or x.names:
            raise _NoName
        return f"dtype {x.str}"
    if isinstance(x, np.ufunc):
        return f"ufunc {_numpy_or_scipy(x)} {x.__name__}"
    if isinstance(x, types.ModuleType):
        return f"module {_require_pure(x.__name__) if is_library(x.__name__) else x.__name__}"
    if isinstance(x, type | types.BuiltinFunctionType | types.FunctionType):
        if not isinstance(x, type) or is_library(x.__module__):
            _require_pure(x.__module__ or "")
            _require_named(x)
        return f"{type(x).__name__} {x.__module__}:{x.__qualname__}"
    raise _NoName


def _require_named(x: Any) -> None:
    """Refuses what its name does not lead to: functions made while running, and methods of some object."""
    try:
        if attrgetter(x.__qualname__)(sys.modules[x.__module__]) is x:
            return
    except (AttributeError, KeyError):
        pass
    raise _NoName


def _numpy_or_scipy(ufunc: np.ufunc) -> str:
    """The module of a ufunc: not all know it."""
    if getattr(np, ufunc.__name__, None) is ufunc:
        return "numpy"
    special = sys.modules.get("scipy.special")
    if special is not None and getattr(special, ufunc.__name__, None) is ufunc:
        return _require_pure("scipy.special")
    raise _NoName


def _require_pure(module: str) -> str:
    """The module with the version of its package."""
    package = module.partition(".")[0]
    if package not in PURE:
        raise _NoName
    return f"{module} {getattr(sys.modules.get(package), '__version__', '')}"
