"""Fusion: groups of tensor operations become ``kernel``s, one for each tensor that must exist in memory.

``Function -> Function``, of equal meaning:

    %1 = mul(%x, %x)                              %y = kernel {domain = (9,)} {(%i)
    %y = add(%1, %b)                     ->           %2 = extract(%x, %i); %3 = mul(%2, %2)
                                                      %4 = extract(%b, %i); yield add(%3, %4)}

The method is demand-driven: a tensor that need not exist is a function from an index to an element (the *delayed
arrays* of Keller et al., "Regular, Shape-polymorphic, Parallel Arrays in Haskell", 2010), and the kernel that wants its
elements asks for them (``elements.py``). What must exist is decided in ``Demand``, in one pass forward and one back.
Kernels stand where the operation of their result stood. Scalars stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dflow.backends.lowering.demand import Demand, same_memory
from dflow.backends.lowering.elements import Elements
from dflow.backends.lowering.handed_on import handed_on
from dflow.backends.lowering.merge_kernels import merge_kernels
from dflow.backends.lowering.one_pass import one_pass
from dflow.backends.lowering.own_sums import own_sums
from dflow.backends.lowering.plan import CALLED
from dflow.backends.lowering.rerun import rerun
from dflow.backends.lowering.sink_kernels import sink_kernels
from dflow.backends.lowering.spaced_tapes import spaced_tapes
from dflow.backends.lowering.whole_sums import whole_sums
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, substitute
from dflow.ir.passes.decompose import decompose
from dflow.ir.passes.forwards import forwards
from dflow.ir.passes.unchecked import unchecked
from dflow.ir.types import BF16, F32, I64, scalar


def fuse(f: Function, blas: bool = False, for_device: bool = False) -> Function:
    """``f`` with its tensor operations in kernels. ``f`` itself is not changed. ``blas``: there is BLAS, which takes
    transposed matrices as they lie. ``for_device``: a GPU will run it, which computes faster than it reads."""
    f = forwards(unchecked(decompose(f, () if for_device else CALLED)))
    f = whole_sums(spaced_tapes(f) if for_device else rerun(own_sums(one_pass(handed_on(f)))))
    return Function(f.name, _Fusion(Demand(f, blas, for_device)).block(f.body, inner=False), f.linear, f.loc)


class _Fusion:
    def __init__(self, demand: Demand):
        self.demand = demand
        self.env: dict[Value, Value] = {}

    def block(self, block: Block, inner: bool = True) -> Block:
        b = Builder()
        b.args = tuple(Value(substitute(a.type, self.env), a.hint) for a in block.args)
        self.env.update(zip(block.args, b.args))
        for op in block.ops:
            b.loc = op.loc
            self.op(b, op)
        results = [self.env.get(v, v) for v in block.results]
        b.ops = merge_kernels(b.ops, results, not self.demand.for_device, results if inner else ())
        b.ops = sink_kernels(b.ops, results)
        return b.finish(results)

    def op(self, b: Builder, op: Op) -> None:
        if op.name == "kernel":
            b.clone(op, self.env)
        elif op.name == "reduce" and op.operands[0].type.rank:
            self.env[op.result] = self.reduction(b, op)
        elif op.name == "matmul" and self.demand.is_folded(op):
            self.env[op.result] = self.product(b, op)
        elif op.name == "matmul" and any(self.demand.turns(op)):
            self.env[op.result] = self.turned(b, op)
        elif op.name == "concatenate" and not self.demand.is_fusable(op):
            self.env[op.result] = self.concatenation(b, op)
        elif self.demand.is_element(op):
            self.env[op.result] = Elements(b, self.env, self.demand).of_result(op, ())
        elif self.demand.is_fusable(op):
            if op.result in self.demand.stored:
                self.env[op.result] = self.stored(b, op)
        else:
            self.plain(b, op)

    def plain(self, b: Builder, op: Op) -> None:
        operands = [self.env.get(v, v) for v in op.operands]
        regions = [self.block(r) for r in op.regions]
        results = [Value(r.type, r.hint) for r in op.results]
        self.env.update(zip(op.results, results))
        for r in results:
            r.type = substitute(r.type, self.env)
        b.ops.append(Op(op.name, operands, results, self.attrs(op), regions, op.loc))

    def attrs(self, op: Op) -> Mapping[str, Any]:
        return {k: substitute(a, self.env) for k, a in op.attrs.items()}

    def stored(self, b: Builder, op: Op) -> Value:
        """The tensor that ``op`` makes, in memory."""
        shape = substitute(op.result.type.shape, self.env)
        source = same_memory(op)
        if source is not None:
            return b.append("reshape", [self.env.get(source, source)], {"shape": shape}, hints=[op.result.hint])[0]
        k = Builder([scalar(I64)] * len(shape), loc=op.loc)
        element = Elements(k, self.env, self.demand, shape).of_result(op, k.args)
        attrs = {"domain": shape, "reduced": 0, "combine": ("",)}
        return b.append("kernel", [], attrs, [_region(k, element)], [op.result.hint])[0]

    def reduction(self, b: Builder, op: Op) -> Value:
        """A kernel over the kept axes, then the reduced ones."""
        (x,), axes = op.operands, op.attrs["axes"]
        order = [*(k for k in range(x.type.rank) if k not in axes), *axes]
        shape = substitute(x.type.shape, self.env)
        k = Builder([scalar(I64)] * x.type.rank, loc=op.loc)
        index = [k.args[order.index(axis)] for axis in range(x.type.rank)]
        domain = tuple(shape[axis] for axis in order)
        element = Elements(k, self.env, self.demand, domain).of(x, tuple(index))
        combine = op.attrs["kind"] if axes else ""
        attrs = {"domain": domain, "reduced": len(axes), "combine": (combine,)}
        return b.append("kernel", [], attrs, [_region(k, element)], [op.result.hint])[0]

    def product(self, b: Builder, op: Op) -> Value:
        """A matrix times a vector, or a vector times a matrix: sums over the inner axis, the last of the kernel."""
        (x, y), shape = op.operands, substitute(op.result.type.shape, self.env)
        *batch, m, n = shape
        domain = (*batch, n if m == 1 else m, substitute(x.type.shape[-1], self.env))
        k = Builder([scalar(I64)] * len(domain), loc=op.loc)
        elements = Elements(k, self.env, self.demand, domain)
        at, inner = k.args[: len(batch)], k.args[-1]
        i, j = (elements.index(0) if size == 1 else k.args[len(batch)] for size in (m, n))
        factors = [elements.of(x, (*at, i, inner)), elements.of(y, (*at, inner, j))]
        narrow = op.result.type.dtype == BF16  # what is summed is not rounded
        if narrow:
            factors = [elements.emit("convert", f, dtype=F32) for f in factors]
        attrs = {"domain": domain, "reduced": 1, "combine": ("sum",)}
        made = b.append("kernel", [], attrs, [_region(k, elements.emit("mul", *factors))], [op.result.hint])[0]
        return b.reshape(b.convert(made, dtype=BF16) if narrow else made, shape=shape)

    def turned(self, b: Builder, op: Op) -> Value:
        """A product that takes transposed operands as they lie."""
        transposed = self.demand.turns(op)
        operands = [v.op.operands[0] if t and v.op else v for v, t in zip(op.operands, transposed)]
        attrs = {"transposed": transposed}
        return b.append("gemm", [self.env.get(v, v) for v in operands], attrs, hints=[op.result.hint])[0]

    def concatenation(self, b: Builder, op: Op) -> Value:
        """Unspecified memory, into which the parts are written one after the other."""
        y = b.emit("empty", type=substitute(op.result.type, self.env))
        axis, start, last = op.attrs["axis"], 0, op.operands[-1]
        entry: Any
        for part in op.operands:
            size = part.type.shape[axis]
            if not size:
                continue
            if part.type.rank == 1 and size == 1:
                element = Elements(b, self.env, self.demand).of(part, (b.index(0),))
                operands, entry = [y, element, b.index(start)], "at"
            else:
                made, entry = self.part(b, part, axis)
                operands = [y, made, b.index(start)]
            index = tuple(entry if k == axis else "all" for k in range(part.type.rank))
            y = b.append("update", operands, {"index": index}, hints=[op.result.hint if part is last else None])[0]
            start += size
        return y

    def part(self, b: Builder, v: Value, axis: int) -> tuple[Value, Any]:
        """A part of a concatenation, and how it is written: as a slice, or without the axis if that was only added to
        what a kernel makes, which can be computed there then (`emit/direct.py`)."""
        entry: Any
        part, entry = self.env[v], ("slice", v.type.shape[axis], 1)
        if self.demand.for_device or not self.demand.is_wanted_once(v):
            return part, entry
        op = part.op
        if v.op and op and op.name == "reshape" and op in b.ops and self.demand.is_wanted_once(v.op.operands[0]):
            (inner,), shape = op.operands, part.type.shape
            if shape[axis] == 1 and inner.type.shape == shape[:axis] + shape[axis + 1 :]:
                b.ops.remove(op)
                part, entry = inner, "at"
        if part.op and part.op.name == "kernel" and part.op in b.ops:
            b.ops.remove(part.op)
            b.ops.append(part.op)
        return part, entry


def _region(k: Builder, element: Value) -> Block:
    """What ``k`` wrote, without what the element turned out not to need (constants that were folded)."""
    needed, kept = {element}, []
    for op in reversed(k.ops):
        if op.result in needed:
            needed.update(op.operands)
            kept.append(op)
    k.ops = kept[::-1]
    return k.finish([element])
