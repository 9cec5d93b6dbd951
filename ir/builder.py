"""Building programs: a ``Builder`` appends typed operations to one block.

Operations are emitted by name, ``b.emit("sin", x)`` or ``b.sin(x)``; result types come from the definition. Python
numbers among the operands of an elementwise operation become constants of the other operands' type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import numpy as np

import dflow.ir.ops  # noqa: F401  (fills the table of operations)
from dflow.ir.core import HOLDERS, Block, Function, Location, Op, Value, substitute
from dflow.ir.registry import OPS, OpTypeError
from dflow.ir.types import BOOL, I64, Dim, DType, Size, TensorType, scalar, type_of_array


class Builder:
    """Appends operations to a block with the given argument types; ``finish`` returns the block."""

    def __init__(
        self,
        arg_types: Iterable[TensorType] = (),
        hints: Sequence[str | None] = (),
        loc: Location | None = None,
    ):
        types = list(arg_types)
        names = list(hints) + [None] * (len(types) - len(hints))
        self.args = tuple(Value(t, h) for t, h in zip(types, names))
        self.ops: list[Op] = []
        self.loc = loc

    @classmethod
    def like(
        cls, values: Iterable[Value], env: MutableMapping[Value, Value] | None = None, loc: Location | None = None
    ) -> Builder:
        """A builder whose arguments stand for ``values``, with their types and names; ``env`` learns the new names.

        Sizes in the types are renamed by ``env``, so a value may have a size that stands beside it.
        """
        b, env, values = cls(loc=loc), {} if env is None else env, list(values)
        b.args = tuple(Value(v.type, v.hint) for v in values)
        env.update(zip(values, b.args))
        for a in b.args:
            a.type = substitute(a.type, env)
        return b

    def finish(self, results: Sequence[Value]) -> Block:
        return Block(self.args, self.ops, results)

    def function(self, name: str, results: Sequence[Value], **attrs: Any) -> Function:
        return Function(name, self.finish(results), **attrs)

    # -- emitting ------------------------------------------------------------------------------------------------

    def append(
        self,
        name: str,
        operands: Sequence[Value],
        attrs: Mapping[str, Any] | None = None,
        regions: Sequence[Block] = (),
        hints: Sequence[str | None] = (),
        loc: Location | None = None,
    ) -> tuple[Value, ...]:
        """Appends one operation and returns its results. Raises OpTypeError when the definition refuses it."""
        attrs = dict(attrs or {})
        if name not in OPS:
            raise OpTypeError(f"there is no operation {name!r}")
        try:
            types = infer(name, operands, attrs, regions)
        except OpTypeError as e:
            raise OpTypeError(f"{name}: {e}") from None
        names = list(hints) + [None] * len(types)
        op = Op(name, operands, [Value(t, h) for t, h in zip(types, names)], attrs, regions, loc or self.loc)
        if name == "if":
            for r, t in zip(op.results, if_types(regions, op.results)):
                r.type = t
        elif name == "custom":  # a size may be a result beside what it bounds
            for r in op.results:
                r.type = substitute(r.type, dict(zip(regions[0].results, op.results)))
        self.ops.append(op)
        return op.results

    def emit(self, name: str, *operands: Any, **attrs: Any) -> Value:
        """Appends an operation with one result and returns that."""
        results = self.append(name, self._values(operands), attrs)
        return results[0] if results else None  # type: ignore[return-value]

    def __getattr__(self, name: str) -> Callable[..., Value]:
        op = name.rstrip("_")  # `and_`, `or_`, `not_` are keywords without the underscore
        if op in OPS:
            return partial(self.emit, op)
        raise AttributeError(name)

    def _values(self, operands: Sequence[Any]) -> list[Value]:
        like = next((o for o in operands if isinstance(o, Value)), None)
        return [o if isinstance(o, Value) else self.full(o, like.type) for o in operands]  # type: ignore[union-attr]

    # -- constants -----------------------------------------------------------------------------------------------

    def constant(self, value: Any, dtype: DType | None = None) -> Value:
        """A constant: a Python or NumPy scalar, or a dense array."""
        a = np.asarray(value) if dtype is None else np.asarray(value, dtype.numpy)
        t = type_of_array(a)
        return self.append("constant", (), {"value": a.item() if not t.shape else a, "type": t})[0]

    def index(self, value: int | Value) -> Value:
        """An index (``i64`` scalar)."""
        return value if isinstance(value, Value) else self.constant(int(value), I64)

    def full(self, value: float, type: TensorType) -> Value:
        """A tensor of ``type`` with every element ``value``."""
        return self.broadcast_scalar(self.constant(value, type.dtype), type.shape)

    def zeros(self, type: TensorType) -> Value:
        return self.emit("sequence", type=type) if type.grows else self.full(0, type)

    def broadcast_scalar(self, x: Value, shape: tuple[Dim, ...]) -> Value:
        return self.emit("broadcast", x, shape=tuple(shape), dims=()) if shape else x

    def size(self, dim: Dim) -> Value:
        """A size of a shape as an index value."""
        return dim.value if isinstance(dim, Size) else self.constant(dim, I64)

    # -- control flow --------------------------------------------------------------------------------------------

    def for_loop(
        self,
        count: Value,
        inits: Sequence[Value],
        body: Callable[..., Sequence[Value]],
        hints: Sequence[str | None] = (),
    ) -> tuple[Value, ...]:
        """``body(builder, k, *carried) -> carried`` for ``k`` in ``0 .. count-1``."""
        inner = Builder([scalar(I64), *(v.type for v in inits)], ["k", *hints], self.loc)
        block = inner.finish(body(inner, *inner.args))
        return self.append("for", [count, *inits], regions=[block])

    def while_loop(
        self,
        inits: Sequence[Value],
        cond: Callable[..., Value],
        body: Callable[..., Sequence[Value]],
    ) -> tuple[Value, ...]:
        """``while cond(builder, *carried): carried = body(builder, *carried)``."""
        types = [v.type for v in inits]
        c, d = Builder(types, loc=self.loc), Builder(types, loc=self.loc)
        cond_block = c.finish([cond(c, *c.args)])
        return self.append("while", inits, regions=[cond_block, d.finish(body(d, *d.args))])

    def if_(
        self,
        pred: Value,
        then: Callable[[Builder], Sequence[Value]],
        orelse: Callable[[Builder], Sequence[Value]],
    ) -> tuple[Value, ...]:
        t, e = Builder(loc=self.loc), Builder(loc=self.loc)
        then_block = t.finish(then(t))
        return self.append("if", [pred], regions=[then_block, e.finish(orelse(e))])

    # -- copying -------------------------------------------------------------------------------------------------

    def clone(self, op: Op, env: MutableMapping[Value, Value]) -> tuple[Value, ...]:
        """Appends a copy of ``op`` with values renamed by ``env``, which gains the results."""
        operands = [env.get(v, v) for v in op.operands]
        attrs = {k: substitute(v, env) if isinstance(v, HOLDERS) else v for k, v in op.attrs.items()}
        regions = [clone_block(r, env) for r in op.regions]
        results = [Value(r.type, r.hint) for r in op.results]
        env.update(zip(op.results, results))
        for r in results:
            if not r.type.is_static:
                r.type = substitute(r.type, env)
        self.ops.append(Op(op.name, operands, results, attrs, regions, op.loc or self.loc))
        return tuple(results)

    def inline(
        self, block: Block, args: Sequence[Value], env: MutableMapping[Value, Value] | None = None
    ) -> list[Value]:
        """Appends a copy of the operations of ``block`` with ``args`` for its arguments; returns what it yields."""
        env = {} if env is None else env
        env.update(zip(block.args, args))
        for op in block.ops:
            self.clone(op, env)
        return [env.get(v, v) for v in block.results]


def clone_block(block: Block, env: MutableMapping[Value, Value]) -> Block:
    """A copy of ``block`` with fresh values; ``env`` renames values from around it and gains those inside."""
    b = Builder()
    args = [Value(a.type, a.hint) for a in block.args]
    env.update(zip(block.args, args))
    for a in args:
        a.type = substitute(a.type, env)
    b.args = tuple(args)
    for op in block.ops:
        b.clone(op, env)
    return b.finish([env.get(v, v) for v in block.results])


def clone_function(f: Function, name: str | None = None) -> Function:
    return Function(name or f.name, clone_block(f.body, {}), f.linear, f.loc)


def if_types(regions: Sequence[Block], results: Sequence[Value]) -> list[TensorType]:
    """The types of the ``results`` of an ``if``: where its regions yield two sizes in one place, what the size of a
    tensor yielded beside them is, seen from outside, is the result in that place."""
    then, orelse = regions
    places = list(zip(then.results, orelse.results))

    def seen(a: Dim, b: Dim) -> Dim:
        if a == b or not (isinstance(a, Size) and isinstance(b, Size) and (a.value, b.value) in places):
            return a
        return Size(results[places.index((a.value, b.value))], a.bound)

    return [t.type.with_shape(tuple(map(seen, t.type.shape, e.type.shape))) for t, e in places]


def infer(
    name: str, operands: Sequence[Value], attrs: Mapping[str, Any], regions: Sequence[Block]
) -> Sequence[TensorType]:
    """The result types of an operation. Raises OpTypeError."""
    types = [v.type for v in operands]
    if name == "if":
        return [r.type for r in regions[0].results]
    if name == "for":
        return types[1:]
    if name == "while":
        return types
    if name == "custom":
        names = dict(zip(regions[0].args, operands))
        return [substitute(r.type, names) for r in regions[0].results]
    if name == "kernel":
        domain = tuple(attrs["domain"])
        kept = domain[: len(domain) - attrs["reduced"]]
        given = zip(regions[0].results, attrs["combine"])
        return [TensorType(r.type.dtype, kept if kind else domain) for r, kind in given]
    return OPS[name].infer(attrs, types)


__all__ = ["BOOL", "Builder", "clone_block", "clone_function", "if_types", "infer"]
