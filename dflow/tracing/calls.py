"""Calls in traced code: NumPy's and math's functions on traced values."""

from __future__ import annotations

import functools
import os
import random
import sys
import time
import types
from typing import Any

import numpy as np

from dflow.errors import CarriedError, DflowError, TraceError, failure
from dflow.tracing import array as _array
from dflow.tracing import printing
from dflow.tracing.branches import traced_condition, truth
from dflow.tracing.context import TRACE, builder, region, tracing
from dflow.tracing.lift import contains_traced, elementwise, lift, static_value, supported, wrap
from dflow.tracing.lift import convert as convert_value
from dflow.tracing.rewrite import rewritten
from dflow.tracing.sequences import Enumerated, Indexable, Range, Reversed, Zipped, as_sequence
from dflow.tracing.sizes import is_one
from dflow.tracing.state import Undefined


def dispatch() -> Any:
    """What knows NumPy's functions on traced arrays: ``get(function)``."""
    import dflow.numpy

    return dflow.numpy.dispatch


def unsupported(name: str) -> TraceError:
    return failure(  # type: ignore[return-value]
        TraceError,
        f"{name} is not supported under dflow; write it with functions that are (see dflow.numpy)",
        mend="dir(dflow.numpy) lists the supported functions",
    )


def call_numpy(function: Any, args: Any, kwargs: Any) -> Any:
    """A NumPy function on traced arrays."""
    return dispatch().get(function)(*args, **kwargs)


def call_ufunc(ufunc: Any, method: str, inputs: Any, kwargs: Any) -> Any:
    """A ufunc, or a method of one, on traced arrays."""
    if method == "at":
        return _at(ufunc, *inputs)
    ours = dispatch().get(ufunc)
    run = ours if method == "__call__" else getattr(ours, method, None)
    if run is None:
        raise unsupported(f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}"))
    for target in kwargs.get("out", ()):
        if target is not None and not isinstance(target, _array.Array):
            raise captured_update(target)
    return run(*inputs, **kwargs)


def captured_update(target: Any) -> TraceError:
    return failure(  # type: ignore[return-value]
        TraceError,
        "updating a captured array: it was made outside of the traced function, where the update would not be seen",
        seen=f"an array of shape {getattr(target, 'shape', ())}",
        mend="pass it as an argument and return it, or update a copy (x = x.copy()) in the function",
    )


def _at(ufunc: Any, target: Any, index: Any, value: Any = None) -> None:
    """``np.add.at`` and its like: repeated positions count as often as they occur."""
    from dflow.numpy.ufunc_methods import at

    if not isinstance(target, _array.Array):
        raise captured_update(target)
    at(ufunc, target, index, value)


# -- calls of rewritten code -------------------------------------------------------------------------------------


def call(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)`` in rewritten code."""
    if not tracing():
        return function(*args, **kwargs)
    try:
        special = BUILTINS.get(function)
    except TypeError:  # not hashable
        special = None
    if special is not None:
        return special(*args, **kwargs)
    if isinstance(function, types.FunctionType):
        return _call_function(function, args, kwargs)
    if isinstance(function, types.MethodType) and isinstance(function.__func__, types.FunctionType):
        return _call_function(function.__func__, (function.__self__, *args), kwargs)
    if isinstance(function, functools.partial):
        return call(function.func, *function.args, *args, **{**function.keywords, **kwargs})
    if isinstance(function, _CACHED) and (contains_traced(args) or contains_traced([*kwargs.values()])):
        return call(function.__wrapped__, *args, **kwargs)  # traced values are no keys of a cache
    if isinstance(function, type):
        return _call_class(function, args, kwargs)
    if isinstance(function, types.BuiltinFunctionType | np.ufunc):
        return _call_native(function, args, kwargs)
    method = type(function).__call__
    if isinstance(method, types.FunctionType) and is_user_code(method):
        return _call_function(method, (function, *args), kwargs)
    if _is_numpy(function):
        if type(function).__hash__ is None:
            raise unsupported(f"np.{type(function).__name__}")
        return _call_native(function, args, kwargs)
    return _call_foreign(function, args, kwargs)


def _call_foreign(function: Any, args: Any, kwargs: Any) -> Any:
    """What is neither the user's nor ours: it may not know what to do with traced values."""
    try:
        return function(*args, **kwargs)
    except (TypeError, ValueError, AttributeError) as e:
        if isinstance(e, DflowError) or not (any_traced(args) or any_traced(tuple(kwargs.values()))):
            raise
        raise failure(
            TraceError,
            f"{getattr(function, '__qualname__', type(function).__name__)}() cannot be called with traced values",
            seen=f"{type(e).__name__}: {e}"[:200],
            mend="write it with functions of NumPy or math, or call it outside and pass its result",
        ) from None


_CACHED = type(functools.lru_cache(len))


def _call_function(function: types.FunctionType, args: Any, kwargs: Any) -> Any:
    if is_user_code(function):
        return rewritten(function)(*args, **kwargs)
    if _is_numpy(function):
        return _call_native(function, args, kwargs)
    return _call_foreign(function, args, kwargs)


def _call_class(cls: type, args: Any, kwargs: Any) -> Any:
    if issubclass(cls, np.generic) and len(args) == 1 and contains_traced(args):
        return lift(args[0]).astype(cls)
    if cls is np.ndarray and not {*kwargs} - {"shape", "dtype"} and len(args) <= 2:
        return dispatch().CREATION[np.empty](*args, **{"dtype": np.float64, **kwargs} if len(args) < 2 else kwargs)
    init = vars(cls).get("__init__") or getattr(cls, "__init__", None)
    plain = type(cls) is type and cls.__new__ is object.__new__
    if plain and isinstance(init, types.FunctionType) and is_user_code(init):
        made: Any = object.__new__(cls)
        rewritten(init)(made, *args, **kwargs)
        return made
    return cls(*args, **kwargs)


def is_user_code(function: types.FunctionType) -> bool:
    """Whether a function is to be rewritten: it is neither dflow's, a numeric library's nor Python's own."""
    return not is_library(function.__module__)


def is_library(module: str | None) -> bool:
    """Whether a module is dflow's, a numeric library's or Python's own, by its name."""
    package = (module or "").partition(".")[0]
    return module not in PLAIN and (package in LIBRARIES or package in sys.stdlib_module_names)


PLAIN = {"dflow.lax", "dflow.solvers"}  # modules of dflow's that are written as a user would write them
LIBRARIES = {"dflow", "numpy", "scipy", "optree"}


def _is_numpy(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    return module.partition(".")[0] in ("numpy", "scipy") or isinstance(function, np.ufunc)


def _call_native(function: Any, args: Any, kwargs: Any) -> Any:
    """NumPy's functions, math's, and methods of NumPy arrays."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, np.ndarray):
        return _call_method(function, owner, args, kwargs)
    if isinstance(owner, RANDOM) or (getattr(function, "__module__", None) or "").startswith("numpy.random"):
        raise _random(function)
    if function in ONCE:
        raise _once(function)
    for target in (kwargs.get("out"), *(args[:1] if function in WRITERS else ())):
        if isinstance(target, np.ndarray):
            raise captured_update(target)
    traced = any_traced(args) or any_traced(tuple(kwargs.values()))
    if function in dispatch().CREATION and not _gives_itself(function, args):
        return dispatch().CREATION[function](*args, **kwargs)
    if traced and _is_numpy(function) and not isinstance(owner, np.ufunc):  # their methods return by the protocol
        return dispatch().get(function)(*args, **kwargs)
    if traced and function in math_functions():
        return math_functions()[function](*args, **kwargs)
    return _call_foreign(function, args, kwargs) if traced else function(*args, **kwargs)


RANDOM = (random.Random, np.random.Generator, np.random.RandomState)
WRITERS = (np.copyto, np.put, np.place, np.putmask, np.fill_diagonal, np.put_along_axis)


_CLOCKS = (f for name, f in vars(time).items() if isinstance(f, types.BuiltinFunctionType) and name[0] != "_")
ONCE = frozenset([input, open, os.urandom, *_CLOCKS])


def _once(function: Any) -> TraceError:
    return failure(  # type: ignore[return-value]
        TraceError,
        f"{function.__name__}() would be called once, while tracing, and never when the program runs",
        mend="call it outside, and pass its result as an argument",
    )


def _random(function: Any) -> TraceError:
    return failure(  # type: ignore[return-value]
        TraceError,
        f"{function.__name__}() would be drawn once, while tracing, and be the same in every run",
        mend="draw random numbers outside, and pass them as an argument",
    )


def _gives_itself(function: Any, args: Any) -> bool:
    """Whether a call such as ``np.asarray(x)`` may give ``x`` itself, made outside, rather than a new array."""
    return function.__name__.startswith("as") and bool(args) and isinstance(args[0], np.ndarray)


def _call_method(function: Any, owner: np.ndarray[Any, Any], args: Any, kwargs: Any) -> Any:
    """A method of an array that was made outside: a copy is a new traced array; what changes the array is refused."""
    if function.__name__ in ("copy", "astype", "flatten") and supported(owner.dtype):
        result = function(*args, **kwargs)
        return fresh(result) if supported(result.dtype) else result
    if function.__name__ in ("fill", "sort", "put", "itemset", "partition", "resize", "setfield", "byteswap"):
        raise captured_update(owner)
    if any_traced(args) or any_traced(tuple(kwargs.values())):
        return call(getattr(lift(owner), function.__name__), *args, **kwargs)
    return function(*args, **kwargs)


def any_traced(values: Any) -> bool:
    return any(contains_traced(v) or (isinstance(v, dict) and any_traced(v.values())) for v in values)


def fresh(array: np.ndarray[Any, Any]) -> Any:
    """A new traced array with the given contents."""
    return _array.Array.copy(lift(array))


def math_functions() -> dict[Any, Any]:
    """From the functions of ``math`` to those on traced numbers."""
    from dflow.numpy.math_functions import MATH

    return MATH


# -- Python's own functions ----------------------------------------------------------------------------------------


def len_(x: Any) -> Any:
    if isinstance(x, _array.Array) and x.ndim:
        return x.shape[0]
    return x.length if isinstance(x, Indexable) else len(x)


def range_(*args: Any) -> Any:
    if not any(isinstance(a, _array.Array) for a in args):
        return range(*args)
    args = tuple(_static_integer(a) for a in args)
    if all(isinstance(a, int) for a in args):
        return range(*args)
    return Range(0, *args) if len(args) == 1 else Range(*args)


def _static_integer(x: Any) -> Any:
    known = static_value(x) if isinstance(x, _array.Array) and not x.ndim and x.dtype.kind in "iu" else None
    return x if known is None else int(known)


def enumerate_(x: Any, start: Any = 0) -> Any:
    inner = as_sequence(x) if isinstance(x, _array.Array | Indexable | range) else None
    return enumerate(x, start) if inner is None else Enumerated(inner, start)


def zip_(*parts: Any, strict: bool = False) -> Any:
    inner = [as_sequence(p) for p in parts]
    known = parts and all(i is not None for i in inner) and any(isinstance(p, _array.Array | Indexable) for p in parts)
    if not known:
        return zip(*parts, strict=strict)
    lengths = [i.length for i in inner if i is not None]
    if strict and any(n != lengths[0] for n in lengths if isinstance(n, int)):
        raise ValueError("zip() arguments have different lengths")
    return Zipped(inner)  # type: ignore[arg-type]


def reversed_(x: Any) -> Any:
    inner = as_sequence(x) if isinstance(x, _array.Array | Indexable | range) else None
    return reversed(x) if inner is None else Reversed(inner)


def sum_(x: Any, /, start: Any = 0) -> Any:
    if isinstance(x, _array.Array) and x.ndim:
        total = call_numpy(np.sum, (x,), {"axis": 0})
        return total if isinstance(start, int) and start == 0 else start + total
    total = start
    for item in x:
        total = total + item
    return total


def _extreme(name: str, plain: Any, reduction: Any) -> Any:
    def extreme(*args: Any, key: Any = None, default: Any = None) -> Any:
        if (
            len(args) == 1
            and isinstance(args[0], _array.Array)
            and args[0].ndim == 1
            and key is None
            and default is None
        ):
            return call_numpy(reduction, (args[0],), {})
        items = list(args[0]) if len(args) == 1 else list(args)
        if key is not None or not contains_traced(items):
            options = {} if default is None else {"default": default}
            return plain(*args, key=key, **options) if len(args) == 1 else plain(*args, key=key)
        if any(isinstance(i, _array.Array) and i.ndim for i in items):
            return plain(*args)
        return functools.reduce(lambda a, b: elementwise(name, a, b), items)

    return extreme


def _number(plain: Any, kind: str, dtype: Any) -> Any:
    """``int(x)``, ``float(x)``, ``bool(x)`` of a number give a number; of a whole array they are Python's affair."""

    def convert(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or not isinstance(args[0], _array.Array) or not is_one(args[0].type.shape):
            return plain(*args, **kwargs)
        x = args[0]
        if static_value(x) is not None:
            return plain(x)
        if kind == "b":
            return wrap(truth(x))
        value = builder().reshape(x.value, shape=()) if x.ndim else x.value
        return wrap(convert_value(value, dtype), weak=True)

    return convert


def complex_(*args: Any, **kwargs: Any) -> Any:
    """``complex(x, y)`` of traced numbers."""
    if not any_traced(args) or kwargs:
        return complex(*args, **kwargs)
    arrays = [lift(a) for a in (*args, 0.0)[:2]]
    if any(a.dtype.kind == "c" for a in arrays):
        return arrays[0] + 1j * arrays[1]
    x, y = (lift(BUILTINS[float](a)).value for a in arrays)
    return wrap(builder().emit("complex", x, y), weak=True)


def type_(*args: Any) -> type:
    """``type(x)``: for a traced value the type of what it stands for."""
    x = args[0]
    if len(args) != 1 or not isinstance(x, _array.Array):
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
    if not isinstance(x, _array.Array):
        return isinstance(x, kinds)
    if isinstance(x, kinds):
        return True
    if x.dtype == np.bool_ and not x.ndim and (kinds is bool or (isinstance(kinds, tuple) and bool in kinds)):
        return True
    stands_for = type_(x)
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    return any(isinstance(k, type) and issubclass(stands_for, k) for k in wanted)


def pow_(x: Any, y: Any, mod: Any = None) -> Any:
    return pow(x, y) if mod is None else pow(x, y) % mod if any_traced((x, y, mod)) else pow(x, y, mod)


def map_(function: Any, *parts: Any, **options: Any) -> Any:
    """``map``, with ``function`` called as a call that is written out."""
    return map(functools.partial(call, function), *parts, **options)


def any_(items: Any) -> Any:
    return call_numpy(np.any, (items,), {}) if isinstance(items, _array.Array) else _any_all(items, "or", False)


def all_(items: Any) -> Any:
    return call_numpy(np.all, (items,), {}) if isinstance(items, _array.Array) else _any_all(items, "and", True)


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
    max: _extreme("max", max, np.max),
    min: _extreme("min", min, np.min),
    int: _number(int, "i", np.int64),
    float: _number(float, "f", np.float64),
    bool: _number(bool, "b", np.bool_),
    complex: complex_,
    isinstance: isinstance_,
    type: type_,
    map: map_,
    next: next_,
    pow: pow_,
    print: printing.print,
    str: printing.str_,
    repr: printing.repr_,
    format: printing.format_,
    any: any_,
    all: all_,
}
