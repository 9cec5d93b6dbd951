"""Variables of a traced loop that are None in some iterations: a flag is carried with the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dflow.errors import user_location
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import sizes
from dflow.tracing.context import Region, builder, entered
from dflow.tracing.control.slots import Again, Node, Path, Slot, slot_array
from dflow.tracing.control.state import Undefined, describe, is_number
from dflow.tracing.python.objects import anatomy
from dflow.tracing.python.optional import Optional

if TYPE_CHECKING:
    from dflow.tracing.control.traced_loop import TracedLoop

Make = Callable[[], Any]


def may_be_none(x: Any) -> bool:
    return x is None or isinstance(x, Optional)


def blank(x: Any, here: Region) -> Make | None:
    """What makes a value of the same type and structure in ``here``; None where that is not possible."""
    if is_number(x):
        array = _lift.lift(x)
        t, weak = array.type, array.weak
        return (lambda: _lift.wrap(builder().zeros(t), weak)) if sizes.stays(t, here) else None
    opened = None if isinstance(x, Undefined) else anatomy(x)
    if opened is None:
        return None if isinstance(x, Undefined) else lambda: x
    parts = {k: blank(p, here) for k, p in opened.parts.items()}
    if any(p is None for p in parts.values()):
        return None
    return lambda: opened.made({k: make() for k, make in parts.items() if make})


def as_optional(value: Any, make: Make, where: str) -> Optional:
    """``value`` as one that may be None."""
    if isinstance(value, Optional):
        return value
    reason = f"a variable of the loop at {where} may be None"
    return Optional(value is not None, make() if value is None else value, reason, user_location())


def left(traced: TracedLoop, path: Path, old: Any, new: Any) -> Any:
    """What the body leaves in a part of a variable, as an ``Optional`` where the part may be None."""
    known = traced.learnt.optional.get(path)
    was_optional = isinstance(old, Node) and old.kind is Optional
    if known is not None:
        with entered(traced.region):
            return as_optional(new, known, traced.where)
    if (old is None and new is None) or (was_optional and isinstance(new, Optional)):
        return new
    if not (old is None or was_optional or may_be_none(new)):
        return new
    learn(traced, path, old, new)
    raise Again


def learn(traced: TracedLoop, path: Path, old: Any, new: Any) -> None:
    """Takes note that a part may be None, and of what it is otherwise."""
    with entered(traced.region):
        values = (x.value if isinstance(x, Optional) else x for x in (new, _at_start(old)))
        value = next(x for x in values if x is not None)
        make = blank(value, traced.here)
    if make is None:
        raise traced.changes(path[0], describe(_at_start(old)), describe(new))
    traced.learnt.optional[path] = make


def _at_start(x: Any) -> Any:
    return slot_array(x) if isinstance(x, Slot) else x.origin if isinstance(x, Node) else x
