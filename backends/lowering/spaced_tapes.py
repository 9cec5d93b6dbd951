"""Tapes that keep what a loop carries once in a few rounds; the rounds between run again where the tape is read.

    for k in n: t[k] = x;  x = f(x)                    for k in n / 2: t[k] = x;  x = f(f(x))
    for k in n: p = p * df(t[n - 1 - k])       ->      for k in n / 2: a = t[n / 2 - 1 - k];  b = f(a)
                                                                       p = p * df(b) * df(a)

A GPU computes about a hundred numbers in the time in which it writes one to its memory and reads it again, and the
tapes of many threads do not fit into its caches. Where they are the rounds of a loop around, what runs again stays in
registers. The rounds left over come behind, as they were, with a short tape. A ``while`` writes a row in the first of a
few rounds. This is the checkpointing of Griewank and Walther ("Evaluating Derivatives", chapter 12), of one level.
"""

from __future__ import annotations

from collections.abc import Sequence

from dflow.backends.lowering.spaced_pairs import Pair, pairs_of
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes.dce import dce
from dflow.ir.passes.rewrite import Env, append_copy, constant_of, has, overwritten, rebuild_loops, rename
from dflow.ir.types import TensorType


def spaced_tapes(f: Function) -> Function:
    """``f`` with tapes of fewer rows in loops inside of loops."""
    if not has(f, "for"):
        return f
    written, found = overwritten(f), list[Pair]()

    def write(b: Builder, loop: Op, body: Block, env: Env) -> bool:
        pairs = pairs_of(body, set(rename(list(written), env)))
        found.extend(pairs)
        if not pairs:
            return False
        append_copy(b, loop, env, [_spaced(body, pairs)])
        return True

    made = rebuild_loops(f, write)
    return dce(made) if found else f


def _spaced(body: Block, pairs: Sequence[Pair]) -> Block:
    makers, readers = {p.maker.op: p for p in pairs}, {p.reader: p for p in pairs}
    b = Builder()
    b.args = body.args
    env: Env = {}
    writers: dict[Op, _Writer] = {}
    for op in body.ops:
        b.loc = op.loc
        if op in makers:
            kind = _Counted if op.name == "for" else _Conditional
            writers[op] = kind(b, makers[op], env)
            writers[op].forwards()
        elif op in readers:
            writers[readers[op].maker.op].backwards()
        else:
            b.clone(op, env)
    return b.finish(rename(body.results, env))


class _Writer:
    """Writes the loops of a pair: first whole spaces of rounds, then the rounds behind them, and the way back."""

    rest: Value  # how many rounds are behind the ``spaces``
    spaces: Value
    first: Value  # of the rounds behind
    rows: Sequence[Value]  # one for each space, of what the tapes depend on
    short: Sequence[Value]  # tapes of the rounds behind

    def __init__(self, b: Builder, pair: Pair, env: Env):
        self.b, self.pair, self.maker, self.env = b, pair, pair.maker, env
        (self.back,) = pair.reader.regions
        self.names = {t.position for t in pair.tapes}
        self.hints = [r.hint for r in self._others(pair.maker.op.results)]

    def forwards(self) -> None:
        raise NotImplementedError

    def _divide(self, count: Value) -> None:
        b, space = self.b, self.pair.space
        if (n := constant_of(count)) is not None:
            self.spaces, self.rest = b.index(n // space), b.index(n % space)
        else:
            count = b.max(count, b.index(0))
            self.spaces = b.shr(count, b.index(space.bit_length() - 1))
            self.rest = b.and_(count, b.index(space - 1))
        self.first = b.mul(self.spaces, b.index(space))

    def _others(self, values: Sequence[Value]) -> list[Value]:
        """What the maker carries beside the tapes."""
        return [v for n, v in enumerate(values) if n not in self.names]

    def _tapes(self, rows: Value | None) -> list[Value]:
        """A row for each space, of something like that for which there was one for each round."""
        return [self._tape(self.maker.args[c].type, rows) for c in self.pair.carried]

    def _short_tapes(self) -> list[Value]:
        rows = self.pair.space - 1
        return [self.b.emit("empty", type=_rows(rows, t.value.type)) for t in self.pair.tapes]

    def _tape(self, t: TensorType, spaces: Value | None) -> Value:
        like = self.maker.inits[self.pair.tapes[0].position].op
        assert like is not None
        rows = like.result.type.shape[0]
        if isinstance(rows, int):
            return self.b.emit("empty", type=_rows(max(1, rows // self.pair.space), t))
        known = [spaces] if like.operands and spaces is not None else []
        return self.b.emit("tape", *known, type=t.with_shape((rows, *t.shape)))

    def _kept(self, carried: Sequence[Value]) -> list[Value]:
        """What the tapes depend on, of what goes round."""
        now = dict(zip(self._others(self.maker.args), carried))
        return [now[self.maker.args[c]] for c in self.pair.carried]

    def _round(self, b: Builder, k: Value, states: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        """The round ``k`` of the maker: what it carries, and what was written to tapes."""
        names = {**self.env, **dict(zip(self._others(self.maker.args), states)), self.maker.number: k}
        writes = {t.write for t in self.pair.tapes}
        for op in self.maker.body.ops:
            if op not in writes:
                b.clone(op, names)
        return rename(self._others(self.maker.body.results), names), rename([t.value for t in self.pair.tapes], names)

    def _again(self, b: Builder, k: Value, states: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        """As much of the round ``k`` as the tapes depend on: that of the next round, and what was written to tapes."""
        maker, carried = self.maker, self.pair.carried
        names: Env = {**self.env, **dict(zip([maker.args[c] for c in carried], states)), maker.number: k}
        for op in self.pair.again:
            b.clone(op, names)
        return rename([maker.body.results[c] for c in carried], names), rename(
            [t.value for t in self.pair.tapes], names
        )

    def _states(self, b: Builder, at: Value) -> list[Value]:
        """What there was before a space."""
        return [
            b.extract(row, at, index=_whole_row(self.maker.args[c].type))
            for c, row in zip(self.pair.carried, self.rows)
        ]

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
        first, states = b.mul(at, space), self._states(b, at)
        values = list[list[Value]]()
        for n in range(pair.space):
            states, found = self._again(b, b.add(first, b.index(n)), states)
            values.append(found)
        before = b.add(self.rest, b.mul(j, space))
        for n, found in enumerate(reversed(values)):
            carried = tuple(self._round_back(b, b.add(before, b.index(n)), found, carried))
        return list(carried)

    def _round_back(self, b: Builder, j: Value, values: Sequence[Value], carried: Sequence[Value]) -> list[Value]:
        """The round ``j`` of the reader, where ``values`` are what it reads."""
        names = {**self.env, **dict(zip(self.back.args, (j, *carried)))}
        read = {self.maker.op.results[t.position]: v for t, v in zip(self.pair.tapes, values)}
        for op in self.back.ops:
            if op.name == "extract" and op.operands[0] in read:
                names[op.result] = _part(b, read[op.operands[0]], op, names)
            else:
                b.clone(op, names)
        return rename(self.back.results, names)


class _Counted(_Writer):
    """Of a ``for``: a loop over the spaces, and one over the rounds behind them."""

    def forwards(self) -> None:
        b, maker = self.b, self.maker
        self._divide(self.env.get(maker.count, maker.count))
        inits = rename(self._others(maker.inits), self.env)
        found = b.for_loop(self.spaces, [*inits, *self._tapes(self.spaces)], self._spaces, self.hints)
        others, self.rows = list(found[: len(inits)]), found[len(inits) :]
        if constant_of(self.rest) != 0:
            found = b.for_loop(self.rest, [*others, *self._short_tapes()], self._rest, self.hints)
            others, self.short = list(found[: len(inits)]), found[len(inits) :]
        self.env.update(zip(self._others(maker.op.results), others))

    def _spaces(self, b: Builder, k: Value, *carried: Value) -> list[Value]:
        many = len(carried) - len(self.pair.carried)
        states, rows = list(carried[:many]), carried[many:]
        written = [b.update(row, v, k, index=_whole_row(v.type)) for row, v in zip(rows, self._kept(states))]
        first = b.mul(k, b.index(self.pair.space))
        for n in range(self.pair.space):
            states, _ = self._round(b, b.add(first, b.index(n)), states)
        return [*states, *written]

    def _rest(self, b: Builder, k: Value, *carried: Value) -> list[Value]:
        many = len(carried) - len(self.pair.tapes)
        states, values = self._round(b, b.add(self.first, k), carried[:many])
        rows = zip(carried[many:], values)
        return [*states, *(b.update(row, v, k, index=_whole_row(v.type)) for row, v in rows)]


class _Conditional(_Writer):
    """Of a ``while``: the same loop, in which the first round of each space writes a row. How many rounds there are
    behind the last whole space is known behind the loop: these too run again from a row."""

    def forwards(self) -> None:
        b, op = self.b, self.maker.op
        inits = rename(self._others(op.operands), self.env)
        found = b.while_loop([*inits, *self._tapes(None)], self._goes_on, self._rounds)
        others, self.rows = list(found[: len(inits)]), found[len(inits) :]
        for v, hint in zip(others, self.hints):
            v.hint = hint
        self.env.update(zip(self._others(op.results), others))
        self._divide(self.env[self.maker.count])
        self.short = self._behind()

    def _goes_on(self, b: Builder, *carried: Value) -> Value:
        (cond, _) = self.maker.op.regions
        names = {**self.env, **dict(zip(self._others(cond.args), carried))}
        for op in cond.ops:
            b.clone(op, names)
        return rename(cond.results, names)[0]

    def _rounds(self, b: Builder, *carried: Value) -> list[Value]:
        many, space = len(carried) - len(self.pair.carried), self.pair.space
        states, rows = carried[:many], carried[many:]
        number = dict(zip(self._others(self.maker.args), states))[self.maker.number]

        def write(b: Builder) -> list[Value]:
            k = b.shr(number, b.index(space.bit_length() - 1))
            return [b.update(row, v, k, index=_whole_row(v.type)) for row, v in zip(rows, self._kept(states))]

        is_first = b.eq(b.and_(number, b.index(space - 1)), b.index(0))
        written = b.if_(is_first, write, lambda b: rows)
        return [*self._round(b, number, states)[0], *written]

    def _behind(self) -> Sequence[Value]:
        """Short tapes of the rounds behind the last whole space."""
        many = len(self.pair.carried)

        def again(b: Builder, k: Value, *carried: Value) -> list[Value]:
            states, values = self._again(b, b.add(self.first, k), carried[:many])
            rows = zip(carried[many:], values)
            return [*states, *(b.update(row, v, k, index=_whole_row(v.type)) for row, v in rows)]

        inits = [*self._states(self.b, self.spaces), *self._short_tapes()]
        return self.b.for_loop(self.rest, inits, again)[many:]


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
