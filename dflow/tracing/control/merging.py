"""What the two branches of an ``if`` leave behind, merged: variables, parts of objects and arrays in one operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dflow.errors import user_location
from dflow.ir.core import Value
from dflow.ir.types import Dim
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import Cell, Region, builder, entered, region
from dflow.tracing.control.option_index import moved
from dflow.tracing.control.state import Undefined, describe, is_number, line_of_block
from dflow.tracing.lists.rows import OF_A_LIST
from dflow.tracing.python.choice import Choice, is_fixed, is_option, options_of, same_option
from dflow.tracing.python.objects import (
    Anatomy,
    Place,
    Snapshot,
    anatomy,
    is_mutable,
    kept,
    parts,
    put_parts,
    shown,
    watch,
)
from dflow.tracing.python.optional import Optional

MAY_ALIAS = "this array may be another name of an array outside of the branch or loop that it was assigned in"


@dataclass
class Arm:
    """One branch: the variables after it, the parts of objects that it changes, and all objects as it leaves them."""

    region: Region
    after: tuple[Any, ...] = ()
    places: dict[Place, Any] = field(default_factory=dict)
    view: Snapshot = field(default_factory=lambda: Snapshot(()))
    raised: Exception | None = None

    def opened(self, x: Any) -> Anatomy | None:
        """``x`` taken apart as this branch leaves it."""
        return anatomy(x, lambda x: self.view.saved[id(x)][1] if x in self.view else parts(x))


@dataclass
class _Slot:
    """A value that depends on the branch taken."""

    values: tuple[Value, Value]
    weak: bool | None
    cells: list[Cell]  # the arrays that it may be, as the branches know them
    aliases: list[Cell]  # those among them from outside of the branches
    shape: tuple[Any, ...] = ()
    arrays: Sequence[Array] = ()  # what the branches leave


@dataclass(frozen=True)
class _Chosen:
    """A size that depends on the branch taken: the number of its slot, and its bound."""

    slot: int
    bound: int


def _packed(v: Value, shape: tuple[Any, ...]) -> Value:
    """What a branch yields for an array of this shape: one of the full size where the branch says the size."""
    if not any(isinstance(d, _Chosen) for d in shape):
        return sizes.recast(v, shape)
    b = builder()
    full = tuple(d.bound if isinstance(d, _Chosen) else d for d in shape)
    index = tuple(("slice", old, 1) if isinstance(d, _Chosen) else "all" for old, d in zip(v.type.shape, shape))
    starts = [b.index(0) for e in index if e != "all"]
    v = sizes.recast(v, tuple(old if isinstance(d, _Chosen) else d for old, d in zip(v.type.shape, shape)))
    return b.update(b.zeros(v.type.with_shape(full)), v, *starts, index=index)


def _unpacked(v: Value, shape: tuple[Any, ...], results: Sequence[Value]) -> Value:
    if not any(isinstance(d, _Chosen) for d in shape):
        return v
    known = region().known
    for d in shape:
        if isinstance(d, _Chosen):
            known.define(results[d.slot], (0, d.bound))
    return sizes.recast(v, tuple(sizes.dim(results[d.slot]) if isinstance(d, _Chosen) else d for d in shape))


class _Unmerged(Exception):
    """Two values that do not go together; ``value`` is the variable then."""

    def __init__(self, value: Any):
        self.value = value


class Merge:
    """What two branches leave behind, as the results of one ``if`` operation."""

    def __init__(self, pred: Value, then: Arm, orelse: Arm, before: Snapshot):
        self.pred = pred
        self.arms = (then, orelse)
        self.before = before
        self.slots: list[_Slot] = []
        self.objects: dict[tuple[int, int], tuple[_Later, Any, Any]] = {}
        self.sizes: dict[tuple[Dim, Dim], _Chosen] = {}
        self.where = line_of_block()

    def variables(self, names: Sequence[str], live: set[str]) -> list[Any]:
        """The variables after the ``if``, and its operation emitted."""
        merged = [
            self.merged(n, a, b) if n in live else (a if kept(a, b) else Undefined(n))
            for n, a, b in zip(names, self.arms[0].after, self.arms[1].after)
        ]
        results = self.emit()
        made = [_with_results(m, results) for m in merged]
        self.watch_objects(results)
        return made

    def merged(self, name: str, a: Any, b: Any) -> Any:
        """A variable's value after the ``if``; a ``_Later`` when it depends on the operation's results."""
        try:
            return self.merge(name, a, b)
        except _Unmerged as e:
            return e.value
        except _Different:
            return self.differs(name, a, b, "values of different structure")

    def merge(self, name: str, x: Any, y: Any) -> Any:
        if kept(x, y):
            return x
        if isinstance(x, Undefined) or isinstance(y, Undefined):
            return self.half_defined(name, x, y)
        if any(v is None or isinstance(v, Optional) for v in (x, y)):
            return self.optional(name, x, y)
        if isinstance(x, Choice) or isinstance(y, Choice):
            return self.choice(name, x, y)
        a, b = self.arms[0].opened(x), self.arms[1].opened(y)
        if (a is None or b is None or a.kind != b.kind) and is_option(x) and is_option(y):
            return self.choice(name, x, y)
        if a is None and b is None:
            leaf = self.slot(x, y)
            if leaf is None:
                raise _Unmerged(self.differs(name, x, y, "values that cannot be merged"))
            return leaf
        if a is None or b is None or a.kind != b.kind:
            raise _Different
        if (id(x), id(y)) not in self.objects:
            later = _Later(a.made, {})
            self.objects[id(x), id(y)] = later, x, y
            later.parts.update({k: self.merge(name, a.parts[k], b.parts[k]) for k in a.parts})
        return self.objects[id(x), id(y)][0]

    def optional(self, name: str, x: Any, y: Any) -> Any:
        """What is None, or may be, in one branch at least."""
        what = {"_dflow_result": "what a function returns", "_dflow_expression": "an expression"}.get(name)
        reason = f"{what or shown(name)} may be None after the `if` at {self.where}"
        location = user_location()
        found: Any = _Later(lambda p: Optional(p["present"], p["value"], reason, location), {})
        present = [False if v is None else v.present if isinstance(v, Optional) else True for v in (x, y)]
        values = [v.value if isinstance(v, Optional) else v for v in (x, y)]
        found.parts["present"] = self.merge(name, *present)
        if x is None or y is None:
            k = 0 if y is None else 1
            found.parts["value"] = self.filled(values[k], k)
        else:
            found.parts["value"] = self.merge(name, *values)
        return found

    def choice(self, name: str, x: Any, y: Any) -> Any:
        """What is one thing in one branch and another in the other."""
        if not (is_option(x) and is_option(y)):
            raise _Different
        if same_option(x, y):
            return x
        sides = [options_of(v) for v in (x, y)]
        pairs: list[list[Any]] = [[o, None] for o in sides[0]]
        places = []
        for o in sides[1]:
            k = next((k for k, (a, b) in enumerate(pairs) if b is None and self.alike(a, o)), len(pairs))
            if k == len(pairs):
                pairs.append([None, None])
            pairs[k][1] = o
            places.append(k)
        index = [v.index if isinstance(v, Choice) else 0 for v in (x, y)]
        with entered(self.arms[1].region):
            index[1] = moved(index[1], places)
        found = _Later(lambda p: Choice(p["index"], [p[k] for k in range(len(pairs))]), {})
        found.parts["index"] = self.merge(name, *index)
        for k, (a, b) in enumerate(pairs):
            half = self.filled(b, 1) if a is None else self.filled(a, 0)
            found.parts[k] = half if a is None or b is None else self.merge(name, a, b)
        return found

    def alike(self, a: Any, b: Any) -> bool:
        """Whether an option of the one branch and one of the other are merged to one."""
        if same_option(a, b):
            return True
        if is_fixed(a) or is_fixed(b):
            return False
        kinds = [self.arms[k].opened(o) for k, o in enumerate((a, b))]
        return all(kinds) and kinds[0].kind == kinds[1].kind  # type: ignore[union-attr]

    def half_defined(self, name: str, a: Any, b: Any) -> Any:
        defined, missing = (b, a) if isinstance(a, Undefined) else (a, b)
        if isinstance(defined, Undefined):
            return defined if defined.reason else missing
        if missing.filler:
            return self.filled(defined, 0 if defined is a else 1)
        if missing.reason:
            return missing
        return Undefined(
            name,
            f"{shown(name)} is defined in one branch only, of the `if` at {self.where}",
            f"give {name!r} a value in the other branch, or before the `if`",
        )

    def differs(self, name: str, a: Any, b: Any, how: str) -> Undefined:
        what = {"_dflow_result": "the function returns", "_dflow_expression": "the expression has"}.get(name)
        what = what or f"{shown(name)} has"
        return Undefined(
            name,
            f"{what} {how} in the branches of the `if` at {self.where}: {describe(a)} and {describe(b)}",
            _mend_of_different(a, b),
        )

    def filled(self, x: Any, k: int) -> Any:
        """``x`` in branch ``k``, and anything in the other."""
        opened = self.arms[k].opened(x)
        if opened is not None:
            key = (id(x), k)
            if key not in self.objects:
                later = _Later(opened.made, {})
                self.objects[key] = later, x, x
                later.parts.update({n: self.filled(p, k) for n, p in opened.parts.items()})
            return self.objects[key][0]
        if not is_number(x):
            return x
        with entered(self.arms[k].region):
            known = _lift.lift(x)
        shape = tuple(self.half_known(d, k) for d in known.type.shape)
        with entered(self.arms[k].region):
            value = _packed(known.value, shape)
        with entered(self.arms[1 - k].region):
            filler = builder().zeros(value.type)
        values = (value, filler) if k == 0 else (filler, value)
        self.slots.append(_Slot(values, known.weak, *self.cells([known], [self.arms[k]]), shape))
        return _SlotNumber(len(self.slots) - 1)

    def watch_objects(self, results: list[Array]) -> None:
        """Copies stand for the objects of both branches; where those have other names, none must change any more."""
        seen = Counter(i for _, x, y in self.objects.values() for i in {id(x), id(y)})
        for later, x, y in self.objects.values():
            outside = [o for o in (x, y) if o in self.before]
            if is_mutable(x) and (outside or seen[id(x)] > 1 or seen[id(y)] > 1):
                watch(region(), [later(results), *outside])

    def slot(self, x: Any, y: Any) -> Any:
        """A slot for two leaves, or None when they do not go together."""
        if not (is_number(x) and is_number(y)):
            return None
        arrays = []
        for leaf, arm in zip((x, y), self.arms):
            with entered(arm.region):
                arrays.append(_lift.lift(leaf))
        dtype = _lift.result_dtype(*arrays)
        if dtype.kind != "b" and any(a.dtype == np.bool_ for a in arrays):
            return None
        shape = self.shape(*(a.type.shape for a in arrays))
        if shape is None:
            return None
        values = []
        for a, arm in zip(arrays, self.arms):
            with entered(arm.region):
                values.append(_packed(_lift.convert(a.value, dtype), shape))
        weak = _lift.either(arrays[0].weak, arrays[1].weak)
        self.slots.append(_Slot((values[0], values[1]), weak, *self.cells(arrays, self.arms), shape, arrays))
        return _SlotNumber(len(self.slots) - 1)

    def cells(self, arrays: Sequence[Array], arms: Sequence[Arm]) -> tuple[list[Cell], list[Cell]]:
        """What a result may be another name of: all arrays, and those from outside of the branches."""
        found = [(c, arm) for a, arm in zip(arrays, arms) if a.ndim for c in (a.cell, *a.cell.copies)]
        return [c for c, _ in found], [c for c, arm in found if not c.home.is_within(arm.region)]

    def shape(self, a: sizes.Shape, b: sizes.Shape) -> tuple[Any, ...] | None:
        """The shape after the ``if``, None where the branches do not go together."""
        if len(a) != len(b):
            return None
        found = tuple(self.size(x, y) for x, y in zip(a, b))
        return None if any(d is None for d in found) else found

    def size(self, x: Dim, y: Dim) -> Any:
        """The size after the ``if``: that of both branches, or one that depends on the branch too (a ``_Chosen``)."""
        if isinstance(x, int) and isinstance(y, int):
            return x if x == y else None
        for d in (x, y):
            if sizes.same(x, y) and (isinstance(d, int) or region().sees(d.value)):  # type: ignore[union-attr]
                return d
        return self.chosen(x, y)

    def half_known(self, d: Dim, k: int) -> Any:
        """The size after the ``if`` of what branch ``k`` alone has."""
        if isinstance(d, int) or region().sees(d.value):  # type: ignore[union-attr]
            return d
        return self.chosen(d, 0) if k == 0 else self.chosen(0, d)

    def chosen(self, x: Dim, y: Dim) -> _Chosen:
        if (x, y) not in self.sizes:
            values = []
            for d, arm in zip((x, y), self.arms):
                with entered(arm.region):
                    values.append(builder().size(d))
            self.slots.append(_Slot((values[0], values[1]), True, [], []))
            bound = max(d if isinstance(d, int) else d.bound for d in (x, y))  # type: ignore[union-attr]
            self.sizes[x, y] = _Chosen(len(self.slots) - 1, bound)
        return self.sizes[x, y]

    def emit(self) -> list[Array]:
        here = region()
        cells = list(dict.fromkeys(c for arm in self.arms for c in arm.region.changed()))
        blocks = []
        for k, arm in enumerate(self.arms):
            results = [s.values[k] for s in self.slots] + [arm.region.read(c) for c in cells]
            blocks.append(arm.region.builder.finish(results))
        if not any(b.ops for b in blocks) and not blocks[0].results:
            return []
        emitted = builder().append("if", [self.pred], regions=blocks)
        for cell, value in zip(cells, emitted[len(self.slots) :]):
            here.write(cell, value)
        out: list[Array] = []
        holders: dict[Cell, list[Cell]] = {}  # the results that may be one array
        for s, value in zip(self.slots, emitted):
            value = _unpacked(value, s.shape, emitted)
            array = _lift.wrap(value, s.weak)
            array.cell.origin = s.arrays or value
            if s.aliases:
                array.cell.read_only = MAY_ALIAS
            if any(c.read_only == OF_A_LIST for c in s.cells):
                array.cell.read_only = OF_A_LIST
            for cell in s.aliases:
                array.cell.link(cell)
            for other in {id(a): a for c in s.cells for a in holders.setdefault(c, [])}.values():
                array.cell.link(other)
            for cell in s.cells:
                holders[cell].append(array.cell)
            out.append(array)
        return out


def _mend_of_different(a: Any, b: Any) -> str:
    if is_mutable(a) and is_mutable(b) and type(a) is not type(b):
        return (
            "use in the branch what is chosen there: so a recursive function walks a tree, with a call in each branch"
        )
    if all(x is None or is_number(x) or anatomy(x) for x in (a, b)):
        return "make both of one type and shape"
    names = ", or numbers (an IntEnum) for names" if isinstance(a, str) and isinstance(b, str) else ""
    return (
        "branches on traced values give numbers and arrays only: use in the branch what is chosen there"
        f"{names}, or make the condition static"
    )


class _SlotNumber(int):
    """Stands for a result of the operation among a variable's leaves."""


class _Different(Exception):
    """The values of a variable are not put together alike."""


class _Later:
    """A value of which some parts are results of the operation."""

    def __init__(self, make: Callable[[dict[Any, Any]], Any], parts: dict[Any, Any]):
        self.make = make
        self.parts = parts
        self.made: Any = None

        self.making = False

    def __call__(self, results: list[Array]) -> Any:
        """The value; one that is a part of itself is made before its parts are."""
        if self.made is None and self.making:
            self.made = self.make(dict.fromkeys(self.parts))
        elif self.made is None:
            self.making = True
            made = {k: _with_results(x, results) for k, x in self.parts.items()}
            if self.made is None:
                self.made = self.make(made)
            else:
                put_parts(self.made, made)
        return self.made


def _with_results(x: Any, results: list[Array]) -> Any:
    if isinstance(x, _SlotNumber):
        return results[x]
    return x(results) if isinstance(x, _Later) else x
