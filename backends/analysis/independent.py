"""Which loops have independent rounds, so that threads can share them.

    %ys = for %n, %empty, %zero { (%k, %out, %total)         each part of the rounds writes its own rows of %out
      ... any code, with loops and branches ...              and adds up a total of its own
      yield %out', %total' }

The proof is about the numbers that go round, which must stay, be multiples of the counter, or only be added to; and
about memory, after bufferization. Of every buffer that the loop writes,

- all accesses are at indices of which one differs from round to round; or
- it is *private*: what a round reads of it the round has written before, and nobody reads it after the loop; or
- it is *added* to, and nothing else.

Each part of the rounds has private buffers of its own, and adds to buffers of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod

from dflow.backends.analysis.affine import Form, Forms, add, enter_all, scale
from dflow.backends.analysis.reserved import ACCESSES
from dflow.backends.analysis.rounds import SUMMED, Accesses, step_of
from dflow.backends.lowering.plan import Buffer, Plan
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.passes.dce import SHOWING
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.passes.sums import PASSING, Sum

# What shows something, calls libraries with threads of their own, or makes sequences.
SHARED = SHOWING | {"cholesky", "lu", "triangular_solve", "qr", "eigh", "eig", "svd", "sequence", "tape"}
Certain = Mapping[Value, Collection[Value]]  # positions in sequences
LARGE = 64**3  # multiplications of a product of matrices that has threads of its own


@dataclass
class Rounds:
    """What is known of a loop: the positions of carried scalars that are sums, the steps of the others, which are
    multiples of the counter (0: they stay); the buffers of which each part needs one of its own; the sequences, and
    those of them that are read where they may have no row."""

    sums: list[int] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)
    private: list[Buffer] = field(default_factory=list)
    added: list[Buffer] = field(default_factory=list)
    sequences: list[Buffer] = field(default_factory=list)
    uncertain: list[Buffer] = field(default_factory=list)


def prove(op: Op, plan: Plan, used: set[Value], certain: Certain) -> Rounds | None:
    """The proof that the rounds of a ``for`` are independent, or None. ``used``: the values that the program uses;
    ``certain``: the rows of sequences that exist for certain (`reserved.py`)."""
    if any(o.name in SHARED or _is_large(o) for o in walk(op.regions[0])):
        return None
    return _Proof(op, plan, used, certain).run()


def _is_large(op: Op) -> bool:
    return op.name == "matmul" and prod(op.result.type.bound) * op.operands[0].type.bound[-1] > LARGE


def used_values(plan: Plan) -> set[Value]:
    """What some operation uses, or some block yields."""
    used = set(plan.function.results)
    for op in walk(plan.function.body):
        used.update(op.operands, *(r.results for r in op.regions))
    return used


class _Proof:
    def __init__(self, op: Op, plan: Plan, used: set[Value], certain: Certain):
        (self.body,) = op.regions
        self.op, self.plan, self.used, self.certain = op, plan, used, certain
        self.k, *self.carried = self.body.args
        self.ops = list(walk(self.body))
        inside = {*self.body.args, *(r for o in self.ops for r in o.results)}
        inside |= {a for o in self.ops for r in o.regions for a in r.args}
        self.outer = [v for v in (*free_values(self.body), *op.operands, *op.results) if v.type.rank]
        self.forms = Forms(lambda v: v not in inside or v is self.k)
        enter_all(self.forms, self.body)
        self.buffers = {plan.buffers[v] for v in (*inside, *self.outer) if v in plan.buffers}
        self.can_fail = any(o.name in ("check", "guard") for o in self.ops)
        self.rounds = Rounds()

    def run(self) -> Rounds | None:
        scalars = [(i, a) for i, a in enumerate(self.carried) if not a.type.rank]
        fine = all(self._scalar(i, a, self.body.results[i]) for i, a in scalars)
        return self.rounds if fine and all(self._buffer(b) for b in self.buffers) else None

    def _scalar(self, position: int, a: Value, yielded: Value) -> bool:
        step = 0 if yielded is a else step_of(self.forms, self.body, a, yielded)
        if step is not None:
            self.rounds.steps[position] = step
            init = self.forms.of(self.op.operands[1 + position])
            if init is not None:
                self.forms.given[a] = add(init, scale(Form(((self.k, 1),), 0, 0), step))
            return True
        if a.type.dtype.name in SUMMED and Sum(a).reaches(self.body, yielded):
            self.rounds.sums.append(position)
            return True
        return False

    def _buffer(self, b: Buffer) -> bool:
        accesses = Accesses(self.plan, b, self.forms)
        for op in self.ops:
            accesses.visit(op)
        if b.space == "heap":
            exists = all(map(self._is_certain, (o for o in self.ops if self._touches(o, b))))
            self.rounds.sequences.append(b)
            self.rounds.uncertain += [] if exists else [b]
            return not accesses.written or (exists and accesses.are_own(self.k))
        if not accesses.written:
            return True
        if b.space == "argument" and self.can_fail:  # later rounds would show after an error
            return False
        outer = [v for v in self.outer if self.plan.buffers.get(v) is b]
        if not outer or self._is_scratch(b, outer):
            self.rounds.private.append(b)
            return True
        if accesses.are_own(self.k):
            return True
        if accesses.only_added and b.type.dtype.name in SUMMED:
            self.rounds.added.append(b)
            return True
        return False

    def _touches(self, op: Op, b: Buffer) -> bool:
        """Whether the operation itself reads or writes a buffer."""
        return op.name not in PASSING and any(self.plan.buffers.get(v) is b for v in (*op.operands, *op.results))

    def _is_certain(self, op: Op) -> bool:
        """Whether the row of a sequence that an operation reads or writes exists for certain."""
        if op.name not in ACCESSES or op.attrs["index"][0] != "at":
            return False
        return op.operands[1 if op.name == "extract" else 2] in self.certain.get(op.operands[0], ())

    def _is_scratch(self, b: Buffer, outer: list[Value]) -> bool:
        """Whether a buffer that goes round is written anew by each round before it is read, and then forgotten."""
        here = [i for i, a in enumerate(self.carried) if self.plan.buffers.get(a) is b]
        if len(here) != 1:
            return False
        (i,) = here
        known = {self.op.operands[1 + i], self.op.results[i]}
        return (
            set(outer) <= known
            and b.space in ("arena", "stack")
            and self.op.results[i] not in self.used
            and is_overwritten(self.body, self.carried[i])
        )


def is_overwritten(block: Block, x: Value) -> bool:
    """Whether a block writes all elements of ``x`` before it reads one."""
    users = [o for o in block.ops if x in o.operands or x in free_values(*o.regions)]
    if len(users) != 1 or x in block.results:
        return False
    (op,) = users
    if op.name == "update":
        return op.operands[0] is x and op.operands[1] is not x and all(e == "all" for e in op.attrs["index"])
    if op.name != "for" or op.operands.count(x) != 1 or x in free_values(*op.regions):
        return False
    (body,), count = op.regions, constant_of(op.operands[0])
    inner = body.args[op.operands.index(x)]
    if count is None or count < 1:
        return False
    return _fills(body, inner, int(count)) or is_overwritten(body, inner)


def _fills(body: Block, x: Value, count: int) -> bool:
    """Whether each of ``count`` rounds writes its row of ``x`` and does nothing else with it, and all is written."""
    users = [o for o in body.ops if x in o.operands or x in free_values(*o.regions)]
    if len(users) != 1 or x in body.results or count != x.type.shape[0]:
        return False
    (op,) = users
    if op.name != "update" or op.operands[0] is not x or op.operands.count(x) != 1:
        return False
    first, *rest = op.attrs["index"]
    return first == "at" and op.operands[2] is body.args[0] and all(e == "all" for e in rest)
