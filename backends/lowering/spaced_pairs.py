"""Loops with tapes that a later loop reads backwards, and what has to run again where tapes have fewer rows.

For `spaced_tapes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from dflow.backends.mathlib import MATH_FUNCTIONS
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.linear_forms import plus, terms
from dflow.ir.passes.rewrite import LOOPS, UPDATES, constant_of, has_effect, same
from dflow.ir.types import I64, TensorType

SPACES = (4, 2)  # rounds from one row of a tape to the next
FEWEST = 16  # rounds of a loop
SMALL = 16  # elements of what a loop carries
MOST_HELD = 96  # registers for what is computed again
LONGEST = 1024  # operations of the rounds that are written out
PER_BYTE = 9  # instructions of one lane in the time of a byte: an H100 does 30e12 a second, and moves 3.3e12
# Instructions of a function, of a division or a root, and of others: products that are added to are one with that.
MATH, SLOW, PLAIN = 24, 8, 2 / 3


@dataclass(frozen=True)
class Loop:
    """A loop that may write tapes. What goes round: ``inits``, then ``args`` in its ``body``; ``number`` is that of the
    round there, and ``count`` how many there are: of a ``while``, one of its results."""

    op: Op
    body: Block
    inits: Sequence[Value]
    args: Sequence[Value]
    number: Value
    count: Value


@dataclass(frozen=True)
class Tape:
    """``maker`` writes ``value`` of each round to its result at ``position``."""

    position: int
    value: Value
    write: Op


@dataclass(frozen=True)
class Pair:
    """A loop with tapes, and the loop that reads them backwards; ``carried`` are the positions of what the tapes depend
    on, ``again`` the operations that compute it, ``space`` how many rounds have one row."""

    maker: Loop
    reader: Op
    tapes: list[Tape]
    carried: list[int]
    again: list[Op]
    space: int


def pairs_of(body: Block, written: set[Value]) -> list[Pair]:
    """Loops of a block with tapes that one later loop reads backwards."""
    loops = [op for op in body.ops if op.name in ("for", "while") and not _has_loops(op)]
    uses = count_uses(body) if len(loops) > 1 else Counter[Value]()
    found = list[Pair]()
    for n, op in enumerate(loops):
        taken = {x for p in found for x in (p.maker.op, p.reader)}
        if op in taken or (maker := _as_loop(op)) is None:
            continue
        tapes = [t for position in range(len(op.results)) if (t := _tape(maker, position, uses)) is not None]
        for reader in loops[n + 1 :] if tapes else ():
            if reader in taken or reader.name != "for":
                continue
            read = [t for t in tapes if _is_read(op.results[t.position], maker, reader, uses)]
            if read and (pair := _pair(maker, reader, read, written)) is not None:
                found.append(pair)
                break
    return found


def _as_loop(op: Op) -> Loop | None:
    """A loop whose rounds have a number; that of a ``while`` goes round."""
    body = op.regions[-1]
    if op.name == "for":
        return Loop(op, body, op.operands[1:], body.args[1:], body.args[0], op.operands[0])
    for init, arg, result, count in zip(op.operands, body.args, body.results, op.results):
        if constant_of(init) == 0 and init.type.dtype == I64 and terms(result) == plus(terms(arg), {None: 1}, 1):
            return Loop(op, body, op.operands, body.args, arg, count)
    return None


def _has_loops(op: Op) -> bool:
    return any(o.name in LOOPS for r in op.regions for o in walk(r))


def _tape(maker: Loop, position: int, uses: Counter[Value]) -> Tape | None:
    """The tape that the result at ``position`` is: a row for each round, of a small value."""
    body, arg, init = maker.body, maker.args[position], maker.inits[position]
    write = body.results[position].op
    if init.op is None or init.op.name not in ("empty", "tape") or init.type.rank == 0 or uses[init] != 1:
        return None
    if write is None or write.name != "update" or write not in body.ops or write.operands[0] is not arg:
        return None
    if maker.op.name == "while" and uses[maker.op.regions[0].args[position]]:
        return None
    value, *at = write.operands[1:]
    rows = ("at", *("all" for _ in value.type.shape))
    if write.attrs["index"] != rows or at != [maker.number] or uses[arg] != 1 or uses[write.result] != 1:
        return None
    return Tape(position, value, write) if _is_small(value.type) else None


def _is_small(t: TensorType) -> bool:
    return t.is_static and prod(t.static_shape) <= SMALL


def _is_read(tape: Value, maker: Loop, reader: Op, uses: Counter[Value]) -> bool:
    """Whether all that is done with a tape is that the ``reader`` takes the last row, then the one before it, ..."""
    reads = [op for op in reader.regions[0].ops if op.name == "extract" and op.operands[0] is tape]
    return len(reads) == uses[tape] > 0 and all(_is_backwards(op, maker, reader) for op in reads)


def _is_backwards(read: Op, maker: Loop, reader: Op) -> bool:
    if not same(maker.count, reader.operands[0]) or read.attrs["index"][0] != "at":
        return False
    last = plus(terms(maker.count), {None: 1}, -1)
    return terms(read.operands[1]) == plus(last, {reader.regions[0].args[0]: 1}, -1)


def _pair(maker: Loop, reader: Op, tapes: list[Tape], written: set[Value]) -> Pair | None:
    """What has to run again for the ``reader``, where that pays: a GPU computes while it moves, so that the longer of
    both counts."""
    count = constant_of(maker.count)
    if count is not None and count < FEWEST:
        return None
    carried, again = _needed(maker, [t.value for t in tapes])
    states = [maker.args[c] for c in carried]
    if not all(_is_small(v.type) for v in states) or not all(_is_pure(op, written, states) for op in again):
        return None
    if any(map(has_effect, walk(reader.regions[0]))):
        return None
    before, after = 2 * _bytes(t.value for t in tapes), 2 * _bytes(states)
    work, held = _work(again), _held(reader, [maker.op.results[t.position] for t in tapes])
    once, length = _work(maker.body.ops) + _work(reader.regions[0].ops), len(again) + len(reader.regions[0].ops)
    now = max(once, PER_BYTE * before)
    for space in SPACES:
        then = max(once + work * (space - 1) / space, PER_BYTE * after / space)
        if then < now and held * space <= MOST_HELD and length * space <= LONGEST:
            return Pair(maker, reader, tapes, carried, again, space)
    return None


def _needed(maker: Loop, values: Sequence[Value]) -> tuple[list[int], list[Op]]:
    """The positions of what goes round, and the operations, on which values depend in any round."""
    body = maker.body
    needed, seen, carried, ops = list(values), set(values), list[int](), set[Op]()
    for v in needed:
        more: list[Value] = []
        if v.owner is body and v is not maker.number:
            carried.append(maker.args.index(v))
            more = [body.results[carried[-1]], *v.type.size_values]
        elif v.op is not None and v.op in body.ops:
            ops.add(v.op)
            more = [*v.op.uses(), *free_values(*v.op.regions)]
        needed += [x for x in dict.fromkeys(more) if x not in seen]
        seen.update(more)
    return sorted(carried), [op for op in body.ops if op in ops]


def _is_pure(op: Op, written: set[Value], states: Sequence[Value]) -> bool:
    """Whether an operation may run again later: it has small results, checks nothing, and reads nothing that will have
    been written over by then."""
    every = [op, *(o for r in op.regions for o in walk(r))]
    inside = {v for o in every for v in o.results} | set(states)
    return all(
        all(_is_small(r.type) for r in o.results)
        and not has_effect(o)
        and (o.name in UPDATES or all(v in inside or v not in written or not v.type.rank for v in o.operands))
        for o in every
    )


def _bytes(values: Iterator[Value] | Sequence[Value]) -> int:
    return sum(prod(v.type.static_shape) * v.type.dtype.itemsize for v in values)


def _work(ops: Sequence[Op]) -> float:
    """Instructions, about; of f64 there are half as many at a time."""
    total = 0.0
    for op in (o for top in ops for o in (top, *(x for r in top.regions for x in walk(r)))):
        if op.name not in ("constant", "extract", "if", "broadcast", "reshape"):
            made = [r.type for r in op.results if _is_small(r.type)]  # of others a few elements are written
            words = sum(prod(t.static_shape) * max(1, t.dtype.itemsize // 4) for t in made)
            total += words * (MATH if op.name in MATH_FUNCTIONS else SLOW if op.name in ("div", "sqrt") else PLAIN)
    return total


def _held(reader: Op, tapes: Sequence[Value]) -> int:
    """Registers for what a round computes from its tapes alone and combines with what goes round."""
    (body,) = reader.regions
    late, held = set(body.args[1:]), set[Value]()
    for op in body.ops:
        used = {*op.operands, *free_values(*op.regions)}
        if late.isdisjoint(used):
            continue
        late.update(op.results)
        held.update(v for v in used - late if v.op in body.ops and constant_of(v) is None and _varies(v, body, tapes))
    return sum(prod(v.type.bound) * -(-v.type.dtype.itemsize // 4) for v in held)


def _varies(v: Value, body: Block, tapes: Sequence[Value]) -> bool:
    """Whether a value is computed from tapes."""
    found, seen = [v], {v}
    for x in found:
        if x in tapes:
            return True
        if x.op is not None and x.op in body.ops:
            more = [y for y in (*x.op.operands, *free_values(*x.op.regions)) if y not in seen]
            seen.update(more)
            found += more
    return False
