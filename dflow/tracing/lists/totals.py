"""``sum``, ``min``, ``any`` and their like, of lists that loops have filled, and what searches lists for traced values,
as users would write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def total(items: Any, start: Any) -> Any:
    for x in items:
        start = start + x
    return start


def min(items: Any, key: Callable[[Any], Any]) -> Any:
    if not len(items):
        raise ValueError("min() arg is an empty sequence")
    best = items[0]
    for x in items:
        if key(x) < key(best):
            best = x
    return best


def max(items: Any, key: Callable[[Any], Any]) -> Any:
    if not len(items):
        raise ValueError("max() arg is an empty sequence")
    best = items[0]
    for x in items:
        if key(x) > key(best):
            best = x
    return best


def any(items: Any) -> Any:
    found = False
    for x in items:
        found = found or bool(x)
    return found


def all(items: Any) -> Any:
    found = True
    for x in items:
        found = found and bool(x)
    return found


def index(items: Any, value: Any, start: int = 0) -> Any:
    for k in range(start, len(items)):
        if items[k] == value:
            return k
    raise ValueError("the value is not in the list")


def count(items: Any, value: Any) -> Any:
    found = 0
    for x in items:
        if x == value:
            found += 1
    return found


def bisect_left(a: Any, x: Any, lo: int = 0, hi: Any = None, *, key: Any = None) -> Any:
    if lo < 0:
        raise ValueError("lo must be non-negative")
    hi = len(a) if hi is None else hi
    while lo < hi:
        middle = (lo + hi) // 2
        if (a[middle] if key is None else key(a[middle])) < x:
            lo = middle + 1
        else:
            hi = middle
    return lo


def bisect_right(a: Any, x: Any, lo: int = 0, hi: Any = None, *, key: Any = None) -> Any:
    if lo < 0:
        raise ValueError("lo must be non-negative")
    hi = len(a) if hi is None else hi
    while lo < hi:
        middle = (lo + hi) // 2
        if x < (a[middle] if key is None else key(a[middle])):
            hi = middle
        else:
            lo = middle + 1
    return lo


def nsmallest(n: int, iterable: Any, key: Any = None) -> Any:
    return sorted(iterable, key=key)[: n if n > 0 else 0]


def nlargest(n: int, iterable: Any, key: Any = None) -> Any:
    return sorted(iterable, key=key, reverse=True)[: n if n > 0 else 0]


def equal(xs: Any, ys: Any) -> Any:
    same = len(xs) == len(ys)
    if same:
        for k in range(len(xs)):
            same = same and xs[k] == ys[k]
    return same
