"""The arrays that hold the items of lists to which a loop appends, one row an item; see ``growing`` and ``filling``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dflow.errors import CarriedError, DflowError, failure
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import Cell, Region, builder, region
from dflow.tracing.control.slots import Slot, slot_array, with_arrays
from dflow.tracing.control.state import unflatten
from dflow.tracing.lists import rows
from dflow.tracing.lists.items import Growth, Held, Packed, Static, containers, fits, flattened
from dflow.tracing.lists.sequences import Inside

if TYPE_CHECKING:
    from dflow.tracing.control.traced_loop import TracedLoop


class Stacks(ABC):
    """A list that a loop makes longer, in one attempt at tracing the loop: a slot for each leaf of its items."""

    def __init__(self, growth: Growth, traced: TracedLoop):
        self.growth, self.traced = growth, traced
        self.active = growth.filled  # whether the loop is being traced, and fills the list as it goes
        self.target = growth.target
        self.before = list(self.target)
        merged = self.initial()
        self.first = 0 if merged is None else len(merged)  # the items from before that stand in the stacks
        size = self.first + self.added
        self.slots: list[Slot | None] = []
        for k, leaf in enumerate(growth.leaves):
            column = [item[k] for item in merged or ()]
            self.slots.append(self.stack(k, leaf, size, column) if isinstance(leaf, Held) else None)

    @property
    def added(self) -> int:
        """How many items there can be beside those that stand in the stacks on entry."""
        return self.growth.count * self.traced.most

    @property
    def all_slots(self) -> list[Slot]:
        return [s for s in self.slots if s is not None]

    def initial(self) -> list[list[Any]] | None:
        """The leaves of the items from before the loop, if they are such as the iterations append."""
        found = []
        for x in self.before:
            leaves, structure = flattened(x)
            if structure != self.growth.structure or not all(map(fits, self.growth.leaves, leaves)):
                return None
            found.append(leaves)
        return found

    def stack(self, k: int, leaf: Held, size: int, column: Sequence[Any]) -> Slot:
        """A slot for leaf ``k``: an array with a row for every item, those from before in their place."""
        value = builder().zeros(leaf.type.with_shape((size, *leaf.type.shape)))
        slot = Slot("list", Cell(value, self.traced.here), None, leaf.weak, read=False)
        slot.final = slot_array(slot)
        for i, x in enumerate(column):
            put(slot.final, i, x)
        return slot

    def item(self, position: Any) -> Any:
        """An item from before, by its position from the start."""
        growth = self.growth
        objects = containers(unflatten(growth.structure, growth.leaves))
        if not self.holds_all() or objects or any(x.packed for x in growth.held):
            raise self.refused()
        return unflatten(growth.structure, [self.leaf(k, position) for k in range(len(growth.leaves))])

    def holds_all(self) -> bool:
        """Whether the items from before stand in the stacks too."""
        return self.first == len(self.before)

    def leaf(self, k: int, position: Any) -> Any:
        leaf, slot = self.growth.leaves[k], self.slots[k]
        if isinstance(leaf, Static):
            return leaf.value
        assert slot is not None
        return rows.part(slot_array(slot), Inside(position), leaf.weak)

    @property
    @abstractmethod
    def least(self) -> int:
        """The fewest items that there can be at the start of an iteration."""

    @abstractmethod
    def length(self) -> Any:
        """The number of items that ``Earlier`` stands for."""

    @abstractmethod
    def refused(self) -> DflowError:
        """The error for what cannot be done with the list."""

    @abstractmethod
    def take(self) -> None:
        """Takes what the body has appended."""

    @abstractmethod
    def check(self, changed: set[Cell], ends_early: bool) -> None:
        """Refuses items that an update after this iteration would reach: in Python it would change the list."""

    @abstractmethod
    def write(self) -> None:
        """Writes what the iteration has appended to the stacks; at the end of the body."""

    @abstractmethod
    def finish(self) -> None:
        """The list after the loop."""

    def whole(self) -> Array:
        """All items, as one array."""
        raise self.refused()

    def columns(self) -> list[Array | None]:
        """Each leaf of all items, as one array; None for those that are the same in all."""
        raise self.refused()

    def one_by_one(self) -> list[Any]:
        """All items one by one, where it is known how many there are."""
        raise self.refused()

    def append(self, x: Any) -> None:
        """``xs.append(x)`` while the loop is traced, of a list that the loop fills."""
        raise self.refused()

    def pop(self) -> Any:
        """``xs.pop()`` of the same."""
        raise self.refused()

    def appended_arrays(self) -> list[Array]:
        """The arrays that stand in the items of an iteration."""
        return []

    def updated(self) -> DflowError:
        return failure(
            CarriedError,
            f"what is appended to a list in the loop at {self.traced.where} is updated in place by other iterations",
            mend="append a copy: xs.append(x.copy())",
        )

    def holding(self) -> list[Slot]:
        """The variables that hold, in later iterations or after the loop, arrays that an iteration has appended."""
        slots = [s for s in with_arrays(self.traced.slots) if s.final.cell is not s.cell]
        cells = {c for g in self.traced.growing for x in g.appended_arrays() for c in (x.cell, *x.cell.copies)}
        found: list[Slot] = []
        todo = list(slots)
        while todo:
            new = [s for s in todo if s not in found and cells.intersection((s.final.cell, *s.final.cell.copies))]
            found += new
            cells = {s.cell for s in new}
            todo = slots if new else []
        return found

    def check_names(self, changed: set[Cell]) -> None:
        """Refuses what would be an item of two lists, or twice of one, or is updated by later iterations."""
        held = {s.cell for s in self.holding()}
        for x in self.appended_arrays():
            if held & changed or held.intersection((x.cell, *x.cell.copies)):
                raise self.updated()

    def other_names(self, x: Array) -> list[Cell]:
        """What else may be, after the loop, the array ``x`` of the body."""
        slots = with_arrays(self.traced.slots)
        known = {s.cell: s for s in slots}
        found: list[Cell] = []
        for c in (x.cell, *x.cell.copies):
            found += [s.cell for s in slots if s.final.cell is c]
            if c in known:
                found += [known[c].initial.cell] if isinstance(known[c].initial, Array) else []
            elif not c.home.is_within(self.traced.region):
                found.append(c)
        return found

    def restore(self) -> None:
        self.target[:] = self.before


def held_outside(target: list[Any], here: Region) -> bool:
    """Whether the list comes from outside of a loop around what stands ``here``."""
    return any(r.loop is not None and target in r.loop.outside for r in here.around())


def put(stack: Array, position: Any, x: Any, count: int = 0) -> None:
    """Writes a row, or ``count`` rows, at a position inside."""
    b, here = builder(), region()
    at = b.index(position) if isinstance(position, int) else position.value
    entry = ("slice", count, 1) if count else "at"
    index = (entry, *["all"] * (stack.ndim - 1))
    value = _lift.convert((x.array if isinstance(x, Packed) else _lift.lift(x)).value, stack.type.dtype)
    here.write(stack.cell, b.update(here.read(stack.cell), value, at, index=index))
