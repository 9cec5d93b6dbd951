"""Batching of programs whose slices meet: a function that is mapped over a named axis.

    (%x: f64) -> reduce (gather_slices %x)        with 10 slices:        (%x: f64[10]) -> reduce %x

As the slices go on together, nothing is left to a loop over whole slices: an operation without a batched form is one
loop over the slices, and control flow in which slices meet is batched itself. There, the count of a loop, the condition
of a ``while`` and the predicate of an ``if`` must be the same for all slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Location, Op, Value, free_values, walk
from dflow.ir.types import I64, scalar

if TYPE_CHECKING:
    from dflow.ir.passes.batch import Batch

MEETINGS = ("gather_slices", "scatter_slices")


class NotBatchedError(TypeError):
    """Slices cannot go on together here. ``loc`` is the user's line."""

    def __init__(self, message: str, loc: Location | None):
        super().__init__(message)
        self.loc = loc


def meets(f: Function, axis: str) -> bool:
    """Whether anything in the function speaks of the slices of this axis."""
    return any(op.attrs.get("axis") == axis for op in walk(f.body) if op.name in (*MEETINGS, "slice_number"))


def numbered(f: Function, axis: str) -> Function:
    """``f`` with the number of the slice as one more parameter, the last."""
    env: dict[Value, Value] = {}
    made = [op.result for op in walk(f.body) if op.name == "slice_number" and op.attrs["axis"] == axis]
    b = Builder.like(f.args, env, f.loc)
    number = Value(scalar(I64), "number")
    b.args = (*b.args, number)
    env.update((v, number) for v in made)
    results = [env.get(v, v) for v in _without(b, f.body, {*made}, env)]
    return b.function(f.name, results, loc=f.loc)


def _without(b: Builder, block: Block, gone: set[Value], env: dict[Value, Value]) -> Sequence[Value]:
    """Appends the operations but those whose results are ``gone``, in the regions inside, too."""
    for op in block.ops:
        if not gone.isdisjoint(op.results):
            continue
        regions = []
        for r in op.regions:
            inner = Builder.like(r.args, env, op.loc)
            regions.append(inner.finish([env.get(v, v) for v in _without(inner, r, gone, env)]))
        bare = Op(op.name, op.operands, op.results, op.attrs, (), op.loc)
        b.clone(bare, env)
        b.ops[-1].regions = tuple(regions)
        for v in op.results:  # `Op` has made the bare one their owner
            v.owner = op
    return block.results


# -- operations ----------------------------------------------------------------------------------------------------


def together(pass_: Batch, op: Op) -> bool:
    """Appends an operation in which slices meet, or that has no other batched form."""
    if op.name in MEETINGS:
        _meeting(pass_, op)
    elif any(o.name in MEETINGS and o.attrs["axis"] == pass_.axis for r in op.regions for o in walk(r)):
        if op.name not in CONTROL:
            raise NotBatchedError(f"slices meet in a `{op.name}`", op.loc)
        CONTROL[op.name](pass_, op)
    else:
        return _one_by_one(pass_, op)
    return True


def _meeting(pass_: Batch, op: Op) -> None:
    b, (x,), (old,) = pass_.b, op.operands, op.results
    if op.attrs["axis"] != pass_.axis:  # of a vmap further out
        second = (1, 0, *range(2, old.type.rank + 1)) if op.name == "gather_slices" else None
        whole = pass_.whole(x)
        if second is None:
            whole = b.transpose(whole, perm=(1, 0, *range(2, x.type.rank + 1)))
        new = b.emit(op.name, whole, **op.attrs)
        pass_.define(old, new if second is None else b.transpose(new, perm=second))
    elif op.name == "gather_slices":
        pass_.env[old] = pass_.whole(x)  # which is the same for all
    elif x in pass_.mapped:
        pass_.define(old, b.reduce(pass_.env[x], kind="sum", axes=(0,)))
    else:
        pass_.define(old, b.mul(pass_.same(x), pass_.size))


def _one_by_one(pass_: Batch, op: Op) -> bool:
    """One operation in a loop over the slices."""
    used = [v for v in dict.fromkeys((*op.operands, *free_values(*op.regions))) if v in pass_.mapped]
    types = [r.type for r in op.results]
    if not all(t.is_static for t in types):
        return False

    def body(inner: Builder, k: Value, *tables: Value) -> list[Value]:
        env = dict(pass_.env)
        env.update((v, inner.extract(pass_.env[v], k, index=_row(v.type.rank))) for v in used)
        parts = inner.clone(op, env)
        return [inner.update(t, p, k, index=_row(p.type.rank)) for t, p in zip(tables, parts)]

    tables = [pass_.b.zeros(pass_.batched(t)) for t in types]
    for old, new in zip(op.results, pass_.b.for_loop(pass_.b.index(pass_.size), tables, body)):
        pass_.define(old, new)
    return True


def _row(rank: int) -> tuple[str, ...]:
    return ("at", *["all"] * rank)


# -- control flow --------------------------------------------------------------------------------------------------


def _region(pass_: Batch, block: Block, mapped: Sequence[bool]) -> tuple[Batch, Builder]:
    """The operations of a region, batched; some of its arguments are."""
    types = [pass_.batched(a.type) if m else a.type for a, m in zip(block.args, mapped)]
    inner = Builder(types, [a.hint for a in block.args], pass_.b.loc)
    sub = pass_.inside(inner, dict(zip(block.args, inner.args)), {a for a, m in zip(block.args, mapped) if m})
    _run(sub, block)
    return sub, inner


def _run(pass_: Batch, block: Block) -> None:
    if not pass_.run(block):
        raise NotBatchedError("an array beside slices that meet has a size that depends on the run", pass_.b.loc)


def _carried(pass_: Batch, op: Op, inits: Sequence[Value], body: Block, first: int) -> list[bool]:
    """Which of the values that a loop carries differ between slices."""
    varies = [v in pass_.mapped for v in inits]
    while True:
        sub, _ = _region(pass_, body, [False] * first + varies)
        found = [v or r in sub.mapped for v, r in zip(varies, body.results)]
        if found == varies:
            return varies
        varies = found


def _given(pass_: Batch, values: Sequence[Value], varies: Sequence[bool]) -> list[Value]:
    return [pass_.whole(v) if m else pass_.same(v) for v, m in zip(values, varies)]


def _require_same(pass_: Batch, v: Value, what: str, op: Op) -> None:
    if v in pass_.mapped:
        raise NotBatchedError(f"slices meet in {what} that differs from slice to slice", op.loc)


def _finish(pass_: Batch, op: Op, operands: Sequence[Value], regions: Sequence[Block], varies: Sequence[bool]) -> None:
    hints = [r.hint for r in op.results]
    made = pass_.b.append(op.name, operands, op.attrs, regions, hints, op.loc)
    for old, new, m in zip(op.results, made, varies, strict=True):
        pass_.env[old] = new
        if m:
            pass_.mapped.add(old)


def _for(pass_: Batch, op: Op) -> None:
    count, *inits = op.operands
    _require_same(pass_, count, "a loop whose length", op)
    (body,) = op.regions
    varies = _carried(pass_, op, inits, body, 1)
    sub, inner = _region(pass_, body, [False, *varies])
    block = inner.finish(_given(sub, body.results, varies))
    _finish(pass_, op, [pass_.same(count), *_given(pass_, inits, varies)], [block], varies)


def _while(pass_: Batch, op: Op) -> None:
    cond, body = op.regions
    varies = _carried(pass_, op, op.operands, body, 0)
    asked, asking = _region(pass_, cond, varies)
    _require_same(asked, cond.results[0], "a `while` whose condition", op)
    sub, inner = _region(pass_, body, varies)
    regions = [asking.finish([asked.same(cond.results[0])]), inner.finish(_given(sub, body.results, varies))]
    _finish(pass_, op, _given(pass_, op.operands, varies), regions, varies)


def _if(pass_: Batch, op: Op) -> None:
    (pred,) = op.operands
    _require_same(pass_, pred, "a branch of an `if` that is taken by a condition", op)
    made = [_region(pass_, r, []) for r in op.regions]
    places = zip(*(r.results for r in op.regions))
    varies = [any(v in sub.mapped for v, (sub, _) in zip(pair, made)) for pair in places]
    regions = [inner.finish(_given(sub, r.results, varies)) for r, (sub, inner) in zip(op.regions, made)]
    _finish(pass_, op, [pass_.same(pred)], regions, varies)


def _custom(pass_: Batch, op: Op) -> None:
    """What is computed again in a reverse pass is computed as it stands; other rules are for one slice alone."""
    if not op.attrs["rule"].recomputes:
        raise NotBatchedError("slices meet in a function with a derivative rule of its own", op.loc)
    (body,) = op.regions
    pass_.env.update((a, pass_.same(v)) for a, v in zip(body.args, op.operands))
    pass_.mapped.update(a for a, v in zip(body.args, op.operands) if v in pass_.mapped)
    _run(pass_, body)
    pass_.env.update((r, pass_.same(v)) for r, v in zip(op.results, body.results))
    pass_.mapped.update(r for r, v in zip(op.results, body.results) if v in pass_.mapped)


CONTROL = {"for": _for, "while": _while, "if": _if, "custom": _custom}
