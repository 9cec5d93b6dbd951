"""Values that may be None: which of the two they are is known only when the program runs.

An ``if`` of which one branch leaves None in a variable and the other a value makes an ``Optional`` of them, and so does
a loop whose variable is None at first. ``x is None`` asks it; whatever else is done with it is done with the value,
behind a check that there is one, which costs nothing where the program has asked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dflow.errors import DflowError, UndefinedError, failure
from dflow.ir.core import Location
from dflow.tracing.context import builder, region
from dflow.tracing.python.reading import gives_operators


class Optional:
    """None, or ``value``, if ``present`` (a traced bool, or a known one) holds; else ``value`` is anything."""

    __slots__ = ("location", "present", "reason", "value")

    present: Any
    value: Any
    reason: str  # what may be None, and why, for messages
    location: Location | None

    def __init__(self, present: Any, value: Any, reason: str, location: Location | None):
        for name, x in (("present", present), ("value", value), ("reason", reason), ("location", location)):
            object.__setattr__(self, name, x)

    def like(self, present: Any, value: Any) -> Optional:
        return Optional(present, value, self.reason, self.location)

    def get(self) -> Any:
        """The value, and a check that there is one when the program runs."""
        if settled(self) is not self.value:
            holds = builder().constant(self.present) if isinstance(self.present, bool) else self.present.value
            message = f"{self.reason}, and is None where it is used; ask whether it `is None` before"
            builder().check(holds, error="TypeError", message=message)
        return self.value

    def refused(self) -> DflowError:
        """Where it is wanted while tracing whether there is a value."""
        return failure(
            UndefinedError,
            f"the result may be None: {self.reason}",
            wanted="a number or an array, whatever the arguments are",
            mend="return a number in every case (np.nan, say), or a flag and a number",
            location=self.location,
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.get(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.get(), name, value)

    def __eq__(self, other: Any) -> Any:
        return _equality("eq", self, other)

    def __ne__(self, other: Any) -> Any:
        return _equality("ne", self, other)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.get()(*args, **kwargs)

    def __repr__(self) -> str:
        return f"None or {self.value!r}"

    __hash__ = object.__hash__


def settled(x: Any) -> Any:
    """What may be None as the value or None, if it is known here which of them it is; other values as they are."""
    if not isinstance(x, Optional):
        return x
    known = (x.present, x.present) if isinstance(x.present, bool) else region().known.interval(x.present.value)
    return x.value if known[0] >= 1 else None if known[1] <= 0 else x


def held(x: Any) -> Any:
    """The value of what may be None, which it must not be when the program runs; other values as they are."""
    while isinstance(x, Optional):
        x = x.get()
    return x


def all_held(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments for a function that knows nothing of values that may be None."""
    return tuple(map(_held_within, args)), {k: _held_within(v) for k, v in kwargs.items()}


def _held_within(x: Any) -> Any:
    if type(x) in (list, tuple) and any(isinstance(i, Optional | list | tuple) for i in x):
        return type(x)(map(_held_within, x))
    return held(x)


def _equality(name: str, x: Any, other: Any) -> Any:
    """Of None, too: nothing is checked."""
    from dflow.tracing.control.logic import comparison

    return comparison(name, x, other)


gives_operators(Optional, held, but=("eq", "ne", "str", "format"))
