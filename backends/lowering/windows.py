"""Windows: updates of large parts of tensors that are computed element by element, in the pass that makes the whole.

    %1 = update_add(%zeros, %v, 0)                %2 = kernel {domain = (9,)} {(%i)
    %2 = update_add(%1, %v, 1)            ->          %a = select(lt(%i, 8), %v[..], -0.0)
                                                      %b = select(ge(%i, 1), %v[..], -0.0)
                                                      yield add(add(0.0, %a), %b) }

The cotangent of a stencil is such a chain: each shifted slice adds to it. In place, every link would be a pass over
memory of its own. A link is a *window* when it covers most of the tensor, a contiguous part of known place, so that
asking of each element whether it lies inside is cheap; and when it writes to what nothing else reads: a tensor that is
being made, so that the chain costs no pass at all, or the result of another link. A lone window in a tensor that is
there already is better written in place, unless it is computed from other elements of that tensor: the stencils of time
loops, whose old and new state change places then.

A concatenation is read in the same way where asking of an element which part it lies in is cheap:

    %y = concatenate(%x[n-1:], %x[:n-1])   ->     %k = select(ge(%i, 1), %i - 1, %i + n - 1); yield %x[%k]

That holds for parts of one tensor, where the questions choose between positions; and along the last axis, where one
part is most of each row; and where no other than operations element by element want it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod

from dflow.ir.core import Block, Function, Op, Value, walk
from dflow.ir.passes.rewrite import constant_of, same
from dflow.ir.registry import definition

LEAST = 0.5  # of the elements of the whole
EDGES = 0.125  # of a row: what is outside of some window of a chain is not computed in vectors
MOST = 32  # links of one chain
PARTS = 4  # of a concatenation


def windows(f: Function, is_made: Callable[[Op], bool], turns: bool) -> set[Op]:
    """The updates and concatenations of ``f`` that kernels should compute.

    ``is_made`` tells the operations that kernels compute; ``turns``, whether the new state of a loop may be in other
    memory than the old one (`turning.py`)."""
    found = _joins(f)
    if not any(is_window(op) for op in walk(f.body)):
        return found
    uses = Counter(f.results)
    for op in walk(f.body):
        uses.update(op.operands)
        for r in op.regions:
            uses.update(r.results)
    _search(f.body, uses, is_made, turns, found)
    return found


def is_window(op: Op) -> bool:
    """Whether an update covers most of a tensor, with nothing between the elements."""
    if op.name not in ("update", "update_add") or not all(v.type.is_static for v in op.operands[:2]):
        return False
    x, part, *starts = op.operands
    if not all(entry == "all" or (entry[0] == "slice" and entry[2] == 1) for entry in op.attrs["index"]):
        return False
    whole, covered = x.type.static_shape, part.type.static_shape
    known = all(constant_of(s) is not None for s in starts)
    return bool(whole) and known and prod(covered) >= LEAST * prod(whole) > 0


def joins_well(parts: Sequence[Value], axis: int) -> bool:
    """Whether the element of a concatenation costs little more than that of a part of it."""
    if not 2 <= len(parts) <= PARTS or not all(part.type.is_static and prod(part.type.static_shape) for part in parts):
        return False
    if axis < parts[0].type.rank - 1:
        return len({source(part) for part in parts}) == 1
    sizes = [part.type.static_shape[axis] for part in parts]
    return 1 - max(sizes) / sum(sizes) <= EDGES


def _joins(f: Function) -> set[Op]:
    """The concatenations whose elements are wanted one by one; others are made in memory, part by part."""
    joins = {op for op in walk(f.body) if op.name == "concatenate" and joins_well(op.operands, op.attrs["axis"])}
    if not joins:
        return joins
    whole = set(f.results)
    for op in walk(f.body):
        whole.update(v for r in op.regions for v in r.results)
        if op.name != "extract" and not definition(op).elementwise:
            whole.update(op.operands)
    return {op for op in joins if op.result not in whole}


def source(part: Value) -> Value:
    """What a slice is of; another tensor itself."""
    return part.op.operands[0] if part.op is not None and part.op.name == "extract" else part


def _edges(links: list[Op]) -> float:
    """Which part of a row lies outside of some window."""
    size = links[0].result.type.static_shape[-1]
    first, last = 0, size
    for op in links:
        entry = op.attrs["index"][-1]
        if entry != "all":
            start = constant_of(op.operands[-1])
            first, last = max(first, start), min(last, start + entry[1])
    return 1 - (last - first) / size


def _search(block: Block, uses: Counter[Value], is_made: Callable[[Op], bool], turns: bool, found: set[Op]) -> None:
    here = set(block.ops)
    chains: dict[Op, list[Op]] = {}  # by the last link
    for op in block.ops:
        for r in op.regions if op.name != "kernel" else ():
            _search(r, uses, is_made, turns, found)
        if is_window(op):
            before = op.operands[0].op
            alone = before in here and uses[op.operands[0]] == 1
            links = chains.pop(before) if before in chains and alone else []
            if len(links) < MOST:
                chains[op] = [*links, op]
            else:
                chains[links[-1]], chains[op] = links, [op]
    for links in chains.values():
        root = links[0].operands[0]
        made = root.op is not None and is_made(root.op)
        fresh = made and (_is_splat(root) or (root.op in here and uses[root] == 1))
        beside = turns and len(links) == 1 and _reads_beside(links[0], uses)
        if (fresh or beside or len(links) > 1) and _edges(links) <= EDGES:
            found.update(links)


def _reads_beside(op: Op, uses: Counter[Value]) -> bool:
    """Whether the part is computed from other elements of the tensor than those that it replaces, and for nothing else.
    In place it would have to be made before, and then be copied."""
    root, part, *starts = op.operands
    work, made, beside = [part], Counter([part]), False
    while work:
        source = work.pop().op
        if source is None or not (definition(source).elementwise or source.name == "extract"):
            continue
        if source.name == "extract" and source.operands[0] is root:
            beside |= source.attrs["index"] != op.attrs["index"] or not all(map(same, source.operands[1:], starts))
            continue
        operands = [v for v in source.operands if v.type.rank]
        work += [v for v in dict.fromkeys(operands) if v not in made]
        made.update(operands)
    computed = [v for v in made if v.op is not None and definition(v.op).elementwise]
    return beside and all(uses[v] == made[v] for v in computed)


def _is_splat(v: Value) -> bool:
    return v.op is not None and v.op.name in ("constant", "broadcast")
