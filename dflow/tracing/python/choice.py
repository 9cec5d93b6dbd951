"""Values that are chosen when the program runs: texts, functions, members of an Enum, objects of several classes.

An ``if`` whose branches leave such in a variable makes a ``Choice`` of them, and so does a loop that assigns them, and
a list of functions that is indexed by a traced number. Whatever is done with a choice is done with each of its
options, in a branch of its own (``control/switch.py``).
"""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Sequence
from typing import Any

from dflow.errors import DflowError, NeedsStatic, failure
from dflow.records import is_record
from dflow.tracing.python.reading import gives_operators


class Standing:
    """The base of what stands in a list for items that are traced; it is nothing to choose."""

    __slots__ = ()


class Choice:
    """The one of ``options`` at position ``index``, a traced integer (or a known one)."""

    __slots__ = ("index", "options")

    index: Any
    options: tuple[Any, ...]

    def __init__(self, index: Any, options: Sequence[Any]):
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "options", tuple(options))

    def refused(self) -> DflowError:
        """Where it is wanted while tracing which of them it is."""
        return failure(
            NeedsStatic,
            "a value that is chosen when the program runs is needed while tracing",
            seen=repr(self),
            mend="compare it (==, in), call it, or ask for its attributes; or do in the branch what hangs on it",
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.refused()

    def __setattr__(self, name: str, value: Any) -> None:
        raise self.refused()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from dflow.tracing.python.calls import call

        return call(self, *args, **kwargs)

    def __eq__(self, other: object) -> Any:
        from dflow.tracing.control.logic import comparison

        return comparison("eq", self, other)

    def __ne__(self, other: object) -> Any:
        from dflow.tracing.control.logic import comparison

        return comparison("ne", self, other)

    def __hash__(self) -> int:
        raise self.refused()

    def __repr__(self) -> str:
        return f"one of {', '.join(map(_named, self.options))}"


def _refuse(x: Any) -> Any:
    if isinstance(x, Choice):
        raise x.refused()
    return x


gives_operators(Choice, _refuse, but=("eq", "ne"))


def _named(x: Any) -> str:
    return getattr(x, "__name__", None) or (repr(x) if is_fixed(x) else type(x).__name__)


def is_fixed(x: Any) -> bool:
    """Whether ``x`` is an option without parts: what can be done with it does not change what it is."""
    return isinstance(x, _FIXED) or (callable(x) and not isinstance(x, Standing) and not is_record(x))


_FIXED = str | bytes | enum.Enum | types.ModuleType | range


def is_option(x: Any) -> bool:
    """Whether ``x`` can be one of several: it is neither a number or an array nor a container of such."""
    if isinstance(x, Choice):
        return True
    from dflow.tracing.control.state import Undefined, is_number
    from dflow.tracing.python.optional import Optional

    if x is None or isinstance(x, Undefined | Optional | list | tuple | dict | set) or is_number(x):
        return False
    return is_fixed(x) or is_record(x)


def options_of(x: Any) -> tuple[Any, ...]:
    return x.options if isinstance(x, Choice) else (x,)


def same_option(a: Any, b: Any) -> bool:
    """Whether two options without parts are one."""
    if a is b:
        return True
    if type(a) is not type(b) or not is_fixed(a):
        return False
    if isinstance(a, types.FunctionType):
        return a.__code__ is b.__code__ and _sees(a) == _sees(b)
    if isinstance(a, types.MethodType):
        return a.__func__ is b.__func__ and a.__self__ is b.__self__
    return isinstance(a, str | bytes | range | functools.partial) and bool(a == b)


def _sees(f: types.FunctionType) -> list[int]:
    """What a function has from where it was made: the same cells and defaults make it the same function."""
    return [*map(id, f.__closure__ or ()), id(f.__globals__), id(f.__defaults__), id(f.__kwdefaults__)]


def position(x: Any, options: Sequence[Any]) -> int | None:
    """Where an option without parts stands."""
    return next((k for k, o in enumerate(options) if same_option(x, o)), None)


def joined(options: Sequence[Any], more: Sequence[Any]) -> tuple[Any, ...]:
    """All options of both, each once."""
    found = list(options)
    found += [x for x in more if position(x, found) is None]
    return tuple(found)
