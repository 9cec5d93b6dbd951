"""Arrays under several names in loops.

A variable's slot stands for the array that the variable holds on entry. That is right as long as the body reaches the
array through that variable alone; otherwise the variable must not have a slot (it is *shared*). A body may also make
the variables trade places (``u, v = v, u``): each slot then follows its variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dflow.errors import CarriedError, DflowError, failure
from dflow.ir.builder import Builder
from dflow.ir.core import Value
from dflow.tracing.arrays.array import UPDATED, Array
from dflow.tracing.context import Cell, Region, builder
from dflow.tracing.control.merging import MAY_ALIAS
from dflow.tracing.control.slots import value_after, with_arrays
from dflow.tracing.lists.rows import OF_A_LIST

TRADED = "this array has been updated in a loop in which variables trade places; which of them it is, is not known"


class Aliases:
    """The slots that hold arrays, and what becomes of the arrays on entry."""

    def __init__(self, slots: Sequence[Any], inner: Region, shared: set[str]):
        self.slots = [s for s in slots if isinstance(s.initial, Array) and s.initial.ndim and s.read]
        self.every = with_arrays(slots)  # with those that iterations do not read
        self.shared = shared
        changed = set(inner.changed())
        self.written = {s.cell for s in self.slots if s.cell in changed}
        self.outer_written = changed
        self.touched = set(inner.local)
        self.inner = inner

    def rebound(self, slot: Any) -> bool:
        return slot.final.cell is not slot.cell or bool(slot.final.steps)

    def used(self, slot: Any) -> bool:
        """Whether the body reads what is in the slot, or gives it to another variable."""
        given = any(o.final.cell is slot.cell and (o is not slot or self.rebound(o)) for o in self.every)
        return given or slot.cell in self.touched

    def check(self, again: type[Exception]) -> None:
        """Makes variables shared that need it; refuses what cannot be followed."""
        for s in self.slots:
            origin = s.initial.cell
            others = [o for o in self.slots if o is not s and o.initial.cell is origin]
            touched = origin in self.touched or any(o.cell in self.touched for o in others)
            written = origin in self.outer_written or any(o.cell in self.written for o in others)
            if (s.cell in self.written and touched) or (written and self.used(s)):
                self.shared.update((s.name, *(o.name for o in others)))
                raise again
        self._check_rebound()
        self._check_copies()

    def _check_copies(self) -> None:
        """Refuses updates of an array that another one, which the body reads too, may be under another name: whichever
        stands first in the body, the next iteration comes after both."""
        own = {s.cell: s.initial.cell for s in self.slots}
        written = {own.get(c, c): c for c in self.outer_written}
        used = [s.initial.cell for s in self.slots if self.used(s)]
        read = {*used, *(c for c in self.touched if c not in own)}
        for cell, inner in written.items():
            if inner is not cell and cell.read_only:
                raise _another_name(cell.read_only)
            if any(c in read for c in cell.copies):
                raise _another_name("a loop updates an array, and reads one that may be the same under another name")

    def _check_rebound(self) -> None:
        """Two names that come out of the body as one array: fine unless one of them is updated."""
        owners: dict[Cell, list[Any]] = {}
        for s in self.slots:
            owners.setdefault(s.final.cell, []).append(s)
        own = {s.cell for s in self.slots}
        self.aliased = [s for group in owners.values() if len(group) > 1 for s in group]
        for s in self.slots:
            outside = s.final.cell.home is not self.inner and s.final.cell not in own
            if self.rebound(s) and outside and s not in self.aliased:
                self.aliased.append(s)
        self.aliased += [s for s in self._taken() if s not in self.aliased]
        merged = [s for s in self.slots if any(s.final.cell in c.copies for c in self.outer_written)]
        for s in (*self.aliased, *merged):
            if s.cell in self.written or s.final.cell in self.outer_written or s in merged:
                raise _another_name(f"variable {s.name!r} is another name of an array that the loop updates")

    def _taken(self) -> list[Any]:
        """The slots that are given, perhaps by way of others, an item of a list or what may be an array from outside
        under another name."""
        found = [s for s in self.slots if s.final.cell.read_only == OF_A_LIST or self._may_be_outside(s)]
        for s in found:
            found += [o for o in self.slots if s.cell in (o.final.cell, *o.final.cell.copies) and o not in found]
        return found

    def _may_be_outside(self, slot: Any) -> bool:
        own = {s.cell for s in self.slots}
        cells = (slot.final.cell, *slot.final.cell.copies) if slot.final.cell is not slot.cell else ()
        return any(c not in own and not c.home.is_within(self.inner) for c in cells)

    def trades(self) -> bool:
        """Whether variables trade places, and arrays are updated meanwhile."""
        traded, by_cell = self._traded()
        return any(by_cell[s.final.cell] is not s for s in traded) and bool(self.written)

    def settle(self, turns: int | Array | None) -> None:
        """After the loop of ``turns`` iterations (None when that does not matter): arrays that were updated get their
        contents, names that may be two of one are marked."""
        for s in self.slots:
            if not self.rebound(s):
                if s.cell in self.written:
                    s.initial.assign(s.cell.value)
                continue
            if s.cell in self.written:
                for other in s.initial.cell.copies:
                    other.poison = UPDATED
            if s in self.aliased:
                s.cell.read_only = MAY_ALIAS
                s.initial.cell.copies.append(s.cell)
                if s.final.cell.home is not self.inner:
                    s.final.cell.copies.append(s.cell)
        traded, by_cell = self._traded()
        if traded and isinstance(turns, int):
            self._settle_known(traded, by_cell, turns)
        elif traded and isinstance(turns, Array) and self.written:
            self._settle_counted(traded, by_cell, turns)
        else:
            self._refuse_traded()

    def link(self, positive: bool) -> None:
        """After the loop: what may be one array under two names must not be read by the one, once the other has updated
        it. With no iteration at all (unless ``positive``) a variable is what it was."""
        by_cell = {s.cell: s for s in self.slots}
        for s in self.every:
            if not self.rebound(s):
                continue
            if s.final.cell.read_only == OF_A_LIST:
                s.cell.read_only = OF_A_LIST
            others = [s.initial.cell] if isinstance(s.initial, Array) and not positive else []
            for c in (s.final.cell, *s.final.cell.copies):
                others += [_cell_after(o) for o in self.every if o.final.cell is c]
                if c in by_cell:
                    others += [h.initial.cell for h in self._holders(by_cell[c])]
                elif not c.home.is_within(self.inner):
                    s.cell.read_only = MAY_ALIAS
                    others.append(c)
            for cell in [x for o in others for x in (o, *o.copies)]:
                _cell_after(s).link(cell)

    def _traded(self) -> tuple[list[Any], dict[Cell, Any]]:
        """The slots whose variables trade places among each other, if that is all that they do; slots by cell."""
        by_cell = {s.cell: s for s in self.slots}
        traded = [s for s in self.slots if self.rebound(s)]
        closed = all(s.final.cell in by_cell and not s.final.steps for s in traded)
        return (traded if closed and not self.aliased else []), by_cell

    def _settle_known(self, traded: Sequence[Any], by_cell: dict[Cell, Any], turns: int) -> None:
        """With a known number of iterations it is known which array is which."""
        for s in traded:
            end = s
            for _ in range(turns % _order(traded, by_cell)):
                end = by_cell[end.final.cell]
            end.initial.assign(s.cell.value)
            s.landed = end.initial

    def _settle_counted(self, traded: Sequence[Any], by_cell: dict[Cell, Any], turns: Array) -> None:
        """The arrays on entry get what the variables hold that end up with them; that depends on the iterations."""
        order = _order(traded, by_cell)
        turn = (turns % order).value
        contents: dict[int, Value] = {}
        ends = {id(s): s for s in traded}
        for k in range(order):
            for s in traded:
                end, value = ends[id(s)], s.cell.value
                contents[id(end)] = _chosen(turn, k, value, contents[id(end)]) if k else value
            ends = {key: by_cell[end.final.cell] for key, end in ends.items()}
        for s in traded:
            s.initial.assign(contents[id(s)])
        for s in traded:  # an update by the one name is not seen by the other
            s.cell.copies += [e.initial.cell for e in traded]
            s.initial.cell.copies += [e.cell for e in traded]

    def _refuse_traded(self) -> None:
        """What cannot be followed must not be read."""
        traded = [s for s in self.slots if self.rebound(s)]
        for s in self.slots:
            holders = self._holders(s)
            if (len(holders) > 1 or s in traded) and any(h.cell in self.written for h in holders):
                s.initial.cell.poison = TRADED

    def _holders(self, slot: Any) -> list[Any]:
        """The slots that hold, in some iteration, the array that ``slot`` holds on entry."""
        holders = [slot]
        for h in holders:
            holders += [s for s in self.slots if s.final.cell is h.cell and s not in holders]
        return holders


def _another_name(reason: str) -> DflowError:
    return failure(CarriedError, reason, mend="copy the array (x.copy()) where it gets its second name")


def _cell_after(slot: Any) -> Cell:
    """What the variable refers to after the loop."""
    found = value_after(slot)
    return found.cell


def _chosen(turn: Value, k: int, value: Value, otherwise: Value) -> Value:
    """``value`` when ``turn`` is ``k``."""
    b = builder()
    arms = []
    for x in (value, otherwise):
        arms.append(Builder(loc=b.loc).finish([x]))
    return b.append("if", [b.eq(turn, k)], regions=arms)[0]


def _order(traded: Sequence[Any], by_cell: dict[Cell, Any]) -> int:
    """After how many iterations all are back in place."""
    current = {id(s): s for s in traded}
    for n in range(1, 1000):
        current = {k: by_cell[s.final.cell] for k, s in current.items()}
        if all(id(s) == k for k, s in current.items()):
            return n
    return 1
