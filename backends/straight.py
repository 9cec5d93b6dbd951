"""Straight code: long runs of operations without a loop or a branch.

Each of them runs once, and what takes time is to compile them. Where numbers follow one another there is nothing to
vectorize, and a math function that is called twice need not be there twice: a call takes a nanosecond of the twenty of
a sine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from llvmlite import ir

from dflow.ir.core import Function, walk

LONG = 3000  # instructions in a block


def is_straight(f: Function) -> bool:
    """Whether ``f`` has numbers alone, and neither loops nor branches."""
    scalar = all(t.is_scalar for t in (*f.arg_types, *f.result_types))
    return scalar and all(not op.regions and all(v.type.is_scalar for v in op.results) for op in f.body.ops)


def vectorizes(f: Function, module: ir.Module) -> bool:
    """Whether LLVM shall look for neighbouring numbers in ``module``, made from ``f``: where there can be any, and
    where it does not take too long, as its search grows with the square of a block. In a loop that is worth it."""
    if is_straight(f):
        return False
    return any(op.name in ("for", "while") for op in walk(f.body)) or not any(_long_blocks(module))


def call_repeated(f: Function, module: ir.Module) -> None:
    """Has math functions that straight code calls more than once called, not inlined."""
    blocks = (b for g in module.functions for b in g.blocks) if is_straight(f) else _long_blocks(module)
    calls = [i for b in blocks for i in b.instructions if isinstance(i, ir.CallInstr) and _is_inlined(i.callee)]
    count = Counter(i.callee.name for i in calls)
    for i in calls:
        if count[i.callee.name] > 1:
            i.attributes.add("noinline")


def _long_blocks(module: ir.Module) -> Iterator[ir.Block]:
    """Those that are in no loop."""
    return (b for f in module.functions for b in f.blocks if len(b.instructions) > LONG and not _comes_back(b))


def _comes_back(block: ir.Block) -> bool:
    """Whether control that leaves the block may reach it again."""
    seen, reached = set[ir.Block](), [block]
    while reached:
        end = reached.pop().terminator
        following = {x for x in (end.operands if end else ()) if isinstance(x, ir.Block)} - seen
        seen |= following
        reached += following
    return block in seen


def _is_inlined(callee: ir.Value) -> bool:
    return isinstance(callee, ir.Function) and "alwaysinline" in callee.attributes
