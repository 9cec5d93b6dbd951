"""Trees of arguments and results: dict, list, tuple, named tuple, dataclass; leaves are numbers and arrays.

The work is done by ``optree``. Classes of a user's own become nodes by ``register``; dataclasses, and the class of a
method's ``self``, are registered when they are first seen: their numeric attributes are leaves, the others are part of
the structure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from types import MemberDescriptorType
from typing import Any

import numpy as np
import optree

NAMESPACE = "dflow"
Tree = Any
Spec = optree.PyTreeSpec

_HEAP_TYPE = 1 << 9  # of a class: made by a class statement, not in C

_registered: set[type] = set()


def flatten(tree: Tree) -> tuple[list[Any], Spec]:
    """The leaves of a tree and its structure."""
    leaves, spec = optree.tree_flatten(tree, namespace=NAMESPACE)
    fresh = [x for x in leaves if register_dataclass(x)]
    return flatten(tree) if fresh else (leaves, spec)


def unflatten(spec: Spec, leaves: Iterable[Any]) -> Tree:
    return optree.tree_unflatten(spec, leaves)


def map_leaves(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    return optree.tree_map(function, tree, *rest, namespace=NAMESPACE)


def paths(tree: Tree, root: str = "") -> list[str]:
    """What a user would write to reach each leaf, after ``root``: ``p['w'][0]``."""
    accessors, _, _ = optree.tree_flatten_with_accessor(tree, namespace=NAMESPACE)
    return [a.codify(root) for a in accessors]


def register(
    cls: type,
    flatten: Callable[[Any], tuple[Iterable[Any], Any]],
    unflatten: Callable[[Any, Any], Any],
) -> type:
    """Makes instances of ``cls`` nodes of trees.

    ``flatten(x) -> (children, rest)`` and ``unflatten(rest, children) -> x``; ``rest`` must be hashable and comparable.
    """
    optree.register_pytree_node(cls, lambda x: (*flatten(x), None), unflatten, namespace=NAMESPACE)
    _registered.add(cls)
    return cls


def register_dataclass(x: Any) -> bool:
    """Makes the class of a dataclass's instance one of nodes; whether it was not yet one."""
    if not dataclasses.is_dataclass(x) or isinstance(x, type) or type(x) in _registered:
        return False
    register_attributes(type(x))
    return type(x) in _registered


def register_attributes(cls: type) -> None:
    """Makes instances of ``cls`` nodes whose children are their numeric attributes, if it is a class of Python code all
    the way up: what a list or an array holds is not in its attributes."""
    if cls in _registered or not all(c.__flags__ & _HEAP_TYPE for c in cls.__mro__ if c is not object):
        return

    def apart(x: Any) -> tuple[list[Any], Any]:
        # None is the tangent of a number that cannot vary, so it counts with the numbers.
        everything = _attributes(x)
        names = [k for k, v in everything.items() if v is None or _is_numeric(v)]
        rest = tuple((k, _Static(v)) for k, v in everything.items() if k not in set(names))
        return [everything[k] for k in names], (tuple(names), rest)

    def together(kept: Any, children: Any) -> Any:
        names, rest = kept
        x: Any = object.__new__(cls)
        for k, v in (*zip(names, children), *((k, s.value) for k, s in rest)):
            object.__setattr__(x, k, v)
        return x

    register(cls, apart, together)


def _attributes(x: Any) -> dict[str, Any]:
    """The attributes of an instance, those in ``__slots__`` too."""
    slots = [n for c in type(x).__mro__ for n, d in vars(c).items() if isinstance(d, MemberDescriptorType)]
    return {**{n: getattr(x, n) for n in slots if hasattr(x, n)}, **getattr(x, "__dict__", {})}


class _Static:
    """An attribute that is part of the structure: compared by value, or by identity where that fails."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Static):
            return False
        if self.value is other.value:
            return True
        try:
            return bool(self.value == other.value)
        except Exception:
            return False

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except TypeError:
            return id(type(self.value))


def _is_numeric(x: Any) -> bool:
    from dflow.tracing.array import Array

    if isinstance(x, bool | str | bytes) or x is None or callable(x):
        return False
    if isinstance(x, int | float | complex | np.ndarray | np.generic | Array):
        return True
    if isinstance(x, dict | list | tuple) or dataclasses.is_dataclass(x):
        leaves, _ = flatten(x)
        return bool(leaves) and all(_is_numeric(leaf) for leaf in leaves)
    return type(x) in _registered
