"""What a loop appends to lists, item by item: numbers, arrays, and tuples, lists and dicts of them; see ``growing``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dflow.ir.types import C128, F64, TensorType
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import builder
from dflow.tracing.control.state import flatten
from dflow.tracing.lists import rows
from dflow.tracing.python.objects import Snapshot

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
    weak: bool | None
    packed: Any = None


@dataclass(frozen=True, eq=False)
class Static:
    """A leaf that is the same in every item."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and type(self.value) is type(other.value) and self.value == other.value


@dataclass(frozen=True, eq=False)
class Growth:
    """What an iteration appends to a list: ``count`` items of one structure, or, of a list that is ``filled``, up to
    as many; items may be ``popped`` too."""

    target: list[Any]
    count: int
    structure: Any
    leaves: tuple[Held | Static, ...]
    filled: bool = False
    popped: bool = False

    def agrees(self, other: Growth) -> bool:
        return self.count == other.count and self.alike(other)

    def alike(self, other: Growth) -> bool:
        return bool(self.structure == other.structure) and self.leaves == other.leaves

    def as_filled(self) -> Growth:
        return dataclasses.replace(self, filled=True)

    @property
    def held(self) -> list[Held]:
        return [x for x in self.leaves if isinstance(x, Held)]


def growth_of(
    target: list[Any], items: Sequence[Any], iterations: int, integers: bool = False, before: Sequence[Any] = ()
) -> Growth | None:
    """What is appended to a list that had the items ``before``.

    None for items that are not alike, or hold nothing traced; or, without ``integers``, for Python's integers: where
    they can be known, they may serve as sizes."""
    kinds = []
    for item in items:
        leaves, structure = flattened(item)
        kinds.append(([_leaf(x) for x in leaves], structure))
    structure = kinds[0][1]
    if any(s != structure for _, s in kinds) or len(kinds[0][0]) > MOST_LEAVES:
        return None
    first = [_joined_all(column, integers) for column in zip(*(found for found, _ in kinds))]
    if None in first:
        return None
    leaves = _changing([x for x in first if x is not None], structure, before)
    if integers:
        leaves = _with_earlier(leaves, structure, before)
    growth = Growth(target, len(items), structure, tuple(leaves))
    if not growth.held or (not integers and all(x.weak and x.type.dtype.kind in "iu" for x in growth.held)):
        return None
    if not integers and iterations <= FEW_ITERATIONS and _bytes_of([x.type for x in growth.held]) > LARGE:
        return None
    return growth


def _joined_all(column: Sequence[Held | Static | None], numbers: bool) -> Held | Static | None:
    """What the leaves of all items are; unless ``numbers``, one and the same."""
    found = column[0]
    for leaf in column[1:]:
        found = joined(found, leaf) if numbers else found if found == leaf else None
    return found


def joined(a: Held | Static | None, b: Held | Static | None) -> Held | Static | None:
    """A leaf that holds what either holds; None where that would make another number of one of them.

    As where branches meet, Python's numbers become NumPy's of the same dtype, and its integers wide floats."""
    if a is None or b is None or a == b:
        return a if a == b else None
    x, y = as_held(a), as_held(b)
    if not isinstance(x, Held) or not isinstance(y, Held) or x.packed or y.packed or x.type.shape != y.type.shape:
        return None
    if x.type == y.type:
        return Held(x.type, _lift.either(x.weak, y.weak))
    if x.type.rank or not {x.type.dtype.kind, y.type.dtype.kind} <= set("ifc"):
        return None
    wide, narrow = (x, y) if "ifc".index(x.type.dtype.kind) > "ifc".index(y.type.dtype.kind) else (y, x)
    return wide if narrow.weak and wide.type.dtype in (F64, C128) else None


def common(a: Growth, b: Growth) -> Growth | None:
    """What holds the items of both, of those that one list may get."""
    leaves = [joined(x, y) for x, y in zip(a.leaves, b.leaves)]
    if a.structure != b.structure or None in leaves:
        return None
    return dataclasses.replace(a, leaves=tuple(x for x in leaves if x is not None))


def held_as(leaf: Held | Static, x: Any) -> bool:
    """Whether an item from before can stand in a stack as the items that a loop fills in do."""
    return fits(leaf, x) or joined(leaf, _leaf(x)) == leaf


def as_held(leaf: Held | Static) -> Held | Static:
    """A number that is the same in every item, as one that a stack holds."""
    if isinstance(leaf, Static) and isinstance(leaf.value, bool | int | float | complex):
        array = _lift.lift(leaf.value)
        return Held(array.type, array.weak)
    return leaf


def _with_earlier(leaves: list[Held | Static], structure: Any, before: Sequence[Any]) -> list[Held | Static]:
    """Leaves that hold the items from before too; numbers are held where nothing else is."""
    for x in before:
        old, old_structure = flattened(x)
        growing = getattr(x, "growing", None)  # numbers that a loop before has filled in
        if growing is not None:
            old, old_structure = growing.growth.leaves, growing.growth.structure
        if old_structure == structure:
            wider = [joined(leaf, o if growing is not None else _leaf(o)) for leaf, o in zip(leaves, old)]
            leaves = [leaf if found is None else found for leaf, found in zip(leaves, wider)]
    return leaves if any(isinstance(x, Held) for x in leaves) else [as_held(x) for x in leaves]


def _changing(leaves: list[Held | Static], structure: Any, before: Sequence[Any]) -> list[Held | Static]:
    """Numbers that are known, but not those of the items before, will be traced: they change from item to item."""
    for x in before:
        old, old_structure = flattened(x)
        if old_structure != structure:
            continue
        for k, (leaf, o) in enumerate(zip(leaves, old)):
            if isinstance(leaf, Static) and leaf != _leaf(o) and isinstance(leaf.value, int | float | complex):
                leaves[k] = as_held(leaf)
    return leaves


def flattened(item: Any) -> tuple[list[Any], Any]:
    return flatten(packed_parts(item))


def packed_parts(x: Any) -> Any:
    """The item with lists and tuples of the rows of one array packed."""
    if type(x) in (list, tuple):
        found = rows.run(x)
        return Packed(type(x), found) if found is not None else type(x)(map(packed_parts, x))
    return {k: packed_parts(v) for k, v in x.items()} if type(x) is dict else x


def _leaf(x: Any) -> Held | Static | None:
    """How a leaf is held; None for one that cannot be."""
    if isinstance(x, Packed):
        return Held(x.array.type, x.array.weak, x.kind) if x.array.type.is_static else None
    if isinstance(x, Array):
        part = bool(x.steps) and not x.ndim  # its updates reach the array
        return Held(x.type, x.weak) if x.type.is_static and not part else None
    return Static(x) if isinstance(x, PLAIN) else None


def fits(leaf: Held | Static, x: Any) -> bool:
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


def containers(x: Any) -> list[Any]:
    """The mutable objects in an item."""
    return [owner for owner, _ in Snapshot([x]).saved.values()]


def _bytes_of(types: Sequence[TensorType]) -> int:
    return sum(math.prod(t.static_shape) * t.dtype.numpy.itemsize for t in types)
