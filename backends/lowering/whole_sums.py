"""Sums of parts: additions to parts of a tensor that are all of it, side by side, become one addition to the whole.

    %1 = update_add(%x, %a, 8)                    %1 = concatenate(%b, %a)
    %2 = update_add(%1, %b, 0)            ->      %2 = add(%x, %1)

The cotangent of a tensor whose slices were put together in another order is such a chain. Each element gets the same
one number as before. It is done where kernels read the concatenation without making it, see ``windows.py``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dflow.backends.lowering.windows import joins_well
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, walk
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, rebuild, rebuild_region, rename


@dataclass
class _Chain:
    """Parts added to ``base`` along an axis, by where they start."""

    base: Value
    axis: int
    parts: dict[int, Value] = field(default_factory=dict)
    links: list[Op] = field(default_factory=list)

    def is_whole(self) -> bool:
        """Whether each element of the base has got one number."""
        stop = 0
        for start, part in sorted(self.parts.items()):
            if start != stop:
                return False
            stop += part.type.static_shape[self.axis]
        return stop == self.base.type.static_shape[self.axis]

    def ordered(self) -> list[Value]:
        return [part for _, part in sorted(self.parts.items())]


def whole_sums(f: Function) -> Function:
    """``f`` with chains of ``update_add`` over all of a tensor made one ``add``."""
    uses = count_uses(f.body)
    if not any(_chains(block, uses) for block in _blocks(f.body)):
        return f

    def fill(b: Builder, block: Block, env: Env) -> None:
        chains = _chains(block, uses)
        dropped = {op for chain in chains.values() for op in chain.links}
        for op in block.ops:
            b.loc = op.loc
            if op in chains:
                base, *parts = rename([chains[op].base, *chains[op].ordered()], env)
                env[op.result] = b.add(base, b.concatenate(*parts, axis=chains[op].axis))
            elif op not in dropped:
                append_copy(b, op, env, [rebuild_region(r, env, fill) for r in op.regions])

    return rebuild(f, fill)


def _blocks(body: Block) -> list[Block]:
    return [body, *(r for op in walk(body) for r in op.regions)]


def _chains(block: Block, uses: Counter[Value]) -> dict[Op, _Chain]:
    """The chains of a block that are whole, by their last links."""
    open_: dict[Value, _Chain] = {}
    found: dict[Op, _Chain] = {}
    for op in block.ops:
        if (place := _place(op)) is None:
            continue
        axis, start = place
        base, part = op.operands[:2]
        chain = open_.pop(base, None)
        if chain is None or chain.axis != axis or start in chain.parts or uses[base] != 1:
            chain = _Chain(base, axis)
        chain.parts[start] = part
        chain.links.append(op)
        if not chain.is_whole():
            open_[op.result] = chain
        elif joins_well(chain.ordered(), axis):
            found[op] = chain
    return found


def _place(op: Op) -> tuple[int, int] | None:
    """The only axis along which less than all is added to, and from where on."""
    if op.name != "update_add" or not all(v.type.is_static for v in op.operands[:2]):
        return None
    index = op.attrs["index"]
    axes = [axis for axis, entry in enumerate(index) if entry != "all"]
    if len(axes) != 1 or index[axes[0]] == "at" or index[axes[0]][2] != 1:
        return None
    start = constant_of(op.operands[2])
    return None if start is None else (axes[0], start)
