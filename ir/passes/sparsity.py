"""Which elements of the results of a function can depend on which elements of its parameters.

Abstract interpretation: each value carries, for every element, the set of input elements that it may depend on (as bits
along a last axis), and its elements where these are known whatever the inputs are. The answer holds for all inputs: of
branches that are not decided both count, loops run until nothing is added, positions that are not known mean any
element. Where an operation has no rule of its own, all its results depend on all its operands. Comparisons and integers
carry no derivative, so nothing depends on anything through them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow.ir.core import Block, Function, Op, Value, free_values
from dflow.ir.passes.expand import expand, expand_late
from dflow.ir.registry import OPS
from dflow.ir.types import TensorType

Bits = np.ndarray[Any, Any]
LONGEST = 100_000  # iterations that are followed one by one
KNOWN = 10_000  # elements of known values that are computed with


@dataclass
class Fact:
    """``known``: the elements, where they are known. ``bits``: what each may depend on, None for nothing."""

    known: Any = None
    bits: Bits | None = None


def sparsity(f: Function, wrt: int, known: Mapping[int, Any] | None = None) -> list[np.ndarray[Any, Any]]:
    """For each result a boolean matrix: its elements by those of parameter ``wrt``, both in row-major order.

    ``known`` are the values of other parameters that may be taken for granted, by position.
    """
    f = expand_late(expand(f))
    size = int(np.prod(f.args[wrt].type.bound, dtype=np.int64))
    facts = {a: Fact(known=(known or {}).get(i)) for i, a in enumerate(f.args)}
    seeds = np.packbits(np.eye(size, dtype=bool), axis=1)
    facts[f.args[wrt]] = Fact(bits=seeds.reshape(*f.args[wrt].type.bound, -1))
    walker = _Walker(facts, seeds.shape[-1])
    walker.block(f.body)
    return [np.unpackbits(walker.bits(r).reshape(-1, walker.width), axis=1, count=size).astype(bool) for r in f.results]


def _shape(t: TensorType) -> tuple[int, ...]:
    """A sequence counts as one element along its leading axis."""
    return (1, *t.with_shape(t.shape[1:]).bound) if t.grows else t.bound


def _pool(bits: Bits) -> Bits:
    return np.bitwise_or.reduce(bits.reshape(-1, bits.shape[-1]), axis=0)


class _Walker:
    def __init__(self, facts: dict[Value, Fact], width: int):
        self.facts = facts
        self.width = width

    def bits(self, v: Value) -> Bits:
        found = self.facts[v].bits
        return np.zeros((*_shape(v.type), self.width), np.uint8) if found is None else found

    def block(self, block: Block) -> None:
        for op in block.ops:
            self.op(op)

    def op(self, op: Op) -> None:
        if op.name in ("if", "for", "while"):
            getattr(self, f"_{op.name}")(op)
            return
        facts = [self.facts[v] for v in op.operands]
        made = Fact(known=self.computed(op, facts))
        if any(x.bits is not None for x in facts) and any(r.type.dtype.is_inexact for r in op.results):
            static = all(v.type.is_static for v in (*op.operands, *op.results))
            rule = RULES.get(op.name) or (_elementwise if OPS[op.name].elementwise else None)
            if rule is not None and static and len(op.results) == 1:
                made.bits = rule(self, op, facts)
            if made.bits is None:
                return self.everything(op)
        for r in op.results:
            self.facts[r] = made

    def computed(self, op: Op, facts: Sequence[Fact]) -> Any:
        """The elements of the only result, where they follow from known ones."""
        if len(op.results) != 1 or not op.result.type.is_static or op.regions or any(x.known is None for x in facts):
            return None
        reference = OPS[op.name].reference
        if reference is None or np.prod(op.result.type.bound) > KNOWN or (not op.operands and op.name == "empty"):
            return None
        with np.errstate(all="ignore"):
            try:
                return np.asarray(reference(op.attrs, *(x.known for x in facts)))
            except (IndexError, ValueError):  # not reached when the program runs
                return None

    def everything(self, op: Op) -> None:
        """All results depend on all that the operation uses."""
        uses = [*op.operands, *free_values(*op.regions)]
        pools = [_pool(self.bits(v)) for v in uses if self.facts[v].bits is not None]
        pooled = np.bitwise_or.reduce(pools) if pools else np.zeros(self.width, np.uint8)
        for r in op.results:
            bits = np.broadcast_to(pooled, (*_shape(r.type), self.width)) if r.type.dtype.is_inexact else None
            self.facts[r] = Fact(bits=bits)

    # -- control flow ----------------------------------------------------------------------------------------------

    def _if(self, op: Op) -> None:
        taken = self.facts[op.operands[0]].known
        regions = op.regions if taken is None else [op.regions[0 if taken else 1]]
        for region in regions:
            self.block(region)
        for r, *yields in zip(op.results, *(region.results for region in regions)):
            self.facts[r] = self.joined([self.facts[y] for y in yields], r)

    def joined(self, facts: Sequence[Fact], like: Value) -> Fact:
        """What holds whichever of the facts holds."""
        first = facts[0]
        same = all(x.known is not None and np.array_equal(x.known, first.known) for x in facts)
        given = [x.bits for x in facts if x.bits is not None]
        bits = given[0] if given else None
        for more in given[1:]:
            assert bits is not None
            bits = bits | more
        return Fact(first.known if same else None, bits)

    def _for(self, op: Op) -> None:
        count = self.facts[op.operands[0]].known
        (body,) = op.regions
        carried = [self.facts[v] for v in op.operands[1:]]
        if count is None or count > LONGEST:
            self.facts[body.args[0]] = Fact()
            return self.fixed_point(op, body, body.args[1:], carried)
        for k in range(int(count)):
            self.facts[body.args[0]] = Fact(known=np.int64(k))
            self.facts.update(zip(body.args[1:], carried))
            self.block(body)
            carried = [self.facts[r] for r in body.results]
        self.facts.update(zip(op.results, carried))

    def _while(self, op: Op) -> None:
        self.fixed_point(op, op.regions[1], op.regions[1].args, [self.facts[v] for v in op.operands])

    def fixed_point(self, op: Op, body: Block, args: Sequence[Value], carried: Sequence[Fact]) -> None:
        """The body again and again, until what is carried depends on nothing more."""
        carried = [Fact(bits=x.bits) for x in carried]
        while True:
            self.facts.update(zip(args, carried))
            self.block(body)
            after = [self.joined([x, self.facts[r]], r) for x, r in zip(carried, body.results)]
            after = [Fact(bits=x.bits) for x in after]
            if all(_equal(x.bits, y.bits) for x, y in zip(carried, after)):
                break
            carried = after
        self.facts.update(zip(op.results, carried))


def _equal(x: Bits | None, y: Bits | None) -> bool:
    return (x is None) == (y is None) and (x is None or np.array_equal(x, y))  # type: ignore[arg-type]


Rule = Callable[[_Walker, Op, Sequence[Fact]], "Bits | None"]


def _elementwise(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    given = [x.bits for x in facts if x.bits is not None]
    out = given[0]
    for more in given[1:]:
        out = out | more
    if op.name == "mul":  # nothing depends on anything through a factor that is always zero
        for x in facts:
            if x.known is not None:
                out = np.where(np.asarray(x.known == 0)[..., None], np.uint8(0), out)
    return out


def _select(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    yes, no = w.bits(op.operands[1]), w.bits(op.operands[2])
    if facts[0].known is None:
        return yes | no
    return np.where(np.asarray(facts[0].known)[..., None], yes, no)


def _broadcast(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    x, shape, dims = w.bits(op.operands[0]), op.attrs["shape"], op.attrs["dims"]
    aligned = x.reshape(*(shape[k] if k in dims else 1 for k in range(len(shape))), w.width)
    return np.broadcast_to(aligned, (*shape, w.width))


def _reshape(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    return w.bits(op.operands[0]).reshape(*op.attrs["shape"], w.width)


def _transpose(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    return w.bits(op.operands[0]).transpose(*op.attrs["perm"], op.operands[0].type.rank)


def _concatenate(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    return np.concatenate([w.bits(v) for v in op.operands], axis=op.attrs["axis"])


def _reduce(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    return np.bitwise_or.reduce(w.bits(op.operands[0]), axis=tuple(op.attrs["axes"]))


def _matmul(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    """Element (i, j) depends on row i of the first and column j of the second, less known zeros of the other."""
    x, y = (w.bits(v) for v in op.operands)
    a, b = (x_.known for x_ in facts)
    if x.ndim != 3 or (x.shape[0] * x.shape[1] * y.shape[1] * w.width) > 1 << 28:
        return None
    left = np.broadcast_to(x[:, :, None], (*x.shape[:2], y.shape[1], w.width))
    right = np.broadcast_to(y[None], (x.shape[0], *y.shape))
    if b is not None:
        left = np.where((np.asarray(b) != 0)[None, :, :, None], left, np.uint8(0))
    if a is not None:
        right = np.where((np.asarray(a) != 0)[:, :, None, None], right, np.uint8(0))
    return np.bitwise_or.reduce(left | right, axis=1)


def _places(op: Op, facts: Sequence[Fact], shape: tuple[int, ...], first: int) -> tuple[Any, ...] | None:
    """The positions that an ``index`` names, as an open mesh; None where they are not known or lie outside."""
    starts = iter(facts[first:])
    axes = []
    for size, e in zip(shape, op.attrs["index"]):
        if e == "all":
            axes.append(np.arange(size))
            continue
        start = next(starts).known
        if start is None:
            return None
        at = int(start) + (np.zeros(1, int) if e == "at" else np.arange(e[1]) * e[2])
        if at.size and (at.min() < 0 or at.max() >= size):
            return None
        axes.append(at)
    return np.ix_(*axes) if axes else ()


def _extract(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    x = w.bits(op.operands[0])
    where = _places(op, facts, x.shape[:-1], 1)
    return None if where is None else x[where].reshape(*op.result.type.bound, w.width)


def _update(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    x, v = w.bits(op.operands[0]), w.bits(op.operands[1])
    where = _places(op, facts, x.shape[:-1], 2)
    if where is None:
        return x | _pool(v)
    out = x.copy()
    part = v.reshape(*(np.broadcast_shapes(*(a.shape for a in where)) if where else ()), w.width)
    out[where] = part if op.name == "update" else out[where] | part
    return out


def _gather(w: _Walker, op: Op, facts: Sequence[Fact]) -> Bits | None:
    if any(x.known is None for x in facts[1:]):
        return None
    try:
        return w.bits(op.operands[0])[tuple(np.asarray(x.known) for x in facts[1:])]
    except IndexError:  # the program will say so
        return None


RULES: dict[str, Rule] = {
    "gather": _gather,
    "select": _select,
    "broadcast": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "reduce": _reduce,
    "matmul": _matmul,
    "extract": _extract,
    "update": _update,
    "update_add": _update,
}
