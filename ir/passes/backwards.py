"""Slices that are other slices backwards: of both, one need be saved.

%v = extract %x, 0 {("slice", %n, 1)}
%w = extract %x, %m {("slice", %n, -1)}      where %m = %n - 1, is      extract %v, %m {("slice", %n, -1)}
"""

from __future__ import annotations

from collections.abc import Sequence

from dflow.ir.core import Op, Value
from dflow.ir.passes.linear_forms import Terms, plus, terms
from dflow.ir.types import Size


def backwards(ops: Sequence[Op]) -> dict[Value, Op]:
    """For slices of a vector that begin at its last element, what makes them of the slices forwards."""
    forwards = {}
    for op in ops:
        if _step(op) == 1 and not terms(op.operands[1]):
            forwards[op.operands[0], op.result.type] = op.result
    found = {}
    for op in ops if forwards else ():
        whole = forwards.get((op.operands[0], op.result.type)) if _step(op) == -1 else None
        if whole is not None and terms(op.operands[1]) == plus(_size(op), {None: -1}):
            made = [Value(op.result.type)]
            found[op.result] = Op("extract", [whole, op.operands[1]], made, op.attrs, loc=op.loc)
    return found


def _step(op: Op) -> int | None:
    """The step of a slice of a vector."""
    if op.name != "extract" or op.operands[0].type.rank != 1 or op.result.type.rank != 1:
        return None
    (entry,) = op.attrs["index"]
    return None if entry == "all" else int(entry[2])


def _size(op: Op) -> Terms:
    (size,) = op.result.type.shape
    return terms(size.value) if isinstance(size, Size) else {None: op.result.type.bound[0]}
