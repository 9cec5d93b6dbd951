"""What the body of a traced loop leaves in the variables, compared with what they were at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dflow.errors import CarriedError, DflowError, failure
from dflow.ir.types import dtype_of
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import builder, entered
from dflow.tracing.control import carried_choice, shrinking
from dflow.tracing.control.carried_optional import blank, left
from dflow.tracing.control.listed import Listed, has_named_rows
from dflow.tracing.control.slots import Again, Node, Path, Slot, Variable, slot_array
from dflow.tracing.control.state import Undefined, describe, flatten, is_number, unflatten
from dflow.tracing.python.objects import anatomy, is_mutable, kept, shown
from dflow.tracing.python.optional import Optional

if TYPE_CHECKING:
    from dflow.tracing.control.traced_loop import TracedLoop


def leave(traced: TracedLoop, v: Variable, after: Any) -> None:
    """Compares a variable after the body with what it was before, and fills its slots."""
    if isinstance(v.value, Undefined):
        if isinstance(after, Undefined):
            return
        raise fill(traced, v, after)
    if isinstance(after, Undefined):
        raise after.error()
    if v.name in traced.learnt.shared:
        if not kept(v.value, after):
            raise parts_ways(traced, v.name)
        return
    traced.replaced, traced.retyped = [], False
    leave_part(traced, (v.name,), v.tree, after)
    traced.learnt.opened.update((id(x), x) for x in traced.replaced)
    if traced.replaced or traced.retyped:
        raise Again


def leave_part(traced: TracedLoop, path: Path, old: Any, new: Any) -> None:
    new = carried_choice.left(traced, path, old, left(traced, path, old, new))
    if isinstance(old, Slot):
        return fill_slot(traced, old, path, new)
    if old is not new and traced.tables.released(old, new):
        raise Again
    with entered(traced.region):
        opened = old.anatomy(new) if isinstance(old, shrinking.Shrinking | Listed) else anatomy(new)
    if isinstance(old, Listed) and (opened is None or _has_named_rows(traced, path[0], new)):
        traced.learnt.itemwise.add(id(old.origin))
        raise Again
    before = old if isinstance(old, Node) else anatomy(old)
    if isinstance(old, Node) or (is_mutable(old) and old is not new):
        if opened is None or before is None or opened.kind != before.kind:
            origin = old.origin if isinstance(old, Node) else old
            raise traced.changes(path[0], describe(origin), describe(new))
        if isinstance(old, Node):
            old.final = new
        else:
            traced.replaced.append(old)
        for k, part in before.parts.items():
            if isinstance(old, Node) or is_mutable(part):
                leave_part(traced, (*path, k), part, opened.parts[k])
    elif not kept(old, new):
        if is_number(old) and is_number(new) and path in traced.learnt.static:
            traced.learnt.static.discard(path)
        raise traced.changes(path[0], describe(old), describe(new))


def _has_named_rows(traced: TracedLoop, name: str, new: Any) -> bool:
    """Whether lists in a list that the body leaves in a variable stand in other variables, too."""
    others = [*(v for n, v in zip(traced.names, traced.get()) if n != name), *traced.uses]
    return has_named_rows(new, [v for v in others if v is not new])


def fill(traced: TracedLoop, v: Variable, after: Any) -> Exception:
    """A variable without a value on entry (a result to be returned): any value will do."""
    leaves, structure = flatten(after)
    if any(isinstance(x, Optional) for x in leaves) and (make := blank(after, traced.here)):
        traced.before[v.name] = make()
        return Again()
    if not all(is_number(x) for x in leaves):
        return traced.changes(v.name, "no value", describe(after))
    zeros = [_lift.lift(x) for x in leaves] if not any(isinstance(x, Array) for x in leaves) else leaves
    if not all(sizes.stays(_lift.lift(x).type, traced.here) for x in zeros):
        return traced.changes(v.name, "no value", describe(after))
    made = [_lift.wrap(builder().zeros(_lift.lift(x).type)) for x in zeros]
    traced.before[v.name] = unflatten(structure, made)
    return Again()


def fill_slot(traced: TracedLoop, slot: Slot, path: Path, new: Any) -> None:
    if isinstance(new, Undefined):
        raise new.error()
    if not is_number(new):
        raise traced.changes(slot.name, describe(slot.initial), describe(new))
    with entered(traced.region):
        array = _lift.lift(new)
        if array.type.shape != slot.type.shape:
            array = same_shape(traced, slot, path, array)
    old = slot_array(slot)
    dtype = _lift.result_dtype(old, array)
    weak = _lift.either(slot.weak, array.weak)
    if (dtype_of(dtype), weak) != (slot.type.dtype, slot.weak):
        if dtype_of(dtype).kind != "b" and slot.type.dtype.kind == "b":
            raise traced.changes(slot.name, str(slot.type), str(array.type))
        traced.learnt.types[path] = (dtype, weak)
        traced.retyped = True  # as others of the same variable may be
        return
    unchanged = array.cell is slot.cell and not array.steps and slot.cell not in traced.region.changed()
    if unchanged and not isinstance(slot.initial, Array) and slot.cell in traced.region.local:
        traced.learnt.static.add(path)
        raise Again
    if slot.cell.ordered and (array.cell is not slot.cell or array.steps):
        with entered(traced.region):
            if not array.is_contiguous():
                traced.learnt.strided.add(path)
                raise Again
    slot.final = array


def same_shape(traced: TracedLoop, slot: Slot, path: Path, array: Array) -> Array:
    """What the body leaves, under the sizes that the variable had on entry, which must be equal."""
    new, old = array.type.shape, slot.type.shape
    if len(new) != len(old) or not all(map(sizes.same, new, old)):
        unrolls = isinstance(traced.count, int) or traced.only_if_traced
        if axes := shrinking.shrinking_axes(slot.type, array.type, unrolls):
            traced.learnt.shrinking[path] = axes | traced.learnt.shrinking.get(path, frozenset())
            raise Again
        raise traced.changes(slot.name, str(slot.type), str(array.type))
    return _lift.wrap(sizes.recast(array.value, old), array.weak)


def parts_ways(traced: TracedLoop, name: str) -> DflowError:
    return failure(
        CarriedError,
        f"{shown(name)} shares memory with an array that is updated in the loop at {traced.where}, and is replaced",
        mend="make it a copy, before the loop and where it is assigned (x.copy())",
    )
