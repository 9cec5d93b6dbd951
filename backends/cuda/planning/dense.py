"""Dense algebra by cuBLAS and cuSOLVER: the steps around their routines.

Both store columns where we store rows. A product (of matrices or of their transposes), a triangular system and
Cholesky's factors are asked for in their transposed form, in place; so are singular values of wide matrices. The others
get a transposed copy, in the scratch memory, and so do their results. Where a routine says that it has not found the
factors, they become NaN, as on the processor.

Small matrices are left to kernels, which need no library; so are stacks of so many that there is one for each thread.
Smaller stacks are one call of a routine for many, where there is one, else a call for each matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.folds import count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.plan import Dense, Pointer
from dflow.backends.cuda.planning.places import SCRATCH, aligned
from dflow.backends.emit.types import I1, I32, I64, ONE, ZERO, constant, index, storage_type
from dflow.ir.core import Block, Op, Value

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

At = Sequence[ir.Value]
SMALL = 32  # rows and columns up to which a factorization is a kernel's
LANES = 4096  # matrices from which a thread has one each, unless they are larger than LANE_SIZE
LANE_SIZE = 128
BATCHED_SIZE = 256  # rows up to which a stack is one call
PRODUCT = 1 << 20  # multiplications from which a product is the library's
LARGEST = 1 << 31  # the libraries count in 32 bits
THIN = 8  # rows or columns below which a product is bound by memory
BLOCK, MOST_BLOCKS = 256, 1 << 16
FLOATS = frozenset({"f32", "f64", "c64", "c128"})


def is_dense(op: Op) -> bool:
    """Whether an operation is worth a call of a library."""
    x = op.operands[0].type if op.operands else None
    if x is None or x.rank < 2 or not all(v.type.is_static for v in (*op.operands, *op.results)):
        return False
    *batch, m, n = x.static_shape
    if max(math.prod(batch), *(d for v in (*op.operands, *op.results) for d in v.type.static_shape)) >= LARGEST:
        return False
    if op.name == "matmul":
        sizes = (m, n, op.result.type.static_shape[-1])
        return (
            x.dtype.name in {"f16", "bf16", *FLOATS}
            and min(sizes) >= THIN
            and math.prod(batch) * math.prod(sizes) >= PRODUCT
        )
    if op.name not in _ROUTINES or min(m, n) <= SMALL or x.dtype.name not in FLOATS or 0 in batch:
        return False
    if op.name == "triangular_solve" and op.result.type.static_shape[-1] == 0:
        return False
    return math.prod(batch) < LANES or max(m, n) > LANE_SIZE


def emit_dense(s: Scheduler, op: Op) -> None:
    """Adds the steps of an operation to those of the scheduler."""
    _ROUTINES[op.name](_Steps(s, op))


class _Steps:
    """The steps of one operation on a stack of matrices."""

    def __init__(self, s: Scheduler, op: Op):
        self.s, self.op = s, op
        self.x = op.operands[0]
        *self.batch, self.m, self.n = self.x.type.static_shape
        self.count = math.prod(self.batch)
        self.dtype = self.x.type.dtype
        self.used = 0

    # --- memory

    def room(self, count: int, size: int | None = None) -> Pointer:
        """Scratch memory for so many elements for each matrix."""
        start = self.used
        self.used += aligned(max(1, self.count * count) * (size or self.dtype.itemsize))
        self.s.places.scratch(self.used)
        return Pointer(SCRATCH, start)

    def place(self, v: Value) -> Pointer:
        found = self.s.tensor_place(v)
        return Pointer(found.buffer, found.offset)

    def call(self, routine: str, sizes: Sequence[int], memory: Sequence[Pointer]) -> None:
        self.s.steps.append(Dense(routine, self.dtype, (self.count, *sizes), tuple(memory), self.op.loc))

    # --- kernels

    def kernel(self, shape: Sequence[int], body: Callable[[KernelEmitter, At, ir.Value, At], None]) -> None:
        """``body(e, batch, k, rest)`` for every element of ``(*batch, *shape)``; k is the number of the matrix."""
        s, whole = self.s, (*self.batch, *shape)
        blocks = min(MOST_BLOCKS, max(1, -(-count(whole) // BLOCK)))
        e = KernelEmitter(s.context, self.op.name, "grid", Needs(s.context, [self.op]), blocks, BLOCK)
        e.loc = self.op.loc

        def element(at: list[ir.Value]) -> None:
            cut, k = len(self.batch), ZERO
            for i, d in zip(at, self.batch):
                k = e.add(e.mul(k, index(d)), i)
            body(e, at[:cut], k, at[cut:])

        e.nest(whole, element)
        s.steps.append(e.finish())

    def address(self, e: KernelEmitter, p: Pointer, k: ir.Value, t: ir.Type, size: int, at: ir.Value) -> ir.Value:
        """Element ``at`` of those of matrix ``k``, each with ``size`` elements, in the scratch memory."""
        base = e.memory.at(e.parameters[Pointer(SCRATCH)], p.offset)
        return e.builder.gep(base, [e.add(e.mul(k, index(size)), at)], source_etype=t)

    @property
    def is_batched(self) -> bool:
        """Whether there is one call for all matrices."""
        return self.count > 1 and self.m == self.n <= BATCHED_SIZE

    def pointers(self, address: Callable[[KernelEmitter, At, ir.Value], ir.Value]) -> Pointer:
        """An array with the address of each matrix; ``address(e, batch, k)`` gives it."""
        room = self.room(1, 8)

        def store(e: KernelEmitter, batch: At, k: ir.Value, at: At) -> None:
            value = e.builder.ptrtoint(address(e, batch, k), I64)
            e.builder.store(value, self.address(e, room, k, I64, 1, ZERO))

        self.kernel((), store)
        return room

    def pointers_to(self, v: Value) -> Pointer:
        """An array with the address of each matrix of a stack."""
        return self.pointers(lambda e, batch, k: e.address(v, [*batch, ZERO, ZERO], write=True))

    def turned_in(self, columns: Pointer, size: int) -> None:
        """Stores the matrices by columns, with room for ``size`` elements each."""
        t = storage_type(self.dtype)

        def move(e: KernelEmitter, batch: At, k: ir.Value, at: At) -> None:
            i, j = at
            to = self.address(e, columns, k, t, size, e.add(e.mul(j, index(self.m)), i))
            e.builder.store(e.load(self.x, [*batch, i, j]), to)

        self.kernel((self.m, self.n), move)

    def turned_out(
        self, y: Value, columns: Pointer, rows: int, size: int, info: Pointer | None, keep: str = ""
    ) -> None:
        """Fills ``y`` from what is stored by columns; with ``keep`` only what is on the diagonal and above it; NaN
        where the routine has failed."""
        t, dtype = storage_type(y.type.dtype), y.type.dtype

        def move(e: KernelEmitter, batch: At, k: ir.Value, at: At) -> None:
            b, (i, j) = e.builder, at
            value = b.load(self.address(e, columns, k, t, size, e.add(e.mul(j, index(rows)), i)), typ=t)
            if keep:
                value = b.select(b.icmp_signed("<=", i, j), value, constant(dtype, 0))
            if info is not None:
                value = b.select(self.failed(e, info, k), constant(dtype, math.nan), value)
            e.store(y, [*batch, i, j], value)

        self.kernel(y.type.static_shape[-2:], move)

    def failed(self, e: KernelEmitter, info: Pointer, k: ir.Value) -> ir.Value:
        return e.builder.icmp_signed("!=", e.builder.load(self.address(e, info, k, I32, 1, ZERO), typ=I32), I32(0))

    def spoil(self, results: Sequence[Value], info: Pointer) -> None:
        """NaN where the routine has failed."""
        for y in results:

            def fill(e: KernelEmitter, batch: At, k: ir.Value, at: At, y: Value = y) -> None:
                with e.builder.if_then(self.failed(e, info, k), likely=False):
                    e.store(y, [*batch, *at], constant(y.type.dtype, math.nan))

            self.kernel(y.type.static_shape[len(self.batch) :], fill)


def _matmul(d: _Steps) -> None:
    x, y = d.op.operands
    sources = [turned(v, d.s.context) for v in (x, y)]
    found = [v if w is None else w for v, w in zip((x, y), sources)]
    flags = [int(w is not None) for w in sources]
    d.call("gemm", (d.m, y.type.static_shape[-1], d.n, *flags), [d.place(v) for v in (d.op.result, *found)])


def turned(v: Value, context: Context) -> Value | None:
    """The tensor that ``v`` is with its last two axes exchanged, where nothing writes its memory: a product takes that
    instead."""
    op, r = v.op, v.type.rank
    if op is None or op.name != "kernel" or len(op.results) != 1:
        return None
    (region,) = op.regions
    if len(region.ops) != 1 or region.ops[0].name != "extract" or region.results[0] is not region.ops[0].result:
        return None
    x, *at = region.ops[0].operands
    swapped = [*range(r - 2), r - 1, r - 2]
    if x.type.rank != r or at != [region.args[k] for k in swapped] or not context.is_read_only(x):
        return None
    return x if [x.type.shape[k] for k in swapped] == list(v.type.shape) else None


def spared(block: Block, context: Context) -> dict[Op, list[Op]]:
    """What only the products of a block need, and only where there is no library: transposed copies."""
    found: dict[Op, list[Op]] = {}
    for op in block.ops:
        if op.name == "matmul" and is_dense(op):
            makers = dict.fromkeys(v.op for v in op.operands if v.op is not None and turned(v, context) is not None)
            only = [m for m in makers if context.used_by(m.result) == {op} and m in block.ops]
            if only:
                found[op] = only
    return found


def _cholesky(d: _Steps) -> None:
    """By columns, the lower triangle is the upper one."""
    y, info = d.op.result, d.room(1, 4)

    def lower(e: KernelEmitter, batch: At, k: ir.Value, at: At) -> None:
        value = e.builder.select(e.builder.icmp_signed(">=", *at), e.load(d.x, [*batch, *at]), constant(d.dtype, 0))
        e.store(y, [*batch, *at], value)

    d.kernel((d.n, d.n), lower)
    if d.is_batched:
        d.call("potrf_batched", (d.n,), [d.pointers_to(y), info])
    else:
        d.call("potrf", (d.n,), [d.place(y), info])
    d.spoil([y], info)


def _lu(d: _Steps) -> None:
    y, pivots, permutation = d.op.results
    least = min(d.m, d.n)
    columns, rows, info = d.room(d.m * d.n), d.room(least, 4), d.room(1, 4)
    d.turned_in(columns, d.m * d.n)
    if d.is_batched:
        t, size = storage_type(d.dtype), d.m * d.n
        addresses = d.pointers(lambda e, batch, k: d.address(e, columns, k, t, size, ZERO))
        d.call("getrf_batched", (d.n,), [addresses, rows, info])
    else:
        d.call("getrf", (d.m, d.n), [columns, rows, info])
    d.turned_out(y, columns, d.m, d.m * d.n, None)

    def order(e: KernelEmitter, batch: At, k: ir.Value, at: At) -> None:
        """Where the row at ``i`` has come from: back through the exchanges."""
        b, (i,), last = e.builder, at, index(least - 1)

        def pivot(step: ir.Value) -> ir.Value:
            return b.sub(b.sext(b.load(d.address(e, rows, k, I32, least, step), typ=I32), I64), ONE)

        def back(step: ir.Value, place: ir.Value) -> list[ir.Value]:
            step = b.sub(last, step)
            other = pivot(step)
            at_step, at_other = (b.icmp_signed("==", place, p) for p in (step, other))
            return [b.select(at_step, other, b.select(at_other, step, place))]

        (found,) = e.loop(index(least), [i], back)
        e.store(permutation, [*batch, i], found)
        with b.if_then(b.icmp_signed("<", i, index(least)) if d.m > least else I1(1)):
            e.store(pivots, [*batch, i], pivot(i))

    d.kernel((d.m,), order)


def _triangular_solve(d: _Steps) -> None:
    """By columns, all matrices are their transposes: x' op(a)' = y'."""
    (a, y), x = d.op.operands, d.op.result
    if d.place(y) != d.place(x):
        d.kernel(x.type.static_shape[-2:], lambda e, batch, k, at: e.store(x, [*batch, *at], e.load(y, [*batch, *at])))
    flags = (int(d.op.attrs[name]) for name in ("lower", "transpose", "unit"))
    sizes = (d.n, x.type.static_shape[-1], *flags)
    if d.is_batched:
        d.call("trsm_batched", sizes, [d.pointers_to(a), d.pointers_to(x)])
    else:
        d.call("trsm", sizes, [d.place(a), d.place(x)])


def _qr(d: _Steps) -> None:
    q, r = d.op.results
    wide, least = q.type.static_shape[-1], min(d.m, d.n)
    size = d.m * max(d.n, wide)
    columns, tau, info = d.room(size), d.room(least), d.room(1, 4)
    d.turned_in(columns, size)
    d.call("geqrf", (d.m, d.n, size), [columns, tau, info])
    d.turned_out(r, columns, d.m, size, None, keep="upper")
    d.call("orgqr", (d.m, wide, least, size), [columns, tau, info])
    d.turned_out(q, columns, d.m, size, None)


def _eigh(d: _Steps) -> None:
    w, v = d.op.results
    columns, info = d.room(d.n * d.n), d.room(1, 4)
    d.turned_in(columns, d.n * d.n)
    d.call("syevd", (d.n, int(d.op.attrs["lower"])), [columns, d.place(w), info])
    d.turned_out(v, columns, d.n, d.n * d.n, info)
    d.spoil([w], info)


def _svd(d: _Steps) -> None:
    """The routine takes no wide matrix; the transpose of one is what a matrix is by columns: x' = conj(V) s U'."""
    u, s, vh = d.op.results
    full, info, matrix = int(d.op.attrs["full"]), d.room(1, 4), d.room(d.m * d.n)
    if d.m <= d.n:
        t, width = storage_type(d.dtype), index(d.n)

        def copy(e: KernelEmitter, batch: At, k: ir.Value, at: At) -> None:
            to = d.address(e, matrix, k, t, d.m * d.n, e.add(e.mul(at[0], width), at[1]))
            e.builder.store(e.load(d.x, [*batch, *at]), to)

        d.kernel((d.m, d.n), copy)
        d.call("gesvd", (d.n, d.m, full), [matrix, d.place(s), d.place(vh), d.place(u), info])
        d.spoil([u, s, vh], info)
        return
    left, right = u.type.static_shape[-1], vh.type.static_shape[-2]
    by_columns = d.room(d.m * left), d.room(right * d.n)
    d.turned_in(matrix, d.m * d.n)
    d.call("gesvd", (d.m, d.n, full), [matrix, d.place(s), *by_columns, info])
    d.turned_out(u, by_columns[0], d.m, d.m * left, info)
    d.turned_out(vh, by_columns[1], right, right * d.n, info)
    d.spoil([s], info)


_ROUTINES: dict[str, Callable[[_Steps], None]] = {
    "matmul": _matmul,
    "cholesky": _cholesky,
    "lu": _lu,
    "triangular_solve": _triangular_solve,
    "qr": _qr,
    "eigh": _eigh,
    "svd": _svd,
}
