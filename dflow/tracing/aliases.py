"""Arrays under several names in loops.

A variable's slot stands for the array that the variable holds on entry. That is right as long as the body reaches the
array through that variable alone; otherwise the variable must not have a slot (it is *shared*). A body may also make
the variables trade places (``u, v = v, u``): each slot then follows its variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dflow.errors import CarriedError, failure
from dflow.tracing.array import Array
from dflow.tracing.branches import MAY_ALIAS
from dflow.tracing.context import Cell, Region

TRADED = "this array has been updated in a loop in which variables trade places; which of them it is, is not known"


class Aliases:
    """The slots that hold arrays, and what becomes of the arrays on entry."""

    def __init__(self, slots: Sequence[Any], inner: Region, shared: set[str], count: Any):
        self.slots = [s for s in slots if isinstance(s.initial, Array) and s.initial.ndim and s.read]
        self.shared = shared
        self.count = count
        changed = set(inner.changed())
        self.written = {s.cell for s in self.slots if s.cell in changed}
        self.outer_written = changed
        self.touched = set(inner.local)
        self.inner = inner

    def rebound(self, slot: Any) -> bool:
        return slot.final.cell is not slot.cell or bool(slot.final.steps)

    def check(self, again: type[Exception]) -> None:
        """Makes variables shared that need it; refuses what cannot be followed."""
        for s in self.slots:
            origin = s.initial.cell
            others = [o for o in self.slots if o is not s and o.initial.cell is origin]
            touched = origin in self.touched or any(o.cell in self.touched for o in others)
            written = origin in self.outer_written or any(o.cell in self.written for o in others)
            if (s.cell in self.written and touched) or (written and s.cell in self.touched):
                self.shared.update((s.name, *(o.name for o in others)))
                raise again
        self._check_rebound()

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
        for s in self.aliased:
            if s.cell in self.written or s.final.cell in self.outer_written:
                raise failure(
                    CarriedError,
                    f"variable {s.name!r} is another name of an array that the loop updates",
                    mend="copy the array (x.copy()) where it gets its second name",
                )

    def settle(self) -> None:
        """After the loop: arrays that were updated get their contents, names that may be two of one are marked."""
        for s in self.slots:
            if not self.rebound(s):
                if s.cell in self.written:
                    s.initial.assign(s.cell.value)
            elif s in self.aliased:
                s.cell.read_only = MAY_ALIAS
                s.initial.cell.copies.append(s.cell)
                if s.final.cell.home is not self.inner:
                    s.final.cell.copies.append(s.cell)
        self._settle_traded()

    def _settle_traded(self) -> None:
        """Variables that trade places: with a known number of iterations it is known which array is which."""
        by_cell = {s.cell: s for s in self.slots}
        traded = [s for s in self.slots if self.rebound(s)]
        closed = all(s.final.cell in by_cell and not s.final.steps for s in traded)
        if traded and closed and isinstance(self.count, int) and not self.aliased:
            for s in traded:
                end = s
                for _ in range(self.count % _order(traded, by_cell)):
                    end = by_cell[end.final.cell]
                end.initial.assign(s.cell.value)
                s.landed = end.initial
            return
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


def _order(traded: Sequence[Any], by_cell: dict[Cell, Any]) -> int:
    """After how many iterations all are back in place."""
    current = {id(s): s for s in traded}
    for n in range(1, 1000):
        current = {k: by_cell[s.final.cell] for k, s in current.items()}
        if all(id(s) == k for k, s in current.items()):
            return n
    return 1
