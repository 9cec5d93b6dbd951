"""Operators, attributes, truth and items of the user's objects: their special methods, run as rewritten code.

Python calls the special methods of a class (``__mul__``, ``__getitem__``, the getter of a property) by itself and as
they were written. Rewritten code comes here first, which does as Python does, and runs them rewritten.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dflow.errors import OnceError, failure
from dflow.records import is_record
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import contains_traced
from dflow.tracing.arrays.numbers import stands_for
from dflow.tracing.context import TRACE, note_fresh, region, tracing
from dflow.tracing.control.state import load
from dflow.tracing.lists import earlier
from dflow.tracing.python.choice import Choice
from dflow.tracing.python.iterators import take_from
from dflow.tracing.python.objects import Place, outside_change, parts
from dflow.tracing.python.optional import Optional, held
from dflow.tracing.source.rewrite import is_user_code, rewritten

_PLAIN = (Array, int, float, bool, complex, str, tuple, list, dict, set, types.NoneType, range, slice, np.ndarray)
PLAIN = frozenset(_PLAIN)  # classes without special methods of the user's
_NUMBERS = Array | int | float | complex | np.ndarray | np.generic  # those that know which operands are not theirs

_NAMES = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift"]
BINARY: dict[str, Callable[[Any, Any], Any]] = {name: getattr(operator, name) for name in _NAMES}
IN_PLACE = {name: getattr(operator, "i" + name.rstrip("_")) for name in _NAMES}
UNARY: dict[str, Callable[[Any], Any]] = {name: getattr(operator, name) for name in ("neg", "pos", "invert")}


def method(x: Any, name: str) -> Callable[..., Any] | None:
    """The special method ``name`` of the class of ``x`` if it is the user's, rewritten and bound; None otherwise."""
    cls = type(x)
    if cls in PLAIN:
        return None
    found = getattr(cls, name, None)
    if not isinstance(found, types.FunctionType) or not is_user_code(found):
        return None
    return functools.partial(generated(cls, found) or rewritten(found), x)


def generated(cls: type, function: types.FunctionType) -> Callable[..., Any] | None:
    """What stands for a comparison that ``dataclass`` has made: it has no source."""
    op = function.__name__.strip("_")
    if function.__code__.co_filename != "<string>" or not dataclasses.is_dataclass(cls) or op not in _FIELDWISE:
        return None
    names = [f.name for f in dataclasses.fields(cls) if f.compare]

    def compare(x: Any, y: Any) -> Any:
        from dflow.tracing.control.logic import comparison

        if type(x) is not type(y):
            return NotImplemented
        return comparison(op, *(tuple(getattr(o, n) for n in names) for o in (x, y)))

    return compare


_FIELDWISE = {"eq", "lt", "le", "gt", "ge"}


# -- operators -----------------------------------------------------------------------------------------------------


def binary(op: str, x: Any, y: Any) -> Any:
    """``x op y``."""
    if isinstance(x, str) and op == "mod":
        from dflow.tracing.python.templates import percent

        return percent(x, y)
    if type(x) not in PLAIN or type(y) not in PLAIN:
        x, y = held(x), held(y)
        for k, v in enumerate((x, y)):
            if isinstance(v, Choice):
                return switch()(v, functools.partial(_binary_with, op, x, y, k))
        name = op.rstrip("_")
        found = dispatched(f"__{name}__", x, f"__r{name}__", y)
        if found is not NotImplemented:
            return found
    if op == "add" and earlier.earlier(y) is not None and isinstance(x, list):
        from dflow.tracing.lists.lists_of_numbers import joined

        return joined(x, y)
    return note_fresh(BINARY[op](x, y))


def switch() -> Any:
    from dflow.tracing.control.switch import switch

    return switch


def _binary_with(op: str, x: Any, y: Any, k: int, option: Any) -> Any:
    return binary(op, option, y) if k == 0 else binary(op, x, option)


def dispatched(name: str, x: Any, reflected: str, y: Any) -> Any:
    """What Python does with an operator: asks one operand, then the other. NotImplemented if none is the user's."""
    ways = [(x, name, y), (y, reflected, x)]
    if not any(method(owner, special) for owner, special, _ in ways):
        return NotImplemented
    if type(x) is type(y) and name != reflected:
        ways.pop()
    elif type(x) is not type(y) and issubclass(type(y), type(x)):
        ways.reverse()
    for owner, special, other in ways:
        run = method(owner, special)
        if run is None and isinstance(owner, _NUMBERS):
            run = getattr(owner, special, None)
        found = NotImplemented if run is None else run(other)
        if found is not NotImplemented:
            return found
    return NotImplemented


def unary(op: str, x: Any) -> Any:
    x = held(x)
    if isinstance(x, Choice):
        return switch()(x, functools.partial(unary, op))
    run = method(x, f"__{op}__")
    return note_fresh(UNARY[op](x)) if run is None else run()


def in_place(op: str, x: Any, y: Any) -> Any:
    """What ``x op= y`` assigns to x."""
    if type(x) not in PLAIN or type(y) not in PLAIN:
        x, y = held(x), held(y)
        if isinstance(x, Choice) or isinstance(y, Choice):
            return binary(op, x, y)
        name = op.rstrip("_")
        run = method(x, f"__i{name}__")
        found = NotImplemented if run is None else run(y)
        if found is NotImplemented and (run or isinstance(x, Array) or not hasattr(x, f"__i{name}__")):
            found = dispatched(f"__{name}__", x, f"__r{name}__", y)
        if found is not NotImplemented:
            return found
    return IN_PLACE[op](x, y)


# -- truth, iteration ----------------------------------------------------------------------------------------------


def truth_value(x: Any) -> Any:
    """What a condition looks at: ``x``, or for an object of the user's what its ``__bool__`` or ``__len__`` says."""
    if type(x) in PLAIN:
        return x if earlier.earlier(x) is None else earlier.length(x) > 0
    if isinstance(x, Optional):
        from dflow.tracing.control.logic import and_, test

        return and_(lambda: x.present, lambda: test(x.value))
    if isinstance(x, Choice):
        from dflow.tracing.control.logic import test
        from dflow.tracing.control.switch import asked

        return asked(x, test)
    run = method(x, "__bool__") or method(x, "__len__")
    return x if run is None else run()


def iterated(x: Any) -> Any:
    """``x``, or for an object of the user's what its ``__iter__`` gives."""
    x = earlier.plain(held(x))
    run = method(x, "__iter__")
    if run is not None:
        x = run()
    step = method(x, "__next__")
    if step is None and isinstance(x, Iterator) and tracing():
        take_from(x)
    return x if step is None else _stepped(step)


def _stepped(step: Callable[[], Any]) -> Iterator[Any]:
    while True:
        try:
            yield step()
        except StopIteration:
            return


def managed(x: Any) -> Any:
    """``x`` in a ``with`` statement."""
    return x if method(x, "__enter__") is None else _Managed(x)


class _Managed:
    """A context manager of the user's, its methods run rewritten."""

    def __init__(self, x: Any):
        self.inner = x

    def __enter__(self) -> Any:
        run = method(self.inner, "__enter__")
        assert run is not None
        return run()

    def __exit__(self, *error: Any) -> Any:
        run = method(self.inner, "__exit__")
        return None if run is None else run(*error)


# -- attributes ----------------------------------------------------------------------------------------------------


def attribute(x: Any, name: str) -> Any:
    """``x.name``, the getter of a property run rewritten."""
    x = held(x)
    if isinstance(x, Choice):
        return switch()(x, functools.partial(_attribute_of, name))
    cls = type(x)
    if isinstance(x, type) and isinstance(_in_classes(x.__mro__, name), functools.singledispatchmethod):
        return functools.partial(_run_by_type, _in_classes(x.__mro__, name), None, x)
    if cls in PLAIN or cls is types.ModuleType or isinstance(x, type):
        return stands_for(x) if name == "__class__" and isinstance(x, Array) else getattr(x, name)
    owner, classes = x, cls.__mro__
    if isinstance(x, super):
        owner, every = x.__self__, x.__self_class__.__mro__  # type: ignore[attr-defined]
        classes = every[every.index(x.__thisclass__) + 1 :]  # type: ignore[attr-defined]
    found = _in_classes(classes, name)
    if isinstance(found, property) and _is_users(found.fget):
        return rewritten(found.fget)(owner)  # type: ignore[arg-type]
    if isinstance(found, functools.singledispatchmethod):
        return functools.partial(_run_by_type, found, x, cls)
    if isinstance(found, functools.cached_property) and _is_users(found.func):
        if name not in x.__dict__:
            x.__dict__[name] = rewritten(found.func)(x)  # type: ignore[arg-type]
        return x.__dict__[name]
    fallback = method(x, "__getattr__")
    if fallback is None:
        return load(getattr(x, name))
    try:
        return object.__getattribute__(x, name)
    except AttributeError:
        return fallback(name)


def _attribute_of(name: str, option: Any) -> Any:
    return attribute(option, name)


def _run_by_type(found: Any, x: Any, cls: type, *args: Any, **kwargs: Any) -> Any:
    """A method that is chosen by the class of its first argument, which a traced one only stands for."""
    first = held(args[0])
    if isinstance(first, Choice):
        return switch()(first, functools.partial(_run_with, found, x, cls, args[1:], kwargs))
    kind = stands_for(first) if isinstance(first, Array) else type(first)
    run: Any = found.dispatcher.dispatch(kind).__get__(x, cls)
    if isinstance(run, types.MethodType):
        run, args = run.__func__, (run.__self__, *args)
    return rewritten(run)(*args, **kwargs)


def _run_with(found: Any, x: Any, cls: type, args: Any, kwargs: Any, option: Any) -> Any:
    return _run_by_type(found, x, cls, option, *args, **kwargs)


def set_attribute(value: Any, x: Any, name: str) -> None:
    """``x.name = value``, the setter of a property run rewritten."""
    x = held(x)
    note_fresh(None)
    if isinstance(x, Choice):
        switch()(x, functools.partial(_set_attribute_of, value, name))
        return
    _refuse_outside(x, name, value)
    found = _in_classes(type(x).__mro__, name) if type(x) not in PLAIN else None
    if isinstance(found, property) and _is_users(found.fset):
        rewritten(found.fset)(x, value)  # type: ignore[arg-type]
        return
    run = method(x, "__setattr__")
    if run is None:
        refuse_unfollowed(x)
        setattr(x, name, value)
    else:
        run(name, value)


def _set_attribute_of(value: Any, name: str, option: Any) -> None:
    set_attribute(value, option, name)


def _refuse_outside(x: Any, name: str, value: Any) -> None:
    """What is made outside would be changed once, while tracing; but a table may be filled with what is known."""
    if not tracing() or isinstance(x, Array):
        return
    if isinstance(x, type | types.ModuleType | types.FunctionType) or (
        x in region().root().outside and (contains_traced(value) or name in parts(x))
    ):
        raise outside_change(x, Place(x, name).name)


def refuse_unfollowed(x: Any) -> None:
    """A block that is traced stands for many runs of it: what it changes must be of a kind that is followed.

    What stands in a list or dict is, but not attributes that a class derived from them adds.
    """
    if not tracing() or region().kind == TRACE or isinstance(x, Array | BaseException):
        return
    container = isinstance(x, list | dict | set | deque)
    items = type(x).__setattr__ is not object.__setattr__ or getattr(x, "__dict__", None) is x
    if not (items if container else is_record(x)):
        raise failure(
            OnceError,
            f"a {type(x).__name__} is changed in a loop or branch that is traced, where that would happen once only",
            mend="use a list, a dict, an array, or a class of your own",
        )


def _in_classes(classes: tuple[type, ...], name: str) -> Any:
    for c in classes:
        if name in c.__dict__:
            return c.__dict__[name]
    return None


def _is_users(function: Any) -> bool:
    return isinstance(function, types.FunctionType) and is_user_code(function)
