"""Straight code: long runs of operations without a loop or a branch.

Each of them runs once, and what takes time is to compile them. Where numbers follow one another there is nothing to
vectorize, and a math function that is called twice need not be there twice: a call takes a nanosecond of the twenty of
a sine. Arrays of a few elements may be among the numbers where there are many: their loops are written out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod

from llvmlite import ir

from dflow.ir.core import Function, Op, walk

LONG = 3000  # instructions in a block
MANY = 60  # operations of a program
FEW = 3  # points of a kernel, too few for a vector
SMALL = 16  # elements of an array that is only moved
MOVES = frozenset({"extract", "update", "update_add", "copy", "constant", "broadcast", "reshape", "empty"})


def is_straight(f: Function) -> bool:
    """Whether ``f`` has neither loops nor branches: numbers alone, or many operations, some of them on small arrays."""
    if not all(v.type.is_scalar for v in (*f.args, *f.results)) and len(f.body.ops) < MANY:
        return False
    return all(map(_is_straight, f.body.ops))


def _is_straight(op: Op) -> bool:
    if op.name == "kernel":
        points, inner = op.attrs["domain"], op.regions[0].ops
        return all(isinstance(d, int) for d in points) and prod(points) <= FEW and not any(o.regions for o in inner)
    arrays = [v.type for v in (*op.operands, *op.results) if not v.type.is_scalar]
    if not arrays:
        return not op.regions
    if op.name == "extract":  # may read few of many
        arrays = [t for t in arrays if t is op.result.type]
    most = SMALL if op.name in MOVES else 0
    return all(t.is_static and prod(t.static_shape) <= most for t in arrays)


def vectorizes(f: Function, module: ir.Module) -> bool:
    """Whether LLVM shall look for neighbouring numbers in ``module``, made from ``f``: where there can be any, and
    where it does not take too long, as its search grows with the square of a block. For loops that is worth it, unless
    they are the smaller part of the program."""
    if is_straight(f):
        return False
    long = sum(len(b.instructions) for b in _long_blocks(module))
    if not any(op.name in ("for", "while") for op in walk(f.body)):
        return not long
    return 2 * long <= sum(len(b.instructions) for g in module.functions for b in g.blocks)


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
