"""The variables of a traced loop, leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dflow.tracing.array import Array
from dflow.tracing.branches import Get, Set
from dflow.tracing.context import Cell
from dflow.tracing.state import Undefined, unflatten


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
    weak: bool
    read: bool = True  # whether iterations read it
    final: Any = None
    landed: Any = None  # the array that the variable is after the loop, when variables traded places

    @property
    def type(self) -> Any:
        return self.cell.value.type


class Again(Exception):
    """Something was learnt: the body is to be traced once more."""


@dataclass
class Variable:
    """A variable that iterations read: its structure, and its leaves, slots or static values."""

    name: str
    value: Any
    structure: Any
    leaves: list[Any]

    def start(self) -> Any:
        leaves = [slot_array(x) if isinstance(x, Slot) else x for x in self.leaves]
        return unflatten(self.structure, leaves)


def slot_array(slot: Slot) -> Array:
    return Array(slot.cell, slot.type, weak=slot.weak)


@dataclass
class Learnt:
    """What earlier attempts found out, by variable and leaf."""

    types: dict[tuple[str, int], tuple[Any, bool]] = field(default_factory=dict)  # dtype, weak
    shared: set[str] = field(default_factory=set)  # variables to be left as they are: other names for their arrays
    static: set[tuple[str, int]] = field(default_factory=set)  # numbers that do not change
    counted: bool = False  # whether the iterations of a `while` are to be counted


def is_kept(slot: Slot) -> bool:
    """Whether the variable is the array that it was."""
    return isinstance(slot.initial, Array) and slot.final.cell is slot.cell and slot.initial.ndim > 0


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
