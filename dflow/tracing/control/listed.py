"""Lists of numbers in the place of which a loop puts others, as ``prev = cur``: the loop carries an array of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.operators import numpy_functions
from dflow.tracing.control.slots import Node
from dflow.tracing.control.state import is_number
from dflow.tracing.lists import rows
from dflow.tracing.python.objects import Anatomy

FEW = 32  # numbers of shorter lists are carried one by one
NUMBERS = "numbers"


@dataclass
class Listed(Node):
    """A list of numbers; its part is an array of them."""

    def anatomy(self, x: Any) -> Anatomy | None:
        """The array of what an iteration leaves; None when it does not fit."""
        return Anatomy(self.kind, {NUMBERS: _array(x)}, self.made) if _kind(x) == self.kind else None


def entered(x: Any) -> Listed | None:
    """The list as a loop finds it; None of other values."""
    kind = _kind(x)
    return None if kind is None else Listed(kind, {NUMBERS: _array(x)}, _made, x)


def _kind(x: Any) -> Any:
    """Lists of one length are of one kind; None for what is no long list of numbers of one dtype."""
    if type(x) is not list or len(x) <= FEW or not all(is_number(v) and not getattr(v, "ndim", 0) for v in x):
        return None
    alike = len({_lift.lift(v).dtype for v in x}) == 1
    return (list, NUMBERS, len(x)) if alike else None


def _array(x: Sequence[Any]) -> Array:
    weak = {_lift.lift(v).weak for v in x}
    array = _lift.lift(numpy_functions().array(x))
    return _lift.wrap(array.value, weak.pop() if len(weak) == 1 else None)


def _made(parts: dict[Any, Any]) -> list[Any]:
    array = parts[NUMBERS]
    return rows.rows(_lift.wrap(array.value), array.type.static_shape[0], array.weak)
