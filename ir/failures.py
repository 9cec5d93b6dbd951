"""The errors that a check raises: their classes by name, and their messages with values in them.

A check names its error by the class: a builtin one, or one that a traced program has raised (``register``). In its
message ``{0}`` to ``{2}`` stand for its details, which are integers; ``{0:f|.3f}`` shows one that holds the bits of a
float.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

_BUILTIN = (
    IndexError,
    ValueError,
    AssertionError,
    ZeroDivisionError,
    UnboundLocalError,
    OverflowError,
    FloatingPointError,
    ArithmeticError,
    KeyError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    TimeoutError,
    OSError,
    MemoryError,
    Exception,
)
ERRORS: dict[str, type[Exception]] = {c.__name__: c for c in _BUILTIN} | {"LinAlgError": np.linalg.LinAlgError}
_registered: dict[str, type[Exception]] = {}


def register(cls: type[Exception]) -> str:
    """The name by which checks refer to a class."""
    if ERRORS.get(cls.__name__) is cls:
        return cls.__name__
    name = f"{cls.__module__}.{cls.__qualname__}"
    _registered[name] = cls
    return name


def error_class(name: str) -> type[Exception]:
    """The class of that name; RuntimeError for one that this process does not know, as of a text read from a file."""
    return ERRORS.get(name) or _registered.get(name, RuntimeError)


def is_error_name(name: str) -> bool:
    return name in ERRORS or "." in name


def made(name: str, message: str, details: Iterable[int] = ()) -> Exception:
    """The error of a check that failed. A class of the user's is made without its ``__init__``."""
    cls, text = error_class(name), described(message, details)
    error = cls.__new__(cls, text)
    error.args = (text,)  # which MemoryError leaves to its __init__
    return error


def described(message: str, details: Iterable[int]) -> str:
    return message.format(*map(Detail, details))


class Detail(int):
    """A detail of a check, which a format such as ``f|.3f`` shows as what it stands for.

    Before the bar: f and i for Python's numbers, d and l for NumPy's, b for a bool; then r for its ``repr``.
    """

    def __format__(self, spec: str) -> str:
        kind, bar, rest = spec.partition("|")
        if not bar:
            return int.__format__(self, spec)
        value = self._value(kind[0])
        return format(repr(value) if kind[1:] == "r" else value, rest)

    def _value(self, kind: str) -> object:
        if kind in "fd":
            number = struct.unpack("d", struct.pack("q", self))[0]
            return np.float64(number) if kind == "d" else number
        if kind == "b":
            return bool(self)
        return np.int64(self) if kind == "l" else int(self)
