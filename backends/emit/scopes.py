"""What LLVM is told about which accesses to memory cannot meet: each names its own buffer, and those elsewhere.

LLVM goes through these lists for each pair of accesses that it compares. So an access names only the buffers that its
neighbours use: those of the largest operation around it that uses not too many. A small program is one neighbourhood.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from llvmlite import ir

from dflow.backends.lowering.plan import Buffer, Plan
from dflow.ir.core import Block, Op

_SAME = nullcontext()
MOST = 32  # buffers of a neighbourhood
Neighbours = frozenset[Buffer]


class Scopes:
    """The metadata of accesses. ``near`` is the neighbourhood of what is being written; None: nothing is known."""

    def __init__(self, plan: Plan, module: ir.Module, name: str, buffers: Iterable[Buffer]):
        self.module = module
        self.of = {b: k for k, b in enumerate(dict.fromkeys(buffers))}
        domain = module.add_metadata([f"{name} memory"])
        self.names = [module.add_metadata([f"{name} {k}", domain]) for k in self.of.values()]
        self.made: dict[tuple[Neighbours, frozenset[Buffer]], tuple[Any, ...]] = {}
        self.made_of_both: dict[tuple[Neighbours, frozenset[Buffer]], Any] = {}
        self.beside_stack: dict[Neighbours, Any] = {}
        self.neighbourhoods: dict[Op, Neighbours] = {}
        self.groups: dict[Buffer, frozenset[Buffer]] = {}  # of those that change places
        self.near: Neighbours | None = frozenset(self.of)
        if len(self.of) > MOST:
            self.near = None
            self._divide(plan, plan.function.body, _uses(plan, plan.function.body, {}))

    def _divide(self, plan: Plan, block: Block, uses: dict[Op, set[Buffer]]) -> None:
        for op in block.ops:
            if len(uses[op]) <= MOST or op.name == "kernel" or not op.regions:
                self.neighbourhoods[op] = frozenset(uses[op] & self.of.keys())
            else:
                for r in op.regions:
                    self._divide(plan, r, uses)

    def join(self, op: Op, first: Op, second: Op) -> None:
        """``op`` has the neighbours of two others."""
        if first in self.neighbourhoods and second in self.neighbourhoods:
            self.neighbourhoods[op] = self.neighbourhoods[first] | self.neighbourhoods[second]

    @contextmanager
    def _around(self, op: Op) -> Iterator[None]:
        before, self.near = self.near, self.neighbourhoods[op]
        yield
        self.near = before

    @contextmanager
    def together(self, groups: Iterable[Sequence[Buffer]]) -> Iterator[None]:
        """While a loop is written in which the buffers of each group change places: they are one."""
        before = self.groups
        self.groups = dict(before)
        for group in groups:
            joined = frozenset(group).union(*(before.get(b, ()) for b in group))
            self.groups.update(dict.fromkeys(joined, joined))
        yield
        self.groups = before

    def around(self, op: Op) -> AbstractContextManager[None]:
        """While ``op`` is written: its neighbourhood, where that is not the one around."""
        return self._around(op) if op in self.neighbourhoods else _SAME

    def mark(self, access: Any, buffer: Buffer | None) -> None:
        """Says of a load or store in ``buffer`` what it cannot touch."""
        if self.near is None or buffer is None:
            return
        if buffer not in self.of and buffer.space == "stack":
            return self._mark_on_stack(access, buffer)
        if buffer not in self.near or len(self.near) < 2:
            return
        group = self._group(buffer)
        key = (self.near, group)
        if key not in self.made:
            others = [k for b, k in self.of.items() if b in self.near and all(disjoint(b, own) for own in group)]
            own = [k for b, k in self.of.items() if b in group]
            self.made[key] = tuple(self.module.add_metadata([self.names[k] for k in ks]) for ks in (own, others))
        for kind, node in zip(("alias.scope", "noalias"), self.made[key]):
            access.set_metadata(kind, node)

    def mark_both(self, access: Any, a: Buffer | None, b: Buffer | None) -> None:
        """Says of an access to two buffers what it cannot touch."""
        if self.near is None or a is None or b is None:
            return
        both = self._group(a) | self._group(b)
        key = (self.near, both)
        if key not in self.made_of_both:
            others = [k for c, k in self.of.items() if c in self.near and all(_apart(own, c) for own in both)]
            names = [self.names[k] for k in others]
            self.made_of_both[key] = self.module.add_metadata(names) if names else None
        if (node := self.made_of_both[key]) is not None:
            access.set_metadata("noalias", node)

    def _group(self, buffer: Buffer) -> frozenset[Buffer]:
        return self.groups.get(buffer, frozenset([buffer]))

    def _mark_on_stack(self, access: Any, buffer: Buffer) -> None:
        """It touches none of the others. LLVM knows what is on the stack from each other itself."""
        assert self.near is not None
        if self.near and self.near not in self.beside_stack:
            names = [self.names[k] for b, k in self.of.items() if b in self.near]
            self.beside_stack[self.near] = self.module.add_metadata(names)
        if self.near:
            access.set_metadata("noalias", self.beside_stack[self.near])


def _uses(plan: Plan, block: Block, found: dict[Op, set[Buffer]]) -> dict[Op, set[Buffer]]:
    """The buffers that each operation uses, and all that it contains."""
    for op in block.ops:
        used = {plan.buffers[v] for v in (*op.operands, *op.results) if v in plan.buffers}
        for r in op.regions:
            _uses(plan, r, found)
            used.update(*(found[inner] for inner in r.ops))
        found[op] = used
    return found


def _apart(a: Buffer, b: Buffer) -> bool:
    """The same where ``a`` may be on the stack, and ``b`` is not."""
    return a.space == "stack" or disjoint(a, b)


def disjoint(a: Buffer, b: Buffer) -> bool:
    """Whether two buffers, other than on the stack, share no byte (or are only read)."""
    if a is b:
        return False
    if a.space != "arena" or b.space != "arena":
        return True
    return a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
