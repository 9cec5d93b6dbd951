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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dflow.errors import CarriedError, DflowError, failure
from dflow.ir.types import TensorType
from dflow.tracing import lift as _lift
from dflow.tracing import rows
from dflow.tracing.array import Array
from dflow.tracing.context import Cell, Region, builder, region
from dflow.tracing.earlier import Earlier, length
from dflow.tracing.merging import MAY_ALIAS
from dflow.tracing.objects import Snapshot, is_mutable, unchanged
from dflow.tracing.sequences import Inside
from dflow.tracing.slots import Again, Slot, slot_array
from dflow.tracing.state import flatten, unflatten

if TYPE_CHECKING:
    from dflow.tracing.traced_loop import TracedLoop

MOST_LEAVES = 32  # items of more parts are left to unrolling
FEW_ITERATIONS, LARGE = 16, 1 << 16  # so are few items of so many bytes: rows are copies
PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True)
class Packed:
    """A part of an item that is itself a list or tuple, of the rows of one array."""

    kind: type
    array: Array


@dataclass(frozen=True)
class Held:
    """A leaf of an item that a stack holds: a number, an array, or a packed part of class ``packed``."""

    type: TensorType
    weak: bool
    packed: Any = None


@dataclass(frozen=True, eq=False)
class Static:
    """A leaf that is the same in every item."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and type(self.value) is type(other.value) and self.value == other.value


@dataclass(frozen=True, eq=False)
class Growth:
    """What an iteration appends to a list: ``count`` items of one structure."""

    target: list[Any]
    count: int
    structure: Any
    leaves: tuple[Held | Static, ...]

    def agrees(self, other: Growth) -> bool:
        return self.count == other.count and self.structure == other.structure and self.leaves == other.leaves

    @property
    def held(self) -> list[Held]:
        return [x for x in self.leaves if isinstance(x, Held)]


def grown(snapshot: Snapshot, iterations: int, unrolls: bool, body: Region, counter: Cell) -> list[Growth]:
    """The lists that have grown since the snapshot was taken, by items that stacks can hold."""
    found = []
    for owner, then in snapshot.saved.values():
        if type(owner) is not list or len(owner) <= len(then):
            continue
        if all(unchanged(then[i], owner[i]) for i in range(len(then))):
            growth = _growth(owner, owner[len(then) :], iterations)
            if growth is not None and not (unrolls and _counted(owner[len(then) :], body, counter)):
                found.append(growth)
    return found


def _counted(items: Sequence[Any], body: Region, counter: Cell) -> bool:
    """Whether the items depend on nothing but the number of the iteration: unrolled, they are known while tracing."""
    todo = [x.value for item in items for x in flatten(item)[0] if isinstance(x, Array)]
    inside = {v: op for op in body.builder.ops for v in op.results}
    seen = set(todo)
    while todo:
        v = todo.pop()
        if v.op is None and v is body.entry.get(counter):
            continue
        if v.op is None or v.op.regions or (v not in inside and v.op.name != "constant"):
            return False
        new = [x for x in v.op.operands if x not in seen]
        seen.update(new)
        todo += new
    return True


def _growth(target: list[Any], items: Sequence[Any], iterations: int) -> Growth | None:
    """None for items that are not alike, or hold nothing traced but Python's integers, which may serve as sizes."""
    kinds = []
    for item in items:
        leaves, structure = _flattened(item)
        kinds.append(([_leaf(x) for x in leaves], structure))
    first, structure = kinds[0]
    if any(k != kinds[0] for k in kinds) or None in first or len(first) > MOST_LEAVES:
        return None
    growth = Growth(target, len(items), structure, tuple(x for x in first if x is not None))
    if all(x.weak and x.type.dtype.kind in "iu" for x in growth.held):
        return None
    if iterations <= FEW_ITERATIONS and rows.bytes_of([x.type for x in growth.held]) > LARGE:
        return None
    return growth


def _flattened(item: Any) -> tuple[list[Any], Any]:
    return flatten(_packed(item))


def _packed(x: Any) -> Any:
    """The item with lists and tuples of the rows of one array packed."""
    if type(x) in (list, tuple):
        found = rows.run(x)
        return Packed(type(x), found) if found is not None else type(x)(map(_packed, x))
    return {k: _packed(v) for k, v in x.items()} if type(x) is dict else x


def _leaf(x: Any) -> Held | Static | None:
    """How a leaf is held; None for one that cannot be."""
    if isinstance(x, Packed):
        return Held(x.array.type, x.array.weak, x.kind) if x.array.type.is_static else None
    if isinstance(x, Array):
        part = bool(x.steps) and not x.ndim  # its updates reach the array
        return Held(x.type, x.weak) if x.type.is_static and not part else None
    return Static(x) if isinstance(x, PLAIN) else None


class Growing:
    """A list that grows, in one attempt at tracing a loop."""

    def __init__(self, growth: Growth, traced: TracedLoop):
        self.growth, self.traced = growth, traced
        self.target = growth.target
        self.before = list(self.target)
        self.items: list[list[Any]] = []  # the leaves of what the iteration appends
        merged = self.initial()
        self.first = 0 if merged is None else len(merged)  # the items from before that stand in the stacks
        size = self.first + growth.count * traced.count
        self.slots: list[Slot | None] = []
        for k, leaf in enumerate(growth.leaves):
            column = [item[k] for item in merged or ()]
            self.slots.append(self.stack(leaf, size, column) if isinstance(leaf, Held) else None)
        self.earlier = Earlier(self)
        self.target[:] = [self.earlier]

    def initial(self) -> list[list[Any]] | None:
        """The leaves of the items from before the loop, if they are such as the iterations append."""
        found = []
        for x in self.before:
            leaves, structure = _flattened(x)
            if structure != self.growth.structure or not all(map(_fits, self.growth.leaves, leaves)):
                return None
            found.append(leaves)
        return found

    def stack(self, leaf: Held, size: int, column: Sequence[Any]) -> Slot:
        """A slot for an array with a row for every item, those from before in their place."""
        here = self.traced.here
        value = builder().zeros(leaf.type.with_shape((size, *leaf.type.shape)))
        slot = Slot("list", Cell(value, here), None, leaf.weak, read=False)
        slot.final = slot_array(slot)
        for i, x in enumerate(column):
            _put(slot.final, i, _array_of(x))
        return slot

    # -- while the body is traced ----------------------------------------------------------------------------------

    def length(self) -> Any:
        """The number of items at the start of the iteration."""
        count, k = self.growth.count, self.traced.turn()
        return length(self.before) + (k if count == 1 else k * count)

    def item(self, position: Any) -> Any:
        """An item from before, by its position from the start."""
        growth = self.growth
        objects = _containers(unflatten(growth.structure, growth.leaves))
        if self.first != len(self.before) or objects or any(x.packed for x in growth.held):
            raise self.refused()
        return unflatten(growth.structure, [self.leaf(k, position) for k in range(len(growth.leaves))])

    def leaf(self, k: int, position: Any) -> Any:
        leaf, slot = self.growth.leaves[k], self.slots[k]
        if isinstance(leaf, Static):
            return leaf.value
        assert slot is not None
        return rows.part(slot_array(slot), Inside(position), leaf.weak)

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
        found = _growth(self.target, items, self.traced.count) if items else None
        if found is None:
            raise self.refused()
        if not found.agrees(self.growth):
            self.traced.learnt.growing[id(self.target)] = found
            raise Again
        self.appended = items
        self.items = [_flattened(x)[0] for x in items]

    def check(self, changed: set[Cell], ends_early: bool) -> None:
        """Refuses items that an update after this iteration would reach: in Python it would change the list."""
        if ends_early:
            raise self.of_unknown_length()
        objects = [x for item in self.appended for x in _containers(item)]
        if objects:
            kept = Snapshot([*self.traced.live_values(), *self.traced.uses])
            if any(x in kept for x in objects) or max(Counter(map(id, objects)).values()) > 1:
                raise self.updated()
        slots = [s for s in self.traced.slots if isinstance(s.final, Array) and s.final.ndim]
        moving = any(s.cell in changed and s.final.cell is not s.cell for s in slots)
        carried = {c for s in slots for c in (s.cell, s.final.cell)}
        for x in self.arrays():
            inside = x.cell.home is self.traced.region
            if (not inside and x.cell in changed) or (moving and x.cell in carried):
                raise self.updated()
            if any(s.final.cell is x.cell and s.cell in changed for s in slots):
                raise self.updated()
        for x in self.before[: self.first]:
            if any(isinstance(a, Array) and a.ndim and a.cell in changed for a in flatten(x)[0]):
                raise self.updated()

    def arrays(self) -> list[Array]:
        return [x for item in self.items for x in item if isinstance(x, Array) and x.ndim]

    def of_unknown_length(self) -> DflowError:
        return failure(
            CarriedError,
            f"a list grows in the loop at {self.traced.where}, which may end before its last iteration: how long it "
            "becomes is known only when the program runs",
            mend="fill an array of the greatest length, and count what is in it",
        )

    def updated(self) -> DflowError:
        return failure(
            CarriedError,
            f"what is appended to a list in the loop at {self.traced.where} is updated in place by other iterations",
            mend="append a copy: xs.append(x.copy())",
        )

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
                _put(stack, start, together, count)
                continue
            for j, x in enumerate(column):
                _put(stack, start + j if j else start, _array_of(x))

    # -- after the loop --------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The list with all its items."""
        total = self.first + self.growth.count * self.traced.count
        columns: list[list[Any]] = []
        for slot, leaf in zip(self.slots, self.growth.leaves):
            if slot is None or isinstance(leaf, Static):
                columns.append([leaf.value] * total if isinstance(leaf, Static) else [])
                continue
            found = rows.rows(slot_array(slot), total, leaf.weak)
            columns.append([_unpacked(x, leaf.packed) for x in found] if leaf.packed else found)
        structure = self.growth.structure
        items = [unflatten(structure, leaves) for leaves in zip(*columns)]
        self.target[:] = [*([] if self.first else self.before), *items]
        self.name_again(columns)

    def name_again(self, columns: Sequence[Sequence[Any]]) -> None:
        """Arrays that have other names too: one that a variable holds after the last iteration is the last item; those
        that are not new in each iteration must not be updated by any of their names."""
        slots = [s for s in self.traced.slots if isinstance(s.final, Array) and s.final.ndim]
        everywhere = Counter(x.cell for g in self.traced.growing for x in g.arrays())
        for j, item in enumerate(self.items):
            for x, column in zip(item, columns):
                if isinstance(x, Array) and x.ndim:
                    mine = column[self.first :][j :: self.growth.count]
                    self.name_array(x, mine, slots, everywhere[x.cell] == 1)
        for i, old in enumerate(self.before[: self.first]):
            for x, column in zip(_flattened(old)[0], columns):
                if isinstance(x, Array) and x.ndim:
                    _entangle([column[i]], [x.cell])

    def name_array(self, x: Array, mine: Sequence[Array], slots: Sequence[Slot], once: bool) -> None:
        """``mine`` are the items that ``x`` has become, in the order of the iterations."""
        holders = [s for s in slots if s.final.cell is x.cell]
        started = [s for s in slots if s.cell is x.cell and isinstance(s.initial, Array)]
        new = x.cell.home is self.traced.region
        exact = all(s.type == x.type and not (s.final.steps or x.steps) for s in holders)
        if once and new and exact and len(holders) < 2:
            for s in holders:
                s.landed = mine[-1]
            return
        if once and len(started) == 1 and not holders and started[0].final.cell.home is self.traced.region:
            sharing = [s for s in slots if s.final.cell is started[0].final.cell]
            if len(sharing) == 1:  # each iteration leaves a new array to the next, which appends it
                return _entangle(mine[:1], [started[0].initial.cell])
        outer = [] if new or started else [x.cell]
        return _entangle(mine, [*(s.cell for s in holders), *(s.initial.cell for s in started), *outer])

    def restore(self) -> None:
        self.target[:] = self.before


def _entangle(items: Sequence[Array], others: Sequence[Cell]) -> None:
    """Arrays that may be one: none of the items is updated, and after an update of another they must not be read."""
    for x in items:
        x.cell.read_only = MAY_ALIAS
    for cell in others:
        cell.copies += [x.cell for x in items]


def _fits(leaf: Held | Static, x: Any) -> bool:
    """Whether a leaf of an item from before can stand in a stack, or is the static value of all items."""
    if isinstance(leaf, Static) or leaf.packed or isinstance(x, Packed):
        return _leaf(x) == leaf
    if not isinstance(x, Array | bool | int | float | complex):
        return False
    array = _lift.lift(x)
    if array.type.shape != leaf.type.shape or array.weak is not leaf.weak:
        return False
    like = _lift.wrap(builder().zeros(leaf.type), leaf.weak)
    return bool(_lift.result_dtype(array, like) == leaf.type.dtype.numpy)


def _array_of(x: Any) -> Array:
    return x.array if isinstance(x, Packed) else _lift.lift(x)


def _put(stack: Array, position: Any, x: Array, count: int = 0) -> None:
    """Writes a row, or ``count`` rows, at a position inside."""
    b, here = builder(), region()
    at = b.index(position) if isinstance(position, int) else position.value
    entry = ("slice", count, 1) if count else "at"
    index = (entry, *["all"] * (stack.ndim - 1))
    value = _lift.convert(x.value, stack.type.dtype)
    here.write(stack.cell, b.update(here.read(stack.cell), value, at, index=index))


def _unpacked(array: Array, kind: type) -> Any:
    return kind(rows.rows(array, array.type.static_shape[0], array.weak))


def _containers(x: Any) -> list[Any]:
    """The mutable objects in an item."""
    found = [x] if is_mutable(x) else []
    inner: Sequence[Any] = [*x.values()] if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
    return found + [c for p in inner for c in _containers(p)]
