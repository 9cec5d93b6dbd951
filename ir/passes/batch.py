"""Batching: a function of slices as a function of whole tensors, without a loop.

    (%x: f64[3]) -> sin %x         with 10 slices:         (%x: f64[10, 3]) -> sin %x

The mapped axis comes first everywhere. Straight-line code of tensor operations is batched; a product with a matrix that
is the same for all slices becomes one product. For everything else there is no batched form, and a loop is to be made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Function, Op, Value
from dflow.ir.registry import OPS
from dflow.ir.types import TensorType


def batch(f: Function, mapped: Sequence[bool], size: int) -> tuple[Function, list[bool]] | None:
    """``f`` with a leading axis of ``size`` on the ``mapped`` parameters, and which results have one.

    None where ``f`` has something in it that is not batched.
    """
    if not all(v.type.is_static for v in (*f.args, *f.results)):
        return None
    types = [_batched(a.type, size) if m else a.type for a, m in zip(f.args, mapped)]
    b = Builder(types, [a.hint for a in f.args], f.loc)
    pass_ = _Batch(b, size, {a for a, m in zip(f.args, mapped) if m}, dict(zip(f.args, b.args)))
    for op in f.body.ops:
        b.loc = op.loc or b.loc
        if not pass_.op(op):
            return None
    results = [pass_.env.get(r, r) for r in f.results]
    return b.function(f.name, results, loc=f.loc), [r in pass_.mapped for r in f.results]


def _batched(t: TensorType, size: int) -> TensorType:
    return t.with_shape((size, *t.shape))


class _Batch:
    def __init__(self, b: Builder, size: int, mapped: set[Value], env: dict[Value, Value]):
        self.b, self.size, self.mapped, self.env = b, size, mapped, env

    def op(self, op: Op) -> bool:
        """Appends the operation; False where it has no batched form."""
        if not any(v in self.mapped for v in op.operands):
            if op.regions:  # it may use mapped values inside
                return False
            self.b.clone(op, self.env)
            return True
        rule = RULES.get(op.name) or (_elementwise if OPS[op.name].elementwise else None)
        if rule is None or op.regions or not all(r.type.is_static for r in op.results):
            return False
        made = rule(self, op)
        if made is None:
            return False
        self.env[op.result] = made
        made.hint = made.hint or op.result.hint
        self.mapped.add(op.result)
        return True

    def whole(self, v: Value) -> Value:
        """``v`` for all slices."""
        new = self.env.get(v, v)
        if v in self.mapped:
            return new
        return self.b.broadcast(new, shape=(self.size, *v.type.shape), dims=tuple(range(1, v.type.rank + 1)))


Rule = Callable[[_Batch, Op], "Value | None"]


def _elementwise(pass_: _Batch, op: Op) -> Value | None:
    return pass_.b.emit(op.name, *map(pass_.whole, op.operands), **op.attrs)


def _broadcast(pass_: _Batch, op: Op) -> Value | None:
    shape, dims = op.attrs["shape"], op.attrs["dims"]
    x = pass_.whole(op.operands[0])
    return pass_.b.broadcast(x, shape=(pass_.size, *shape), dims=(0, *(d + 1 for d in dims)))


def _reshape(pass_: _Batch, op: Op) -> Value | None:
    return pass_.b.reshape(pass_.whole(op.operands[0]), shape=(pass_.size, *op.attrs["shape"]))


def _transpose(pass_: _Batch, op: Op) -> Value | None:
    return pass_.b.transpose(pass_.whole(op.operands[0]), perm=(0, *(p + 1 for p in op.attrs["perm"])))


def _concatenate(pass_: _Batch, op: Op) -> Value | None:
    return pass_.b.concatenate(*map(pass_.whole, op.operands), axis=op.attrs["axis"] + 1)


def _argsort(pass_: _Batch, op: Op) -> Value | None:
    return pass_.b.argsort(pass_.whole(op.operands[0]))


def _reduce(pass_: _Batch, op: Op) -> Value | None:
    attrs: dict[str, Any] = {**op.attrs, "axes": tuple(a + 1 for a in op.attrs["axes"])}
    return pass_.b.emit("reduce", pass_.whole(op.operands[0]), **attrs)


def _part(pass_: _Batch, op: Op) -> Value | None:
    """Reading or writing at a place that is the same for all slices."""
    count = 1 if op.name == "extract" else 2
    tensors, starts = op.operands[:count], op.operands[count:]
    if any(s in pass_.mapped for s in starts):
        return None
    places = [pass_.env.get(s, s) for s in starts]
    return pass_.b.emit(op.name, *map(pass_.whole, tensors), *places, index=("all", *op.attrs["index"]))


def _matmul(pass_: _Batch, op: Op) -> Value | None:
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


RULES: dict[str, Rule] = {
    "argsort": _argsort,
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
