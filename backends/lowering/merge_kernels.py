"""Kernels over one domain become one with several results, where that saves a pass over memory.

    %1 = kernel {domain = (n,), reduced = 1, combine = ("sum",)} {(%i) yield x[i]}
    %2 = kernel {domain = (n,), reduced = 1, combine = ("sum",)} {(%i) yield x[i] * x[i]}
becomes
    %1, %2 = kernel {domain = (n,), reduced = 1, combine = ("sum", "sum")} {(%i) yield x[i], x[i] * x[i]}

They are merged when they read a tensor in common, or when one reads of the other's results just the element at its own
index; so that a tensor and sums over it (cotangents of a field, and of the numbers by which it was computed) are one
pass: the combine of the tensor is "". The second moves up to the first, past operations without regions; never past a
``check``, which may be what makes its reads lie inside their tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from dflow.backends.lowering.liveness import WRITES, aligned_reads
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Op, Value, free_values
from dflow.ir.types import BOOL

LARGEST = 200  # operations in a kernel; registers are few
NEAR = 8  # how many kernels back to look
STOPPING = frozenset({"check", "call"})


def merge_kernels(
    ops: list[Op], results: Sequence[Value] = (), mixed: bool = False, carried: Sequence[Value] = ()
) -> list[Op]:
    """The operations of a block, which gives ``results``, with kernels merged. ``mixed``: also those that reduce with
    those that do not. What a region has ``carried`` should be in the memory of what it replaces."""
    if not any(op.name == "kernel" for op in ops):
        return ops
    placed = {*carried, *(op.operands[1] for op in ops if op.name in WRITES)}
    return _Merge(mixed, _direct(ops, results) if mixed else set(), placed).block(ops)


def _direct(ops: list[Op], results: Sequence[Value]) -> set[Op]:
    """The kernels of parts that nothing wants but an update, which had better compute them (`emit/direct.py`)."""
    uses, found = Counter(results), set[Op]()
    for op in ops:
        uses.update({*op.uses(), *free_values(*op.regions)})
    for op in ops:
        if op.name not in WRITES or op.operands[0].type.grows:
            continue
        x, part, *_ = op.operands
        made = part.op
        if made is not None and made.name == "kernel" and uses[part] == 1 and x not in tensors_read(made):
            found.add(made)
    return {op for op in found if len(op.results) == 1 and not op.attrs["reduced"]}


class _Kernel:
    """A kernel and what is asked about it, again and again: each is a candidate for those behind it."""

    def __init__(self, op: Op):
        self.op = op
        self.needs = [*free_values(*op.regions), *op.uses()]
        self.reads = {v for v in self.needs if v.type.rank}

    @cached_property
    def aligned(self) -> set[Value]:
        return aligned_reads(self.op)

    @cached_property
    def mixes(self) -> bool:
        return can_mix(self.op)


@dataclass
class _Candidate:
    kernel: _Kernel
    place: int  # in the new list of operations


class _Merge:
    """One pass over a block. ``alone`` are kernels that stay as they are, ``placed`` results with a place of theirs."""

    def __init__(self, mixed: bool, alone: set[Op], placed: set[Value]):
        self.mixed, self.alone, self.placed = mixed, alone, placed
        self.out: list[Op] = []
        self.place: dict[Value, int] = {}
        self.last_read: dict[Value, int] = {}
        self.candidates: list[_Candidate] = []

    def block(self, ops: list[Op]) -> list[Op]:
        for op in ops:
            if op.name == "kernel" and op not in self.alone:
                self.kernel(op)
                continue
            if (op.regions and op.name != "kernel") or op.name in STOPPING:
                self.candidates.clear()
            self.keep(op, [*free_values(*op.regions), *op.uses()])
        return self.out

    def keep(self, op: Op, needs: Iterable[Value]) -> None:
        here = len(self.out)
        self.place.update((r, here) for r in op.results)
        self.last_read.update((v, here) for v in needs)
        self.out.append(op)

    def kernel(self, op: Op) -> None:
        new = _Kernel(op)
        target = next((c for c in reversed(self.candidates) if self.fits(c, new)), None)
        if target is None:
            self.candidates = [*self.candidates[1 - NEAR :], _Candidate(new, len(self.out))]
            self.keep(op, new.needs)
            return
        both = self.out[target.place] = merged(target.kernel.op, op)
        target.kernel = _Kernel(both)
        self.place.update((r, target.place) for r in op.results)
        self.last_read.update((v, max(target.place, self.last_read.get(v, 0))) for v in new.needs)

    def fits(self, c: _Candidate, new: _Kernel) -> bool:
        """Whether a kernel can move up to a candidate, and had better."""
        op, first = new.op, c.kernel.op
        if not alike(first, op):
            return False
        made = new.reads.intersection(first.results)
        if not made and c.kernel.reads.isdisjoint(new.reads):
            return False
        if max((self.place.get(v, -1) for v in new.needs if v not in made), default=-1) >= c.place:
            return False
        if not made and first.attrs["reduced"] == op.attrs["reduced"]:
            return True
        mix = self.mixed and c.kernel.mixes and new.mixes
        return mix and made <= new.aligned and self.stays_in_place(c, new)

    def stays_in_place(self, c: _Candidate, new: _Kernel) -> bool:
        """Whether what a kernel could write in the place of an operand still can be."""
        if new.op.attrs["reduced"] or self.placed.isdisjoint(new.op.results):
            return True
        others = c.kernel.reads - c.kernel.aligned
        return others.isdisjoint(new.aligned) and all(self.last_read.get(v, -1) <= c.place for v in new.aligned)


def tensors_read(kernel: Op) -> set[Value]:
    """The tensors that a kernel reads."""
    return {v for v in free_values(*kernel.regions) if v.type.rank}


def alike(first: Op, second: Op) -> bool:
    """Whether two kernels can be one, of a sensible size."""
    size = len(first.regions[0].ops) + len(second.regions[0].ops)
    return first.attrs["domain"] == second.attrs["domain"] and size <= LARGEST


def can_mix(op: Op) -> bool:
    """Whether a kernel is as good in the loops of another such: it reduces all axes or none, and goes along rows."""
    return op.attrs["reduced"] in (0, len(op.attrs["domain"])) and _goes_along(op.regions[0])


def _goes_along(region: Block) -> bool:
    """Whether the innermost loop reads along rows, and nothing is asked about positions."""
    if not region.args:
        return False
    positions, inner = set(region.args), {region.args[-1]}
    for op in region.ops:
        if op.name == "extract":
            if not inner.isdisjoint(op.operands[1:-1]):
                return False
        elif not positions.isdisjoint(op.operands):
            if op.result.type.dtype == BOOL:
                return False
            positions.add(op.result)
            if not inner.isdisjoint(op.operands):
                inner.add(op.result)
    return True


def merged(first: Op, second: Op) -> Op:
    """One kernel for both; what the second reads of the results of the first at its own element is at hand."""
    combine = (*first.attrs["combine"], *second.attrs["combine"])
    attrs = {**first.attrs, "reduced": max(first.attrs["reduced"], second.attrs["reduced"]), "combine": combine}
    b = Builder([a.type for a in first.regions[0].args])
    env: dict[Value, Value] = {}
    known: dict[Hashable, Value] = {}
    elements: list[Value] = []
    for op in (first, second):
        (region,) = op.regions
        env.update(zip(region.args, b.args))
        _inline(b, region, env, known)
        elements += [env.get(v, v) for v in region.results]
        if op is first:
            index = repr({"index": ("at",) * len(b.args)})
            made = zip(op.results, elements, op.attrs["combine"])
            known |= {("extract", (r, *b.args), index): v for r, v, kind in made if not kind}
    return Op("kernel", (), (*first.results, *second.results), attrs, [b.finish(elements)], first.loc)


def _inline(b: Builder, region: Block, env: dict[Value, Value], known: dict[Hashable, Value]) -> None:
    """Appends the operations of a kernel's region but for those that are there already."""
    for op in region.ops:
        key = (op.name, tuple(env.get(v, v) for v in op.operands), repr(op.attrs))
        if key in known:
            env[op.result] = known[key]
        else:
            (known[key],) = b.clone(op, env)
