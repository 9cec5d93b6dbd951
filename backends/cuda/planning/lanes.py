"""Which loops have independent rounds, so that each can be a thread of its own.

    %ys = for %n, %empty { (%k, %out)                   one thread a round: %k is its number, what it writes lies
      %y = ... any code, with loops and branches ...    at out[k] alone
      %out' = update %out, %y, %k; yield %out'
    }

This is what ``vmap`` of a function with its own control flow becomes, and what its derivatives are made of. The proof
is about memory, after bufferization: of every buffer that the loop writes and that lives longer than a round,

- either all accesses are at indices of which one differs from round to round (``own``): a form ``c * k + r`` with r in
  a range shorter than c;
- or it is only ever added to (``added``): such additions are atomic then, or each thread has a copy (``private``).

A scalar that goes round may be a sum, of which every thread adds up a part; a value that stays; a multiple of k; a sum,
product or extreme of which every round sees what the rounds before it have made (``kernels/scan.py``); or a place in
sequences (``offsets.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dflow.backends.analysis.affine import Form, Forms, add, enter_all, scale
from dflow.backends.analysis.rounds import SUMMED, Accesses, step_of
from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.offsets import MOST_PARTS, find_offset
from dflow.backends.cuda.kernels.ops import ATOMIC
from dflow.backends.cuda.kernels.private import is_private, whole_sum
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Op, Value, walk
from dflow.ir.passes.sums import Sum
from dflow.ir.registry import OPS

UNKNOWN = 1 << 16  # rounds assumed of a loop of which nothing is known
SCANNED = {"add": "sum", "sub": "sum", "mul": "prod", "max": "max", "min": "min"}


@dataclass(frozen=True)
class Scan:
    """A carried scalar that each round combines with ``increment``, a value that the operations ``ops`` compute from
    what is known before the loop begins: "sum", "prod", "max" or "min"."""

    ops: tuple[Op, ...]
    increment: Value
    kind: str
    is_subtracted: bool


@dataclass
class Lanes:
    """What is known of a parallel loop: the positions of carried scalars that are sums, the steps of those that are
    multiples of the counter (0: they stay), those that only place what is written to sequences (``split``), the
    buffers that are only added to, at once or in copies, and the carried scalars that are running sums and the like."""

    sums: list[int] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)
    split: set[tensors.Buffer] = field(default_factory=set)
    added: set[tensors.Buffer] = field(default_factory=set)
    private: set[tensors.Buffer] = field(default_factory=set)
    scans: dict[int, Scan] = field(default_factory=dict)


def rounds(op: Op) -> int:
    """The most rounds that a ``for`` can have, since each reads or writes elements of its own; or a guess."""
    count = op.operands[0]
    if count.op is not None and count.op.name == "constant":
        return max(0, int(count.op.attrs["value"]))
    (body,) = op.regions
    k, inside = body.args[0], {*body.args, *(r for o in body.ops for r in o.results)}
    forms = Forms(lambda v: v is k or v not in inside)
    most = UNKNOWN
    for o in body.ops:
        if o.name not in ("extract", "update", "update_add") or o.operands[0].type.grows:
            continue
        start = iter(o.operands[1 if o.name == "extract" else 2 :])
        for entry, size in zip(o.attrs["index"], o.operands[0].type.bound):
            form = None if entry == "all" else forms.of(next(start))
            step = abs(form.of(k)) if form is not None else 0
            most = min(most, (size - 1) // step + 1) if step else most
    return most


def prove(op: Op, context: Context) -> Lanes | None:
    """The proof that the rounds of a ``for`` are independent, or None."""
    return _Proof(op, context).run()


def are_apart(op: Op, context: Context, but: set[tensors.Buffer]) -> bool:
    """Whether no two rounds of a ``for`` meet in any buffer ``but`` these."""
    proof = _Proof(op, context)
    others = [b for b in proof.needs.buffers(context) if b not in but]
    return all(proof._buffer(b) for b in others) and not (proof.lanes.added or proof.lanes.private or proof.lanes.split)


def overwritten(op: Op, context: Context) -> list[Op]:
    """The operations that only fill tensors of which every element is written by the rounds of a loop:

    %y0 = kernel {... 0.0}; %y = for %n, %y0 { (%k, %out) ...; %out' = update %out, %v, %k; yield %out' }
    """
    (body,) = op.regions
    k, *carried = body.args
    count = op.operands[0].op
    found = []
    for init, a, y in zip(op.operands[1:], carried, body.results):
        if not a.type.rank or init.op is None or y.op is None or count is None or count.name != "constant":
            continue
        whole = y.op.name == "update" and y.op in body.ops and y.op.operands[0] is a and context.used_by(a) == {y.op}
        entries = y.op.attrs.get("index", ())
        axis = entries.index("at") if sorted(entries, key=str) == ["all"] * (len(entries) - 1) + ["at"] else -1
        whole = whole and axis >= 0 and y.op.operands[2] is k
        fills = init.op.name in ("kernel", "constant", "copy") and len(init.op.results) == 1
        if whole and fills and a.type.shape[axis] == count.attrs["value"] and context.used_by(init) == {op}:
            found.append(init.op)
    return found


class _Proof:
    def __init__(self, op: Op, context: Context):
        (self.body,) = op.regions
        self.op, self.context = op, context
        self.k, *self.carried = self.body.args
        self.needs = Needs(context, [op])
        self.ops = list(walk(self.body))
        inside = {r for o in self.ops for r in o.results} | {a for o in self.ops for r in o.regions for a in r.args}
        inside |= set(self.body.args)
        self.inside = inside
        self.forms = Forms(lambda v: v not in inside or v is self.k)
        enter_all(self.forms, self.body)
        self.lanes = Lanes()

    def run(self) -> Lanes | None:
        if any(op.name in ("print", "warn", "eigh", "svd") for op in self.ops):
            return None
        fine = all(self._scalar(i, a, y) for i, (a, y) in enumerate(zip(self.carried, self.body.results)))
        return self.lanes if fine and all(self._buffer(b) for b in self.needs.buffers(self.context)) else None

    # --- scalars

    def _scalar(self, position: int, a: Value, yielded: Value) -> bool:
        if a.type.rank:
            return True
        step = 0 if yielded is a else step_of(self.forms, self.body, a, yielded)
        if step is not None:
            self.lanes.steps[position] = step
            init = self.forms.of(self.op.operands[1 + position])
            if init is not None:
                self.forms.given[a] = add(init, scale(Form(((self.k, 1),), 0, 0), step))
            return True
        if a.type.dtype.name in SUMMED and Sum(a).reaches(self.body, yielded):
            self.lanes.sums.append(position)
            return True
        scan = self._scan(a, yielded)
        if scan is not None:
            self.lanes.scans[position] = scan
            return True
        placed = find_offset(self.op, position, self.context) if self._is_counted else None
        if placed is None:
            return False
        self.lanes.offsets.append(position)
        self.lanes.split |= placed
        return True

    @property
    def _is_counted(self) -> bool:
        """Whether the number of rounds is known now, and leaves a place for each of them."""
        count = self.op.operands[0].op
        return count is not None and count.name == "constant" and rounds(self.op) < MOST_PARTS

    def _scan(self, a: Value, yielded: Value) -> Scan | None:
        op = yielded.op
        if op is None or op.name not in SCANNED or op not in self.body.ops or a.type.dtype.name not in SUMMED:
            return None
        x, y = op.operands
        if op.name != "sub" and y is a:
            x, y = y, x
        if x is not a or y is a:
            return None
        needed: set[Op] = set()
        if not self._is_known_before(y, needed):
            return None
        return Scan(tuple(o for o in self.body.ops if o in needed), y, SCANNED[op.name], op.name == "sub")

    def _is_known_before(self, v: Value, needed: set[Op]) -> bool:
        """Whether a value of a round needs nothing that other rounds make; the operations that make it."""
        if v is self.k or v not in self.inside:
            return True
        if v in self.body.args:  # a multiple of the counter, or a tensor of which a round reads its own part
            return v.type.rank > 0 or self.carried.index(v) in self.lanes.steps
        op = v.op
        if op is None or op not in self.body.ops or op.regions:
            return False
        if not (op.name in ("constant", "extract") or OPS[op.name].elementwise) or v.type.rank:
            return False
        needed.add(op)
        return all(self._is_known_before(x, needed) for x in op.operands)

    # --- memory

    def _buffer(self, b: tensors.Buffer) -> bool:
        if self.needs.is_local(self.context, b):
            return True
        accesses = Accesses(self.context.plan, b, self.forms)
        accesses.whole_sums = {o for op in self.ops for o in whole_sum(op, b, self.context)}
        for op in self.ops:
            accesses.visit(op)
        if not accesses.written:
            return True
        if b.space == "heap":
            return b in self.lanes.split
        if accesses.are_own(self.k):
            return True
        dtype = b.type.dtype
        atomic = dtype.name in ATOMIC and (dtype.is_integer or not self.context.deterministic)
        if not accesses.only_added or self.lanes.scans:
            return False
        if is_private(self.op, b, rounds(self.op), self.context, must=bool(accesses.whole_sums)):
            self.lanes.private.add(b)
        elif atomic and not accesses.whole_sums:
            self.lanes.added.add(b)
        return b in self.lanes.private or b in self.lanes.added
