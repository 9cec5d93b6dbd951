"""Whether the elements of an array lie row by row, as far as one can tell.

NumPy keeps the order of axes: ``2 * x.T`` lies column by column, and so its ``ravel()`` is a copy and no view. The IR
has no such order, so what NumPy's arrays would have is derived from how a value was made. Where that is not known,
a reshaped array may be a view or not: once one of the two is updated, the other must not be used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dflow.ir.core import Block, Value
from dflow.tracing.context import Cell, Region, region

ROWS = {"constant", "empty", "sequence", "iota", "matmul", "gemm"}  # make arrays row by row
IN_PLACE = {"update", "update_add", "scatter", "scatter_add"}
UNKNOWN = {
    *("cholesky", "lu", "triangular_solve", "qr", "eigh", "eig", "svd", "lu_solve", "pinv", "fourier", "custom"),
    *("kernel", "call"),
}


def ordered(cell: Cell) -> bool:
    """Whether the array of a cell lies row by row for certain."""
    if cell.ordered is None:
        made = cell.origin
        cell.ordered = _by_rows(made) if isinstance(made, Value) else all(x.is_contiguous() for x in made)
    return cell.ordered


def lies_like(new: Cell, value: Value) -> None:
    """A new array has the order of axes of another (``zeros_like``), which its own value does not tell."""
    if value.type.rank > 1 and not _by_rows(value):
        by_columns(new)


def in_order(new: Any, order: str | None) -> Any:
    """A new array as NumPy's argument ``order`` wants it; what is neither "C" nor "F" is left to how it was made."""
    if order == "C":
        new.cell.ordered = True
    elif order == "F" and new.ndim > 1:
        by_columns(new.cell)
    return new


def by_columns(new: Cell) -> None:
    """A new array does not lie row by row, or may not."""
    new.ordered = False
    region().root().disordered.add(new.value)


def after_loop(slots: Iterable[Any]) -> None:
    """A variable that a loop has given another array lies row by row if both do."""
    for s in slots:
        final = s.final
        if getattr(final, "ndim", 0) and (final.cell is not s.cell or final.steps):
            s.cell.ordered = bool((s.initial is None or ordered(s.cell)) and final.is_contiguous())


def _by_rows(value: Value) -> bool:
    """Elementwise operations and most others keep the order of axes of their operands; some change it."""
    here, todo, seen = region(), [value], set()
    disordered = here.root().disordered
    while todo:
        v = todo.pop()
        if v in seen or v.type.rank < 2:
            continue
        seen.add(v)
        op = v.op
        if v in disordered or (op is not None and (op.name in UNKNOWN or _moves(op))):
            return False
        if op is None:
            if not _argument(v, here):
                return False
        elif op.name == "constant":
            stored = op.attrs["value"]
            if not getattr(stored, "flags", None) or not stored.flags.c_contiguous:
                return False
        elif op.name in IN_PLACE:
            todo.append(op.operands[0])
        elif op.name == "if":
            todo += [block.results[op.results.index(v)] for block in op.regions]
        elif op.name not in ROWS:
            todo += [*op.operands, *(x for block in op.regions for x in block.results)]
    return True


def _moves(op: Any) -> bool:
    """Whether the operation changes the order of axes (of size 1 they may stand anywhere)."""
    if op.name != "transpose":
        return False
    sizes = op.operands[0].type.shape
    moved = [p for p in op.attrs["perm"] if sizes[p] != 1]
    return bool(moved != sorted(moved))


def _argument(v: Value, here: Region) -> bool:
    """Whether an argument lies row by row: one of the function does, and one of a loop if what it stands for does."""
    r: Region | None = here
    while r is not None:
        if v in r.builder.args:
            return True
        for cell, entry in r.entry.items():
            if entry is v:
                return ordered(cell)
        r = r.parent
    return isinstance(v.owner, Block)
