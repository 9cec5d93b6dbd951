"""What is known of integers: intervals, sums of values, and bounds by other values. The arithmetic behind ``ranges``.

A *form* is a sum ``c + c1 * v1 + c2 * v2 + ...`` of values (its *bases*). An operation gets a form only where it cannot
overflow, so forms are exact. A base has an interval, and bounds that are forms divided by a positive integer. To bound
a form, bases are replaced by their bounds, so that ``i + k`` with ``k <= n - i - 1`` is found to be at most ``n - 1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dflow.ir.core import Value
from dflow.ir.types import SIGNED, UNSIGNED, DType, Size

Interval = tuple[int, int]

DEPTH = 3  # replacements in a row
NEWEST = 3  # bounds of a base that are tried
TERMS = 6  # terms of a form


@dataclass(slots=True)
class Form:
    constant: int
    terms: dict[Value, int] = field(default_factory=dict)

    def __add__(self, other: Form | int) -> Form:
        if isinstance(other, int):
            return Form(self.constant + other, self.terms)
        if not self.terms or not other.terms:
            return Form(self.constant + other.constant, self.terms or other.terms)
        terms = dict(self.terms)
        for v, c in other.terms.items():
            terms[v] = terms.get(v, 0) + c
        return Form(self.constant + other.constant, {v: c for v, c in terms.items() if c})

    def __mul__(self, factor: int) -> Form:
        return Form(self.constant * factor, {v: c * factor for v, c in self.terms.items()} if factor else {})

    def __neg__(self) -> Form:
        return self * -1

    def __sub__(self, other: Form | int) -> Form:
        return self + (-other)

    def without(self, v: Value) -> Form:
        return Form(self.constant, {w: c for w, c in self.terms.items() if w is not v})


_RANGES: dict[str, Interval] = {
    "bool": (0, 1),
    **{t.name: (-(2 ** (t.bits - 1)), 2 ** (t.bits - 1) - 1) for t in SIGNED},
    **{t.name: (0, 2**t.bits - 1) for t in UNSIGNED},
}


def type_range(dtype: DType) -> Interval:
    return _RANGES.get(dtype.name) or (0, 2**dtype.bits - 1)


def counts(dtype: DType) -> bool:
    """Whether values of this type have intervals."""
    return dtype.name in _RANGES


def hull(x: Interval, y: Interval) -> Interval:
    return min(x[0], y[0]), max(x[1], y[1])


def meet(x: Interval, y: Interval) -> Interval:
    """The intersection; ``x`` where that is empty, which means that the place is never reached."""
    lo, hi = max(x[0], y[0]), min(x[1], y[1])
    return (lo, hi) if lo <= hi else x


Bounds = tuple[tuple[Form, int], ...]


class Known:
    """Facts about values. Those assumed inside of ``scope`` are forgotten at its end."""

    def __init__(self) -> None:
        self.intervals: dict[Value, Interval] = {}
        self.forms: dict[Value, Form] = {}
        self.upper: dict[Value, Bounds] = {}  # v * divisor <= form
        self.lower: dict[Value, Bounds] = {}  # v * divisor >= form
        self._trail: list[tuple[dict[Value, Any], Value, Any]] = []

    @contextmanager
    def scope(self) -> Iterator[None]:
        mark = len(self._trail)
        try:
            yield
        finally:
            while len(self._trail) > mark:
                table, v, old = self._trail.pop()
                if old is None:
                    del table[v]
                else:
                    table[v] = old

    def _set(self, table: dict[Value, Any], v: Value, new: Any) -> None:
        self._trail.append((table, v, table.get(v)))
        table[v] = new

    # -- asking ----------------------------------------------------------------------------------------------------

    def form(self, v: Value) -> Form:
        return self.forms.get(v) or Form(0, {v: 1})

    def interval(self, v: Value) -> Interval:
        """The interval of an integer or bool, or of the elements of a tensor of them."""
        own = self.intervals.get(v) or type_range(v.type.dtype)
        form = self.forms.get(v)
        return own if form is None else meet(own, self.span(form))

    def span(self, form: Form) -> Interval:
        if not form.terms:
            return form.constant, form.constant
        return -self.most(-form), self.most(form)

    def most(self, form: Form, depth: int = DEPTH) -> int:
        """An upper bound."""
        best = form.constant
        for v, c in form.terms.items():
            lo, hi = self.intervals.get(v) or type_range(v.type.dtype)
            best += c * (hi if c > 0 else lo)
        if not depth:
            return best
        for v, c in form.terms.items():
            for bound, divisor in (self.upper if c > 0 else self.lower).get(v, ())[-NEWEST:]:
                if c % divisor == 0:
                    best = min(best, self.most(form.without(v) + bound * (c // divisor), depth - 1))
        return best

    # -- learning --------------------------------------------------------------------------------------------------

    def define(self, v: Value, interval: Interval, form: Form | None = None) -> None:
        """A new value. The form, if any, is one that cannot overflow."""
        self.intervals[v] = interval
        if form is not None and len(form.terms) <= TERMS:
            self.forms[v] = form

    def restrict(self, v: Value, interval: Interval) -> None:
        self._set(self.intervals, v, meet(self.intervals.get(v) or type_range(v.type.dtype), interval))

    def at_most_zero(self, form: Form) -> None:
        """Assumes ``form <= 0``: each of its bases is bounded by the others."""
        for v, c in form.terms.items():
            rest = form.without(v)
            if c > 0:
                self._bound(self.upper, v, -rest, c)
                self.restrict(v, (type_range(v.type.dtype)[0], self.most(-rest) // c))
            else:
                self._bound(self.lower, v, rest, -c)
                self.restrict(v, (-(self.most(-rest) // -c), type_range(v.type.dtype)[1]))

    def _bound(self, table: dict[Value, Bounds], v: Value, form: Form, divisor: int) -> None:
        if form.terms and len(form.terms) <= TERMS:  # a constant is in the interval
            self._set(table, v, (*table.get(v, ()), (form, divisor))[-2 * NEWEST :])

    def not_zero(self, form: Form) -> None:
        if len(form.terms) != 1:
            return
        ((v, c),) = form.terms.items()
        lo, hi = self.intervals.get(v) or type_range(v.type.dtype)
        if form.constant % c == 0:
            hole = -form.constant // c
            self.restrict(v, (lo + (lo == hole), hi - (hi == hole)))

    def sizes(self, shape: tuple[Any, ...]) -> None:
        """Sizes in types stay within their bounds."""
        for d in shape:
            if isinstance(d, Size):
                self.at_most_zero(self.form(d.value) - d.bound)
                self.at_most_zero(-self.form(d.value))
