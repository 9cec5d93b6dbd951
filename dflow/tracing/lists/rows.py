"""Lists whose items are the rows of one array, one after the other: what a loop that appends to a list leaves.

Such a list is a Python list like any other. Where it is used as a whole (``np.array(xs)``, ``for x in xs``,
``xs[k]`` by a traced ``k``), the array is taken instead of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dflow.ir.core import Value
from dflow.tracing.arrays import array as _array
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.context import LOOP, Cell, Region, builder, region

FEW = 4  # shorter lists are left to Python
OF_A_LIST = "this array is an item of a list, read in a traced loop: an update would not reach the list"

Array = Any  # dflow.tracing.arrays.array.Array, which itself needs this module


def rows(stack: Array, count: int, weak: bool | None) -> list[Array]:
    """New arrays with the contents of the first ``count`` rows, each the result of one ``extract``."""
    b, base = builder(), stack.value
    index = ("at", *["all"] * (stack.ndim - 1))
    return [_lift.wrap(b.extract(base, b.index(i), index=index), weak) for i in range(count)]


def run(items: Sequence[Any]) -> Array | None:
    """The array of which all ``items`` are the rows, in their order; None for other items."""
    if len(items) <= FEW or not isinstance(items[0], _array.Array) or not isinstance(items[-1], _array.Array):
        return None
    first = _row(items[0])
    if first is None:
        return None
    base, start, home = first
    weak = items[0].weak
    for i, x in enumerate(items):
        if not isinstance(x, _array.Array) or x.weak is not weak or _row(x) != (base, start + i, home):
            return None
    whole = _array.Array(Cell(base, home), base.type)
    if start == 0 and base.type.shape[0] == len(items):
        return whole
    return whole[start : start + len(items)]


def _row(x: Array) -> tuple[Value, int, Region] | None:
    """The array, the position in it, and the region where ``x`` was made as a row of it."""
    value = None if x.steps or x.cell.poison else _contents(x.cell)
    if value is None or value.op is None or value.op.name != "extract":
        return None
    index, starts = value.op.attrs["index"], value.op.operands[1:]
    if index[0] != "at" or any(e != "all" for e in index[1:]) or value.op.operands[0].type.size_values:
        return None
    position = starts[0].op
    if position is None or position.name != "constant":
        return None
    return value.op.operands[0], int(position.attrs["value"]), x.cell.home


def _contents(cell: Cell) -> Value | None:
    """What the cell holds where it was made; None when that may have changed since."""
    here: Region | None = region()
    while here is not None and here is not cell.home:
        carried = here.kind == LOOP and cell in here.carried
        if carried or (cell in here.local and here.entry.get(cell) is not here.local[cell]):
            return None
        here = here.parent
    return None if here is None else cell.value


def stacked(items: Sequence[Any]) -> Array | None:
    """The rows as one array in NumPy's sense, of a new cell: that of ``np.array(items)``."""
    found = run(items)
    return None if found is None else _lift.wrap(found.value)


class Columns:
    """A list of numbers, arrays or tuples of them whose leaves, each by itself, are the rows of one array."""

    def __init__(self, items: Sequence[Any], shape: Any, stacks: Sequence[Array], weak: Sequence[bool | None]):
        self.items, self.shape, self.stacks, self.weak = items, shape, stacks, weak

    def item(self, k: Any) -> Any:
        """The item at a traced position."""
        return _built(self.shape, (part(s, k, w) for s, w in zip(self.stacks, self.weak)))


def part(stack: Array, position: Any, weak: bool | None) -> Array:
    """One row as a number, or as an array that must not be updated."""
    found = _lift.wrap(stack[position].value, weak)
    if found.ndim:
        found.cell.read_only = OF_A_LIST
    return found


def columns(items: Any) -> Columns | None:
    """The columns of a list that a loop has filled; None for other lists."""
    if type(items) not in (list, tuple) or len(items) <= FEW or not _may_be(items[0]):
        return None
    shape = _shape(items[0])
    if shape is None or any(_shape(x) != shape for x in items):
        return None
    leaves = [_leaves(x) for x in items]
    stacks = [run(column) for column in zip(*leaves)]
    if not stacks or any(s is None for s in stacks):
        return None
    return Columns(items, shape, [s for s in stacks if s is not None], [x.weak for x in leaves[0]])


def _may_be(x: Any) -> bool:
    while isinstance(x, tuple) and x:
        x = x[0]
    return isinstance(x, _array.Array) and _row(x) is not None


def _shape(x: Any) -> Any:
    """How an item is put together of arrays; None when it is of something else."""
    if isinstance(x, _array.Array):
        return "leaf"
    if not isinstance(x, tuple) or not x:
        return None
    inner = tuple(map(_shape, x))
    return None if None in inner else (type(x), inner)


def _leaves(x: Any) -> list[Any]:
    return [leaf for p in x for leaf in _leaves(p)] if isinstance(x, tuple) else [x]


def _built(shape: Any, leaves: Any) -> Any:
    if shape == "leaf":
        return next(leaves)
    kind, inner = shape
    parts = [_built(s, leaves) for s in inner]
    return kind._make(parts) if hasattr(kind, "_make") else kind(parts)
