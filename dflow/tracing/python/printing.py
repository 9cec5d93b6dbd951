"""``print`` and ``warnings.warn`` of traced values: texts with traced values in them, and the operations that write
them."""

from __future__ import annotations

import builtins
import dataclasses
import functools
import sys
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from dflow.errors import NeedsStatic, TraceError, failure
from dflow.ir.core import Value
from dflow.ir.types import I64, kind_of
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import convert
from dflow.tracing.context import builder, tracing
from dflow.tracing.control.state import flatten, unflatten
from dflow.tracing.python.choice import Choice
from dflow.tracing.python.optional import Optional, held, settled
from dflow.tracing.python.special_methods import method

Hole = tuple[Array | Optional, str, str]  # a value with its conversion ("", "r" or "s") and its format


class Text:
    """A text in which traced values stand, as f-strings, ``str``, ``repr`` and ``format`` make it, to be printed."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[str | Hole]):
        self.parts = parts

    def __str__(self) -> str:
        return "".join(p if isinstance(p, str) else repr(p[0]) for p in self.parts)

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __add__(self, other: Any) -> Text:
        return Text([*self.parts, *pieces(other)])

    def __radd__(self, other: Any) -> Text:
        return Text([*pieces(other), *self.parts])

    def __hash__(self) -> int:
        raise self._refused("used as a key")

    def __eq__(self, other: object) -> bool:
        raise self._refused("compared")

    def __float__(self) -> float:
        raise self._refused("made a number")

    def __int__(self) -> int:
        raise self._refused("made a number")

    def __bool__(self) -> bool:
        return True  # a traced value shows as something

    def __len__(self) -> int:
        raise self._refused("measured")

    def __getitem__(self, index: Any) -> Any:
        raise self._refused("cut")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._refused(f"asked for .{name}")

    def _refused(self, what: str) -> Exception:
        return failure(
            NeedsStatic,
            f"a text is {what} that is known only when the program runs",
            seen=str(self),
            mend="print it, or make texts of results outside of the traced function",
        )


class _Mark:
    """Stands for a traced value in an object that is shown."""

    def __init__(self, k: int):
        self.k = k

    def __repr__(self) -> str:
        return f"\0{self.k}\0"

    def __format__(self, spec: str) -> str:
        return f"\0{self.k}\1{spec}\0"


def pieces(value: Any, conversion: str = "", spec: str = "") -> list[str | Hole]:
    """What an object shows as: text, and traced values in it."""
    value = held(value) if spec else settled(value)  # None has no formats
    if isinstance(value, Optional):
        return [(value, conversion, spec)]
    if isinstance(value, Text):
        if spec:
            raise value._refused("padded")
        return value.parts
    if isinstance(value, Array):
        return [(value, conversion, spec)]
    own = _own_text(value, conversion, spec)
    if own is not None:
        return pieces(own, "", "" if conversion or not spec else spec if isinstance(own, str) else "")
    leaves, structure = flatten(value)
    if not any(isinstance(x, _SHOWN) for x in leaves):
        return [format(repr(value) if conversion == "r" else str(value) if conversion == "s" else value, spec)]
    marked = unflatten(structure, [_Mark(k) if isinstance(x, _SHOWN) else x for k, x in enumerate(leaves)])
    texts = (repr(marked) if conversion == "r" else str(marked)).split("\0")
    return [_hole_of(leaves, t) if k % 2 else t for k, t in enumerate(texts)]


_SHOWN = Array | Optional


def _hole_of(leaves: list[Any], mark: str) -> Hole:
    k, _, spec = mark.partition("\1")
    return leaves[int(k)], "" if spec else "r", spec


def shows_traced(x: Any) -> bool:
    """Whether a text of ``x`` is known only when the program runs."""
    return isinstance(x, Text) or any(isinstance(leaf, _SHOWN | Text) for leaf in flatten(x)[0])


def _own_text(x: Any, conversion: str, spec: str) -> Any:
    """What the user's class says of an object with traced values; None where it says nothing."""
    if isinstance(x, str) or not any(isinstance(leaf, _SHOWN) for leaf in flatten(x)[0]):
        return None
    names = ["__repr__"] if conversion == "r" else ["__str__", "__repr__"]
    for name in ["__format__", *names] if spec and not conversion else names:
        own = getattr(type(x), name, None)
        made = isinstance(own, FunctionType) and own.__code__.co_filename in ("<string>", dataclasses.__file__)
        run = None if made else method(x, name)
        if run is not None:
            return run(spec) if name == "__format__" else run()
        if made:
            return None
    return None


def joined(*parts: Any) -> Any:
    """An f-string: texts, and (value, conversion, format)."""
    made: list[str | Hole] = []
    for k, p in enumerate(parts):
        if not isinstance(p, str) and isinstance(p[0], Choice):
            from dflow.tracing.control.switch import switch

            return switch(p[0], functools.partial(_joined_with, parts, k))
        made += [p] if isinstance(p, str) else pieces(p[0], p[1], str(p[2]))
    return Text(made) if any(not isinstance(p, str) for p in made) else "".join(made)  # type: ignore[arg-type]


def _joined_with(parts: tuple[Any, ...], k: int, option: Any) -> Any:
    return joined(*parts[:k], (option, *parts[k][1:]), *parts[k + 1 :])


MOST_DETAILS = 3  # values in the message of a check


def message_of(text: Any, value: Callable[[Array], Value | None] | None = None) -> tuple[str, list[Value]]:
    """The message of a check and its details: the first numbers in a text that have a ``value`` where the check stands;
    others show as their types."""
    value = value or bits
    text = repr(text) if isinstance(text, Choice) else text
    made = ""
    details: list[Value] = []
    for p in pieces(text):
        if isinstance(p, str):
            made += _escaped(p)
            continue
        x, conversion, spec = p
        found = value(x) if isinstance(x, Array) and _is_detail(x) and len(details) < MOST_DETAILS else None
        if found is None:
            made += _escaped(repr(x))
        else:
            made += f"{{{len(details)}:{_kind(x)}{conversion}|{spec}}}"
            details.append(found)
    return made, details


def _is_detail(x: Array) -> bool:
    return not x.ndim and kind_of(x.dtype) in "fiub"


def _kind(x: Any) -> str:
    kind = kind_of(x.dtype)
    return "b" if kind == "b" else ("f" if x.weak else "d") if kind == "f" else "i" if x.weak else "l"


def bits(x: Array) -> Value:
    """A number as a detail of a check."""
    if kind_of(x.dtype) == "f":
        return builder().bitcast(convert(x.value, np.float64), dtype=I64)
    return convert(x.value, np.int64)


def str_(*args: Any, **kwargs: Any) -> Any:
    return joined((args[0], "s", "")) if len(args) == 1 and not kwargs else str(*args, **kwargs)


def repr_(x: Any) -> Any:
    return joined((x, "r", ""))


def format_(x: Any, spec: str = "") -> Any:
    return joined((x, "", spec))


def print(*values: Any, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False) -> None:
    """Python's ``print``; in a compiled function it writes when the program runs, in the order of the program.

    Traced values may stand in the arguments, in containers and objects, and in f-strings with formats. Under a
    derivative each text is written once. In a trace ``file`` must be the standard output.
    """
    if not tracing():
        builtins.print(*values, sep=sep, end=end, file=file, flush=flush)
        return
    if file is not None and file is not sys.stdout:
        raise failure(
            TraceError, "a traced function prints to a file", mend="leave `file` out, or print the result outside"
        )
    text: list[str | Hole] = []
    for k, v in enumerate(values):
        text += [" " if sep is None else sep] if k else []
        text += pieces(v, "" if isinstance(v, Array) else "s")
    text.append("\n" if end is None else end)
    _write("print", text)


def warn(message: Any, category: Any = None, *args: Any, **kwargs: Any) -> None:
    """Python's ``warnings.warn``: in a compiled function a warning is given when the program comes there."""
    if not tracing():
        warnings.warn(message, category, *args, **kwargs)
        return
    kind = type(message) if isinstance(message, Warning) else category or UserWarning
    loc = builder().loc
    place = f"{loc.file}:{loc.line}" if loc else "dflow:1"
    _write("warn", pieces(message, "s"), category=f"{kind.__module__}:{kind.__qualname__}", place=place)


def _write(operation: str, text: list[str | Hole], **attrs: str) -> None:
    for k, p in enumerate(text):
        if not isinstance(p, str) and isinstance(p[0], Optional):
            return _write_either(p[0], [text[:k], pieces(p[0].value, *p[1:]), text[k + 1 :]], operation, attrs)
    holes = [p for p in text if not isinstance(p, str)]
    numbers = iter(range(len(holes)))
    template = "".join(_escaped(p) if isinstance(p, str) else _hole(next(numbers), p) for p in text)
    python = tuple(a.weak for a, _, _ in holes)
    operands = [a.value for a, _, _ in holes]
    builder().append(operation, operands, {"format": template, "python": python, **attrs})


def _write_either(x: Optional, parts: list[list[str | Hole]], operation: str, attrs: dict[str, str]) -> None:
    """A text, ``parts`` one after the other, of which the second is how ``x`` shows when it is not None."""
    from dflow.tracing.control.branches import choose

    before, shown, after = parts
    choose(
        x.present,
        lambda: _write(operation, [*before, *shown, *after], **attrs),
        lambda: _write(operation, [*before, "None", *after], **attrs),
    )


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _hole(k: int, hole: Hole) -> str:
    _, conversion, spec = hole
    return "{" + str(k) + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
