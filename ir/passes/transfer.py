"""How operations act on intervals and forms: one short function for each operation on integers and bools."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np

from dflow.ir.core import Op, Value
from dflow.ir.passes.algebra import INVERSE
from dflow.ir.passes.intervals import Form, Interval, Known, counts, hull, meet, type_range

Transfer = Callable[[Known, Op], Interval]
COMPARISONS = frozenset(INVERSE)


def learn(known: Known, op: Op) -> None:
    """Notes what is known of the results of an operation (with new values)."""
    for r in op.results:
        known.sizes(r.type.shape)
        if not counts(r.type.dtype):
            continue
        whole = type_range(r.type.dtype)
        form = _sum(known, op) if not r.type.shape else None
        if form is not None:
            _exactly(known, r, form)
        elif op.name in TRANSFER and all(counts(v.type.dtype) for v in op.operands[:3]):
            lo, hi = TRANSFER[op.name](known, op)
            fits = whole[0] <= lo and hi <= whole[1]
            known.define(r, (lo, hi) if fits else whole)
            if fits and not r.type.shape:
                _relate(known, op, r)
        else:
            known.define(r, whole)


def _exactly(known: Known, r: Value, form: Form) -> None:
    """``r`` is ``form``, unless that overflows."""
    whole, span = type_range(r.type.dtype), known.span(form)
    if whole[0] <= span[0] and span[1] <= whole[1]:
        known.define(r, span, form)
    else:
        known.define(r, whole)


def _sum(known: Known, op: Op) -> Form | None:
    """The result as a sum of values, if it does not overflow."""
    if op.name == "constant":
        return Form(int(op.attrs["value"]))
    if op.name not in ("add", "sub", "neg", "mul", "convert") or not all(counts(v.type.dtype) for v in op.operands):
        return None
    forms = [known.form(v) for v in op.operands]
    if op.name == "add":
        return forms[0] + forms[1]
    if op.name == "sub":
        return forms[0] - forms[1]
    if op.name == "neg":
        return -forms[0]
    if op.name == "mul":
        for x, y in (forms, forms[::-1]):
            if not y.terms:
                return x * y.constant
        return None
    return forms[0] if op.result.type.dtype.is_integer else None


def _relate(known: Known, op: Op, r: Value) -> None:
    """Bounds of the result by the operands."""
    v = Form(0, {r: 1})
    forms = [known.form(x) for x in op.operands]
    if op.name == "max":
        for x in forms:
            known.at_most_zero(x - v)
    elif op.name == "min":
        for x in forms:
            known.at_most_zero(v - x)
    elif op.name == "floordiv" and not forms[1].terms and forms[1].constant > 0:
        d = forms[1].constant
        known.at_most_zero(v * d - forms[0])
        known.at_most_zero(forms[0] - v * d - (d - 1))
    elif op.name == "rem" and known.interval(op.operands[1])[0] > 0:
        known.at_most_zero(v - forms[1] + 1)
        if known.interval(op.operands[0])[0] >= 0:
            known.at_most_zero(v - forms[0])


# -- intervals -------------------------------------------------------------------------------------------------------


def _of_corners(f: Callable[..., int]) -> Transfer:
    """For functions whose extremes lie at the ends of the intervals."""

    def transfer(known: Known, op: Op) -> Interval:
        values = [f(*corner) for corner in product(*(known.interval(v) for v in op.operands))]
        return min(values), max(values)

    return transfer


def _floordiv(known: Known, op: Op) -> Interval:
    (lo, hi), (a, b) = (known.interval(v) for v in op.operands)
    ends = [d for d in (a, b, -1, 1) if a <= d <= b and d]
    values = [x // d for x in (lo, hi) for d in ends] + [0] * (a <= 0 <= b)
    return min(values), max(values)


def _rem(known: Known, op: Op) -> Interval:
    (lo, hi), (a, b) = (known.interval(v) for v in op.operands)
    if a > 0:
        return (0, min(hi, b - 1)) if lo >= 0 else (0, b - 1)
    return min(a + 1, 0), max(b - 1, 0)


def _abs(known: Known, op: Op) -> Interval:
    lo, hi = known.interval(op.operands[0])
    return (0 if lo <= 0 <= hi else min(abs(lo), abs(hi))), max(abs(lo), abs(hi))


def _and(known: Known, op: Op) -> Interval:
    x, y = (known.interval(v) for v in op.operands)
    if x[0] < 0 and y[0] < 0:
        return type_range(op.result.type.dtype)
    return int(x == y == (1, 1)), min(i[1] for i in (x, y) if i[0] >= 0)


def _or(known: Known, op: Op) -> Interval:
    x, y = (known.interval(v) for v in op.operands)
    if x[0] < 0 or y[0] < 0:
        return type_range(op.result.type.dtype)
    return max(x[0], y[0]), 2 ** max(x[1], y[1]).bit_length() - 1


def _not(known: Known, op: Op) -> Interval:
    lo, hi = known.interval(op.operands[0])
    if op.result.type.dtype.kind == "b":
        return 1 - hi, 1 - lo
    return (-1 - hi, -1 - lo) if op.result.type.dtype.kind == "i" else type_range(op.result.type.dtype)


def _shr(known: Known, op: Op) -> Interval:
    (lo, hi), (a, b) = (known.interval(v) for v in op.operands)
    if a < 0:
        return type_range(op.result.type.dtype)
    values = [x >> min(s, 64) for x in (lo, hi) for s in (a, b)]
    return min(values), max(values)


def _select(known: Known, op: Op) -> Interval:
    """Each choice as it is where it is taken."""
    c, *choices = op.operands
    out = []
    for truth, v in zip((True, False), choices):
        with known.scope():
            if not c.type.shape:
                assume(known, c, truth)
            out.append(known.interval(v))
    return hull(*out)


def _compare(known: Known, op: Op) -> Interval:
    x, y = op.operands
    if op.result.type.shape:
        (a, b), (c, d) = known.interval(x), known.interval(y)
        lo, hi = a - d, b - c
    else:
        lo, hi = known.span(known.form(x) - known.form(y))
        (a, b), (c, d) = known.interval(x), known.interval(y)
        lo, hi = meet((lo, hi), (a - d, b - c))
    always, never = _DECIDED[op.name](lo, hi)
    return int(always), int(not never)


_DECIDED: dict[str, Callable[[int, int], tuple[bool, bool]]] = {
    "lt": lambda lo, hi: (hi < 0, lo >= 0),
    "le": lambda lo, hi: (hi <= 0, lo > 0),
    "gt": lambda lo, hi: (lo > 0, hi <= 0),
    "ge": lambda lo, hi: (lo >= 0, hi < 0),
    "eq": lambda lo, hi: (lo == hi == 0, lo > 0 or hi < 0),
    "ne": lambda lo, hi: (lo > 0 or hi < 0, lo == hi == 0),
}


def _constant(known: Known, op: Op) -> Interval:
    a = np.asarray(op.attrs["value"])
    return (int(a.min()), int(a.max())) if a.size else (0, 0)


def _convert(known: Known, op: Op) -> Interval:
    lo, hi = known.interval(op.operands[0])
    if op.result.type.dtype.kind == "b":
        return int(lo > 0 or hi < 0), int(not lo == hi == 0)
    return lo, hi


def _iota(known: Known, op: Op) -> Interval:
    size = op.result.type.bound[0]
    return 0, max(size - 1, 0)


def _position(known: Known, op: Op) -> Interval:
    return 0, op.operands[0].type.bound[op.attrs["axis"]] - 1


def _order(known: Known, op: Op) -> Interval:
    return 0, max(op.operands[0].type.bound[-1] - 1, 0)


def _same(known: Known, op: Op) -> Interval:
    return known.interval(op.operands[0])


def _reduce(known: Known, op: Op) -> Interval:
    interval, shape, kind = known.interval(op.operands[0]), op.operands[0].type.bound, op.attrs["kind"]
    count = math.prod(shape[a] for a in op.attrs["axes"])
    if kind == "sum":
        return min(0, interval[0] * count), max(0, interval[1] * count)
    if kind in ("any", "all"):  # of nothing: False, True
        return hull(interval, (int(kind == "all"),) * 2)
    return interval if kind in ("max", "min") else type_range(op.result.type.dtype)


TRANSFER: dict[str, Transfer] = {
    "constant": _constant,
    "add": _of_corners(lambda x, y: x + y),
    "sub": _of_corners(lambda x, y: x - y),
    "mul": _of_corners(lambda x, y: x * y),
    "neg": _of_corners(lambda x: -x),
    "max": _of_corners(max),
    "min": _of_corners(min),
    "sign": _of_corners(lambda x: (x > 0) - (x < 0)),
    "floordiv": _floordiv,
    "rem": _rem,
    "abs": _abs,
    "and": _and,
    "or": _or,
    "not": _not,
    "shr": _shr,
    "select": _select,
    "convert": _convert,
    "iota": _iota,
    "argmax": _position,
    "argmin": _position,
    **dict.fromkeys(("argsort", "argpartition", "ranked"), _order),
    "reduce": _reduce,
    **dict.fromkeys(("broadcast", "reshape", "transpose", "extract", "gather", "partition", "sort"), _same),
    **dict.fromkeys(COMPARISONS, _compare),
}


# -- facts -----------------------------------------------------------------------------------------------------------


def assume(known: Known, v: Value, truth: bool) -> None:
    """Notes that a bool scalar is ``truth``, and what that says of the values it was computed from."""
    known.restrict(v, (int(truth), int(truth)))
    op = v.op
    if op is None:
        return
    if op.name == "not":
        assume(known, op.operands[0], not truth)
    elif op.name == ("and" if truth else "or"):
        for x in op.operands:
            assume(known, x, truth)
    elif op.name == "if":
        _assume_branch(known, op, op.results.index(v), truth)
    elif op.name in COMPARISONS and op.operands[0].type.dtype.is_integer:
        _assume_comparison(known, op.name if truth else INVERSE[op.name], *op.operands)


def _assume_branch(known: Known, op: Op, at: int, truth: bool) -> None:
    """``a and b`` as an ``if``: where the other branch would give the opposite, this one was taken."""
    (pred,) = op.operands
    for k, region in enumerate(op.regions):
        other = op.regions[1 - k].results[at]
        constant = other.op is not None and other.op.name == "constant"
        gives = k == 1 if other is pred else bool(other.op.attrs["value"]) if constant else truth  # type: ignore[union-attr]
        if gives is not truth:
            assume(known, pred, k == 0)
            assume(known, region.results[at], truth)


def _assume_comparison(known: Known, name: str, x: Value, y: Value) -> None:
    difference = known.form(x) - known.form(y)
    if name in ("lt", "le", "eq"):
        known.at_most_zero(difference + (name == "lt"))
    if name in ("gt", "ge", "eq"):
        known.at_most_zero(-difference + (name == "gt"))
    if name == "ne":
        known.not_zero(difference)
