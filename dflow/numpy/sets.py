"""Sets, as sorted vectors of distinct elements. As ``unique`` they have as many elements as there are when the program
runs, or ``size`` ones: surplus ones are dropped, missing ones are ``fill_value``; as in JAX, without one they are the
smallest element found (0 if there is none), and 0 in a difference."""

from __future__ import annotations

from typing import Any

import numpy

from dflow.ir.core import Value
from dflow.numpy import support as s
from dflow.numpy.dispatch import implements
from dflow.numpy.shapes import flat
from dflow.numpy.sorting import SIZED, beginnings, compress, isin, order, unique
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


def _vectors(*arrays: Any) -> list[Array]:
    """The elements of the arrays, in their common dtype."""
    common = s.result_type(*map(lift, arrays))
    return [wrap(flat(s.cast(lift(a).value, common))) for a in arrays]


def _ordered(x: Array) -> tuple[Array, Array, Array]:
    """The elements in order, where each came from, and which of them are the first of their value."""
    (n,) = s.static(s.dims(x), "a set")
    sorter: Value = order(x.value)
    found = builder().gather(x.value, sorter)
    return wrap(found), wrap(sorter), wrap(beginnings(found, n, True))


def _chosen(mask: Any, x: Any, size: Any, fill: Any) -> Array:
    return compress.__wrapped__(mask, x, size=size, fill_value=fill)


def _chosen_or_smallest(mask: Any, x: Any, size: Any, fill: Any) -> Array:
    """Of a sorted ``x``; the first element stands for missing ones if there is no ``fill``."""
    found = _chosen(mask, x, size, fill)
    if size is None or fill is not None or not s.static_int(size, "size"):
        return found
    return np.where(np.arange(size) < np.sum(mask), found, found[0])


@implements(np.union1d, extra=SIZED)
def union1d(ar1: Any, ar2: Any, *, size: Any = None, fill_value: Any = None) -> Array:
    return unique.__wrapped__(np.concatenate(_vectors(ar1, ar2)), size=size, fill_value=fill_value)


@implements(np.intersect1d, extra=SIZED)
def intersect1d(
    ar1: Any,
    ar2: Any,
    assume_unique: bool = False,
    return_indices: bool = False,
    *,
    size: Any = None,
    fill_value: Any = None,
) -> Any:
    x, y = _vectors(ar1, ar2)
    values, sorter, first = _ordered(x)
    mask = first & isin.__wrapped__(values, y)
    found = _chosen_or_smallest(mask, values, size, fill_value)
    if not return_indices:
        return found
    others, other_sorter, _ = _ordered(y)
    there = np.minimum(np.searchsorted(others, values), max(y.size - 1, 0))
    positions = other_sorter[there] if y.size else sorter
    return found, _chosen(mask, sorter, size, x.size), _chosen(mask, positions, size, y.size)


@implements(np.setdiff1d, extra=SIZED)
def setdiff1d(ar1: Any, ar2: Any, assume_unique: bool = False, *, size: Any = None, fill_value: Any = None) -> Array:
    """With ``assume_unique`` the elements keep their order."""
    x, y = _vectors(ar1)[0], lift(ar2)
    if assume_unique:
        return _chosen(~isin.__wrapped__(x, y), x, size, fill_value)
    values, _, first = _ordered(x)
    return _chosen(~isin.__wrapped__(values, y) & first, values, size, fill_value)


@implements(np.setxor1d, extra=SIZED)
def setxor1d(ar1: Any, ar2: Any, assume_unique: bool = False, *, size: Any = None, fill_value: Any = None) -> Array:
    x, y = _vectors(ar1, ar2)
    values, _, first = _ordered(np.concatenate([x, y]))
    one_of_them = isin.__wrapped__(values, x) ^ isin.__wrapped__(values, y)
    return _chosen_or_smallest(first & one_of_them, values, size, fill_value)
