"""The traced number that says which option of a ``Choice`` it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import builder
from dflow.tracing.python.choice import Choice, position


def equal(index: Any, k: int, op: str = "eq") -> Array:
    return _lift.wrap(_lift.elementwise(op, index, k).value, weak=True)


def replaced(x: Choice, options: Sequence[Any]) -> Any:
    """The index of ``x`` among other ``options``, which have all of its own."""
    places = [position(o, options) for o in x.options]
    return moved(x.index, [k for k in places if k is not None])


def moved(index: Any, places: Sequence[int]) -> Any:
    """``places[index]``."""
    if not isinstance(index, Array):
        return places[index]
    if [*places] == [*range(len(places))]:
        return index
    found = _lift.lift(places[-1])
    b = builder()
    for k in reversed(range(len(places) - 1)):
        found = _lift.wrap(b.emit("select", equal(index, k).value, _lift.lift(places[k]).value, found.value), weak=True)
    return found
