"""One kernel: an `Emitter` whose tensors are in device memory and whose function is an entry of the PTX module.

There are four ways in which the threads of a kernel share the work:

- ``one``: a single thread does everything.
- ``grid``: one operation; every thread computes some of the elements (`KernelEmitter.nest`).
- ``lanes``: one parallel loop; every thread runs some of its rounds.
- ``block``: the threads of one block do one operation after the other together (``kernels/block.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from llvmlite import ir

from dflow.backends.cuda.context import Context, Needs, outer_values
from dflow.backends.cuda.kernels.memory import DeviceMemory, Key
from dflow.backends.cuda.kernels.sequences import writes_whole_rows
from dflow.backends.cuda.plan import Argument, Counter, Kernel, Launch, Pointer, Rows, Scalar
from dflow.backends.cuda.planning.places import ERROR, SCRATCH, WORKSPACE
from dflow.backends.emit.core import EMITTERS, Domain, Emitter, Index, Options
from dflow.backends.emit.loop_hints import loop_id
from dflow.backends.emit.types import (
    HAS_LLVM_20,
    I8,
    I32,
    I64,
    PTR,
    VOID,
    ZERO,
    from_storage,
    index,
    storage_type,
    strides,
    to_storage,
)
from dflow.backends.interface import by_value
from dflow.backends.mathlib.guard import add_attribute
from dflow.ir.core import Block, Op, Value
from dflow.ir.passes.rewrite import has_effect

Way = Literal["one", "grid", "lanes", "block"]
# (emitter, operation): what is written for a GPU in another way than for a processor.
DEVICE: dict[str, Callable[[Any, Op], None]] = {}
# Of a loop that is unrolled: rounds at a time, what they read, their operations.
MOST_ROUNDS, MOST_READS, MOST_UNROLLED, FEW_ROUNDS = 4, 16, 512, 64
NARROW = 2**31  # up to here positions are computed in 32 bits


def on_device(*names: str) -> Callable[[Callable[[Any, Op], None]], Callable[[Any, Op], None]]:
    def register(f: Callable[[Any, Op], None]) -> Callable[[Any, Op], None]:
        DEVICE.update(dict.fromkeys(names, f))
        return f

    return register


class KernelEmitter(Emitter):
    """Writes one kernel. ``blocks`` and ``threads`` (in a block) are what it will be launched with; ``is_divisible``
    says that as many threads in smaller blocks would do as well, since none knows of its block."""

    memory: DeviceMemory
    vectorizes = False

    def __init__(
        self,
        context: Context,
        what: str,
        way: Way,
        needs: Needs,
        blocks: int = 1,
        threads: int = 1,
        targets: Sequence[Pointer] = (),
        is_divisible: bool | None = None,
    ):
        self.context, self.way, self.needs = context, way, needs
        self.blocks, self.block_size = blocks, threads
        self.is_divisible = way == "grid" if is_divisible is None else is_divisible
        self.loc: Any = None
        self.what = what
        self.parameters: dict[Argument, ir.Value] = {}
        self.pointers = self.find_pointers()
        wanted: dict[Argument, None] = dict.fromkeys(self.pointers.values())
        wanted |= dict.fromkeys(self._scalar(v) for v in needs.scalars)
        for p in list(wanted):
            if isinstance(p, Pointer) and p.buffer > SCRATCH and context.places.buffers[p.buffer].kind == "sequence":
                wanted[Rows(p.buffer)] = None
        split = [b for b in needs.buffers(context) if context.places.lanes(b)]
        wanted |= dict.fromkeys(context.places.capacities(b) for b in split)
        wanted |= dict.fromkeys([*targets, Pointer(WORKSPACE), Pointer(SCRATCH), Pointer(ERROR)])
        name = f"{context.name}_{len(context.kernels)}_{what}"
        function = ir.Function(context.module, ir.FunctionType(VOID, [_type(a) for a in wanted]), name)
        function.calling_convention = "ptx_kernel"
        function.attributes.add("nounwind")
        bound_threads(function, threads)
        super().__init__(context.plan, function, Options(blas=False, threads=False))
        self.checks = context.checks
        self.parameters = dict(zip(wanted, function.args))
        self._start()
        self.memory = self.make_memory()
        for v in needs.scalars:
            self.env[v] = self._load_scalar(v)

    def find_pointers(self) -> dict[Key, Pointer]:
        """The parameters for buffers and large constants; buffers that are missing belong to one thread."""
        return DeviceMemory.pointers(self.context, self.needs, self.way, self.blocks * self.block_size)

    def make_memory(self) -> DeviceMemory:
        return DeviceMemory(self)

    stays_together = False  # whether the threads of a block count on each other, while a thread may fail

    # --- what is known from outside

    def _scalar(self, v: Value) -> Argument:
        if v in self.context.counters:
            return Counter(self.context.counters[v])
        if v in self.context.position:
            k = self.context.position[v]
            return Scalar(k, v.type.dtype) if by_value(v.type) else self.context.places.argument(k)
        return Pointer(WORKSPACE)

    def _load_scalar(self, v: Value) -> ir.Value:
        source = self._scalar(v)
        if isinstance(source, Counter):
            return self.parameters[source]
        if isinstance(source, Scalar):
            return from_storage(self.builder, v.type.dtype, self.parameters[source])
        if v in self.context.position:
            address = self.parameters[source]
        else:
            address = self.slot_address(v)
        stored = self.builder.load(address, typ=storage_type(v.type.dtype))
        return from_storage(self.builder, v.type.dtype, stored)

    def slot_address(self, v: object) -> ir.Value:
        """The address of the slot of a scalar."""
        offset = index(self.context.places.slot(v).offset)
        return self.builder.gep(self.parameters[Pointer(WORKSPACE)], [offset], inbounds=True, source_etype=I8)

    def keep(self, v: Value) -> None:
        """Writes a scalar to its slot."""
        self.builder.store(to_storage(self.builder, v.type.dtype, self.scalar(v)), self.slot_address(v))

    def scalar(self, v: Value) -> ir.Value:
        """A scalar in a register, computed anew if it comes from outside."""
        if v not in self.env:
            assert v.op is not None and self.context.is_repeated(v), f"{v!r} is not known in this kernel"
            for x in v.op.operands:
                if x.type.is_scalar:
                    self.scalar(x)
            self.op(v.op)
        return self.env[v]

    def recall(self, ops: Sequence[Op], values: Sequence[Value] = ()) -> None:
        """Computes anew the scalars from outside that operations use."""
        for v in outer_values(ops, values):
            if v.type.is_scalar:
                self.scalar(v)

    def target(self, key: object) -> ir.Value:
        """The address of a slot, or of a result."""
        return self.parameters[key] if isinstance(key, Pointer) else self.slot_address(key)

    # --- beginning and end

    def _start(self) -> None:
        b = self.builder
        if self.way == "one":
            self.thread = ZERO
        else:
            size = self.register("ntid.x") if self.is_divisible else index(self.block_size)
            self.thread = b.add(b.mul(self.register("ctaid.x"), size, flags=("nsw",)), self.register("tid.x"))
        if self.context.fails:
            clean, failed = self.new_block("clean"), b.block
            what = b.load(self.parameters[Pointer(ERROR)], typ=I64)
            is_clean = b.icmp_signed("==", what, ZERO)
            if self.stays_together:  # another block may fail while the threads of this one begin
                f = self.module.declare_intrinsic("llvm.nvvm.barrier0.and", (), ir.FunctionType(I32, [I32]))
                is_clean = b.icmp_signed("!=", b.call(f, [b.zext(is_clean, I32)]), I32(0))
            b.cbranch(is_clean, clean, self.exit)
            self.status.add_incoming(I32(2), failed)
            b.position_at_end(clean)

    def finish(self) -> Launch:
        """Ends the function; how to launch it."""
        self.branch_out(0)
        with self.builder.goto_block(self.exit):
            self.leave()
            self.builder.ret_void()
        with self.builder.goto_block(self.entry):
            self.builder.branch(self.function.blocks[1])
        self.context.kernels.append(Kernel(self.function.name, self.block_size, self.what, self.loc))
        self._drop_unused()
        args = tuple(self.parameters)
        return Launch(self.function.name, self.blocks, self.block_size, args, is_divisible=self.is_divisible)

    def leave(self) -> None:
        """What is done on every way out."""

    joined: ir.Block | None = None  # where a thread that has failed meets the others, if barriers are to come

    def branch_out(self, code: int) -> None:
        if self.joined is None:
            super().branch_out(code)
        else:
            self.builder.branch(self.joined)

    def _drop_unused(self) -> None:
        """Leaves out the parameters that nothing uses."""
        used: set[int] = set()
        for block in self.function.blocks:
            for instruction in block.instructions:
                used.update(id(x) for x in _operands(instruction))
        kept = {a: v for a, v in self.parameters.items() if id(v) in used}
        self._describe(kept)
        f = self.function
        f.args = tuple(kept.values())
        f.ftype = ir.FunctionType(VOID, [_type(a) for a in kept])
        f.type = f.ftype.as_pointer()
        self.parameters = kept

    def _describe(self, kept: dict[Argument, ir.Value]) -> None:
        """Says which pointers lead to memory that no other leads to."""
        regions = {a: r for a, r in self.memory.regions().items() if a in kept and self.is_apart(a)}
        for a, (buffer, start, stop) in regions.items():
            others = [r for other, r in regions.items() if other is not a and r[0] == buffer]
            if all(stop <= low or high <= start for _, low, high in others):
                kept[a].add_attribute("noalias")

    def is_apart(self, a: Pointer) -> bool:
        """Whether other threads write nothing that this one reads there."""
        return True

    # --- threads

    def register(self, name: str) -> ir.Value:
        """A special register, such as ``tid.x``, as an index."""
        f = self.module.declare_intrinsic(f"llvm.nvvm.read.ptx.sreg.{name}", (), ir.FunctionType(I32, []))
        return self.builder.zext(self.builder.call(f, []), I64)

    def stride(self, total: ir.Value, body: Callable[[ir.Value], Any]) -> None:
        """``body(k)`` for the k below ``total`` that fall to this thread."""
        self.stride_from(self.thread, self.blocks * self.block_size, total, body)

    def stride_from(self, first: ir.Value, step: int, total: ir.Value, body: Callable[[ir.Value], Any]) -> ir.Value:
        """``body(k)`` for k = ``first``, first + ``step``, ... below ``total``; the first k that is not below."""
        b, k = self.builder, self.slot(I64)
        b.store(first, k)
        head, inside, done = (self.new_block(name) for name in ("stride", "mine", "strode"))
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(b.icmp_signed("<", b.load(k, typ=I64), total), inside, done)
        b.position_at_end(inside)
        body(b.load(k, typ=I64))
        b.store(b.add(b.load(k, typ=I64), index(step), flags=("nsw",)), k)
        b.branch(head)
        b.position_at_end(done)
        return b.load(k, typ=I64)

    def each(self, count: ir.Value, body: Callable[[ir.Value], Any]) -> None:
        """``body(k)`` for every k below ``count``, shared by the threads where the work is spread."""
        (self.stride if self.is_spread else self.repeat)(count, body)

    @property
    def is_spread(self) -> bool:
        """Whether the threads share the elements of an operation."""
        return self.way == "grid"

    def hints(self, body: Block, count: ir.Value) -> ir.MDValue | None:
        """Several rounds at once where rounds read far memory and write none, as those of a reverse pass do with its
        tapes: a thread waits less often for memory. Of few rounds LLVM makes straight code by itself."""
        if isinstance(count, ir.Constant) and count.constant <= FEW_ROUNDS:
            return None
        plain = [op for op in body.ops if not op.regions and all(r.type.is_scalar for r in op.results)]
        if len(plain) < len(body.ops) or any(has_effect(op) for op in plain):
            return None
        reads = sum(op.name == "extract" and self._is_far(op) for op in plain)
        times = min(MOST_ROUNDS, MOST_READS // reads, MOST_UNROLLED // len(plain)) if reads else 1
        return loop_id(self.module, ("llvm.loop.unroll.count", times)) if times > 1 else None

    def _is_far(self, op: Op) -> bool:
        """Whether what an operation reads is in the memory of the device, at another place in each round."""
        b = self.memory.buffers.get(op.operands[0])
        return (b is None or b.space != "stack") and any(
            i.op is None or i.op.name != "constant" for i in op.operands[1:]
        )

    def nest(
        self,
        shape: Domain,
        body: Callable[[list[ir.Value]], None],
        ops: int = 1,
        hints: ir.MDValue | None = None,
    ) -> None:
        """Where the work is spread, the outermost nest is shared by the threads."""
        if not self.is_spread or self.inside_nest:
            super().nest(shape, body, ops, hints)
            return
        self.inside_nest = True
        if 0 not in shape:
            self.stride(self.product(shape), lambda k: body(self.positions(k, shape)))
        self.inside_nest = False

    inside_nest = False

    def positions(self, k: ir.Value, shape: Domain) -> list[ir.Value]:
        """The index with the row-major position ``k``."""
        b = self.builder
        bound = 1
        for d in shape:
            bound *= d if isinstance(d, int) else d.bound  # type: ignore[union-attr]
        narrow = bound < NARROW
        rest = b.trunc(k, I32) if narrow else k
        at: list[ir.Value] = []
        outermost = next((n for n, d in enumerate(shape) if d != 1), -1)
        for n, d in reversed(list(enumerate(shape))):
            if d == 1 or n == outermost:
                at.append(ZERO if d == 1 else _wide(b, rest))
                continue
            count = self.size(d)
            count = b.trunc(count, I32) if narrow else count
            at.append(_wide(b, b.urem(rest, count)))
            rest = b.udiv(rest, count)
        return at[::-1]

    # --- operations and addresses

    def block(self, block: Block) -> list[ir.Value | None]:
        with self.memory.sequences.inside(block):
            return super().block(block)

    def op(self, op: Op) -> None:
        sequences = self.memory.sequences
        sequences.overwrites = writes_whole_rows(op)
        if self.way in ("one", "lanes"):
            sequences.prepare(op)
        special = DEVICE.get(op.name)
        if special is not None:
            special(self, op)
        else:
            super().op(op)

    def adds_atomically(self, op: Op) -> bool:
        """Whether other threads may add to the same elements as this operation."""
        return self.way == "grid" and op.name == "scatter_add"

    def plain(self, op: Op) -> None:
        """What is written for a processor."""
        EMITTERS[op.name](self, op)

    def address(self, x: Value, at: Index, *, write: bool = False) -> ir.Value:
        if x.type.grows:
            return self.memory.sequences.address(x, at, write=write)
        striped = self.memory.striped.get(self.memory.buffers.get(x))  # type: ignore[arg-type]
        if striped is None:
            return super().address(x, at, write=write)
        position = self.mul(self.dot(at, strides(x.type)), index(self.blocks * self.block_size))
        return self.offset(striped, x.type, position)


def bound_threads(function: ir.Function, threads: int) -> None:
    """Says how many threads a block may have, so that there are registers for all of them."""
    if not HAS_LLVM_20:
        add_attribute(function, f'"nvvm.maxntid"="{threads}"')
    else:
        function.module.add_named_metadata("nvvm.annotations", [function, "maxntidx", I32(threads)])


def _wide(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
    return v if v.type == I64 else b.zext(v, I64)


def _type(a: Argument) -> ir.Type:
    if isinstance(a, Pointer):
        return PTR
    return storage_type(a.dtype) if isinstance(a, Scalar) else I64


def _operands(instruction: Any) -> list[Any]:
    if isinstance(instruction, ir.PhiInstr):
        return [v for v, _ in instruction.incomings]
    return list(instruction.operands)
