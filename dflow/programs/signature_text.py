"""Signatures as text: ``"f64[21, 2], f32, int"`` gives the types of the arguments of a function.

    signature = [ type { "," type } ] ;
    type      = "float" | "int"                               (* a Python number *)
              | dtype [ "[" size { "," size } "]" ] ;         (* a NumPy scalar or array *)

Types are written as in the IR. A Python number does not widen what it meets: ``f32[3]`` times ``float`` is ``f32[3]``,
times ``f64`` it is ``f64[3]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from dflow.ir.types import DTYPES, dtype_of

NUMBERS: dict[str, Any] = {"float": 0.0, "int": 0}
NAMES = tuple(name for name, d in DTYPES.items() if d.kind != "c")
_TOKENS = re.compile(r"\s*(?:(?P<word>[A-Za-z_]\w*)|(?P<size>[0-9]+)|(?P<mark>[\[\],])|(?P<other>\S))")


class SignatureError(ValueError):
    """The text is no signature. The message shows the place."""

    def __init__(self, text: str, position: int, reason: str):
        super().__init__(f"signature: {reason}\n  {text}\n  {' ' * position}^")


def parse_signature(text: str) -> tuple[Any, ...]:
    """Example arguments of the types in ``text``; the arrays are zero and take no memory. Raises SignatureError."""
    return tuple(_Parser(text.strip()).arguments())


class _Parser:
    def __init__(self, text: str):
        self.text = text
        found = [m for m in _TOKENS.finditer(text) if m.lastgroup]
        self.tokens = [(str(m.lastgroup), m.group(str(m.lastgroup)), m.start(str(m.lastgroup))) for m in found]
        self.tokens.append(("end", "", len(text)))
        self.at = 0

    def arguments(self) -> Iterator[Any]:
        if self.tokens[0][0] == "end":
            return
        yield self.argument()
        while self.accept(","):
            yield self.argument()
        if self.tokens[self.at][0] != "end":
            self.fail("expected a comma or the end")

    def argument(self) -> Any:
        kind, name, _ = self.tokens[self.at]
        if kind == "other" and name in "{(":
            self.fail(
                "a signature holds numbers and arrays only; for dicts, tuples and other trees pass example arguments "
                "to dflow.compile_library"
            )
        if kind != "word":
            self.fail("expected a type, such as f64, f32[3] or float")
        if name not in NUMBERS and name not in NAMES:
            self.fail(f"unknown type {name}{_advice(name)}; known are {', '.join((*NAMES, *NUMBERS))}")
        self.at += 1
        if name in NUMBERS:
            if self.tokens[self.at][1] == "[":
                self.fail(f"{name} is a Python number; an array of such is {'f64' if name == 'float' else 'i64'}[...]")
            return NUMBERS[name]
        dtype = DTYPES[name].numpy
        return np.broadcast_to(np.zeros((), dtype), self.shape()) if self.tokens[self.at][1] == "[" else dtype.type(0)

    def shape(self) -> tuple[int, ...]:
        self.accept("[")
        sizes = [self.size()]
        while self.accept(","):
            sizes.append(self.size())
        if not self.accept("]"):
            self.fail("expected a comma or ]")
        return tuple(sizes)

    def size(self) -> int:
        kind, text, _ = self.tokens[self.at]
        if kind != "size":
            self.fail("expected a size, a number such as 3: machine code is made for fixed shapes")
        self.at += 1
        return int(text)

    def accept(self, mark: str) -> bool:
        found = self.tokens[self.at][1] == mark
        self.at += found
        return found

    def fail(self, reason: str) -> NoReturn:
        raise SignatureError(self.text, self.tokens[self.at][2], reason)


def _advice(name: str) -> str:
    """What the user may have meant: NumPy's name of a type."""
    if name == "bfloat16":
        return " (write bf16)"
    try:
        dtype = dtype_of(name)
    except TypeError:
        return ""
    return f" (write {dtype})" if dtype.name in NAMES else " (complex arguments are not supported)"
