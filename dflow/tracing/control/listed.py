"""Lists of numbers, and lists of such lists, in the place of which a loop puts others, as ``prev = cur``.

The loop carries an array of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.operators import numpy_functions
from dflow.tracing.control.slots import Node
from dflow.tracing.lists import rows
from dflow.tracing.lists.tables import MOST_ITEMS, leaves_of, shape_of
from dflow.tracing.python.objects import Anatomy, Snapshot

FEW = 32  # numbers of shorter lists are carried one by one
NUMBERS = "numbers"


@dataclass
class Listed(Node):
    """A list of numbers, or of lists; its part is an array of them."""

    def anatomy(self, x: Any) -> Anatomy | None:
        """The array of what an iteration leaves; None when it does not fit."""
        return Anatomy(self.kind, {NUMBERS: _array(x)}, self.made) if _kind(x) == self.kind else None


def entered(x: Any) -> Listed | None:
    """The list as a loop finds it; None of other values."""
    kind = _kind(x)
    return None if kind is None else Listed(kind, {NUMBERS: _array(x)}, _made, x)


def has_named_rows(x: list[Any], others: Iterable[Any]) -> bool:
    """Whether lists in the list have other names, too: an update by these would not reach the array."""
    inner = [row for row in x if isinstance(row, list)]
    reached = Snapshot(others) if inner else ()
    return any(row in reached or has_named_rows(row, others) for row in inner)


def _kind(x: Any) -> Any:
    """Lists of one shape are of one kind; None for what is no list of many numbers of one dtype."""
    shape = shape_of(x)
    if shape is None or not FEW < math.prod(shape) <= MOST_ITEMS:
        return None
    alike = len({_lift.lift(v).dtype for v in leaves_of(x)}) == 1
    return (list, NUMBERS, *shape) if alike else None


def _array(x: list[Any]) -> Array:
    weak = {_lift.lift(v).weak for v in leaves_of(x)}
    array = _lift.lift(numpy_functions().array(x))
    return _lift.wrap(array.value, weak.pop() if len(weak) == 1 else None)


def _made(parts: dict[Any, Any]) -> list[Any]:
    return _nested(parts[NUMBERS], parts[NUMBERS].weak)


def _nested(array: Array, weak: bool | None) -> list[Any]:
    items = rows.rows(_lift.wrap(array.value), array.type.static_shape[0], weak)
    return [_nested(x, weak) for x in items] if array.ndim > 1 else items
