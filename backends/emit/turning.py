"""Loops whose buffers change places (`turning.py`): their addresses go round as scalars do.

LLVM may not be told that what is one buffer in this round is apart from what is the other in the next, so accesses to
all of them have one scope. Kernels that touch several are functions of their own, whose parameters are apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from dflow.backends.emit.core import Emitter
from dflow.backends.emit.once import bring_back, copy_bytes
from dflow.backends.emit.types import I1, PTR, index
from dflow.backends.lowering.plan import Buffer
from dflow.ir.core import Op


@contextmanager
def places(e: Emitter, loop: Op, copies: Sequence[Op]) -> Iterator[Places]:
    """While ``loop`` is written one round after the other, with buffers that change places at ``copies``."""
    found = Places(e, loop, copies if e.vectorizes else ())
    if not found.groups:
        yield found
        return
    before = e.turning
    e.turning = before.union(copies)
    with e.memory.together(found.groups):
        yield found
    e.turning = before


def exchange(e: Emitter, copy: Op) -> bool:
    """Writes a copy as an exchange of two addresses, if its loop goes round with them."""
    if copy not in e.turning:
        return False
    bases = e.memory.bases
    x, y = (e.memory.buffers[v] for v in (*copy.operands, copy.result))
    bases[x], bases[y] = bases[y], bases[x]
    return True


class Places:
    """The addresses of buffers that change places in the rounds of a loop."""

    def __init__(self, e: Emitter, loop: Op, copies: Sequence[Op]):
        self.e, self.loop = e, loop
        self.groups = _groups([[e.plan.buffers[v] for v in (*op.operands, op.result)] for op in copies])
        self.buffers = [b for group in self.groups for b in group]
        self.homes = [e.memory.bases[b] for b in self.buffers]

    def begin(self, values: Sequence[ir.Value]) -> list[ir.Value]:
        """What goes round, at first."""
        return [*values, *self.homes]

    def enter(self, values: Sequence[ir.Value]) -> Sequence[ir.Value]:
        """Begins a round; what goes round but for the addresses."""
        scalars = len(values) - len(self.buffers)
        self.e.memory.bases.update(zip(self.buffers, values[scalars:]))
        return values[:scalars]

    def leave(self, values: Sequence[ir.Value]) -> list[ir.Value]:
        """What goes round, at the end of a round."""
        return [*values, *(self.e.memory.bases[b] for b in self.buffers)]

    def end(self, values: Sequence[ir.Value]) -> list[ir.Value]:
        """Brings what the loop has carried back to where it belongs; what went round but for the addresses."""
        scalars = len(values) - len(self.buffers)
        self.e.memory.bases.update(zip(self.buffers, self.homes))
        carried = {self.e.memory.buffers[r] for r in self.loop.results if r.type.rank}
        pairs = dict(zip(self.buffers, zip(self.homes, values[scalars:])))
        for group in self.groups:
            wanted = [b for b in group if b in carried]
            size, last = index(group[0].bytes), [b for b in group if b not in carried]
            if len(wanted) == 1:
                self._copy(*pairs[wanted[0]], size)
            elif wanted:
                self._sort([pairs[b] for b in (*wanted, *last)], len(wanted), size)
        return list(values[:scalars])

    def _copy(self, home: ir.Value, place: ir.Value, size: ir.Value) -> None:
        b = self.e.builder
        with b.if_then(b.icmp_unsigned("!=", home, place)):
            b.call(copy_bytes(self.e.module), [home, place, size, I1(0)])

    def _sort(self, pairs: Sequence[tuple[ir.Value, ir.Value]], wanted: int, size: ir.Value) -> None:
        e = self.e
        homes, found = (e.slot(ir.ArrayType(PTR, len(pairs))) for _ in range(2))
        for k, addresses in enumerate(pairs):
            for array, address in zip((homes, found), addresses):
                e.builder.store(address, e.builder.gep(array, [index(k)], source_etype=PTR))
        e.builder.call(bring_back(e.module), [homes, found, index(wanted), size])


def _groups(pairs: Sequence[list[Buffer]]) -> list[list[Buffer]]:
    """The buffers of which any may come to be in the place of any other."""
    groups: list[list[Buffer]] = []
    for pair in pairs:
        met = [g for g in groups if any(b in g for b in pair)]
        joined = list(dict.fromkeys([b for g in (*met, pair) for b in g]))
        groups = [*(g for g in groups if g not in met), joined]
    return groups
