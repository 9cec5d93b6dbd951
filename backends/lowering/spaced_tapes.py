"""Tapes that keep what a loop carries once in a few rounds; the rounds between run again where the tape is read.

    for k in n: t[k] = x;  x = f(x)                    for k in n / 2: t[k] = x;  x = f(f(x))
    for k in n: p = p * df(t[n - 1 - k])       ->      for k in n / 2: a = t[n / 2 - 1 - k];  b = f(a)
                                                                       p = p * df(b) * df(a)

A GPU computes about a hundred numbers in the time in which it writes one to its memory and reads it again, and the
tapes of many threads do not fit into its caches. Where they are the rounds of a loop around, what runs again stays in
registers. The rounds left over come behind, as they were, with a short tape. This is the checkpointing of Griewank and
Walther ("Evaluating Derivatives", chapter 12), of one level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from dflow.backends.mathlib import MATH_FUNCTIONS
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, free_values, walk
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.dce import dce
from dflow.ir.passes.linear_forms import plus, terms
from dflow.ir.passes.rewrite import (
    LOOPS,
    UPDATES,
    Env,
    append_copy,
    constant_of,
    has,
    has_effect,
    overwritten,
    rebuild_loops,
    rename,
    same,
)
from dflow.ir.types import TensorType

SPACES = (4, 2)  # rounds from one row of a tape to the next
FEWEST = 16  # rounds of a loop
SMALL = 16  # elements of what a loop carries
MOST_HELD = 96  # registers for what is computed again
LONGEST = 1024  # operations of the rounds that are written out
PER_BYTE = 9  # instructions of one lane in the time of a byte: an H100 does 30e12 a second, and moves 3.3e12
MATH = 24  # instructions of a function


@dataclass(frozen=True)
class _Tape:
    """``maker`` writes ``value`` of each round to its result at ``position``."""

    position: int
    value: Value
    write: Op


@dataclass(frozen=True)
class _Pair:
    """A loop with tapes, and the loop that reads them backwards; ``carried`` are the positions of what the tapes depend
    on, ``again`` the operations that compute it, ``space`` how many rounds have one row."""

    maker: Op
    reader: Op
    tapes: list[_Tape]
    carried: list[int]
    again: list[Op]
    space: int


def spaced_tapes(f: Function) -> Function:
    """``f`` with tapes of fewer rows in loops inside of loops."""
    if not has(f, "for"):
        return f
    written, found = overwritten(f), list[_Pair]()

    def write(b: Builder, loop: Op, body: Block, env: Env) -> bool:
        pairs = _pairs(body, set(rename(list(written), env)))
        found.extend(pairs)
        if not pairs:
            return False
        append_copy(b, loop, env, [_spaced(body, pairs)])
        return True

    made = rebuild_loops(f, write)
    return dce(made) if found else f


# --- finding


def _pairs(body: Block, written: set[Value]) -> list[_Pair]:
    """Loops of a block with tapes that one later loop reads backwards."""
    loops = [op for op in body.ops if op.name == "for" and not _has_loops(op)]
    uses = count_uses(body) if len(loops) > 1 else Counter[Value]()
    found = list[_Pair]()
    for n, maker in enumerate(loops):
        tapes = [t for position in range(len(maker.results)) if (t := _tape(maker, position, uses)) is not None]
        taken = {op for p in found for op in (p.maker, p.reader)}
        if not tapes or maker in taken:
            continue
        for reader in loops[n + 1 :]:
            read = [t for t in tapes if _is_read(maker.results[t.position], maker, reader, uses)]
            if read and reader not in taken and (pair := _pair(maker, reader, read, written)) is not None:
                found.append(pair)
                break
    return found


def _has_loops(op: Op) -> bool:
    return any(o.name in LOOPS for r in op.regions for o in walk(r))


def _tape(maker: Op, position: int, uses: Counter[Value]) -> _Tape | None:
    """The tape that the result at ``position`` is: a row for each round, of a small value."""
    (body,), init = maker.regions, maker.operands[1 + position]
    arg, write = body.args[1 + position], body.results[position].op
    if init.op is None or init.op.name not in ("empty", "tape") or init.type.rank == 0 or uses[init] != 1:
        return None
    if write is None or write.name != "update" or write not in body.ops or write.operands[0] is not arg:
        return None
    value, *at = write.operands[1:]
    rows = ("at", *("all" for _ in value.type.shape))
    if write.attrs["index"] != rows or at != [body.args[0]] or uses[arg] != 1 or uses[write.result] != 1:
        return None
    return _Tape(position, value, write) if _is_small(value.type) else None


def _is_small(t: TensorType) -> bool:
    return t.is_static and prod(t.static_shape) <= SMALL


def _is_read(tape: Value, maker: Op, reader: Op, uses: Counter[Value]) -> bool:
    """Whether all that is done with a tape is that the ``reader`` takes the last row, then the one before it, ..."""
    reads = [op for op in reader.regions[0].ops if op.name == "extract" and op.operands[0] is tape]
    return len(reads) == uses[tape] > 0 and all(_is_backwards(op, maker, reader) for op in reads)


def _is_backwards(read: Op, maker: Op, reader: Op) -> bool:
    if not same(maker.operands[0], reader.operands[0]) or read.attrs["index"][0] != "at":
        return False
    last = plus(terms(maker.operands[0]), {None: 1}, -1)
    return terms(read.operands[1]) == plus(last, {reader.regions[0].args[0]: 1}, -1)


def _pair(maker: Op, reader: Op, tapes: list[_Tape], written: set[Value]) -> _Pair | None:
    """What has to run again for the ``reader``, where that pays."""
    count = constant_of(maker.operands[0])
    if count is not None and count < FEWEST:
        return None
    (body,) = maker.regions
    carried, again = _needed(body, [t.value for t in tapes])
    states = [body.args[1 + c] for c in carried]
    if not all(_is_small(v.type) for v in states) or not all(_is_pure(op, written, states) for op in again):
        return None
    if any(map(has_effect, walk(reader.regions[0]))):
        return None
    before, after = _bytes(t.value for t in tapes), _bytes(states)
    work, held = _work(again), _held(reader, [maker.results[t.position] for t in tapes])
    length = len(again) + len(reader.regions[0].ops)
    for space in SPACES:
        saved = 2 * PER_BYTE * (before - after / space)
        if saved > work * (space - 1) / space and held * space <= MOST_HELD and length * space <= LONGEST:
            return _Pair(maker, reader, tapes, carried, again, space)
    return None


def _needed(body: Block, values: Sequence[Value]) -> tuple[list[int], list[Op]]:
    """The positions of what goes round, and the operations, on which values depend in any round."""
    needed, seen, carried, ops = list(values), set(values), list[int](), set[Op]()
    for v in needed:
        more: list[Value] = []
        if v.owner is body and v is not body.args[0]:
            carried.append(body.args.index(v) - 1)
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


def _work(ops: Sequence[Op]) -> int:
    """Instructions, about; of f64 there are half as many at a time."""
    total = 0
    for op in (o for top in ops for o in (top, *(x for r in top.regions for x in walk(r)))):
        if op.name not in ("constant", "extract", "if", "broadcast", "reshape"):
            words = sum(prod(r.type.static_shape) * max(1, r.type.dtype.itemsize // 4) for r in op.results)
            total += words * (MATH if op.name in MATH_FUNCTIONS else 1)
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


# --- writing


def _spaced(body: Block, pairs: Sequence[_Pair]) -> Block:
    makers, readers = {p.maker: p for p in pairs}, {p.reader: p for p in pairs}
    b = Builder()
    b.args = body.args
    env: Env = {}
    writers: dict[Op, _Writer] = {}
    for op in body.ops:
        b.loc = op.loc
        if op in makers:
            writers[op] = _Writer(b, makers[op], env)
            writers[op].forwards()
        elif op in readers:
            writers[readers[op].maker].backwards()
        else:
            b.clone(op, env)
    return b.finish(rename(body.results, env))


class _Writer:
    """Writes the loops of a pair: first whole spaces of rounds, then the rounds behind them, and the way back."""

    def __init__(self, b: Builder, pair: _Pair, env: Env):
        self.b, self.pair, self.env = b, pair, env
        (self.body,), (self.back,) = pair.maker.regions, pair.reader.regions
        self.names = {t.position for t in pair.tapes}
        count, space = env.get(pair.maker.operands[0], pair.maker.operands[0]), pair.space
        if (n := constant_of(count)) is not None:
            self.spaces, self.rest = b.index(n // space), b.index(n % space)
        else:
            count = b.max(count, b.index(0))
            self.spaces = b.shr(count, b.index(space.bit_length() - 1))
            self.rest = b.and_(count, b.index(space - 1))
        self.first = b.mul(self.spaces, b.index(space))  # of the rounds behind

    def _others(self, values: Sequence[Value]) -> list[Value]:
        """What the maker carries beside the tapes."""
        return [v for n, v in enumerate(values) if n not in self.names]

    def forwards(self) -> None:
        b, pair, maker = self.b, self.pair, self.pair.maker
        inits = rename(self._others(maker.operands[1:]), self.env)
        rows = [self._tape(self.body.args[1 + c].type) for c in pair.carried]
        hints = [r.hint for r in self._others(maker.results)]
        found = b.for_loop(self.spaces, [*inits, *rows], self._spaces, hints)
        others, self.rows = list(found[: len(inits)]), found[len(inits) :]
        if constant_of(self.rest) != 0:
            short = [b.emit("empty", type=_rows(pair.space - 1, t.value.type)) for t in pair.tapes]
            found = b.for_loop(self.rest, [*others, *short], self._rest, hints)
            others, self.short = list(found[: len(inits)]), found[len(inits) :]
        self.env.update(zip(self._others(maker.results), others))

    def _tape(self, t: TensorType) -> Value:
        """A row for each space, of something like that for which there was one for each round."""
        like = self.pair.maker.operands[1 + self.pair.tapes[0].position].op
        assert like is not None
        rows = like.result.type.shape[0]
        if isinstance(rows, int):
            return self.b.emit("empty", type=_rows(max(1, rows // self.pair.space), t))
        return self.b.emit("tape", *([self.spaces] if like.operands else []), type=t.with_shape((rows, *t.shape)))

    def _spaces(self, b: Builder, k: Value, *carried: Value) -> list[Value]:
        many = len(carried) - len(self.pair.carried)
        states, rows = list(carried[:many]), carried[many:]
        now = dict(zip(self._others(self.body.args[1:]), states))
        kept = [now[self.body.args[1 + c]] for c in self.pair.carried]
        written = [b.update(row, v, k, index=_whole_row(v.type)) for row, v in zip(rows, kept)]
        first = b.mul(k, b.index(self.pair.space))
        for n in range(self.pair.space):
            states, _ = self._round(b, b.add(first, b.index(n)), states)
        return [*states, *written]

    def _rest(self, b: Builder, k: Value, *carried: Value) -> list[Value]:
        many = len(carried) - len(self.pair.tapes)
        states, values = self._round(b, b.add(self.first, k), carried[:many])
        rows = zip(carried[many:], values)
        return [*states, *(b.update(row, v, k, index=_whole_row(v.type)) for row, v in rows)]

    def _round(self, b: Builder, k: Value, states: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        """The round ``k`` of the maker: what it carries, and what was written to tapes."""
        names = {**self.env, self.body.args[0]: k, **dict(zip(self._others(self.body.args[1:]), states))}
        writes = {t.write for t in self.pair.tapes}
        for op in self.body.ops:
            if op not in writes:
                b.clone(op, names)
        return rename(self._others(self.body.results), names), rename([t.value for t in self.pair.tapes], names)

    # --- back

    def backwards(self) -> None:
        b, reader = self.b, self.pair.reader
        carried, hints = rename(reader.operands[1:], self.env), [r.hint for r in reader.results]
        if constant_of(self.rest) != 0:
            carried = list(b.for_loop(self.rest, carried, self._rest_back, hints))
        found = b.for_loop(self.spaces, carried, self._spaces_back, hints)
        self.env.update(zip(reader.results, found))

    def _rest_back(self, b: Builder, j: Value, *carried: Value) -> list[Value]:
        at = b.sub(b.sub(self.rest, b.index(1)), j)
        values = [b.extract(row, at, index=_whole_row(t.value.type)) for row, t in zip(self.short, self.pair.tapes)]
        return self._round_back(b, j, values, carried)

    def _spaces_back(self, b: Builder, j: Value, *carried: Value) -> list[Value]:
        """What the maker did once more, then back through it."""
        pair, space = self.pair, b.index(self.pair.space)
        at = b.sub(b.sub(self.spaces, b.index(1)), j)
        first = b.mul(at, space)
        states = [
            b.extract(row, at, index=_whole_row(self.body.args[1 + c].type)) for c, row in zip(pair.carried, self.rows)
        ]
        values = list[list[Value]]()
        for n in range(pair.space):
            names: Env = {**self.env, self.body.args[0]: b.add(first, b.index(n))}
            names.update(zip([self.body.args[1 + c] for c in pair.carried], states))
            for op in pair.again:
                b.clone(op, names)
            values.append(rename([t.value for t in pair.tapes], names))
            states = rename([self.body.results[c] for c in pair.carried], names)
        before = b.add(self.rest, b.mul(j, space))
        for n, found in enumerate(reversed(values)):
            carried = tuple(self._round_back(b, b.add(before, b.index(n)), found, carried))
        return list(carried)

    def _round_back(self, b: Builder, j: Value, values: Sequence[Value], carried: Sequence[Value]) -> list[Value]:
        """The round ``j`` of the reader, where ``values`` are what it reads."""
        names = {**self.env, **dict(zip(self.back.args, (j, *carried)))}
        read = {self.pair.maker.results[t.position]: v for t, v in zip(self.pair.tapes, values)}
        for op in self.back.ops:
            if op.name == "extract" and op.operands[0] in read:
                names[op.result] = _part(b, read[op.operands[0]], op, names)
            else:
                b.clone(op, names)
        return rename(self.back.results, names)


def _part(b: Builder, row: Value, read: Op, names: Env) -> Value:
    """What ``read`` takes of a row."""
    index = read.attrs["index"][1:]
    if all(entry == "all" for entry in index):
        return row
    return b.extract(row, *rename(read.operands[2:], names), index=index)


def _rows(count: int, t: TensorType) -> TensorType:
    return t.with_shape((count, *t.shape))


def _whole_row(t: TensorType) -> tuple[str, ...]:
    return ("at", *("all" for _ in t.shape))
