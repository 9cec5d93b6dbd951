"""Indices as linear forms of what is fixed in a round of a loop, with an interval for the rest.

3 * k + j + 1,  j = 0 .. 2      is      {k: 3}, from 1 to 3
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dflow.ir.core import Block, Op, Value
from dflow.ir.types import Size


@dataclass(frozen=True)
class Form:
    """A sum of multiples of values (``terms``, sorted by identity), plus something from ``low`` to ``high``."""

    terms: tuple[tuple[Value, int], ...]
    low: int
    high: int

    def of(self, v: Value) -> int:
        """The coefficient of ``v``."""
        return dict(self.terms).get(v, 0)

    @property
    def constant(self) -> int | None:
        return self.low if not self.terms and self.low == self.high else None


def add(x: Form, y: Form, sign: int = 1) -> Form:
    terms = dict(x.terms)
    for v, c in y.terms:
        terms[v] = terms.get(v, 0) + sign * c
    kept = tuple(sorted(((v, c) for v, c in terms.items() if c), key=lambda t: id(t[0])))
    low, high = (y.low, y.high) if sign > 0 else (-y.high, -y.low)
    return Form(kept, x.low + low, x.high + high)


def scale(x: Form, by: int) -> Form:
    low, high = sorted((x.low * by, x.high * by))
    return Form(tuple((v, c * by) for v, c in x.terms) if by else (), low, high)


class Forms:
    """The forms of index values. ``fixed(v)`` says whether a value is fixed, and may stand in a form."""

    def __init__(self, fixed: Callable[[Value], bool]):
        self.fixed = fixed
        self._found: dict[Value, Form | None] = {}
        self.given: dict[Value, Form] = {}

    def of(self, v: Value) -> Form | None:
        """The form of ``v``; None where there is none."""
        if v in self.given:
            return self.given[v]
        if v not in self._found:
            self._found[v] = self._make(v)
        return self._found[v]

    def _make(self, v: Value) -> Form | None:
        op = v.op
        if op is not None and op.name == "constant" and v.type.dtype.is_integer:
            c = int(op.attrs["value"])
            return Form((), c, c)
        if op is not None and op.name in ("add", "sub", "mul"):
            x, y = (self.of(o) for o in op.operands)
            if x is not None and y is not None:
                if op.name != "mul":
                    return add(x, y, 1 if op.name == "add" else -1)
                for a, b in ((x, y), (y, x)):
                    if b.constant is not None:
                        return scale(a, b.constant)
        if self.fixed(v):
            return Form(((v, 1),), 0, 0)
        return None

    def enter(self, op: Op) -> None:
        """Notes what is known of the arguments of the regions of ``op``: counters lie in a range."""
        if op.name == "for":
            count = self.of(op.operands[0])
            if count is not None and count.constant is not None:
                self.given[op.regions[0].args[0]] = Form((), 0, max(0, count.constant - 1))
        elif op.name == "kernel":
            for a, d in zip(op.regions[0].args, op.attrs["domain"]):
                bound = d.bound if isinstance(d, Size) else int(d)
                self.given[a] = Form((), 0, max(0, bound - 1))


def enter_all(forms: Forms, block: Block) -> None:
    """Notes the counters of all loops and kernels inside."""
    for op in block.ops:
        forms.enter(op)
        for r in op.regions:
            enter_all(forms, r)
