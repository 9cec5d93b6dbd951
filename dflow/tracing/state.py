"""The variables of a block: undefined ones, trees of values, and Python objects that must not change unnoticed."""

from __future__ import annotations

import dataclasses
import operator
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import optree

from dflow.errors import UndefinedError, failure, user_location
from dflow.tracing.array import Array
from dflow.tracing.context import builder
from dflow.trees import NAMESPACE, register_dataclass

MOST_ITEMS = 10_000  # longer lists are tables of data: what stands in them is not followed


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


UNSET = Undefined("result", filler=True)


def load(value: Any) -> Any:
    """Reads a variable that may be undefined."""
    if isinstance(value, Undefined):
        return value.read()
    return value


def line_of_block() -> str:
    location = user_location()
    return f"line {location.line}" if location else "an unknown line"


def flatten(value: Any) -> tuple[list[Any], Any]:
    """The leaves and the structure of a tree."""
    leaves, structure = optree.tree_flatten(value, none_is_leaf=True, namespace=NAMESPACE)
    if any(map(register_dataclass, leaves)):
        return flatten(value)
    return leaves, structure


def unflatten(structure: Any, leaves: Iterable[Any]) -> Any:
    return optree.tree_unflatten(structure, leaves)


def is_number(x: Any) -> bool:
    """Whether ``x`` can become a traced value."""
    if isinstance(x, np.ndarray | np.generic):
        return x.dtype.kind in "biuf"
    return isinstance(x, Array | bool | int | float)


def same(a: Any, b: Any) -> bool:
    """Whether two leaves are one and the same, so that nothing needs to be decided between them."""
    if a is b:
        return True
    if isinstance(a, Array) and isinstance(b, Array):
        return a.cell is b.cell and a.steps == b.steps
    if type(a) is not type(b) or isinstance(a, Array | np.ndarray | Undefined):
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
    return f"{type(x).__name__} {x!r}"[:60]


class Snapshot:
    """The mutable Python objects that can be reached from some values, as they are now."""

    def __init__(self, values: Iterable[Any], variables: Iterable[str] = ()):
        self.saved: list[tuple[Any, Any]] = []
        self.cells: list[tuple[Any, Any]] = []  # variables of other functions, but for those named in `variables`
        self._variables = set(variables)
        self._seen: set[int] = set()
        for v in values:
            self._visit(v)

    def _visit(self, x: Any) -> None:
        if isinstance(x, types.FunctionType):
            return self._visit_closure(x)
        attributes = getattr(x, "__dict__", None) or _slots_of(x)
        if not isinstance(x, (*CONTAINERS, tuple)) and (
            not isinstance(attributes, dict | SlotAttributes)
            or isinstance(x, type)
            or callable(x)
            or type(x).__module__ in _FOREIGN
        ):
            return
        if id(x) in self._seen or len(self._seen) > 10_000:
            return
        self._seen.add(id(x))
        if isinstance(x, CONTAINERS):
            self.saved.append((x, x.copy()))
        elif not isinstance(x, tuple):
            self.saved.append((attributes, attributes.copy()))  # type: ignore[union-attr]
        mapping = x if isinstance(x, dict) else attributes
        if len(mapping or x) > MOST_ITEMS:
            return
        for item in x if isinstance(x, list | tuple | set | deque | bytearray) else (mapping or {}).values():
            self._visit(item)

    def _visit_closure(self, f: types.FunctionType) -> None:
        if id(f) in self._seen or (f.__module__ or "").partition(".")[0] == "dflow":
            return
        self._seen.add(id(f))
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or ()):
            if name.startswith(("dflow__", "_dflow")) or name in self._variables:
                continue
            try:
                contents = cell.cell_contents
            except ValueError:  # not bound yet
                continue
            self.cells.append((cell, contents))
            self._visit(contents)

    def changed(self) -> list[Any]:
        """The objects that are not as they were: lists, dicts, sets, and cells of variables of other functions."""
        cells = [cell for cell, then in self.cells if not same(cell.cell_contents, then)]
        return cells + [now for now, then in self.saved if not _alike(now, then)]

    def covers(self, item: Any) -> bool:
        """Whether ``item``, which another snapshot says has changed, is among what this one watches."""
        return any(now is item for now, _ in self.saved) or any(cell is item for cell, _ in self.cells)

    def restore(self) -> None:
        for cell, contents in self.cells:
            cell.cell_contents = contents
        for now, then in self.saved:
            now.clear()
            now.extend(then) if isinstance(now, list | deque | bytearray) else now.update(then)


CONTAINERS = (list, dict, set, deque, bytearray)
_FOREIGN = {"numpy", "builtins", "module"}


class SlotAttributes:
    """The attributes of an object with ``__slots__``, as a dict."""

    def __init__(self, owner: Any, names: Iterable[str]):
        self.owner = owner
        self.names = tuple(names)

    def copy(self) -> dict[str, Any]:
        return {n: getattr(self.owner, n) for n in self.names if hasattr(self.owner, n)}

    def __len__(self) -> int:
        return len(self.copy())

    def __iter__(self) -> Iterator[str]:
        return iter(self.copy())

    def __getitem__(self, name: str) -> Any:
        return getattr(self.owner, name)

    def values(self) -> Iterable[Any]:
        return self.copy().values()

    def clear(self) -> None:
        for n in self.copy():
            delattr(self.owner, n)

    def update(self, values: dict[str, Any]) -> None:
        for n, v in values.items():
            setattr(self.owner, n, v)


def _slots_of(x: Any) -> SlotAttributes | None:
    module = (type(x).__module__ or "").partition(".")[0]
    if isinstance(x, tuple) or module in (*_FOREIGN, "dflow", "optree") or dataclasses.is_dataclass(x):
        return None
    names = [n for c in type(x).__mro__ for n in _names(vars(c).get("__slots__", ())) if not n.startswith("__")]
    return SlotAttributes(x, names) if names else None


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _alike(now: Any, then: Any) -> bool:
    """Whether a list, dict or set holds what it did."""
    if len(now) != len(then):
        return False
    if isinstance(now, set):
        return bool(now == then)
    if isinstance(now, list | deque | bytearray):
        return all(map(operator.is_, now, then)) or all(map(same, now, then))
    return all(k in now and same(now[k], v) for k, v in then.items())
