"""The text format: a function as lines that ``dflow.ir.parser`` reads back. ``docs/ir.md`` has the grammar.

Every value gets a name of its own in the whole function: its hint, with a number behind it when the hint is taken, or a
number. Names are given where values are defined, so printing what was parsed gives the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.ir.core import Block, Function, Location, Module, Op, Value
from dflow.ir.rules import Rule
from dflow.ir.types import DType, Size, TensorType, type_of_array

# Attributes that repeat the result annotation, which is printed in their place.
ANNOTATED = dict.fromkeys(("constant", "empty", "sequence", "tape"), "type") | dict.fromkeys(
    ("call", "reverse_only"), "types"
)
MANY = 1000  # elements of an array from which on it may be abbreviated, as NumPy does
EDGE = 3  # of which these are shown at either end of each axis
# The word before the second region.
SECOND_REGION = {"if": "else", "while": "do"}

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def print_function(f: Function, locations: bool = False, full: bool = True) -> str:
    """The text of a function, without a final newline. ``locations`` adds source lines (``@ "model.py":12``). If it is
    not ``full``, arrays of more than a thousand elements are abbreviated, so that the text does not parse."""
    return "\n".join(Printer(f, locations, full).lines)


def print_module(m: Module, locations: bool = False) -> str:
    """The text of all functions of a module, the entry first."""
    return "\n\n".join(print_function(f, locations) for f in m.functions.values()) + "\n"


class Printer:
    """Prints one function into ``lines``; ``line_of`` tells where each operation and each block's ``yield`` stands."""

    def __init__(self, f: Function, locations: bool = False, full: bool = True):
        self.locations, self.full = locations, full
        self.lines: list[str] = [""]
        self.line_of: dict[Op | Block | Function, int] = {f: 0}
        self.names: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._count = 0
        self._function(f)

    # -- names and types -------------------------------------------------------------------------------------------

    def name(self, v: Value) -> str:
        """The name of a value; one that is used and not defined (which the verifier reports) ends in ``?``."""
        return self.names.get(v) or f"%{_identifier(v.hint or '')}?"

    def _define(self, values: Sequence[Value]) -> None:
        for v in values:
            if v not in self.names:
                self.names[v] = f"%{self._unique(_identifier(v.hint)) if v.hint else self._number()}"

    def _number(self) -> str:
        self._count += 1
        return str(self._count - 1)

    def _unique(self, name: str) -> str:
        candidate, n = name, 0
        while candidate in self._taken:
            n += 1
            candidate = f"{name}_{n}"
        self._taken.add(candidate)
        return candidate

    def type(self, t: TensorType) -> str:
        return t.dtype.name if t.is_scalar else f"{t.dtype.name}[{self._sizes(t.shape)}]"

    def types(self, values: Sequence[Value]) -> str:
        return ", ".join(self.type(v.type) for v in values)

    def _sizes(self, shape: Sequence[Any]) -> str:
        return ", ".join(self.attribute(d) for d in shape)

    def operands(self, values: Sequence[Value]) -> str:
        return ", ".join(self.name(v) for v in values)

    # -- attributes ------------------------------------------------------------------------------------------------

    def attribute(self, a: Any) -> str:
        """An attribute as a literal. What has none is shown by its ``repr``, which does not parse."""
        if isinstance(a, np.generic):
            a = a.item()
        if isinstance(a, Size):
            return f"{self.name(a.value)}<={a.bound}"
        if isinstance(a, TensorType):
            return f"{a.dtype.name}[{self._sizes(a.shape)}]"  # `f64[]`, for `f64` is a dtype
        if isinstance(a, Rule):
            return _symbol(a.name)
        if isinstance(a, tuple):
            return f"({', '.join(map(self.attribute, a))}{',' if len(a) == 1 else ''})"
        if isinstance(a, np.ndarray):
            return f"array({self.attribute(type_of_array(a))}, {self._elements(a)})"
        return _literal(a)

    def attributes(self, op: Op) -> str:
        attrs = dict(op.attrs)
        annotated = ANNOTATED.get(op.name, "")
        if annotated in attrs and attrs[annotated] == _annotation(op, annotated):
            del attrs[annotated]
        items = [f"{k} = {self._value(op, a) if k == 'value' else self.attribute(a)}" for k, a in attrs.items()]
        return f" {{{', '.join(items)}}}" if items else ""

    def _value(self, op: Op, a: Any) -> str:
        """The value of a constant: its annotation says the type, so nested lists suffice."""
        typed = op.name == "constant" and isinstance(a, np.ndarray) and type_of_array(a) == op.attrs.get("type")
        return self._elements(a) if typed else self.attribute(a)

    def _elements(self, a: np.ndarray[Any, Any]) -> str:
        return _literal(a.tolist()) if self.full or a.size <= MANY else _abbreviated(a)

    # -- structure -------------------------------------------------------------------------------------------------

    def _function(self, f: Function) -> None:
        self._define(f.args)
        self._block(f.body, "  ")
        # The types of the results may name values of the body, so the header is written when those have names.
        args = (f"{self.name(a)}: {'lin ' * (k in f.linear)}{self.type(a.type)}" for k, a in enumerate(f.args))
        header = f"func {_symbol(f.name)}({', '.join(args)}) -> ({self.types(f.results)})"
        self.lines[0] = f"{header}{self._location(f.loc)} {{"
        self._end(f.body, "  return")
        self.lines.append("}")

    def _block(self, block: Block, indent: str) -> None:
        for op in block.ops:
            self._op(op, indent)

    def _end(self, block: Block, text: str) -> None:
        self.line_of[block] = len(self.lines)
        self.lines.append(f"{text} {self.operands(block.results)}".rstrip())

    def _op(self, op: Op, indent: str) -> None:
        self._define(op.results)
        head = f"{self.operands(op.results)} = {op.name}" if op.results else op.name
        operands = f" {self.operands(op.operands)}" if op.operands else ""
        self.line_of[op] = len(self.lines)
        self.lines.append(f"{indent}{head}{operands}{self.attributes(op)}")
        for k, region in enumerate(op.regions):
            self._region(op, k, region, indent)
        annotation = f" : {self.types(op.results)}" if op.results else ""
        self.lines[-1] += annotation + self._location(op.loc)

    def _region(self, op: Op, k: int, region: Block, indent: str) -> None:
        self._define(region.args)
        args = ", ".join(f"{self.name(a)}: {self.type(a.type)}" for a in region.args)
        word = f" {SECOND_REGION[op.name]}" if k and op.name in SECOND_REGION else ""
        self.lines[-1] += f"{word} {{{f' ({args})' if args else ''}"
        self._block(region, indent + "  ")
        self._end(region, f"{indent}  yield")
        self.lines.append(f"{indent}}}")

    def _location(self, loc: Location | None) -> str:
        return f"  @ {_place(loc)}" if self.locations and loc else ""


def _annotation(op: Op, attribute: str) -> Any:
    """What ``attribute`` is when it says the same as the result annotation."""
    types = tuple(r.type for r in op.results)
    return types if attribute == "types" else types[0] if len(types) == 1 else None


def _identifier(hint: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.]", "_", hint)
    return name if IDENTIFIER.fullmatch(name) else f"_{name}"


def _symbol(name: str) -> str:
    return f"@{name}" if IDENTIFIER.fullmatch(name) else f"@{json.dumps(name, ensure_ascii=False)}"


def _literal(a: Any) -> str:
    if isinstance(a, list):
        return f"[{', '.join(map(_literal, a))}]"
    if isinstance(a, str):
        return json.dumps(a, ensure_ascii=False)
    if isinstance(a, complex):
        return f"complex({a.real!r}, {a.imag!r})"
    if isinstance(a, DType):
        return a.name
    return repr(a)  # bool, int, float with nan and inf, None, the `*` of sequences


def _abbreviated(a: np.ndarray[Any, Any]) -> str:
    """The elements at the ends of each axis."""
    if not a.ndim:
        return _literal(a.item())
    parts = list(map(_abbreviated, a if len(a) <= 2 * EDGE else (*a[:EDGE], *a[-EDGE:])))
    if len(a) > 2 * EDGE:
        parts.insert(EDGE, "...")
    return f"[{', '.join(parts)}]"


def _place(loc: Location) -> str:
    text = f"{json.dumps(loc.file, ensure_ascii=False)}:{loc.line}"
    if loc.column or loc.end_column:
        text += f":{loc.column}:{loc.end_column}"
    if loc.function:
        text += f" in {json.dumps(loc.function, ensure_ascii=False)}"
    return f"{text} from {_place(loc.caller)}" if loc.caller else text
