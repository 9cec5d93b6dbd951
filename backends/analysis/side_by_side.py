"""Which loops around recurrences of numbers go several rounds at a time; `emit/lanes.py` writes them.

What does not depend on the carried values of the outer loop goes side by side, if it is arithmetic, elements of arrays
that the loop does not change, and loops and branches of these; the loops run equally often in all rounds. So do

- what adds numbers to elements of an array (``y[j] += p``) which is only added to: those of all rounds are added first;
- what reads and writes an array at elements that are each round's own, as that of a tape;
- what writes and reads an array that each round makes for itself: a tape for one round, as long as an inner loop.

The rest comes behind, round by round.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from dflow.backends.analysis.affine import Form, Forms, enter_all
from dflow.backends.analysis.loop_sums import sums
from dflow.backends.analysis.reserved import ACCESSES, is_below
from dflow.backends.analysis.rounds import apart
from dflow.backends.emit.core import cost
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.rewrite import constant_of, has_effect
from dflow.ir.registry import definition
from dflow.ir.types import HALVES, DType

MANY, SOME = 16, 8  # rounds side by side, so that the numbers that they carry have room in registers:
FEW_CARRIED = 2
MOST_CARRIED, MOST_OPERATIONS = 16, 1024  # numbers that leave the registers still go to memory as vectors
ROOM = 1 << 17  # bytes of arrays that rounds make

MAKERS = frozenset({"empty", "tape"})  # of arrays that each round has
WORTH = 6  # times as many rounds make it worth it to keep something side by side, which takes much code
SHORT, WRITTEN_OUT = 16, 128  # iterations of a loop that is written out, and its operations

Users = Mapping[Value, Sequence[tuple[Op, int]]]  # operations that use a value, each with the place of the operand


@dataclass(frozen=True)
class Lanes:
    """``count`` rounds go side by side. ``ahead`` does, ``behind`` comes round by round. ``own`` are arrays of
    which each round has its own elements; ``local`` are those that each round makes for itself, by what
    they are at first."""

    count: int
    ahead: list[Op]
    behind: list[Op]
    own: set[Value]
    local: dict[Value, Value]


def found_lanes(loop: Op, body: Block) -> Lanes | None:
    """How rounds of ``loop`` go side by side, if they do, with ``body`` for its body."""
    if not any(o.name == "for" for o in walk(body)) or any(v.type.grows for v in free_values(body)):
        return None
    trips = constant_of(loop.operands[0])
    rows = _Rounds(body, trips)
    every = [o for a in rows.ahead for o in _all(a)]
    loops = [o for o in every if o.name == "for"]
    carried = max((_carried(a) for a in rows.ahead), default=0)
    count = MANY if carried <= FEW_CARRIED else SOME
    least = count * (WORTH if rows.own or rows.local else 2)
    few = isinstance(trips, int) and trips < least
    if few or carried > MOST_CARRIED or cost(every) > MOST_OPERATIONS:
        return None
    if any(_is_recurrence(o) for o in loops):
        return Lanes(count, rows.ahead, rows.behind, rows.own, rows.local)
    holds = any(_holds(o, body.args[0]) for o in rows.ahead)
    return Lanes(SOME, rows.ahead, rows.behind, rows.own, rows.local) if holds else None


def _carried(op: Op) -> int:
    """How many numbers the loops of ``op`` carry."""
    return sum(v.type.is_scalar for o in _all(op) if o.name == "for" for v in o.operands[1:])


class _Rounds:
    """The operations of a loop's body: those that go side by side, and those that come behind."""

    def __init__(self, body: Block, trips: int | None):
        self.places = Forms(lambda v: False)  # of reads in branches
        if trips is not None:
            self.places.given[body.args[0]] = Form((), 0, max(0, trips - 1))
        enter_all(self.places, body)
        self.shared: set[Value] = set()  # arrays that are only added to
        self.owned: list[set[Value]] = []  # arrays of which each round has its own elements
        self._find_arrays(body)
        self.own = set[Value]().union(*self.owned)
        self.local = _local_arrays(body)
        self._part(body)
        while seen := {self.local[v] for op in self.behind for v in _used(op) if v in self.local}:
            self.local = {v: x for v, x in self.local.items() if x not in seen}
            self._part(body)

    def _part(self, body: Block) -> None:
        self.ahead: list[Op] = []
        self.behind: list[Op] = []
        self.varying = {body.args[0]}  # what differs between rounds
        late, checked = set(body.args[1:]) - self.shared - self.own, False
        for op in body.ops:
            checked = checked or any(map(has_effect, _all(op)))
            if checked or not late.isdisjoint(_used(op)) or not self._is_plain(op):
                late.update(op.results, *(states for states in self.owned if not states.isdisjoint(_used(op))))
                self.behind.append(op)
            else:
                self.ahead.append(op)

    def _find_arrays(self, body: Block) -> None:
        uses, users = count_uses(body), _users(body)
        fails = any(map(has_effect, walk(body)))  # then it would show what later rounds have written
        for a, r in zip(body.args[1:], body.results):
            if not a.type.rank or a is r or a.type.grows:
                continue
            self.shared |= _states(a, r, uses) or set()
            found = None if fails else _reached(a, users, body)
            if found is not None and r in found and body.results.count(r) == 1:
                accesses = [op for v in found for op, _ in users[v] if op.name in ACCESSES]
                if not _takes_bits(accesses, body) and _are_apart(accesses, body):
                    self.owned.append(found)

    def _is_plain(self, op: Op) -> bool:
        """Whether rounds can go side by side in ``op``."""
        known = self.shared | self.own | self.local.keys()
        if any((r.type.rank and r not in known) or not _fits_vectors(r.type.dtype) for r in op.results):
            return False
        if op.name == "update_add" and op.result in self.shared - self.own:
            return self._is_share(op)
        if op.operands and op.operands[0] in self.local:
            self.varying.update(op.results)
            return op.name != "update_add" and self.varying.isdisjoint(op.operands[ACCESSES[op.name] :])
        if op.name in MAKERS:
            return op.result in self.local
        if op.name in ("update", "update_add") and op.result in self.own:
            return True
        if op.name == "for":
            return self._is_plain_loop(op)
        if op.name == "if":
            return self._is_plain_branch(op)
        if op.regions or not (op.name in ("constant", "extract") or definition(op).elementwise):
            return False
        if not self.varying.isdisjoint(op.operands):
            self.varying.update(op.results)
        return True

    def _is_plain_loop(self, loop: Op) -> bool:
        (body,) = loop.regions
        if loop.operands[0] in self.varying:
            return False
        if any(r in self.shared - self.own for r in loop.results) and not self._is_shared_recurrence(body):
            return False
        self.varying.update(v for v in (*body.args[1:], *loop.results) if v.type.is_scalar)
        return all(map(self._is_plain, body.ops))

    def _is_plain_branch(self, branch: Op) -> bool:
        """Whether both regions can be computed where rounds want different ones: they leave nothing but numbers, and
        what they read exists for the others, too."""
        if branch.operands[0] not in self.varying or any(r.type.rank for r in branch.results):
            return False
        self.varying.update(branch.results)
        reads = [o for o in _all(branch) if o.name == "extract"]
        return all(map(self._exists, reads)) and all(self._is_plain(o) for r in branch.regions for o in r.ops)

    def _exists(self, read: Op) -> bool:
        """Whether what is read lies inside of the array, whatever the branches around ask."""
        x, *starts = read.operands
        if not x.type.is_static or any(entry != "at" for entry in read.attrs["index"]):
            return False
        found = [(self.places.of(v), d) for v, d in zip(starts, x.type.static_shape)]
        return all(f is not None and not f.terms and f.low >= 0 and f.high < d for f, d in found)

    def _is_share(self, op: Op) -> bool:
        """Whether ``op`` adds a number of its own for each round to the same element."""
        number = op.operands[1]
        return self.varying.isdisjoint(op.operands[2:]) and number in self.varying and number.type.dtype.is_float

    def _is_shared_recurrence(self, body: Block) -> bool:
        """Whether a loop adds what it computes from numbers that go round, and reads nothing else for each round."""
        reads = [v for o in body.ops if o.name == "extract" for v in o.operands[1:]]
        numbers = any(a.type.is_scalar for a in body.args[1:])
        return numbers and self.varying.isdisjoint(reads) and not any(o.regions for o in body.ops)


def _all(op: Op) -> Iterator[Op]:
    """An operation and those in its regions."""
    yield op
    for r in op.regions:
        yield from walk(r)


def _used(op: Op) -> set[Value]:
    return {*op.operands, *free_values(*op.regions)}


def _states(a: Value, r: Value, uses: Counter[Value]) -> set[Value] | None:
    """The array ``a`` as it is until it is ``r``, when it is only added to, in inner loops too."""
    states, v = {a, r}, r
    while v is not a:
        op = v.op
        if op is None or uses[v] != 1:
            return None
        if op.name == "update_add":
            v = op.operands[0]
        elif op.name == "for":
            n, (inner,) = op.results.index(v) + 1, op.regions
            found = _states(inner.args[n], inner.results[n - 1], uses)
            if found is None:
                return None
            states |= found
            v = op.operands[n]
        else:
            return None
        states.add(v)
    return states if uses[a] == 1 else None


def _users(body: Block) -> Users:
    users = defaultdict[Value, list[tuple[Op, int]]](list)
    for op in walk(body):
        for n, v in enumerate(op.operands):
            users[v].append((op, n))
    return users


def _local_arrays(body: Block) -> dict[Value, Value]:
    """The arrays that the body makes, if they are short or tapes, and all that is done with them is to write and to
    read single elements: all that they are on the way, each with what it is at first."""
    users = _users(body)
    found: dict[Value, Value] = {}
    room = ROOM
    for op in body.ops:
        if op.name not in MAKERS or not _fits_vectors(op.result.type.dtype):
            continue
        t = op.result.type
        states = _reached(op.result, users, body)
        if states is None or not states.isdisjoint(body.results):
            continue
        if t.is_static:
            room -= prod(t.static_shape) * t.dtype.itemsize * MANY
        if room >= 0 if t.is_static else _is_tape_of_a_round(op, states, users, body):
            found.update(dict.fromkeys(states, op.result))
    return found


def _is_tape_of_a_round(tape: Op, states: set[Value], users: Users, body: Block) -> bool:
    """Whether a tape of numbers keeps one for each round of inner loops, the same number of rounds in all rounds."""
    inside = {v for o in walk(body) for v in o.results} | {*body.args}
    if tape.name != "tape" or tape.result.type.rank != 1 or not tape.operands or tape.operands[0] in inside:
        return False
    loops = {block: o for o in walk(body) if o.name == "for" for block in o.regions}
    places = [o.operands[ACCESSES[o.name]] for v in states for o, _ in users[v] if o.name in ACCESSES]
    return all(is_below(place, tape.operands[0], loops) for place in places)


def _reached(x: Value, users: Users, body: Block) -> set[Value] | None:
    """All that ``x`` becomes when single elements are read and written, in inner loops too; None where more is done
    with it."""
    states, carried = [x], set[tuple[Op, int]]()
    for v in states:
        for op, n in users[v]:
            if op.name == "for" and n:
                carried.add((op, n - 1))
                states += [r for r in (op.regions[0].args[n], op.results[n - 1]) if r not in states]
            elif op.name not in ACCESSES or n or any(entry != "at" for entry in op.attrs["index"]):
                return None
            elif op.name != "extract":
                states.append(op.result)
    found = set(states)
    ends = [((op, n), v) for op in walk(body) for r in op.regions for n, v in enumerate(r.results)]
    return found if all((v in found) == (place in carried) for place, v in ends) else None


def _takes_bits(accesses: Sequence[Op], body: Block) -> bool:
    """Whether inner loops write truth values, which are slow to take from a vector one by one."""
    return any(op.name != "extract" and op.result.type.dtype.kind == "b" and op not in body.ops for op in accesses)


def _are_apart(accesses: Sequence[Op], body: Block) -> bool:
    """Whether no two rounds read or write the same element."""
    inside = {v for o in walk(body) for v in (*o.results, *(a for r in o.regions for a in r.args))}
    forms = Forms(lambda v: v not in inside and v not in body.args[1:])
    enter_all(forms, body)
    return apart(body.args[0], [[forms.of(v) for v in op.operands[ACCESSES[op.name] :]] for op in accesses])


def _fits_vectors(dtype: DType) -> bool:
    return dtype.kind != "c" and dtype not in HALVES


def _is_recurrence(loop: Op) -> bool:
    """Whether an innermost loop carries more than sums, of which LLVM makes vectors by itself."""
    (body,) = loop.regions
    numbers = [a for a in body.args[1:] if a.type.is_scalar]
    return not any(o.regions for o in body.ops) and len(sums(body, body.args[1:])) < len(numbers)


def is_unrolled(loop: Op) -> bool:
    """Whether a loop is written out."""
    trips, (body,) = constant_of(loop.operands[0]), loop.regions
    few = isinstance(trips, int) and trips <= SHORT and trips * cost(body.ops) <= WRITTEN_OUT
    return few and not any(o.regions for o in body.ops)


def _holds(loop: Op, round_: Value) -> bool:
    """Whether a loop goes again and again over a few numbers, which registers can hold: it is around a short sum, and
    what that reads for each round does not change with the loop."""
    short = [o for o in loop.regions[0].ops if o.name == "for"] if loop.name == "for" else []
    if not short or not all(map(is_unrolled, short)):
        return False
    held = 0
    for inner in short:
        own = inner.regions[0].args[0]
        changing = {a for a in (*loop.regions[0].args, *inner.regions[0].args) if a is not own}
        for o in inner.regions[0].ops:
            if o.name == "extract" and round_ in o.operands:
                held += constant_of(inner.operands[0])
                if not changing.isdisjoint(o.operands) or not {own, round_}.issuperset(o.operands[1:]):
                    return False
            elif round_ in o.operands:
                return False
    return 0 < held <= SHORT
