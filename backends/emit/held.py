"""Short arrays that a loop adds windows to, held in registers.

    for a in n:                                     y' = y
        for k in n - 1 - a:                   ->    for a in n:
            y[a + 1 + k] += l[at + k] * s               y' = where 0 <= j - (a + 1) < n - 1 - a:  y' + l[at'] * s
                                                    y = y'

A row of a triangle begins where the one before did not: what it reads of ``y`` is parts of several vectors that have
just been written, for which a processor waits until they are in memory. So all of ``y`` is one vector that goes round,
and a window of it is a mask: what is read beside the array is read under it. Each element takes the same operations as
before.

Of the branches around an inner loop, those that do something else with the array have it in memory meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from dflow.backends.emit.core import Emitter
from dflow.backends.emit.direct import direct
from dflow.backends.emit.lanes import VECTORS
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import I32, PTR, ZERO, declare, index, splat, storage_type, strides
from dflow.ir.core import Block, Op, Value, walk
from dflow.ir.passes.linear_forms import terms
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.registry import definition

FEWEST_BYTES, MOST_BYTES = 64, 256  # of an array
REGISTER = 32  # bytes, of which it is a multiple
WRITES = frozenset({"update", "update_add"})
POSITIONS = frozenset({"add", "sub", "neg", "mul"})  # operations that `terms` sees through


@dataclass(frozen=True)
class Held:
    """An array that goes round in ``loop``, and the loops inside, which are windows of it."""

    array: Value
    windows: frozenset[Op]


def held_array(e: Emitter, loop: Op) -> Held | None:
    """The array that ``loop`` may hold in registers, if there is one."""
    (body,) = loop.regions
    if not e.vectorizes or not e.options.masks:
        return None
    for a in body.args[1:]:
        if _fits(e, a):
            inner = [o for o in walk(body) if o.name == "for" and _touches(e, o, a)]
            if windows := frozenset(o for o in inner if _is_window(e, o, a)):
                return Held(a, windows) if _leads(e, body, a, windows) else None
    return None


def _fits(e: Emitter, a: Value) -> bool:
    """Whether ``a`` is a short array on the stack of this function, where no other thread sees it."""
    t = a.type
    if t.rank != 1 or t.grows or t.dtype.name not in ("f64", "f32") or not isinstance(t.shape[0], int):
        return False
    size = t.shape[0] * t.dtype.itemsize
    base = e.memory.base(a)
    own = isinstance(base, ir.AllocaInstr) and base.function is e.function
    return own and FEWEST_BYTES <= size <= MOST_BYTES and not size % REGISTER


def _touches(e: Emitter, op: Op, a: Value) -> bool:
    return any(e.memory.same(v, a) for v in (*op.operands, *op.results))


def _leads(e: Emitter, block: Block, a: Value, windows: frozenset[Op]) -> bool:
    """Whether all that a block does with the array is windows, or branches with such in one of them."""
    found = [o for o in block.ops if any(_touches(e, inner, a) for inner in _all(o))]
    return bool(found) and all(
        o in windows or (o.name == "if" and any(_leads(e, r, a, windows) for r in o.regions)) for o in found
    )


def _all(op: Op) -> list[Op]:
    return [op, *(o for r in op.regions for o in walk(r))]


def _is_window(e: Emitter, loop: Op, a: Value) -> bool:
    """Whether a loop of unknown length does nothing but write or add to elements of ``a`` one behind the other."""
    (body,) = loop.regions
    if len(body.args) != 2 or constant_of(loop.operands[0]) is not None or not e.memory.same(body.args[1], a):
        return False
    writes = [o for o in body.ops if _touches(e, o, a)]
    if len(writes) != 1 or writes[0].name not in WRITES or writes[0].result is not body.results[0]:
        return False
    k, (write,) = body.args[0], writes
    array, value, *at = write.operands
    if array is not body.args[1] or write.attrs["index"] != ("at",) or terms(at[0]).get(k, 0) != 1 or write.regions:
        return False
    varying = {k}
    return value.type.is_scalar and all(o is write or _is_plain(o, k, varying, a) for o in body.ops)


def _is_plain(op: Op, k: Value, varying: set[Value], a: Value) -> bool:
    """Whether an operation of a window can be one of vectors, of positions, or is the same for all elements.
    ``varying``, which grows, is what depends on ``k``."""
    if op.name == "constant":
        return op.result.type.is_scalar
    if op.regions or not op.result.type.is_scalar:
        return False
    differs = not varying.isdisjoint(op.operands)
    if differs:
        varying.add(op.result)
    if op.name == "extract":
        if any(entry != "at" for entry in op.attrs["index"]) or op.operands[0].type.grows:
            return False
        *others, last = (terms(s).get(k, 0) for s in op.operands[1:])
        return not differs or (not any(others) and last == 1 and op.result.type.dtype == a.type.dtype)
    if op.name not in VECTORS and op.name not in POSITIONS:
        return not differs and definition(op).elementwise
    if op.result.type.dtype.is_float:
        return not differs or all(v.type.dtype == a.type.dtype for v in op.operands)
    return not differs or (op.name in POSITIONS and k in terms(op.result))


def in_registers(
    e: Emitter, loop: Op, held: Held, count: ir.Value, inits: Sequence[ir.Value], begin: ir.Value
) -> list[ir.Value]:
    """Writes ``count`` rounds of ``loop`` from the one with the number ``begin`` on; the scalars that it yields."""
    (body,) = loop.regions
    k, *carried = body.args
    scalars = [a for a in carried if a.type.is_scalar]
    writer = _Writer(e, held)

    def run(i: ir.Value, array: ir.Value, *values: ir.Value) -> Sequence[ir.Value]:
        e.env[k] = e.add(begin, i)
        e.env.update(zip(scalars, values))
        array = writer.block(body, array)
        return [array, *(e.env[v] for v in body.results if v.type.is_scalar)]

    array, *values = e.loop(count, [writer.load(), *inits], run)
    writer.store(array)
    return values


class _Writer:
    """Writes blocks with the array in a register."""

    def __init__(self, e: Emitter, held: Held):
        self.e, self.held, self.array = e, held, held.array
        t = self.array.type
        self.lanes = t.static_shape[0]
        self.element = storage_type(t.dtype)
        self.type = ir.VectorType(self.element, self.lanes)

    def load(self) -> ir.Value:
        loaded = self.e.builder.load(self.e.memory.base(self.array), typ=self.type)
        loaded.align = self.array.type.dtype.itemsize
        self.e.memory.mark(loaded, self.array)
        return loaded

    def store(self, array: ir.Value) -> None:
        stored = self.e.builder.store(array, self.e.memory.base(self.array))
        stored.align = self.array.type.dtype.itemsize
        self.e.memory.mark(stored, self.array)

    def block(self, block: Block, array: ir.Value) -> ir.Value:
        """Writes a block; the array after it."""
        e = self.e
        for op in direct(e, block):
            with e.memory.near(op):
                if op in self.held.windows:
                    array = self.window(op, array)
                elif op.name == "if" and any(_touches(e, o, self.array) for o in _all(op)):
                    array = self.branches(op, array)
                else:
                    e.op(op)
        return array

    def branches(self, op: Op, array: ir.Value) -> ir.Value:
        e = self.e

        def run(region: Block) -> list[ir.Value]:
            if _leads(e, region, self.array, self.held.windows):
                after = self.block(region, array)
            else:
                self.store(array)
                e.block(region)
                after = self.load()
            return [after, *(e.env[v] for v in region.results if v.type.is_scalar)]

        then, otherwise = op.regions
        after, *values = e.either(e.env[op.operands[0]], lambda: run(then), lambda: run(otherwise))
        e.env.update(zip((r for r in op.results if r.type.is_scalar), values))
        return after

    def window(self, op: Op, array: ir.Value) -> ir.Value:
        """A loop over a window. What is the same for all of its elements is read only where there are any."""
        e, b = self.e, self.e.builder
        count, before = e.env[op.operands[0]], b.block
        with b.if_then(b.icmp_signed(">", count, ZERO)):
            after, inside = self.masked(op.regions[0], array, count), b.block
        phi = b.phi(self.type)
        phi.add_incoming(array, before)
        phi.add_incoming(after, inside)
        return phi

    def masked(self, body: Block, array: ir.Value, count: ir.Value) -> ir.Value:
        e, b, k = self.e, self.e.builder, body.args[0]
        (write,) = (o for o in body.ops if o.name in WRITES)
        # Positions twice: first those of the window's first element, then those of the array's.
        varying = self.positions(body, k, ZERO)
        begin = e.env[write.operands[2]]
        self.positions(body, k, b.neg(begin))
        # As bits of a number, which are fewer instructions than comparisons of vectors. The window is not empty.
        bits = b.shl(b.lshr(index(-1), b.sub(index(64), count)), begin)
        mask = b.bitcast(b.trunc(bits, ir.IntType(self.lanes)), ir.VectorType(ir.IntType(1), self.lanes))
        vectors: dict[Value, ir.Value] = {}

        def whole(v: Value) -> ir.Value:
            if v not in vectors:
                vectors[v] = self.splat(e.env[v])
            return vectors[v]

        for op in body.ops:
            if op is write or op.result not in varying or not op.result.type.dtype.is_float:
                continue
            if op.name == "extract":
                vectors[op.result] = self.read(op, mask)
            else:
                dtypes = [v.type.dtype for v in op.operands]
                vectors[op.result] = emit_scalar(b, op.name, op.attrs, dtypes, [whole(v) for v in op.operands])
        value = whole(write.operands[1])
        if write.name == "update_add":
            value = emit_scalar(b, "add", {}, [self.array.type.dtype] * 2, [array, value])
        return b.select(mask, value, array)

    def positions(self, body: Block, k: Value, at: ir.Value) -> set[Value]:
        """Writes what is no vector, with ``at`` for ``k``; what depends on ``k``."""
        self.e.env[k] = at
        varying = {k}
        for op in body.ops:
            if op.name in WRITES:
                continue
            if not varying.isdisjoint(op.operands):
                varying.add(op.result)
                if op.result.type.dtype.is_float:
                    continue
            self.e.op(op)
        return varying

    def read(self, op: Op, mask: ir.Value) -> ir.Value:
        """The elements of another array that belong to the window."""
        e, b, (x, *at) = self.e, self.e.builder, op.operands
        position = e.dot([e.env[v] for v in at], strides(x.type))
        # Not inbounds: the first element may be before the array.
        address = b.gep(e.memory.base(x), [position], source_etype=self.element)
        size = x.type.dtype.itemsize
        kind = ir.FunctionType(self.type, [PTR, I32, mask.type, self.type])
        name = f"llvm.masked.load.v{self.lanes}f{size * 8}.p0"
        function = declare(e.module, name, kind)
        loaded = b.call(function, [address, I32(size), mask, ir.Constant(self.type, None)])
        e.memory.mark(loaded, x)
        return loaded

    def splat(self, x: ir.Value) -> ir.Value:
        return splat(self.e.builder, x, ir.VectorType(x.type, self.lanes))
