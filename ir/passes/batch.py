"""Batching: a function of slices as a function of whole tensors, without a loop.

    (%x: f64[3]) -> sin %x         with 10 slices:         (%x: f64[10, 3]) -> sin %x

The mapped axis comes first everywhere. Straight-line code of tensor operations is batched; a product with a matrix that
is the same for all slices becomes one product, factorizations take the slices as one stack, and a check holds when it
does for every slice. For everything else there is no batched form, and a loop is to be made; but in a function whose
slices meet (``batch_slices``), everything has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, free_values, walk
from dflow.ir.passes.batch_slices import MEETINGS, together
from dflow.ir.registry import OPS
from dflow.ir.types import I64, TensorType


def batch(
    f: Function, mapped: Sequence[bool], size: int, axis: str | None = None
) -> tuple[Function, list[bool]] | None:
    """``f`` with a leading axis of ``size`` on the ``mapped`` parameters, and which results have one.

    None where ``f`` has something in it that is not batched. With an ``axis``, the name of the axis over which slices
    meet, raises NotBatchedError where they cannot.
    """
    if not all(v.type.is_static for v in (*f.args, *f.results)):
        return None
    types = [_batched(a.type, size) if m else a.type for a, m in zip(f.args, mapped)]
    b = Builder(types, [a.hint for a in f.args], f.loc)
    pass_ = Batch(b, size, {a for a, m in zip(f.args, mapped) if m}, dict(zip(f.args, b.args)), axis)
    if not pass_.run(f.body):
        return None
    results = [pass_.env.get(r, r) for r in f.results]
    return b.function(f.name, results, loc=f.loc), [r in pass_.mapped for r in f.results]


def _batched(t: TensorType, size: int) -> TensorType:
    return t.with_shape((size, *t.shape))


class Batch:
    """Batching of one block: ``env`` has the new values, those of ``mapped`` ones for all slices."""

    def __init__(self, b: Builder, size: int, mapped: set[Value], env: dict[Value, Value], axis: str | None = None):
        self.b, self.size, self.mapped, self.env, self.axis = b, size, mapped, env, axis

    def run(self, block: Block) -> bool:
        """Appends the operations of a block; False where one has no batched form."""
        for op in block.ops:
            self.b.loc = op.loc or self.b.loc
            if not (self.op(op) or (self.axis is not None and together(self, op))):
                return False
        return True

    def inside(self, b: Builder, env: dict[Value, Value], mapped: set[Value]) -> Batch:
        """The same for a region, with its arguments."""
        return Batch(b, self.size, self.mapped | mapped, {**self.env, **env}, self.axis)

    def op(self, op: Op) -> bool:
        """Appends the operation; False where it has no batched form of its own."""
        if op.name in MEETINGS and (self.axis == op.attrs["axis"] or op.operands[0] in self.mapped):
            return together(self, op)
        if not any(v in self.mapped for v in op.operands):
            if op.regions and (self.axis is None or self._may_vary(op)):  # it may use mapped values inside
                return False
            self.b.clone(op, self.env)
            return True
        rule = RULES.get(op.name) or (_elementwise if OPS[op.name].elementwise else None)
        if rule is None or op.regions or not all(r.type.is_static for r in op.results):
            return False
        made = rule(self, op)
        if made is None:
            return False
        results = [made] if isinstance(made, Value) else made
        for old, new in zip(op.results, results, strict=True):
            self.define(old, new)
        return True

    def _may_vary(self, op: Op) -> bool:
        inside = (o for r in op.regions for o in walk(r))
        return any(v in self.mapped for v in free_values(*op.regions)) or any(o.name in MEETINGS for o in inside)

    def define(self, old: Value, new: Value) -> None:
        """``new`` is ``old`` for all slices."""
        self.env[old] = new
        new.hint = new.hint or old.hint
        self.mapped.add(old)

    def batched(self, t: TensorType) -> TensorType:
        return _batched(t, self.size)

    def same(self, v: Value) -> Value:
        """A value that is the same for all slices."""
        return self.env.get(v, v)

    def all_slices(self, ok: Value) -> Value:
        """Whether a condition holds in every slice."""
        return self.b.reduce(self.env[ok], kind="all", axes=(0,)) if ok in self.mapped else self.same(ok)

    def whole(self, v: Value) -> Value:
        """``v`` for all slices."""
        new = self.env.get(v, v)
        if v in self.mapped:
            return new
        return self.b.broadcast(new, shape=(self.size, *v.type.shape), dims=tuple(range(1, v.type.rank + 1)))


Rule = Callable[[Batch, Op], "Value | Sequence[Value] | None"]


def _elementwise(pass_: Batch, op: Op) -> Value | None:
    return pass_.b.emit(op.name, *map(pass_.whole, op.operands), **op.attrs)


def _broadcast(pass_: Batch, op: Op) -> Value | None:
    shape, dims = op.attrs["shape"], op.attrs["dims"]
    x = pass_.whole(op.operands[0])
    return pass_.b.broadcast(x, shape=(pass_.size, *shape), dims=(0, *(d + 1 for d in dims)))


def _reshape(pass_: Batch, op: Op) -> Value | None:
    return pass_.b.reshape(pass_.whole(op.operands[0]), shape=(pass_.size, *op.attrs["shape"]))


def _transpose(pass_: Batch, op: Op) -> Value | None:
    return pass_.b.transpose(pass_.whole(op.operands[0]), perm=(0, *(p + 1 for p in op.attrs["perm"])))


def _concatenate(pass_: Batch, op: Op) -> Value | None:
    return pass_.b.concatenate(*map(pass_.whole, op.operands), axis=op.attrs["axis"] + 1)


def _order(pass_: Batch, op: Op) -> Value | None:
    return pass_.b.emit(op.name, *map(pass_.whole, op.operands), **op.attrs)


def _reduce(pass_: Batch, op: Op) -> Value | None:
    attrs: dict[str, Any] = {**op.attrs, "axes": tuple(a + 1 for a in op.attrs["axes"])}
    return pass_.b.emit("reduce", pass_.whole(op.operands[0]), **attrs)


def _part(pass_: Batch, op: Op) -> Value | None:
    """Reading or writing at a place that is the same for all slices."""
    count = 1 if op.name == "extract" else 2
    tensors, starts = op.operands[:count], op.operands[count:]
    if any(s in pass_.mapped for s in starts):
        return None
    places = [pass_.env.get(s, s) for s in starts]
    return pass_.b.emit(op.name, *map(pass_.whole, tensors), *places, index=("all", *op.attrs["index"]))


def _matmul(pass_: Batch, op: Op) -> Value | None:
    b, (x, y) = pass_.b, op.operands
    if x.type.rank > 2 or (x in pass_.mapped and y in pass_.mapped):
        return b.matmul(pass_.whole(x), pass_.whole(y))
    if x in pass_.mapped:
        return _rows(b, pass_.env[x], pass_.env.get(y, y))
    flipped = _rows(b, _swap(b, pass_.env[y]), _swap(b, pass_.env.get(x, x)))
    return _swap(b, flipped)


def _rows(b: Builder, x: Value, y: Value) -> Value:
    """A stack of matrices times one matrix, as one product."""
    n, m, k = x.type.static_shape
    product = b.matmul(b.reshape(x, shape=(prod((n, m)), k)), y)
    return b.reshape(product, shape=(n, m, y.type.shape[-1]))


def _swap(b: Builder, x: Value) -> Value:
    """The last two axes exchanged; a mere reshape where one of them is short."""
    *rest, m, k = x.type.static_shape
    if 1 in (m, k):
        return b.reshape(x, shape=(*rest, k, m))
    n = len(rest)
    return b.transpose(x, perm=(*range(n), n + 1, n))


def _arg(pass_: Batch, op: Op) -> Value | None:
    return pass_.b.emit(op.name, pass_.whole(op.operands[0]), axis=op.attrs["axis"] + 1)


def _fourier(pass_: Batch, op: Op) -> Value | None:
    attrs: dict[str, Any] = {**op.attrs, "axis": op.attrs["axis"] + 1}
    return pass_.b.emit(op.name, pass_.whole(op.operands[0]), **attrs)


def _gather(pass_: Batch, op: Op) -> Value | None:
    x, *indices = op.operands
    if x not in pass_.mapped:
        return pass_.b.gather(pass_.same(x), *map(pass_.whole, indices))
    return pass_.b.gather(pass_.env[x], *_in_slices(pass_, indices))


def _scatter(pass_: Batch, op: Op) -> Value | None:
    x, v, *indices = op.operands
    return pass_.b.emit(op.name, pass_.whole(x), pass_.whole(v), *_in_slices(pass_, indices))


def _in_slices(pass_: Batch, indices: Sequence[Value]) -> list[Value]:
    """Indices into the slices as indices into the whole: the number of the slice stands first."""
    found = list(map(pass_.whole, indices))
    t = found[0].type
    which = pass_.b.broadcast(pass_.b.iota(size=pass_.size), shape=t.shape, dims=(0,))
    return [pass_.b.convert(which, dtype=t.dtype), *found]


def _check(pass_: Batch, op: Op) -> Sequence[Value]:
    """The details are those of the first slice in which it fails; of no slices, nothing is checked."""
    b, (ok, *details) = pass_.b, op.operands
    if not pass_.size:
        return ()
    if any(v in pass_.mapped for v in details):
        first = b.argmin(b.convert(pass_.whole(ok), dtype=I64), axis=0)
        details = [b.extract(pass_.whole(v), first, index=("at",)) for v in details]
    else:
        details = list(map(pass_.same, details))
    b.emit("check", pass_.all_slices(ok), *details, **op.attrs)
    return ()


def _guard(pass_: Batch, op: Op) -> Value:
    x, ok = op.operands
    return pass_.b.guard(pass_.whole(x), pass_.all_slices(ok), **op.attrs)


def _stacked(pass_: Batch, op: Op) -> Sequence[Value]:
    """Operations on stacks of matrices."""
    return pass_.b.append(op.name, list(map(pass_.whole, op.operands)), op.attrs)


def _solve(pass_: Batch, op: Op) -> Value | Sequence[Value]:
    """Systems with one matrix have the right sides of all slices side by side."""
    b, (*matrices, y) = pass_.b, op.operands
    if y.type.rank > 2 or any(v in pass_.mapped for v in matrices):
        return _stacked(pass_, op)
    n, k = y.type.static_shape
    columns = b.reshape(b.transpose(pass_.env[y], perm=(1, 0, 2)), shape=(n, pass_.size * k))
    x = b.emit(op.name, *map(pass_.same, matrices), columns, **op.attrs)
    return b.transpose(b.reshape(x, shape=(n, pass_.size, k)), perm=(1, 0, 2))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("cholesky", "lu", "qr", "eigh", "eig", "svd", "det", "log_abs_det", "pinv"), _stacked),
    **dict.fromkeys(("triangular_solve", "lu_solve"), _solve),
    **dict.fromkeys(("argmax", "argmin"), _arg),
    **dict.fromkeys(("scatter", "scatter_add"), _scatter),
    "fourier": _fourier,
    "gather": _gather,
    "check": _check,
    "guard": _guard,
    **dict.fromkeys(("argsort", "argpartition", "partition", "ranked", "sort"), _order),
    "broadcast": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "reduce": _reduce,
    "extract": _part,
    "update": _part,
    "update_add": _part,
    "matmul": _matmul,
}
