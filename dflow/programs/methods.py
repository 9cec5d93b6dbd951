"""Compiled functions bound to an instance, as ``model.loss`` of a class whose ``loss`` is compiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from dflow import trees
from dflow.tracing.source.rewrite import is_user_code


class Method:
    """A callable object that is bound to the instance when it is found in a class, as a function is."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        trees.register_attributes(type(instance))
        return MethodType(self, instance)  # type: ignore[arg-type]


class BoundMethod:
    """What ``instance.method`` is for a compiled method: its attributes are those of the function, and ``lower`` knows
    the instance."""

    __slots__ = ("__func__", "__self__", "__weakref__")

    def __init__(self, function: Any, instance: Any):
        self.__func__, self.__self__ = function, instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__func__(self.__self__, *args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """The stages of the program for these arguments, without running it."""
        return self.__func__.lower(self.__self__, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__func__, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundMethod) and self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))

    def __reduce__(self) -> Any:
        return _bound, (self.__func__, self.__self__)

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r} of {self.__self__!r}>"


def _bound(function: Any, instance: Any) -> Any:
    return function.__get__(instance)


def taken_apart(function: Any) -> tuple[Any, Any] | None:
    """The plain function and the instance of a bound method, or of an object that can be called; None for others."""
    if isinstance(function, MethodType | BoundMethod):
        return function.__func__, function.__self__
    call = inspect.getattr_static(type(function), "__call__", None)
    if isinstance(call, FunctionType) and is_user_code(call):
        return call, function
    return None


def decorated(function: Any, transform: Callable[[Any], Any]) -> Any:
    """``transform`` of a static or class method, which it goes around, below the other decorator; None for others."""
    return type(function)(transform(function.__func__)) if isinstance(function, staticmethod | classmethod) else None


def after_self(argnums: Any) -> Any:
    """Positions of arguments of a method as those of its function, which takes the instance first."""
    if isinstance(argnums, int):
        return argnums + 1 if argnums >= 0 else argnums
    return argnums if argnums is None else tuple(map(after_self, argnums))
