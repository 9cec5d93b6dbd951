"""Counters that only place what a loop writes to sequences.

    %n, %s = for %rounds, %zero, %s0 { (%k, %offset, %seq)
      ... update %seq, %v, %offset + %j ...                 the rounds lay their parts one behind the other
      yield %offset + %count, ... }                         (%offset may be kept in an array, for those who read)

Where nothing else is done with such a counter, any other places would do as well, so that the rounds need not wait for
each other: round k begins at ``k << LANE_BITS``, and the memory of the sequence is laid out to fit
(`kernels/sequences.py`).
"""

from __future__ import annotations

from dflow.backends.cuda.context import Context
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Op, Value, attribute_values, walk
from dflow.ir.passes.rewrite import SEQUENCES
from dflow.ir.types import I64

LANE_BITS = 36
MOST_PARTS = 1 << (63 - LANE_BITS)
PASSING = frozenset({"for", "while", "if"})
INDEXED = {"extract": 1, "update": 2, "update_add": 2}  # tensors before the indices


def find_offset(op: Op, position: int, context: Context) -> set[tensors.Buffer] | None:
    """The sequences that the carried scalar number ``position`` of a loop gives places in, if it does nothing else."""
    init, (body,) = op.operands[1 + position], op.regions
    a, yielded = body.args[1 + position], body.results[position]
    zero = init.op is not None and init.op.name == "constant" and init.op.attrs["value"] == 0
    if a.type.dtype != I64 or not zero or yielded.op is None or yielded.op.name != "add":
        return None
    if a not in yielded.op.operands or yielded in yielded.op.operands:
        return None
    return _Offset(context, a, yielded, op.results[position]).follow()


class _Offset:
    """All values of a program that hold such a place: ``scalars``, and ``tensors`` of them."""

    def __init__(self, context: Context, a: Value, yielded: Value, last: Value):
        self.plan = context.plan
        self.ops = list(walk(context.plan.function.body))
        self.results = set(context.plan.function.results)
        self.scalars, self.kept = {a}, set[tensors.Buffer]()
        self.sequences: set[tensors.Buffer] = set()
        self.yielded, self.last = yielded, last

    def follow(self) -> set[tensors.Buffer] | None:
        before = -1
        while before != len(self.scalars) + len(self.kept):
            before = len(self.scalars) + len(self.kept)
            if not all(self._op(op) for op in self.ops):
                return None
        if self.last in self.results or any(self.last in op.operands for op in self.ops):
            return None
        if not all(self._is_kept_well(op) for op in self.ops) or not all(self._is_placed(op) for op in self.ops):
            return None
        return self.sequences

    def _op(self, op: Op) -> bool:
        """Spreads what is known over one operation; False where something else is done with a place."""
        used = [v in self.scalars for v in op.operands]
        if not self.scalars.isdisjoint(attribute_values(tuple(op.attrs.values()))):
            return False
        if op.name in PASSING:
            return self._pass(op, used)
        if op.name in INDEXED and any(used):
            return self._index(op, used)
        if op.name == "extract" and self.plan.buffers.get(op.operands[0]) in self.kept:
            if op.result.type.rank:
                return False
            self.scalars.add(op.result)
        elif any(used):
            if op.name != "add" or used.count(True) != 1:
                return False
            if op.result is not self.yielded:
                self.scalars.add(op.result)
        return True

    def _index(self, op: Op, used: list[bool]) -> bool:
        count = INDEXED[op.name]
        x = op.operands[0]
        if used[count:].count(True):
            first = used.index(True, count) == count and used[count:].count(True) == 1
            if not (x.type.grows and first and op.attrs["index"][0] == "at") or any(used[:count]):
                return False
            self.sequences.add(self.plan.buffers[x])
            return True
        if op.name != "update" or x.type.grows:
            return False
        self.kept.add(self.plan.buffers[x])
        return True

    def _pass(self, op: Op, used: list[bool]) -> bool:
        if op.name == "if":
            groups = list(zip(op.results, *(r.results for r in op.regions)))
        elif op.name == "for":
            (body,) = op.regions
            groups = list(zip(op.results, op.operands[1:], body.args[1:], body.results))
        else:
            condition, body = op.regions
            groups = list(zip(op.results, op.operands, condition.args, body.args, body.results))
        if op.name != "while" and used[0]:
            return False
        # A place that goes round in another loop, or comes out of a branch, is not followed.
        return not any(v in self.scalars for group in groups for v in group if self.yielded not in group)

    def _is_kept_well(self, op: Op) -> bool:
        """Whether an operation leaves nothing but places in the tensors that hold them."""
        if op.name in PASSING or not any(self.plan.buffers.get(r) in self.kept for r in op.results):
            return True
        if op.name == "update":
            return op.operands[1] in self.scalars
        return op.name == "empty"

    def _is_placed(self, op: Op) -> bool:
        """Whether an operation touches the sequences at such places only."""
        touched = [v for v in (*op.operands, *op.results) if self.plan.buffers.get(v) in self.sequences]
        if op.name in PASSING or op.name in SEQUENCES or not touched:
            return True
        starts = op.operands[INDEXED.get(op.name, 0) :]
        if op.name == "copy":
            return all(self.plan.buffers.get(v) is self.plan.buffers.get(touched[0]) for v in touched)
        return op.name in INDEXED and bool(starts) and starts[0] in self.scalars
