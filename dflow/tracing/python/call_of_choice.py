"""Calls of functions that are chosen when the program runs, and with arguments that are."""

from __future__ import annotations

from typing import Any


def call_option(args: Any, kwargs: Any, option: Any) -> Any:
    return _call()(option, *args, **kwargs)


def call_with(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], at: int | str, option: Any) -> Any:
    """The call with ``option`` in the place of one argument."""
    if isinstance(at, str):
        return _call()(function, *args, **{**kwargs, at: option})
    return _call()(function, *args[:at], option, *args[at + 1 :], **kwargs)


ANSWERED = (isinstance, issubclass, hasattr, callable)


def _call() -> Any:
    from dflow.tracing.python.calls import call

    return call
