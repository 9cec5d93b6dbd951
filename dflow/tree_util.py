"""Trees of arrays under the names of ``jax.tree_util``: those of ``dflow.tree``, with ``tree_`` before them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
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


def register_dataclass(
    nodetype: Any, data_fields: Sequence[str] | None = None, meta_fields: Sequence[str] | None = None
) -> Any:
    """Makes instances of a class nodes of trees whose children are the attributes ``data_fields``; those of
    ``meta_fields`` belong to the structure, and are known while tracing.

    Of a dataclass without them, the fields with ``metadata={"static": True}`` belong to the structure. Instances are
    put together without ``__init__``.
    """
    if data_fields is None or meta_fields is None:
        static = {f.name: bool(f.metadata.get("static")) for f in dataclasses.fields(nodetype) if f.init}
        data_fields, meta_fields = [n for n in static if not static[n]], [n for n in static if static[n]]
    data, meta = tuple(data_fields), tuple(meta_fields)

    def apart(x: Any) -> Any:
        return [getattr(x, n) for n in data], tuple(getattr(x, n) for n in meta)

    def together(known: Any, children: Any) -> Any:
        made = object.__new__(nodetype)
        for name, value in (*zip(data, children), *zip(meta, known)):
            object.__setattr__(made, name, value)
        return made

    return register_pytree_node(nodetype, apart, together)


class Partial(functools.partial):
    """``functools.partial`` as a tree: the arguments are its leaves, the function belongs to its structure."""


register_pytree_node(Partial, lambda p: ((p.args, p.keywords), p.func), lambda f, c: Partial(f, *c[0], **c[1]))

__all__ = [
    "Partial",
    "register_dataclass",
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
