"""The statements ``while`` and ``for``: as Python runs them, or as one operation when they are traced."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dflow.errors import CarriedError, DflowError, TraceIndexError, UndefinedError, failure
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import BRANCH, LOOP, Cell, Region, region, tracing
from dflow.tracing.control.branches import Assigned, Block, Get, Set, if_, traced_condition
from dflow.tracing.control.slots import Loop
from dflow.tracing.control.state import flatten
from dflow.tracing.control.traced_loop import MOST_UNROLLED, TracedLoop
from dflow.tracing.lists import tables
from dflow.tracing.lists.rows import columns
from dflow.tracing.lists.sequences import Indexable, Once, as_sequence
from dflow.tracing.lists.stacks import held_outside
from dflow.tracing.python.iterators import leave_alone, perhaps_next, take_from, taken_from
from dflow.tracing.python.objects import Snapshot
from dflow.tracing.python.special_methods import iterated

LONG = 16  # a `while` with a known condition is traced as a loop when it runs more often
SHORT = 4  # loops of so many iterations or fewer are unrolled, ...
DEEP = 3  # ... those with no more levels of loops than this, ...
MOST_KNOWN = 1 << 16  # a loop with nothing in it that is traced is run while tracing when it has no more iterations
MOST_COPIES = 32  # ... as long as no code is repeated more often than this in all


def while_(test: Block, body: Block, get: Get, put: Set, *facts: Any) -> None:
    """A ``while`` statement."""
    loop = Loop(get, put, *facts)
    tried = not tracing()
    start = None if tried else _Start(loop)
    turns = 0
    while True:
        stop = loop.stopped()
        if not traced_condition(stop):
            if stop:
                return
            holds = test()
            known = not traced_condition(holds)
            if known and not holds:
                return
            # Where the first rounds alone are known to run, they are traced as those of the loop: its code stands once.
            many = turns == LONG if known else turns > 0
            if not tried and (
                (known and loop.flags) or (many and start and start.emits(turns) and start.can_be_restored())
            ):
                tried = True
                if turns and start:
                    start.restore()
                if _attempted(loop, test, body):
                    return
                turns = 0
                continue
            if known:
                body()
                turns += 1
                continue
        TracedLoop(loop, body, test=test).run()
        return


class _Start:
    """How things stand before a loop."""

    def __init__(self, loop: Loop):
        self.loop = loop
        self.values = loop.get()
        self.snapshot = Snapshot([*self.values, *loop.uses()])
        self.taken = taken_from(self.snapshot)
        self.region = region()
        self.mark = self.region.mark()

    def emits(self, turns: int) -> bool:
        """Whether every iteration has added to the program."""
        return len(self.region.builder.ops) - self.mark.ops >= turns

    def can_be_restored(self) -> bool:
        """What has been taken from an iterator since cannot be put back."""
        return taken_from(self.snapshot) == self.taken

    def restore(self) -> None:
        self.region.back_to(self.mark)
        self.loop.put(self.values)
        self.snapshot.restore()


def _attempted(loop: Loop, test: Block, body: Block) -> bool:
    """A loop whose condition is known on entry, as a traced one if it ends by what is known only when it runs.

    ``while True`` with a traced ``break`` is one, and ``while i < n`` with numbers that would be repeated many times.
    """
    before, snapshot = loop.get(), Snapshot([*loop.get(), *loop.uses()])
    try:
        if TracedLoop(loop, body, test=test, positive=True, only_if_traced=True).run():
            return True
    except DflowError as e:
        if tables.left_to_another(e):
            raise
    loop.put(before)
    snapshot.restore()
    return False


def for_(iterable: Any, body: Callable[[Any], None], levels: int, get: Get, put: Set, *facts: Any) -> None:
    """A ``for`` statement; ``levels`` of loops stand in it, one in the other, itself among them."""
    loop = Loop(get, put, *facts)
    sequence = as_sequence(iterable) if tracing() else None
    if sequence is None:
        if isinstance(iterable, Iterator) and tracing():
            take_from(iterable)
        return _unrolled(loop, iterated(iterable), body, iterable)
    if isinstance(sequence, Once):
        sequence.refuse_again()
    _over(sequence, loop, body, levels)
    if isinstance(sequence, Once):  # not before: another try may begin anew
        sequence.gone_through = True
    return None


def _over(sequence: Indexable, loop: Loop, body: Callable[[Any], None], levels: int) -> None:
    """A ``for`` statement over what has an item for each position."""
    length = sequence.length
    static = isinstance(length, int)
    refused = None
    if static and length <= SHORT and levels <= DEEP and length * region().unrolled <= MOST_COPIES:
        refused = _short(loop, sequence, body)
        if refused is None:
            return
    start, items = _Start(loop), _Items(sequence)
    traced = TracedLoop(loop, lambda k: body(sequence.item(k)), count=length, positive=static)
    try:
        traced.run()
        items.check(traced.region.changed())
    except RecursionError:
        start.restore()
        if not (static and _may_end(length)):
            raise
        _copied(loop, sequence, body)
    except DflowError as e:
        start.restore()
        if refused is not None:
            raise refused from None
        if any(held_outside(target, traced.here) for target, *_ in e.appended) or tables.left_to_another(e):
            raise
        peels = isinstance(e, CarriedError | UndefinedError) or (e.unroll and isinstance(e, TraceIndexError))
        if static and peels and _peeled(loop, sequence, body):
            return
        if not (static and e.unroll):
            raise
        if length * region().unrolled <= MOST_UNROLLED:
            _copied(loop, sequence, body)
        elif length > MOST_KNOWN or not _known(loop, sequence, body):
            raise


def _may_end(length: int) -> bool:
    """Whether to unroll a loop for a recursion that may end by the number of the iteration.

    Loops in traced loops leave it to those, and short loops have been unrolled: so an endless recursion with loops
    in it is tried a few times only.
    """
    here = region()
    return SHORT < length <= MOST_UNROLLED // here.unrolled and all(r.kind != LOOP for r in here.around())


def if_filling(test: Any, then: Block, orelse: Block, *facts: Any) -> None:
    """An ``if`` statement; where a list becomes longer in it, it is the one iteration of a loop that fills the list."""
    assigned = Assigned(*facts)
    before = assigned.get()
    try:
        if_(test, then, orelse, assigned)
    except CarriedError as e:
        here = region()
        held = here.unrolled > 1 or any(_held(target, here) for target, *_ in e.appended)
        if not e.appended or held:
            raise
        assigned.put(before)
        snapshot = Snapshot([*before, *assigned.uses()])
        loop = Loop(assigned.get, assigned.put, assigned.names, assigned.names, assigned.live, (), assigned.uses)

        def body(_: Any) -> None:
            start = assigned.get()
            if_(test, then, orelse, assigned)
            pairs = zip(assigned.names, start, assigned.get())
            assigned.put([new if name in assigned.live else old for name, old, new in pairs])

        try:
            TracedLoop(loop, body, count=1, positive=True).run()
            return
        except (CarriedError, UndefinedError):
            assigned.put(before)
            snapshot.restore()
        raise


def _held(target: list[Any], here: Region) -> bool:
    """Whether a loop or a branch around what stands ``here`` is the one to see that the list becomes longer."""
    branches = (r.reach for r in here.around() if r.kind == BRANCH)
    return held_outside(target, here) or any(target in reach for reach in branches)


class _Items:
    """The items of the lists that a loop runs over: as one operation it reads those that there are on entry."""

    def __init__(self, sequence: Indexable):
        self.lists = [(xs, list(xs)) for xs in sequence.lists()]

    def check(self, changed: Iterable[Cell]) -> None:
        """Refuses lists, or arrays in them, that the loop has changed."""
        cells = set(changed) if self.lists else set()
        for now, then in self.lists:
            same = len(now) == len(then) and all(a is b for a, b in zip(now, then))
            if not same or any(isinstance(x, Array) and x.cell in cells for x in flatten(then)[0]):
                error = _changing()
                error.unroll = len(now) == len(then)
                raise error

    def check_length(self) -> None:
        """Refuses lists that the iterations, one after the other, have made longer or shorter."""
        if any(len(now) != len(then) for now, then in self.lists):
            raise _changing()

    def check_rows(self) -> None:
        """Refuses lists whose items are not the rows of one array any more."""
        if any(columns(now) is None for now, _ in self.lists):
            raise _changing()


def _changing() -> DflowError:
    return failure(
        CarriedError,
        "this loop changes a list while it iterates over it",
        mend="iterate over a copy, `for x in list(xs)`, or over the positions, `for i in range(len(xs))`",
    )


def _short(loop: Loop, sequence: Indexable, body: Callable[[Any], None]) -> DflowError | None:
    """Unrolls a loop; or puts everything back where a list becomes longer in a branch, which a traced loop can fill."""
    start = _Start(loop)
    try:
        _copied(loop, sequence, body)
    except CarriedError as e:
        held = any(held_outside(target, start.region) for target, *_ in e.appended)
        if not e.appended or held or not start.can_be_restored():
            raise
        start.restore()
        return e
    return None


def _copied(loop: Loop, sequence: Indexable, body: Callable[[Any], None]) -> None:
    """The iterations of a sequence of known length, one after the other."""
    here, items = region(), _Items(sequence)
    around, here.unrolled = here.unrolled, here.unrolled * max(1, len(sequence))
    try:
        _unrolled(loop, (sequence.item(k) for k in range(len(sequence))), body)
    finally:
        here.unrolled = around
    items.check_length()


def _peeled(loop: Loop, sequence: Indexable, body: Callable[[Any], None]) -> bool:
    """The first iteration by itself, the others as a loop: what the first defines then has a value and a type."""
    start, items = _Start(loop), _Items(sequence)
    try:
        body(sequence.item(0))
        items.check_rows()
        others = TracedLoop(loop, lambda k: body(sequence.item(k + 1)), count=sequence.length - 1, positive=True)
        stop = loop.stopped()
        if traced_condition(stop):
            if_(stop, lambda: None, others.run, loop.assigned)
        elif stop:
            return True
        else:
            others.run()
        items.check(others.region.changed())
    except DflowError:
        if not start.can_be_restored():
            raise
        start.restore()
        return False
    return True


def _known(loop: Loop, sequence: Indexable, body: Callable[[Any], None]) -> bool:
    """Runs a loop with nothing for the program to do, such as one that makes a list of known numbers; False if there
    is something."""
    start, items, ops = _Start(loop), _Items(sequence), region().builder.ops
    try:
        for k in range(len(sequence)):
            before = len(ops)
            body(sequence.item(k))
            if traced_condition(loop.stopped()) or any(op.name != "constant" for op in ops[before:]):
                start.restore()
                return False
            if loop.stopped():
                break
        items.check_length()
    except DflowError:
        start.restore()
        return False
    return True


def _unrolled(loop: Loop, items: Any, body: Callable[[Any], None], owner: Any = None) -> None:
    """The loop as Python runs it; once a flag is traced, the rest of each iteration hangs on it.

    ``owner`` is what gives the items, where it is the user's.
    """
    iterator = iter(items)
    while True:
        stop = loop.stopped()
        traced = traced_condition(stop)
        if not traced and stop:
            return
        try:
            item = perhaps_next(iterator, owner) if traced else next(iterator)
        except StopIteration:
            return
        if not traced:
            body(item)
        else:
            leave_alone(iterator)
            if_(stop, lambda: None, functools.partial(body, item), loop.assigned)
