"""Choosing residuals: which values of a region to save for the linear part, and which to recompute from those.

The linear part of a region needs some values of the nonlinear part. Saving costs memory traffic, so we save the
cheapest set from which the needed ones follow by *cheap* operations: a minimum vertex cut between what cannot be
recomputed (region arguments, results of costly operations) and what is needed, weighted by bytes. Values from around
the region, loop counters and constants are at hand anyway. (Enzyme chooses in the same way: Moses et al., SC '22.)
Loops that ``dflow.ir.passes.linearize`` means to run again count as cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from dflow.ir.core import Op, Value, free_values
from dflow.ir.passes.mincut import INFINITE, FlowNetwork
from dflow.ir.registry import definition
from dflow.ir.types import TensorType

# Of the operations that are not cheap these may be repeated at a cost, in the bytes of the mean.
MODERATE = {"div": 3.0, "sqrt": 3.0}


@dataclass
class Choice:
    """``saved`` values, sizes before what has them in its type, and operations to repeat (in order) for the rest."""

    saved: list[Value]
    recomputed: list[Op]


def choose(
    ops: Sequence[Op],
    args: Sequence[Value],
    needed: Sequence[Value],
    again: Collection[Op] = (),
    once: Callable[[Op], bool] = lambda op: False,
) -> Choice:
    """Chooses for a region with the operations ``ops`` and the arguments ``args`` that must be saved to be known.

    Operations in ``again`` may be repeated whatever they cost, those for which ``once`` holds may not.
    """
    inside = set(args)
    for op in ops:
        inside.update(op.results)
    wanted = [v for v in needed if v in inside]
    if not wanted:
        return Choice([], [])
    given = {v for v in inside if v in args or _is_costly(v.op, again) or once(v.op)}  # type: ignore[arg-type]
    saved = _with_sizes(_cut(again, given, inside, wanted), inside)
    return Choice(saved, _repeat(ops, set(saved), wanted))


def _with_sizes(saved: Sequence[Value], inside: set[Value]) -> list[Value]:
    """The values with the sizes in their types, so that each can be given its type where it is read back."""
    return list(dict.fromkeys([*(s for v in saved for s in v.type.size_values if s in inside), *saved]))


def _is_costly(op: Op, again: Collection[Op]) -> bool:
    return op not in again and _cost(op) == INFINITE


def _cost(op: Op) -> float:
    """What repeating the operation costs, for each element, in bytes that could be saved instead."""
    if op.name == "if":
        return sum(_cost(inner) for region in op.regions for inner in region.ops)
    if op.regions or definition(op).effect:
        return INFINITE
    if op.name == "update" and _is_made_anew(op.operands[0]):
        return 0.0
    return 0.0 if definition(op).cheap else MODERATE.get(op.name, INFINITE)


def _is_made_anew(v: Value) -> bool:
    """Whether a tensor holds nothing yet, or parts that were written to it since."""
    while v.op is not None and v.op.name == "update":
        v = v.op.operands[0]
    return v.op is not None and v.op.name == "empty"


def _uses(op: Op) -> Iterator[Value]:
    """What repeating the operation takes."""
    yield from op.uses()
    for region in op.regions:
        yield from free_values(region)


def mean_bytes(t: TensorType) -> float:
    """Bytes of a value of type ``t``; sizes are supposed to be half their bounds in the mean."""
    if t.grows:
        return 1e18
    elements: float = prod(t.bound) * 0.5 ** len(t.size_values)
    return max(1.0, elements * t.dtype.itemsize)


def _cut(again: Collection[Op], given: set[Value], inside: set[Value], wanted: Sequence[Value]) -> list[Value]:
    relevant = _ancestors(given, inside, wanted)
    net = FlowNetwork()
    source, sink = net.node(), net.node()
    enter: dict[Value, int] = {}
    leave: dict[Value, int] = {}
    for v in relevant:
        enter[v], leave[v] = net.node(), net.node()
        net.edge(enter[v], leave[v], mean_bytes(v.type))
    for v in relevant:
        if v in given:
            net.edge(source, enter[v], INFINITE)
        else:
            if v.op not in again and (cost := _cost(v.op)):  # type: ignore[arg-type]
                net.edge(source, enter[v], cost * mean_bytes(v.type) / v.type.dtype.itemsize)
            for u in dict.fromkeys(_uses(v.op)):  # type: ignore[arg-type]
                if u in inside:
                    net.edge(leave[u], enter[v], INFINITE)
    for v in dict.fromkeys(wanted):
        net.edge(leave[v], sink, INFINITE)
    side = net.source_side(source, sink)
    return [v for v in relevant if enter[v] in side and leave[v] not in side]


def _ancestors(given: set[Value], inside: set[Value], wanted: Sequence[Value]) -> list[Value]:
    """The values that the wanted ones follow from by recomputable operations, wanted ones included."""
    seen = dict.fromkeys(wanted)
    work = list(wanted)
    while work:
        v = work.pop()
        if v in given:
            continue
        for u in _uses(v.op):  # type: ignore[arg-type]
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
            needed.update(u for u in _uses(op) if u not in saved)
    return out[::-1]
