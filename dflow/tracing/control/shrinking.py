"""Arrays that a loop carries and that become smaller in it, as ``x = x[keep]``.

Such a variable is taken apart: an array of the size on entry, which the loop carries, and the sizes along the axes that
change. An iteration begins with the part of that size, a new array, and leaves what it makes of it in the corner.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dflow.errors import CarriedError, failure
from dflow.ir.core import Value
from dflow.ir.types import Dim, Size, TensorType
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import Region, builder, region
from dflow.tracing.control.merging import MAY_ALIAS
from dflow.tracing.control.slots import Node, Slot, Variable
from dflow.tracing.control.state import is_number
from dflow.tracing.python.objects import Anatomy

WHOLE = "whole"
Axes = frozenset[int]


@dataclass
class Shrinking(Node):
    """A variable that becomes smaller; its parts are an array of the type ``full`` and a size for each axis."""

    full: Any = None
    starts: list[tuple[Array, Value]] = field(default_factory=list)  # the array of an iteration, and its contents

    def put_together(self, parts: dict[Any, Any]) -> Array:
        """The array from its parts, as a new one."""
        shape = list(self.full.shape)
        for k, count in parts.items():
            if k != WHOLE:
                region().known.define(count.value, (0, shape[k]))
                shape[k] = sizes.dim(count.value)
        made = _lift.wrap(sizes.recast(parts[WHOLE].value, tuple(shape)))
        self.starts.append((made, made.value))
        return made

    def anatomy(self, x: Any) -> Anatomy | None:
        """How what an iteration leaves is put together; None when it does not fit."""
        if not is_number(x):
            return None
        self.final = array = _lift.lift(x)
        old, new = self.full.shape, array.type.shape
        axes = [k for k in self.parts if k != WHOLE]
        if len(old) != len(new) or any(_bound(new[k]) > old[k] for k in axes):
            return None
        return Anatomy(self.kind, parts(array, self.full, axes), self.made)


def entered(array: Array, axes: Axes) -> Shrinking:
    """The variable as a loop finds it."""
    node = Shrinking("shrinking", {}, lambda parts: node.put_together(parts), array)
    node.full = array.type.with_shape(tuple(_bound(d) if k in axes else d for k, d in enumerate(array.type.shape)))
    node.parts = parts(array, node.full, axes)
    return node


def found(variables: Iterable[Variable]) -> list[tuple[str, Shrinking]]:
    return [(v.name, n) for v in variables for n in v.nodes() if isinstance(n, Shrinking)]


def shrinking_axes(old: TensorType, new: TensorType, unrolls: bool) -> Axes:
    """The axes along which an array becomes smaller in an iteration. Known sizes are left to unrolling if that can be
    had."""
    if old.rank != new.rank:
        return frozenset()
    axes = [k for k, (a, b) in enumerate(zip(old.shape, new.shape)) if not sizes.same(a, b)]
    pairs = [(old.shape[k], new.shape[k]) for k in axes]
    fits = all(_bound(b) <= _bound(a) for a, b in pairs)
    varies = any(isinstance(d, Size) for p in pairs for d in p)
    return frozenset(axes) if fits and (varies or not unrolls) else frozenset()


def _bound(d: Dim) -> int:
    return d.bound if isinstance(d, Size) else d  # type: ignore[return-value]


def parts(array: Array, full: TensorType, axes: Iterable[int]) -> dict[Any, Any]:
    """The array in the corner of one of the full size, and its sizes."""
    b, v = builder(), array.value
    old = v.type.shape
    found: dict[Any, Any] = {k: _lift.wrap(b.size(old[k]), weak=True) for k in sorted(axes)}
    if any(old[k] != full.shape[k] for k in found):
        around = b.zeros(v.type.with_shape(tuple(full.shape[k] if k in found else d for k, d in enumerate(old))))
        index = tuple(("slice", d, 1) if k in found else "all" for k, d in enumerate(old))
        v = b.update(around, v, *(b.index(0) for _ in found), index=index)
    return {WHOLE: _lift.wrap(v), **found}


def check(nodes: list[tuple[str, Shrinking]], inner: Region, others: Iterable[Slot]) -> None:
    """Refuses updates of such arrays that another name would have to see."""
    last = [*(n.final for _, n in nodes), *(s.final for s in others)]
    finals = [x.cell for x in last if isinstance(x, Array)]
    for name, n in nodes:
        start, first = n.starts[0]
        if start.cell.value is first:
            continue
        cell = n.final.cell if isinstance(n.final, Array) else None
        kept = cell is not None and (cell.home is not inner or finals.count(cell) > 1)
        if kept or (isinstance(n.origin, Array) and n.origin.cell in inner.local):
            raise failure(
                CarriedError,
                f"variable {name!r} becomes smaller in a loop that also updates it in place, and has another name",
                mend="copy the array (x.copy()) before the loop",
            )


def settle(nodes: list[tuple[str, Shrinking]]) -> None:
    """After the loop: the arrays on entry must not be used any more where they may have been updated, and the new ones
    not be updated, since they may be the same."""
    for name, n in nodes:
        (start, first), (array, _) = n.starts[0], n.starts[-1]
        if not isinstance(n.origin, Array):
            continue
        if start.cell.value is not first:
            n.origin.cell.poison = f"this array is updated in a loop in which variable {name!r} becomes smaller"
        array.cell.read_only = MAY_ALIAS
        n.origin.cell.copies.append(array.cell)
