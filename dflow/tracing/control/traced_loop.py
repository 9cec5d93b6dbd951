"""One loop on its way to a ``for`` or ``while`` operation.

The body is traced once, on placeholders for what it reads. A variable of the loop gets a cell of its own, a *slot*, for
its value at the start of every iteration. When the body turns out to need other types than the values on entry have, or
two names turn out to be one array, the tracing is repeated with what was learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from dflow.errors import CarriedError, DflowError, TraceError, failure
from dflow.ir.core import Block as IRBlock
from dflow.ir.core import Value
from dflow.ir.types import I64, scalar
from dflow.tracing.arrays import layouts
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import BRANCH, LOOP, Cell, Region, builder, entered, region
from dflow.tracing.control import listed, shrinking
from dflow.tracing.control.after_loop import After
from dflow.tracing.control.aliases import Aliases
from dflow.tracing.control.branches import Block, choose, traced_condition, truth
from dflow.tracing.control.carried_choice import as_choice
from dflow.tracing.control.carried_optional import as_optional
from dflow.tracing.control.left_behind import leave
from dflow.tracing.control.remembered import key_of, recall, remember
from dflow.tracing.control.rename import rename
from dflow.tracing.control.slots import (
    Again,
    Learnt,
    Loop,
    Node,
    Path,
    Slot,
    Variable,
    at_start,
    has_value,
    slot_array,
)
from dflow.tracing.control.state import Forgotten, Undefined, is_number, line_of_block
from dflow.tracing.facts import count_below
from dflow.tracing.lists import tables
from dflow.tracing.lists.filling import Filling, filled
from dflow.tracing.lists.forgotten import hidden, is_forgotten
from dflow.tracing.lists.growing import Growing, grown
from dflow.tracing.lists.sequences import most_iterations
from dflow.tracing.lists.stacks import Stacks
from dflow.tracing.python.objects import WHILE, Snapshot, anatomy, is_mutable, shown

MOST_ATTEMPTS = 32
MOST_UNROLLED = 1024  # a loop that cannot be traced as one is unrolled when it has no more iterations


class TracedLoop:
    """One loop on its way to an operation."""

    def __init__(
        self,
        loop: Loop,
        body: Callable[..., None],
        test: Block | None = None,
        count: Any = None,
        positive: bool = False,
        only_if_traced: bool = False,
    ):
        self.loop = loop
        self.body = body
        self.test = test
        self.count = count
        self.most = most_iterations(count)  # how many iterations there are at most; 0 when that is not known
        self.positive = positive  # whether there is an iteration at all
        self.only_if_traced = only_if_traced
        self.learnt = Learnt()
        self.where = line_of_block()
        self.here = region()
        self.uses = [*loop.get(), *loop.uses()]
        self.growing: list[Stacks] = []
        self.tables = tables.Tables()
        self.replaced: list[Any] = []  # objects that the body replaces by others
        self.retyped = False  # whether it leaves numbers of other types
        self.outside = Snapshot(())
        self.look()

    def look(self) -> None:
        """Takes note of the variables, and of the parts of objects that are variables too, as they are on entry."""
        self.places = list(self.learnt.places)
        extra = [p.name for p in self.places]
        self.names = [*self.loop.names, *extra]
        self.live_in = [*self.loop.live_in, *self.learnt.carried, *extra]
        self.live_out = {*self.loop.live_out, *extra}
        self.before = dict(zip(self.names, self.get()))

    def get(self) -> list[Any]:
        return [*self.loop.get(), *(p.get() for p in self.places)]

    def live_values(self) -> list[Any]:
        """What stands now in the variables that later iterations or what comes after the loop may read."""
        live = {*self.live_in, *self.live_out}
        return [value for name, value in zip(self.names, self.get()) if name in live]

    def put(self, values: Sequence[Any]) -> None:
        self.loop.put(values[: len(self.loop.names)])
        for place, value in zip(self.places, values[len(self.loop.names) :]):
            place.put(value)

    def run(self) -> bool:
        """Traces the loop; False, with ``only_if_traced``, when nothing traced ends it."""
        key = key_of(self.loop, self.uses, self.positive, self.only_if_traced, self.count is None)
        remembered = recall(key)
        if remembered is not None:
            self.learnt = remembered
            try:
                return self.settle()
            except CarriedError:  # what was found out in another place does not hold here
                self.learnt = Learnt()
                self.restart()
        done = self.settle()
        remember(key, self.learnt)
        return done

    def restart(self) -> None:
        self.outside.restore()
        for g in self.growing:
            g.restore()
        self.put(list(self.before.values()))
        if self.tables.others:
            self.tables.make()
            self.learnt.places = {p: None for p in self.learnt.places if tables.of(p.owner) is None}
        self.look()

    def settle(self) -> bool:
        for _ in range(MOST_ATTEMPTS):
            try:
                done = self.attempt()
                self.tables.settle()
                return done
            except Again:
                self.restart()
            except DflowError as e:
                if not self.tables.asked(e, self.here) and not (isinstance(e, CarriedError) and self.fills(e)):
                    raise
                self.restart()
        raise failure(CarriedError, f"the types that the loop at {self.where} carries do not settle")

    def fills(self, error: CarriedError) -> bool:
        """Whether the error is that a list becomes longer in a branch, and the list is one to be filled by the loop."""
        found = []
        if error.appended:
            with entered(self.body_region):
                found = filled(error, self)
        self.learnt.growing.update((id(g.target), g) for g in found)
        return bool(found)

    @property
    def unrolls(self) -> bool:
        """Whether the loop may be unrolled if it cannot be traced."""
        return isinstance(self.count, int) and self.count * self.here.unrolled <= MOST_UNROLLED

    # -- one attempt ---------------------------------------------------------------------------------------------

    def attempt(self) -> bool:
        self.variables = {n: self.enter(n) for n in self.live_in if has_value(self.before[n])}
        self.slots = [x for v in self.variables.values() for x in v.leaves() if isinstance(x, Slot)]
        self.turns = Cell(builder().constant(0, I64), self.here) if self.is_counted() else None
        self.counter = self.turns if self.count is not None else None
        self.growing = []
        for g in self.learnt.growing.values():
            self.growing.append((Filling if g.filled else Growing)(g, self))
        self.slots += [s for g in self.growing for s in g.all_slots]
        self.outside = Snapshot(self.uses, self.loop.names, self.places)
        self.region = self.trace_body()
        with entered(self.region):
            for g in self.growing:
                g.take()
        self.find_places()
        after = dict(zip(self.names, self.get()))
        flagged = any(isinstance(after[f], Array) for f in self.loop.flags)
        if self.only_if_traced and not flagged and not self.test_is_traced():
            return False
        flagged |= any(after[f] is True for f in self.loop.flags)  # the first iteration is the last
        for v in self.variables.values():
            leave(self, v, after[v.name])
        smaller = shrinking.found(self.variables.values())
        shrinking.check(smaller, self.region, self.slots)
        results = After(self, after)
        aliases = Aliases(self.slots, self.region, self.learnt.shared)
        aliases.check(Again)
        if self.turns is None and aliases.trades():
            self.learnt.counted = True
            raise Again
        for g in self.growing:
            g.check(set(self.region.changed()), flagged)
        with entered(self.region):
            layouts.after_loop(self.slots)
            for g in self.growing:
                g.write()
            finals = [(s.cell, self.final_value(s)) for s in self.slots]
            for cell, value in finals:
                self.region.write(cell, value)
            if self.turns is not None and (flagged or self.counter is None):
                k = self.region.read(self.turns)
                self.region.write(self.turns, builder().add(k, builder().index(1)))
        if self.count is not None and not flagged:
            self.emit_for()
        else:
            self.emit_while(self.trace_test(results.outs))
        self.loop_ends_early = self.count is None or flagged
        if self.count is not None and not flagged:
            aliases.settle(self.count)
        else:
            aliases.settle(Array(self.turns, scalar(I64)) if self.turns else None)
        for g in self.growing:
            g.finish()
        aliases.link(self.positive)
        results.put()
        shrinking.settle(smaller)
        return True

    def is_counted(self) -> bool:
        return self.count is not None or self.learnt.counted

    def enter(self, name: str) -> Variable:
        """The variable as an iteration finds it."""
        value = self.before[name]
        if name in self.learnt.shared or isinstance(value, Undefined):
            return Variable(name, value, value)
        return Variable(name, value, self.enter_part((name,), value))

    def enter_part(self, path: Path, value: Any) -> Any:
        if path in self.learnt.optional:
            value = as_optional(value, self.learnt.optional[path], self.where)
        if path in self.learnt.choices:
            value = as_choice(value, self.learnt.choices[path])
        if is_number(value) and path in self.learnt.shrinking:
            node = shrinking.entered(_lift.lift(value), self.learnt.shrinking[path])
            node.parts = {k: self.enter_part((*path, k), p) for k, p in node.parts.items()}
            return node
        if is_number(value):
            return value if path in self.learnt.static else self.slot(path, value, self.learnt.types.get(path))
        if is_mutable(value) and id(value) not in self.learnt.opened:
            return value  # the object stays what it is; what changes in it is a place of its own
        numbers = None if id(value) in self.learnt.itemwise else listed.entered(value)
        if numbers is not None:
            numbers.parts = {k: self.enter_part((*path, k), p) for k, p in numbers.parts.items()}
            return numbers
        opened = anatomy(value)
        if opened is None:
            return value
        parts = {k: self.enter_part((*path, k), p) for k, p in opened.parts.items()}
        return Node(opened.kind, parts, opened.made, value)

    def slot(self, path: Path, initial: Any, learnt: tuple[Any, bool | None] | None, read: bool = True) -> Slot:
        array = _lift.lift(initial)
        dtype, weak = learnt or (array.dtype, array.weak)
        value = _lift.convert(array.value, dtype)
        cell = Cell(value, self.here)
        if array.ndim:
            cell.origin, cell.ordered = [array], False if path in self.learnt.strided else None
        return Slot(path[0], cell, initial, weak, read)

    def own_cells(self) -> list[Cell]:
        """The cells whose contents change from iteration to iteration."""
        return [s.cell for s in self.slots] + ([] if self.turns is None else [self.turns])

    def turn(self) -> Array:
        """The number of iterations before this one, in the body."""
        assert self.counter is not None
        return Array(self.counter, scalar(I64), weak=True)

    def start_state(self, flags: dict[str, Any]) -> list[Any]:
        """The variables at the start of an iteration; those that it cannot need are undefined."""
        state = []
        self.started: dict[int, Any] = {}
        for n in self.names:
            if n in self.variables:
                state.append(self.variables[n].built(at_start, self.started))
            else:
                state.append(flags.get(n, Undefined(n)))
        return state

    def trace_body(self) -> Region:
        inner = Region(LOOP, self.here, carried=[*self.own_cells(), *self.here.root().filled], reach=self.outside)
        inner.loop = self
        self.body_region = inner
        with entered(inner), self.forgetting():
            self.put(self.start_state({}))
            fresh = Snapshot([x for x in self.started.values() if is_mutable(x)])
            if self.counter is None:
                self.body()
            else:
                k = inner.read(self.counter)
                k.hint = "k"
                count_below(inner.known, k, self.count if isinstance(self.count, int) else self.count.value)
                self.body(self.turn())
        self.find_forgotten()
        for place, now in fresh.changes().items():
            if isinstance(now, Forgotten):
                continue
            raise failure(
                CarriedError,
                f"an object is updated in place and also replaced in the loop at {self.where}",
                seen=f"{place.name} is assigned",
                mend="always update the object, or always make a new one",
            )
        return inner

    def forgetting(self) -> AbstractContextManager[None]:
        """Where iterations forget the object that stands for one on entry, that is forgotten meanwhile, too."""
        return hidden([x for x, _ in self.learnt.forgotten.values()])

    def find_forgotten(self) -> None:
        """Takes note of the objects on entry for which others stand that an iteration forgets."""
        nodes = [(v, n) for v in self.variables.values() for n in v.nodes() if is_mutable(n.origin)]
        found = [(v, n) for v, n in nodes if is_forgotten(self.started[id(n)])]
        new = {id(n.origin): (n.origin, v.name) for v, n in found if id(n.origin) not in self.learnt.forgotten}
        if new:
            self.outside.restore()
            self.learnt.forgotten.update(new)
            raise Again

    def find_places(self) -> None:
        """Lists that the body appends to, and parts of objects that it changes, become variables of the loop."""
        with entered(self.region):
            longer = grown(self)
        if longer:
            self.outside.restore()
            self.learnt.growing.update((id(g.target), g) for g in longer)
            raise Again
        found = self.outside.new_places("loop" if self.counter is not None else WHILE)
        if found:
            self.outside.restore()
            self.learnt.places.update(dict.fromkeys(found))
            raise Again

    def trace_test(self, outs: dict[str, Any]) -> tuple[Region, Value]:
        """The condition of a ``while`` in a region of its own."""
        flags = {}
        for n in self.loop.flags:
            for x in outs.get(n, (None, []))[1]:
                flags[n] = slot_array(x) if isinstance(x, Slot) else x
        carried = [*self.own_cells(), *self.region.changed()]
        inner = Region(LOOP, self.here, carried=carried, reach=self.outside)
        with entered(inner), self.forgetting():
            self.put(self.start_state(flags))
            objects = Snapshot(self.uses, self.loop.names, self.places)
            stop = self.loop.stopped()
            holds = choose(stop, lambda: False, self.condition)
            value = truth(_lift.lift(holds if isinstance(holds, Array) else bool(holds)))
            changes = bool(objects.changes())
            objects.restore()
            self.put(list(self.before.values()))
        if changes or inner.changed():
            raise failure(
                TraceError, "the condition of a traced loop updates what it reads", mend="update it in the body"
            )
        return inner, value

    def test_is_traced(self) -> bool:
        """Whether the condition after one iteration is known only when the program runs."""
        assert self.test is not None
        with entered(Region(BRANCH, self.region, reach=self.outside)), self.forgetting():
            return traced_condition(self.test())

    def condition(self) -> Any:
        if self.counter is None:
            assert self.test is not None
            return self.test()
        limit = _lift.lift(self.count)
        return self.turn() < limit

    def changes(self, name: str, old: str, new: str) -> DflowError:
        return failure(
            CarriedError,
            f"{shown(name)} changes its type in the loop at {self.where}: from {old} to {new}",
            wanted="what a loop carries keeps its shape and structure",
            mend="make the array in its full size before the loop and fill it in the loop"
            if "[" in old and "[" in new
            else f"give {shown(name)} a value of its final type before the loop",
        )

    def final_value(self, slot: Slot) -> Value:
        return _lift.convert(slot.final.value, slot.type.dtype)

    # -- the operation -------------------------------------------------------------------------------------------

    def emit_for(self) -> None:
        assert self.counter is not None
        k = self.region.entry[self.counter]
        carried = [c for c in self.region.changed() if c is not self.counter]
        block = self.block(self.region, carried, [k], [self.region.local[c] for c in carried], skip=self.counter)
        count = builder().index(self.count) if isinstance(self.count, int) else self.count.value
        inits = [self.here.read(c) for c in carried]
        self.finish(carried, builder().append("for", [_lift.convert(count, I64), *inits], regions=[block]))

    def emit_while(self, test: tuple[Region, Value]) -> None:
        condition, holds = test
        carried = self.region.changed()
        first = self.block(condition, carried, [], [holds])
        second = self.block(self.region, carried, [], [self.region.local[c] for c in carried])
        inits = [self.here.read(c) for c in carried]
        self.finish(carried, builder().append("while", inits, regions=[first, second]))

    def block(
        self, inner: Region, carried: list[Cell], args: list[Value], results: list[Value], skip: Cell | None = None
    ) -> IRBlock:
        """The region as a block whose arguments are the carried cells; what does not change is read from outside."""
        given = {c: inner.entry.get(c) or Value(self.here.read(c).type) for c in carried}
        outer = {v: self.here.read(c) for c, v in inner.entry.items() if c not in given and c is not skip}
        inner.builder.args = (*args, *given.values())
        for slot in self.slots:
            hint = slot.name.rpartition(".")[2]
            if slot.cell in given and hint.isidentifier() and not hint.startswith("_dflow"):
                given[slot.cell].hint = hint
        block = inner.builder.finish(results)
        rename(block, outer)
        return block

    def finish(self, carried: list[Cell], results: Sequence[Value]) -> None:
        """The contents of cells after the loop."""
        for cell, value in zip(carried, results):
            self.here.write(cell, value)
