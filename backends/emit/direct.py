"""What is written to a part of a tensor, or added to it, is computed where it is written.

    %v = kernel {domain = (9,)} {(%i) ...}
    %y = update_add %x, %v, %k               ->        %y = update_add %x, %v, %k {(%i) ...}

Derivatives are full of this: whatever reads a slice has a cotangent that is added to one. The part itself is never
made. It must be wanted nowhere else, and what the kernel reads must still be there: nothing in between may write to the
same bytes, nor the update, but to an element that no other element of the part is computed from:

    %v = kernel {domain = (9,)} {(%i) yield sin(%x[%i + 1]) * %y[%i]}
    %z = update %x, %v, 1                                              # in the same buffer
"""

from __future__ import annotations

from collections import Counter

from dflow.backends.emit.core import Emitter
from dflow.backends.emit.scopes import disjoint
from dflow.backends.emit.split import row_split
from dflow.backends.emit.tiles import reads_across
from dflow.backends.lowering.plan import Buffer
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.linear_forms import plus, terms

WRITES = frozenset({"update", "update_add"})
FAR = 16  # operations between a kernel and the update


def direct(e: Emitter, block: Block) -> list[Op]:
    """The operations of ``block``, with such kernels inside of the updates."""
    if not e.vectorizes or not any(op.name in WRITES and _made(op) is not None for op in block.ops):
        return block.ops
    if e.uses is None:
        e.uses = _uses(e.plan.function.body)
    place = {op: n for n, op in enumerate(block.ops)}
    joined: dict[Op, Op] = {}
    dropped: set[Op] = set()
    for n, op in enumerate(block.ops):
        made = _made(op)
        if made in place and made not in dropped and _fits(e, made, block.ops[place[made] + 1 : n], op):
            joined[op] = _joined(op, made)
            e.memory.join(joined[op], op, made)
            dropped.add(made)
    return [joined.get(op, op) for op in block.ops if op not in dropped]


def _made(op: Op) -> Op | None:
    """The kernel that makes the part that ``op`` writes."""
    if op.name not in WRITES or op.operands[0].type.grows or op.regions:
        return None
    made = op.operands[1].op
    return made if made is not None and made.name == "kernel" and len(made.results) == 1 else None


def _fits(e: Emitter, kernel: Op, between: list[Op], update: Op) -> bool:
    """Whether the kernel may be computed in the update, which comes after the operations ``between``."""
    (region,), domain, v = kernel.regions, kernel.attrs["domain"], kernel.result
    if kernel.attrs["reduced"] or e.uses is None or e.uses[v] != 1 or len(between) >= FAR or not v.type.rank:
        return False
    if row_split(region, domain) is not None or reads_across(e, kernel, domain) is not None:
        return False
    buffers = e.memory.buffers
    reads = {x: buffers[x] for x in free_values(region) if x in buffers}
    inner = [o for op in between for o in (op, *(o for r in op.regions for o in walk(r)))]
    moved = [o for o in inner if o.name != "reshape" or not e.memory.same(o.operands[0], o.result)]
    changed = [v for o in moved for v in (*o.results, *(o.operands if o in e.turning else ()))]
    written = {buffers[v] for v in changed if v in buffers}
    if not all(_apart(w, r) for w in written for r in reads.values()):
        return False
    target = buffers.get(update.result)
    others = [x for x, r in reads.items() if target is not None and not _apart(target, r)]
    return all(reads[x] is target and _reads_what_it_writes(region, x, update) for x in others)


def _reads_what_it_writes(region: Block, x: Value, update: Op) -> bool:
    """Whether element for element of the part, all that is read of ``x`` is what ``update`` writes there."""
    starts, position, wanted = iter(update.operands[2:]), iter(region.args), []
    for entry in update.attrs["index"]:
        start = {} if entry == "all" else terms(next(starts))
        step = 0 if entry == "at" else 1 if entry == "all" else entry[2]
        wanted.append(plus(start, {next(position): 1}, step) if step else start)
    reads = [o for o in walk(region) if x in o.uses()]
    if x.type.shape != update.result.type.shape or len(reads) != count_uses(region)[x]:
        return False
    return all(
        o.name == "extract"
        and all(entry == "at" for entry in o.attrs["index"])
        and [terms(v) for v in o.operands[1:]] == wanted
        for o in reads
    )


def _apart(written: Buffer, read: Buffer) -> bool:
    """Whether two buffers share no byte. Arguments of the caller may."""
    return disjoint(written, read) and not written.space == read.space == "argument"


def _joined(op: Op, kernel: Op) -> Op:
    attrs = {**op.attrs, "domain": kernel.attrs["domain"], "reduced": 0}
    made = Op(op.name, op.operands, [], attrs, kernel.regions, op.loc)
    made.results = op.results  # which remain those of the operation in the plan
    return made


def _uses(body: Block) -> Counter[Value]:
    """How often values are used: what nothing uses twice is used nowhere else."""
    uses = Counter(body.results)
    for op in walk(body):
        uses.update(op.uses())
        for region in op.regions:
            uses.update(region.results)
    return uses
