"""The mutable Python objects that a program reaches, and what a block changes in them.

A list, a dict, a set, an object with attributes and a variable of an enclosing function are all taken as *parts* by
key. A block that is traced is run once, for all times and for both ways: so the parts that it changes become variables
of the block (``Place``), and the objects are put back as they were before it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optree

from dflow.errors import CarriedError, DflowError, TraceError, failure, user_location
from dflow.ir.core import Location
from dflow.records import LIBRARIES, NAMESPACE, Fixed, attributes, has, is_custom, is_record, with_attributes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.views import same_steps
from dflow.tracing.context import LOOP, Region, current
from dflow.tracing.control.state import Forgotten, Undefined, flatten, same
from dflow.tracing.python.choice import Choice, is_fixed
from dflow.tracing.python.optional import Optional

MOST_ITEMS = 10_000  # longer lists are tables of data: what stands in them is not followed
MOST_OBJECTS = 10_000
MISSING = Undefined("part")
Parts = dict[Any, Any]


def parts(x: Any) -> Parts:
    """What stands in a mutable object, by key."""
    if isinstance(x, dict):
        return dict(x)
    if isinstance(x, list | deque | bytearray):
        return dict(enumerate(x))
    if isinstance(x, set):
        return {"elements": frozenset(x)}
    if isinstance(x, types.CellType):
        try:
            return {"contents": x.cell_contents}
        except ValueError:  # not bound yet
            return {}
    return attributes(x)


def put_parts(x: Any, contents: Parts) -> None:
    """Makes ``contents`` what stands in ``x``."""
    if isinstance(x, dict):
        x.clear()
        x.update(contents)
    elif isinstance(x, list | deque | bytearray):
        x.clear()
        x.extend(contents.values())
    elif isinstance(x, set):
        x.clear()
        x.update(contents["elements"])
    elif isinstance(x, types.CellType):
        if contents:
            x.cell_contents = contents["contents"]
        else:
            del x.cell_contents
    else:
        for name in set(attributes(x)) - set(contents):
            object.__delattr__(x, name)
        for name, value in contents.items():
            object.__setattr__(x, name, value)


@dataclasses.dataclass
class Anatomy:
    """A value taken apart: equal kinds have the same parts, and ``made`` puts other parts together."""

    kind: Any
    parts: Parts
    made: Callable[[Parts], Any]


def anatomy(x: Any, contents: Callable[[Any], Parts] = parts) -> Anatomy | None:
    """How ``x`` is put together; None for a leaf."""
    cls = type(x)
    if isinstance(x, list | dict | set | deque):
        found = contents(x)

        def like(p: Parts) -> Any:
            new = copy.copy(x)
            if getattr(x, "__dict__", None) is x:
                object.__setattr__(new, "__dict__", new)
            put_parts(new, p)
            return new

        return None if cls is set else Anatomy((cls, *found), found, like)
    if isinstance(x, tuple):
        make = cls._make if hasattr(cls, "_make") else cls
        return Anatomy((cls, len(x)), dict(enumerate(x)), lambda p: make(p.values()))
    if isinstance(x, Optional):
        both = {"present": x.present, "value": x.value}
        return Anatomy(Optional, both, lambda p: x.like(p["present"], p["value"]))
    if isinstance(x, Choice):
        return _anatomy_of_choice(x)
    if isinstance(x, _LEAVES) or not is_record(x):
        return None
    if is_custom(cls):
        children, rest, _, unflatten = optree.tree_flatten_one_level(x, none_is_leaf=True, namespace=NAMESPACE)
        return Anatomy((cls, Fixed(rest)), dict(enumerate(children)), lambda p: unflatten(rest, list(p.values())))
    found = contents(x)
    return Anatomy((cls, *sorted(found)), found, lambda p: with_attributes(cls, p.items()))


def _anatomy_of_choice(x: Choice) -> Anatomy:
    """Its index, and those options that have parts."""
    inner = {k: o for k, o in enumerate(x.options) if not is_fixed(o)}
    kind = Choice, Fixed(tuple(None if k in inner else o for k, o in enumerate(x.options)))
    made = [*x.options]

    def like(p: Parts) -> Choice:
        return Choice(p["index"], [p.get(k, o) for k, o in enumerate(made)])

    return Anatomy(kind, {"index": x.index, **inner}, like)


def every_part(x: Any) -> Iterator[Any]:
    """``x``, its parts, and theirs; of what may be None or is chosen only itself."""
    todo: list[Any] = [x]
    seen: set[int] = set()
    while todo:
        x = todo.pop()
        yield x
        if id(x) in seen or isinstance(x, Choice | Optional) or len(seen) > MOST_OBJECTS:
            continue
        seen.add(id(x))
        opened = anatomy(x)
        todo += [] if opened is None else opened.parts.values()


def is_mutable(x: Any) -> bool:
    """Whether ``x`` is an object that may change, and that counts as itself and not as its value."""
    if isinstance(x, list | dict | set | deque | types.CellType):
        return True
    if isinstance(x, tuple | Array | Undefined | Choice | Optional) or not is_record(x):
        return False
    return not getattr(getattr(x, "__dataclass_params__", None), "frozen", False)


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """One part of a mutable object."""

    owner: Any
    key: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.owner is other.owner and self.key == other.key

    def __hash__(self) -> int:
        return hash((id(self.owner), self.key))

    def get(self) -> Any:
        return parts(self.owner).get(self.key, MISSING)

    def put(self, value: Any) -> None:
        if isinstance(self.owner, list | deque) and self.key == len(self.owner):
            self.owner.append(value)
        elif isinstance(self.owner, list | deque | dict):
            self.owner[self.key] = value
        elif isinstance(self.owner, types.CellType):
            self.owner.cell_contents = value
        else:
            object.__setattr__(self.owner, self.key, value)

    @property
    def name(self) -> PartName:
        named = isinstance(self.owner, type | types.ModuleType | types.FunctionType)
        kind = (self.owner if named else type(self.owner)).__name__
        if isinstance(self.owner, list | deque | dict):
            return PartName(f"{kind}[{self.key!r}]", self)
        if isinstance(self.owner, types.CellType):
            return PartName("a variable of another function", self)
        return PartName(f"{kind}.{self.key}", self)


class PartName(str):
    """The name of a part of an object, in the place of a variable's; equal when the place is."""

    place: Place

    def __new__(cls, text: str, place: Place) -> PartName:
        self = super().__new__(cls, text)
        self.place = place
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartName) and self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)


def shown(name: str) -> str:
    """A variable or a part of an object, for messages."""
    if isinstance(name, PartName):
        return str(name)
    return "the result" if name.startswith("_dflow") else f"variable {name!r}"


def unchanged(a: Any, b: Any) -> bool:
    """Whether a part is what it was."""
    if a is b:
        return True
    if isinstance(a, Array) and isinstance(b, Array):
        return a.cell is b.cell and same_steps(a.steps, b.steps)
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(unchanged, a, b))
    return isinstance(a, _PLAIN) and bool(a == b)


def kept(a: Any, b: Any) -> bool:
    """Whether two values are the same, so that nothing needs to be decided between them."""
    if isinstance(a, tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(kept, a, b))
    if a is b or isinstance(a, tuple) or is_mutable(a) or is_mutable(b) or is_record(a):
        return a is b
    return same(a, b)


_PLAIN = bool | int | float | complex | str | bytes | frozenset | np.generic


class Snapshot:
    """The mutable objects that can be reached from some values, as they are now.

    ``variables`` are the names of variables that are looked after otherwise, and so are the parts ``places``.
    """

    def __init__(self, values: Iterable[Any], variables: Iterable[str] = (), places: Iterable[Place] = ()):
        self.saved: dict[int, tuple[Any, Parts]] = {}
        self._variables = set(variables)
        self._places = set(places)
        self._seen: dict[int, Any] = {}  # what has been visited, kept alive so that ids stay its own
        for v in values:
            self._visit(v)

    def __contains__(self, x: Any) -> bool:
        return id(x) in self.saved

    def reaches(self, x: Any) -> bool:
        return id(x) in self._seen

    def _visit(self, x: Any) -> None:
        todo = [x]
        while todo:
            x = todo.pop()
            if id(x) in self._seen or isinstance(x, _LEAVES) or len(self._seen) > MOST_OBJECTS:
                continue
            self._seen[id(x)] = x
            todo += self._reached(x)

    def _reached(self, x: Any) -> Iterable[Any]:
        """What can be reached from ``x`` directly."""
        if isinstance(x, types.FunctionType):
            return self._of_function(x)
        if isinstance(x, types.MethodType):
            return (x.__self__, x.__func__)
        if isinstance(x, functools.partial):
            return (x.func, *x.args, *x.keywords.values())
        if isinstance(x, type):
            return [f for f in vars(x).values() if isinstance(f, types.FunctionType)] if _is_users(x) else ()
        if isinstance(x, Optional):
            return (x.value,)
        if isinstance(x, Choice):
            return x.options
        if isinstance(x, tuple):
            return x if len(x) <= MOST_ITEMS else ()
        if has(x, "__wrapped__"):  # a compiled function, a cached one
            return (x.__wrapped__,)
        if not isinstance(x, list | dict | set | deque | bytearray) and not is_record(x):
            return ()
        contents = parts(x)
        self.saved[id(x)] = (x, contents)
        inner = contents.values() if len(contents) <= MOST_ITEMS else ()
        return (*inner, type(x)) if is_record(x) else inner

    def _of_function(self, f: types.FunctionType) -> Iterator[Any]:
        """Variables of the functions around ``f`` and global ones that it uses."""
        if not _is_users(f):
            return
        yield from (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values())
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or ()):
            if name.startswith(("dflow__", "_dflow")) or name in self._variables:
                continue
            contents = parts(cell)
            if contents:
                self.saved[id(cell)] = (cell, contents)
                yield contents["contents"]
        for name in _global_names(f.__code__):
            if name in f.__globals__:
                yield f.__globals__[name]

    # -- what has changed ----------------------------------------------------------------------------------------

    def changes(self) -> dict[Place, Any]:
        """The parts that are not what they were, with what they are now; MISSING for those that are gone."""
        return self._changes(self.saved.values())

    def _changes(self, owners: Iterable[tuple[Any, Parts]]) -> dict[Place, Any]:
        found = {}
        for owner, then in owners:
            now = parts(owner)
            for key in {**then, **now}:
                a, b = then.get(key, MISSING), now.get(key, MISSING)
                place = Place(owner, key)
                if not unchanged(a, b) and place not in self._places:
                    found[place] = b
        return found

    def then(self, place: Place) -> Any:
        """What the part was."""
        return self.saved[id(place.owner)][1].get(place.key, MISSING)

    def new_places(self, where: str, growing: bool = False) -> list[Place]:
        """The parts that were changed; refuses objects that shrink and, unless they may be ``growing``, that grow."""
        found = self.changes()
        for place, now in found.items():
            grows = self.then(place) is MISSING and not growing
            if now is MISSING or grows or isinstance(place.owner, set):
                self.restore()
                error = resized(place, where)
                if type(place.owner) is list and now is MISSING:  # a loop that fills the list takes items from it, too
                    error.appended = [(place.owner, list(place.owner), None)]
                raise error
            if isinstance(place.owner, bytearray):
                self.restore()
                raise failure(
                    CarriedError,
                    f"a bytearray is changed inside a {where} that is traced",
                    mend="use an array, np.zeros(n, np.uint8)",
                )
        return list(found)

    def require_unchanged(self, location: Location | None, owner: Any = None) -> None:
        """Refuses changes (of one object, if given), but for new parts that hold nothing traced: tables that are filled
        once."""
        for place, now in (self.changes() if owner is None else self._changes([self.saved[id(owner)]])).items():
            if self.then(place) is not MISSING or any(isinstance(x, Array) for x in flatten(now)[0]):
                self.restore()
                raise outside_change(place.owner, place.name, location)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Things are as they were meanwhile, and afterwards as they are now."""
        now = Snapshot(())
        now.saved = {k: (owner, parts(owner)) for k, (owner, _) in self.saved.items()}
        self.restore()
        try:
            yield
        finally:
            now.restore()

    def restore(self) -> None:
        """Puts everything back."""
        for owner, then in self.saved.values():
            now = parts(owner)
            if len(now) != len(then) or any(now.get(k, MISSING) is not v for k, v in then.items()):
                put_parts(owner, then)


def article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


def in_loop(here: Region | None) -> bool:
    """Whether what is traced in a region runs several times."""
    return here is not None and (here.unrolled > 1 or any(r.kind == LOOP for r in here.around()))


WHILE = "`while` loop"


def outside_change(owner: Any, name: str, location: Location | None = None) -> Exception:
    kind = article("variable of another function" if isinstance(owner, types.CellType) else type(owner).__name__)
    if isinstance(owner, type | types.ModuleType | types.FunctionType):
        kind = f"the {'class' if isinstance(owner, type) else type(owner).__name__} {owner.__name__}"
    return failure(
        TraceError,
        f"the function changes {kind} from outside, which would happen once, while tracing",
        seen=f"{name} is assigned",
        mend="pass the object as an argument, or return the new value and assign it outside",
        location=location,
    )


def resized(place: Place, where: str) -> DflowError:
    kind = "variable of another function" if isinstance(place.owner, types.CellType) else type(place.owner).__name__
    mend = "give it all its parts before, and change their values only; or fill an array"
    if isinstance(place.owner, list) and where == "branch" and not in_loop(current()):
        mend = "say its length: an array of the items that there may be, and a mask of those that there are, `a[mask]`"
    elif isinstance(place.owner, list):
        mend = "append numbers, arrays or tuples that are alike, and change the list in no other way; or fill an array"
    return failure(
        CarriedError,
        f"{article(kind)} from outside grows or shrinks inside a {where} that is traced",
        seen=f"{place.name} is set or removed there",
        mend=mend,
    )


def emptied(xs: list[Any]) -> Exception:
    """The error where an item is taken from a list that has none: when a branch or loop runs, there may be some."""
    here = current()
    then = here.reach.saved.get(id(xs)) if here is not None and here.reach is not None else None
    if then is None or not then[1]:
        return IndexError("pop from empty list")
    error = resized(Place(xs, 0), "loop")
    error.appended = [(xs, list(then[1].values()), None)]
    return error


_LEAVES = Array | np.ndarray | np.generic | bool | int | float | complex | str | bytes | types.ModuleType | None


def _is_users(x: Any) -> bool:
    package = (x.__module__ or "").partition(".")[0]
    return package not in LIBRARIES and package not in sys.stdlib_module_names


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return tuple(dict.fromkeys((*code.co_names, *(n for c in inner for n in _global_names(c)))))


# -- objects under two names ---------------------------------------------------------------------------------------


def watch(region: Region, objects: Sequence[Any]) -> None:
    """Objects that may be one and the same, as far as can be told while tracing: none of them may change any more."""
    region.root().watched.append((Snapshot(objects), user_location()))


def check_watched(region: Region, location: Location | None) -> None:
    for snapshot, chosen in region.root().watched:
        for place, now in snapshot.changes().items():
            if unchanged(*(x.was if isinstance(x, Forgotten) else x for x in (snapshot.then(place), now))):
                continue
            raise failure(
                CarriedError,
                f"{article(type(place.owner).__name__)} is updated that may be another name of an object chosen in a "
                "branch or a loop",
                seen=f"{place.name} is assigned" + (", after the choice in this line" if chosen else ""),
                mend="copy the object before it is updated, x = copy.copy(x), or where it gets its second name",
                location=chosen or location,
            )
