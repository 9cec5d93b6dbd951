"""Choosing residuals: which values of a region to save for the linear part, and which to recompute from those.

The linear part of a region needs some values of the nonlinear part. Saving costs memory traffic, so we save the
cheapest set from which the needed ones follow by *cheap* operations: a minimum vertex cut between what cannot be
recomputed (region arguments, results of costly operations) and what is needed, weighted by bytes. Values from around
the region, loop counters and constants are at hand anyway. (Enzyme chooses in the same way: Moses et al., SC '22.)
A loop that ``dflow.ir.passes.linearize`` means to run again may do so, at the cost of a byte for each iteration: less
than its tapes would take, and more than what little of its results is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

from dflow.ir.core import Op, Value, free_values, walk
from dflow.ir.passes.backwards import backwards
from dflow.ir.passes.mincut import INFINITE, FlowNetwork
from dflow.ir.passes.rewrite import LOOPS, SEQUENCES, constant_of, has_effect, splat_source
from dflow.ir.registry import definition
from dflow.ir.types import TensorType

SILENT = frozenset({"check", "assume"})  # effects that may come twice
NESTED = 30  # iterations that are supposed of an inner loop where the count is not static
# Of the operations that are not cheap these may be repeated at a cost, in the bytes of the mean.
MODERATE = {"div": 3.0, "sqrt": 3.0}


@dataclass
class Choice:
    """``saved`` values, sizes before what has them in its type, and operations to repeat (in order) for the rest, each
    with the values that its results are."""

    saved: list[Value]
    recomputed: list[tuple[Op, Sequence[Value]]]


def choose(
    ops: Sequence[Op],
    args: Sequence[Value],
    needed: Sequence[Value],
    again: Collection[Op] = (),
    once: Callable[[Op], bool] = lambda op: False,
    instead: Mapping[Value, Op] = MappingProxyType({}),
) -> Choice:
    """Chooses for a region with the operations ``ops`` and the arguments ``args`` that must be saved to be known.

    Operations in ``again`` may be repeated whatever they cost, those for which ``once`` holds may not. The values in
    ``instead`` are also the results of operations that take nothing but what is at hand; a slice backwards is also the
    slice turned around.
    """
    inside = set(args)
    for op in ops:
        inside.update(op.results)
    wanted = [v for v in dict.fromkeys(needed) if v in inside]
    if not wanted:
        return Choice([], [])
    return _Region(inside, set(args), again, once, {**backwards(ops), **instead}).choice(wanted)


class _Region:
    def __init__(
        self,
        inside: set[Value],
        args: set[Value],
        again: Collection[Op],
        once: Callable[[Op], bool],
        instead: Mapping[Value, Op],
    ):
        """``instead``: other operations that give a value."""
        self.inside, self.args, self.again, self.once, self.instead = inside, args, again, once, instead

    def choice(self, wanted: Sequence[Value]) -> Choice:
        saved = self._cut(wanted)
        sizes = (s for v in saved for s in v.type.size_values if s in self.inside)
        saved = list(dict.fromkeys([*sizes, *saved]))
        return Choice(saved, self._repeat(set(saved), wanted))

    def _must_be_saved(self, v: Value) -> bool:
        if v in self.instead:
            return False
        op = v.op
        return v in self.args or op is None or self._cost(op) == INFINITE or self.once(op)

    def _cost(self, op: Op) -> float:
        return 0.0 if op in self.again else _cost(op)

    def _uses(self, v: Value) -> list[Value]:
        """What it takes to have ``v`` again, of the region's values."""
        return [u for u in dict.fromkeys(_uses(self._source(v))) if u in self.inside]

    def _source(self, v: Value) -> Op:
        op = self.instead.get(v, v.op)
        assert op is not None
        return op

    def _cut(self, wanted: Sequence[Value]) -> list[Value]:
        uses = self._ancestors(wanted)
        net = FlowNetwork()
        source, sink = net.node(), net.node()
        enter: dict[Value, int] = {}
        leave: dict[Value, int] = {}
        for v in uses:
            enter[v], leave[v] = net.node(), net.node()
            net.edge(enter[v], leave[v], mean_bytes(v.type))
        loops: dict[Op, int] = {}  # that run again: they cost once, whatever is needed of them
        for v, needs in uses.items():
            if needs is None:
                net.edge(source, enter[v], INFINITE)
                continue
            op = self._source(v)
            if op.name in LOOPS:
                if op not in loops:
                    loops[op] = net.node()
                    net.edge(source, loops[op], _iterations(op))
                net.edge(loops[op], enter[v], INFINITE)
            elif v not in self.instead and (cost := self._cost(op)):
                net.edge(source, enter[v], cost * mean_bytes(v.type) / v.type.dtype.itemsize)
            for u in needs:
                net.edge(leave[u], enter[v], INFINITE)
        for v in wanted:
            net.edge(leave[v], sink, INFINITE)
        side = net.source_side(source, sink)
        return [v for v in uses if enter[v] in side and leave[v] not in side]

    def _ancestors(self, wanted: Sequence[Value]) -> dict[Value, list[Value] | None]:
        """The values that the wanted ones follow from by recomputable operations, wanted ones included: each with what
        it takes to have it, None where it must be saved."""
        found: dict[Value, list[Value] | None] = dict.fromkeys(wanted)
        work = list(wanted)
        while work:
            v = work.pop()
            if self._must_be_saved(v):
                continue
            needs = found[v] = self._uses(v)
            for u in needs:
                if u not in found:
                    found[u] = None
                    work.append(u)
        return found

    def _repeat(self, saved: set[Value], wanted: Sequence[Value]) -> list[tuple[Op, Sequence[Value]]]:
        """The operations that give the wanted values, each after what it takes."""
        out: list[tuple[Op, Sequence[Value]]] = []
        begun: set[Op] = set()
        work = [(v, False) for v in reversed(wanted)]
        while work:
            v, ready = work.pop()
            if v in saved:
                continue
            op = self._source(v)
            if ready:
                out.append((op, [v] if v in self.instead else op.results))
            elif op not in begun:
                begun.add(op)
                work.append((v, True))
                work.extend((u, False) for u in reversed(self._uses(v)))
        return out


def _cost(op: Op) -> float:
    """What repeating the operation costs, for each element, in bytes that could be saved instead."""
    if op.name == "if":
        return sum(_cost(inner) for region in op.regions for inner in region.ops)
    if leaves_sequences(op):
        return INFINITE if any(o.name not in SILENT and has_effect(o) for r in op.regions for o in walk(r)) else 0.0
    if op.regions or definition(op).effect:
        return INFINITE
    if op.name in SEQUENCES:
        return 0.0
    if op.name == "update" and (_is_made_anew(op.operands[0]) or _is_window(op)):
        return 0.0
    return 0.0 if definition(op).cheap else MODERATE.get(op.name, INFINITE)


def leaves_sequences(op: Op) -> bool:
    """Whether an operation is a loop that begins sequences and leaves them, as a derivative of a ``while`` does."""
    inits = op.operands[len(op.operands) - len(op.results) :] if op.name in LOOPS else ()
    growing = [init.op for init in inits if init.type.grows]
    return bool(growing) and all(maker is not None and maker.name in SEQUENCES for maker in growing)


def _iterations(loop: Op) -> float:
    """How many a loop makes, with those of the loops inside; more than any where it leaves a sequence: no row of a tape
    has room for one."""
    if leaves_sequences(loop):
        return 1e15
    inside = sum(_iterations(op) for op in loop.regions[0].ops if op.name == "for")
    trips = constant_of(loop.operands[0])
    return max(0, NESTED if trips is None else trips) * max(1, inside)


def _is_made_anew(v: Value) -> bool:
    """Whether a tensor holds nothing yet, or parts that were written to it since."""
    while v.op is not None and v.op.name == "update":
        v = v.op.operands[0]
    return v.op is not None and v.op.name == "empty"


def _is_window(op: Op) -> bool:
    """Whether an update writes most of a tensor of one number, one element beside the other: kernels compute it."""
    whole, part = (v.type for v in op.operands[:2])
    if (
        splat_source(op.operands[0]) is None
        or not whole.is_static
        or not part.is_static
        or any(e != "all" and (e == "at" or e[2] != 1) for e in op.attrs["index"])
    ):
        return False
    return 0 < prod(whole.static_shape) <= 2 * prod(part.static_shape)


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
