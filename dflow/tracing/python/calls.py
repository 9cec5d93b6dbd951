"""Calls in traced code: NumPy's and math's functions on traced values."""

from __future__ import annotations

import builtins
import dataclasses
import functools
import inspect
import itertools
import os
import random
import time
import types
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from dflow.errors import DflowError, NeedsStatic, TraceError, failure
from dflow.ir.types import finfo
from dflow.tracing.arrays import array as _array
from dflow.tracing.arrays.lift import any_traced, contains_traced, lift, supported
from dflow.tracing.context import note_fresh, region, tracing
from dflow.tracing.control.state import Undefined
from dflow.tracing.control.switch import asked, switch
from dflow.tracing.lists import earlier, lists_of_numbers, tables, totals
from dflow.tracing.python import templates
from dflow.tracing.python.call_of_choice import ANSWERED, call_option, call_with
from dflow.tracing.python.choice import Choice
from dflow.tracing.python.functions import ASKING, BUILTINS, SPECIAL_METHODS, sort, type_
from dflow.tracing.python.iterators import take_from
from dflow.tracing.python.objects import emptied
from dflow.tracing.python.optional import all_held, held, settled
from dflow.tracing.python.special_methods import attribute, iterated
from dflow.tracing.python.special_methods import method as special_method
from dflow.tracing.source.rewrite import home, is_library, is_user_code, rewritten


def dispatch() -> Any:
    """What knows NumPy's functions on traced arrays: ``get(function)``, and tables of them, full."""
    found = _dispatch()
    found.fill()
    return found


def _dispatch() -> Any:
    """The same, with tables that have what programs so far needed."""
    from dflow.numpy import dispatch

    return dispatch


def unsupported(name: str) -> TraceError:
    return failure(  # type: ignore[return-value]
        TraceError,
        f"{name} is not supported under dflow; write it with functions that are (see dflow.numpy)",
        mend="dir(dflow.numpy) lists the supported functions",
    )


def call_numpy(function: Any, args: Any, kwargs: Any) -> Any:
    """A NumPy function on traced arrays."""
    return _dispatch().get(function)(*args, **kwargs)


def call_ufunc(ufunc: Any, method: str, inputs: Any, kwargs: Any) -> Any:
    """A ufunc, or a method of one, on traced arrays."""
    if method == "at":
        return _at(ufunc, *inputs)
    ours = _dispatch().get(ufunc)
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
    if isinstance(function, Undefined):
        raise function.error()
    function = settled(function)
    if isinstance(function, Choice):
        return switch(function, functools.partial(call_option, args, kwargs))
    for k, x in enumerate(args):
        if isinstance(x, Choice) and not _passes_on(function):
            with_option = functools.partial(call_with, function, args, kwargs, k)
            return asked(x, with_option) if function in ANSWERED else switch(x, with_option)
    for keyword, x in kwargs.items():
        if isinstance(x, Choice) and not _passes_on(function):
            return switch(x, functools.partial(call_with, function, args, kwargs, keyword))
    try:
        takes_functions = function in TAKING_FUNCTIONS
        special, name = BUILTINS.get(function), SPECIAL_METHODS.get(function)
        looks, copies = function in LOOKING, function in tables.COPYING
    except TypeError:  # not hashable
        takes_functions, special, name, looks, copies = False, None, None, False, False
    if copies and args and tables.of(args[0]) is not None:
        return tables.copied(function, args[0])
    if name is not None and args:
        args = tuple(map(held, args))
        own = special_method(args[0], name)
        if own is not None:
            return own(*args[1:], **kwargs)
    if takes_functions:
        args = args if function in (sorted, min, max) else tuple(map(_callback, args))
        kwargs = {k: _callback(v) for k, v in kwargs.items()}
    if looks or isinstance(function, _TAKING) or function is list or (special and function not in _LEAVING_ALONE):
        for x in args:
            if isinstance(x, Iterator) and special_method(x, "__next__") is None:
                take_from(x)
    if special is not None:
        return special(*(args if function in ASKING else map(held, args)), **kwargs)
    if looks:
        earlier.refuse(*args)
    function = held(function)
    if isinstance(function, types.FunctionType) and function.__code__ is _BY_TYPE and args:
        return call(function.dispatch(type_(held(args[0]))), *args, **kwargs)  # type: ignore[attr-defined]
    if isinstance(function, types.FunctionType):
        return _call_function(function, args, kwargs)
    if isinstance(function, np.ufunc):
        return _call_native(function, args, kwargs)
    if type(function) in dispatch().CALLABLES and (any_traced(args) or any_traced(kwargs.values())):
        return dispatch().get(function)(*args, **kwargs)
    if isinstance(function, types.MethodType) and isinstance(function.__func__, types.FunctionType):
        return _call_function(function.__func__, (function.__self__, *args), kwargs)
    if isinstance(function, functools.partial):
        return call(function.func, *function.args, *args, **{**function.keywords, **kwargs})
    if isinstance(function, _CACHED) and (contains_traced(args) or contains_traced([*kwargs.values()])):
        return call(function.__wrapped__, *args, **kwargs)  # traced values are no keys of a cache
    if isinstance(function, type):
        return _call_class(function, args, kwargs)
    if isinstance(function, types.BuiltinFunctionType):
        return _call_native(function, args, kwargs)
    method = type(function).__call__
    if isinstance(method, types.FunctionType) and is_user_code(method):
        return _call_function(method, (function, *args), kwargs)
    if _is_numpy(function):
        if type(function).__hash__ is None:
            raise unsupported(f"np.{type(function).__name__}")
        written = getattr(function, "__wrapped__", None)
        if isinstance(written, types.FunctionType) and is_user_code(written) and function not in dispatch().FUNCTIONS:
            return _call_function(written, args, kwargs)
        return _call_native(function, args, kwargs)
    return _call_foreign(function, args, kwargs)


def _passes_on(function: Any) -> bool:
    """Whether a function takes a choice as it is: it is the user's, or puts it into a container."""
    if isinstance(getattr(function, "__self__", None), CONTAINERS):
        return function.__name__ in ("append", "appendleft", "insert", "setdefault", "update", "extend")
    if isinstance(function, types.MethodType | functools.partial):
        return _passes_on(function.__func__ if isinstance(function, types.MethodType) else function.func)
    if isinstance(function, type):
        return function in TAKING_FUNCTIONS or not is_library(function.__module__) or function in (list, tuple, dict)
    by_type = isinstance(function, types.FunctionType) and function.__code__ is _BY_TYPE
    return isinstance(function, types.FunctionType) and is_user_code(function) and not by_type


_ITERATORS = [f for f in vars(itertools).values() if isinstance(f, type)]
TAKING_FUNCTIONS = frozenset([map, filter, sorted, min, max, iter, functools.reduce, *_ITERATORS])

# What takes no item of an iterator, or sees to it itself; and what may take some.
_LEAVING_ALONE = frozenset([iter, next, isinstance, type, callable, hasattr, print])
_TAKING = types.BuiltinFunctionType

_BY_TYPE = functools.singledispatch(len).__code__  # type: ignore[attr-defined]

# What goes through the items of a list by itself.
LOOKING = frozenset([tuple, set, frozenset, dict, deque, Counter, iter, map, filter, functools.reduce, *_ITERATORS])


def _callback(x: Any) -> Any:
    """A function that Python is to call, as one that is called in rewritten code."""
    return functools.partial(call, x) if callable(x) else x


def _takes(function: Any, args: Any, kwargs: Any) -> bool:
    """Whether a function has these parameters, as far as it says."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # it does not say
        pass
    return True


def _call_foreign(function: Any, args: Any, kwargs: Any) -> Any:
    """What is neither the user's nor ours: it may not know what to do with traced values, and not with None either."""
    return _run_foreign(function, *all_held(args, kwargs))


def _run_foreign(function: Any, args: Any, kwargs: Any) -> Any:
    owner = getattr(function, "__self__", None)
    earlier.refuse(owner)
    if isinstance(owner, types.ModuleType) and owner is not builtins:  # such as heapq.heapify
        earlier.refuse(*args, *kwargs.values())
    try:
        return function(*args, **kwargs)
    except (TypeError, ValueError, AttributeError) as e:
        ours = (getattr(function, "__module__", None) or "").startswith(
            "dflow."
        )  # it failed in a function it was given
        traced = any_traced(args) or any_traced(tuple(kwargs.values()))
        if ours or isinstance(e, DflowError) or not traced or not _takes(function, args, kwargs):
            raise
        raise failure(
            TraceError,
            f"{getattr(function, '__qualname__', type(function).__name__)}() cannot be called with traced values",
            seen=f"{type(e).__name__}: {e}"[:200],
            mend="write it with functions of NumPy or math, or call it outside and pass its result",
        ) from None


_CACHED = type(functools.lru_cache(len))


def _call_function(function: types.FunctionType, args: Any, kwargs: Any) -> Any:
    if is_user_code(function) and not (_is_numpy(function) and _runs_as_is(function, args, kwargs)):
        return rewritten(function)(*args, **kwargs)
    if _is_numpy(function):
        return _call_native(function, args, kwargs)
    if function.__module__ == "statistics":
        return _call_statistics(function, args, kwargs)
    return _call_foreign(function, args, kwargs)


def _call_statistics(function: Any, args: Any, kwargs: Any) -> Any:
    from dflow.numpy.statistics_functions import STATISTICS

    args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
    traced = any_traced(args) and function in STATISTICS
    return STATISTICS[function](*args, **kwargs) if traced else _call_foreign(function, args, kwargs)


def _runs_as_is(function: Any, args: Any, kwargs: Any) -> bool:
    """Whether a function of NumPy's, plain Python, has a rule of its own here or is given known numbers alone."""
    if function in dispatch().FUNCTIONS:
        return True
    return all(isinstance(x, _KNOWN) and not contains_traced(x) for x in (*args, *kwargs.values()))


_KNOWN = (int, float, complex, str, list, tuple, np.ndarray, np.generic, types.NoneType, type)


def _call_class(cls: type, args: Any, kwargs: Any) -> Any:
    if issubclass(cls, np.generic) and len(args) == 1 and contains_traced(args):
        return lift(args[0]).astype(cls)
    if cls is np.ndarray and not {*kwargs} - {"shape", "dtype"} and len(args) <= 2:
        return dispatch().CREATION[np.empty](*args, **{"dtype": np.float64, **kwargs} if len(args) < 2 else kwargs)
    if cls is np.finfo:
        return finfo(*args, **kwargs)
    init = vars(cls).get("__init__") or getattr(cls, "__init__", None)
    plain = cls.__new__ is object.__new__ or cls.__new__ is BaseException.__new__ or cls.__new__ is Exception.__new__
    if type(cls).__call__ is type.__call__ and plain and isinstance(init, types.FunctionType) and is_user_code(init):
        made: Any = cls.__new__(cls, *args) if issubclass(cls, BaseException) else object.__new__(cls)
        (_dataclass_init(cls, init) or rewritten(init))(made, *args, **kwargs)
        return made
    return cls(*args, **kwargs)


def _dataclass_init(cls: Any, init: types.FunctionType) -> Any:
    """What stands for the ``__init__`` that ``dataclass`` has made, if that calls a ``__post_init__`` of the user's."""
    if (
        init.__code__.co_filename != "<string>"
        or not dataclasses.is_dataclass(cls)
        or not hasattr(cls, "__post_init__")
    ):
        return None
    fields = {f.name: f for f in dataclasses.fields(cls)}
    signature = inspect.signature(init)
    self_name = next(iter(signature.parameters))

    def initialized(*args: Any, **kwargs: Any) -> None:
        given = signature.bind(*args, **kwargs).arguments
        made, only_for_init = given.pop(self_name), []
        for name, parameter in list(signature.parameters.items())[1:]:
            field = fields.get(name)
            if name not in given and field is not None and field.default_factory is not dataclasses.MISSING:
                continue
            value = given.get(name, parameter.default)
            if field is None:
                only_for_init.append(value)
            else:
                object.__setattr__(made, name, value)
        for name, field in fields.items():
            if name not in given and field.default_factory is not dataclasses.MISSING:
                object.__setattr__(made, name, call(field.default_factory))
        call(attribute(made, "__post_init__"), *only_for_init)

    return initialized


def _is_numpy(function: Any) -> bool:
    if type(function).__module__.startswith("dflow."):  # a transformation of NumPy's function, which has its names
        return False
    return home(function).partition(".")[0] in ("numpy", "scipy") or isinstance(function, np.ufunc)


def _call_native(function: Any, args: Any, kwargs: Any) -> Any:
    """NumPy's functions, math's, and methods of NumPy arrays."""
    found = _native(function, args, kwargs)
    given = (getattr(function, "__self__", None), *args, *kwargs.values())
    note_fresh(found if isinstance(found, np.ndarray) and not any(_shares(found, x) for x in given) else None)
    return found


def _shares(found: np.ndarray[Any, Any], x: Any) -> bool:
    if isinstance(x, list | tuple):
        return any(_shares(found, i) for i in x)
    return isinstance(x, np.ndarray) and np.may_share_memory(found, x)


def _native(function: Any, args: Any, kwargs: Any) -> Any:
    if not isinstance(getattr(function, "__self__", None), CONTAINERS):
        args, kwargs = all_held(args, kwargs)
    owner = getattr(function, "__self__", None)
    if isinstance(owner, list) and earlier.earlier(owner) is not None:
        return _method_of_growing(function, owner, args, kwargs)
    if isinstance(owner, list) and function.__name__ == "extend" and lists_of_numbers.extends(owner, args[0]):
        return None
    if type(owner) is list and function.__name__ == "pop" and not owner:
        raise emptied(owner)
    if isinstance(owner, CONTAINERS) and owner in region().root().outside:
        result = function(*args, **kwargs)
        region().root().outside.require_unchanged(None, owner)
        return result
    if isinstance(owner, str) and function.__name__ in ("format", "join"):
        return (templates.formatted if function.__name__ == "format" else templates.join)(owner, *args, **kwargs)
    if isinstance(owner, list | tuple) and function.__name__ in ("index", "count") and contains_traced((owner, *args)):
        return rewritten(getattr(totals, function.__name__))(owner, *args, **kwargs)
    if isinstance(owner, list) and function.__name__ == "sort":
        return sort(owner, **{k: _callback(v) for k, v in kwargs.items()})
    if isinstance(owner, np.ndarray):
        return _call_method(function, owner, args, kwargs)
    if _is_random(owner) or (getattr(function, "__module__", None) or "").startswith("numpy.random"):
        raise _random(function)
    if function in ONCE:
        raise _once(function)
    for target in (kwargs.get("out"), *(args[:1] if function in WRITERS else ())):
        if isinstance(target, np.ndarray):
            raise captured_update(target)
    if isinstance(function, np.ufunc):
        traced = any_traced(args) or any_traced(tuple(kwargs.values()))
        return (_dispatch().get(function) if traced else function)(*args, **kwargs)
    if function in math_functions():
        args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
    if isinstance(owner, np.ufunc) and function.__name__ != "at":  # whose index may be a tuple
        args = tuple(lift(a) if isinstance(a, list | tuple) and contains_traced(a) else a for a in args)
    traced = any_traced(args) or any_traced(tuple(kwargs.values()))
    if function in dispatch().CREATION and not _gives_itself(function, args):
        return dispatch().CREATION[function](*args, **kwargs)
    if traced and _is_numpy(function) and not isinstance(owner, np.ufunc):  # their methods return by the protocol
        return dispatch().get(function)(*args, **kwargs)
    if traced and function in math_functions():
        return math_functions()[function](*args, **kwargs)
    for x in (*args, *kwargs.values()):
        if isinstance(x, Undefined):
            raise x.error()
    if (getattr(function, "__module__", None) or "").startswith("scipy."):
        return _call_solver(function, args, kwargs)
    return _run_foreign(function, args, kwargs) if traced else function(*args, **kwargs)


def _call_solver(function: Any, args: Any, kwargs: Any) -> Any:
    """SciPy's function on known values, which may call functions of the user's: none of them gives a traced value."""
    refused: list[DflowError] = []

    def known(f: Any) -> Any:
        if not isinstance(f, types.FunctionType | types.MethodType | functools.partial):
            return f

        @functools.wraps(f)
        def callback(*args: Any, **kwargs: Any) -> Any:
            found = f(*args, **kwargs)
            if contains_traced(found):
                try:
                    _dispatch().refuse(_dispatch().name_of(function))
                except DflowError as e:
                    refused.append(failure(NeedsStatic, **e.facts))  # of a known value it can be compiled
                raise refused[0]
            return found

        return callback

    try:
        return function(*map(known, args), **{k: known(f) for k, f in kwargs.items()})
    except Exception:
        if refused:
            raise refused[0] from None
        raise


def _method_of_growing(function: Any, owner: list[Any], args: Any, kwargs: Any) -> Any:
    """A method of a list that grows in a traced loop."""
    if function.__name__ == "pop" and not args and any(r.reach and owner in r.reach for r in region().around()):
        earlier.to_be_filled(owner)
    run = lists_of_numbers.method(owner, function.__name__)
    if run is not None:
        return run(*args, **kwargs)
    fills = earlier.filling(owner)
    if fills is not None and function.__name__ == "pop" and not args:
        return fills.pop()
    if function.__name__ not in ("append", "extend", "copy"):
        earlier.refuse(owner)
    if fills is None and function.__name__ == "extend" and lists_of_numbers.extends(owner, args[0]):
        return None
    if fills is None or function.__name__ == "copy":
        return function(*args)
    for x in args if function.__name__ == "append" else iterated(args[0]):
        fills.append(x)
    return None


CONTAINERS = (list, dict, set, deque)
WRITERS = (np.copyto, np.put, np.place, np.putmask, np.fill_diagonal, np.put_along_axis)


_CLOCKS = (f for name, f in vars(time).items() if isinstance(f, types.BuiltinFunctionType) and name[0] != "_")
ONCE = frozenset([input, open, os.urandom, *_CLOCKS])


def _once(function: Any) -> TraceError:
    return failure(  # type: ignore[return-value]
        TraceError,
        f"{function.__name__}() would be called once, while tracing, and never when the program runs",
        mend="call it outside, and pass its result as an argument",
    )


def _is_random(x: Any) -> bool:
    """Whether it is a generator of random numbers; NumPy's are looked up by name, as to import them takes 8 ms."""
    names = [c.__name__ for c in type(x).__mro__ if c.__module__.startswith("numpy.random")]
    return isinstance(x, random.Random) or not {"Generator", "RandomState"}.isdisjoint(names)


def _random(function: Any) -> TraceError:
    return failure(  # type: ignore[return-value]
        TraceError,
        f"{function.__name__}() would be drawn once, while tracing, and be the same in every run",
        mend="draw random numbers outside, and pass them as an argument; or use dflow.random, whose keys are arguments",
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


def fresh(array: np.ndarray[Any, Any]) -> Any:
    """A new traced array with the given contents."""
    return _array.Array.copy(lift(array))


def math_functions() -> dict[Any, Any]:
    """From the functions of ``math`` and ``cmath`` to those on traced numbers."""
    from dflow.numpy import cmath_functions, math_functions  # noqa: F401 (the one fills the table of the other)

    return math_functions.MATH
