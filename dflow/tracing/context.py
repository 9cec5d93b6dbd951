"""Where tracing stands: the stack of regions, and what every reference holds in each of them.

A ``Cell`` is what a traced array refers to; its contents, an SSA value, change when the array is updated. A ``Region``
is a part of the program that is being traced: a whole function, the body of a loop, one branch of an ``if``. A region
sees the cells around it without touching them: what it writes stands in its own ``local`` table until whoever opened
the region makes results of it.

A loop body cannot know yet whether a cell that it reads will change later in the same body, so it reads a fresh
*placeholder*: at the end the placeholder becomes an argument of the body, or is replaced by the value from outside.
Integers are read as they are unless the loop carries them: nothing updates them in place, and so the sizes that are
computed from one integer inside and outside of the loop are seen to be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dflow.errors import NeedsStatic, TraceError, failure, user_location
from dflow.ir.core import Value, substitute
from dflow.ir.passes.intervals import Known, counts
from dflow.ir.registry import definition
from dflow.ir.types import TensorType, kind_of
from dflow.tracing.facts import LearningBuilder

TRACE, LOOP, BRANCH = "trace", "loop", "branch"


class Cell:
    """A mutable reference to an SSA value. ``poison`` is the reason why it must not be used any more."""

    __slots__ = ("copies", "home", "ordered", "origin", "poison", "read_only", "value")

    def __init__(self, value: Value, home: Region):
        self.value = value
        self.home = home
        self.poison: str | None = None
        self.read_only: str | None = None  # why it must not be updated
        self.copies: list[Cell] = []  # cells that may be the same array under another name, as far as one can tell
        self.origin: Any = value  # what the array was made as, a value or other arrays: it tells how it lies
        self.ordered: bool | None = None  # whether it lies row by row, once that was asked (``layouts``)

    def link(self, other: Cell) -> None:
        """Once one of them is updated, the other must not be read."""
        if other is not self and other not in self.copies:
            self.copies.append(other)
            other.copies.append(self)


class Region:
    """A part of the program under construction; see the module's text."""

    __slots__ = (
        *(
            "bounds",
            "builder",
            "carried",
            "constants",
            "direct",
            "disordered",
            "entry",
            "filled",
            "fresh",
            "given",
            "kind",
        ),
        *("known", "learnt", "local", "loop", "made", "name", "outside", "parent", "reach", "sizes", "taken", "undo"),
        *("unrolled", "watched"),
    )

    def __init__(
        self,
        kind: str,
        parent: Region | None,
        builder: LearningBuilder | None = None,
        name: str = "",
        carried: Iterable[Cell] = (),
        reach: Any = None,
    ):
        self.kind = kind
        self.parent = parent
        self.name = name
        if builder is None:
            assert parent is not None
            builder = LearningBuilder(loc=parent.builder.loc, known=parent.known)
        self.builder: LearningBuilder = builder
        self.known: Known = builder.known
        self.carried = frozenset(carried)  # cells of numbers that a loop carries
        self.direct: set[Cell] = set()  # cells of integers read without a placeholder
        self.given: frozenset[Cell] = frozenset()  # those of the arguments (trace)
        self.made: dict[Any, Value] = {}  # sizes and positions computed here, by how
        self.sizes: dict[Value, Value] = {}  # sizes of the enclosing trace, and what they are in this one
        self.bounds: dict[Value, int] = {}  # of sizes, as far as they hold here
        self.local: dict[Cell, Value] = {}  # contents, where they differ from those outside
        self.entry: dict[Cell, Value] = {}  # placeholders (loop) and captured values (trace)
        self.constants: dict[int, tuple[Any, Any, Value]] = {}  # NumPy arrays lifted already (of a trace)
        self.learnt: dict[Any, Any] = {}  # what loops have found out (of a trace)
        self.outside: Any = ()  # objects that the function reaches without getting them as arguments (of a trace)
        self.reach = reach  # a snapshot of what can be reached from around (of a loop or branch)
        self.taken: dict[int, tuple[Callable[[], Any], int]] = {}  # iterators; how often an item was taken (of a trace)
        self.disordered: set[Value] = set()  # values of arrays that do not lie row by row (of a trace)
        self.watched: list[Any] = []  # objects that must not change any more (of a trace)
        self.undo: list[partial[None]] | None = None  # what restores own cells, once a mark is set
        self.loop: Any = None  # the loop of which this is the body
        self.fresh: Any = None  # a NumPy array that the last step has made of known values (of a trace)
        self.filled: list[Cell] = []  # the lengths of lists that loops fill (of a trace)
        self.unrolled: int = parent.unrolled if parent else 1  # how many copies of the code unrolling makes already

    def read(self, cell: Cell) -> Value:
        """The contents of ``cell`` as this region sees them."""
        if cell.home is self:
            return cell.value
        found = self.local.get(cell)
        if found is not None:
            return found
        if self.parent is None:
            raise failure(
                TraceError,
                "a traced value is used outside of the function, branch or loop that it belongs to",
                mend="return the value, or assign it to a variable that is defined before the branch or loop",
            )
        outer = self.parent.read(cell)
        if self.kind == BRANCH:
            return outer
        if self.kind == LOOP and cell not in self.carried and outer.type.is_scalar and counts(outer.type.dtype):
            self.direct.add(cell)
            return outer
        inner = Value(self.own_type(outer.type) if self.kind == TRACE else outer.type, outer.hint)
        self.entry[cell] = self.local[cell] = inner
        return inner

    def own_type(self, t: TensorType) -> TensorType:
        """A type of the enclosing trace in this one, its sizes being captured values."""
        return substitute(t, {v: self._captured_size(v) for v in t.size_values})

    def seen_type(self, t: TensorType, home: Region) -> TensorType:
        """The type of an array that was made in ``home``, as it is seen from here."""
        root = self.root()
        if root is home.root() or root.parent is None or all(map(self.sees, t.size_values)):
            return t
        return root.own_type(root.parent.seen_type(t, home))

    def around(self) -> Iterator[Region]:
        """This region and those around it in the same trace, from the inside out."""
        r: Region | None = self
        while r is not None:
            yield r
            r = None if r.kind == TRACE else r.parent

    def sees(self, v: Value) -> bool:
        """Whether a value is defined here or around, in the same trace."""
        return any(
            v in r.builder.args
            or v in r.entry.values()
            or (v.op is not None and any(v.op is op for op in r.builder.ops))
            for r in self.around()
        )

    def _captured_size(self, v: Value) -> Value:
        if v not in self.sizes:
            if self.parent is None:
                raise failure(
                    NeedsStatic,
                    "an array whose size depends on the run is used after the trace that it belongs to",
                    mend="use an array of static size here",
                )
            inner = self.sizes[v] = self.read(Cell(v, self.parent))
            self.known.define(inner, self.parent.known.interval(v))
        return self.sizes[v]

    def write(self, cell: Cell, value: Value) -> None:
        if cell.home is self:
            if self.undo is not None:
                self.undo.append(partial(setattr, cell, "value", cell.value))
            cell.value = value
            return
        if cell in self.direct:
            raise failure(
                TraceError,
                "an integer is updated in place in a loop that has read it before",
                mend="assign the new value to a variable: n = n + 1",
            )
        self.local[cell] = value

    def changed(self) -> list[Cell]:
        """The cells from outside that this region has given other contents."""
        return [c for c, v in self.local.items() if self.entry.get(c) is not v]

    def mark(self) -> Mark:
        """Remembers how things stand, for ``back_to``."""
        if self.undo is None:
            self.undo = []
        return Mark(len(self.builder.ops), dict(self.local), len(self.undo))

    def has_updated(self, mark: Mark) -> bool:
        """Whether arrays that there were at the mark have been given other contents since."""
        assert self.undo is not None
        new = {r for op in self.builder.ops[mark.ops :] for r in op.results}
        own = any(change.args[-1] not in new for change in self.undo[mark.undone :])
        return own or any(self.local.get(c) is not v for c, v in mark.local.items())

    def is_pointwise_since(self, mark: Mark) -> bool:
        """Whether all that has been traced since the mark works element by element and updates nothing."""
        new = self.builder.ops[mark.ops :]
        plain = all(definition(op).elementwise or op.name in ("constant", "broadcast", "convert") for op in new)
        return plain and not self.has_updated(mark)

    def back_to(self, mark: Mark) -> None:
        """Forgets what has been traced since the mark."""
        self.made.clear()
        forgotten = set(self.builder.ops[mark.ops :])
        self.constants = {k: known for k, known in self.constants.items() if known[2].op not in forgotten}
        del self.builder.ops[mark.ops :]
        # What was read first since then stays read: its placeholder has no other record.
        placeholders = {c: v for c, v in self.entry.items() if c not in mark.local}
        self.local = {**placeholders, **mark.local}
        assert self.undo is not None
        while len(self.undo) > mark.undone:
            self.undo.pop()()

    def is_within(self, other: Region) -> bool:
        """Whether this region is ``other``, or stands in it."""
        r: Region | None = self
        while r is not None and r is not other:
            r = r.parent
        return r is other

    def root(self) -> Region:
        """The region of the whole function."""
        r = self
        while r.kind != TRACE:
            assert r.parent is not None
            r = r.parent
        return r


@dataclass(frozen=True)
class Mark:
    """A point in the tracing of a region."""

    ops: int
    local: dict[Cell, Value]
    undone: int


_current: ContextVar[Region | None] = ContextVar("dflow_region", default=None)


def tracing() -> bool:
    """Whether a function is being traced."""
    return _current.get() is not None


def region() -> Region:
    """The innermost region under construction."""
    r = _current.get()
    if r is None:
        raise failure(TraceError, "a traced value is used after its function has been traced", mend="return the value")
    return r


def current() -> Region | None:
    return _current.get()


def note_fresh(x: Any) -> Any:
    """``x``, noted where it is a new NumPy array that nothing else knows yet; any other step takes the note back."""
    here = current()
    if here is not None:
        here.root().fresh = x if type(x) is np.ndarray else None
    return x


def builder() -> LearningBuilder:
    """The builder of the current region, its location set to the user's current line."""
    b = region().builder
    b.loc = user_location() or b.loc
    return b


@contextmanager
def entered(r: Region) -> Iterator[Region]:
    """Tracing goes into ``r`` meanwhile."""
    token = _current.set(r)
    try:
        with nullcontext() if r.kind == TRACE else r.known.scope():  # what a branch assumes holds in it alone
            yield r
    finally:
        _current.reset(token)


def constant(array: np.ndarray[Any, Any]) -> Value:
    """A NumPy array as a constant, once for a whole trace; a copy, for the array may change later."""
    root = region().root()
    found = root.constants.get(id(array))
    if found is not None and np.array_equal(found[0], found[1], equal_nan=kind_of(array.dtype) == "f"):
        return found[2]
    copy = np.array(array)
    root.builder.loc = user_location() or root.builder.loc
    value = root.builder.constant(copy)
    root.constants[id(array)] = (array, copy, value)
    return value
