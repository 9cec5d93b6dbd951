"""Trees of arrays (dict, list, tuple, named tuple, dataclass, registered classes), under the names of ``jax.tree``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dflow import trees
from dflow.errors import TraceError, failure
from dflow.tracing.arrays.lift import contains_traced
from dflow.tracing.python.calls import call


def map(function: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The tree of ``function(leaf, ...)`` for the leaves of ``tree`` and what is in their places in ``rest``. What
    ``is_leaf`` says to be a leaf, a tuple for example, is not looked into."""
    return trees.map_leaves(lambda *leaves: call(function, *leaves), tree, *rest, is_leaf=is_leaf)


def leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves, from left to right; the keys of a dict in order."""
    return trees.flatten(tree, is_leaf=is_leaf)[0]


def structure(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The tree without its leaves: comparable and hashable."""
    return trees.flatten(tree, is_leaf=is_leaf)[1]


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], Any]:
    """The leaves and the structure."""
    return trees.flatten(tree, is_leaf=is_leaf)


def unflatten(structure: Any, leaves: Iterable[Any]) -> Any:
    """The tree of a structure and leaves."""
    return trees.unflatten(structure, leaves)


def reduce(function: Callable[[Any, Any], Any], tree: Any, *initial: Any) -> Any:
    """``function`` folded over the leaves."""
    return functools.reduce(lambda a, b: call(function, a, b), leaves(tree), *initial)


def all(tree: Any, *, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """Whether every leaf holds (of arrays, in every place)."""
    return functools.reduce(np.logical_and, leaves(tree, is_leaf), True)


def transpose(outer: Any, inner: Any, tree: Any) -> Any:
    """A tree of the structure ``outer`` whose leaves are trees of the structure ``inner``, the other way round."""
    parts = trees.flatten(tree)[0]
    n = inner.num_leaves
    if len(parts) != n * outer.num_leaves:
        raise failure(
            TraceError,
            "the tree has not the structure of the outer tree with inner trees for its leaves",
            seen=f"{structure(tree)}",
            wanted=f"{outer} of {inner}",
        )
    return trees.unflatten(inner, [trees.unflatten(outer, parts[k::n]) for k in range(n)])


def flatten_with_path(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[tuple[tuple[Any, ...], Any]], Any]:
    """Pairs of the way to a leaf (its keys, positions and names) and the leaf; and the structure."""
    found, spec = trees.flatten(tree, is_leaf=is_leaf)
    return list(zip(trees.ways(tree, is_leaf), found)), spec


def leaves_with_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[tuple[Any, ...], Any]]:
    """The pairs of ``flatten_with_path``."""
    return flatten_with_path(tree, is_leaf)[0]


def map_with_path(
    function: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None
) -> Any:
    """``map`` with the way to each leaf as the first argument."""
    ways = trees.unflatten(structure(tree, is_leaf), [_Way(w) for w in trees.ways(tree, is_leaf)])
    return trees.map_leaves(
        lambda leaf, way, *more: call(function, way.keys, leaf, *more), tree, ways, *rest, is_leaf=is_leaf
    )


class _Way:
    """A way to a leaf as a leaf: the tuple itself would be a tree."""

    def __init__(self, keys: tuple[Any, ...]):
        self.keys = keys


def ravel_pytree(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """All numbers of a tree in one vector, and the function from such a vector to a tree of its structure.

    The vector has the dtype that holds all; the other way, each leaf gets its shape and dtype back.
    """
    parts, spec = trees.flatten(tree)
    shapes = [np.shape(x) for x in parts]
    dtypes = [x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype for x in parts]
    ends = np.cumsum([int(np.prod(s, dtype=np.int64)) for s in shapes])
    flat = np.concatenate([np.reshape(x, -1) for x in parts]) if parts else np.zeros(0)

    def unravel(vector: Any) -> Any:
        starts = [0, *ends[:-1]]
        pieces = [vector[int(a) : int(z)].reshape(s).astype(d) for a, z, s, d in zip(starts, ends, shapes, dtypes)]
        if not contains_traced(pieces):
            pieces = [p if p.ndim else p[()] for p in pieces]
        return trees.unflatten(spec, pieces)

    return flat, unravel


__all__ = [
    "all",
    "flatten",
    "flatten_with_path",
    "leaves",
    "leaves_with_path",
    "map",
    "map_with_path",
    "ravel_pytree",
    "reduce",
    "structure",
    "transpose",
    "unflatten",
]
