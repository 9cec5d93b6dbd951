"""What of a call a compiled program depends on: the tree of the arguments, their dtypes and shapes, static values."""

from __future__ import annotations

import enum
import inspect
import math
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow import trees
from dflow.errors import RangeError, TraceError, failure
from dflow.ir.types import BOOL, C128, F64, I64, TensorType, dtype_of
from dflow.programs.unfit import how_to_pass
from dflow.records import has, in_gpu_memory
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import is_plain

WHOLE = (bool, int, np.bool_, np.integer)


@dataclass(frozen=True)
class LeafType:
    """The type of an argument leaf. ``weak``: a Python number, which does not widen arrays (NEP 50)."""

    type: TensorType
    weak: bool | None = False

    def __str__(self) -> str:
        return f"{self.type}{' (Python number)' if self.weak else ''}"


class ShapeDtypeStruct:
    """The shape and the dtype of an array, which it stands for where only these matter."""

    def __init__(self, shape: Sequence[int], dtype: Any):
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapeDtypeStruct) and (self.shape, self.dtype) == (other.shape, other.dtype)

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))

    def __repr__(self) -> str:
        return f"ShapeDtypeStruct(shape={self.shape}, dtype={self.dtype.name})"


class OnDevice:
    """The base of arrays in the memory of a device (`dflow.Array`)."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    leaf: LeafType


_PYTHON = {
    float: LeafType(TensorType(F64), True),
    int: LeafType(TensorType(I64), True),
    bool: LeafType(TensorType(BOOL), True),
    complex: LeafType(TensorType(C128), True),
}
_ARRAYS: dict[tuple[Any, tuple[int, ...]], LeafType] = {}


def as_array(x: Any) -> np.ndarray[Any, Any]:
    """An array-like of another library as a NumPy array, by one of the two protocols for that."""
    try:
        return np.from_dlpack(x) if has(x, "__dlpack__") and not has(x, "__array__") else np.asarray(x)
    except (TypeError, RuntimeError):
        if "bfloat16" not in str(getattr(x, "dtype", "")) or not has(x, "__dlpack__"):
            raise
    from dflow.devices.dlpack import bfloat16_on_host

    return bfloat16_on_host(x)


def leaf_type(x: Any) -> LeafType | None:
    """The type of a leaf, or None when it is no number and no array of numbers."""
    found = _PYTHON.get(type(x))
    if found is not None:
        return None if type(x) is int and not -(2**63) <= x < 2**63 else found
    if isinstance(x, Array):
        return LeafType(x.type, x.weak)
    if isinstance(x, OnDevice):
        return x.leaf
    if isinstance(x, ShapeDtypeStruct):
        return LeafType(TensorType(dtype_of(x.dtype), x.shape))
    if not isinstance(x, np.ndarray | np.generic):
        if in_gpu_memory(x):
            facts = x.__cuda_array_interface__
            return LeafType(TensorType(dtype_of(np.dtype(facts["typestr"])), tuple(facts["shape"])))
        if not (has(x, "__array__") or has(x, "__dlpack__")):
            return None
        x = as_array(x)
    elif isinstance(x, np.ndarray) and not is_plain(x):
        return None
    return array_leaf(x.dtype, x.shape)


def array_leaf(dtype: np.dtype[Any], shape: tuple[int, ...]) -> LeafType | None:
    """The type of an array as a leaf, one object for each; None for a dtype that programs do not have."""
    found = _ARRAYS.get((dtype, shape))
    if found is None:
        try:
            found = _ARRAYS[dtype, shape] = LeafType(TensorType(dtype_of(dtype), shape))
        except TypeError:
            return None
    return found


@dataclass(frozen=True)
class Key:
    """A signature: equal keys share one compiled program."""

    spec: Any
    types: tuple[LeafType | None, ...]
    static: tuple[tuple[int | str, Any], ...]


class Arguments:
    """The arguments of one call, taken apart: leaves with their types, their tree, and static values.

    Leaves that are no numbers but plain facts (strings, functions, classes, ...) are static too, and so are
    ``numbers``, positions of leaves that tracing must know; with ``keep_known`` all integers that are known.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        static_argnums: Sequence[int] = (),
        static_argnames: Sequence[str] = (),
        keep_known: bool = False,
    ):
        self.function = function
        self.numbers: frozenset[int] = frozenset()
        self.traced: Any = None  # the program of just these, where it was traced to find out about numbers
        positions = {i + len(args) if i < 0 else i for i in static_argnums}
        self.args, self.kwargs = tuple(args), kwargs
        self.static: tuple[tuple[int | str, Any], ...] = ()
        if positions or static_argnames:
            self.static = tuple((i, a) for i, a in enumerate(args) if i in positions)
            self.static += tuple((k, v) for k, v in kwargs.items() if k in static_argnames)
            self.args = tuple(None if i in positions else a for i, a in enumerate(args))
            self.kwargs = {k: v for k, v in kwargs.items() if k not in static_argnames}
        self.all_leaves, self.spec = trees.flatten((self.args, self.kwargs))
        self.all_types = [leaf_type(x) for x in self.all_leaves]
        self.fixed: dict[int, Any] = {}
        self.leaves = self.all_leaves
        self.types = tuple(t for t in self.all_types if t is not None)
        if len(self.types) < len(self.leaves):
            self._set_aside()
        if keep_known:
            self.set_aside(frozenset(i for i, x in enumerate(self.all_leaves) if isinstance(x, WHOLE)))

    def set_aside(self, numbers: frozenset[int]) -> None:
        """Makes these leaves static."""
        if numbers:
            self.numbers = numbers
            self.all_types = [None if i in numbers else t for i, t in enumerate(self.all_types)]
            self.types = tuple(t for t in self.all_types if t is not None)
            self._set_aside()

    def _set_aside(self) -> None:
        """Separates numeric leaves from static ones."""
        numeric = [i for i, t in enumerate(self.all_types) if t is not None]
        self.leaves = [self.all_leaves[i] for i in numeric]
        self.fixed = {i: x for i, x in enumerate(self.all_leaves) if self.all_types[i] is None}
        for i, x in self.fixed.items():
            if not (isinstance(x, _FACTS) or callable(x) or i in self.numbers):
                self._refuse(i)
        self.static = tuple(s for s in self.static if not str(s[0]).startswith("leaf "))
        self.static += tuple((f"leaf {i}", x) for i, x in self.fixed.items())

    @property
    def key(self) -> Key:
        static = tuple((k, _exact(v)) for k, v in self.static)
        if static:
            try:
                hash(static)
            except TypeError:
                raise failure(
                    TraceError,
                    "a static argument must be hashable",
                    seen=", ".join(f"{k}: {type(v).__name__}" for k, v in self.static),
                    mend="pass a tuple for a list, or leave the argument out of static_argnums",
                ) from None
        return Key(self.spec, self.types, static)

    def names(self) -> list[str]:
        """What the user would call each numeric leaf."""
        return self.names_of({*range(len(self.all_leaves))} - self.fixed.keys())

    def names_of(self, positions: Iterable[int]) -> list[str]:
        """What the user would call these leaves."""
        names = leaf_names(self.function, self.args, self.kwargs)
        return [names[i] for i in sorted(positions)]

    def rebuild(self, leaves: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the user's function, with other numeric leaves."""
        rest = iter(leaves)
        everything = [self.fixed[i] if i in self.fixed else next(rest) for i in range(len(self.all_leaves))]
        args, kwargs = trees.unflatten(self.spec, everything)
        args, kwargs = list(args), dict(kwargs)
        for k, v in self.static:
            if isinstance(k, int):
                args[k] = v
            elif not k.startswith("leaf "):
                kwargs[k] = v
        return args, kwargs

    def _refuse(self, i: int) -> None:
        x = self.all_leaves[i]
        name = leaf_names(self.function, self.args, self.kwargs)[i]
        if isinstance(x, int):
            raise failure(
                RangeError,
                f"argument {name} does not fit a 64-bit integer",
                seen=f"{x}"[:80],
                mend=f"pass it as a float: float({name})",
            )
        if isinstance(x, np.ndarray) and not is_plain(x):
            raise failure(
                TraceError,
                f"argument {name} is a {type(x).__name__}, an array with rules of its own, which are not known",
                wanted="a plain NumPy array",
                mend=f"pass {name}.filled(...) of a masked array, np.asarray({name}) of others",
            )
        seen = f"{type(x).__name__}" + (f" of dtype {x.dtype}" if has(x, "dtype") else f" {x!r}"[:80])
        function = getattr(self.function, "__name__", "the function")
        raise failure(
            TraceError,
            f"argument {name} of {function} is not a number or an array of numbers",
            seen=seen,
            wanted="float, int, bool, complex, a NumPy array of such (not of strings), or a tree of them",
            mend=how_to_pass(x, name),
        )


def _exact(x: Any) -> Any:
    """A static value as a key: 1, 1.0 and True are equal, and make different programs; so do 0.0 and -0.0."""
    if isinstance(x, tuple):
        return type(x), tuple(map(_exact, x))
    if isinstance(x, slice):  # not hashable before Python 3.12
        return slice, tuple(map(_exact, (x.start, x.stop, x.step)))
    return type(x), repr(x) if isinstance(x, float | complex) else x


_FACTS = str | bytes | type | np.dtype | types.ModuleType | enum.Enum | slice | type(Ellipsis)


def completed(
    function: Callable[..., Any], nums: Sequence[int], names: Sequence[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Static arguments by number and by name, each also in the other way, since a call may pass them in either."""
    known, rest = _positional(function)
    if rest is None:
        nums = [i + len(known) if -len(known) <= i < 0 else i for i in nums]
    by_name = (known.index(n) for n in names if n in known)
    by_number = (known[i] for i in nums if 0 <= i < len(known))
    return tuple(dict.fromkeys([*nums, *by_name])), tuple(dict.fromkeys([*names, *by_number]))


def parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    """The names of the first ``count`` positional parameters, as far as they can be known."""
    names, rest = _positional(function)
    return names[:count] + [f"{rest or 'arg'}_{i}" for i in range(len(names), count)]


def _positional(function: Callable[..., Any]) -> tuple[list[str], str | None]:
    """The names of the positional parameters, and that of ``*args``."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [], None
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return names, next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)


def leaf_names(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> list[str]:
    names = [p for n, a in zip(parameter_names(function, len(args)), args) for p in trees.paths(a, n)]
    return names + [p for k in sorted(kwargs) for p in trees.paths(kwargs[k], k)]
