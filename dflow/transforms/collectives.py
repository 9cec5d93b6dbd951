"""What the slices of a ``vmap`` with an ``axis_name`` have together: ``jax.lax``'s ``psum`` and its like.

All of them are made of the values of all slices (``gather_slices``) and the number of the slice. In a derivative that
is taken inside of the function, a cotangent is the sum of those of all slices, as in JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy

from dflow import trees
from dflow.errors import TraceError, failure
from dflow.tracing.arrays.lift import contains_traced, lift, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


@dataclass(frozen=True)
class MappedAxis:
    """A named axis that is being mapped."""

    name: Any
    size: int


_axes: ContextVar[tuple[MappedAxis, ...]] = ContextVar("axes", default=())


@contextmanager
def over_axis(axis: Any) -> Iterator[None]:
    """The axis is known inside, unless it is None."""
    token = _axes.set((*_axes.get(), axis) if axis else _axes.get())
    try:
        yield
    finally:
        _axes.reset(token)


def _axis(name: Any) -> MappedAxis:
    for axis in reversed(_axes.get()):
        if axis.name == name:
            return axis
    known = ", ".join(repr(a.name) for a in _axes.get())
    raise failure(
        TraceError,
        f"there is no mapped axis {name!r} here",
        seen=f"the axes {known}" if known else "no named axis",
        mend=f"map the function by dflow.vmap(f, axis_name={name!r})",
    )


def _names(axis_name: Any) -> tuple[Any, ...]:
    return tuple(axis_name) if isinstance(axis_name, tuple | list) else (axis_name,)


def _of_all(x: Any, axis: MappedAxis) -> Any:
    """The x of all slices, along a first axis."""
    return wrap(builder().gather_slices(lift(x).value, axis=axis.name, size=axis.size))


def _each(x: Any, axis_name: Any, reduced: Callable[[Any, MappedAxis], Any]) -> Any:
    """``reduced`` of every leaf, over one axis after the other."""
    for name in _names(axis_name):
        axis = _axis(name)
        x = trees.map_leaves(lambda leaf, axis=axis: reduced(leaf, axis), x)
    return x


def psum(x: Any, axis_name: Any) -> Any:
    """The sum over the slices of a mapped axis (or several: a tuple of names) of every leaf of a tree.

    Of a number that is known it is known, too: ``psum(1, axis_name)`` is the number of slices. Raises TraceError where
    no axis of this name is mapped.
    """

    def total(leaf: Any, axis: MappedAxis) -> Any:
        if not contains_traced(leaf):
            return leaf * axis.size
        whole = _of_all(leaf, axis)
        return np.sum(whole, axis=0).astype(whole.dtype) if whole.dtype != bool else np.sum(whole, axis=0)

    return _each(x, axis_name, total)


def pmean(x: Any, axis_name: Any) -> Any:
    """The mean over the slices of a mapped axis."""
    return _each(x, axis_name, lambda leaf, axis: np.mean(_of_all(leaf, axis), axis=0))


def pmax(x: Any, axis_name: Any) -> Any:
    """The maximum over the slices of a mapped axis."""
    return _each(x, axis_name, lambda leaf, axis: np.max(_of_all(leaf, axis), axis=0))


def pmin(x: Any, axis_name: Any) -> Any:
    """The minimum over the slices of a mapped axis."""
    return _each(x, axis_name, lambda leaf, axis: np.min(_of_all(leaf, axis), axis=0))


def axis_size(axis_name: Any) -> int:
    """The number of slices of a mapped axis."""
    return int(numpy.prod([_axis(n).size for n in _names(axis_name)]))


def axis_index(axis_name: Any) -> Any:
    """The number of this slice; over several axes the last counts fastest."""
    number: Any = 0
    for name in _names(axis_name):
        axis = _axis(name)
        number = number * axis.size + wrap(builder().slice_number(axis=axis.name, size=axis.size))
    return number


def all_gather(x: Any, axis_name: Any, *, axis: int = 0, tiled: bool = False) -> Any:
    """The values of all slices along a new axis, or one behind the other along one that is there (``tiled``)."""
    mapped = _axis(axis_name)

    def gathered(leaf: Any) -> Any:
        whole = _of_all(leaf, mapped)
        if not tiled:
            return np.moveaxis(whole, 0, axis)
        return np.concatenate([whole[k] for k in range(mapped.size)], axis=axis)

    return trees.map_leaves(gathered, x)


def ppermute(x: Any, axis_name: Any, perm: Sequence[tuple[int, int]]) -> Any:
    """Pairs of ``perm`` send the value of one slice to another; what is sent none has zeros."""
    mapped = _axis(axis_name)
    sources = numpy.full(mapped.size, -1)
    for source, target in perm:
        sources[target] = source
    source = lift(sources)[axis_index(axis_name)]

    def sent(leaf: Any) -> Any:
        whole = _of_all(leaf, mapped)
        return np.where(source >= 0, whole[np.maximum(source, 0)], np.zeros((), whole.dtype))

    return trees.map_leaves(sent, x)


def all_to_all(x: Any, axis_name: Any, split_axis: int, concat_axis: int, *, tiled: bool = False) -> Any:
    """Part ``k`` along ``split_axis`` goes to slice ``k``, which has those of all slices along ``concat_axis``."""
    mapped = _axis(axis_name)
    me = axis_index(axis_name)

    def exchanged(leaf: Any) -> Any:
        leaf = lift(leaf)
        width, rest = divmod(leaf.shape[split_axis], mapped.size)
        if rest or not (tiled or width == 1):
            raise ValueError(f"axis {split_axis} of size {leaf.shape[split_axis]} for {mapped.size} slices")
        parts = np.moveaxis(_of_all(leaf, mapped), 1 + range(leaf.ndim)[split_axis], 1)
        mine = parts[:, me * width + lift(np.arange(width))]  # from slice, part, the other axes
        if not tiled:
            return np.moveaxis(mine[:, 0], 0, concat_axis)
        pieces = [np.moveaxis(mine[k], 0, split_axis) for k in range(mapped.size)]
        return np.concatenate(pieces, axis=concat_axis)

    return trees.map_leaves(exchanged, x)


def psum_scatter(x: Any, axis_name: Any, *, scatter_dimension: int = 0, tiled: bool = False) -> Any:
    """The part of ``psum(x, axis_name)`` that has the number of this slice along an axis."""
    mapped = _axis(axis_name)
    me = axis_index(axis_name)

    def mine(leaf: Any) -> Any:
        total = np.moveaxis(psum(leaf, axis_name), scatter_dimension, 0)
        width, rest = divmod(total.shape[0], mapped.size)
        if rest or not (tiled or width == 1):
            raise ValueError(f"axis {scatter_dimension} of size {total.shape[0]} for {mapped.size} slices")
        part = total[me * width + lift(np.arange(width))]
        return np.moveaxis(part, 0, scatter_dimension) if tiled else part[0]

    return trees.map_leaves(mine, x)
