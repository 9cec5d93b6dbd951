"""Recurrences that run again, rather than keep their numbers, where rounds of the loop around go side by side.

    for i in n:                                           for i in n:
        for j in m: t[j] = p;  s += x[j] * p;  p *= u          for j in m: s += x[j] * p;  p *= u
        for j in m: y[j] += f(s) * t[j]              ->        q = p0
                                                               for j in m: y[j] += f(s) * q;  q *= u

A number that is kept for each round of the inner loop is an array, of which each round of the outer loop has its own.
Without it, all that the rounds have are numbers, of which there are vectors (`emit/lanes.py`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dflow.backends.analysis.side_by_side import found_lanes
from dflow.backends.lowering.demand import ARITHMETIC
from dflow.ir.builder import Builder, clone_block
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.dce import dce
from dflow.ir.passes.rewrite import Env, append_copy, has, rebuild_loops, rename, same

MOST = 4  # operations that are cheaper to do again than to write and to read


@dataclass(frozen=True)
class _Kept:
    """``maker`` keeps ``value`` of each round in its result at ``position``, which ``reader`` reads."""

    maker: Op
    reader: Op
    position: int
    value: Value
    ops: list[Op]  # what computes it and the next of the numbers that it depends on
    carried: list[int]


def rerun(f: Function) -> Function:
    """``f`` with such recurrences."""
    return dce(rebuild_loops(f, _write)) if has(f, "for") and _is_nested(f.body) else f


def _is_nested(body: Block) -> bool:
    return any(o.name == "for" for op in body.ops for r in op.regions for o in r.ops) or any(
        _is_nested(r) for op in body.ops for r in op.regions
    )


def _write(b: Builder, loop: Op, body: Block, env: Env) -> bool:
    """Appends ``loop`` around ``body`` with its inner recurrences run again, if rounds go side by side then."""
    if _kept(body) is None:
        return False
    made = clone_block(body, {})  # as it may have been in vain
    while (kept := _kept(made)) is not None:
        made = _without(made, kept)
    found = found_lanes(loop, made)
    if found is None or any(o.name == "for" for o in found.behind):
        return False
    append_copy(b, loop, env, [made])
    return True


def _kept(body: Block) -> _Kept | None:
    uses = None
    for n, maker in enumerate(body.ops):
        if maker.name != "for":
            continue
        for position, (init, result) in enumerate(zip(maker.operands[1:], maker.results)):
            if init.op is None or init.op.name != "empty" or init.type.rank != 1:
                continue
            uses = uses or count_uses(body)
            for reader in body.ops[n + 1 :]:
                alike = reader.name == "for" and same(reader.operands[0], maker.operands[0])
                if alike and (kept := _found(maker, reader, position, result, uses)) is not None:
                    return kept
    return None


def _found(maker: Op, reader: Op, position: int, result: Value, uses: Counter[Value]) -> _Kept | None:
    (first,), (second,) = maker.regions, reader.regions
    write, arg = first.results[position].op, first.args[position + 1]
    if write is None or write.name != "update" or write.operands[0] is not arg or write not in first.ops:
        return None
    value, *at = write.operands[1:]
    if write.attrs["index"] != ("at",) or at != [first.args[0]] or uses[arg] != 1 or uses[write.result] != 1:
        return None
    reads = [o for o in second.ops if o.name == "extract" and o.operands == (result, second.args[0])]
    if not reads or len(reads) != uses[result]:
        return None
    needed, carried, ops = [value], list[int](), list[Op]()
    for v in needed:
        if v in first.args[1:]:
            carried.append(first.args.index(v) - 1)
            needed += [r for r in (first.results[carried[-1]],) if r not in needed]
        elif v.op in first.ops:
            ops.append(v.op)
            needed += [x for x in v.op.operands if x not in needed]
    cheap = all(o.name in ARITHMETIC | {"constant"} and o.result.type.dtype.is_float for o in ops)
    if not carried or not cheap or len(ops) > MOST or first.args[0] in needed:
        return None
    return _Kept(maker, reader, position, value, [o for o in first.ops if o in ops], carried)


def _without(body: Block, kept: _Kept) -> Block:
    """``body`` without the maker's array: the reader computes what it read."""
    b = Builder()
    b.args = body.args
    env: Env = {}
    for op in body.ops:
        b.loc = op.loc
        if op is kept.reader:
            _again(b, kept, env)
        else:
            b.clone(_shorter(kept) if op is kept.maker else op, env)
    return b.finish(rename(body.results, env))


def _shorter(kept: _Kept) -> Op:
    """The maker without its array."""
    op, n, (body,) = kept.maker, kept.position, kept.maker.regions
    write = body.results[n].op
    carried, results = (values[:n] + values[n + 1 :] for values in (body.args[1:], body.results))
    region = Block((body.args[0], *carried), [o for o in body.ops if o is not write], results)
    operands = (*op.operands[: n + 1], *op.operands[n + 2 :])
    return Op("for", operands, op.results[:n] + op.results[n + 1 :], op.attrs, [region], op.loc)


def _again(b: Builder, kept: _Kept, env: Env) -> None:
    (first,), (second,) = kept.maker.regions, kept.reader.regions
    starts = rename([kept.maker.operands[c + 1] for c in kept.carried], env)
    inner = Builder(loc=kept.reader.loc)
    inner.args = (*second.args, *(Value(v.type, v.hint) for v in starts))
    names: Env = {**env, **dict(zip([first.args[c + 1] for c in kept.carried], inner.args[len(second.args) :]))}
    for op in kept.ops:
        inner.clone(op, names)
    number = names.get(kept.value, kept.value)
    for op in second.ops:
        if op.name == "extract" and op.operands == (kept.maker.results[kept.position], second.args[0]):
            names[op.result] = number
        else:
            inner.clone(op, names)
    yields = [*second.results, *(first.results[c] for c in kept.carried)]
    region = inner.finish(rename(yields, names))
    made = b.append("for", [*rename(kept.reader.operands, env), *starts], regions=[region])
    env.update(zip(kept.reader.results, made))
