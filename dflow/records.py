"""Objects with attributes as trees: dataclasses, attrs classes, plain classes of a user's own, ``dflow.struct``.

The attributes that hold numbers (or None, as gradients do) are the parts of the tree; the others, and fields marked
static, belong to its structure. An object is put together without its ``__init__``, which may want other values than
numbers.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, dataclass_transform

import numpy as np
import optree

from dflow.errors import TraceError, failure
from dflow.ir.types import kind_of

NAMESPACE = "dflow"
LIBRARIES = {"dflow", "numpy", "scipy", "optree", "builtins"}
STATIC, CONSTANT = "static", "constant"
_HEAP_TYPE = 1 << 9  # of a class: made by a class statement, not in C

_registered: set[type] = set()
_custom: set[type] = set()  # those registered with functions of the user's
_attributed: set[type] = set()  # those whose parts are attributes


def field(*, static: bool = False, differentiable: bool = True, **options: Any) -> Any:
    """A field of a dataclass, as ``dataclasses.field`` (whose ``options`` are taken too).

    ``static``: its value is known while compiling (a size, a name), and a new one compiles anew.
    ``differentiable=False``: its value is data, but gradients have None in its place.
    """
    kind = STATIC if static else None if differentiable else CONSTANT
    return dataclasses.field(metadata={**options.pop("metadata", {}), "dflow": kind}, **options)


@dataclass_transform(field_specifiers=(field, dataclasses.field))
def struct(cls: Any = None, /, **options: Any) -> Any:
    """Makes a class a dataclass (``options`` are those of ``dataclasses.dataclass``) and a tree.

    Instances are arguments, results and variables of loops like others; gradients come back as instances. Fields are
    marked by ``dflow.field``.
    """
    if cls is None:
        return lambda c: struct(c, **options)
    made: Any = cls if dataclasses.is_dataclass(cls) and not options else dataclasses.dataclass(**options)(cls)
    register_attributes(made)
    return made


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
    _custom.add(cls)
    return cls


def register_attributes(cls: type) -> None:
    """Makes instances of ``cls`` nodes whose children are the attributes that hold numbers, if it is a class of Python
    code all the way up: what a list or an array holds is not in its attributes."""
    plain = all(c.__flags__ & _HEAP_TYPE for c in cls.__mro__ if c not in (object, types.SimpleNamespace))
    if cls in _registered or not plain:
        return
    static = {name for name, kind in marks(cls).items() if kind == STATIC}

    def apart(x: Any) -> tuple[list[Any], Any, tuple[str, ...]]:
        found = attributes(x)
        names = tuple(k for k, v in found.items() if k not in static and (v is None or holds_numbers(v)))
        rest = tuple((k, Fixed(_unbound(v, x, found))) for k, v in found.items() if k not in names)
        return [found[k] for k in names], (names, rest), names

    def together(kept: Any, children: Any) -> Any:
        names, rest = kept
        made = with_attributes(cls, (*zip(names, children), *((k, s.value) for k, s in rest)))
        for k, s in rest:
            if isinstance(s.value, _Method):
                object.__setattr__(made, k, s.value.of(made))
        return made

    optree.register_pytree_node(cls, apart, together, path_entry_type=optree.GetAttrEntry, namespace=NAMESPACE)
    _registered.add(cls)
    _attributed.add(cls)


class _Method(NamedTuple):
    """A method of the object that has it as an attribute, or of what is another attribute of that object."""

    function: Any
    owner: str | None

    def of(self, x: Any) -> types.MethodType:
        return types.MethodType(self.function, x if self.owner is None else getattr(x, self.owner))


def _unbound(v: Any, x: Any, found: dict[str, Any]) -> Any:
    """A fact among the attributes of ``x``; methods of ``x`` and of its parts will be those of what stands for it."""
    if type(v) is not types.MethodType:
        return v
    if v.__self__ is x:
        return _Method(v.__func__, None)
    return next((_Method(v.__func__, k) for k, part in found.items() if part is v.__self__), v)


def register_container(cls: type) -> None:
    """Makes instances of a class derived from ``dict`` or ``list`` nodes whose children are what stands in them.

    They have no attributes, or the items are the attributes: ``self.__dict__ = self``. Raises TraceError for others.
    """

    def apart(x: Any) -> tuple[list[Any], Any, tuple[Any, ...]]:
        items = x if isinstance(x, dict) else dict(enumerate(x))
        linked = getattr(x, "__dict__", None) is x
        if not linked and (own := attributes(x)):
            raise failure(
                TraceError,
                f"a {cls.__name__} is a {'dict' if isinstance(x, dict) else 'list'} and has attributes besides",
                seen=", ".join(own),
                mend="make it a plain class that has the container for an attribute",
            )
        return [*items.values()], (tuple(items), linked), tuple(items)

    def together(kept: Any, children: Any) -> Any:
        keys, linked = kept
        base: Any = dict if issubclass(cls, dict) else list
        made: Any = base.__new__(cls)
        dict.update(made, zip(keys, children)) if isinstance(made, dict) else list.extend(made, children)
        if linked:
            object.__setattr__(made, "__dict__", made)
        return made

    entry: Any = optree.MappingEntry if issubclass(cls, dict) else optree.SequenceEntry
    optree.register_pytree_node(cls, apart, together, path_entry_type=entry, namespace=NAMESPACE)
    _registered.add(cls)


def is_registered(cls: type) -> bool:
    return cls in _registered


def has_attributes(cls: type) -> bool:
    """Whether instances are nodes whose parts are attributes."""
    return cls in _attributed


def has_attributes_in_dict(cls: type) -> bool:
    """Whether instances are such nodes, and have no attributes but those in their ``__dict__``."""
    return cls in _attributed and cls.__dictoffset__ != 0 and not slots(cls) and not _fields_of_class(cls)


def has_attributes_in_slots(cls: type) -> bool:
    """Whether instances are such nodes, and have no attributes but those in slots."""
    return cls in _attributed and cls.__dictoffset__ == 0 and not _fields_of_class(cls)


def is_custom(cls: type) -> bool:
    """Whether functions of the user's take instances apart and put them together."""
    return cls in _custom


def registered_anew(leaves: Iterable[Any]) -> bool:
    """Registers the classes of leaves that are records or containers with numbers; whether there are any."""
    kinds = [x for x in leaves if isinstance(x, dict | list) or is_record(x)]
    fresh = {type(x) for x in kinds if not is_registered(type(x)) and holds_numbers(x)}
    for cls in fresh:
        (register_container if issubclass(cls, dict | list) else register_attributes)(cls)
    return any(map(is_registered, fresh))


def with_attributes(cls: type, values: Iterable[tuple[str, Any]]) -> Any:
    """An instance of ``cls`` with these attributes."""
    x: Any = cls() if cls is types.SimpleNamespace else object.__new__(cls)
    for k, v in values:
        object.__setattr__(x, k, v)
    return x


def attributes(x: Any) -> dict[str, Any]:
    """The attributes that an object has of its own, in slots or in its ``__dict__``."""
    found = {k: getattr(x, k) for k in (*_fields_of_class(type(x)), *slots(type(x))) if hasattr(x, k)}  # type: ignore[arg-type]
    return {**found, **getattr(x, "__dict__", {})}


@functools.lru_cache(maxsize=4096)
def _fields_of_class(cls: type) -> tuple[str, ...]:
    """Fields that ``__init__`` does not set: until they are assigned, the class has their value."""
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return tuple(f.name for f in fields if not f.init and f.default is not dataclasses.MISSING)


def slots(cls: type) -> list[str]:
    """The names of the slots of a class and of those that it is derived from."""
    found = []
    for c in reversed(cls.__mro__):
        names = c.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            private = name.startswith("__") and not name.endswith("__")
            found.append(f"_{c.__name__.lstrip('_')}{name}" if private else name)
    return [n for n in found if n not in ("__dict__", "__weakref__")]


def marks(cls: type) -> dict[str, str | None]:
    """How ``dflow.field`` marked the fields of a dataclass (or, by their metadata, of an attrs class)."""
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else getattr(cls, "__attrs_attrs__", ())
    return {f.name: f.metadata.get("dflow") for f in fields}


def has(x: Any, name: str) -> bool:
    """Whether an object or its class has a name; a ``__getattr__`` of the user's, which may have any, is not asked."""
    return hasattr(type(x), name) or name in getattr(x, "__dict__", ())


def in_gpu_memory(x: Any) -> bool:
    """Whether an array lies on a GPU; JAX's arrays have the attribute, which fails, elsewhere too."""
    return has(x, "__cuda_array_interface__") and hasattr(x, "__cuda_array_interface__")


def is_record(x: Any) -> bool:
    """Whether ``x`` is an object whose attributes are data: of a dataclass, an attrs class, or a user's plain class."""
    cls = type(x)
    if cls in _registered:
        return True
    if isinstance(x, _NO_RECORDS) or any(hasattr(cls, name) for name in _OF_ARRAYS):
        return False
    package = (cls.__module__ or "").partition(".")[0]
    if package == "builtins":  # what `exec` makes has no module of its own
        return bool(cls.__flags__ & _HEAP_TYPE)
    if (cls.__module__, cls.__name__) in _NAMESPACES:
        return True
    return package not in LIBRARIES and package not in sys.stdlib_module_names


_NAMESPACES = {("types", "SimpleNamespace"), ("argparse", "Namespace")}
_NO_RECORDS = (
    type, types.ModuleType, types.FunctionType, types.MethodType, types.GeneratorType, BaseException, enum.Enum,
    int, float, complex, str, bytes, list, tuple, dict, set, frozenset, deque, np.ndarray, np.generic,
)  # fmt: skip

_UNCHANGING = (int, float, complex, str, bytes, type(None), types.FunctionType, type)
_OF_ARRAYS = ("__array__", "__dlpack__", "__cuda_array_interface__")


def holds_numbers(x: Any, _inside: frozenset[int] = frozenset()) -> bool:
    """Whether a number or an array stands in ``x``; a bool, as an attribute, is a mode and not a number."""
    from dflow.tracing.arrays.array import Array

    if isinstance(x, bool | str | bytes) or x is None:
        return False
    if isinstance(x, int | float | complex | np.generic | Array):
        return not isinstance(x, enum.Enum)
    if isinstance(x, np.ndarray):
        return kind_of(x.dtype) in "biufc"
    if id(x) in _inside:
        return False
    inside = _inside | {id(x)}
    if isinstance(x, dict | list | tuple | deque):
        return any(holds_numbers(v, inside) for v in (x.values() if isinstance(x, dict) else x))
    if type(x) in _custom:
        return any(holds_numbers(v, inside) for v in optree.tree_leaves(x, namespace=NAMESPACE))
    return is_record(x) and any(holds_numbers(v, inside) for v in attributes(x).values())


class Fixed:
    """A fact that is part of the structure: compared by what is in it, or by identity where that fails."""

    def __init__(self, value: Any):
        self.value = value
        self.contents = _contents(value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fixed):
            return False
        if self.contents is other.contents:
            return True
        try:
            return bool(self.contents == other.contents)
        except Exception:
            return False

    def __hash__(self) -> int:
        try:
            return hash(self.contents)
        except TypeError:
            return id(type(self.value))


def _contents(x: Any, _inside: frozenset[int] = frozenset()) -> Any:
    """``x`` as it is now: containers, objects and arrays (of names: those of numbers are data) may change later."""
    if isinstance(x, _UNCHANGING) or id(x) in _inside:
        return x

    def inner(items: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(_contents(v, _inside | {id(x)}) for v in items)

    if isinstance(x, list | tuple | deque):
        return (type(x), *inner(x))
    if isinstance(x, dict):
        return (type(x), *zip(x, inner(x.values())))
    if isinstance(x, set):
        return (type(x), frozenset(x))
    if isinstance(x, np.ndarray):
        return (np.ndarray, x.dtype, x.shape, inner(x.flat) if x.dtype.hasobject else x.tobytes())
    if isinstance(x, types.MethodType):
        return (x, *inner([x.__self__]))
    if isinstance(x, functools.partial):
        return (x, *inner([x.func, *x.args, x.keywords]))
    if is_record(x) and (own := attributes(x)):
        return (x, *zip(own, inner(own.values())))  # also the same object: what is returned may hold it
    return x
