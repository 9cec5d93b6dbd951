"""Kernels that read a tensor across: transposes, and what is computed of transposed tensors.

    for i in n: for j in m: y[i, j] = f(x[j, i])     ->     for tiles of n x m:  part = the tile of x, transposed
                                                                for i, j in the tile: y[i, j] = f(part[i, j])

Elements of x that lie side by side go into vectors, squares of which are transposed in registers. So each line of the
cache is read once, and the loop over j is one over vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, partial
from math import prod

from llvmlite import ir

from dflow.backends.emit.core import UNROLL_OPS, Domain, Emitter, Part, is_constant
from dflow.backends.emit.loop_hints import loop_id
from dflow.backends.emit.types import I32, ZERO, from_storage, index, storage_type
from dflow.ir.core import Block, Op, Value
from dflow.ir.passes.linear_forms import terms
from dflow.ir.types import HALVES, Dim, DType

At = list[ir.Value]
Put = Callable[[At, Mapping[Op, ir.Value]], None]
TILE = 32  # elements along both axes
SQUARE = 8  # that are transposed in registers
LEAST = 64 * 64  # elements of a kernel
MOST = 3  # parts, which should stay in the nearest cache


@dataclass(frozen=True)
class Across:
    """Tiles lie along ``axis`` and the last axis; ``reads`` are what is read across."""

    axis: int
    reads: tuple[Op, ...]


def reads_across(e: Emitter, op: Op, domain: Sequence[Dim]) -> Across | None:
    """What a kernel reads across, if it does."""
    (region,) = op.regions
    sizes = [d for d in domain if isinstance(d, int)]
    if not e.vectorizes or len(sizes) < max(2, len(domain)) or prod(sizes) < LEAST:
        return None
    written = [e.memory.buffers[r] for r in op.results]
    by_axis: dict[int, list[Op]] = {}
    needs = _needs(region)
    for o in region.ops:
        if o.regions:
            return None
        if o.name == "extract" and _is_plain(o.result.type.dtype) and e.memory.buffers[o.operands[0]] not in written:
            axis = _axis(region, o, needs)
            if axis is not None and min(sizes[axis], sizes[-1]) >= TILE:
                by_axis.setdefault(axis, []).append(o)
    if not by_axis:
        return None
    axis = max(by_axis, key=lambda k: len(by_axis[k]))
    return Across(axis, tuple(by_axis[axis][:MOST]))


def _is_plain(dtype: DType) -> bool:
    return dtype.kind != "c" and dtype not in HALVES


def _axis(region: Block, o: Op, needs: Mapping[Value, Set[Value]]) -> int | None:
    """The axis along which the elements that ``o`` reads lie side by side, where that is not the last."""
    x, *starts = o.operands
    if x.type.grows or not starts or any(entry != "at" for entry in o.attrs["index"]):
        return None
    *outer, inner = starts
    last, own = region.args[-1], needs.get(inner, set())
    others = set[Value]().union(*(needs.get(s, set()) for s in outer))
    along = [k for k, a in enumerate(region.args) if a in own]
    if len(along) != 1 or last in own or last not in others or region.args[along[0]] in others:
        return None
    found = terms(inner)
    other_terms = (v for v in found if v is not region.args[along[0]])
    linear = found.get(region.args[along[0]]) == 1 and not any(v is not None and needs.get(v) for v in other_terms)
    return along[0] if linear else None


def _needs(region: Block) -> dict[Value, Set[Value]]:
    """The indices that each value of a kernel depends on."""
    found: dict[Value, Set[Value]] = {a: {a} for a in region.args}
    for o in region.ops:
        every = set[Value]().union(*(found.get(v, set()) for v in o.operands))
        found.update((r, every) for r in o.results)
    return found


def tiled_nest(e: Emitter, across: Across, region: Block, domain: Domain, put: Put, ops: int) -> None:
    """``put(index, known elements)`` for every index of ``domain``."""
    _Tiles(e, across, region, domain, put).write(ops)


class _Tiles:
    def __init__(self, e: Emitter, across: Across, region: Block, domain: Domain, put: Put):
        self.e, self.region, self.domain, self.put = e, region, domain, put
        self.axis, self.reads = across.axis, across.reads
        part = lambda o: ir.ArrayType(ir.ArrayType(storage_type(o.result.type.dtype), TILE), TILE)  # noqa: E731
        self.parts = {o: e.slot(part(o)) for o in self.reads}
        for slot in self.parts.values():
            slot.align = 64
        self.positions = {o: _leading_to(region, o.operands[1:]) for o in self.reads}
        self.long = loop_id(e.module, ("llvm.loop.unroll.disable",))

    def write(self, ops: int) -> None:
        outer = [d for k, d in enumerate(self.domain) if k not in (self.axis, len(self.domain) - 1)]
        rows, columns = self.e.size(self.domain[self.axis]), self.e.size(self.domain[-1])
        m, n = _whole(self.e, rows), _whole(self.e, columns)

        def matrix(rest: At) -> None:
            self.e.steps(ZERO, m, TILE, lambda i: self.e.steps(ZERO, n, TILE, partial(tile, rest, i)))
            self.plain(rest, Part(m, self.e.sub(rows, m)), Part(ZERO, columns), ops)
            self.plain(rest, Part(ZERO, m), Part(n, self.e.sub(columns, n)), ops)

        def tile(rest: At, i: ir.Value, j: ir.Value) -> None:
            for o in self.reads:
                self.fill(o, rest, i, j)
            self.e.nest((TILE, TILE), lambda at: self.element(rest, i, j, *at), UNROLL_OPS + 1, self.long)

        self.e.nest(outer, matrix, UNROLL_OPS + 1)

    def at(self, rest: At, i: ir.Value, j: ir.Value) -> At:
        found = list(rest)
        found.insert(self.axis, self.e.position(self.domain[self.axis], i))
        return [*found, self.e.position(self.domain[-1], j)]

    def plain(self, rest: At, rows: Part, columns: Part, ops: int) -> None:
        """The elements outside of whole tiles."""
        if not is_constant(rows.count, 0) and not is_constant(columns.count, 0):
            self.e.nest((rows, columns), lambda at: self.put(self.at(rest, *at), {}), ops)

    def element(self, rest: At, i: ir.Value, j: ir.Value, p: ir.Value, q: ir.Value) -> None:
        e, known = self.e, dict[Op, ir.Value]()
        for o, part in self.parts.items():
            dtype = o.result.type.dtype
            place = e.builder.gep(
                part, [e.add(e.mul(p, index(TILE)), q)], inbounds=True, source_etype=storage_type(dtype)
            )
            known[o] = from_storage(e.builder, dtype, e.builder.load(place, typ=storage_type(dtype)))
        self.put(self.at(rest, e.add(i, p), e.add(j, q)), known)

    def fill(self, o: Op, rest: At, i: ir.Value, j: ir.Value) -> None:
        """``part[p, q]`` becomes what ``o`` reads at ``(i + p, j + q)``."""
        e, t = self.e, storage_type(o.result.type.dtype)
        vector = ir.VectorType(t, SQUARE)

        def square(q: ir.Value, p: ir.Value) -> None:
            found = [
                self.side_by_side(o, self.at(rest, e.add(i, p), e.add(j, e.add(q, index(k)))), vector)
                for k in range(SQUARE)
            ]
            for k, column in enumerate(transposed(e.builder, found)):
                position = e.add(e.mul(e.add(p, index(k)), index(TILE)), q)
                stored = e.builder.store(
                    column, e.builder.gep(self.parts[o], [position], inbounds=True, source_etype=t)
                )
                stored.align = SQUARE * o.result.type.dtype.itemsize

        e.steps(index(0), index(TILE), SQUARE, lambda q: e.steps(index(0), index(TILE), SQUARE, partial(square, q)))

    def side_by_side(self, o: Op, at: At, vector: ir.VectorType) -> ir.Value:
        """The elements that ``o`` reads at ``at`` and from there on along the axis."""
        e, (x, *starts) = self.e, o.operands
        e.env.update(zip(self.region.args, at))
        for inner in self.positions[o]:
            e.op(inner)
        loaded = e.builder.load(e.address(x, [e.env[s] for s in starts]), typ=vector, align=x.type.dtype.itemsize)
        e.memory.mark(loaded, x)
        return loaded


def _whole(e: Emitter, size: ir.Value) -> ir.Value:
    """So much of a size lies in whole tiles."""
    return index(size.constant & -TILE) if isinstance(size, ir.Constant) else e.builder.and_(size, index(-TILE))


def _leading_to(region: Block, values: Sequence[Value]) -> list[Op]:
    """The operations of a kernel that compute ``values``."""
    needed, found = set(values), list[Op]()
    for o in reversed(region.ops):
        if not needed.isdisjoint(o.results):
            needed.update(o.operands)
            found.append(o)
    return found[::-1]


def transposed(b: ir.IRBuilder, rows: Sequence[ir.Value]) -> Sequence[ir.Value]:
    """The columns of a square of vectors: rows that are half of the square apart are interleaved, again and again."""
    half = len(rows) // 2
    for _ in range(half.bit_length()):
        rows = [
            b.shuffle_vector(rows[k], rows[k + half], _interleaved(2 * half, side))
            for k in range(half)
            for side in (0, 1)
        ]
    return rows


@cache
def _interleaved(count: int, side: int) -> ir.Constant:
    first = side * count // 2
    places = [first + k // 2 + (k % 2) * count for k in range(count)]
    return ir.Constant(ir.VectorType(I32, count), [I32(p) for p in places])
