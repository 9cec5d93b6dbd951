"""Elementwise kernels whose threads read and write 16 bytes at a time.

A thread computes as many neighbours along the last axis as fit into a vector. What it reads side by side, it reads at
once, and so it writes; anything else it reads one by one. Where all tensors lie as the domain does, its axes are one,
and the elements that are left over are done one by one. Arguments may lie at any address: where one is not aligned, the
kernel does one element after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.analysis.affine import Forms
from dflow.backends.cuda.context import FAILING, Context, Needs
from dflow.backends.cuda.kernels.folds import count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.plan import Argument
from dflow.backends.emit.core import cost
from dflow.backends.emit.kernel import write
from dflow.backends.emit.types import I1, I32, I64, ZERO, from_storage, index, storage_type, strides, to_storage
from dflow.backends.mathlib.guard import add_attribute
from dflow.ir.core import Op, Value
from dflow.ir.types import Dim

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

BYTES = 16
WIDEST = 8  # elements
LEAST = 1 << 18  # elements of the domain; with fewer there would be too few threads
LONGEST = 320  # operations that are written out
THREADS = 256
MOST_BLOCKS = 1 << 16

At = list[ir.Value]


@dataclass(frozen=True)
class Vectors:
    """``width`` elements together; ``reads`` are read at once. ``flat``: the domain is done as one axis."""

    width: int
    reads: tuple[Op, ...]
    flat: bool


def find_vectors(op: Op, context: Context) -> Vectors | None:
    """How a kernel can be done in vectors, if it can."""
    shape = _domain(op)
    if not shape or not all(isinstance(d, int) for d in shape) or count(shape) < LEAST:
        return None
    if op.name != "kernel":
        width = min(WIDEST, BYTES // op.result.type.dtype.itemsize)
        return Vectors(width, (op,), True) if op.operands[0] in context.plan.buffers else None
    (region,) = op.regions
    if op.attrs["reduced"] or any(o.regions or o.name in FAILING for o in region.ops):
        return None
    items = [v.type.dtype.itemsize for v in (*op.results, *(o.result for o in region.ops if o.name == "extract"))]
    width = min(WIDEST, BYTES // max(items))
    flat = len(shape) == 1 or _lies_as_domain(op)
    reads = _reads(op, width, flat, context)
    if cost(region.ops) * width > LONGEST or not (flat or count(shape[-1:]) % width == 0):
        return None
    is_complex = any(r.type.dtype.kind == "c" for r in op.results)
    return Vectors(width, reads, flat) if reads and (width > 1 or is_complex) else None


def _domain(op: Op) -> tuple[Dim, ...] | None:
    if op.name == "kernel":
        return tuple(op.attrs["domain"])
    if op.name in ("copy", "reshape") and op.operands[0].type.is_static:
        return op.result.type.shape
    return None


def _lies_as_domain(op: Op) -> bool:
    """Whether element k of the result, in row-major order, depends on the elements k of what is read alone."""
    (region,), domain = op.regions, op.attrs["domain"]
    for o in region.ops:
        if o.name == "extract" and not set(o.operands[1:]).isdisjoint(region.args):
            if o.operands[1:] != region.args or o.operands[0].type.shape != tuple(domain):
                return False
        elif not set(o.operands).isdisjoint(region.args):
            return False
    return set(region.results).isdisjoint(region.args)


def _reads(op: Op, width: int, flat: bool, context: Context) -> tuple[Op, ...]:
    """What lies side by side along the last axis, and begins a vector where the elements do."""
    (region,) = op.regions
    last, found = region.args[-1], list[Op]()
    varying, made = {last}, {r for o in region.ops for r in o.results}
    forms = Forms(lambda v: v not in made)
    for o in region.ops:
        if not varying.isdisjoint(o.operands):
            varying.update(o.results)
        if o.name != "extract" or o.operands[0].type.grows or any(e != "at" for e in o.attrs["index"]):
            continue
        x, *others, inner = o.operands
        form = forms.of(inner)
        if x not in context.plan.buffers or form is None or form.terms != ((last, 1),) or form.low != form.high:
            continue
        rows = flat or all(s % width == 0 for s in strides(x.type)[:-1])
        if rows and form.low % width == 0 and varying.isdisjoint(others):
            found.append(o)
    return tuple(found)


def emit_vectors(s: Scheduler, op: Op) -> None:
    """Adds the step for a kernel in vectors to those of the scheduler."""
    vectors = find_vectors(op, s.context)
    assert vectors is not None
    total = count(op.results[0].type.shape)
    blocks = min(MOST_BLOCKS, -(-total // (THREADS * vectors.width)))
    e = VectorEmitter(s.context, op.name, "grid", Needs(s.context, [op]), blocks, THREADS)
    e.loc = op.loc
    e.recall([op])
    e.vectors(op, vectors)
    s.steps.append(e.finish())


class VectorEmitter(KernelEmitter):
    """Writes such a kernel. ``near`` holds what has been read at once, while the elements are computed one by one."""

    reads: tuple[Op, ...] = ()
    element = 0
    inside_nest = True

    def vectors(self, op: Op, vectors: Vectors) -> None:
        b, domain, width = self.builder, op.results[0].type.static_shape, vectors.width
        self.kernel, self.width = op, width
        self.near: dict[Op, ir.Value] = {}
        total = count(domain)
        in_one = (total,) if vectors.flat else domain

        def several(k: ir.Value) -> None:
            at = self.positions(k, (*in_one[:-1], in_one[-1] // width))
            at[-1] = self.mul(at[-1], index(width))
            self._several(self._whole(at, domain), vectors.reads)

        def one(k: ir.Value) -> None:
            self._one(self._whole(self.positions(k, in_one), domain))

        with b.if_else(self._is_aligned(vectors.reads)) as (aligned, otherwise):
            with aligned:
                self.stride(index(total // width), several)
                if total % width:
                    self.stride(index(total % width), lambda k: one(self.add(k, index(total - total % width))))
            with otherwise:
                self.stride(index(total), one)

    def _whole(self, at: At, domain: Sequence[Dim]) -> At:
        """An index along all axes; where they are one, all but the last are at 0."""
        return [*[ZERO] * (len(domain) - len(at)), *at]

    def _is_aligned(self, reads: Sequence[Op]) -> ir.Value:
        """Whether all that the caller has placed, and that is read or written at once, is at a multiple of 16 bytes."""
        b, bits = self.builder, ZERO
        touched = [*(o.operands[0] for o in reads), *self.kernel.results]
        for buffer in dict.fromkeys(self.plan.buffers[x] for x in touched):
            if buffer.space in ("argument", "result"):
                bits = b.or_(bits, b.ptrtoint(self.memory.bases[buffer], I64))
        return I1(1) if bits is ZERO else b.icmp_unsigned("==", b.and_(bits, index(BYTES - 1)), ZERO)

    def _describe(self, kept: dict[Argument, ir.Value]) -> None:
        """Says what is only read, too: LLVM does not see that where it sees the address used as a number."""
        super()._describe(kept)
        written = {self.pointers[self.plan.buffers[r]] for r in self.kernel.results}
        for p in set(self.pointers.values()) - written:
            if p in kept and "noalias" in kept[p].attributes:
                add_attribute(kept[p], "readonly")

    # --- elements

    def _one(self, at: At) -> None:
        write(self, self.kernel.results, at, self._values(at))

    def _values(self, at: At) -> list[ir.Value]:
        """The elements of the results at one place."""
        op = self.kernel
        if op.name != "kernel":  # a copy
            (x,) = op.operands
            at = [*[ZERO] * (x.type.rank - 1), at[-1]]
            return [self._read(op, at) if self.reads else self.load(x, at)]
        (region,) = op.regions
        self.env.update(zip(region.args, at))
        self.block(region)
        return [self.env[v] for v in region.results]

    def _several(self, at: At, reads: tuple[Op, ...]) -> None:
        """Everything is read before the first is written: results may lie where operands do."""
        self.reads, found = reads, list[list[ir.Value]]()
        for k in range(self.width):
            self.element = k
            found.append(self._values([*at[:-1], self.add(at[-1], index(k))]))
        self.reads = ()
        for x, values in zip(self.kernel.results, zip(*found)):
            self._store_vector(x, self.address(x, at, write=True), values)

    def _read(self, op: Op, at: At) -> ir.Value:
        """An element of what is read at once."""
        x = op.operands[0]
        if self.element == 0:
            kind, size = self._vector(x)
            self.near[op] = self.builder.load(self.address(x, at), typ=kind, align=size)
        return from_storage(self.builder, x.type.dtype, self._part(x, self.near[op]))

    def op(self, op: Op) -> None:
        if op in self.reads:
            self.env[op.result] = self._read(op, [self.env[v] for v in op.operands[1:]])
        else:
            super().op(op)

    # --- vectors

    def _vector(self, x: Value) -> tuple[ir.Type, int]:
        """The type of a vector of elements, complex ones being two numbers; its bytes."""
        item = storage_type(x.type.dtype)
        is_pair = isinstance(item, ir.LiteralStructType)
        number = item.elements[0] if is_pair else item
        return ir.VectorType(number, self.width * (2 if is_pair else 1)), self.width * x.type.dtype.itemsize

    def _part(self, x: Value, vector: ir.Value) -> ir.Value:
        """The element at hand."""
        b, item = self.builder, storage_type(x.type.dtype)
        if not isinstance(item, ir.LiteralStructType):
            return b.extract_element(vector, I32(self.element))
        pair: ir.Value = ir.Constant(item, ir.Undefined)
        for k in (0, 1):
            pair = b.insert_value(pair, b.extract_element(vector, I32(2 * self.element + k)), k)
        return pair

    def _store_vector(self, x: Value, address: ir.Value, values: Sequence[ir.Value]) -> None:
        b, (kind, size) = self.builder, self._vector(x)
        numbers = [to_storage(b, x.type.dtype, v) for v in values]
        if x.type.dtype.kind == "c":
            numbers = [b.extract_value(v, k) for v in numbers for k in (0, 1)]
        vector: ir.Value = ir.Constant(kind, ir.Undefined)
        for k, v in enumerate(numbers):
            vector = b.insert_element(vector, v, I32(k))
        b.store(vector, address, align=size)
