"""Taking known trees apart and putting them together by generated Python: ten times faster than walking them.

For a call ``f({"w": w, "b": b})`` whose tree has been seen before, the code reads ``x0 = args[0]; return (x0["b"],
x0["w"])``, with checks that the containers are what they were. Named tuples are read as tuples, objects by their
``__dict__`` or slots; trees with other nodes are left to ``optree``.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optree

from dflow.records import (
    attributes,
    has_attributes,
    has_attributes_in_dict,
    has_attributes_in_slots,
    slots,
    with_attributes,
)

_NODES = (tuple, list, dict)
_BY_VALUE = (int, bool, str, type(None))
_BY_IDENTITY = (
    type, types.ModuleType, enum.Enum, types.FunctionType, types.BuiltinFunctionType, np.ufunc, type(np.sum),
)  # fmt: skip


class Different(Exception):
    """The tree is not the one that the code was made for."""


def is_plain(spec: optree.PyTreeSpec) -> bool:
    """Whether a tree has tuples, lists and dicts only, which another process has too."""
    return spec.is_leaf() or (spec.type in _NODES and all(map(is_plain, spec.children())))


def extractor(
    spec: optree.PyTreeSpec, fixed: Mapping[int, Any] | None = None
) -> Callable[[Any], tuple[Any, ...]] | None:
    """A function from a tree of structure ``spec`` to its leaves, without those that are ``fixed``; None when it has
    other nodes, or fixed leaves or attributes that are not easily compared.

    It raises Different or KeyError for another tree or another fixed leaf; what stands in the place of other leaves is
    not looked at.
    """
    return _Reader().extractor(spec, fixed or {})


class _Unknown(Exception):
    """A node that is left to ``optree``."""


class _Reader:
    """Writes the code of an extractor."""

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {"Different": Different}
        self.lines = ["def extract(x0):"]
        self.names = (f"x{i}" for i in range(1, 1 << 30))

    def extractor(self, spec: optree.PyTreeSpec, fixed: Mapping[int, Any]) -> Callable[[Any], tuple[Any, ...]] | None:
        try:
            leaves = list(self.read(spec, "x0"))
            for i, x in fixed.items():
                self.require_same(leaves[i], x)
        except _Unknown:
            return None
        kept = (f"{leaf}, " for i, leaf in enumerate(leaves) if i not in fixed)
        self.lines.append(f"    return ({''.join(kept)})")
        exec("\n".join(self.lines), self.constants)
        return self.constants["extract"]

    def read(self, spec: optree.PyTreeSpec, at: str) -> Iterator[str]:
        """Adds the lines that reach the leaves below ``at``, and gives an expression for each leaf."""
        kind: Any = spec.type
        if spec.is_leaf():
            yield at
            return
        if kind is type(None):
            self.require(f"{at} is None")
            return
        if has_attributes_in_slots(kind):
            yield from self.read_slots(spec, at)
            return
        if has_attributes_in_dict(kind):
            at = self.read_attributes(spec, at)
        elif kind in _NODES or _is_named_tuple(spec):
            self.require(f"type({at}) is {self.constant(kind)} and len({at}) == {spec.num_children}")
        else:
            raise _Unknown
        for key, child in zip(spec.entries(), spec.children()):
            name = next(self.names)
            self.lines.append(f"    {name} = {at}[{self.constant(key)}]")
            yield from self.read(child, name)

    def read_attributes(self, spec: optree.PyTreeSpec, at: str) -> str:
        """The name of the dict of the object's attributes. Those that are no parts of the tree must be as they were."""
        found = _attributes(spec)
        name = next(self.names)
        self.require(f"type({at}) is {self.constant(spec.type)}")
        self.lines.append(f"    {name} = {at}.__dict__")
        self.require(f"len({name}) == {len(found)}")
        for key in found.keys() - {*spec.entries()}:
            self.require_same(f"{name}[{self.constant(key)}]", found[key])
        return name

    def read_slots(self, spec: optree.PyTreeSpec, at: str) -> Iterator[str]:
        """The leaves of an object whose attributes lie in slots; those that are not set must not be set."""
        kind: Any = spec.type
        self.require(f"type({at}) is {self.constant(kind)}")
        found, children = _attributes(spec), dict(zip(spec.entries(), spec.children()))
        for key in dict.fromkeys(slots(kind)):
            name = next(self.names)
            self.lines.append(f"    {name} = getattr({at}, {self.constant(key)}, Different)")
            if key in children:
                self.require(f"{name} is not Different")
                yield from self.read(children[key], name)
            else:
                self.require_same(name, found.get(key, Different))

    def require_same(self, at: str, x: Any) -> None:
        if type(x) in _BY_VALUE:
            self.require(f"type({at}) is {self.constant(type(x))} and {at} == {self.constant(x)}")
        elif isinstance(x, _BY_IDENTITY):
            self.require(f"{at} is {self.constant(x)}")
        elif type(x) in (tuple, list):
            self.require(f"type({at}) is {self.constant(type(x))} and len({at}) == {len(x)}")
            for i, item in enumerate(x):
                self.require_same(f"{at}[{i}]", item)
        elif type(x) is dict and all(type(k) is str for k in x):
            self.require(f"type({at}) is {self.constant(dict)} and list({at}) == {self.constant([*x])}")
            for k, item in x.items():
                self.require_same(f"{at}[{self.constant(k)}]", item)
        else:
            raise _Unknown

    def require(self, condition: str) -> None:
        self.lines.append(f"    if not ({condition}): raise Different")

    def constant(self, value: Any) -> str:
        return _constant(value, self.constants)


def assembler(spec: optree.PyTreeSpec) -> Callable[[Sequence[Any]], Any]:
    """A function from leaves to the tree of structure ``spec``."""
    constants: dict[str, Any] = {"with_attributes": with_attributes}
    try:
        written = _write(spec, iter(range(spec.num_leaves)), constants)
    except _Unknown:
        return spec.unflatten
    exec(f"def assemble(r): return {written}", constants)
    return constants["assemble"]


def _write(spec: optree.PyTreeSpec, counter: Iterator[int], constants: dict[str, Any]) -> str:
    kind: Any = spec.type
    if spec.is_leaf():
        return f"r[{next(counter)}]"
    if kind is type(None):
        return "None"
    children = [_write(child, counter, constants) for child in spec.children()]
    items = "".join(f"{x}, " for x in children)
    if kind is tuple:
        return f"({items})"
    if kind is list:
        return f"[{items}]"
    keys = [_constant(k, constants) for k in spec.entries()]
    if kind is dict:
        return "{" + "".join(f"{k}: {x}, " for k, x in zip(keys, children)) + "}"
    if _is_named_tuple(spec):
        return f"{_constant(kind, constants)}({items})"
    if has_attributes(kind):
        rest = {k: v for k, v in _attributes(spec).items() if k not in spec.entries()}
        if any(isinstance(v, types.MethodType) for v in rest.values()):  # of the object that is made
            raise _Unknown
        pairs = [*zip(keys, children), *((_constant(k, constants), _constant(v, constants)) for k, v in rest.items())]
        return f"with_attributes({_constant(kind, constants)}, ({''.join(f'({k}, {v}), ' for k, v in pairs)}))"
    raise _Unknown


def _is_named_tuple(spec: optree.PyTreeSpec) -> bool:
    """Whether it is one that the user has not registered with functions of his own."""
    return bool(spec.kind == optree.PyTreeKind.NAMEDTUPLE)


def _attributes(spec: optree.PyTreeSpec) -> dict[str, Any]:
    """The attributes of an object with the structure ``spec``, with numbers for those that are parts of the tree."""
    level: Any = spec.one_level()
    return attributes(level.unflatten(range(level.num_leaves)))


def _constant(value: Any, constants: dict[str, Any]) -> str:
    """The name under which the code finds a value."""
    name = f"k{len(constants)}"
    constants[name] = value
    return name
