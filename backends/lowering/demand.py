"""Which tensors must exist in memory, and which are computed element by element inside the kernels that use them.

A tensor operation is *fusable* when an element of its result is a scalar expression in elements of its operands. Its
result is *stored* when

- something other than a fusable operation uses it (control flow, ``matmul``, an update, a result of the function);
- or it costs more to compute than to read, and would be computed more than once for each element: in several kernels,
  in a loop around the kernel, through a broadcast or a gather, or under several indices of one kernel (the slices of a
  stencil);
- or, where the kernel stands, a tensor that it reads has been updated. The update would have to copy.

*Views* (operations that only move elements, and constants) cost nothing: kernels compute them even if they are stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

import numpy as np

from dflow.backends.lowering.bufferize import same_layout
from dflow.backends.lowering.large_products import takes_turned
from dflow.backends.lowering.liveness import LOOPS, WRITES
from dflow.backends.lowering.windows import windows
from dflow.ir.core import Block, Function, Op, Value, free_values
from dflow.ir.passes.products import SMALL
from dflow.ir.registry import definition
from dflow.ir.types import HALVES

VIEWS = frozenset({"broadcast", "reshape", "transpose", "extract", "convert", "iota", "constant", "update"})
ARITHMETIC = frozenset({"add", "sub", "mul", "neg"})
SMALLER = frozenset({"broadcast", "constant", "iota"})  # what has no elements of its own
STENCIL = 8  # slices that may each compute the same anew, where that is cheap:
CHEAP = 2  # operations
SHARED = 4  # kernels that may compute the same anew, where that is cheap
LARGE = 1 << 18  # elements of a tensor that a GPU would rather not write and read again
DEEPEST = 48  # operations on one path inside a kernel; more only lengthens live ranges (and Python's stack)


def splat(op: Op) -> Any:
    """The number that all elements of a constant tensor are; None when they differ."""
    a = np.asarray(op.attrs["value"], op.result.type.dtype.numpy).reshape(-1)
    return a[0].item() if len(a) and (a.view(np.uint8).reshape(len(a), -1) == a[:1].view(np.uint8)).all() else None


def is_whole(op: Op) -> bool:
    """Whether an update leaves nothing of the old tensor."""
    starts = iter(op.operands[2:])
    for size, entry in zip(op.result.type.shape, op.attrs["index"]):
        if entry == "all":
            continue
        start = next(starts)
        first = start.op is not None and start.op.name == "constant" and start.op.attrs["value"] == 0
        if not first or entry != ("slice", size, 1):
            return False
    return True


def same_memory(op: Op) -> Value | None:
    """The operand of a fusable operation that the result equals byte by byte."""
    if op.name == "reshape" and op.operands[0].type.rank:
        return op.operands[0] if same_layout(op.operands[0].type, op.result.type) else None
    return op.operands[1] if op.name == "update" and is_whole(op) else None


def _makes_elements(op: Op) -> bool:
    """Whether ``op`` makes a tensor whose elements kernels can compute."""
    if len(op.results) != 1 or not op.result.type.rank or op.result.type.grows:
        return False
    if op.name == "constant":
        return splat(op) is not None
    if op.name == "update":
        return is_whole(op)
    return op.name in VIEWS or op.name == "gather" or definition(op).elementwise


def _is_as_cheap_as_reading(op: Op) -> bool:
    """Whether an element costs no more than to read it: an operation of arithmetic, on at most one tensor of the size
    of the result."""
    large = {v for v in op.operands if v.op is None or v.op.name not in SMALLER}
    return op.name in ARITHMETIC and op.result.type.dtype.kind != "c" and len(large) <= 1


def _is_cheaper_on_a_device(op: Op) -> bool:
    """Whether a GPU has an element sooner computed anew than written and read: functions of narrow floats, on at most
    one tensor of the size of the result, where that is too large for the cache."""
    t = op.result.type
    large = {v for v in op.operands if v.op is None or v.op.name not in SMALLER}
    return t.dtype.is_float and t.dtype.itemsize <= 4 and len(large) <= 1 and prod(t.bound) >= LARGE


@dataclass
class _Use:
    """Where a tensor is wanted. ``op`` is None for a yield."""

    op: Op | None
    operand: int


@dataclass
class _Homes:
    """The kernels that compute a value, each at so many indices, which go by numbers (0: that of its result)."""

    kernels: dict[Op, set[int]] = field(default_factory=dict)
    again: bool = False  # elements are wanted more than once
    moved: int = 0  # in so many places that differ, as by the slices of a stencil
    cheap: int = 0  # operations that are computed anew in each of them

    def follow(self, user: _Homes) -> None:
        """Takes over what is known of a value that is computed from this one."""
        self.again |= user.again
        self.moved = max(self.moved, user.moved)
        self.cheap = max(self.cheap, user.cheap)


class Demand:
    """The decisions for one function: ``stored``, and ``is_inlined``."""

    def __init__(self, f: Function, blas: bool = False, for_device: bool = False):
        self.blas, self.for_device = blas, for_device
        self.stored: set[Value] = set()
        self._inlined: set[Value] = set()
        self._uses: dict[Value, list[_Use]] = {}
        self._position: dict[Op, int] = {}
        self._loop: dict[Op, Block | None] = {}
        self._overwritten: dict[Value, list[int]] = {}
        self._homes: dict[Value, _Homes] = {}
        self._indices: dict[Hashable, int] = {}
        self._arguments = set(f.args)
        self._fusable: set[Op] = set()
        self._clock = 0
        self.windows = windows(f, _makes_elements, turns=not for_device)
        self._visit(f.body, None)
        self._fresh = self._forward()
        for op in reversed(self._position):
            if self.is_fusable(op):
                self._decide(op)

    def is_fusable(self, op: Op) -> bool:
        """Whether the elements of the result of ``op`` can be computed by kernels."""
        return op in self._fusable

    def is_inlined(self, v: Value) -> bool:
        """Whether kernels compute ``v`` rather than read it."""
        return v in self._inlined

    def is_wanted_once(self, v: Value) -> bool:
        return len(self._uses.get(v, ())) == 1

    def is_folded(self, op: Op) -> bool:
        """Whether a product with a vector computes elements of an operand itself."""
        given = enumerate(op.operands)
        return any(v in self._inlined and v not in self.stored and self._takes_once(op, k) for k, v in given)

    def turns(self, op: Op) -> tuple[bool, ...]:
        """Which operands of a product it takes transposed, as they lie."""
        if not self.blas:
            return (False,) * len(op.operands)
        return tuple(takes_turned(op, k) and self.is_inlined(v) for k, v in enumerate(op.operands))

    def is_element(self, op: Op) -> bool:
        """Whether ``op`` reads one element, as a scalar, of a tensor that may be inlined."""
        return op.name in ("extract", "reshape") and not op.result.type.rank and bool(op.operands[0].type.rank)

    def _is_view(self, op: Op) -> bool:
        return op.name in VIEWS and op not in self.windows

    def _is_replaced(self, op: Op) -> bool:
        """Whether nothing of the first operand is left."""
        return op.name == "update" and op in self._fusable and op not in self.windows

    # -- gathering facts ---------------------------------------------------------------------------------------------

    def _visit(self, block: Block, loop: Block | None) -> None:
        for op in block.ops:
            self._clock += 1
            self._position[op] = self._clock
            self._loop[op] = loop
            if op in self.windows or _makes_elements(op):
                self._fusable.add(op)
            operands = free_values(*op.regions) if op.name == "kernel" else op.operands
            for k, v in enumerate(operands):
                if v.type.rank and not (k == 0 and self._is_replaced(op)):
                    self._uses.setdefault(v, []).append(_Use(op, k))
                    if op.name in LOOPS or (op.name in WRITES and k == 0 and op not in self._fusable):
                        self._overwrite(v)
            if op.name != "kernel":
                for r in op.regions:
                    self._visit(r, r if op.name in LOOPS else loop)
        self._clock += 1
        for v in block.results:
            if v.type.rank:
                self._uses.setdefault(v, []).append(_Use(None, 0))
                self._overwrite(v)

    def _overwrite(self, v: Value) -> None:
        """From here on the memory of ``v`` may hold another value."""
        self._overwritten.setdefault(v, []).append(self._clock)
        if v.op is not None and v.op in self._fusable and (source := same_memory(v.op)) is not None:
            self._overwrite(source)

    def _intact(self, v: Value, position: int) -> float:
        """Until where a tensor in memory is not overwritten after ``position``."""
        found = self._overwritten.get(v, [])
        k = bisect_right(found, position)
        return found[k] if k < len(found) and v not in self._arguments else inf

    def _forward(self) -> dict[Value, float]:
        """Until where each fusable value could be computed without reading overwritten memory.

        Where a chain would get too deep, or an operand must be stored for that reason, the operand is stored.
        """
        fresh: dict[Value, float] = {}
        depth: dict[Value, int] = {}
        for op, position in self._position.items():
            if op not in self._fusable:
                continue
            until, deep = inf, 0
            for v in op.operands:
                if not v.type.rank or (v is op.operands[0] and self._is_replaced(op)):
                    continue
                if v not in fresh or v in self.stored or fresh[v] < position or depth[v] >= DEEPEST:
                    if v in fresh:
                        self.stored.add(v)
                    until = min(until, self._intact(v, position))
                else:
                    until, deep = min(until, fresh[v]), max(deep, depth[v])
            fresh[op.result], depth[op.result] = until, deep + 1
        return fresh

    # -- deciding ----------------------------------------------------------------------------------------------------

    def _decide(self, op: Op) -> None:
        """Stored, inlined, or both? Everything that uses the result has been decided before."""
        v = op.result
        homes = self._homes[v] = _Homes()
        uses = self._uses.get(v, [])
        forced = v in self.stored or (op in self.windows and not all(map(self._asks_in_order, uses)))
        forced |= any(use.op is not None and use.op.name == "extract" for use in uses) and self._is_flat(op)
        places = 0
        for use in uses:
            if self._in_memory(use):
                self.stored.add(v)
                continue
            assert use.op is not None
            places += 1
            homes.again |= self._repeats(use.op, use.operand)
            for kernel, indices in self._kernels(use).items():
                homes.kernels.setdefault(kernel, set()).update(indices)
            if use.op in self._fusable and use.op.result in self._inlined:
                homes.follow(self._homes[use.op.result])
        if places > 1 and any(u.op is not None and self._moves(u.op) for u in uses):
            homes.moved = max(homes.moved, places)
        if not homes.kernels:
            return
        forced |= op in self.windows and any(k.name == "reduce" for k in homes.kernels)
        inline = not forced and all(self._position[k] <= self._fresh[v] for k in homes.kernels)
        if not self._is_view(op):
            times = len(homes.kernels) if homes.moved else sum(map(len, homes.kernels.values()))
            inline = inline and v not in self.stored and not homes.again and self._may_repeat(op, times)
            inline = inline and all(self._loop[k] is self._loop[op] for k in homes.kernels)
            if inline and homes.moved:
                homes.cheap += 1
                inline = self._may_move(op, homes)
        (self._inlined if inline else self.stored).add(v)

    def _is_flat(self, op: Op) -> bool:
        """Whether the result is the memory of an operand by fewer axes, which spares kernels the divisions."""
        source = same_memory(op) if op.name == "reshape" else None
        if source is None or (source.op is not None and source.op in self._fusable):
            return False
        axes, wanted = (sum(size != 1 for size in t.shape) for t in (op.result.type, source.type))
        return axes < wanted and self._intact(source, self._position[op]) == inf

    def _may_repeat(self, op: Op, times: int) -> bool:
        """Whether the elements may be computed so many times."""
        if times == 1 or (times <= SHARED and _is_as_cheap_as_reading(op)):
            return True
        return self.for_device and times == 2 and _is_cheaper_on_a_device(op)

    def _may_move(self, op: Op, homes: _Homes) -> bool:
        """Whether each slice of a stencil may compute the elements anew. What the stencil changes in place is read at
        its own index only, and so cannot be what they are computed from."""
        if self.for_device or homes.moved > STENCIL or homes.cheap > CHEAP or not _is_as_cheap_as_reading(op):
            return False
        return self._source(op.result) not in {self._changed(k) for k in homes.kernels}

    def _source(self, v: Value) -> Value:
        """What cheap operations and slices compute ``v`` from."""
        while v.op is not None and v.op in self._fusable and (v.op.name == "extract" or _is_as_cheap_as_reading(v.op)):
            whole = [x for x in v.op.operands if x.type.rank and (x.op is None or x.op.name not in SMALLER)]
            if not whole:
                break
            v = whole[0]
        return v

    def _changed(self, op: Op) -> Value | None:
        """The tensor that a chain of windows changes."""
        made: Op | None = op
        changed = None
        while made is not None and made in self.windows:
            changed = made.operands[0]
            made = changed.op
        return changed

    def _asks_in_order(self, use: _Use) -> bool:
        """Whether rows of a tensor are wanted as rows, so that what is asked of an element of a window is known for
        most of the row."""
        op = use.op
        return op is not None and (op.name == "extract" or op in self.windows or definition(op).elementwise)

    def _in_memory(self, use: _Use) -> bool:
        """Whether a use wants the tensor in memory, whoever computes it."""
        op = use.op
        if op is not None and op.name == "matmul":
            return not (self._takes_once(op, use.operand) or (self.blas and takes_turned(op, use.operand)))
        if op is None or not (op in self._fusable or self.is_element(op) or op.name in ("reduce", "concatenate")):
            return True
        if op.name == "transpose" and self._is_taken_turned(op.result):
            return True
        if op.name == "concatenate" and op not in self._fusable:
            part = op.operands[use.operand].type
            return part.shape != (1,)
        return op in self._fusable and op.result in self.stored and same_memory(op) is not None

    def _takes_once(self, op: Op, operand: int) -> bool:
        """Whether a product with a vector takes each element of an operand just once."""
        if op.name != "matmul" or op.result.type.dtype in HALVES:
            return False
        x, y = op.operands
        made = op.operands[operand].op
        if made is not None and made.name == "transpose" and prod(op.operands[operand].type.bound) <= SMALL:
            loop = self._loop[op]
            if loop is None or self._loop[made] is not loop:
                return False  # a copy, which has left the loops around, is read faster
        return (y.type.shape[-1] if operand == 0 else x.type.shape[-2]) == 1

    def _is_taken_turned(self, v: Value) -> bool:
        """Whether a product takes the tensor that ``v`` is transposed of."""
        return any(u.op is not None and any(self.turns(u.op)) for u in self._uses.get(v, ()))

    def _kernels(self, use: _Use) -> dict[Op, set[int]]:
        """Where the elements that are wanted are computed, and at which indices."""
        op = use.op
        assert op is not None
        if op not in self._fusable:
            return {op: {self._moved(use, 0)}}
        found = {op: {0}} if op.result in self.stored else {}
        if op.result in self._inlined:
            found = {**found, **self._homes[op.result].kernels}
        return {kernel: {self._moved(use, k) for k in indices} for kernel, indices in found.items()}

    def _moved(self, use: _Use, index: int) -> int:
        """The index at which an operation that is asked for the element at ``index`` wants one of an operand."""
        op = use.op
        assert op is not None
        if not self._moves(op) or (op in self.windows and op.name != "concatenate" and use.operand == 0):
            return index
        way: Hashable = (op, use.operand)
        if op.name == "extract":  # equal slices are one
            way = (op.attrs["index"], op.operands[1:])
        return self._indices.setdefault((way, index), len(self._indices) + 1)

    def _moves(self, op: Op) -> bool:
        """Whether ``op`` reads its operand at other indices than it is asked for."""
        return not (op.name in ("reduce", "matmul") or definition(op).elementwise)

    def _repeats(self, op: Op, operand: int) -> bool:
        """Whether ``op`` wants elements of an operand more than once."""
        if op.name == "gather":
            return operand == 0 or op.result.type.rank > op.operands[operand].type.rank
        if op.name != "broadcast":
            return False
        return any(d != 1 for k, d in enumerate(op.attrs["shape"]) if k not in op.attrs["dims"])
