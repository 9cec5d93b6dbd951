"""One element of a tensor, as scalar code: how fused operations are computed inside kernels."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from dflow.backends.lowering.demand import Demand, splat
from dflow.backends.lowering.joined import Joined
from dflow.ir.builder import Builder
from dflow.ir.core import Op, Value, substitute
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.registry import definition
from dflow.ir.types import BOOL, I64, Dim, DType, Size

Index = tuple[Value, ...]


class Elements:
    """Writes the code for elements into ``b``; equal subexpressions are written once.

    Tensors are named by their values in the function before fusion; ``env`` maps what exists to its new value.
    ``sizes`` says below what the arguments of a kernel stay.
    """

    def __init__(self, b: Builder, env: Mapping[Value, Value], demand: Demand, sizes: Sequence[Dim] = ()):
        self.b = b
        self.env = env
        self.demand = demand
        self.sizes = dict(zip(b.args, sizes))
        self._known: dict[tuple[Value, Index], Value] = {}
        self._emitted: dict[Hashable, Value] = {}

    def of(self, v: Value, index: Index) -> Value:
        """The element of ``v`` at ``index``; of a scalar, ``()``, itself."""
        key = (v, index)
        if key not in self._known:
            op = v.op
            if op is not None and self.demand.is_inlined(v):
                self._known[key] = self.of_result(op, index)
            else:
                x = self.env.get(v, v)
                self._known[key] = self.emit("extract", x, *index, index=("at",) * v.type.rank) if index else x
        return self._known[key]

    def of_result(self, op: Op, index: Index) -> Value:
        """The element of the result of ``op`` at ``index``, computed from elements of its operands."""
        if definition(op).elementwise:
            return self.emit(op.name, *(self.of(v, index) for v in op.operands), **op.attrs)
        return getattr(self, f"_{op.name}")(op, index)

    # -- operations that move elements -------------------------------------------------------------------------------

    def _constant(self, op: Op, index: Index) -> Value:
        return self.constant(splat(op), op.result.type.dtype)

    def _iota(self, op: Op, index: Index) -> Value:
        return index[0]

    def _broadcast(self, op: Op, index: Index) -> Value:
        return self.of(op.operands[0], tuple(index[d] for d in op.attrs["dims"]))

    def _transpose(self, op: Op, index: Index) -> Value:
        perm = op.attrs["perm"]
        return self.of(op.operands[0], tuple(index[perm.index(axis)] for axis in range(len(perm))))

    def _extract(self, op: Op, index: Index) -> Value:
        return self.of(op.operands[0], self.place(op, index))

    def place(self, op: Op, index: Index) -> Index:
        """Where the element at ``index`` of a slice lies in the whole."""
        starts = op.operands[1:]
        out, rest, start = [], iter(index), iter(self.env.get(s, s) for s in starts)
        for entry in op.attrs["index"]:
            if entry == "all":
                out.append(next(rest))
            elif entry == "at":
                out.append(next(start))
            else:
                out.append(self.add(next(start), self.mul(next(rest), self.index(entry[2]))))
        return tuple(out)

    def _concatenate(self, op: Op, index: Index) -> Value:
        return Joined(self, op, index).element()

    def _update(self, op: Op, index: Index) -> Value:
        x, part, *_ = op.operands
        if op not in self.demand.windows:
            return self.of(part, index)  # an update of the whole
        inside, at = self.window(op, index)
        if inside is None:
            return self.of(part, at)
        return self.emit("select", inside, self.of(part, at), self.of(x, index))

    def _update_add(self, op: Op, index: Index) -> Value:
        x, part, *_ = op.operands
        inside, at = self.window(op, index)
        added = self.of(part, at)
        if inside is not None:
            added = self.emit("select", inside, added, self.constant(nothing(part.type.dtype), part.type.dtype))
        return self.emit("add", self.of(x, index), added)

    def window(self, op: Op, index: Index) -> tuple[Value | None, Index]:
        """Whether the element at ``index`` lies in a window (None: certainly), and where; at the first element of the
        part in those axes where it may lie outside."""
        starts = iter(op.operands[2:])
        every: list[Value] = []
        at = list(index)
        for axis, (i, entry) in enumerate(zip(index, op.attrs["index"])):
            if entry == "all":
                continue
            start, size = constant_of(next(starts)), entry[1]
            at[axis] = self.add(i, self.index(-start))
            asked = self.limits(i, start, start + size)
            if asked:
                at[axis] = self.emit("select", self.all(asked), at[axis], self.index(0))
            every += asked
        return (self.all(every) if every else None), tuple(at)

    def all(self, conditions: Sequence[Value]) -> Value:
        return functools.reduce(lambda p, q: self.emit("and", p, q), conditions)

    def limits(self, i: Value, start: int, stop: int) -> list[Value]:
        """What to ask of a position to know that it is at least ``start`` and below ``stop``."""
        asked = [self.question("ge", i, start), self.question("lt", i, stop)]
        return [a if isinstance(a, Value) else self.constant(a, BOOL) for a in asked if a is not True]

    def question(self, name: str, i: Value, bound: int) -> Value | bool:
        """Whether a position is at least ("ge") or below ("lt") ``bound``: as code, or the answer where it is known."""
        base, c = sum_of(i)
        if base is None:
            return c >= bound if name == "ge" else c < bound
        if base.op is not None and base.op.name == "select":
            chosen, *places = base.op.operands
            return self.either(chosen, *(self.question(name, place, bound - c) for place in places))
        size = self.sizes.get(base)
        if isinstance(size, int) and c >= bound:
            return name == "ge"
        if isinstance(size, int) and c + size <= bound:
            return name == "lt"
        return self.emit(name, base, self.index(bound - c))

    def either(self, chosen: Value, x: Value | bool, y: Value | bool) -> Value | bool:
        """``x`` where ``chosen``, else ``y``."""
        if isinstance(x, bool) and isinstance(y, bool):
            return x if x is y else chosen if x else self.emit("not", chosen)
        if y is False and isinstance(x, Value):
            return self.emit("and", chosen, x)
        p, q = (v if isinstance(v, Value) else self.constant(v, BOOL) for v in (x, y))
        return self.emit("select", chosen, p, q)

    def _gather(self, op: Op, index: Index) -> Value:
        x, *positions = op.operands
        rank = positions[0].type.rank
        found = [self.emit_convert(self.of(p, index[:rank])) for p in positions]
        return self.of(x, (*found, *index[rank:]))

    def _reshape(self, op: Op, index: Index) -> Value:
        x = op.operands[0]
        return self.of(x, self.reshaped(index, op.result.type.shape, x.type.shape))

    def reshaped(self, index: Index, shape: Sequence[Dim], wanted: Sequence[Dim]) -> Index:
        """The index in ``wanted`` of the element at ``index`` of ``shape``, by groups of axes of equal size."""
        out: list[Value] = []
        for given, target in axis_groups(shape, wanted):
            if len(given) == len(target) == 1:
                out.append(index[given[0]])
            else:
                flat = self.flat([index[k] for k in given], [shape[k] for k in given])
                out += self.split(flat, [wanted[k] for k in target])
        return tuple(out)

    def flat(self, index: Sequence[Value], shape: Sequence[Dim]) -> Value:
        """The row-major position of ``index``."""
        position = self.index(0)
        for i, size in zip(index, shape):
            if size != 1:
                position = self.add(self.mul(position, self.size(size)), i)
        return position

    def split(self, position: Value, shape: Sequence[Dim]) -> list[Value]:
        """The index of a row-major position."""
        out: list[Value] = []
        leading = next((k for k, size in enumerate(shape) if size != 1), 0)
        for k in reversed(range(len(shape))):
            if shape[k] == 1:
                out.append(self.index(0))
            elif k == leading:
                out.append(position)
            else:
                size = self.size(shape[k])
                out.append(self.emit("rem", position, size))
                position = self.emit("floordiv", position, size)
        return out[::-1]

    # -- scalar code -------------------------------------------------------------------------------------------------

    def emit(self, name: str, *operands: Value, **attrs: Any) -> Value:
        key = (name, operands, tuple(sorted(attrs.items())))
        if key not in self._emitted:
            self._emitted[key] = self.b.emit(name, *operands, **attrs)
        return self._emitted[key]

    def emit_convert(self, v: Value) -> Value:
        return v if v.type.dtype == I64 else self.emit("convert", v, dtype=I64)

    def constant(self, value: Any, dtype: Any) -> Value:
        key = ("constant", dtype, repr(value))
        if key not in self._emitted:
            self._emitted[key] = self.b.constant(value, dtype)
        return self._emitted[key]

    def index(self, value: int) -> Value:
        return self.constant(value, I64)

    def size(self, size: Dim) -> Value:
        return substitute(size, self.env).value if isinstance(size, Size) else self.index(size)  # type: ignore[arg-type]

    def add(self, x: Value, y: Value) -> Value:
        p, q = known(x), known(y)
        if p is not None and q is not None:
            return self.index(p + q)
        if p is None and q is not None:
            base, c = sum_of(x)
            if c and base is not None:
                return self.add(base, self.index(c + q))
        return y if p == 0 else x if q == 0 else self.emit("add", x, y)

    def mul(self, x: Value, y: Value) -> Value:
        p, q = known(x), known(y)
        if p is not None and q is not None:
            return self.index(p * q)
        return y if p == 1 else x if q == 1 else self.index(0) if 0 in (p, q) else self.emit("mul", x, y)


def known(v: Value) -> int | None:
    """The number that an index value is known to be."""
    return v.op.attrs["value"] if v.op is not None and v.op.name == "constant" else None


def sum_of(v: Value) -> tuple[Value | None, int]:
    """An index as a value plus a number."""
    if (c := known(v)) is not None:
        return None, c
    if v.op is not None and v.op.name == "add":
        for x, y in (v.op.operands, v.op.operands[::-1]):
            if (c := known(y)) is not None:
                return x, c
    return v, 0


def nothing(dtype: DType) -> complex | float | int:
    """What changes no number when it is added, not even -0.0."""
    return complex(-0.0, -0.0) if dtype.kind == "c" else -0.0 if dtype.is_float else 0


def axis_groups(shape: Sequence[Dim], wanted: Sequence[Dim]) -> list[tuple[list[int], list[int]]]:
    """Shortest runs of axes of the two shapes of a reshape that hold equally many elements."""
    groups = []
    left, right = 0, 0
    while left < len(shape) or right < len(wanted):
        given, target = _Run(shape, left), _Run(wanted, right)
        while given.empty or target.empty or given.extent != target.extent:
            if not given.extend() if given.extent <= target.extent else not target.extend():
                # Nothing but axes of size 1 is left on the other side (or there are no elements at all).
                given.take_all()
                target.take_all()
                break
        left, right = given.stop, target.stop
        groups.append((list(range(given.start, left)), list(range(target.start, right))))
    return groups


class _Run:
    """Axes ``start .. stop`` of a shape. ``extent``: how many sizes that vary, and the product of the others."""

    def __init__(self, shape: Sequence[Dim], start: int):
        self.shape, self.start, self.stop = shape, start, start
        self.extent = (0, 1)

    @property
    def empty(self) -> bool:
        return self.start == self.stop

    def extend(self) -> bool:
        """Takes one axis more, if there is one."""
        if self.stop == len(self.shape):
            return False
        size, (varying, product) = self.shape[self.stop], self.extent
        self.extent = (varying, product * size) if isinstance(size, int) else (varying + 1, product)
        self.stop += 1
        return True

    def take_all(self) -> None:
        while self.extend():
            pass
