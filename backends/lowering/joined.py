"""One element of a concatenation inside a kernel: the part that it lies in is asked for.

The questions are comparisons of the position with constants, all of which the largest part answers with yes: so rows
can be split where the answers are known, see ``emit/split.py``.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from dflow.backends.lowering.windows import source
from dflow.ir.core import Op, Value

if TYPE_CHECKING:
    from dflow.backends.lowering.elements import Elements, Index


class Joined:
    """The parts of a concatenation, and which of them hold the element at ``index``."""

    def __init__(self, elements: Elements, op: Op, index: Index):
        self.elements, self.index, self.axis = elements, index, op.attrs["axis"]
        sizes = [part.type.static_shape[self.axis] for part in op.operands]
        stops = list(accumulate(sizes))
        self.parts = [(part, stop - size, stop) for part, size, stop in zip(op.operands, sizes, stops) if size]
        self.largest = max(self.parts, key=lambda p: p[2] - p[1])[1]

    def element(self) -> Value:
        """Of parts of one tensor, the positions are chosen between, and one element is read."""
        if len({self.whole(part) for part, *_ in self.parts}) == 1:
            places = [self.place(part, self.at(start)) for part, start, _ in self.parts]
            place = tuple(self.choose(list(along)) for along in zip(*places))
            return self.elements.of(self.whole(self.parts[0][0]), place)
        return self.choose([self.elements.of(part, self.inside(start, stop)) for part, start, stop in self.parts])

    def whole(self, part: Value) -> Value:
        return source(part) if self.elements.demand.is_inlined(part) else part

    def place(self, part: Value, at: Index) -> Index:
        return at if self.whole(part) is part or part.op is None else self.elements.place(part.op, at)

    def at(self, start: int) -> Index:
        """The index in the part that starts there."""
        moved = self.elements.add(self.index[self.axis], self.elements.index(-start))
        return (*self.index[: self.axis], moved, *self.index[self.axis + 1 :])

    def inside(self, start: int, stop: int) -> Index:
        """The same, with the first element of the part for what lies outside of it."""
        at, zero = list(self.at(start)), self.elements.index(0)
        if start > self.parts[0][1]:
            at[self.axis] = self.above(start, at[self.axis], zero)
        if stop < self.parts[-1][2]:
            at[self.axis] = self.above(stop, zero, at[self.axis])
        return tuple(at)

    def choose(self, values: list[Value]) -> Value:
        """The one among values, one for each part."""
        chosen = values[0]
        for value, (_, start, _) in zip(values[1:], self.parts[1:]):
            chosen = self.above(start, value, chosen)
        return chosen

    def above(self, start: int, yes: Value, no: Value) -> Value:
        """``yes`` from ``start`` on, ``no`` before."""
        if yes is no:
            return yes
        last = start > self.largest
        asked = self.elements.question("lt" if last else "ge", self.index[self.axis], start)
        if isinstance(asked, bool):
            return yes if asked is not last else no
        return self.elements.emit("select", asked, *((no, yes) if last else (yes, no)))
