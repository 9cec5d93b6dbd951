"""Kernels whose results one later kernel wants, and nothing else, are computed in that one, and need not exist.

    %a = kernel {domain = (n,)} {(%i) yield sin(x[i])}
    ...                                                   ->    ...
    %s = kernel {domain = (n,), reduced = 1,              ->    %s = kernel {domain = (n,), reduced = 1,
                 combine = ("sum",)} {(%i) yield a[i]}                       combine = ("sum",)} {(%i) yield sin(x[i])}

Fusion has computed what several kernels want in one of its own; since then they have become one (`merge_kernels.py`).
What the kernel reads must still be there: nothing in between may change it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from dflow.backends.lowering.liveness import LOOPS, WRITES, aligned_reads
from dflow.backends.lowering.merge_kernels import alike, can_mix, merged, tensors_read
from dflow.ir.core import Block, Op, Value, free_values


def sink_kernels(ops: list[Op], results: Sequence[Value]) -> list[Op]:
    """The operations of a block, which gives ``results``, with kernels in those that want them, and without what
    kernels make for nobody."""
    if not any(op.name == "kernel" for op in ops):
        return ops
    new: list[Op | None] = [*ops]
    users: defaultdict[Value, set[int]] = defaultdict(set)
    for n, op in enumerate(ops):
        for v in (*op.uses(), *free_values(*op.regions)):
            users[v].add(n)
    for n, op in reversed(list(enumerate(ops))):
        kernel = new[n]
        if kernel is None or op.name != "kernel":
            continue
        wanted = [r for r in op.results if users[r] or r in results]
        places = set().union(*(users[r] for r in wanted))
        user = new[min(places)] if len(places) == 1 and not any(r in results for r in wanted) else None
        if user is not None and _can_sink(kernel, user, ops[n + 1 : min(places)]):
            new[min(places)], new[n] = _only(merged(kernel, user), user.results), None
            for v in free_values(*kernel.regions):
                users[v] = (users[v] - {n}) | places
        elif wanted and len(wanted) < len(op.results):
            new[n] = _only(kernel, wanted)
    return [op for op in new if op is not None]


def _can_sink(op: Op, user: Op, between: Iterable[Op]) -> bool:
    """Whether ``user`` is a kernel that can compute the elements that ``op`` makes, each of which it wants once."""
    if user.name != "kernel" or op.attrs["reduced"] or not alike(op, user) or not (can_mix(op) and can_mix(user)):
        return False
    if not aligned_reads(user).issuperset(tensors_read(user).intersection(op.results)):
        return False
    reads = tensors_read(op)
    return not any(_overwrites(o, reads) for o in between)


def _overwrites(op: Op, reads: set[Value]) -> bool:
    """Whether ``op`` may write where one of ``reads`` is."""
    if op.regions and op.name != "kernel":
        return op.name not in LOOPS or not reads.isdisjoint((*op.operands, *free_values(*op.regions)))
    return op.name in WRITES and op.operands[0] in reads


def _only(op: Op, results: Sequence[Value]) -> Op:
    """A kernel with some of its results, and what these take."""
    (region,) = op.regions
    kept = [k for k, r in enumerate(op.results) if r in results]
    elements = [region.results[k] for k in kept]
    needed, ops = set(elements), list[Op]()
    for inner in reversed(region.ops):
        if not needed.isdisjoint(inner.results):
            needed.update(inner.operands)
            ops.append(inner)
    attrs = {**op.attrs, "combine": tuple(op.attrs["combine"][k] for k in kept)}
    left = [op.results[k] for k in kept]
    return Op("kernel", (), left, attrs, [Block(region.args, ops[::-1], elements)], op.loc)
