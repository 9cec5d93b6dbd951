"""What is known of integers while a function is traced: a builder that notes it for every operation.

The range analysis of the optimizer (``dflow.ir.passes.intervals``) runs along with tracing, so that ``A[i, :i]`` in a
loop over ``i`` needs no clipping, ``x[k - 3 : k + 1]`` has four elements, and ``assert n <= 100`` bounds
``np.zeros(n)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Location, Value
from dflow.ir.passes.intervals import Form, Known, counts
from dflow.ir.passes.transfer import assume, learn
from dflow.ir.types import TensorType

TRIPS = 2**58  # no loop runs more often


class LearningBuilder(Builder):
    """A builder that notes in ``known`` what each operation says of integers."""

    def __init__(
        self,
        arg_types: Iterable[TensorType] = (),
        hints: Sequence[str | None] = (),
        loc: Location | None = None,
        known: Known | None = None,
    ):
        super().__init__(arg_types, hints, loc)
        self.known = known or Known()

    def append(
        self,
        name: str,
        operands: Sequence[Value],
        attrs: Mapping[str, Any] | None = None,
        regions: Sequence[Block] = (),
        hints: Sequence[str | None] = (),
        loc: Location | None = None,
    ) -> tuple[Value, ...]:
        results = super().append(name, operands, attrs, regions, hints, loc)
        if name == "check":
            assume(self.known, operands[0], True)
        elif not regions and any([_is_told(name, r.type) for r in results]):
            learn(self.known, self.ops[-1])
        return results


def _is_told(name: str, t: TensorType) -> bool:
    """Integers, and truth values to be counted: the sum of a mask is at most its size."""
    return counts(t.dtype) and (t.is_scalar or name == "convert")


def count_below(known: Known, k: Value, count: int | Value) -> None:
    """Notes that ``k`` counts the iterations of a loop: 0 <= k < count."""
    known.define(k, (0, TRIPS))
    limit = Form(count) if isinstance(count, int) else known.form(count)
    known.at_most_zero(Form(1, {k: 1}) - limit)
    positive = count.op if isinstance(count, Value) else None
    if positive is not None and positive.name == "max":  # max(n, 0) is n where the loop runs
        for v in positive.operands:
            if known.form(v).terms:
                known.at_most_zero(Form(1, {k: 1}) - known.form(v))
