"""What a compiled function changes in the objects among its arguments: lists, dicts, objects with attributes.

While tracing, the function works on copies, whose changed parts become results of the program. After a call these are
put into the caller's objects. (Arrays that are updated in place are the affair of ``transform.write_back``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dflow import trees
from dflow.errors import CarriedError, TraceError, failure
from dflow.tracing.arrays.array import Array
from dflow.tracing.control.state import flatten
from dflow.tracing.lists.earlier import Earlier
from dflow.tracing.python.objects import MISSING, Place, Snapshot, anatomy, is_mutable

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Update:
    """One part of an object that changes: where the object is, the part's key, and its new value.

    ``leaves`` has a position among the results for each traced leaf, and other leaves as they are. ``same`` is where
    the value is among the arguments, if it is an object of theirs.
    """

    path: Path
    key: Any
    spec: trees.Spec | None = None
    leaves: tuple[Any, ...] = ()
    same: Path | None = None

    def value(self, results: Sequence[Any]) -> Any:
        if self.spec is None:
            return MISSING
        return trees.unflatten(self.spec, [results[x.position] if isinstance(x, Result) else x for x in self.leaves])


@dataclass(frozen=True)
class Result:
    position: int


def changed(before: Snapshot, where: dict[int, Path]) -> tuple[list[Update], list[Array]]:
    """The updates since ``before``, and the arrays that are their results; ``where`` has the ``paths`` of then."""
    updates: list[Update] = []
    arrays: list[Array] = []
    for place, value in before.changes().items():
        if id(place.owner) not in where:
            raise failure(
                TraceError,
                f"the function changes a {type(place.owner).__name__} that its arguments refer to",
                seen=f"{place.name} is assigned",
                mend="pass the object as an argument of its own, or return the new value",
            )
        if value is MISSING:
            updates.append(Update(where[id(place.owner)], place.key))
            continue
        leaves, spec = flatten(value)
        kept: list[Any] = []
        for x in leaves:
            if isinstance(x, Array):
                kept.append(Result(len(arrays)))
                arrays.append(x)
            elif isinstance(x, Earlier):
                raise failure(
                    CarriedError,
                    "the function makes a list that is an argument longer, by how much is known only when it runs",
                    mend="let the function have a list of its own, list(xs), and return it as an array, np.array(xs)",
                )
            else:
                kept.append(x)
        same = where.get(id(value)) if is_mutable(value) else None
        updates.append(Update(where[id(place.owner)], place.key, spec, tuple(kept), same))
    return updates, arrays


def paths(arguments: Any) -> dict[int, Path]:
    """The way from the arguments to every object in them, by its id."""
    found: dict[int, Path] = {}

    def visit(x: Any, path: Path) -> None:
        opened = anatomy(x)
        if opened is None or id(x) in found:
            return
        found[id(x)] = path
        for key, part in opened.parts.items():
            visit(part, (*path, key))

    visit(arguments, ())
    return found


def apply(updates: Sequence[Update], arguments: tuple[Any, Any], results: Sequence[Any]) -> None:
    """Gives the caller's objects their new parts. Raises ValueError when one object is passed twice."""
    owners = [_owner(u.path, arguments) for u in updates]
    _refuse_twice(owners, arguments)
    values = [u.value(results) if u.same is None else _owner(u.same, arguments) for u in updates]
    removed = [(o, u.key) for o, u, v in zip(owners, updates, values) if v is MISSING]
    for owner, update, value in zip(owners, updates, values):
        if value is MISSING:
            continue
        if isinstance(owner, list) and update.key == len(owner):
            owner.append(value)
        else:
            Place(owner, update.key).put(value)
    for owner, key in reversed(removed):  # from a list's end
        if isinstance(owner, list | dict):
            del owner[key]
        else:
            object.__delattr__(owner, key)


def _owner(path: Path, arguments: Any) -> Any:
    x = arguments
    for key in path:
        opened = anatomy(x)
        assert opened is not None
        x = opened.parts[key]
    return x


def _refuse_twice(owners: Sequence[Any], arguments: Any) -> None:
    changing = {id(o) for o in owners}
    count: dict[int, int] = {}

    def visit(x: Any) -> None:
        opened = anatomy(x)
        if opened is None:
            return
        count[id(x)] = count.get(id(x), 0) + 1
        if count[id(x)] > 1:
            if id(x) in changing:
                raise ValueError(
                    f"one {type(x).__name__} stands at two places in the arguments, and the function changes it; "
                    "pass a copy at one of them"
                )
            return
        for part in opened.parts.values():
            visit(part)

    visit(arguments)
