"""Lists whose length is known only when the program runs: a loop appends to them in a branch, or may end early.

Their items are the rows of stacks with room for the most that there can be, and a number says how many there are. Where
nothing bounds how many there can be, as in a ``while``, there is room for some, and a check that it is enough. Such a
list holds one object (``Earlier``) in the place of its items, after the loop as in it: ``len(xs)``, ``xs[k]``,
``np.array(xs)`` and ``for x in xs`` are told by it, and anything else is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dflow.errors import CarriedError, DflowError, failure
from dflow.ir.types import I64, scalar
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import LOOP, Cell, Region, builder, region
from dflow.tracing.control.slots import Again, Slot, slot_array, with_arrays
from dflow.tracing.lists.earlier import Earlier, columns_of, earlier, item, length
from dflow.tracing.lists.growing import counted
from dflow.tracing.lists.items import Growth, Held, Static, common, containers, flattened, growth_of, held_as, joined
from dflow.tracing.lists.stacks import Stacks, held_outside, put
from dflow.tracing.python.objects import in_loop

if TYPE_CHECKING:
    from dflow.tracing.control.traced_loop import TracedLoop

UPDATED = "this array is an item of a list: an update would not reach the list"
ROOM = 1 << 16  # items of a list for which nothing says how many there can be
INNER_ROOM = 1 << 12  # the same in a loop: its rounds clear what derivatives add up there
UNBOUNDED = 0  # as the number of items that an iteration appends: nothing is known of it


class Filling(Stacks):
    """A list that a loop fills, in one attempt at tracing it, and afterwards."""

    def __init__(self, growth: Growth, traced: TracedLoop):
        known = earlier(growth.target)
        if known is not None and isinstance(known.length(), int):  # a table keeps its length
            raise known.refused()
        self.filled_before = columns_of(growth.target)
        super().__init__(growth, traced)
        if not self.goes_on():
            raise self.refused()
        here = traced.here
        count = builder().index(self.first if self.filled_before is None else length(self.before).value)
        self.fewest = 0 if growth.popped else int(here.known.interval(count)[0] or 0)
        self.number = Slot("count", Cell(count, here), None, True, read=False)
        self.number.final = slot_array(self.number)
        here.root().filled.append(self.number.cell)
        self.pops = growth.popped
        self.seen: list[int] = []  # how often an iteration runs each append that was traced, at most
        self.arrays: list[Array] = []
        self.other: Growth | None = None
        self.earlier = Earlier(self)
        self.target[:] = [self.earlier]

    def goes_on(self) -> bool:
        """Whether the items from before the loop stand in the stacks."""
        if self.filled_before is None:
            return self.first == len(self.before)
        old, new = self.filled_before[0], self.growth
        if old.structure != new.structure:
            return False
        return all(isinstance(b, Held) or a == b for a, b in zip(old.leaves, new.leaves))

    @property
    def all_slots(self) -> list[Slot]:
        return [*super().all_slots, self.number]

    @property
    def added(self) -> int:
        """For how many items there is room beside those from before the loop."""
        if self.is_bounded:
            return super().added
        return INNER_ROOM if in_loop(self.traced.here) else ROOM

    @property
    def is_bounded(self) -> bool:
        return self.growth.count != UNBOUNDED and self.traced.most > 0

    def initial(self) -> list[list[Any]] | None:
        """The leaves of the items from before the loop, as the stacks are to hold them."""
        if self.filled_before is not None:
            return None
        found = [flattened(x) for x in self.before]
        for leaves, structure in found:
            if structure != self.growth.structure or not all(map(held_as, self.growth.leaves, leaves)):
                return None
        return [leaves for leaves, _ in found]

    def stack(self, k: int, leaf: Held, size: int, column: Sequence[Any]) -> Slot:
        """A slot for an array with room for the items; those of a loop before in their place."""
        if self.filled_before is None:
            return super().stack(k, leaf, size, column)
        growth, columns = self.filled_before
        old = growth.leaves[k]
        if joined(leaf, old) != leaf:
            raise self.refused()
        n = sizes.dim(sizes.number(length(self.before)))
        self.first = n if isinstance(n, int) else n.bound  # type: ignore[union-attr]
        slot = super().stack(k, leaf, size + self.first, ())
        whole = old.value if isinstance(old, Static) else columns[k]
        slot_array(slot)[: length(self.before)] = whole
        return slot

    def holds_all(self) -> bool:
        return True

    @property
    def least(self) -> int:
        return self.fewest

    def length(self) -> Any:
        return Array(self.number.cell, scalar(I64), weak=True)

    def refused(self) -> DflowError:
        return failure(
            CarriedError,
            f"a list that becomes longer at {self.traced.where} is used in a way that cannot be traced: it is very "
            "long, or how long it becomes is known only when the program runs",
            mend="make it an array, `a = np.array(xs)`, and use or return that; of the list there are len(xs), xs[k], "
            "xs[1:], sorted, reversed, sum, min, max, any, all and `for x in xs`",
        )

    # -- in the body -----------------------------------------------------------------------------------------------

    def append(self, x: Any) -> None:
        """``xs.append(x)``, while the loop is traced."""
        self.seen.append(self._times())
        found = growth_of(self.target, [x], self.traced.most, integers=True, before=self.before)
        found = None if found is None else common(found, self.growth)
        if found is None or containers(x):
            raise self.refused()
        if not found.alike(self.growth):
            self.other = found
            return
        count = self.length()
        if not self.is_bounded:
            self._check_room(count)
        leaves = flattened(x)[0]
        for slot, leaf in zip(self.slots, leaves):
            if slot is not None:
                put(slot_array(slot), count, leaf)
                self._hold(leaf)
        region().write(self.number.cell, (count + 1).value)

    def pop(self) -> Any:
        """``xs.pop()``, while the loop is traced."""
        self.pops = True
        last = self.length() - 1
        builder().check((last >= 0).value, error="IndexError", message="pop from empty list")
        region().write(self.number.cell, last.value)
        return self.item(last)

    def _check_room(self, count: Array) -> None:
        most = self.first + self.added
        message = (
            f"a list becomes longer than {most} items in the loop at {self.traced.where}, which does not say how long "
            "it becomes; write `for _ in range(n):` with the most items as n, and `if not condition: break`"
        )
        builder().check((count < most).value, error="MemoryError", message=message)

    def _times(self) -> int:
        """How often one iteration of the loop runs what is traced now, at most; ``UNBOUNDED`` if that is not known."""
        inner: list[int] = []
        for r in region().around():
            if r is self.traced.body_region:
                break
            if r.kind == LOOP:
                inner.append(r.loop.most if r.loop is not None else 0)
        return math.prod(inner)

    def _hold(self, leaf: Any) -> None:
        """What is appended is copied: it must not be updated any more."""
        if isinstance(leaf, Array) and leaf.ndim:
            self.arrays.append(leaf)
            if _is_inside(leaf.cell.home, self.traced.body_region):
                leaf.cell.read_only = UPDATED

    def appended_arrays(self) -> list[Array]:
        return self.arrays

    def take(self) -> None:
        if self.target != [self.earlier] or not (self.seen or self.pops or self.other):
            raise self.refused()
        found = self.other or self.growth
        room = UNBOUNDED if UNBOUNDED in self.seen else sum(self.seen)
        if self.other is not None or (room, self.pops) != (self.growth.count, self.growth.popped):
            found = Growth(self.target, room, found.structure, found.leaves, filled=True, popped=self.pops)
            self.traced.learnt.growing[id(self.target)] = found
            raise Again

    def check(self, changed: set[Cell], ends_early: bool) -> None:
        self.check_names(changed)
        slots = with_arrays(self.traced.slots)
        for x in self.arrays:
            names = {x.cell, *x.cell.copies}
            holders = [s for s in slots if s.cell in names or s.final.cell in names]
            if x.cell in changed or any(s.cell in changed for s in holders):
                raise self.updated()

    def write(self) -> None:
        """Everything has been written where it was appended."""

    # -- after the loop --------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Updates of what has been appended, by other names, would have to reach the list."""
        self.active = False
        value = self.traced.here.read(self.number.cell)
        self.traced.here.known.define(value, (self.fewest, self.first + self.added))
        mine = [s.cell for s in self.slots if s is not None]
        others = [cell for x in self.arrays for cell in self.other_names(x)]
        for cell in {*others, *(s.cell for s in self.holding())}:
            cell.copies += mine

    def whole(self) -> Array:
        """All items, as one array."""
        leaf, slot = self.growth.leaves[0], self.slots[0]
        if len(self.slots) > 1 or slot is None or not isinstance(leaf, Held) or leaf.packed:
            raise self.refused()
        return slot_array(slot)[: self.length()]

    def columns(self) -> list[Array | None]:
        return [None if s is None else slot_array(s)[: self.length()] for s in self.slots]


def filled(error: DflowError, traced: TracedLoop) -> list[Growth]:
    """The lists that become longer in a branch of the body and are to be filled by this loop."""
    found = []
    for target, items, test in error.appended:
        if target not in traced.outside or held_outside(target, traced.here):
            continue
        if traced.unrolls and test is not None and counted([test], traced):
            continue  # which iterations append is known when they are unrolled
        items = [x for x in items if not isinstance(x, Earlier)] or [item(target, 0)]
        growth = growth_of(
            target, items, traced.most, integers=True, before=list(traced.outside.saved[id(target)][1].values())
        )
        if growth is not None and not any(map(containers, items)):
            found.append(growth.as_filled())
    return found


def _is_inside(home: Region, body: Region) -> bool:
    return any(r is body for r in home.around())


__all__ = ["Filling", "filled"]
