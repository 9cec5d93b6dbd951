"""Choosing residuals: which values of a region to save for the linear part, and which to recompute from those.

The linear part of a region needs some values of the nonlinear part. Saving costs memory traffic, so we save the
cheapest set from which the needed ones follow by *cheap* operations: a minimum vertex cut between what cannot be
recomputed (region arguments, results of costly operations) and what is needed, weighted by bytes. Values from around
the region, loop counters and constants are at hand anyway. (Enzyme chooses in the same way: Moses et al., SC '22.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dflow.ir.core import Op, Value
from dflow.ir.passes.mincut import INFINITE, FlowNetwork
from dflow.ir.registry import definition
from dflow.ir.types import TensorType


@dataclass
class Choice:
    """``saved`` values, sizes before what has them in its type, and operations to repeat (in order) for the rest."""

    saved: list[Value]
    recomputed: list[Op]


def choose(ops: Sequence[Op], args: Sequence[Value], needed: Sequence[Value]) -> Choice:
    """Chooses for a region with the operations ``ops`` and the arguments ``args`` that must be saved to be known."""
    inside = set(args)
    for op in ops:
        inside.update(op.results)
    wanted = [v for v in needed if v in inside]
    if not wanted:
        return Choice([], [])
    saved = _with_sizes(_cut(ops, set(args), inside, wanted), inside)
    return Choice(saved, _repeat(ops, set(saved), wanted))


def _with_sizes(saved: Sequence[Value], inside: set[Value]) -> list[Value]:
    """The values with the sizes in their types, so that each can be given its type where it is read back."""
    return list(dict.fromkeys([*(s for v in saved for s in v.type.size_values if s in inside), *saved]))


def _recomputable(op: Op) -> bool:
    return not op.regions and not definition(op).effect and definition(op).cheap


def _bytes(t: TensorType) -> float:
    if t.grows:
        return 1e18
    return float(max(1, int(np.prod(t.bound, dtype=np.int64)) * t.dtype.itemsize))


def _cut(ops: Sequence[Op], args: set[Value], inside: set[Value], wanted: Sequence[Value]) -> list[Value]:
    relevant = _ancestors(ops, args, inside, wanted)
    net = FlowNetwork()
    source, sink = net.node(), net.node()
    enter: dict[Value, int] = {}
    leave: dict[Value, int] = {}
    for v in relevant:
        enter[v], leave[v] = net.node(), net.node()
        net.edge(enter[v], leave[v], _bytes(v.type))
    for v in relevant:
        if v in args or not _recomputable(v.op):  # type: ignore[arg-type]
            net.edge(source, enter[v], INFINITE)
        else:
            for u in dict.fromkeys(v.op.uses()):  # type: ignore[union-attr]
                if u in inside:
                    net.edge(leave[u], enter[v], INFINITE)
    for v in dict.fromkeys(wanted):
        net.edge(leave[v], sink, INFINITE)
    side = net.source_side(source, sink)
    return [v for v in relevant if enter[v] in side and leave[v] not in side]


def _ancestors(ops: Sequence[Op], args: set[Value], inside: set[Value], wanted: Sequence[Value]) -> list[Value]:
    """The values that the wanted ones follow from by recomputable operations, wanted ones included."""
    seen = dict.fromkeys(wanted)
    work = list(wanted)
    while work:
        v = work.pop()
        if v in args or not _recomputable(v.op):  # type: ignore[arg-type]
            continue
        for u in v.op.uses():  # type: ignore[union-attr]
            if u in inside and u not in seen:
                seen[u] = None
                work.append(u)
    return list(seen)


def _repeat(ops: Sequence[Op], saved: set[Value], wanted: Sequence[Value]) -> list[Op]:
    needed = set(wanted) - saved
    out = []
    for op in reversed(ops):
        if any(r in needed for r in op.results):
            out.append(op)
            needed.update(u for u in op.uses() if u not in saved)
    return out[::-1]
