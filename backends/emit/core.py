"""The state of an emission, and the two things all of its parts need: loops, and elements of tensors in memory.

An `Emitter` writes one function. What it writes for each operation stands in the tables of the other ``emit_*`` files,
which register themselves in `EMITTERS` and `POINTWISE`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from dflow.backends.analysis.independent import used_values
from dflow.backends.emit.choices import mask_of
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import (
    I64,
    ONE,
    PTR,
    ZERO,
    from_storage,
    index,
    storage_type,
    strides,
    to_storage,
)
from dflow.backends.interface import Check
from dflow.backends.lowering.plan import Plan
from dflow.backends.mathlib import MATH_FUNCTIONS
from dflow.ir.core import Block, Op, Value, walk
from dflow.ir.registry import OPS
from dflow.ir.types import Dim, Size, TensorType

if TYPE_CHECKING:
    from dflow.backends.emit.memory import Memory

UNROLL_POINTS = 16  # nests with no more points are written out, so that stack buffers become registers
UNROLL_OPS = 256  # as long as this bounds what is written
MATH_COST = 40


@dataclass(frozen=True)
class Part:
    """A piece of an axis: ``count`` positions from ``begin`` on."""

    begin: ir.Value
    count: ir.Value


Domain = Sequence[Dim | Part]  # of a nest of loops
Index = Sequence[ir.Value]
Body = Callable[[list[ir.Value]], None]


@dataclass(frozen=True)
class Options:
    """How to emit, for the process that the code is loaded into. ``blas``: large matrix products call its BLAS;
    ``threads``: large nests of loops call its pool of threads; ``masks``: its processor reads vectors under masks;
    ``avx512``: it has AVX-512 with vectors of all lengths, which compares into masks and compresses by them."""

    blas: bool = True
    threads: bool = True
    masks: bool = True
    avx512: bool = False


# (emitter, operation): writes the operation.
EMITTERS: dict[str, Callable[[Any, Op], None]] = {}
# (emitter, operation, index) -> the element of the result there.
POINTWISE: dict[str, Callable[[Any, Op, list[ir.Value]], ir.Value]] = {}


def emits(*names: str) -> Callable[[Callable[[Any, Op], None]], Callable[[Any, Op], None]]:
    def register(f: Callable[[Any, Op], None]) -> Callable[[Any, Op], None]:
        EMITTERS.update(dict.fromkeys(names, f))
        return f

    return register


def pointwise(*names: str) -> Callable[[Any], Any]:
    def register(f: Any) -> Any:
        POINTWISE.update(dict.fromkeys(names, f))
        return f

    return register


class Emitter:
    """Writes the operations of a plan's function at ``builder``, scalars in ``env``, tensors in ``memory``."""

    vectorizes = True  # whether LLVM will make loops ones over vectors
    straight = False  # whether the program has neither loops nor branches (`straight.py`)

    def __init__(self, plan: Plan, function: ir.Function, options: Options):
        self.plan, self.options = plan, options
        self.module = function.module
        self.threads = options.threads  # whether nests may be cut here
        self.env: dict[Value, ir.Value] = {}
        self.checks: list[Check] = []
        self.error = function.args[-1]  # where a failed check leaves its record
        self.choices: set[Op] = set()  # comparisons into masks (see ``emit_choices``)
        self.uses: Counter[Value] | None = None  # how often values are used, once somebody has asked (`emit/direct.py`)
        self.loops: int | None = None  # how many operations are loops, once somebody has asked (see ``emit_outline``)
        self.turning: frozenset[Op] = frozenset()  # copies that exchange two addresses here (see ``emit_turning``)
        self.once: Set[Op] | None = None  # those of them that run once (see ``emit_outline``)
        self.outlined: dict[str, ir.Function] = {}  # functions of operations by their text (see ``emit_outline``)
        self.moved: dict[object, ir.Function] = {}  # and by what they do
        self.memory: Memory
        self.begin(function)

    def begin(self, function: ir.Function) -> None:
        """From here on ``function`` is written."""
        self.function = function
        self.entry = function.append_basic_block("entry")  # stack slots only; ends with a branch to "start"
        self.builder = ir.IRBuilder(function.append_basic_block("start"))
        self.exit = function.append_basic_block("exit")
        with self.builder.goto_block(self.exit):
            self.status = self.builder.phi(ir.IntType(32), "status")

    def end(self, leave: Callable[[], None] = lambda: None) -> None:
        """The end of the function: all is well. ``leave`` writes what is to be done on each way out."""
        self.branch_out(0)
        with self.builder.goto_block(self.exit):
            leave()
            self.builder.ret(self.status)
        with self.builder.goto_block(self.entry):
            self.builder.branch(self.function.blocks[1])

    @cached_property
    def used(self) -> set[Value]:
        """What the program uses."""
        return used_values(self.plan)

    # --- blocks and operations

    def block(self, block: Block) -> list[ir.Value | None]:
        """Writes the block; its yielded scalars, and None for each yielded tensor, which is in its buffer."""
        from dflow.backends.emit.direct import direct

        for op in direct(self, block):
            with self.memory.near(op):
                self.op(op)
        return [self.env[v] if v.type.is_scalar else None for v in block.results]

    def op(self, op: Op) -> None:
        if op.name in EMITTERS:
            EMITTERS[op.name](self, op)
            return
        element = POINTWISE.get(op.name)
        if element is None and op.name in OPS and OPS[op.name].elementwise:
            element = elementwise
        if element is None:
            raise NotImplementedError(f"operation {op.name} has no machine code (at {op.loc})")
        self.fill(op, element)

    def fill(self, op: Op, element: Callable[[Any, Op, list[ir.Value]], ir.Value]) -> None:
        """Computes the result of ``op`` element by element."""
        result = op.result
        if result.type.is_scalar:
            self.env[result] = element(self, op, [])
        elif result.type.grows:
            length = self.memory.prepare_sequence(result, [x for x in op.operands if x.type.grows])
            rest = result.type.shape[1:]
            self.repeat(
                length, lambda k: self.nest(rest, lambda at: self.store(result, [k, *at], element(self, op, [k, *at])))
            )
        else:
            self.nest(result.type.shape, lambda at: self.store(result, at, element(self, op, at)), cost([op]))

    def branch_out(self, code: int) -> None:
        """Leaves the function with a status."""
        self.status.add_incoming(ir.IntType(32)(code), self.builder.block)
        self.builder.branch(self.exit)

    def new_block(self, name: str) -> ir.Block:
        return self.function.append_basic_block(name)

    def slot(self, t: ir.Type, name: str = "") -> ir.Value:
        """A stack slot, made once per call of the function wherever it is used."""
        with self.builder.goto_block(self.entry):
            return untyped(self.builder.alloca(t, name=name))

    def length(self, region: Block) -> int:
        """About how long the code of an element is. Straight code calls the math functions that it repeats."""
        return sum(1 for _ in walk(region)) if self.straight else cost(walk(region))

    # --- sizes and index arithmetic (constants are folded here: unrolled code would be huge before LLVM sees it)

    def size(self, dim: Dim | Part) -> ir.Value:
        if isinstance(dim, Part):
            return dim.count
        return self.env[dim.value] if isinstance(dim, Size) else index(int(dim))  # type: ignore[arg-type]

    def position(self, dim: Dim | Part, k: ir.Value) -> ir.Value:
        """The index of round k of a loop over ``dim``."""
        return self.add(dim.begin, k) if isinstance(dim, Part) else k

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        if isinstance(a, ir.Constant) and isinstance(b, ir.Constant):
            return index(a.constant + b.constant)
        if is_constant(a, 0) or is_constant(b, 0):
            return b if is_constant(a, 0) else a
        return self.builder.add(a, b, flags=("nsw",))

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        if isinstance(a, ir.Constant) and isinstance(b, ir.Constant):
            return index(a.constant - b.constant)
        return a if is_constant(b, 0) else self.builder.sub(a, b, flags=("nsw",))

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        if isinstance(a, ir.Constant) and isinstance(b, ir.Constant):
            return index(a.constant * b.constant)
        if is_constant(a, 1) or is_constant(b, 1):
            return b if is_constant(a, 1) else a
        if is_constant(a, 0) or is_constant(b, 0):
            return ZERO
        return self.builder.mul(a, b, flags=("nsw",))

    def dot(self, at: Index, steps: Sequence[int]) -> ir.Value:
        total: ir.Value = ZERO
        for i, step in zip(at, steps):
            total = self.add(total, self.mul(i, index(step)))
        return total

    def product(self, dims: Domain) -> ir.Value:
        total: ir.Value = ONE
        for d in dims:
            total = self.mul(total, self.size(d))
        return total

    # --- loops

    def loop(
        self,
        count: ir.Value,
        inits: Sequence[ir.Value],
        body: Callable[..., Sequence[ir.Value]],
        step: int = 1,
        hints: ir.MDValue | None = None,
    ) -> list[ir.Value]:
        """``body(k, *carried) -> carried`` for k = 0, step, ... below ``count``; the last carried values."""
        b, before = self.builder, self.builder.block
        head, inside, done = (self.new_block(name) for name in ("loop", "body", "done"))
        b.branch(head)
        b.position_at_end(head)
        phis = [b.phi(v.type) for v in (ZERO, *inits)]
        for phi, v in zip(phis, (ZERO, *inits)):
            phi.add_incoming(v, before)
        b.cbranch(b.icmp_signed("<", phis[0], count), inside, done)
        b.position_at_end(inside)
        carried = body(*phis)
        following = b.add(phis[0], index(step), flags=("nuw", "nsw"))
        for phi, v in zip(phis, (following, *carried)):
            phi.add_incoming(v, b.block)
        back = b.branch(head)
        if hints is not None:
            back.set_metadata("llvm.loop", hints)
        b.position_at_end(done)
        return phis[1:]

    def hints(self, body: Block, count: ir.Value) -> ir.MDValue | None:
        """What LLVM is told about the loop around ``body`` where it makes no vectors."""
        return None

    def either(
        self, test: ir.Value, then: Callable[[], list[ir.Value]], otherwise: Callable[[], list[ir.Value]]
    ) -> list[ir.Value]:
        """Writes both branches; the values of the one that is taken."""
        b = self.builder
        starts, joined = [self.new_block(name) for name in ("then", "else")], self.new_block("joined")
        b.cbranch(test, *starts)
        ends = []
        for start, branch in zip(starts, (then, otherwise)):
            b.position_at_end(start)
            values = branch()
            ends.append((b.block, values))
            b.branch(joined)
        b.position_at_end(joined)
        phis = [b.phi(v.type) for v in ends[0][1]]
        for block, values in ends:
            for phi, v in zip(phis, values):
                phi.add_incoming(v, block)
        return phis

    def repeat(self, count: ir.Value, body: Callable[[ir.Value], Any], hints: ir.MDValue | None = None) -> None:
        def run(k: ir.Value) -> Sequence[ir.Value]:
            body(k)
            return ()

        self.loop(count, (), run, hints=hints)

    def steps(self, start: ir.Value, stop: ir.Value, step: int, body: Callable[[ir.Value], Any]) -> None:
        """``body(k)`` for k = start, start + step, ... below ``stop``."""

        def run(k: ir.Value) -> Sequence[ir.Value]:
            body(self.add(start, k))
            return ()

        self.loop(self.sub(stop, start), (), run, step)

    def nest(self, shape: Domain, body: Body, ops: int = 1, hints: ir.MDValue | None = None) -> None:
        """``body(index)`` for every index of ``shape`` in row-major order; ``ops`` is about how long the body is, and
        ``hints`` are for the innermost loop."""
        unroll = unrolls(shape, ops)

        def level(axis: int, at: list[ir.Value]) -> None:
            if axis == len(shape):
                body(at)
                return
            dim = shape[axis]
            if dim == 1 or (unroll and isinstance(dim, int)):
                for k in range(int(dim)):
                    level(axis + 1, [*at, index(k)])
            else:
                inner = hints if axis + 1 == len(shape) else None
                self.repeat(self.size(dim), lambda k: level(axis + 1, [*at, self.position(dim, k)]), inner)

        if 0 not in shape:
            level(0, [])

    # --- tensors and their elements

    def address(self, x: Value, at: Index, *, write: bool = False) -> ir.Value:
        """The address of one element."""
        base, inner = self.memory.base(x), at
        if x.type.grows:
            base, inner = self.memory.row(x, at[0], write=write), at[1:]
            steps = strides(x.type)[1:]
        else:
            steps = strides(x.type)
        return self.offset(base, x.type, self.dot(inner, steps))

    def offset(self, base: ir.Value, t: TensorType, position: ir.Value) -> ir.Value:
        if is_constant(position, 0):
            return base
        return self.builder.gep(base, [position], inbounds=True, source_etype=storage_type(t.dtype))

    def load(self, x: Value, at: Index) -> ir.Value:
        """One element in a register; a scalar value is itself."""
        return self.env[x] if x.type.is_scalar else self.load_at(x, self.address(x, at))

    def load_at(self, x: Value, address: ir.Value) -> ir.Value:
        loaded = self.builder.load(address, typ=storage_type(x.type.dtype))
        self.memory.mark(loaded, x)
        return from_storage(self.builder, x.type.dtype, loaded)

    def store(self, x: Value, at: Index, value: ir.Value) -> None:
        self.store_at(x, self.address(x, at, write=True), value)

    def store_at(self, x: Value, address: ir.Value, value: ir.Value) -> None:
        self.memory.mark(self.builder.store(to_storage(self.builder, x.type.dtype, value), address), x)


def untyped(address: Any) -> Any:
    """An address as a plain ``ptr``, where llvmlite still remembers what it points to."""
    address.type = PTR
    return address


def elementwise(e: Emitter, op: Op, at: list[ir.Value]) -> ir.Value:
    values = [e.load(x, at) for x in op.operands]
    if op in e.choices:
        return mask_of(e.builder, op.name, op.operands[0].type.dtype, values)
    return emit_scalar(e.builder, op.name, op.attrs, [x.type.dtype for x in op.operands], values)


def cost(ops: Iterable[Op]) -> int:
    """About how long the code of operations is."""
    return sum(MATH_COST if op.name in MATH_FUNCTIONS else 1 for op in ops)


def is_constant(v: ir.Value, value: int) -> bool:
    return isinstance(v, ir.Constant) and v.type == I64 and v.constant == value


def unrolls(shape: Domain, ops: int = 1) -> bool:
    """Whether a nest over ``shape`` is written out, if its body has about ``ops`` operations."""
    points = point_count(shape)
    return points is not None and points <= UNROLL_POINTS and points * ops <= UNROLL_OPS


def point_count(shape: Domain) -> int | None:
    """How many points a nest over ``shape`` has, if that is known."""
    return math.prod(d for d in shape if isinstance(d, int)) if all(isinstance(d, int) for d in shape) else None
