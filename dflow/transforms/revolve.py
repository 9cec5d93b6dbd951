"""Loops whose reverse pass keeps a given number of states, and runs iterations again as few times as that allows.

The schedule is the binomial one: A. Griewank and A. Walther, "Algorithm 799: Revolve" (ACM TOMS 26, 2000). With ``s``
states kept, ``C(s + r, s)`` iterations are reversed when none runs more than ``r`` times. It is a program of the loop's
kind, written as a user would write it: a stack of states, from whose top the loop runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dflow import trees
from dflow.api import jvp, vjp
from dflow.ir.types import kind_of
from dflow.shapes import shape_of
from dflow.transforms.custom import custom_jvp
from dflow.transforms.linear_rules import closure_convert, custom_transpose

Trees = Any


def revolved(
    f: Callable[..., Any], init: Trees, xs: Trees, types: Trees, n: int, snapshots: int, place: Callable[[Any], Any]
) -> tuple[Trees, Trees]:
    """``dflow.lax.scan`` of ``n`` iterations in a trace, with ``snapshots`` states kept.

    Iteration ``k`` has the slice ``place(k)`` of ``xs``, and gives that of the results, of which ``types`` has slices.
    """
    snapshots = min(snapshots, n)
    starts = first_snapshots(n, snapshots)
    converted, closure = closure_convert(f, init, trees.map_leaves(lambda x: shape_of(x, 0), xs))

    def step(closure: Any, carry: Any, x: Any) -> Any:
        return converted(carry, x, *closure)

    def forward(closure: Any, carry: Any, xs: Any, keep: bool) -> Any:
        """The loop, and, to ``keep``, the states that it had at ``starts``."""
        ys = trees.map_leaves(lambda t: np.zeros((n, *t.shape), t.dtype), types)
        kept = trees.map_leaves(lambda x: np.zeros((snapshots, *np.shape(x)), shape_of(x).dtype), carry)
        places, count = np.array([*starts, n]), 0
        for k in range(n):
            if keep and places[count] == k:
                _store(kept, carry, count)
                count += 1
            carry, y = step(closure, carry, _at(xs, place(k)))
            _store(ys, y, place(k))
        return carry, ys, kept

    def plain(closure: Any, carry: Any, xs: Any) -> Any:
        carry, ys, _ = forward(closure, carry, xs, keep=False)
        return carry, ys

    run = custom_jvp(plain)

    def tangent(primals: Any, tangents: Any) -> Any:
        closure, carry, xs = primals
        carry, ys, kept = forward(closure, carry, xs, keep=True)
        dots, spec = trees.flatten(tangents)

        def push(known: Any, dots: Any) -> Any:
            return jvp(plain, known[0], trees.unflatten(spec, dots))[1]

        def pull(known: Any, bars: Any) -> Any:
            return trees.flatten(backward(*known, *bars))[0]

        pushed = custom_transpose(push)
        pushed.def_transpose(pull)
        return (carry, ys), pushed((primals, kept), dots)

    def backward(primals: Any, kept: Any, bar: Any, y_bars: Any) -> Any:
        """The cotangents of ``primals`` from those of the last state and of the results."""
        closure, _, xs = primals
        closure_bar, x_bars = _zeros(closure), _zeros(xs)
        kept = trees.map_leaves(lambda t: t.copy(), kept)
        places = np.array([*starts, *[0] * (snapshots - len(starts))])
        top = len(starts) - 1
        for j in range(n):
            k = n - 1 - j
            here = places[top]
            carry = _at(kept, top)
            while here < k:
                free = snapshots - 1 - top
                count = advance(k + 1 - here, free)
                for _ in range(count):
                    carry, _y = step(closure, carry, _at(xs, place(here)))
                    here += 1
                if free > 0:
                    top += 1
                    places[top] = here
                    _store(kept, carry, top)
            if places[top] == k:
                top -= 1
            _, back = vjp(step, closure, carry, _at(xs, place(k)))
            more, bar, x_bar = back((bar, _at(y_bars, place(k))))
            closure_bar = trees.map_leaves(lambda a, b: a + b, closure_bar, more)
            _store(x_bars, x_bar, place(k))
        return closure_bar, bar, x_bars

    run.defjvp(tangent)
    return run(tuple(closure), init, xs)


def advance(count: Any, free: Any) -> Any:
    """How far to run from a state that is kept, of the ``count`` iterations that are to be reversed from there, until
    the next one is kept, when there is place for ``free`` more."""
    if free == 0:
        return count - 1
    s = free + 1
    r, before, reach = 1, 1, s + 1  # C(s + r - 1, s) and C(s + r, s): what is reversed by r - 1 runs, and by r
    while reach < count:
        r += 1
        before, reach = reach, reach * (s + r) // r
    rest = before * s // (s + r - 1)  # C(s + r - 2, s - 1): the same with one state fewer
    return max(1, min(before, count - rest))


def first_snapshots(n: int, snapshots: int) -> list[int]:
    """Where the first run of ``n`` iterations keeps the state."""
    places = [0]
    while len(places) < snapshots and places[-1] < n - 1:
        places.append(places[-1] + advance(n - places[-1], snapshots - len(places)))
    return places


def _at(tables: Trees, k: Any) -> Trees:
    return trees.map_leaves(lambda t: np.copy(t[k]), tables)  # no view: the tables are written


def _store(tables: Trees, parts: Trees, k: Any) -> None:
    for table, part in zip(trees.flatten(tables)[0], trees.flatten(parts)[0]):
        table[k] = part


def _zeros(tree: Trees) -> Trees:
    """Zeros for what varies, None for the rest."""
    return trees.map_leaves(lambda x: np.zeros_like(x) if kind_of(shape_of(x).dtype) in "fc" else None, tree)


__all__ = ["advance", "first_snapshots", "revolved"]
