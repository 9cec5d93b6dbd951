"""Where each tensor of a function is alive, exactly, as a few intervals of one numbering of the program.

Every operation has a ``start``, where it reads, and an ``end``, where its results come to be; a region has an
``entry``, where its arguments come to be, and an ``exit``, where it yields. The numbers increase in program order:

    start  [entry ... exit]  [entry ... exit]  end

A value is alive after position ``p`` when one of its intervals ``[a, b)`` holds ``p``. Control flow is structured, so
an interval list needs no fixed point: a value lives from its definition to the last operation of its own block that
uses it. When that is a loop with the use inside, it lives to the end of the loop, whose iterations all use it; when
that is an ``if``, it lives in each branch up to the last use there.

A read may be *early* or *late*. An early one is over before the operation writes any result (or each element is read
before just that element is written), so that a result may take the operand's place. After a late one the operand is
alive still.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from dflow.ir.core import Block, Function, Op, Value, free_values, walk
from dflow.ir.registry import definition

Interval = tuple[int, int]

WRITES = frozenset({"update", "update_add", "scatter", "scatter_add"})
LOOPS = frozenset({"for", "while"})


def identity_reads(op: Op) -> set[Value]:
    """The tensors that a kernel or elementwise operation reads at just the index it writes, all of them with the
    shape of the results."""
    if op.name != "kernel":
        return {v for v in op.operands if v.type.rank} if definition(op).elementwise else set()
    if op.attrs["reduced"] and any(kind and r.type.rank for r, kind in zip(op.results, op.attrs["combine"])):
        return set()  # results that are written before all is read
    return aligned_reads(op)


def aligned_reads(op: Op) -> set[Value]:
    """The tensors that a kernel reads at just the index of its domain, all of them with its shape."""
    (region,) = op.regions
    domain = tuple(op.attrs["domain"])
    aligned: dict[Value, bool] = {}
    for inner in walk(region):
        for k, v in enumerate(inner.operands):
            if v.type.rank:
                here = inner.name == "extract" and k == 0 and inner.operands[1:] == region.args
                aligned[v] = aligned.get(v, True) and here and v.type.shape == domain
    return {v for v, whole in aligned.items() if whole}


def tensor_reads(op: Op) -> Iterator[tuple[Value, bool]]:
    """The tensors that an operation itself reads (not inside its regions, but for kernels), and whether early."""
    if op.name == "kernel":
        early = identity_reads(op)
        for v in free_values(op.regions[0]):
            if v.type.rank:
                yield v, v in early
        return
    alike = op.name in LOOPS or op.name in ("copy", "reshape") or definition(op).elementwise
    for k, v in enumerate(op.operands):
        if v.type.rank:
            yield v, alike or (k == 0 and op.name in WRITES)


class Liveness:
    """The live intervals of every tensor: ``intervals[v]``, sorted and disjoint, never empty.

    ``depth[op]`` is the number of loops around an operation, ``span[op]`` its start and end.
    """

    def __init__(self, f: Function):
        self.intervals: dict[Value, list[Interval]] = {}
        self.depth: dict[Op, int] = {}
        self.span: dict[Op, Interval] = {}
        self._parent: dict[Block, tuple[Op, Block]] = {}
        self._entry: dict[Block, Interval] = {}  # entry and exit
        self._born: dict[Value, tuple[int, Block]] = {}
        self._uses: dict[Value, list[tuple[int, Block]]] = {}  # in program order
        self._clock = 0
        self._number_block(f.body, 0)
        for v, (born, block) in self._born.items():
            self.intervals[v] = list(self._alive(block, born, self._uses.get(v, [])))

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _define(self, values: tuple[Value, ...], position: int, block: Block) -> None:
        for v in values:
            if v.type.rank:
                self._born[v] = (position, block)

    def _use(self, v: Value, until: int, block: Block) -> None:
        uses = self._uses.setdefault(v, [])
        if uses:
            until = max(until, uses[-1][0])  # one operation may read it early and late
        uses.append((until, block))

    def _number_block(self, block: Block, depth: int) -> None:
        entry = self._tick()
        self._define(block.args, entry, block)
        for op in block.ops:
            self._number_op(op, block, depth)
        leave = self._tick()
        self._entry[block] = (entry, leave)
        for v in block.results:
            if v.type.rank:
                self._use(v, leave, block)

    def _number_op(self, op: Op, block: Block, depth: int) -> None:
        start = self._tick()
        self.depth[op] = depth
        for v, early in tensor_reads(op):
            self._use(v, start + 1 if early else start + 2, block)
        if op.name != "kernel":
            for r in op.regions:
                self._parent[r] = (op, block)
                self._number_block(r, depth + (op.name in LOOPS))
        if op.name == "while":
            # What the condition sees goes on to the body or to the results: it is used once the condition is known.
            condition = op.regions[0]
            for v in condition.args:
                if v.type.rank:
                    self._use(v, self._entry[condition][1], condition)
        end = self._tick()
        self.span[op] = (start, end)
        self._define(op.results, end, block)

    def _alive(self, block: Block, born: int, uses: list[tuple[int, Block]]) -> Iterator[Interval]:
        """The intervals of a value that is alive from position ``born`` of ``block`` and used there or further in."""
        if not uses:
            yield (born, born + 1)
            return
        until, where = uses[-1]
        last = self._holder(block, where)
        if last is None:
            yield (born, max(born + 1, until))
            return
        start, end = self.span[last]
        if last.name in LOOPS:
            yield (born, end)
            return
        yield (born, max(born + 1, start))
        for region in last.regions:
            entry, leave = self._entry[region]
            # `until` of a use inside lies above the entry, and a late use may reach the exit, not beyond.
            inside = uses[bisect_left(uses, entry, key=_until) : bisect_left(uses, leave + 1, key=_until)]
            if inside:
                yield from self._alive(region, entry, inside)

    def _holder(self, block: Block, inner: Block) -> Op | None:
        """The operation of ``block`` that holds ``inner``, however deep; None when they are the same."""
        holder = None
        while inner is not block:
            holder, inner = self._parent[inner]
        return holder


def _until(use: tuple[int, Block]) -> int:
    return use[0]
