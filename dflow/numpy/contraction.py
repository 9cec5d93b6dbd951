"""Contractions: tensors whose axes have names, multiplied and summed over the names that the result lacks.

Operands are combined two at a time. Both become stacks of matrices, with axes in the order (batch, free, contracted)
and (batch, contracted, free), and the result is their matrix product with its axes in order again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.ir.types import Dim
from dflow.numpy import support as s
from dflow.numpy.ufunc_rules import rule_for
from dflow.tracing.arrays.sizes import agreed, recast
from dflow.tracing.context import builder

Name = Hashable


def contract(values: Sequence[Value], names: Sequence[Sequence[Name]], result: Sequence[Name]) -> Value:
    """The sum of products of ``values``, whose axes have ``names``, with the axes ``result``. Raises ValueError."""
    sizes = _sizes(values, names)
    for name in result:
        if name not in sizes or list(result).count(name) > 1:
            raise ValueError(f"einsum: the axis {name!r} of the result is not one axis of the operands")
    terms = [_single(v, list(n), sizes) for v, n in zip(values, names)]
    for pair in _order(terms, result):
        taken = [terms.pop(k) for k in sorted(pair, reverse=True)][::-1]
        needed = {*result, *(n for _, other in terms for n in other)}
        others = [{m for i, (_, names) in enumerate(taken) if i != k for m in names} for k in range(len(taken))]
        taken = [_summed(v, n, needed | other) for (v, n), other in zip(taken, others)]
        terms.append(_pair(*taken[0], *taken[1], needed) if len(taken) == 2 else taken[0])
    ((v, axes),) = terms
    v, axes = _summed(v, axes, set(result))
    kept = [n for n in result if n in axes]
    v = s.transposed(v, [axes.index(n) for n in kept])
    shape = tuple(sizes[n] if n in axes else 1 for n in result)
    return s.expand(s.reshaped(v, shape), tuple(sizes[n] for n in result))


def _sizes(values: Sequence[Value], names: Sequence[Sequence[Name]]) -> dict[Name, Dim]:
    """The size of every name. An axis of size 1 goes with any other size."""
    sizes: dict[Name, Dim] = {}
    for v, ns in zip(values, names):
        for name, d in zip(ns, v.type.shape):
            known = sizes.get(name, 1)
            if 1 not in (known, d) and known != d:
                both = agreed(known, d)
                if both is None:
                    raise ValueError(f"einsum: axis {name!r} has size {d} in one operand and {known} in another")
                known = both
            sizes[name] = d if known == 1 else known
    return sizes


def _order(terms: Sequence[tuple[Value, list[Name]]], result: Sequence[Name]) -> list[tuple[int, ...]]:
    """Which terms to combine, by position; each combination goes to the end. NumPy's greedy search decides."""
    if len(terms) <= 2 or not all(v.type.is_static for v, _ in terms):
        return [(0, 1)] * (len(terms) - 1)
    numbers: dict[Name, int] = {}
    subscripts: list[Any] = []
    for v, axes in terms:
        subscripts += [np.broadcast_to(0.0, v.type.static_shape), [numbers.setdefault(n, len(numbers)) for n in axes]]
    result = [n for n in result if n in numbers]
    path = np.einsum_path(*subscripts, [numbers[n] for n in result], optimize="greedy")[0]
    return path[1:] if all(len(p) == 2 for p in path[1:]) else [(0, 1)] * (len(terms) - 1)


def _single(v: Value, names: list[Name], sizes: dict[Name, Dim]) -> tuple[Value, list[Name]]:
    """A term without axes of size 1 that are larger elsewhere, and with every name once (a diagonal)."""
    keep = [k for k, n in enumerate(names) if v.type.shape[k] == sizes[n] or v.type.shape[k] != 1]
    v, names = s.reshaped(v, tuple(v.type.shape[k] for k in keep)), [names[k] for k in keep]
    v = recast(v, tuple(sizes[n] for n in names))
    for name in [n for n in dict.fromkeys(names) if names.count(n) > 1]:
        v, names = _diagonal(v, names, name)
    return v, names


def _diagonal(v: Value, names: list[Name], name: Name) -> tuple[Value, list[Name]]:
    b = builder()
    at = [k for k, n in enumerate(names) if n == name]
    rest = [k for k in range(len(names)) if k not in at]
    positions = b.iota(size=v.type.shape[at[0]])
    return b.gather(s.transposed(v, [*at, *rest]), *[positions] * len(at)), [name, *(names[k] for k in rest)]


def _summed(v: Value, names: list[Name], needed: set[Name]) -> tuple[Value, list[Name]]:
    """A term summed over the names that nobody needs."""
    axes = tuple(k for k, n in enumerate(names) if n not in needed)
    if not axes:
        return v, names
    kind = "any" if v.type.dtype.kind == "b" else "sum"
    return builder().reduce(v, kind=kind, axes=axes), [n for n in names if n in needed]


def _pair(x: Value, xs: list[Name], y: Value, ys: list[Name], needed: set[Name]) -> tuple[Value, list[Name]]:
    """The product of two terms, summed over the names in both that nobody needs."""
    shared = [n for n in xs if n in ys]
    batch, summed = [n for n in shared if n in needed], [n for n in shared if n not in needed]
    left, right = [n for n in xs if n not in ys], [n for n in ys if n not in xs]
    names = [*batch, *left, *right]
    sizes = {**dict(zip(ys, y.type.shape)), **dict(zip(xs, x.type.shape))}
    if not summed or not (left or right):
        return _summed(_multiplied(x, xs, y, ys, [*names, *summed], sizes), [*names, *summed], set(names))
    x = s.transposed(x, [xs.index(n) for n in (*batch, *left, *summed)])
    y = s.transposed(y, [ys.index(n) for n in (*batch, *summed, *right)])
    lead = tuple(sizes[n] for n in batch)
    m, k, n = (_product(sizes[n] for n in group) for group in (left, summed, right))
    z = _matmul(s.reshaped(x, (*lead, m, k)), s.reshaped(y, (*lead, k, n)))
    return s.reshaped(z, tuple(sizes[n] for n in names)), names


def _product(sizes: Iterable[Dim]) -> Dim:
    """The size of several axes as one."""
    sizes = list(sizes)
    return sizes[0] if len(sizes) == 1 else int(np.prod(s.static(sizes, "np.einsum"), dtype=np.int64))


def _multiplied(x: Value, xs: list[Name], y: Value, ys: list[Name], names: list[Name], sizes: dict[Name, Dim]) -> Value:
    b, shape = builder(), tuple(sizes[n] for n in names)
    spread = []
    for v, own in ((x, xs), (y, ys)):
        v = s.transposed(v, [own.index(n) for n in names if n in own])
        dims = tuple(k for k, n in enumerate(names) if n in own)
        spread.append(v if v.type.shape == shape else b.broadcast(v, shape=shape, dims=dims))
    return rule_for("multiply", x.type.dtype)(b, *spread)


def _matmul(x: Value, y: Value) -> Value:
    if x.type.dtype.kind == "b":
        return s.cast(builder().matmul(s.cast(x, np.int64), s.cast(y, np.int64)), bool)
    return builder().matmul(x, y)
