"""What a function means, as a key: equal keys, equal programs.

A lambda in a loop is a new object each time round, but compiling it anew is needed only when it, or something that it
refers to, is another: its code, closure, defaults, the global variables that it names, and so on through the functions,
objects and containers that it reaches. What cannot be compared by value, such as a random generator, makes a function
that cannot be shared.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import sys
import types
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import numpy as np

from dflow.backends.native.callable import NativeCallable
from dflow.programs.methods import BoundMethod
from dflow.tracing.source.rewrite import is_library, is_user_code

MAX_NODES = 5000  # values looked at for one key
MAX_BYTES = 1 << 24  # of arrays, which are compared by a digest
MAX_BINDINGS = 500

_PLAIN = bool | int | float | complex | str | bytes | None | types.EllipsisType | enum.Enum
_FIXED = types.BuiltinFunctionType | np.ufunc | np.dtype | types.GenericAlias | types.UnionType
_METHODS = staticmethod | classmethod


def is_transformed(x: Any) -> bool:
    """Whether ``x`` is a transformation of dflow's: its ``function`` by its ``recipe``."""
    return isinstance(x, NativeCallable) and hasattr(x, "recipe")


class _NotComparable(Exception):
    """Something whose contents cannot be looked at."""


def identity(function: Any) -> Hashable | None:
    """The key of a function as it is now; None when it cannot be known."""
    try:
        return _Walk().key(function, frozenset())
    except (_NotComparable, RecursionError):
        return None


class Same:
    """Equal when it is the same object, which is kept so that its address stays its own."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class _Walk:
    """Goes through everything that a function refers to, once."""

    def __init__(self) -> None:
        self.seen: dict[Any, int] = {}
        self.kept: list[Any] = []  # temporary objects, so that no address comes twice
        self.bytes = 0

    def key(self, x: Any, names: frozenset[str]) -> Hashable:
        """``names`` are those that the code around ``x`` mentions: of a module, only they matter."""
        if isinstance(x, _PLAIN):
            return (type(x), repr(x)) if not isinstance(x, enum.Enum) else Same(x)
        if isinstance(x, np.generic):
            return type(x), x.dtype.str, x.tobytes()
        if isinstance(x, _FIXED):
            return Same(x)
        place = id(x), names if isinstance(x, types.ModuleType) else None
        if place in self.seen:
            return "again", self.seen[place]
        self.seen[place] = len(self.seen)
        self.kept.append(x)
        if len(self.seen) > MAX_NODES:
            raise _NotComparable
        return self._compound(x, names)

    def _compound(self, x: Any, names: frozenset[str]) -> Hashable:
        if isinstance(x, np.ndarray):
            return self._array(x)
        if type(x) in (tuple, list):
            return type(x), self._keys(x, names)
        if type(x) is dict:
            return dict, self._keys((v for item in x.items() for v in item), names)
        if isinstance(x, types.FunctionType):
            return self._function(x)
        if isinstance(x, types.MethodType | BoundMethod):
            return "method", self._keys((x.__func__, x.__self__), names)
        if isinstance(x, functools.partial):
            return "partial", self._keys((x.func, x.args, x.keywords), names)
        if isinstance(x, types.ModuleType):
            return self._module(x, names)
        if isinstance(x, type):
            return self._class(x, names)
        if isinstance(x, _METHODS | property):
            return type(x), self._keys([x.fget, x.fset] if isinstance(x, property) else [x.__func__], names)
        if is_transformed(x):
            return x.recipe, self.key(x.function, names)
        return self._instance(x, names)

    def _keys(self, xs: Iterable[Any], names: frozenset[str]) -> Hashable:
        return tuple(self.key(x, names) for x in xs)

    def _array(self, x: np.ndarray[Any, Any]) -> Hashable:
        self.bytes += x.nbytes
        if x.dtype.hasobject or self.bytes > MAX_BYTES:
            raise _NotComparable
        digest = hashlib.blake2b(np.ascontiguousarray(x).view(np.uint8).data if x.size else b"", digest_size=32)
        return type(x), x.dtype.str, x.shape, digest.digest()

    def _function(self, f: types.FunctionType) -> Hashable:
        if not is_user_code(f):
            return Same(f)
        names = mentioned(f.__code__)
        found = [(name, self.key(value, names)) for _, name, value in _named(f, names)]
        cells = tuple(self._cell(c, names) for c in f.__closure__ or ())
        defaults = self._keys((*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).items()), names)
        found += [(name, self.key(value, names)) for name, value in sorted(vars(f).items()) if name in names]
        return f.__code__, f.__code__.co_filename, f.__qualname__, cells, defaults, tuple(found)

    def _cell(self, cell: types.CellType, names: frozenset[str]) -> Hashable:
        try:
            return self.key(cell.cell_contents, names)
        except ValueError:  # not bound yet
            return "unbound"

    def _module(self, x: types.ModuleType, names: frozenset[str]) -> Hashable:
        if is_library(x.__name__):
            return Same(x)
        own = vars(x)
        return Same(x), tuple((n, self.key(own[n], names)) for n in sorted(names & own.keys()))

    def _class(self, x: type, names: frozenset[str]) -> Hashable:
        found = []
        for cls in x.__mro__:
            if not is_library(cls.__module__):
                found += [(n, self.key(v, names)) for n, v in vars(cls).items() if _matters(n, v)]
        return Same(x), tuple(found)

    def _instance(self, x: Any, names: frozenset[str]) -> Hashable:
        cls = type(x)
        ours = cls.__module__.partition(".")[0] == "dflow"  # functions with derivative rules, checkpoints
        if (
            (is_library(cls.__module__) and not ours)
            or not hasattr(x, "__dict__")
            or any("__slots__" in vars(c) for c in cls.__mro__)
        ):
            raise _NotComparable
        attributes = [(k, v) for k, v in vars(x).items() if not k.startswith("__dflow")]
        return self.key(cls, names), self._keys(attributes, names)


def _matters(name: str, value: Any) -> bool:
    """Whether an attribute of a class can change what its methods compute."""
    dunder = name.startswith("__") and name.endswith("__")
    return isinstance(value, types.FunctionType) or not (
        dunder or isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType)
    )


# -- what names refer to -----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def mentioned(code: types.CodeType) -> frozenset[str]:
    """The names of global variables, attributes and modules in a function, with the functions inside of it."""
    inner = [mentioned(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return frozenset(code.co_names).union(*inner)


@functools.lru_cache(maxsize=4096)
def imported(code: types.CodeType) -> frozenset[str]:
    """The modules that a function imports, with the functions inside of it."""
    inner = [imported(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    own = _imports(code) if _IMPORT in code.co_code[::2] else ()
    return frozenset(own).union(*inner)


_IMPORT = dis.opmap["IMPORT_NAME"]


def _imports(code: types.CodeType) -> Iterator[str]:
    return (i.argval for i in dis.get_instructions(code) if i.opcode == _IMPORT)


def _named(f: types.FunctionType, names: frozenset[str]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """The global variables that a function names, and modules that it imports: where they are, name and value."""
    modules = imported(f.__code__)
    for name in sorted(names):
        table = f.__globals__ if name in f.__globals__ else sys.modules
        if table is f.__globals__ or (name in modules and name in table):
            yield table, name, table[name]


class Bindings:
    """What the names in a function refer to, and those in the functions that it names. ``hold()`` is quick: it tells
    whether all of them are still bound to the same objects, and does not look inside of these."""

    def __init__(self, function: Any):
        self.named: list[tuple[dict[str, Any], str, Any]] = []
        self.cells: list[tuple[types.CellType, Any]] = []
        self._seen: set[int] = set()
        self._add(function)

    def hold(self) -> bool:
        return all(table.get(name, self) is value for table, name, value in self.named) and all(
            _contents(cell) is value for cell, value in self.cells
        )

    def _add(self, x: Any) -> None:
        while not isinstance(x, types.FunctionType):
            inner = getattr(x, "__func__", None) or getattr(x, "function", None) or getattr(x, "func", None)
            if inner is None or inner is x:
                return
            x = inner
        if id(x) in self._seen or is_library(x.__module__) or len(self.named) > MAX_BINDINGS:
            return
        self._seen.add(id(x))
        names = mentioned(x.__code__)
        for table, name, value in _named(x, names):
            self._follow(table, name, value, names)
        for cell in x.__closure__ or ():
            self.cells.append((cell, _contents(cell)))
            self._add(self.cells[-1][1])

    def _follow(self, table: dict[str, Any], name: str, value: Any, names: frozenset[str]) -> None:
        if isinstance(value, types.ModuleType):
            if not is_library(value.__name__) and id(value) not in self._seen:
                self._seen.add(id(value))
                own = vars(value)
                for n in sorted(names & own.keys()):
                    self._follow(own, n, own[n], names)
            return
        self.named.append((table, name, value))
        self._add(value)


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
