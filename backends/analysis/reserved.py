"""Accesses to sequences that need no test, because room was made for them when the sequence was.

    %s = sequence %n                            room for n rows
    ... = for %n, ..., %s { (%k, ..., %t)       %t is %s, and k < n
      %u = update %t, %v, %k                    needs no test
    ...
      extract %u, n - 1 - k                     neither does this, in another loop of n rounds

So it is with most tapes of derivatives. A test costs little time, but every one is a branch in the middle of a loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from dflow.ir.core import Block, Function, Op, Value, walk
from dflow.ir.passes.rewrite import SEQUENCES

ACCESSES = {"extract": 1, "update": 2, "update_add": 2}  # which operand is the first index


def certain(f: Function) -> dict[Value, set[Value]]:
    """Which positions certainly exist in which sequences."""
    found: defaultdict[Value, set[Value]] = defaultdict(set)
    loops = {block: op for op in walk(f.body) if op.name == "for" for block in op.regions}
    for x, position in _accesses(f):
        made = _made(x, loops)
        counts = made.op.operands if made.op is not None and made.op.name in SEQUENCES else ()
        if any(is_below(position, count, loops) for count in counts):
            found[x].add(position)
    return dict(found)


def _accesses(f: Function) -> Iterator[tuple[Value, Value]]:
    """Sequences and the positions of rows that are read or written in them."""
    for op in walk(f.body):
        if op.name in ACCESSES and op.operands[0].type.grows and op.attrs["index"][0] == "at":
            yield op.operands[0], op.operands[ACCESSES[op.name]]


def _made(x: Value, loops: dict[Block, Op]) -> Value:
    """What ``x`` was before it was updated, in loops and out of them."""
    while True:
        if isinstance(x.owner, Block):
            loop, position = loops.get(x.owner), x.owner.args.index(x)
        elif x.op is not None and x.op.name in ("update", "update_add"):
            x = x.op.operands[0]
            continue
        else:
            loop, position = x.op, 1 + x.op.results.index(x) if x.op is not None and x.op.name == "for" else 0
        if loop is None or loop.name != "for" or not _carries(loop, position):
            return x
        x = loop.operands[position]


def _carries(loop: Op, position: int) -> bool:
    """Whether a loop hands on what it carries there, updated or not."""
    (body,) = loop.regions
    x = body.results[position - 1]
    while (op := x.op) is not None:
        if op.name == "for" and _carries(op, at := 1 + op.results.index(x)):
            x = op.operands[at]
        elif op.name in ("update", "update_add"):
            x = op.operands[0]
        else:
            return False
    return x is body.args[position]


def is_below(position: Value, count: Value, loops: dict[Block, Op]) -> bool:
    """Whether ``position`` counts the rounds of a loop of ``count`` rounds, up or down."""
    op = position.op
    if op is not None and op.name == "sub" and op.operands[0].op is not None:
        last = op.operands[0].op
        if last.name == "add" and last.operands[0] is count and _is_minus_one(last.operands[1]):
            position = op.operands[1]
    loop = loops.get(position.owner) if isinstance(position.owner, Block) else None
    return loop is not None and position is loop.regions[0].args[0] and loop.operands[0] is count


def _is_minus_one(x: Value) -> bool:
    return x.op is not None and x.op.name == "constant" and x.type.is_scalar and x.op.attrs["value"] == -1
