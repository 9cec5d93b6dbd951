"""Lists to which every iteration of a traced loop appends.

The numbers and arrays that are appended become the rows of arrays, *stacks*, which the loop carries and fills. While
the body is traced the list holds, in the place of all items from before, one object (``Earlier``); behind it stand the
items that this iteration has appended. After the loop the list holds its items again: the rows of the stacks.

    xs = [x]                          xs = [earlier]
    for k in range(n):          ->    for k, stack in ...:
        x = step(xs[-1])                  x = step(stack[k])
        xs.append(x)                      stack[k + 1] = x
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dflow.errors import CarriedError, DflowError, failure
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import Cell
from dflow.tracing.control.merging import MAY_ALIAS
from dflow.tracing.control.slots import Again, Slot, slot_array, with_arrays
from dflow.tracing.control.state import flatten, unflatten
from dflow.tracing.lists import rows
from dflow.tracing.lists.earlier import Earlier, length
from dflow.tracing.lists.items import Growth, Static, containers, flattened, growth_of
from dflow.tracing.lists.stacks import Stacks, held_outside, put
from dflow.tracing.python.objects import Snapshot, unchanged

MOST_ROWS = 4096  # an array of more items stands for them also after the loop

if TYPE_CHECKING:
    from dflow.tracing.control.traced_loop import TracedLoop


def grown(traced: TracedLoop) -> list[Growth]:
    """The lists that have grown in the body, by items that stacks can hold."""
    found = []
    for owner, then in traced.outside.saved.values():
        if type(owner) is not list or len(owner) <= len(then):
            continue
        if all(unchanged(then[i], owner[i]) for i in range(len(then))):
            items = owner[len(then) :]
            growth = growth_of(owner, items, traced.most, integers=not traced.most, before=list(then.values()))
            if growth is None or (traced.unrolls and counted(items, traced)):
                continue
            if traced.most:
                found.append(growth)
            elif not any(map(containers, items)):
                found.append(to_be_filled(growth, items, traced))
    return found


def to_be_filled(growth: Growth, items: Sequence[Any], traced: TracedLoop) -> Growth:
    """Of a list that is not to have items again after the loop; by one around it, if it comes from outside of that."""
    if not held_outside(growth.target, traced.here):
        return growth.as_filled()
    error = failure(
        CarriedError,
        f"a list becomes longer in the loop at {traced.where}, in a loop that cannot be traced with it",
        mend="append in one loop only, or fill an array",
    )
    error.appended = [(growth.target, items, None)]
    raise error


def counted(items: Sequence[Any], traced: TracedLoop) -> bool:
    """Whether the items depend on nothing but the number of the iteration: unrolled, they are known while tracing."""
    arrays = [x for item in items for x in flatten(item)[0] if isinstance(x, Array)]
    body = traced.body_region
    todo = [x.value if x.cell.home in body.around() else x.cell.value for x in arrays]
    seen, counter = set(todo), body.entry.get(traced.counter) if traced.counter is not None else None
    while todo:
        v = todo.pop()
        if v is counter and counter is not None:
            continue
        if v.op is None or v.op.regions:
            return False
        new = [x for x in v.op.operands if x not in seen]
        seen.update(new)
        todo += new
    return True


class Growing(Stacks):
    """A list that each iteration makes longer by as many items, in one attempt at tracing a loop."""

    def __init__(self, growth: Growth, traced: TracedLoop):
        super().__init__(growth, traced)
        self.items: list[list[Any]] = []  # the leaves of what the iteration appends
        self.earlier = Earlier(self)
        self.target[:] = [self.earlier]

    # -- while the body is traced ----------------------------------------------------------------------------------

    @property
    def least(self) -> int:
        """The fewest items that there can be at the start of an iteration."""
        return len(self.before)

    def length(self) -> Any:
        """The number of items at the start of the iteration."""
        count, k = self.growth.count, self.traced.turn()
        return length(self.before) + (k if count == 1 else k * count)

    def refused(self) -> DflowError:
        return failure(
            CarriedError,
            f"a list that grows in the loop at {self.traced.where} is read there in a way that cannot be traced",
            mend="read single items (xs[-1], xs[k]) or len(xs) in the loop; or fill an array",
        )

    # -- what the body leaves --------------------------------------------------------------------------------------

    def take(self) -> None:
        """Takes what the body has appended."""
        if not self.target or self.target[0] is not self.earlier:
            raise self.refused()
        items = self.target[1:]
        self.target[:] = [self.earlier]
        found = growth_of(self.target, items, self.traced.most, before=self.before) if items else None
        if found is None:
            raise self.refused()
        if not found.agrees(self.growth):
            self.traced.learnt.growing[id(self.target)] = found
            raise Again
        self.appended = items
        self.items = [flattened(x)[0] for x in items]

    def check(self, changed: set[Cell], ends_early: bool) -> None:
        """Refuses items that an update after this iteration would reach: in Python it would change the list."""
        total = self.added
        if ends_early or not isinstance(self.traced.count, int) or total > MOST_ROWS:
            self.traced.learnt.growing[id(self.target)] = to_be_filled(self.growth, self.appended, self.traced)
            raise Again
        objects = [x for item in self.appended for x in containers(item)]
        if objects:
            kept = Snapshot([*self.traced.live_values(), *self.traced.uses])
            if any(x in kept for x in objects) or max(Counter(map(id, objects)).values()) > 1:
                raise self.updated()
        self.check_names(changed)
        slots = with_arrays(self.traced.slots)
        moving = any(s.cell in changed and s.final.cell is not s.cell for s in slots)
        carried = {c for s in slots for c in (s.cell, s.final.cell)}
        for x in self.appended_arrays():
            if x.cell.read_only == rows.OF_A_LIST:  # it would be an item twice
                raise self.updated()
            inside = x.cell.home is self.traced.region
            names = {x.cell, *x.cell.copies}
            if (not inside and x.cell in changed) or (moving and names & carried):
                raise self.updated()
            if any(s.final.cell in names and s.cell in changed for s in slots):
                raise self.updated()
        for x in self.before[: self.first]:
            if any(isinstance(a, Array) and a.ndim and a.cell in changed for a in flatten(x)[0]):
                raise self.updated()

    def appended_arrays(self) -> list[Array]:
        return [x for item in self.items for x in item if isinstance(x, Array) and x.ndim]

    def write(self) -> None:
        """Writes what the iteration has appended to the stacks; at the end of the body."""
        count = self.growth.count
        start = self.traced.turn() * count if count > 1 else self.traced.turn()
        start = start + self.first if self.first else start
        for c, slot in enumerate(self.slots):
            if slot is None:
                continue
            stack, column = slot_array(slot), [item[c] for item in self.items]
            together = rows.run(column) if count > rows.FEW else None
            if together is not None:
                put(stack, start, together, count)
                continue
            for j, x in enumerate(column):
                put(stack, start + j if j else start, x)

    # -- after the loop --------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The list with all its items."""
        total = self.first + self.added
        columns: list[list[Any]] = []
        for slot, leaf in zip(self.slots, self.growth.leaves):
            if slot is None or isinstance(leaf, Static):
                columns.append([leaf.value] * total if isinstance(leaf, Static) else [])
                continue
            found = rows.rows(slot_array(slot), total, leaf.weak)
            columns.append([_unpacked(x, leaf.packed) for x in found] if leaf.packed else found)
        structure = self.growth.structure
        items = [unflatten(structure, leaves) for leaves in zip(*columns)]
        # A loop around this one looks for what is new: there the items from before stay what they are.
        replaced = self.first and not held_outside(self.target, self.traced.here)
        self.target[:] = items if replaced else [*self.before, *items[self.first :]]
        self.name_again(columns)

    def name_again(self, columns: Sequence[Sequence[Any]]) -> None:
        """Arrays that have other names too: one that a variable holds after the last iteration is the last item; those
        that are not new in each iteration must not be updated by any of their names."""
        slots = with_arrays(self.traced.slots)
        everywhere = Counter(x.cell for g in self.traced.growing for x in g.appended_arrays())
        for j, item in enumerate(self.items):
            for x, column in zip(item, columns):
                if isinstance(x, Array) and x.ndim:
                    mine = column[self.first :][j :: self.growth.count]
                    self.name_array(x, mine, slots, everywhere[x.cell] == 1)
        direct = {x.cell for g in self.traced.growing for x in g.appended_arrays()}
        later = [s.cell for s in self.holding() if s.final.cell not in direct]
        if later:
            entangle([x for column in columns for x in column if isinstance(x, Array) and x.ndim], later)
        for i, old in enumerate(self.before[: self.first]):
            for x, column in zip(flattened(old)[0], columns):
                if isinstance(x, Array) and x.ndim:
                    entangle([column[i]], [x.cell, *x.cell.copies])

    def name_array(self, x: Array, mine: Sequence[Array], slots: Sequence[Slot], once: bool) -> None:
        """``mine`` are the items that ``x`` has become, in the order of the iterations."""
        holders = [s for s in slots if s.final.cell is x.cell]
        started = [s for s in slots if s.cell is x.cell and isinstance(s.initial, Array)]
        new = x.cell.home is self.traced.region and not x.cell.copies
        exact = all(s.type == x.type and not (s.final.steps or x.steps) for s in holders)
        if once and new and exact and len(holders) < 2:
            for s in holders:
                s.landed = mine[-1]
            return
        if once and len(started) == 1 and not holders and started[0].final.cell.home is self.traced.region:
            left = started[0].final.cell
            sharing = [s for s in slots if s.final.cell is left]
            if (
                len(sharing) == 1 and not x.cell.copies and not left.copies
            ):  # each iteration leaves a new array to the next, which appends it
                return entangle(mine[:1], [started[0].initial.cell])
        return entangle(mine, self.other_names(x))


def entangle(items: Sequence[Array], others: Sequence[Cell]) -> None:
    """Arrays that may be one: none of the items is updated, and after an update of another they must not be read."""
    for x in items:
        x.cell.read_only = MAY_ALIAS
        x.cell.copies += others
    for cell in others:
        cell.copies += [x.cell for x in items]


def _unpacked(array: Array, kind: type) -> Any:
    return kind(rows.rows(array, array.type.static_shape[0], array.weak))
