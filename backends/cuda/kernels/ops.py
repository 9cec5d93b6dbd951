"""Operations that are written for a GPU in another way than for a processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from dflow.backends.cuda.context import Context
from dflow.backends.cuda.kernels.folds import as_fold
from dflow.backends.cuda.kernels.kernel import KernelEmitter, on_device
from dflow.backends.cuda.kernels.memory import RELAXED
from dflow.backends.cuda.kernels.merge_sort import MERGE_COST, sorter
from dflow.backends.emit.core import cost, untyped
from dflow.backends.emit.indexing import gathered_index, whole_index
from dflow.backends.emit.kernel import fold, write
from dflow.backends.emit.once import data
from dflow.backends.emit.pointwise import _reshaped
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import I64, PTR, ZERO, constant, from_storage, index, storage_type, to_storage
from dflow.ir.core import Op, Value, walk
from dflow.ir.types import DType

At = list[ir.Value]
EXCHANGE = "atom.relaxed.gpu.cas.b16 $0, [$1], $2, $3;"  # of LLVM's own, which takes 32 bits, a part may be outside
# What several threads may add to: memory does it by itself, or compares and exchanges until nobody has come between.
NARROW = frozenset({"bf16", "i16", "u16"})
ATOMIC = frozenset({"f16", "f32", "f64", "i32", "i64", "u32", "u64", "c64", "c128"}) | NARROW


@on_device("constant")
def _constant(e: KernelEmitter, op: Op) -> None:
    result = op.result
    if result.type.is_scalar:
        e.env[result] = constant(result.type.dtype, op.attrs["value"])
    elif result in e.memory.buffers:
        source = e.memory.globals.get(result) or data(e.module, e.function.name, result)
        count = index(e.memory.buffers[result].bytes // result.type.dtype.itemsize)
        flat = lambda at: e.load_at(result, e.offset(source, result.type, at))  # noqa: E731
        e.each(count, lambda k: e.store_at(result, flat_address(e, result, k), flat(k)))


def flat_address(e: KernelEmitter, x: Value, position: ir.Value) -> ir.Value:
    """The address of the element with a row-major position."""
    striped = e.memory.striped.get(e.memory.buffers.get(x))  # type: ignore[arg-type]
    if striped is None:
        return e.offset(e.memory.base(x), x.type, position)
    return e.offset(striped, x.type, e.mul(position, index(e.memory.threads)))


@on_device("copy")
def _copy(e: KernelEmitter, op: Op) -> None:
    (x,) = op.operands
    if e.memory.same(x, op.result):
        return
    if x.type.grows:
        e.memory.sequences.copy(x, op.result)
    else:
        e.fill(op, lambda e, op, at: e.load(x, at))


@on_device("reshape")
def _reshape(e: KernelEmitter, op: Op) -> None:
    (x,), y = op.operands, op.result
    if not x.type.is_scalar and e.memory.same(x, y):
        return
    if not x.type.is_static or x.type.is_scalar or y.type.is_scalar:
        e.fill(op, _reshaped)
        return
    count = 1
    for size in x.type.static_shape:
        count *= size
    if count:
        move = lambda k: e.store_at(y, flat_address(e, y, k), e.load_at(x, flat_address(e, x, k)))  # noqa: E731
        e.each(index(count), move)


@on_device("sequence", "tape")
def _sequence(e: KernelEmitter, op: Op) -> None:
    sequences = e.memory.sequences
    made = sequences.of(op.result)
    sequences.clear(made)
    if op.operands and not made.is_split:
        sequences.reserve(made, e.builder.sub(e.env[op.operands[0]], index(1)))


@on_device("kernel", "reduce", "matmul")
def _fold(e: KernelEmitter, op: Op) -> None:
    """The sums of a thread stay in registers."""
    if op.name == "kernel" and not op.attrs["reduced"]:
        (region,) = op.regions

        def element(at: At) -> list[ir.Value]:
            e.env.update(zip(region.args, at))
            e.block(region)
            return [e.env[v] for v in region.results]

        e.nest(op.attrs["domain"], lambda at: write(e, op.results, at, element(at)), ops=cost(walk(region)))
        return
    found = as_fold(op)
    if found is None:  # a reduction along no axis
        e.fill(op, lambda e, op, at: e.load(op.operands[0], at))
        return
    domain = [*found.kept, *found.inner]
    fold(e, op, domain, len(found.inner), found.combine, found.element(e), rows=False, ops=cost(_walk(op)))


def _walk(op: Op) -> list[Op]:
    return [o for r in op.regions for o in walk(r)] or [op]


@on_device("argsort")
def _argsort(e: KernelEmitter, op: Op) -> None:
    """Each row by one thread, in memory where its elements stand side by side."""
    (x,), y, b = op.operands, op.result, e.builder
    *batch, size = y.type.shape
    bound = y.type.bound[-1]
    if 0 in y.type.bound:
        return
    item = storage_type(x.type.dtype)
    scratch = e.memory.borrow(8 * bound)
    near = {v for v in (x, y) if e.memory.buffers.get(v) in e.memory.striped}
    row_x = e.memory.borrow(x.type.dtype.itemsize * bound) if x in near else None
    row_y = e.memory.borrow(8 * bound) if y in near else None
    function = sorter(e.module, x.type.dtype)

    def row(at: At) -> None:
        here, count = [*at, ZERO], e.size(size)
        if row_x is not None:
            e.repeat(count, lambda k: e.store_at(x, b.gep(row_x, [k], source_etype=item), e.load(x, [*at, k])))
        source = row_x if row_x is not None else e.address(x, here)
        target = row_y if row_y is not None else e.address(y, here, write=True)
        b.call(function, [source, target, scratch, count])
        if row_y is not None:
            e.repeat(count, lambda k: e.store(y, [*at, k], b.load(b.gep(row_y, [k], source_etype=I64), typ=I64)))

    e.nest(batch, row, ops=MERGE_COST)


# --- adding to memory


def adds_atomically(op: Op, context: Context) -> bool:
    """Whether additions to the same element may be done by several threads, in whatever order."""
    dtype = op.result.type.dtype
    return dtype.name in ATOMIC and (dtype.is_integer or not context.deterministic)


def atomic_add(e: KernelEmitter, dtype: DType, address: ir.Value, value: ir.Value) -> None:
    b = e.builder
    if dtype.kind == "c":
        part = value.type.elements[0]
        for k in (0, 1):
            here = b.gep(address, [index(k)], inbounds=True, source_etype=part)
            b.atomic_rmw("fadd", here, b.extract_value(value, k), RELAXED)
    elif dtype.name in NARROW:
        _exchange_until_added(e, dtype, untyped(address), value)
    else:
        address = untyped(address)
        b.atomic_rmw("fadd" if dtype.is_float else "add", address, value, RELAXED)


def _exchange_until_added(e: KernelEmitter, dtype: DType, address: ir.Value, value: ir.Value) -> None:
    """Adds to what is hoped to be there, first zero; whoever finds something else begins anew with that."""
    b, item = e.builder, storage_type(dtype)
    before, again, added = b.block, e.new_block("add"), e.new_block("added")
    b.branch(again)
    b.position_at_end(again)
    hoped = b.phi(item)
    total = emit_scalar(b, "add", {}, [dtype] * 2, [from_storage(b, dtype, hoped), value])
    kind = ir.FunctionType(item, [PTR, item, item])
    found = b.asm(kind, EXCHANGE, "=h,l,h,h,~{memory}", [address, hoped, to_storage(b, dtype, total)], True)
    hoped.add_incoming(item(0), before)
    hoped.add_incoming(found, b.block)
    b.cbranch(b.icmp_unsigned("==", found, hoped), added, again)
    b.position_at_end(added)


def _adder(name: str, where: Callable[[KernelEmitter, Op, Sequence[Value], At], At]) -> None:
    @on_device(name)
    def emit_add(e: KernelEmitter, op: Op) -> None:
        x, v, *starts = op.operands
        if not e.adds_atomically(op):
            e.plain(op)
            return

        def move(at: At) -> None:
            atomic_add(e, x.type.dtype, e.address(x, where(e, op, starts, at), write=True), e.load(v, at))

        e.nest(v.type.shape, move)


_adder("update_add", lambda e, op, starts, at: whole_index(e, op.attrs["index"], starts, at))
_adder("scatter_add", lambda e, op, starts, at: gathered_index(e, starts, at))
