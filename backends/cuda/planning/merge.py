"""Kernels over one domain become one, so that there are fewer launches and fewer passes over memory.

    %m = kernel {domain = (n,)} {(%i) yield 0.9 * old[i]}
    %y = kernel {domain = (n,)} {(%i) yield x[i] - m[i]}                    reads %m at its own element only
becomes
    %m, %y = kernel {domain = (n,)} {(%i) yield 0.9 * old[i], x[i] - 0.9 * old[i]}

Fusion leaves them apart where each is a loop that a processor is good at; on a GPU a launch costs as much as a pass
over some hundred thousand elements. The second moves up to the first, past operations without regions; never past a
check, which may be what makes its reads lie inside their tensors. Large kernels are merged only where that saves a
pass. Kernels that read across stay alone, for they are done in tiles; so do those that only fill a tensor, which may
not be needed (`lanes.overwritten`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dflow.backends.cuda.kernels.folds import count
from dflow.backends.lowering.merge_kernels import merged
from dflow.ir.core import Block, Function, Op, Value, free_values
from dflow.ir.passes.rewrite import Env, append_copy, open_block, rename

LARGEST = 200  # operations in a kernel; registers are few
TENSORS = 24  # that a kernel may touch
NEAR = 16  # how many kernels back to look
LARGE = 1 << 18  # elements from which the time of a launch does not matter
STOPPING = frozenset({"check", "guard", "call", "print", "warn"})
CHEAP = frozenset({"constant", "add", "sub", "mul", "neg", "max", "min"})


def merge(f: Function) -> Function:
    """``f`` with its kernels merged. ``f`` itself is not changed."""
    made = _block(f.body, {})
    return Function(f.name, _without_unused(made), f.linear, f.loc)


@dataclass
class _Kernel:
    op: Op
    place: int  # in the new list of operations
    reads: set[Value]


def _block(block: Block, env: Env) -> Block:
    copied = open_block(block.args, env)
    for op in block.ops:
        if op.name == "kernel" or not op.regions:
            copied.clone(op, env)
        else:
            append_copy(copied, op, env, [_block(r, env) for r in op.regions])
    return Block(copied.args, _merged_ops(copied.ops), rename(block.results, env))


def _merged_ops(ops: Iterable[Op]) -> list[Op]:
    """The operations of a block with kernels merged. Numbers that are known from the start come first, so that they
    are in nobody's way."""
    first, out = list[Op](), list[Op]()
    place: dict[Value, int] = {}
    near: list[_Kernel] = []
    for op in ops:
        needs = _needs(op)
        latest = max((place.get(v, -1) for v in needs), default=-1)
        if op.name in CHEAP and latest < 0 and all(v.type.is_scalar for v in (*op.operands, *op.results)):
            first.append(op)
            continue
        here = len(out)
        if _can_merge(op):
            reads = {v for v in needs if v.type.rank}
            target = next((k for k in reversed(near) if _fits(k, op, reads, place)), None)
            if target is not None:
                here = target.place
                target.op = out[here] = merged(target.op, op)
                target.reads |= reads
            else:
                near = [*near[1 - NEAR :], _Kernel(op, here, reads)]
        elif op.name in STOPPING or (op.regions and op.name != "kernel"):
            near.clear()
        if here == len(out):
            out.append(op)
        place.update((r, here) for r in op.results)
    return [*first, *out]


def _needs(op: Op) -> list[Value]:
    return [*free_values(*op.regions), *op.uses()]


def _can_merge(op: Op) -> bool:
    if op.name != "kernel":
        return False
    (region,) = op.regions
    if not region.ops or any(o.regions or o.name in STOPPING for o in region.ops):
        return False
    return bool(op.attrs["reduced"]) or not any(_reads_across(o, region.args[-1:]) for o in region.ops)


def _reads_across(o: Op, last: tuple[Value, ...]) -> bool:
    return o.name == "extract" and any(v in last for v in o.operands[1:-1])


def _fits(k: _Kernel, op: Op, reads: set[Value], place: dict[Value, int]) -> bool:
    """Whether ``op`` may move up to ``k``, and had better."""
    first, own = k.op, set(k.op.results)
    alike = all(first.attrs[name] == op.attrs[name] for name in ("domain", "reduced"))
    if not alike or len(first.regions[0].ops) + len(op.regions[0].ops) > LARGEST:
        return False
    if len({*k.reads, *reads, *first.results, *op.results}) > TENSORS:
        return False
    if any(place.get(v, -1) >= k.place for v in _needs(op) if v not in own):
        return False
    if op.attrs["reduced"] and _inner_last(first) != _inner_last(op):
        return False
    shared = not k.reads.isdisjoint(reads)
    if not own.isdisjoint(_needs(op)):
        return not op.attrs["reduced"] and _reads_own_element(op, own)
    return shared or count(op.attrs["domain"]) < LARGE


def _inner_last(op: Op) -> bool:
    """Whether a reduction reads memory side by side along what it reduces."""
    (region,) = op.regions
    inner = set(region.args[len(op.attrs["domain"]) - op.attrs["reduced"] :])
    return any(o.name == "extract" and o.operands[-1] in inner for o in region.ops)


def _reads_own_element(op: Op, tensors: set[Value]) -> bool:
    """Whether a kernel reads these tensors at the element that it computes, and nowhere else."""
    (region,) = op.regions
    for o in region.ops:
        if any(v in tensors for v in o.operands[1:]):
            return False
        if o.name == "extract" and o.operands[0] in tensors:
            if o.operands[1:] != region.args or any(e != "at" for e in o.attrs["index"]):
                return False
        elif any(v in tensors for v in o.operands):
            return False
    return True


def _without_unused(body: Block) -> Block:
    """The block without results of kernels that are not used any more, and without what only they needed."""
    used: set[Value] = set()

    def keep(block: Block) -> list[Op]:
        used.update(block.results)
        kept = []
        for op in reversed(block.ops):
            if op.name == "kernel":
                op = _with_results(op, [r in used for r in op.results])
            used.update(_needs(op))
            for r in op.regions if op.name != "kernel" else ():
                r.ops = keep(r)
            kept.append(op)
        return kept[::-1]

    body.ops = keep(body)
    return body


def _with_results(op: Op, wanted: list[bool]) -> Op:
    if all(wanted) or not any(wanted):
        return op
    (region,) = op.regions
    pick = lambda values: tuple(v for v, w in zip(values, wanted) if w)  # noqa: E731
    elements, kept = pick(region.results), list[Op]()
    needed = set(elements)
    for o in reversed(region.ops):
        if any(r in needed for r in o.results) or not o.results:
            needed.update(o.uses(), *(free_values(r) for r in o.regions))
            kept.append(o)
    attrs = {**op.attrs, "combine": pick(op.attrs["combine"])}
    return Op("kernel", op.operands, pick(op.results), attrs, [Block(region.args, kept[::-1], elements)], op.loc)
