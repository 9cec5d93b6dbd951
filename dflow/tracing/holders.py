"""Mutable Python objects that a branch or a loop changes: lists, dicts, attributes, variables of other functions.

Their contents then count among the variables of the block, as if the program had read them into local variables before
it and written them back after. An object inside a changed object stays the same object as long as nothing else is put
in its place.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dflow.errors import CarriedError, DflowError, failure
from dflow.tracing.state import CONTAINERS, SlotAttributes, Snapshot, Undefined

if TYPE_CHECKING:
    from dflow.tracing.slots import Loop


MARK = " from outside "  # in the name of every holder, which no variable of Python's has


def refused(name: str, where: str, seen: str | None = None) -> DflowError:
    """The error for an object whose change cannot be followed; ``name`` is its holder's."""
    return failure(
        CarriedError,
        f"a {name.partition(MARK)[0]} from outside is changed inside a {where} that is traced",
        seen=seen,
        mend="fill an array made before the loop, or assign a new value to a variable",
    )


class Kept:
    """A mutable object inside another, as a leaf: which one it is matters, not what it holds."""

    def __init__(self, item: Any):
        self.item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and self.item is other.item

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self.item).__name__}"


@dataclass(frozen=True)
class Holder:
    """One changed object. ``deep``: the objects in it are replaced too, so their contents are variables as well."""

    item: Any  # a list, a dict (perhaps of an object's attributes) or the cell of a variable
    name: str
    deep: bool = False

    def get(self) -> Any:
        if isinstance(self.item, types.CellType):
            return self.taken(self.item.cell_contents)
        if isinstance(self.item, list | deque):
            return [self.taken(x) for x in self.item]
        return {k: self.taken(x) for k, x in self.item.items()}

    def put(self, value: Any) -> None:
        if isinstance(value, Undefined):
            raise value.error()
        if isinstance(self.item, types.CellType):
            self.item.cell_contents = _given(value)
        elif isinstance(self.item, list | deque):
            given = [_given(x) for x in value]
            self.item.clear()
            self.item.extend(given)
        else:
            named = {k: _given(x) for k, x in value.items()}
            self.item.clear()
            self.item.update(named)

    def taken(self, x: Any) -> Any:
        return Kept(x) if not self.deep and _is_mutable(x) else x

    def items(self) -> list[Any]:
        if isinstance(self.item, types.CellType):
            return [self.item.cell_contents]
        return list(self.item if isinstance(self.item, list | deque) else self.item.values())


def _given(x: Any) -> Any:
    if isinstance(x, Undefined):
        raise x.error()
    return x.item if isinstance(x, Kept) else x


def _is_mutable(x: Any) -> bool:
    return isinstance(x, CONTAINERS) or (hasattr(x, "__dict__") and not callable(x) and not isinstance(x, type))


class Changed(Exception):
    """A block has changed objects from outside: it is to be traced again with their contents as variables."""


class Holders:
    """The objects that a block is known to change."""

    def __init__(self, where: str):
        self.where = where  # what the block is, for messages
        self.known: list[Holder] = []

    def check(self, snapshot: Snapshot) -> None:
        """Raises Changed when objects have been changed that were not known; they are then as they were before."""
        known = [h.item for h in self.known]
        found = [x for x in snapshot.changed() if not any(x is k for k in known)]
        if not found:
            return
        snapshot.restore()
        for x in found:
            if not isinstance(x, list | deque | dict | types.CellType):
                kind = type(x.owner) if isinstance(x, SlotAttributes) else type(x)
                raise refused(f"{kind.__name__}{MARK}", self.where)
        for x in found:
            what = "variable of another function" if isinstance(x, types.CellType) else type(x).__name__
            self.known.append(Holder(x, f"{what}{MARK}{len(self.known)}"))
        raise Changed

    def deepen(self) -> bool:
        """Follows the objects inside the changed ones too; whether that is new, and can be done.

        An object that is both changed and replaced cannot be followed: it may go on under another name.
        """
        inside = [x for h in self.known for x in h.items() if _is_mutable(x)]
        both = any(h.item is x or h.item is getattr(x, "__dict__", h) for h in self.known for x in inside)
        shallow = any(not h.deep for h in self.known) and not both
        self.known = [replace(h, deep=shallow) for h in self.known]
        return shallow

    @property
    def names(self) -> list[str]:
        return [h.name for h in self.known]

    def reading(self, get: Callable[[], Sequence[Any]]) -> Callable[[], tuple[Any, ...]]:
        return lambda: (*get(), *(h.get() for h in self.known))

    def writing(self, put: Callable[[Sequence[Any]], None], count: int) -> Callable[[Sequence[Any]], None]:
        """A setter of ``count`` variables and, after them, of the objects."""

        def set_all(values: Sequence[Any]) -> None:
            put(values[:count])
            for h, value in zip(self.known, values[count:]):
                h.put(value)

        return set_all

    def with_loop(self, loop: Loop) -> Loop:
        return replace(
            loop,
            get=self.reading(loop.get),
            put=self.writing(loop.put, len(loop.names)),
            names=(*loop.names, *self.names),
            live_in=(*loop.live_in, *self.names),
            live_out=(*loop.live_out, *self.names),
        )
