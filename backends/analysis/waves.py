"""Loops in loops whose rounds wait for those beside them and above them, as in tables of dynamic programming.

    for i in n:
        for j in m: y[i, j] = f(y[i - 1, j - 1], y[i - 1, j], y[i, j - 1])

On a diagonal of the table nothing waits for anything else: row i + 1 can follow row i, ``lag`` rounds behind (Lamport,
"The parallel execution of DO loops", 1974). Round (i, j) then runs at the time j + lag·i. That is right if of any two
accesses to one element, of which one is a write, that of the later row comes at a later time.

What a row does before its loop, it does at the time of its first round. What all rounds add up, or the greatest of
something, each of the rows has for itself, until all are done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from dflow.backends.analysis.affine import Form, Forms, add
from dflow.backends.analysis.reserved import ACCESSES
from dflow.backends.lowering.plan import Buffer, Plan
from dflow.backends.mathlib import MATH_FUNCTIONS
from dflow.ir.core import Block, Op, Value
from dflow.ir.passes.accumulate import count_uses
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.registry import definition
from dflow.ir.types import HALVES

ROWS = 8  # at a time
MOST_LAG = 2
WITH_LOOPS = frozenset({"rem", "floordiv", "fmod"})  # of floats: there are no vectors of them
# How long the next operation waits, in cycles. From ``LEAST_WAIT`` on, rows side by side pay.
WAITS = {"max": 4, "min": 4, "div": 13, "sqrt": 20, "select": 2} | dict.fromkeys(MATH_FUNCTIONS, 40)
OTHER_WAIT = 3
TOTALS = frozenset({"add", "sub", "max", "min"})
LEAST_WAIT = 9
ANY = 1 << 62  # number of rounds


@dataclass(frozen=True)
class Waves:
    """``before`` is what a row does first, ``inner`` the loop along it; each row is ``lag`` rounds behind. ``vectors``:
    a round computes so much that all rows together are to be one of vectors. ``totals``: for each number that goes
    round, the argument of the row's loop and the operation that adds to it."""

    before: Sequence[Op]
    inner: Op
    lag: int
    vectors: bool
    totals: Mapping[Value, Op]


@dataclass(frozen=True)
class Access:
    op: Op
    at: tuple[Form | None, ...]
    is_first: bool  # before the loop along the row

    @property
    def writes(self) -> bool:
        return self.op.name != "extract"


def found_waves(loop: Op, plan: Plan) -> Waves | None:
    """How rows of ``loop`` can follow each other, if they can and it pays."""
    (body,) = loop.regions
    if not body.ops or body.ops[-1].name != "for":
        return None
    *before, inner = body.ops
    totals = _totals(body, inner)
    if len(totals) != sum(a.type.is_scalar for a in body.args[1:]):
        return None
    (row,) = inner.regions
    ops = [*before, *row.ops]
    if not (_is_long(loop) and _is_long(inner) and all(map(_is_plain, ops))):
        return None
    proof = _Proof(body.args[0], before, inner, plan, totals)
    lag = proof.lag()
    if lag is None or not proof.pays():
        return None
    names = {o.name for o in ops if o.result.type.dtype.is_float}
    vectors = proof.all_known and not names.isdisjoint(MATH_FUNCTIONS) and names.isdisjoint(WITH_LOOPS)
    return Waves(before, inner, lag, vectors, totals)


def _totals(body: Block, inner: Op) -> dict[Value, Op]:
    """For each number that goes round: the argument by which the row has it, and the operation that adds to it."""
    (row,), uses = inner.regions, count_uses(body)
    found = {}
    for arg, result in zip(body.args[1:], body.results):
        if arg.type.is_scalar and arg in inner.operands[1:] and result in inner.results and uses[arg] == 1:
            n = inner.results.index(result)
            a, op = row.args[1 + n], row.results[n].op
            if op is None or op.name not in TOTALS or inner.operands[1 + n] is not arg or op not in row.ops:
                continue
            if uses[a] == uses[op.result] == 1 and a in op.operands[: 1 if op.name == "sub" else 2]:
                found[a] = op
    return found


def _is_long(loop: Op) -> bool:
    trips = constant_of(loop.operands[0])
    return trips is None or trips >= ROWS


def _is_plain(op: Op) -> bool:
    """Whether ``op`` is on numbers, or on an element of an array."""
    if any(v.type.dtype.kind == "c" or v.type.dtype in HALVES for v in (*op.operands, *op.results)):
        return False
    if op.name in ACCESSES:
        return all(entry == "at" for entry in op.attrs["index"]) and not op.operands[0].type.grows
    return op.name == "constant" or (definition(op).elementwise and all(r.type.is_scalar for r in op.results))


class _Proof:
    """What is known of the accesses of the rows to each buffer that they write."""

    def __init__(self, k: Value, before: Sequence[Op], inner: Op, plan: Plan, totals: Collection[Value]):
        (self.row,), self.k, self.before, self.inner, self.totals = inner.regions, k, before, inner, totals
        self.j, self.trips = self.row.args[0], constant_of(inner.operands[0])
        inside = {r for o in (*before, *self.row.ops) for r in o.results} | set(self.row.args[1:])
        self.forms, found = Forms(lambda v: v not in inside), dict[Buffer | None, list[Access]]()
        for op in (*before, *self.row.ops):
            if op.name in ACCESSES:
                at = tuple(self.forms.of(v) for v in op.operands[ACCESSES[op.name] :])
                found.setdefault(plan.buffers.get(op.operands[0]), []).append(Access(op, at, op in before))
        self.all_known = all(f is not None for each in found.values() for a in each for f in a.at)
        self.written = {b: each for b, each in found.items() if any(a.writes for a in each)}

    def lag(self) -> int | None:
        """The least lag with which all is right."""
        if any(b is None or b.space in ("argument", "heap") for b in self.written) or not self._begins_well():
            return None
        lag = 1
        for rows, (a, b) in product(range(1, ROWS), self._pairs(lambda a, b: a.writes or b.writes)):
            steps = None if a.is_first else self._steps(a, b, rows)
            if steps is ANY:
                return None
            if steps is not None and (self.trips is None or abs(steps) < self.trips):
                lag = max(lag, -((steps - 1) // rows))
        return lag if lag <= MOST_LAG else None

    def _begins_well(self) -> bool:
        """Whether the length of a row is known before, it begins with a round where it writes something first, and
        what it reads first of what rows write is not used by later rounds."""
        changing = {a.op.result for each in self.written.values() for a in each if a.is_first}
        if any(v.type.rank for v in changing) and self.trips is None:
            return False
        for op in self.before:
            if not changing.isdisjoint(op.operands):
                changing.update(op.results)
        own = {r for o in self.before for r in o.results}
        changing = {v for v in changing if v.type.is_scalar}
        return self.inner.operands[0] not in own and changing.isdisjoint(v for o in self.row.ops for v in o.operands)

    def pays(self) -> bool:
        """Whether a round waits long for the one before, or for functions of which there are vectors."""
        late = dict.fromkeys((a for a in self.row.args[1:] if a.type.is_scalar and a not in self.totals), 0)
        for a, b in self._pairs(lambda a, b: a.writes and not b.writes and not (a.is_first or b.is_first)):
            steps = self._steps(a, b, 0)
            if steps is ANY or (steps is not None and steps > 0):
                late[b.op.result] = 0
        if not late:
            return False
        for op in self.row.ops:
            waits = [late[v] for v in op.operands if v in late]
            if waits and op.result not in late:
                late[op.result] = max(waits) + (0 if op.name in ACCESSES else WAITS.get(op.name, OTHER_WAIT))
        return max(late.values()) >= LEAST_WAIT or any(o.name in MATH_FUNCTIONS for o in self.row.ops)

    def _pairs(self, wanted: Callable[[Access, Access], bool]) -> Iterator[tuple[Access, Access]]:
        return (pair for each in self.written.values() for pair in product(each, each) if wanted(*pair))

    def _steps(self, a: Access, b: Access, rows: int) -> int | None:
        """How many rounds later, and that many rows below, ``b`` meets the element of ``a``; None if it does not."""
        found = set[int]()
        for x, y in zip(a.at, b.at):
            if x is None or y is None:
                continue
            if self._are_apart(x, y, rows):
                return None
            distance, step = x.low - y.low - x.of(self.k) * rows, x.of(self.j)
            if x.terms == y.terms and x.low == x.high and y.low == y.high and step:
                if distance % step:
                    return None
                found.add(distance // step)
        return ANY if not found else found.pop() if len(found) == 1 else None

    def _are_apart(self, x: Form, y: Form, rows: int) -> bool:
        """Whether no round has an index ``x`` that is the index ``y`` in any round of the row that many rows below."""
        last = x.of(self.j), y.of(self.j)
        above, below = (Form(tuple(t for t in f.terms if t[0] is not self.j), f.low, f.high) for f in (x, y))
        between = add(below, above, -1)
        if between.terms or (any(last) and self.trips is None):
            return False
        at_end = [step * ((self.trips or 1) - 1) for step in last]
        shift = x.of(self.k) * rows
        low = between.low + shift - max(0, at_end[0]) + min(0, at_end[1])
        high = between.high + shift - min(0, at_end[0]) + max(0, at_end[1])
        return low > 0 or high < 0
