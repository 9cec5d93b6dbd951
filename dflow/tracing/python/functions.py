"""Python's own functions on traced values."""

from __future__ import annotations

import bisect
import functools
import heapq
import itertools
import math
import operator
import warnings
from typing import Any

import numpy as np

from dflow.errors import TraceError, failure
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import contains_traced, convert, either, elementwise, lift, static_value, wrap
from dflow.tracing.arrays.numbers import stands_for
from dflow.tracing.arrays.operators import numpy_functions
from dflow.tracing.arrays.sizes import is_one
from dflow.tracing.context import builder, region
from dflow.tracing.control.branches import choose, traced_condition, truth
from dflow.tracing.control.logic import comparison, is_none, not_, test
from dflow.tracing.control.state import Undefined, describe, flatten, is_number, unflatten
from dflow.tracing.lists import earlier, lists_of_numbers, totals
from dflow.tracing.lists.forgotten import forget
from dflow.tracing.lists.sequences import Enumerated, Indexable, Positions, Range, Reversed, Zipped, as_sequence
from dflow.tracing.python import printing
from dflow.tracing.python.iterators import take_from
from dflow.tracing.python.objects import is_mutable, watch
from dflow.tracing.python.optional import Optional, settled
from dflow.tracing.python.special_methods import (
    BINARY,
    PLAIN,
    attribute,
    binary,
    dispatched,
    iterated,
    set_attribute,
    truth_value,
    unary,
)
from dflow.tracing.source.rewrite import rewritten


def len_(x: Any) -> Any:
    if isinstance(x, Array) and x.ndim:
        return x.shape[0]
    if earlier.earlier(x) is not None:
        return earlier.length(x)
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


_TRACED = (Array, Indexable, list, tuple)
_SEQUENCES = (*_TRACED, range)


def enumerate_(x: Any, start: Any = 0) -> Any:
    inner = as_sequence(x) if isinstance(x, _SEQUENCES) else None
    return enumerate(x, start) if inner is None else Enumerated(inner, start)


def zip_(*parts: Any, strict: bool = False) -> Any:
    inner = [as_sequence(p) for p in parts]
    known = parts and all(i is not None for i in inner) and any(isinstance(p, _TRACED) for p in parts)
    if not known:
        return zip(*parts, strict=strict)
    lengths = [i.length for i in inner if i is not None]
    if strict and any(n != lengths[0] for n in lengths if isinstance(n, int)):
        raise ValueError("zip() arguments have different lengths")
    return Zipped(inner)  # type: ignore[arg-type]


def ndindex_(*shape: Any) -> Any:
    """``np.ndindex``; of many elements, or a size that is traced, something to loop over."""
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    known = not contains_traced(shape)
    return np.ndindex(*shape) if known and math.prod(shape) <= FEW else Positions(shape)


FEW = 16  # elements to which loops are unrolled


def ndenumerate_(x: Any) -> Any:
    if not contains_traced(x):
        return np.ndenumerate(x)
    x = lift(x)
    return zip_(Positions(x.shape), x.reshape(-1))


def nditer_(*args: Any, **kwargs: Any) -> Any:
    if contains_traced([*args, *kwargs.values()]):
        raise failure(
            TraceError,
            "np.nditer goes through arrays as they lie in memory, which is not known of traced ones",
            mend="loop over np.ndenumerate(x), np.ndindex(x.shape) or x.ravel()",
        )
    return np.nditer(*args, **kwargs)


def fromiter_(items: Any, dtype: Any, count: int = -1) -> Any:
    items = list(iterated(items)) if count < 0 else list(itertools.islice(iterated(items), count))
    return numpy_functions().array(items, dtype=dtype) if contains_traced(items) else np.array(items, dtype=dtype)


def reversed_(x: Any) -> Any:
    inner = as_sequence(x) if isinstance(x, _SEQUENCES) else None
    return reversed(x) if inner is None else Reversed(inner)


def _as_written(function: Any) -> Any:
    return rewritten(function)


def _written(name: str, /, *args: Any, **kwargs: Any) -> Any:
    return _as_written(getattr(totals, name))(*args, **kwargs)


def sum_(x: Any, /, start: Any = 0) -> Any:
    if isinstance(x, Array) and x.ndim:
        total = numpy_functions().sum(x, axis=0, dtype=x.dtype if x.dtype.kind in "iu" else None)
        return total if isinstance(start, int) and start == 0 else start + total
    if as_sequence(x) is not None and isinstance(x, list | tuple | Reversed):
        return _as_written(totals.total)(x, start)
    total = start
    for item in iterated(x):
        total = binary("add", total, item)
    return total


def _extreme(name: str, plain: Any) -> Any:
    """``min`` and ``max``: of an array, of numbers, of anything that can be compared or has a key that can."""
    first_by = "lt" if name == "min" else "gt"

    def extreme(*args: Any, key: Any = None, **default: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], Array) and args[0].ndim == 1 and key is None and not default:
            return getattr(numpy_functions(), name)(args[0])
        grown = as_sequence(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else None
        if grown is not None and not default:
            return _as_written(getattr(totals, name))(args[0], key or (lambda x: x))
        items = list(iterated(args[0])) if len(args) == 1 else list(args)
        traced = contains_traced(items)
        if not items or (key is None and not traced and all(type(i) in PLAIN for i in items)):
            return plain(*args, key=key, **default)
        if key is None and traced and all(isinstance(i, Array | int | float) and not np.ndim(i) for i in items):
            found = functools.reduce(lambda a, b: elementwise(name, a, b), items)
            return wrap(found.value, functools.reduce(either, (lift(i).weak for i in items)))
        return best(items, [i if key is None else key(i) for i in items])

    def best(items: list[Any], keys: list[Any]) -> Any:
        found, mark = items[0], keys[0]
        for item, k in zip(items[1:], keys[1:]):
            ways = functools.partial(_given, item, k), functools.partial(_given, found, mark)
            found, mark = choose(comparison(first_by, k, mark), *ways)
        return found

    return extreme


def _given(*values: Any) -> tuple[Any, ...]:
    return values


def sorted_(items: Any, *, key: Any = None, reverse: bool = False) -> list[Any]:
    """``sorted``: by traced numbers too, where the items are alike."""
    dynamic = isinstance(items, Array) and items.ndim == 1 and not items.type.is_static
    if key is None and (dynamic or earlier.earlier(items) is not None):
        return lists_of_numbers.in_order(items, reverse)
    items = list(iterated(items))
    made = _in_order(items, key, reverse)
    if _are_copies(items, made):
        watch(region(), [*items, *made])
    return made


def sort(items: list[Any], *, key: Any = None, reverse: bool = False) -> None:
    """``items.sort()``: objects that other names have can neither be read nor changed by these names any more."""
    before = [*items]
    items[:] = _in_order(before, key, reverse)
    if _are_copies(before, items):
        forget(before, items)


def _are_copies(items: list[Any], made: list[Any]) -> bool:
    """Whether some of the sorted items stand for objects with names of their own; arrays are linked."""
    mine, theirs = ([x for x in flatten(v)[0] if isinstance(x, Array) and x.ndim] for v in (items, made))
    for x in theirs:
        for other in mine:
            x.cell.link(other.cell)
    return any(a is not b and is_mutable(b) for a, b in zip(items, made))


def _in_order(items: list[Any], key: Any, reverse: bool) -> list[Any]:
    """The items sorted: themselves, or what is made of their parts where the order is traced."""
    keys = items if key is None else [key(i) for i in items]
    if not contains_traced(keys):
        order = sorted(range(len(items)), key=keys.__getitem__, reverse=reverse)
        return [items[i] for i in order]
    leaves, structures = zip(*map(flatten, items))
    alike = all(s == structures[0] for s in structures) and all(is_number(x) for row in leaves for x in row)
    tuples = all(isinstance(k, tuple) for k in keys)  # which are compared part by part
    ranks = [tuple(k) if tuples else (k,) for k in keys]
    comparable = all(is_number(x) and not np.ndim(x) for rank in ranks for x in rank)
    if not alike or not comparable or not ranks[0] or len(set(map(len, ranks))) != 1:
        raise failure(
            TraceError,
            "sorted() by what is known only when the program runs, of items or keys that are not alike",
            seen=f"keys {describe(keys)}"[:200],
            mend="sort numbers, or by numbers (key=...) items of one type and shape; or use np.argsort",
        )
    ns = numpy_functions()
    by = [ns.stack([*map(lift, part)]) for part in zip(*(reversed(ranks) if reverse else ranks))]
    order = ns.lexsort(by[::-1]) if len(by) > 1 else ns.argsort(by[0], kind="stable")
    if reverse:
        order = ns.flip(len(items) - 1 - order)
    columns = [ns.stack([*map(lift, c)])[order] for c in zip(*leaves)]
    weak = [functools.reduce(either, (lift(x).weak for x in c)) for c in zip(*leaves)]
    rows = ([wrap(c[i].value, w) for c, w in zip(columns, weak)] for i in range(len(items)))
    return [unflatten(structures[0], row) for row in rows]


def _number(plain: Any, kind: str, dtype: Any) -> Any:
    """``int(x)``, ``float(x)``, ``bool(x)`` of a number give a number; of a whole array they are Python's affair."""

    def number(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or not isinstance(args[0], Array) or not is_one(args[0].type.shape):
            return plain(*args, **kwargs)
        x = args[0]
        if static_value(x) is not None:
            return plain(x)
        if kind == "b":
            return wrap(truth(x), weak=True)
        value = builder().reshape(x.value, shape=()) if x.ndim else x.value
        return wrap(convert(value, dtype), weak=True)

    return number


_plain_bool = _number(bool, "b", np.bool_)


def _bool(*args: Any) -> Any:
    return _plain_bool(*map(truth_value, args))


def type_(*args: Any) -> type:
    """``type(x)``: for a traced value the type of what it stands for."""
    x = args[0]
    if len(args) != 1 or not isinstance(x, Array):
        return type(*args)
    return stands_for(x)


def next_(*args: Any) -> Any:
    if args:
        take_from(args[0])
    return next(*args)


def isinstance_(x: Any, kinds: Any) -> Any:
    """Traced numbers are ``int`` or ``float`` as what they stand for, traced arrays ``np.ndarray``."""
    if isinstance(x, Undefined):
        raise x.error()
    if isinstance(x, Optional):
        of_value, of_none = isinstance_(x.value, kinds), isinstance(None, kinds)
        return of_none if of_value is of_none else not_(is_none(x)) if of_value else is_none(x)
    if not isinstance(x, Array):
        return isinstance(x, kinds)
    if isinstance(x, kinds):
        return True
    if x.dtype == np.bool_ and not x.ndim and (kinds is bool or (isinstance(kinds, tuple) and bool in kinds)):
        return True
    stands_for = type_(x)
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    return any(isinstance(k, type) and issubclass(stands_for, k) for k in wanted)


def pow_(base: Any, exp: Any, mod: Any = None) -> Any:
    if mod is None:
        return binary("pow", base, exp)
    from dflow.numpy.math_functions import call_math

    return call_math(pow, base, exp, mod)


def complex_(real: Any = 0, imag: Any = 0) -> Any:
    if not contains_traced((real, imag)) or isinstance(real, str):
        return complex(real, imag)
    real, imag = (x if isinstance(x, Array) else lift(x) for x in (real, imag))
    if any(x.ndim for x in (real, imag)):
        raise failure(TraceError, "complex() of an array", seen=f"{real!r}, {imag!r}", mend="use x + 1j * y")
    if "c" not in (real.dtype.kind, imag.dtype.kind):
        parts = (convert(x.value, np.float64) for x in (real, imag))
        return wrap(builder().emit("complex", *parts), weak=True)
    number = elementwise("add", real, elementwise("mul", imag, 1j))
    return wrap(convert(number.value, np.complex128), weak=True)


def any_(items: Any) -> Any:
    if earlier.earlier(items) is not None:
        return _as_written(totals.any)(items)
    return _bool(numpy_functions().any(items)) if isinstance(items, Array) else _any_all(items, "or", False)


def all_(items: Any) -> Any:
    if earlier.earlier(items) is not None:
        return _as_written(totals.all)(items)
    return _bool(numpy_functions().all(items)) if isinstance(items, Array) else _any_all(items, "and", True)


def _any_all(items: Any, op: str, start: bool) -> Any:
    found: Any = start
    for x in iterated(items):
        if not traced_condition(x):
            if bool(x) is not start:
                return not start
            continue
        found = truth(x) if found is start else builder().emit(op, found, truth(x))
    return found if found is start else wrap(found, weak=True)


def divmod_(x: Any, y: Any) -> Any:
    found = dispatched("__divmod__", x, "__rdivmod__", y)
    return divmod(x, y) if found is NotImplemented else found


def getattr_(x: Any, name: str, *default: Any) -> Any:
    try:
        return attribute(x, name)
    except AttributeError:
        if default:
            return default[0]
        raise


def hasattr_(x: Any, name: str) -> Any:
    x = settled(x)
    if isinstance(x, Optional):
        of_value, of_none = hasattr_(x.value, name), hasattr(None, name)
        return of_none if of_value is of_none else not_(is_none(x)) if of_value else is_none(x)
    if isinstance(x, Array):
        return hasattr(stands_for(x), name)
    try:
        attribute(x, name)
    except AttributeError:
        return False
    return True


# The functions of which a class may define its own meaning, by a method of that name.
SPECIAL_METHODS: dict[Any, str] = {
    **{f: f"__{f.__name__}__" for f in (abs, len, int, float, complex, round, reversed, next, iter)},
    **{f: f"__{f.__name__}__" for f in (math.floor, math.ceil, math.trunc)},
}
# Those that tell None from a value, and so take what may be either.
ASKING = frozenset(
    [
        isinstance,
        hasattr,
        bool,
        print,
        str,
        repr,
        format,
        *(getattr(operator, n) for n in ("is_", "is_not", "eq", "ne", "not_", "truth")),
    ]
)
_SEARCHES = (bisect.bisect_left, bisect.bisect_right, heapq.nsmallest, heapq.nlargest)
BUILTINS: dict[Any, Any] = {
    **{getattr(operator, name): functools.partial(binary, name) for name in BINARY},
    **{getattr(operator, name): functools.partial(comparison, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    operator.contains: lambda container, x: comparison("in_", x, container),
    operator.is_: functools.partial(comparison, "is_"),
    operator.is_not: functools.partial(comparison, "is_not"),
    operator.not_: not_,
    operator.truth: test,
    operator.neg: functools.partial(unary, "neg"),
    sorted: sorted_,
    divmod: divmod_,
    getattr: getattr_,
    hasattr: hasattr_,
    setattr: lambda x, name, value: set_attribute(value, x, name),
    len: len_,
    range: range_,
    enumerate: enumerate_,
    zip: zip_,
    np.ndindex: ndindex_,
    np.ndenumerate: ndenumerate_,
    np.nditer: nditer_,
    np.fromiter: fromiter_,
    reversed: reversed_,
    sum: sum_,
    max: _extreme("max", max),
    min: _extreme("min", min),
    int: _number(int, "i", np.int64),
    float: _number(float, "f", np.float64),
    bool: _bool,
    isinstance: isinstance_,
    type: type_,
    next: next_,
    pow: pow_,
    complex: complex_,
    print: printing.print,
    warnings.warn: printing.warn,
    str: printing.str_,
    repr: printing.repr_,
    format: printing.format_,
    any: any_,
    all: all_,
    **{f: functools.partial(_written, f.__name__) for f in _SEARCHES},
}
