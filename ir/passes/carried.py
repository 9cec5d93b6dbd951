"""Tensors that loops carry and update in place: where a part of one is read, what to save is the part or the whole.

    for %n, %x { (%k, %u) ->
        for %m { (%j) -> %v = extract %u, %j ... }       save %v in each of n m iterations, or %u in each of n
        %w = update %u, ... }

To save ``%u`` is to copy all of it in each iteration of the loop that updates it, however little of it that changes or
the inner loop reads. To read ``%v`` again from it is what the inner loop would choose for itself.
"""

from __future__ import annotations

from dflow.ir.core import Op, Value, walk
from dflow.ir.passes.residuals import mean_bytes
from dflow.ir.passes.rewrite import LOOPS, UPDATES
from dflow.ir.types import TensorType

WORTH = 4.0  # parts are saved when they take so many times less memory than the whole


def less_in_parts(whole: TensorType, runs: float, part: TensorType, reads: float) -> bool:
    """Whether ``reads`` parts take much less memory than ``runs`` copies of the whole."""
    return runs * mean_bytes(whole) > WORTH * reads * mean_bytes(part)


class Carried:
    """The carried tensors of a program in its loops, each with how often the loop runs in all."""

    def __init__(self) -> None:
        self._runs: dict[Value, float] = {}

    def add(self, arg: Value, runs: float) -> None:
        if arg.type.shape:
            self._runs[arg] = runs

    def better_in_parts(self, op: Op, runs: float) -> bool:
        """Whether an operation that runs so often reads a small part of what a loop around carries."""
        if op.name == "if":
            return any(self.better_in_parts(inner, runs) for region in op.regions for inner in walk(region))
        if op.name != "extract":
            return False
        whole = op.operands[0]
        carried = self._carried(whole)
        return carried is not None and less_in_parts(whole.type, self._runs[carried], op.result.type, runs)

    def _carried(self, v: Value) -> Value | None:
        """The carried tensor of which ``v`` is a later state."""
        while v not in self._runs:
            op = v.op
            if op is None:
                return None
            if op.name in UPDATES:
                v = op.operands[0]
            elif op.name in LOOPS:
                v = op.operands[op.results.index(v) + (op.name == "for")]
            elif op.name == "if":
                v = op.regions[0].results[op.results.index(v)]
            else:
                return None
        return v
