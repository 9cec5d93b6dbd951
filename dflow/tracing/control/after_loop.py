"""The variables after a traced loop: carried ones, those that the last iteration made, and those that are not known."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dflow.ir.types import BOOL, I64
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import sizes
from dflow.tracing.context import Cell, builder, entered
from dflow.tracing.control.carried_choice import is_choice
from dflow.tracing.control.slots import Again, Slot, Variable, is_kept, value_after
from dflow.tracing.control.state import Undefined, flatten, is_number, unflatten
from dflow.tracing.lists.forgotten import forget
from dflow.tracing.python.choice import Choice
from dflow.tracing.python.objects import PartName, Snapshot, is_mutable, kept, watch
from dflow.tracing.python.optional import Optional

_UNKNOWN = object()  # a leaf that is one thing when the loop runs and another when it does not

if TYPE_CHECKING:
    from dflow.tracing.control.traced_loop import TracedLoop


class After:
    """``after`` is what the body leaves in the variables, by name."""

    def __init__(self, traced: TracedLoop, after: dict[str, Any]):
        self.traced = traced
        self.after = after
        self.outs = self.results_only()

    def results_only(self) -> dict[str, tuple[Any, list[Any]]]:
        """Variables that iterations do not read but that are used later: slots for them, by name."""
        after, outs = self.after, {}
        for n in self.traced.names:
            if n in self.traced.variables or n not in {*self.traced.live_out, *self.traced.loop.flags}:
                continue
            before, value = self.traced.before[n], after[n]
            if isinstance(value, Undefined) or self.stays(before, value):
                continue
            if not isinstance(before, Undefined) and (self.is_none_sometimes(before, value) or self.is_chosen(value)):
                self.traced.learnt.carried[n] = None
                raise Again
            leaves, structure = flatten(value)
            old, old_structure = flatten(before)
            known = not isinstance(before, Undefined)
            if not all(is_number(x) or (self.traced.positive and not isinstance(x, Undefined)) for x in leaves):
                continue
            if known and not self.traced.positive and old_structure != structure:
                continue
            new = []
            for k, x in enumerate(leaves):
                usable = known and old_structure == structure and is_number(old[k])
                if known and not usable and not self.traced.positive:
                    new.append(_UNKNOWN)
                else:
                    new.append(self.out_slot(n, x, old[k] if usable else None) if is_number(x) else x)
            if any(x is _UNKNOWN for x in new):
                continue
            outs[n] = (structure, new)
        return outs

    def stays(self, before: Any, value: Any) -> bool:
        """Whether a variable is, after the loop, what the body leaves in it, however often it runs."""
        return kept(before, value) or (self.traced.positive and value in self.traced.outside)

    def is_none_sometimes(self, before: Any, value: Any) -> bool:
        """Whether a variable is None after some runs of the loop, and something else after others."""
        return isinstance(value, Optional) or (not self.traced.positive and (before is None) != (value is None))

    def is_chosen(self, value: Any) -> bool:
        """Whether which of several things a variable is afterwards is known only when the program runs."""
        return is_choice(value) and (isinstance(value, Choice) or not self.traced.positive)

    def out_slot(self, name: str, final: Any, before: Any) -> Any:
        with entered(self.traced.region):
            array = _lift.lift(final)
        if before is not None and _lift.lift(before).type.shape == array.type.shape:
            first = _lift.lift(before)
            dtype = _lift.result_dtype(first, array)
            slot = self.traced.slot(
                (name,),
                before,
                (dtype, array.weak if self.traced.positive else _lift.either(first.weak, array.weak)),
                read=False,
            )
        elif (before is not None and not self.traced.positive) or not sizes.stays(array.type, self.traced.here):
            return _UNKNOWN
        else:
            zeros = Cell(builder().zeros(array.type), self.traced.here)
            slot = Slot(name, zeros, None, array.weak, read=False)
        slot.final = array
        self.traced.slots.append(slot)
        return slot

    def put(self) -> None:
        """Gives the variables their values after the loop."""
        outs, after = self.outs, self.after
        state = []
        made: dict[int, Any] = {}
        copies: list[Any] = []
        for n in self.traced.names:
            if n in self.traced.variables:
                state.append(self.after_loop(self.traced.variables[n], made))
            elif n in outs and not self.is_known(n):
                structure, leaves = outs[n]
                state.append(self.undefined(n, unflatten(structure, [value_after(x) for x in leaves])))
            elif n in outs:
                structure, leaves = outs[n]
                state.append(unflatten(structure, [value_after(x) for x in leaves]))
                copies.append(state[-1])
            elif self.stays(self.traced.before[n], after[n]):
                state.append(after[n])
            else:
                state.append(self.undefined(n))
        self.traced.put(state)
        self.watch_objects(made, [after[n] for n in outs], copies)
        for x, name in self.traced.learnt.forgotten.values():
            forget([x], name.place.owner if isinstance(name, PartName) else None)

    def watch_objects(self, made: dict[int, Any], last: list[Any], after: list[Any]) -> None:
        """Objects that are replaced in the loop are copies afterwards: those that have other names must not change.

        ``last`` are the final objects of variables that are not carried, ``after`` the copies of them.
        """
        nodes = [n for v in self.traced.variables.values() for n in v.nodes() if is_mutable(n.final)]
        finals, count = Snapshot(last), Counter(id(n.final) for n in nodes)
        others = Snapshot(
            [*self.traced.loop.uses(), *(x for n, x in self.traced.before.items() if n not in self.traced.variables)]
        )
        first = Counter(id(n.origin) for n in nodes)
        for n in nodes:
            started_elsewhere = not self.traced.positive and (n.origin in others or first[id(n.origin)] > 1)
            if started_elsewhere or n.final in self.traced.outside or n.final in finals or count[id(n.final)] > 1:
                watch(self.traced.here, [made[id(n)], *(x for x in (n.final, n.origin) if x in self.traced.outside)])
        if any(x in self.traced.outside or count[id(x)] for x, _ in finals.saved.values()):
            watch(self.traced.here, [*after, *last])

    def is_known(self, name: str) -> bool:
        """Whether a variable that the body assigns has a value after the loop, even if there is no iteration."""
        before = self.traced.before[name]
        unread = isinstance(before, Undefined) and before.filler
        return self.traced.positive or unread or not isinstance(before, Undefined) or name in self.traced.loop.flags

    def undefined(self, name: str, value: Any = None) -> Undefined:
        """What stands for a variable after the loop whose value cannot be known there."""
        if not isinstance(self.traced.before[name], Undefined):
            reason = f"the value of variable {name!r} after the loop at {self.traced.where} cannot be followed"
            return Undefined(name, reason, "use one type and shape for the variable before and inside the loop")
        reason = f"variable {name!r} is defined only inside the loop at {self.traced.where}, which may not run at all"
        perhaps = None
        if value is not None and self.traced.turns is not None:
            runs = (
                self.traced.here.read(self.traced.turns)
                if self.traced.loop_ends_early
                else _lift.lift(self.traced.count).value
            )
            perhaps = _lift.wrap(builder().gt(_lift.convert(runs, I64), 0)), value
        return Undefined(name, reason, f"give {name!r} a value before the loop", perhaps=perhaps)

    def after_loop(self, v: Variable, made: dict[int, Any]) -> Any:
        if isinstance(v.value, Undefined):
            return v.value
        slots = [x for x in v.leaves() if isinstance(x, Slot)]
        if all(is_kept(s) for s in slots) and not any(is_mutable(n.final) for n in v.nodes()):
            return v.value
        return v.built(self.value_after, made)

    def value_after(self, x: Any) -> Any:
        """A leaf after the loop: what every iteration leaves, as far as that is known and there is one."""
        if self.traced.positive and isinstance(x, Slot) and x.type.dtype is BOOL and x.type.is_scalar:
            with entered(self.traced.region):
                if _lift.static_value(x.final) == True:  # noqa: E712 (it may be None, too)
                    return True
        found = value_after(x)
        if self.traced.positive and isinstance(x, Slot) and found.cell is x.cell:
            found.weak = x.final.weak
        return found
