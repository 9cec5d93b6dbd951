"""Stacks of small matrices, eight at a time.

The elements (i, j) of eight matrices that lie one behind the other become one vector, and what is done with each
matrix is straight code for vectors. Where lanes choose different pivots, rows are exchanged by selections. The methods
are those of `emit_factor`, which does the matrices that are left over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from dflow.backends.emit.core import Emitter
from dflow.backends.emit.parts import in_parts
from dflow.backends.emit.tiles import transposed
from dflow.backends.emit.types import I32, I64, ZERO, declare, index, storage_type
from dflow.ir.core import Op, Value
from dflow.ir.types import Dim

LANES = 8
LEAST = 256  # matrices in a stack that are worth the code
LONGEST = 6  # rows or columns of a matrix that is worth writing out
DTYPES = ("f64", "f32", "i64")
FUSED = ("contract",)
At = list[ir.Value]
Matrix = list[list[ir.Value]]  # of vectors


def each_matrix(e: Emitter, op: Op, one: Callable[[At], None], ops: int = 1000) -> None:
    """``one(index)`` for every matrix of the stack, and ``ops`` operations for each; or eight together. Threads share
    them."""
    batch = op.operands[0].type.shape[:-2]
    groups = _groups(op, batch) if e.vectorizes else 0
    if not groups:
        _share(e, op, batch, one, ops)
        return

    def together(at: At) -> None:
        TOGETHER[op.name](_Stack(e, op, e.mul(at[0], index(LANES))))

    def rest(at: At) -> None:
        one([*(ZERO for _ in batch[1:]), e.add(at[0], index(groups * LANES))])

    _share(e, op, (groups,), together, LANES * ops)
    e.nest((math.prod(op.operands[0].type.static_shape[:-2]) % LANES,), rest, ops=1000)


def _share(e: Emitter, op: Op, batch: Sequence[Dim], one: Callable[[At], None], ops: int) -> None:
    in_parts(e, op, (*batch, 1), ops, lambda part: e.nest(part, lambda at: one(at[:-1]), ops=1000))


def _groups(op: Op, batch: Sequence[Dim]) -> int:
    """How many groups of matrices are done together."""
    values = [*op.operands, *op.results]
    if op.name not in TOGETHER or any(v.type.dtype.name not in DTYPES or not v.type.is_static for v in values):
        return 0
    fits = all(1 <= d <= LONGEST for v in values for d in v.type.static_shape[len(batch) :])
    count = math.prod(op.operands[0].type.static_shape[: len(batch)])
    return count // LANES if fits and count >= LEAST else 0


class _Stack:
    """Eight matrices of each operand and result of ``op``, of which ``first`` is the number of the first one."""

    def __init__(self, e: Emitter, op: Op, first: ir.Value):
        self.e, self.b, self.op, self.first = e, e.builder, op, first
        self.rank = op.operands[0].type.rank - 2
        self.dtype = op.operands[0].type.dtype

    def read(self, v: Value) -> Matrix:
        """The vectors of the elements of a matrix."""
        rows, columns = v.type.static_shape[self.rank :]
        size, vector = rows * columns, self.vector(v)
        found = dict[int, ir.Value]()
        if size < LANES:
            wide = [self.load(v, index(k * LANES), vector) for k in range(size)]
            found.update(enumerate(self.shuffled(wide, lambda k, lane: lane * size + k)))
        for start in self.starts(size):
            lines = [self.load(v, index(lane * size + start), vector) for lane in range(LANES)]
            found.update((start + k, column) for k, column in enumerate(transposed(self.b, lines)))
        return [[found[i * columns + j] for j in range(columns)] for i in range(rows)]

    def write(self, v: Value, elements: Sequence[ir.Value]) -> None:
        """The same the other way round, of all elements in a row."""
        size = len(elements)
        if size < LANES:
            lines = self.shuffled(
                elements, lambda k, lane: (k * LANES + lane) % size * LANES + (k * LANES + lane) // size
            )
            for k, line in enumerate(lines):
                self.store(v, index(k * LANES), line)
        for start in self.starts(size):
            for lane, line in enumerate(transposed(self.b, elements[start : start + LANES])):
                self.store(v, index(lane * size + start), line)

    def starts(self, size: int) -> list[int]:
        """Where groups of elements begin. The last one overlaps the one before it."""
        return sorted({min(k, size - LANES) for k in range(0, size, LANES)}) if size >= LANES else []

    def shuffled(self, vectors: Sequence[ir.Value], source: Callable[[int, int], int]) -> list[ir.Value]:
        """As many vectors, of which lane ``l`` of number ``k`` is element ``source(k, l)`` of those given."""
        joined, width = list(vectors), LANES
        while len(joined) > 1:
            joined += [joined[0].type(ir.Undefined)] * (len(joined) % 2)
            width *= 2
            both = _places(range(width))
            joined = [self.b.shuffle_vector(x, y, both) for x, y in zip(joined[::2], joined[1::2])]
        (wide,) = joined
        undefined = wide.type(ir.Undefined)
        return [
            self.b.shuffle_vector(wide, undefined, _places([source(k, lane) for lane in range(LANES)]))
            for k in range(len(vectors))
        ]

    def vector(self, v: Value) -> ir.VectorType:
        return ir.VectorType(storage_type(v.type.dtype), LANES)

    def address(self, v: Value, offset: ir.Value, write: bool) -> ir.Value:
        inner = [ZERO] * (v.type.rank - self.rank)
        start = self.e.address(v, [*[ZERO] * (self.rank - 1), self.first, *inner], write=write)
        return self.e.offset(start, v.type, offset)

    def load(self, v: Value, offset: ir.Value, t: ir.VectorType) -> ir.Value:
        loaded = self.b.load(self.address(v, offset, False), typ=t, align=v.type.dtype.itemsize)
        self.e.memory.mark(loaded, v)
        return loaded

    def store(self, v: Value, offset: ir.Value, value: ir.Value) -> None:
        stored = self.b.store(value, self.address(v, offset, True))
        stored.align = v.type.dtype.itemsize
        self.e.memory.mark(stored, v)

    # --- arithmetic

    def number(self, value: float) -> ir.Constant:
        t = self.vector(self.op.operands[0])
        return ir.Constant(t, [t.element(float(value))] * LANES)

    def function(self, name: str, x: ir.Value) -> ir.Value:
        full = f"{name}.v{LANES}{x.type.element.intrinsic_name}"
        return self.b.call(declare(self.e.module, full, ir.FunctionType(x.type, [x.type])), [x])

    def less_product(self, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.fsub(total, self.b.fmul(x, y, flags=FUSED), flags=FUSED)

    def exchange(self, where: ir.Value, x: list[ir.Value], y: list[ir.Value]) -> None:
        """Two rows change places in the lanes ``where``."""
        for k, (p, q) in enumerate(zip(x, y)):
            x[k], y[k] = self.b.select(where, q, p), self.b.select(where, p, q)


def _places(numbers: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, len(numbers)), [I32(n) for n in numbers])


def _whole(number: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(I64, LANES), [I64(number)] * LANES)


def _cholesky(s: _Stack) -> None:
    b, x, n = s.b, s.read(s.op.operands[0]), s.op.result.type.static_shape[-1]
    zero, fine = s.number(0.0), None
    y = [[zero] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = x[i][j]
            for p in range(j):
                rest = s.less_product(rest, y[i][p], y[j][p])
            y[i][j] = b.fdiv(rest, y[j][j]) if j < i else s.function("llvm.sqrt", rest)
        positive = b.fcmp_ordered(">", rest, zero)
        fine = positive if fine is None else b.and_(fine, positive)
    s.write(s.op.result, [b.select(fine, v, s.number(math.nan)) for row in y for v in row])


def _lu(s: _Stack) -> None:
    b, (y, pivots, permutation) = s.b, s.op.results
    a, zero, chosen = s.read(s.op.operands[0]), s.number(0.0), list[ir.Value]()
    order = [[_whole(i)] for i in range(len(a))]
    for k in range(min(len(a), len(a[0]))):
        most, at = s.number(-1.0), _whole(k)
        for i in range(k, len(a)):
            size = s.function("llvm.fabs", a[i][k])
            more = b.fcmp_ordered(">", size, most)
            most, at = b.select(more, size, most), b.select(more, _whole(i), at)
        chosen.append(at)
        for i in range(k + 1, len(a)):
            here = b.icmp_signed("==", at, _whole(i))
            s.exchange(here, a[k], a[i])
            s.exchange(here, order[k], order[i])
        nothing = b.fcmp_ordered("==", a[k][k], zero)
        for row in a[k + 1 :]:
            row[k] = b.select(nothing, zero, b.fdiv(row[k], a[k][k]))
            row[k + 1 :] = [s.less_product(v, row[k], u) for v, u in zip(row[k + 1 :], a[k][k + 1 :])]
    s.write(y, [v for row in a for v in row])
    s.write(pivots, chosen)
    s.write(permutation, [row for (row,) in order])


def _triangular_solve(s: _Stack) -> None:
    (of_a, right), attrs = s.op.operands, s.op.attrs
    a, x = s.read(of_a), s.read(right)
    if attrs["transpose"]:
        a = [list(column) for column in zip(*a)]
    done, order = list[int](), range(len(a))
    for i in order if attrs["lower"] != attrs["transpose"] else reversed(order):
        for j in done:
            x[i] = [s.less_product(v, a[i][j], u) for v, u in zip(x[i], x[j])]
        if not attrs["unit"]:
            x[i] = [s.b.fdiv(v, a[i][i]) for v in x[i]]
        done.append(i)
    s.write(s.op.result, [v for row in x for v in row])


TOGETHER: dict[str, Callable[[_Stack], Any]] = {"cholesky": _cholesky, "lu": _lu, "triangular_solve": _triangular_solve}
