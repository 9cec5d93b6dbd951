"""Trees of arrays under the names of ``jax.tree_util``: those of ``dflow.tree``, with ``tree_`` before them."""

from __future__ import annotations

from typing import Any

from dflow.records import register as register_pytree_node
from dflow.tree import all as tree_all
from dflow.tree import flatten as tree_flatten
from dflow.tree import flatten_with_path as tree_flatten_with_path
from dflow.tree import leaves as tree_leaves
from dflow.tree import leaves_with_path as tree_leaves_with_path
from dflow.tree import map as tree_map
from dflow.tree import map_with_path as tree_map_with_path
from dflow.tree import reduce as tree_reduce
from dflow.tree import structure as tree_structure
from dflow.tree import transpose as tree_transpose
from dflow.tree import unflatten as tree_unflatten


def register_pytree_node_class(cls: Any) -> Any:
    """Makes instances of a class nodes of trees by its ``tree_flatten`` and its class method ``tree_unflatten``."""
    return register_pytree_node(cls, lambda x: x.tree_flatten(), cls.tree_unflatten)


__all__ = [
    "register_pytree_node",
    "register_pytree_node_class",
    "tree_all",
    "tree_flatten",
    "tree_flatten_with_path",
    "tree_leaves",
    "tree_leaves_with_path",
    "tree_map",
    "tree_map_with_path",
    "tree_reduce",
    "tree_structure",
    "tree_transpose",
    "tree_unflatten",
]
