"""Trees of arguments and results: dict, list, tuple, named tuple, objects (``dflow.records``); leaves are numbers and
arrays.

The work is done by ``optree``. Classes of objects are registered when they are first seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import optree

from dflow.errors import TraceError, failure
from dflow.records import CONSTANT, NAMESPACE, marks, register, register_attributes, registered_anew

Tree = Any
Spec = optree.PyTreeSpec


IsLeaf = Callable[[Any], bool] | None


def flatten(tree: Tree, none_is_leaf: bool = False, is_leaf: IsLeaf = None) -> tuple[list[Any], Spec]:
    """The leaves of a tree and its structure. What ``is_leaf`` says to be a leaf is not looked into."""
    try:
        leaves, spec = optree.tree_flatten(tree, is_leaf, none_is_leaf=none_is_leaf, namespace=NAMESPACE)
    except RecursionError:
        raise failure(
            TraceError,
            "an object refers to itself, and so has no end as a tree of numbers",
            seen=f"a {type(tree).__name__}",
            mend="leave the reference out (an index instead of an object), or mark the field dflow.field(static=True)",
        ) from None
    return flatten(tree, none_is_leaf, is_leaf) if registered_anew(leaves) else (leaves, spec)


def unflatten(spec: Spec, leaves: Iterable[Any]) -> Tree:
    return optree.tree_unflatten(spec, leaves)


def map_leaves(function: Callable[..., Any], tree: Tree, *rest: Tree, is_leaf: IsLeaf = None) -> Tree:
    return optree.tree_map(function, tree, *rest, is_leaf=is_leaf, namespace=NAMESPACE)


def paths(tree: Tree, root: str = "") -> list[str]:
    """What a user would write to reach each leaf, after ``root``: ``p['w'][0]``."""
    accessors, _, _ = optree.tree_flatten_with_accessor(tree, namespace=NAMESPACE)
    return [a.codify(root) for a in accessors]


def ways(tree: Tree, is_leaf: IsLeaf = None) -> list[tuple[Any, ...]]:
    """The keys, positions and names that lead to each leaf."""
    return optree.tree_paths(tree, is_leaf, namespace=NAMESPACE)


def constants(tree: Tree) -> set[int]:
    """The positions of the leaves that stand in fields marked as not differentiable."""
    accessors, _, _ = optree.tree_flatten_with_accessor(tree, namespace=NAMESPACE)
    return {k for k, a in enumerate(accessors) if any(marks(e.type).get(e.entry) == CONSTANT for e in a)}


__all__ = [
    "Spec",
    "Tree",
    "constants",
    "flatten",
    "map_leaves",
    "paths",
    "register",
    "register_attributes",
    "unflatten",
    "ways",
]
