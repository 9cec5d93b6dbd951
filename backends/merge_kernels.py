"""Kernels over one domain become one with several results, when they read a tensor in common, or one reads at its own
element what the other makes.

    %1 = kernel {domain = (n,), reduced = 1, combine = ("sum",)} {(%i) yield x[i]}
    %2 = kernel {domain = (n,), reduced = 1, combine = ("sum",)} {(%i) yield x[i] * x[i]}
becomes
    %1, %2 = kernel {domain = (n,), reduced = 1, combine = ("sum", "sum")} {(%i) yield x[i], x[i] * x[i]}

The second moves up to the first, past operations without regions; never past a ``check``, which may be what makes its
reads lie inside their tensors. One that reads what the first makes stays apart where it may be computed in memory that
the first reads: what a loop carries, or a part of a tensor.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from dflow.backends.demand import DEEPEST
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Op, Value, free_values, walk

LARGEST = 200  # operations in a kernel; registers are few
WRITES = frozenset({"update", "update_add"})
NEAR = 8  # how many kernels back to look


@dataclass
class _Candidate:
    kernel: Op
    place: int  # in the new list of operations
    reads: set[Value]


def merge_kernels(ops: list[Op], results: Sequence[Value], chains: bool = True) -> list[Op]:
    """The operations of a region that yields ``results``, with kernels merged; with those that read what they make only
    where there may be ``chains``."""
    own = {*results, *(op.operands[1] for op in ops if op.name in WRITES)} if chains else set()
    out: list[Op] = []
    place: dict[Value, int] = {}
    candidates: list[_Candidate] = []
    for op in ops:
        target = None
        if op.name == "kernel":
            needs = [*free_values(*op.regions), *op.uses()]
            reads = {v for v in needs if v.type.rank}
            latest = max((place.get(v, -1) for v in needs), default=-1)
            near = [c for c in reversed(candidates) if _fits(c.kernel, op, LARGEST)]
            target = next((c for c in near if c.place > latest and not c.reads.isdisjoint(reads)), None)
            if target is None and chains and own.isdisjoint(op.results):
                target = next((c for c in near if _follows(c, op, needs, place)), None)
        elif op.regions or op.name in ("check", "call"):
            candidates.clear()
        if target is None:
            place.update((r, len(out)) for r in op.results)
            if op.name == "kernel":
                candidates = [*candidates[1 - NEAR :], _Candidate(op, len(out), reads)]
            out.append(op)
        else:
            target.kernel = out[target.place] = merged(target.kernel, op)
            target.reads |= reads
            place.update((r, target.place) for r in op.results)
    return out


def _follows(c: _Candidate, op: Op, needs: list[Value], place: Mapping[Value, int]) -> bool:
    """Whether a kernel reads what another makes, just at its own element, and nothing else that is made after it."""
    made, (region,) = set(c.kernel.results), op.regions
    if op.attrs["reduced"] or not _fits(c.kernel, op, DEEPEST):
        return False
    if any(place.get(v, -1) >= c.place for v in needs if v not in made):
        return False
    reads = [o for o in walk(region) if not made.isdisjoint(o.operands)]
    return bool(reads) and all(o.name == "extract" and o.operands[1:] == region.args for o in reads)


def _fits(first: Op, second: Op, largest: int) -> bool:
    alike = all(first.attrs[k] == second.attrs[k] for k in ("domain", "reduced"))
    return alike and len(first.regions[0].ops) + len(second.regions[0].ops) <= largest


def merged(first: Op, second: Op) -> Op:
    """One kernel for both; what the second reads of the results of the first at its own element is at hand."""
    attrs = {**first.attrs, "combine": (*first.attrs["combine"], *second.attrs["combine"])}
    b = Builder([a.type for a in first.regions[0].args])
    env: dict[Value, Value] = {}
    known: dict[Hashable, Value] = {}
    elements: list[Value] = []
    for op in (first, second):
        (region,) = op.regions
        env.update(zip(region.args, b.args))
        _inline(b, region, env, known)
        elements += [env.get(v, v) for v in region.results]
        if op is first and not op.attrs["reduced"]:
            index = repr({"index": ("at",) * len(b.args)})
            known |= {("extract", (r, *b.args), index): v for r, v in zip(op.results, elements)}
    return Op("kernel", (), (*first.results, *second.results), attrs, [b.finish(elements)], first.loc)


def _inline(b: Builder, region: Block, env: dict[Value, Value], known: dict[Hashable, Value]) -> None:
    """Appends the operations of a kernel's region but for those that are there already."""
    for op in region.ops:
        key = (op.name, tuple(env.get(v, v) for v in op.operands), repr(op.attrs))
        if key in known:
            env[op.result] = known[key]
        else:
            (known[key],) = b.clone(op, env)
