"""Products of one large matrix from both sides become one loop over its rows, which reads it once.

    %z = matmul %A, %p : f64[m, 1]             %z, %y = for m, %empty, %zeros { (%i, %z, %y)
    %r = f(%z)                                     %a = extract %A, %i; %s = sum(%a * %p)
    %y = matmul %r, %A : f64[1, n]     ->          yield update(%z, %s, %i), %y + f(%s) * %a }

A matrix beyond the caches takes as long as it takes to read it, so that the second product comes for nothing. So it is
for the gradient of least squares, and for methods that multiply by a matrix and its transpose. ``f`` is arithmetic on
numbers of one row, or there is none and ``%r`` comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.rewrite import Env, append_copy, has, rebuild, rebuild_region
from dflow.ir.registry import definition
from dflow.ir.types import TensorType

LEAST = 1 << 24  # bytes of a matrix
MOST = 1 << 18  # bytes of a row, which is read twice
LONGEST = 64  # operations of a row between the products


@dataclass(frozen=True)
class _Pair:
    """``column`` is A @ p, ``row`` is r @ A; ``place`` is that of the first of the two in their block."""

    column: Op
    row: Op
    place: int


def one_pass(f: Function) -> Function:
    """``f`` with pairs of products of a large matrix as loops over its rows."""
    if not has(f, "matmul"):
        return f

    def fill(b: Builder, block: Block, env: Env) -> None:
        places = {op: k for k, op in enumerate(block.ops)}
        pairs = _pairs(block, places)
        done: set[Op] = set()
        for op in block.ops:
            b.loc = op.loc
            if op in pairs and op not in done:
                pair = pairs[op]
                done |= {pair.column, pair.row}
                _Written(b, env, pair, places).write()
            elif op not in done:
                append_copy(b, op, env, [rebuild_region(r, env, fill) for r in op.regions])

    return rebuild(f, fill)


def _pairs(block: Block, places: Mapping[Op, int]) -> dict[Op, _Pair]:
    products = [op for op in block.ops if op.name == "matmul" and op.result.type.is_static and op.result.type.rank == 2]
    columns = [op for op in products if op.result.type.shape[1] == 1 and _is_large(op.operands[0].type)]
    rows = [op for op in products if op.result.type.shape[0] == 1 and _is_large(op.operands[1].type)]
    found: dict[Op, _Pair] = {}
    for column in columns:
        for row in rows:
            if column.operands[0] is row.operands[1] and column not in found and row not in found:
                pair = _Pair(column, row, min(places[column], places[row]))
                if _fits(pair, places):
                    found[column] = found[row] = pair
    return found


def _is_large(t: TensorType) -> bool:
    if not t.is_static or t.dtype.name not in ("f64", "f32"):
        return False
    return prod(t.static_shape) * t.dtype.itemsize >= LEAST and t.static_shape[1] * t.dtype.itemsize <= MOST


def _fits(pair: _Pair, places: Mapping[Op, int]) -> bool:
    """Whether all that the loop reads is there at its place."""
    p, length = pair.column.operands[1], 0
    while not _is_there(p, pair, places):
        if p.op is None or p.op.name != "reshape":
            return False
        p = p.op.operands[0]
    wanted, seen = [pair.row.operands[0]], set[Value]()
    while wanted:
        v = wanted.pop()
        if v in seen or v is pair.column.result or _is_there(v, pair, places):
            continue
        seen.add(v)
        length += 1
        if v.op is None or length > LONGEST or not _is_of_rows(v.op, pair.column.result.type.static_shape[0]):
            return False
        wanted += v.op.operands
    return True


def _is_there(v: Value, pair: _Pair, places: Mapping[Op, int]) -> bool:
    return v.op is None or places.get(v.op, -1) < pair.place


def _is_of_rows(op: Op, count: int) -> bool:
    """Whether a number of the result, one for each row, comes of those of that row alone."""
    if op.regions or len(op.results) != 1 or not op.result.type.is_static or op.name == "constant":
        return op.name == "constant"
    if op.name == "broadcast":
        return not op.operands[0].type.rank
    if op.name == "reshape":
        t = op.operands[0].type
        return t.is_static and prod(t.static_shape) == count
    return definition(op).elementwise


class _Written:
    """Writes a pair as a loop into ``b``."""

    def __init__(self, b: Builder, env: Env, pair: _Pair, places: Mapping[Op, int]):
        self.b, self.env, self.pair, self.places = b, env, pair, places
        self.matrix = env.get(pair.column.operands[0], pair.column.operands[0])
        self.m, self.n = self.matrix.type.static_shape
        self.flat: dict[Value, Value] = {}  # what is read row by row

    def write(self) -> None:
        b, dtype = self.b, self.matrix.type.dtype
        p = self.vector(self.pair.column.operands[1], self.n)
        self.prepare(self.pair.row.operands[0])

        def body(b: Builder, i: Value, z: Value, y: Value) -> list[Value]:
            a = b.extract(self.matrix, i, index=("at", "all"))
            s = b.emit("reduce", b.mul(a, p), kind="sum", axes=(0,))
            r = self.number(b, self.pair.row.operands[0], i, {self.pair.column.result: s})
            y = b.add(y, b.mul(b.broadcast_scalar(r, (self.n,)), a))
            return [b.update(z, s, i, index=("at",)), y]

        inits = [b.emit("empty", type=TensorType(dtype, (self.m,))), b.zeros(TensorType(dtype, (self.n,)))]
        z, y = b.for_loop(b.index(self.m), inits, body)
        self.env[self.pair.column.result] = b.reshape(z, shape=(self.m, 1))
        self.env[self.pair.row.result] = b.reshape(y, shape=(1, self.n))

    def vector(self, v: Value, size: int) -> Value:
        """What ``v`` has, along one axis."""
        while not _is_there(v, self.pair, self.places):
            assert v.op is not None
            v = v.op.operands[0]
        return self.b.reshape(self.env.get(v, v), shape=(size,))

    def prepare(self, v: Value) -> None:
        """Makes vectors of all that ``v`` is made of and that is there."""
        if v is self.pair.column.result or v in self.flat:
            return
        if _is_there(v, self.pair, self.places):
            self.flat[v] = self.vector(v, self.m) if v.type.rank else self.env.get(v, v)
        elif v.op is not None and v.op.name == "constant":
            made = self.b.clone(v.op, {})[0]
            self.flat[v] = self.b.reshape(made, shape=(self.m,)) if v.type.rank else made
        elif v.op is not None:
            for x in v.op.operands:
                self.prepare(x)

    def number(self, b: Builder, v: Value, i: Value, known: dict[Value, Value]) -> Value:
        """The number of ``v`` for row ``i``."""
        if v not in known:
            known[v] = self.computed(b, v, i, known)
        return known[v]

    def computed(self, b: Builder, v: Value, i: Value, known: dict[Value, Value]) -> Value:
        if v in self.flat:
            found = self.flat[v]
            return b.extract(found, i, index=("at",)) if found.type.rank else found
        assert v.op is not None
        parts = [self.number(b, x, i, known) for x in v.op.operands]
        if v.op.name in ("broadcast", "reshape"):
            return parts[0]
        return b.emit(v.op.name, *parts, **v.op.attrs)
