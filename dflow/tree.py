"""Trees of arrays (dict, list, tuple, named tuple, dataclass, registered classes), under the names of ``jax.tree``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dflow import trees
from dflow.tracing.calls import call
from dflow.tracing.lift import contains_traced


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


__all__ = ["flatten", "leaves", "map", "ravel_pytree", "reduce", "structure", "unflatten"]
