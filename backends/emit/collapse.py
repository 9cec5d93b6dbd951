"""Axes that lie one behind the other in memory become one loop.

    for i in 4: for j in 6: z[i, j] = x[i, j] + y[i, j]        ->        for k in 24: z[0, k] = x[0, k] + y[0, k]

Positions are sums of indices times strides, so the index of the inner axis may run past its end into the next rows, as
long as every tensor has both axes side by side, the inner one whole, or neither. Long loops are better vectors, and few
loops compile faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from dflow.backends.emit.core import Emitter
from dflow.ir.core import Block, Op, Value
from dflow.ir.types import Dim


def collapse(domain: Sequence[Dim], joins: Callable[[int], bool]) -> tuple[Dim, ...]:
    """``domain`` with axes of size 1 for those that are one with the next. ``joins(axis)``: may it be?"""
    sizes = list(domain)
    for axis in range(len(sizes) - 1):
        if isinstance(size := sizes[axis], int) and isinstance(following := sizes[axis + 1], int) and joins(axis):
            sizes[axis : axis + 2] = 1, size * following
    return tuple(sizes)


def collapsed_kernel(e: Emitter, op: Op) -> tuple[Dim, ...]:
    """`collapsed` where loops are vectors."""
    return collapsed(op) if e.vectorizes else tuple(op.attrs["domain"])


def collapsed(op: Op) -> tuple[Dim, ...]:
    """The domain of a kernel with the axes of its results joined, or, of a reduction, the reduced ones."""
    (region,), domain, reduced = op.regions, op.attrs["domain"], op.attrs["reduced"]
    first = len(domain) - reduced if reduced else 0
    if len(domain) - first < 2 or prod(d for d in domain if isinstance(d, int)) == 0:
        return tuple(domain)
    reads = _reads(region)
    if reads is None:
        return tuple(domain)

    def joins(axis: int) -> bool:
        outer, inner = region.args[axis : axis + 2]
        return axis >= first and all(_together(x, starts, outer, inner, domain[axis + 1]) for x, starts in reads)

    return collapse(domain, joins)


def _reads(region: Block) -> list[tuple[Value, Sequence[Value]]] | None:
    """What a kernel reads, and where; None when it uses its indices for something else."""
    indices = set(region.args)
    reads: list[tuple[Value, Sequence[Value]]] = []
    for op in region.ops:
        if op.name == "extract":
            reads.append((op.operands[0], op.operands[1:]))
        elif not indices.isdisjoint(op.operands):
            return None
    return None if not indices.isdisjoint(region.results) else reads


def _together(x: Value, starts: Sequence[Value], outer: Value, inner: Value, size: Dim) -> bool:
    """Whether both indices stand side by side, and the inner axis is whole, or neither occurs."""
    at = [k for k, start in enumerate(starts) if start is outer or start is inner]
    if not at:
        return True
    side_by_side = len(at) == 2 and at[1] == at[0] + 1 and starts[at[0]] is outer and starts[at[1]] is inner
    return side_by_side and x.type.shape[at[1]] == size and not (x.type.grows and at[0] == 0)


def collapsed_part(e: Emitter, x: Value, part: Value, index: Sequence[object]) -> tuple[Dim, ...]:
    """The shape of a part of ``x`` with axes joined that are whole in both."""
    kept = [k for k, entry in enumerate(index) if entry != "at"]

    def joins(axis: int) -> bool:
        outer, inner = kept[axis : axis + 2]
        entry = index[outer]
        contiguous = entry == "all" or (isinstance(entry, tuple) and entry[2] == 1)
        whole = index[inner] == "all" and x.type.shape[inner] == part.type.shape[axis + 1]
        return inner == outer + 1 and contiguous and whole and not (x.type.grows and outer == 0)

    return collapse(part.type.shape, joins) if e.vectorizes and not part.type.grows else part.type.shape
