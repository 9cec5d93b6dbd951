"""What reductions are: which elements are combined to which results, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from dflow.backends.cuda.kernels.cooperative import by_kind
from dflow.backends.emit.collapse import collapsed
from dflow.backends.emit.core import cost
from dflow.backends.emit.kernel import identity
from dflow.backends.emit.scalar import convert, emit_scalar, int_compare, is_nan
from dflow.backends.emit.types import constant
from dflow.ir.core import Block, Op, Value
from dflow.ir.types import BF16, F32, HALVES, U8, Dim, DType, Size
from dflow.ir.types import I64 as INDEX

if TYPE_CHECKING:
    from dflow.backends.cuda.kernels.kernel import KernelEmitter

LIGHT = 64  # operations for an element that cost little

At = list[ir.Value]
Element = Callable[[At], list[ir.Value]]


@dataclass(frozen=True)
class Fold:
    """A reduction: results over the axes ``kept``, each combined from elements over the axes ``inner``."""

    results: tuple[Value, ...]
    kept: tuple[Dim, ...]
    inner: tuple[Dim, ...]
    combine: tuple[str, ...]
    element: Callable[[KernelEmitter], Element]
    is_light: bool = True  # whether an element costs little

    @property
    def dtypes(self) -> list[DType]:
        """Those in which the elements are combined."""
        return [accumulated(r.type.dtype) for r in self.results]

    @property
    def start(self) -> list[ir.Value]:
        """What nothing is combined to."""
        return [identity(kind, d) for kind, d in zip(self.combine, self.dtypes)]

    def taken(self, b: ir.IRBuilder, found: Sequence[ir.Value]) -> list[ir.Value]:
        """An element as one of ``dtypes``."""
        return [convert(b, r.type.dtype, d, v) for r, d, v in zip(self.results, self.dtypes, found)]

    def join(self, e: KernelEmitter, totals: Sequence[ir.Value], values: Sequence[ir.Value]) -> list[ir.Value]:
        return by_kind(e, self.combine, self.dtypes)(totals, values)

    def given(self, b: ir.IRBuilder, totals: Sequence[ir.Value]) -> list[ir.Value]:
        """The results."""
        return [convert(b, d, r.type.dtype, v) for d, r, v in zip(self.dtypes, self.results, totals)]


@dataclass(frozen=True)
class Extreme(Fold):
    """The position of the largest or smallest element, the first of several; the first NaN, if there is one.

    What is combined are pairs of an element and its position, in any order.
    """

    of: DType = F32
    sign: str = ">"

    @property
    def dtypes(self) -> list[DType]:
        return [self.of, INDEX]

    @property
    def start(self) -> list[ir.Value]:
        return [identity("max" if self.sign == ">" else "min", self.of), constant(INDEX, 2**63 - 1)]

    def taken(self, b: ir.IRBuilder, found: Sequence[ir.Value]) -> list[ir.Value]:
        return list(found)

    def join(self, e: KernelEmitter, totals: Sequence[ir.Value], values: Sequence[ir.Value]) -> list[ir.Value]:
        b, (best, at), (v, k) = e.builder, totals, values
        if self.of.is_float:
            beats, same = b.fcmp_ordered(self.sign, v, best), b.fcmp_ordered("==", v, best)
            no_best, no_v = is_nan(b, best), is_nan(b, v)
            beats = b.or_(beats, b.and_(no_v, b.not_(no_best)))
            same = b.or_(same, b.and_(no_v, no_best))
        else:
            beats, same = int_compare(b, self.of, self.sign, v, best), b.icmp_unsigned("==", v, best)
        wins = b.or_(beats, b.and_(same, b.icmp_signed("<", k, at)))
        return [b.select(wins, v, best), b.select(wins, k, at)]

    def given(self, b: ir.IRBuilder, totals: Sequence[ir.Value]) -> list[ir.Value]:
        return [totals[1]]


def accumulated(dtype: DType) -> DType:
    """The dtype in which elements are added up: sums of many halves need room."""
    return F32 if dtype in HALVES else dtype


def as_fold(op: Op) -> Fold | None:
    """The reduction that an operation is, if it is one."""
    if op.name == "kernel" and op.attrs["reduced"]:
        domain, reduced = op.attrs["domain"], op.attrs["reduced"]
        cut = len(domain) - reduced
        (region,) = op.regions
        is_light = cost(all_ops(region)) <= LIGHT
        inner = collapsed(op)[cut:]
        return Fold(op.results, domain[:cut], inner, op.attrs["combine"], lambda e: _of_kernel(e, op), is_light)
    if op.name == "reduce" and op.attrs["axes"] and op.operands[0].type.rank:
        (x,), axes = op.operands, op.attrs["axes"]
        kept = tuple(k for k in range(x.type.rank) if k not in axes)
        order = (*kept, *axes)
        sizes = [tuple(x.type.shape[k] for k in part) for part in (kept, axes)]
        return Fold(op.results, sizes[0], sizes[1], (op.attrs["kind"],), lambda e: _of_tensor(e, x, order))
    if op.name == "matmul":
        k = op.operands[0].type.shape[-1]
        return Fold(op.results, op.result.type.shape, (k,), ("sum",), lambda e: _of_product(e, op))
    if op.name in ("argmax", "argmin"):
        return _as_extreme(op)
    return None


def _as_extreme(op: Op) -> Extreme:
    (x,), axis = op.operands, op.attrs["axis"]
    kept = tuple(d for k, d in enumerate(x.type.shape) if k != axis)
    dtype = U8 if x.type.dtype.kind == "b" else x.type.dtype

    def element(e: KernelEmitter) -> Element:
        def pair(at: At) -> list[ir.Value]:
            *others, k = at
            found = e.load(x, [*others[:axis], k, *others[axis:]])
            return [convert(e.builder, x.type.dtype, dtype, found), k]

        return pair

    sign = ">" if op.name == "argmax" else "<"
    return Extreme(op.results, kept, (x.type.shape[axis],), (), element, of=dtype, sign=sign)


def _of_product(e: KernelEmitter, op: Op) -> Element:
    x, y = op.operands
    dtype = F32 if x.type.dtype == BF16 else x.type.dtype  # which it is in a register: what is summed is not rounded

    def element(at: At) -> list[ir.Value]:
        *batch, i, j, k = at
        factors = [e.load(x, [*batch, i, k]), e.load(y, [*batch, k, j])]
        return [emit_scalar(e.builder, "mul", {}, [dtype] * 2, factors)]

    return element


def _of_kernel(e: KernelEmitter, op: Op) -> Element:
    (region,) = op.regions

    def element(at: At) -> list[ir.Value]:
        e.env.update(zip(region.args, at))
        e.block(region)
        return [e.env[v] for v in region.results]

    return element


def _of_tensor(e: KernelEmitter, x: Value, order: Sequence[int]) -> Element:
    return lambda at: [e.load(x, [at[order.index(k)] for k in range(x.type.rank)])]


def all_ops(block: Block) -> list[Op]:
    return [x for op in block.ops for x in (op, *(y for r in op.regions for y in all_ops(r)))]


def count(shape: Sequence[Dim]) -> int:
    """The number of points, sizes being at their bounds."""
    total = 1
    for d in shape:
        total *= d.bound if isinstance(d, Size) else d if isinstance(d, int) else 1
    return total
