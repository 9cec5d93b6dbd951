"""Python's own functions on traced values."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from dflow.errors import CarriedError, failure
from dflow.tracing import printing
from dflow.tracing.array import Array
from dflow.tracing.branches import traced_condition, truth
from dflow.tracing.context import TRACE, builder, region
from dflow.tracing.lift import contains_traced, convert, elementwise, static_value, wrap
from dflow.tracing.operators import numpy_functions
from dflow.tracing.sequences import Enumerated, Indexable, Range, Reversed, Zipped, as_sequence
from dflow.tracing.sizes import is_one
from dflow.tracing.state import Undefined


def len_(x: Any) -> Any:
    if isinstance(x, Array) and x.ndim:
        return x.shape[0]
    return x.length if isinstance(x, Indexable) else len(x)


def range_(*args: Any) -> Any:
    if not any(isinstance(a, Array) for a in args):
        return range(*args)
    args = tuple(_static_integer(a) for a in args)
    if all(isinstance(a, int) for a in args):
        return range(*args)
    return Range(0, *args) if len(args) == 1 else Range(*args)


def _static_integer(x: Any) -> Any:
    known = static_value(x) if isinstance(x, Array) and not x.ndim and x.dtype.kind in "iu" else None
    return x if known is None else int(known)


def enumerate_(x: Any, start: Any = 0) -> Any:
    inner = as_sequence(x) if isinstance(x, Array | Indexable | range) else None
    return enumerate(x, start) if inner is None else Enumerated(inner, start)


def zip_(*parts: Any, strict: bool = False) -> Any:
    inner = [as_sequence(p) for p in parts]
    known = parts and all(i is not None for i in inner) and any(isinstance(p, Array | Indexable) for p in parts)
    if not known:
        return zip(*parts, strict=strict)
    lengths = [i.length for i in inner if i is not None]
    if strict and any(n != lengths[0] for n in lengths if isinstance(n, int)):
        raise ValueError("zip() arguments have different lengths")
    return Zipped(inner)  # type: ignore[arg-type]


def reversed_(x: Any) -> Any:
    inner = as_sequence(x) if isinstance(x, Array | Indexable | range) else None
    return reversed(x) if inner is None else Reversed(inner)


def sum_(x: Any, /, start: Any = 0) -> Any:
    if isinstance(x, Array) and x.ndim:
        total = numpy_functions().sum(x, axis=0)
        return total if isinstance(start, int) and start == 0 else start + total
    total = start
    for item in x:
        total = total + item
    return total


def _extreme(name: str, plain: Any) -> Any:
    def extreme(*args: Any, key: Any = None, default: Any = None) -> Any:
        if len(args) == 1 and isinstance(args[0], Array) and args[0].ndim == 1 and key is None and default is None:
            return getattr(numpy_functions(), name)(args[0])
        items = list(args[0]) if len(args) == 1 else list(args)
        if key is not None or not contains_traced(items):
            options = {} if default is None else {"default": default}
            return plain(*args, key=key, **options) if len(args) == 1 else plain(*args, key=key)
        if any(isinstance(i, Array) and i.ndim for i in items):
            return plain(*args)
        return functools.reduce(lambda a, b: elementwise(name, a, b), items)

    return extreme


def _number(plain: Any, kind: str, dtype: Any) -> Any:
    """``int(x)``, ``float(x)``, ``bool(x)`` of a number give a number; of a whole array they are Python's affair."""

    def number(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or not isinstance(args[0], Array) or not is_one(args[0].type.shape):
            return plain(*args, **kwargs)
        x = args[0]
        if static_value(x) is not None:
            return plain(x)
        if kind == "b":
            return wrap(truth(x))
        value = builder().reshape(x.value, shape=()) if x.ndim else x.value
        return wrap(convert(value, dtype), weak=True)

    return number


def type_(*args: Any) -> type:
    """``type(x)``: for a traced value the type of what it stands for."""
    x = args[0]
    if len(args) != 1 or not isinstance(x, Array):
        return type(*args)
    if x.ndim:
        return np.ndarray
    if x.weak:
        return float if x.dtype.kind == "f" else int
    return x.dtype.type


def next_(*args: Any) -> Any:
    if region().kind != TRACE:
        raise failure(
            CarriedError,
            "next() inside a branch or loop that is traced would be called once only",
            mend="loop over the sequence with `for`",
        )
    return next(*args)


def isinstance_(x: Any, kinds: Any) -> Any:
    """Traced numbers are ``int`` or ``float`` as what they stand for, traced arrays ``np.ndarray``."""
    if isinstance(x, Undefined):
        raise x.error()
    if not isinstance(x, Array):
        return isinstance(x, kinds)
    if isinstance(x, kinds):
        return True
    if x.dtype == np.bool_ and not x.ndim and (kinds is bool or (isinstance(kinds, tuple) and bool in kinds)):
        return True
    stands_for = type_(x)
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    return any(isinstance(k, type) and issubclass(stands_for, k) for k in wanted)


def pow_(x: Any, y: Any, mod: Any = None) -> Any:
    return pow(x, y) if mod is None else pow(x, y) % mod if contains_traced((x, y, mod)) else pow(x, y, mod)


def any_(items: Any) -> Any:
    return numpy_functions().any(items) if isinstance(items, Array) else _any_all(items, "or", False)


def all_(items: Any) -> Any:
    return numpy_functions().all(items) if isinstance(items, Array) else _any_all(items, "and", True)


def _any_all(items: Any, op: str, start: bool) -> Any:
    found: Any = start
    for x in items:
        if not traced_condition(x):
            if bool(x) is not start:
                return not start
            continue
        holds = wrap(truth(x))
        found = holds if found is start else elementwise(op, found, holds)
    return found


BUILTINS: dict[Any, Any] = {
    len: len_,
    range: range_,
    enumerate: enumerate_,
    zip: zip_,
    reversed: reversed_,
    sum: sum_,
    max: _extreme("max", max),
    min: _extreme("min", min),
    int: _number(int, "i", np.int64),
    float: _number(float, "f", np.float64),
    bool: _number(bool, "b", np.bool_),
    isinstance: isinstance_,
    type: type_,
    next: next_,
    pow: pow_,
    print: printing.print,
    str: printing.str_,
    repr: printing.repr_,
    format: printing.format_,
    any: any_,
    all: all_,
}
