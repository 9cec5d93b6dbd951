"""The variables of a block: undefined ones, trees of values, and Python objects that must not change unnoticed."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any

import numpy as np
import optree

from dflow import trees
from dflow.errors import UndefinedError, failure, user_location
from dflow.ir.types import kind_of
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.views import same_steps
from dflow.tracing.context import builder
from dflow.tracing.python.choice import Choice
from dflow.tracing.python.optional import Optional
from dflow.tracing.python.reading import gives_operators


class Undefined:
    """The value of a variable that has none here. ``filler`` marks one that may take any value (it is never used).

    ``perhaps`` is a pair for a variable that has a value in some runs of the program: whether, and which.
    """

    def __init__(
        self,
        name: str,
        reason: str | None = None,
        mend: str | None = None,
        filler: bool = False,
        perhaps: tuple[Array, Any] | None = None,
    ):
        self.perhaps = perhaps
        self.location = user_location() if reason else None
        self.name = name
        self.reason = reason
        self.mend = mend
        self.filler = filler

    def read(self) -> Any:
        """The value, and a check that there is one when the program runs."""
        if self.perhaps is None:
            raise self.error()
        defined, value = self.perhaps
        builder().check(defined.value, error="UnboundLocalError", message=f"{self.reason}; {self.mend}")
        return value

    def error(self) -> UndefinedError:
        reason = self.reason or f"variable {self.name!r} has no value yet"
        mend = self.mend or "assign it before"
        location = self.location if self.name.startswith("_dflow") else None  # a result is not read by the user's code
        return failure(UndefinedError, reason, mend=mend, location=location)  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"<undefined {self.name}>"

    __hash__ = object.__hash__


def load(value: Any) -> Any:
    """Reads a variable that may be undefined."""
    if isinstance(value, Undefined):
        return value.read()
    return value


gives_operators(Undefined, load)
UNSET = Undefined("result", filler=True)


class Forgotten(Undefined):
    """A part of an object that must not be read any more, and what it ``was``; see ``lists/forgotten.py``."""

    def __init__(self, name: str, was: Any, reason: str, mend: str):
        super().__init__(name, reason, mend)
        self.was = was


def line_of_block() -> str:
    location = user_location()
    return f"line {location.line}" if location else "an unknown line"


def flatten(value: Any) -> tuple[list[Any], Any]:
    """The leaves (with every None) and the structure of a tree."""
    return trees.flatten(value, none_is_leaf=True)


def unflatten(structure: Any, leaves: Iterable[Any]) -> Any:
    return optree.tree_unflatten(structure, leaves)


def is_number(x: Any) -> bool:
    """Whether ``x`` can become a traced value."""
    if isinstance(x, np.ndarray | np.generic):
        return kind_of(x.dtype) in "biufc"
    return isinstance(x, Array | bool | int | float | complex)


def same(a: Any, b: Any) -> bool:
    """Whether two leaves are one and the same, so that nothing needs to be decided between them."""
    if a is b:
        return True
    if isinstance(a, Array) and isinstance(b, Array):
        return a.cell is b.cell and same_steps(a.steps, b.steps)
    if type(a) is not type(b) or isinstance(a, Array | np.ndarray | Undefined | Optional | Choice):
        return False
    try:
        return bool(a == b)
    except Exception:
        return False


def describe(x: Any) -> str:
    """A leaf, for messages."""
    if isinstance(x, Array):
        return str(x.type)
    if isinstance(x, tuple | list) and type(x) in (tuple, list):
        parts = ", ".join(map(describe, x))
        return f"({parts})" if isinstance(x, tuple) else f"[{parts}]"
    if type(x) is dict:
        return "{" + ", ".join(f"{k!r}: {describe(v)}" for k, v in x.items()) + "}"
    if x is None:
        return "None"
    if isinstance(x, Choice):
        return repr(x)
    if isinstance(x, Optional):
        return f"{describe(x.value)} or None"
    if isinstance(x, types.FunctionType):
        return f"the function {x.__name__}"
    return f"{type(x).__name__} {x!r}"[:60]
