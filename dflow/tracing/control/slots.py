"""The variables of a traced loop, leaf by leaf."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from dflow.tracing.arrays.array import Array
from dflow.tracing.context import Cell
from dflow.tracing.control.branches import Assigned, Get, Set
from dflow.tracing.control.state import Undefined
from dflow.tracing.python.objects import Place

Path = tuple[Any, ...]  # where a leaf stands: the name of the variable, keys


@dataclass(frozen=True)
class Loop:
    """What the rewritten source says of a loop.

    ``live_in`` are the variables that an iteration may read from the one before, ``live_out`` those used after the
    loop, ``flags`` those that end it; ``uses`` gives the values of all variables that the body reads.
    """

    get: Get
    put: Set
    names: Sequence[str]
    live_in: Sequence[str]
    live_out: Sequence[str]
    flags: Sequence[str]
    uses: Callable[[], Sequence[Any]] = tuple

    @property
    def assigned(self) -> Assigned:
        """The same of an ``if`` in the place of the loop, with an iteration in it and perhaps others after it."""
        return Assigned(self.get, self.put, self.names, [*self.live_in, *self.live_out, *self.flags], self.uses)

    def stopped(self) -> Any:
        """Whether a flag says that the loop is over."""
        state = dict(zip(self.names, self.get()))
        found: Any = False
        for flag in (state[f] for f in self.flags):
            if isinstance(flag, Undefined):
                continue
            if not isinstance(flag, Array):
                if flag:
                    return True
                continue
            found = flag if found is False else found | flag
        return found


@dataclass
class Slot:
    """One leaf of a loop's variable: its cell, what it was on entry, and what the body leaves in it."""

    name: str
    cell: Cell
    initial: Any
    weak: bool | None
    read: bool = True  # whether iterations read it
    final: Any = None
    landed: Any = None  # the array that the variable is after the loop, when variables traded places

    @property
    def type(self) -> Any:
        return self.cell.value.type


def with_arrays(slots: Sequence[Any]) -> list[Any]:
    """The slots in which the body leaves an array with axes."""
    return [s for s in slots if isinstance(s.final, Array) and s.final.ndim]


class Again(Exception):
    """Something was learnt: the body is to be traced once more."""


@dataclass
class Node:
    """A part of a variable that is taken apart itself."""

    kind: Any
    parts: dict[Any, Any]  # nodes, slots and static values
    made: Callable[[dict[Any, Any]], Any]
    origin: Any  # the object on entry
    final: Any = None  # the one that the body leaves

    def built(self, value: Callable[[Any], Any], objects: dict[int, Any]) -> Any:
        """The object with ``value(leaf)`` for its leaves; ``objects`` gets it by the id of the node."""
        inner = {k: p.built(value, objects) if isinstance(p, Node) else value(p) for k, p in self.parts.items()}
        objects[id(self)] = made = self.made(inner)
        return made


@dataclass
class Variable:
    """A variable that iterations read: a node, a slot, or a static value."""

    name: str
    value: Any
    tree: Any

    def built(self, value: Callable[[Any], Any], objects: dict[int, Any]) -> Any:
        return self.tree.built(value, objects) if isinstance(self.tree, Node) else value(self.tree)

    def leaves(self) -> list[Any]:
        return [leaf for leaf in _leaves(self.tree)]

    def nodes(self) -> list[Node]:
        return [node for node in _nodes(self.tree)]


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Node):
        for p in tree.parts.values():
            yield from _leaves(p)
    else:
        yield tree


def _nodes(tree: Any) -> Iterator[Node]:
    if isinstance(tree, Node):
        yield tree
        for p in tree.parts.values():
            yield from _nodes(p)


def at_start(x: Any) -> Any:
    """A leaf at the start of an iteration."""
    return slot_array(x) if isinstance(x, Slot) else x


def slot_array(slot: Slot) -> Array:
    return Array(slot.cell, slot.type, weak=slot.weak)


@dataclass
class Learnt:
    """What earlier attempts found out, by variable and leaf."""

    types: dict[Path, tuple[Any, bool | None]] = field(default_factory=dict)  # dtype, weak
    shared: set[str] = field(default_factory=set)  # variables to be left as they are: other names for their arrays
    static: set[Path] = field(default_factory=set)  # numbers that do not change
    opened: dict[int, Any] = field(default_factory=dict)  # objects that are replaced: what counts is their contents
    itemwise: set[int] = field(default_factory=set)  # lists whose items are carried one by one
    forgotten: dict[int, tuple[Any, str]] = field(default_factory=dict)  # sorted objects, by the variable they stand in
    shrinking: dict[Path, frozenset[int]] = field(default_factory=dict)  # axes along which arrays become smaller
    strided: set[Path] = field(default_factory=set)  # arrays that the body leaves in another order of axes
    places: dict[Place, None] = field(default_factory=dict)  # parts of objects that the body changes
    growing: dict[int, Any] = field(default_factory=dict)  # lists to which every iteration appends
    optional: dict[Path, Callable[[], Any]] = field(default_factory=dict)  # parts that may be None: what else they are
    choices: dict[Path, tuple[Any, ...]] = field(default_factory=dict)  # parts that are one of several things
    carried: dict[str, None] = field(default_factory=dict)  # variables that count as read from the iteration before
    counted: bool = False  # whether the iterations of a `while` are to be counted

    def copy(self) -> Learnt:
        return Learnt(*(copy.copy(getattr(self, f.name)) for f in fields(self)))


def is_kept(slot: Slot) -> bool:
    """Whether the variable is the array that it was."""
    same = slot.final.cell is slot.cell and not slot.final.steps
    return isinstance(slot.initial, Array) and same and slot.initial.ndim > 0


def value_after(x: Any) -> Any:
    """A leaf after the loop."""
    if not isinstance(x, Slot):
        return x
    if x.landed is not None:
        return x.landed
    return x.initial if x.read and is_kept(x) else slot_array(x)


def has_value(x: Any) -> bool:
    """Whether iterations may read the variable from the ones before (a filler takes its type from the body)."""
    return not isinstance(x, Undefined) or x.filler
