"""One loop on its way to a ``for`` or ``while`` operation.

The body is traced once, on placeholders for what it reads. A variable of the loop gets a cell of its own, a *slot*, for
its value at the start of every iteration. When the body turns out to need other types than the values on entry have, or
two names turn out to be one array, the tracing is repeated with what was learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dflow.errors import CarriedError, DflowError, TraceError, failure
from dflow.ir.core import Block as IRBlock
from dflow.ir.core import Value
from dflow.ir.types import I64, dtype_of, scalar
from dflow.tracing import lift as _lift
from dflow.tracing.aliases import Aliases
from dflow.tracing.array import Array
from dflow.tracing.branches import Block, choose, traced_condition, truth
from dflow.tracing.context import BRANCH, LOOP, Cell, Region, builder, entered, region
from dflow.tracing.holders import MARK, Changed, Holders, refused
from dflow.tracing.rename import rename
from dflow.tracing.slots import Again, Learnt, Loop, Slot, Variable, has_value, is_kept, slot_array, value_after
from dflow.tracing.state import (
    Snapshot,
    Undefined,
    describe,
    flatten,
    is_number,
    line_of_block,
    same,
    unflatten,
)

_UNKNOWN = object()  # a leaf that is one thing when the loop runs and another when it does not


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
        self.plain = self.loop = loop
        self.holders = Holders("loop")
        self.body = body
        self.test = test
        self.count = count
        self.positive = positive  # whether there is an iteration at all
        self.only_if_traced = only_if_traced
        self.learnt = Learnt()
        self.where = line_of_block()
        self.here = region()
        self.before = dict(zip(loop.names, loop.get()))
        self.uses = [*loop.get(), *loop.uses()]

    def run(self) -> bool:
        for _ in range(16):
            try:
                return self.attempt()
            except Again:
                self.restore()
            except Changed:
                self.extend()
            except DflowError:
                self.restore()
                if not self.holders.deepen():
                    raise
                self.learnt = Learnt()
                self.extend()
        raise failure(CarriedError, f"the types that the loop at {self.where} carries do not settle")

    def restore(self) -> None:
        self.loop.put(list(self.before.values()))

    def extend(self) -> None:
        """Takes the contents of changed objects among the variables."""
        self.restore()
        self.loop = self.holders.with_loop(self.plain)
        self.before = dict(zip(self.loop.names, self.loop.get()))

    # -- one attempt ---------------------------------------------------------------------------------------------

    def attempt(self) -> bool:
        self.variables = {n: self.enter(n) for n in self.loop.live_in if has_value(self.before[n])}
        self.slots = [x for v in self.variables.values() for x in v.leaves if isinstance(x, Slot)]
        self.turns = Cell(builder().constant(0, I64), self.here) if self.is_counted() else None
        self.counter = self.turns if self.count is not None else None
        snapshot = Snapshot(self.uses, self.loop.names)
        self.region = self.trace_body(snapshot)
        self.holders.check(snapshot)
        after = dict(zip(self.loop.names, self.loop.get()))
        flagged = any(isinstance(after[f], Array) for f in self.loop.flags)
        if self.only_if_traced and not flagged and not self.test_is_traced():
            return False
        for v in self.variables.values():
            self.leave(v, after[v.name])
        aliases = Aliases(self.slots, self.region, self.learnt.shared)
        aliases.check(Again)
        if self.turns is None and aliases.trades():
            self.learnt.counted = True
            raise Again
        outs = self.results_only(after)
        with entered(self.region):
            finals = [(s.cell, self.final_value(s)) for s in self.slots]
            for cell, value in finals:
                self.region.write(cell, value)
            if self.turns is not None and (flagged or self.counter is None):
                k = self.region.read(self.turns)
                self.region.write(self.turns, builder().add(k, builder().index(1)))
        if self.count is not None and not flagged:
            self.emit_for()
        else:
            self.emit_while(self.trace_test(outs))
        self.loop_ends_early = self.count is None or flagged
        if self.count is not None and not flagged:
            aliases.settle(self.count)
        else:
            aliases.settle(Array(self.turns, scalar(I64)) if self.turns else None)
        self.set_variables(outs, after)
        return True

    def is_counted(self) -> bool:
        return self.count is not None or self.learnt.counted

    def enter(self, name: str) -> Variable:
        """The variable as an iteration finds it."""
        value = self.before[name]
        if name in self.learnt.shared or isinstance(value, Undefined):
            return Variable(name, value, None, []) if isinstance(value, Undefined) else self._static(name, value)
        leaves, structure = flatten(value)
        new = []
        for k, x in enumerate(leaves):
            if is_number(x) and (name, k) not in self.learnt.static:
                new.append(self.slot(name, x, self.learnt.types.get((name, k))))
            else:
                new.append(x)
        return Variable(name, value, structure, new)

    def _static(self, name: str, value: Any) -> Variable:
        leaves, structure = flatten(value)
        return Variable(name, value, structure, leaves)

    def slot(self, name: str, initial: Any, learnt: tuple[Any, bool] | None, read: bool = True) -> Slot:
        array = _lift.lift(initial)
        dtype, weak = learnt or (array.dtype, array.weak)
        value = _lift.convert(array.value, dtype)
        return Slot(name, Cell(value, self.here), initial, weak, read)

    def start_state(self, flags: dict[str, Any]) -> list[Any]:
        """The variables at the start of an iteration; those that it cannot need are undefined."""
        state = []
        for n in self.loop.names:
            if n in self.variables:
                v = self.variables[n]
                state.append(v.value if isinstance(v.value, Undefined) else v.start())
            else:
                state.append(flags.get(n, Undefined(n)))
        return state

    def trace_body(self, outside: Snapshot) -> Region:
        inner = Region(LOOP, self.here)
        with entered(inner):
            state = self.start_state({})
            fresh = Snapshot(state)  # lists and the like are made anew for each iteration
            self.loop.put(state)
            if self.counter is None:
                self.body()
            else:
                self.body(Array(self.counter, scalar(I64), weak=True))
        for x in fresh.changed():
            if not outside.covers(x):
                raise failure(
                    CarriedError,
                    f"a {type(x).__name__} is both changed and replaced in the loop at {self.where}",
                    wanted="one of the two: it may go on under another name",
                    mend="change a copy of it",
                )
        return inner

    def trace_test(self, outs: dict[str, Any]) -> tuple[Region, Value]:
        """The condition of a ``while`` in a region of its own."""
        flags = {}
        for n in self.loop.flags:
            for x in outs.get(n, (None, []))[1]:
                flags[n] = slot_array(x) if isinstance(x, Slot) else x
        inner = Region(LOOP, self.here)
        with entered(inner):
            self.loop.put(self.start_state(flags))
            snapshot = Snapshot([*self.loop.get(), *self.loop.uses()])
            stop = self.loop.stopped()
            holds = choose(stop, lambda: False, self.condition)
            value = truth(_lift.lift(holds if isinstance(holds, Array) else bool(holds)))
            changed = bool(inner.changed() or snapshot.changed())
            self.loop.put(list(self.before.values()))
        if changed:
            raise failure(
                TraceError, "the condition of a traced loop updates what it reads", mend="update it in the body"
            )
        return inner, value

    def test_is_traced(self) -> bool:
        """Whether the condition after one iteration is known only when the program runs."""
        assert self.test is not None
        with entered(Region(BRANCH, self.region)):
            return traced_condition(self.test())

    def condition(self) -> Any:
        if self.counter is None:
            assert self.test is not None
            return self.test()
        limit = _lift.lift(self.count)
        return Array(self.counter, scalar(I64), weak=True) < limit

    # -- what the body leaves ------------------------------------------------------------------------------------

    def leave(self, v: Variable, after: Any) -> None:
        """Compares a variable after the body with what it was before, and fills its slots."""
        if isinstance(v.value, Undefined):
            if isinstance(after, Undefined):
                return
            raise self.fill(v, after)
        if isinstance(after, Undefined):
            raise after.error()
        leaves, structure = flatten(after)
        if structure != v.structure:
            raise self.changes(v.name, f"structure {v.structure}", f"{structure}")
        for k, (old, new) in enumerate(zip(v.leaves, leaves)):
            if isinstance(old, Slot):
                self.fill_slot(old, k, new)
            elif not same(old, new):
                if is_number(old) and is_number(new) and (v.name, k) in self.learnt.static:
                    self.learnt.static.discard((v.name, k))
                raise self.changes(v.name, describe(old), describe(new))

    def fill(self, v: Variable, after: Any) -> Exception:
        """A variable without a value on entry (a result to be returned): any value will do."""
        leaves, structure = flatten(after)
        if not all(is_number(x) for x in leaves):
            return self.changes(v.name, "no value", describe(after))
        zeros = [_lift.lift(x) for x in leaves] if not any(isinstance(x, Array) for x in leaves) else leaves
        made = [_lift.wrap(builder().zeros(_lift.lift(x).type)) for x in zeros]
        self.before[v.name] = unflatten(structure, made)
        return Again()

    def fill_slot(self, slot: Slot, k: int, new: Any) -> None:
        if isinstance(new, Undefined):
            raise new.error()
        if not is_number(new):
            raise self.changes(slot.name, describe(slot.initial), describe(new))
        with entered(self.region):
            array = _lift.lift(new)
        if array.shape != slot.type.shape:
            raise self.changes(slot.name, str(slot.type), str(array.type))
        old = slot_array(slot)
        dtype = _lift.result_dtype(old, array)
        weak = slot.weak and array.weak
        if (dtype_of(dtype), weak) != (slot.type.dtype, slot.weak):
            if dtype_of(dtype).kind != "b" and slot.type.dtype.kind == "b":
                raise self.changes(slot.name, str(slot.type), str(array.type))
            self.learnt.types[slot.name, k] = (dtype, weak)
            raise Again
        unchanged = array.cell is slot.cell and not array.steps and slot.cell not in self.region.changed()
        if unchanged and not isinstance(slot.initial, Array) and slot.cell in self.region.local:
            self.learnt.static.add((slot.name, k))
            raise Again
        slot.final = array

    def changes(self, name: str, old: str, new: str) -> DflowError:
        if MARK in name:
            return refused(name, "loop")
        shown = "the result" if name.startswith("_dflow") else f"variable {name!r}"
        return failure(
            CarriedError,
            f"{shown} changes its type in the loop at {self.where}: from {old} to {new}",
            wanted="what a loop carries keeps its shape and structure",
            mend="make the array in its full size before the loop and fill it in the loop",
        )

    def final_value(self, slot: Slot) -> Value:
        return _lift.convert(slot.final.value, slot.type.dtype)

    def results_only(self, after: dict[str, Any]) -> dict[str, tuple[Any, list[Any]]]:
        """Variables that iterations do not read but that are used later: slots for them, by name."""
        outs: dict[str, tuple[Any, list[Any]]] = {}
        for n in self.loop.names:
            if n in self.variables or n not in {*self.loop.live_out, *self.loop.flags}:
                continue
            before, value = self.before[n], after[n]
            if isinstance(value, Undefined) or same(before, value):
                continue
            leaves, structure = flatten(value)
            old, old_structure = flatten(before)
            known = not isinstance(before, Undefined)
            if not all(is_number(x) or (self.positive and not isinstance(x, Undefined)) for x in leaves):
                continue
            if known and not self.positive and old_structure != structure:
                continue
            new = []
            for k, x in enumerate(leaves):
                usable = known and old_structure == structure and is_number(old[k])
                if known and not usable and not self.positive:
                    new.append(_UNKNOWN)
                else:
                    new.append(self.out_slot(n, x, old[k] if usable else None) if is_number(x) else x)
            if any(x is _UNKNOWN for x in new):
                continue
            outs[n] = (structure, new)
        return outs

    def out_slot(self, name: str, final: Any, before: Any) -> Any:
        with entered(self.region):
            array = _lift.lift(final)
        if before is not None and _lift.lift(before).shape == array.shape:
            first = _lift.lift(before)
            dtype = _lift.result_dtype(first, array)
            slot = self.slot(name, before, (dtype, first.weak and array.weak), read=False)
        elif before is not None and not self.positive:
            return _UNKNOWN
        else:
            zeros = Cell(builder().zeros(array.type), self.here)
            slot = Slot(name, zeros, None, array.weak, read=False)
        slot.final = array
        self.slots.append(slot)
        return slot

    # -- the operation -------------------------------------------------------------------------------------------

    def emit_for(self) -> None:
        assert self.counter is not None
        k = self.region.entry.get(self.counter) or Value(scalar(I64), "k")
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
        kept = {c: inner.entry.get(c) or Value(self.here.read(c).type) for c in carried}
        outer = {v: self.here.read(c) for c, v in inner.entry.items() if c not in kept and c is not skip}
        inner.builder.args = (*args, *kept.values())
        for slot in self.slots:
            if slot.cell in kept and not slot.name.startswith("_dflow"):
                kept[slot.cell].hint = slot.name
        block = inner.builder.finish(results)
        rename(block, outer)
        return block

    def finish(self, carried: list[Cell], results: Sequence[Value]) -> None:
        """The contents of cells after the loop."""
        for cell, value in zip(carried, results):
            self.here.write(cell, value)

    # -- the variables after the loop ----------------------------------------------------------------------------

    def set_variables(self, outs: dict[str, tuple[Any, list[Any]]], after: dict[str, Any]) -> None:
        state = []
        for n in self.loop.names:
            if n in self.variables:
                state.append(self.after_loop(self.variables[n]))
            elif n in outs and not self.is_known(n):
                structure, leaves = outs[n]
                state.append(self.undefined(n, unflatten(structure, [value_after(x) for x in leaves])))
            elif n in outs:
                structure, leaves = outs[n]
                state.append(unflatten(structure, [value_after(x) for x in leaves]))
            elif same(self.before[n], after[n]):
                state.append(after[n])
            else:
                state.append(self.undefined(n))
        self.loop.put(state)

    def is_known(self, name: str) -> bool:
        """Whether a variable that the body assigns has a value after the loop, even if there is no iteration."""
        return self.positive or not isinstance(self.before[name], Undefined) or name in self.loop.flags

    def undefined(self, name: str, value: Any = None) -> Undefined:
        if not isinstance(self.before[name], Undefined):
            reason = f"the value of variable {name!r} after the loop at {self.where} cannot be followed"
            return Undefined(name, reason, "use one type and shape for the variable before and inside the loop")
        reason = f"variable {name!r} is defined only inside the loop at {self.where}, which may not run at all"
        perhaps = None
        if value is not None and self.turns is not None:
            runs = self.here.read(self.turns) if self.loop_ends_early else _lift.lift(self.count).value
            perhaps = _lift.wrap(builder().gt(_lift.convert(runs, I64), 0)), value
        return Undefined(name, reason, f"give {name!r} a value before the loop", perhaps=perhaps)

    def after_loop(self, v: Variable) -> Any:
        if isinstance(v.value, Undefined):
            return v.value
        slots = [x for x in v.leaves if isinstance(x, Slot)]
        if all(is_kept(s) for s in slots):
            return v.value
        return unflatten(v.structure, [value_after(x) if isinstance(x, Slot) else x for x in v.leaves])
