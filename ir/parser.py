"""Reads the text format back: a lexer and a recursive descent over the grammar in ``docs/ir.md``.

The parser checks the syntax and that every name is defined before its use; ``dflow.ir.verifier`` checks the rest, so
that a wrong program can be written down and looked at. Names become hints, numbers do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np

from dflow.ir.core import Block, Function, Location, Module, Op, Value
from dflow.ir.printer import ANNOTATED, SECOND_REGION
from dflow.ir.rules import find_rule
from dflow.ir.types import DTYPES, F64, GROWS, Size, TensorType, scalar

T = TypeVar("T")

TOKENS = re.compile(
    r"""
    (?P<skip>   \s+ | \#[^\n]* )
  | (?P<value>  %(?:[A-Za-z_][A-Za-z0-9_.]*|[0-9]+) )
  | (?P<number> -?(?:inf\b|nan\b|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?) )
  | (?P<word>   [A-Za-z_][A-Za-z0-9_.]* )
  | (?P<string> "(?:[^"\\\n]|\\.)*" )
  | (?P<mark>   ->|<=|[@(){}\[\],:=*] )
    """,
    re.VERBOSE,
)
KINDS = {"value": "a value (%name)", "number": "a number", "word": "a name", "string": "a string", "end": "the end"}
CONSTANTS = {"True": True, "False": False, "None": None}
UNTYPED = scalar(F64)  # until the annotation is read


class ParseError(ValueError):
    """The text does not follow the grammar. Has ``line`` and ``column``, counted from 1."""

    def __init__(self, text: str, position: int, reason: str):
        before = text[:position]
        self.line = before.count("\n") + 1
        self.column = position - (before.rfind("\n") + 1) + 1
        self.reason = reason
        line = text.split("\n")[self.line - 1]
        super().__init__(f"line {self.line}, column {self.column}: {reason}\n  {line}\n  {' ' * (self.column - 1)}^")


def parse_module(text: str) -> Module:
    """The functions in ``text``, the first of which is the entry."""
    p = _Parser(text)
    functions: dict[str, Function] = {}
    while p.token.kind != "end":
        start = p.token
        f = p.function()
        if f.name in functions:
            p.fail(f"@{f.name} is defined a second time", start)
        functions[f.name] = f
    if not functions:
        p.fail("expected func")
    return Module(functions)


def parse_function(text: str) -> Function:
    """The one function in ``text``."""
    p = _Parser(text)
    f = p.function()
    if p.token.kind != "end":
        p.fail(f"expected the end after one function, found {p.token}")
    return f


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    position: int

    def __str__(self) -> str:
        return self.text if self.text else KINDS["end"]


def tokenize(text: str) -> list[Token]:
    tokens, position = [], 0
    while position < len(text):
        m = TOKENS.match(text, position)
        if m is None:
            raise ParseError(text, position, f"unexpected character {text[position]!r}")
        if m.lastgroup != "skip":
            tokens.append(Token(str(m.lastgroup), m.group(), position))
        position = m.end()
    return [*tokens, Token("end", "", position)]


class _Parser:
    def __init__(self, text: str):
        self.text = text
        self.tokens = tokenize(text)
        self.at = 0
        self.scope: dict[str, Value] = {}
        # While a list of arguments is read, sizes may name arguments that stand further on.
        self.forward: dict[str, Token] | None = None

    # -- tokens --------------------------------------------------------------------------------------------------

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def fail(self, reason: str, token: Token | None = None) -> NoReturn:
        raise ParseError(self.text, (token or self.token).position, reason)

    def sees(self, *texts: str) -> bool:
        """Whether these tokens come next."""
        return [t.text for t in self.tokens[self.at : self.at + len(texts)]] == list(texts)

    def accept(self, text: str) -> bool:
        if not self.sees(text):
            return False
        self.at += 1
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}, found {self.token}")

    def take(self, kind: str, what: str | None = None) -> Token:
        token = self.token
        if token.kind != kind:
            self.fail(f"expected {what or KINDS[kind]}, found {token}")
        self.at += 1
        return token

    def listed(self, item: Callable[[], T], close: str) -> list[T]:
        """Items with commas between them (and one after the last, if you like), up to ``close``."""
        items = []
        while not self.accept(close):
            items.append(item())
            if not self.sees(close):
                self.expect(",")
        return items

    def string(self) -> str:
        token = self.take("string")
        try:
            return json.loads(token.text)
        except ValueError:
            self.fail("this string has an escape that JSON does not know", token)

    def symbol(self) -> str:
        """A name after ``@``."""
        return self.string() if self.token.kind == "string" else self.take("word").text

    def integer(self) -> int:
        token = self.take("number", "an integer")
        if not re.fullmatch(r"-?[0-9]+", token.text):
            self.fail(f"expected an integer, found {token}", token)
        return int(token.text)

    # -- values --------------------------------------------------------------------------------------------------

    def define(self, token: Token) -> Value:
        name = token.text
        if self.forward is not None and self.forward.pop(name, False):
            return self.scope[name]
        if name in self.scope:
            self.fail(f"{name} is defined a second time", token)
        value = self.scope[name] = Value(UNTYPED, None if name[1].isdigit() else name[1:])
        return value

    def use(self) -> Value:
        token = self.take("value")
        if token.text not in self.scope:
            if self.forward is None:
                self.fail(f"{token} is not defined here", token)
            self.define(token)
            self.forward[token.text] = token
        return self.scope[token.text]

    def uses(self) -> list[Value]:
        values = []
        if self.token.kind == "value":
            values.append(self.use())
            while self.accept(","):
                values.append(self.use())
        return values

    # -- types and attributes ------------------------------------------------------------------------------------

    def type(self) -> TensorType:
        token = self.take("word", "a type")
        if token.text not in DTYPES:
            self.fail(f"expected a type, found {token}; the element types are {', '.join(DTYPES)}", token)
        return TensorType(DTYPES[token.text], tuple(self.listed(self.size, "]")) if self.accept("[") else ())

    def size(self) -> Any:
        if self.accept("*"):
            return GROWS
        if self.token.kind != "value":
            return self.integer()
        value = self.use()
        self.expect("<=")
        return Size(value, self.integer())

    def attributes(self) -> dict[str, tuple[Any, Token]]:
        """Each attribute with the token where its value starts."""
        attrs: dict[str, tuple[Any, Token]] = {}

        def item() -> None:
            name = self.take("word", "the name of an attribute")
            if name.text in attrs:
                self.fail(f"attribute {name} is given a second time", name)
            self.expect("=")
            start = self.token
            attrs[name.text] = (self.attribute(), start)

        if self.sees("{") and self.tokens[self.at + 1].kind == "word" and self.tokens[self.at + 2].text == "=":
            self.expect("{")
            self.listed(item, "}")
        return attrs

    def attribute(self) -> Any:
        token = self.token
        if token.kind == "string":
            return self.string()
        if token.kind == "number":
            return self.number()
        if token.kind == "value" or token.text == "*":
            return self.size()
        if self.accept("("):
            return tuple(self.listed(self.attribute, ")"))
        if self.accept("["):
            return self.listed(self.attribute, "]")
        if self.accept("@"):
            return find_rule(self.symbol())
        return self.word()

    def number(self) -> int | float:
        text = self.take("number").text
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else float(text)

    def word(self) -> Any:
        """What starts with a name: True, False, None, a dtype, a type, ``complex(re, im)``, ``array(type, [...])``."""
        token = self.take("word", "the value of an attribute")
        if token.text in CONSTANTS:
            return CONSTANTS[token.text]
        if token.text in DTYPES:
            if not self.sees("["):
                return DTYPES[token.text]
            self.at -= 1
            return self.type()
        if token.text == "complex":
            self.expect("(")
            parts = self.listed(self.number, ")")
            if len(parts) != 2:
                self.fail("expected complex(real, imaginary)", token)
            return complex(*parts)
        if token.text == "array":
            self.expect("(")
            t = self.type()
            self.expect(",")
            start = self.token
            array = self.array(self.attribute(), t, start)
            self.expect(")")
            return array
        self.fail(f"expected the value of an attribute, found {token}", token)

    def array(self, value: Any, t: TensorType, start: Token) -> Any:
        """A literal as what a constant of type ``t`` holds: a Python scalar, or an array."""
        try:
            found = np.asarray(value)
            if found.size and not np.can_cast(found.dtype, t.dtype.numpy, "same_kind") and found.dtype.kind != "i":
                raise TypeError
            array = np.asarray(value, t.dtype.numpy).reshape(t.static_shape)
        except (TypeError, ValueError, OverflowError, AssertionError):
            self.fail(f"this is not a value of type {t}", start)
        return array if t.shape else array.item()

    # -- operations ----------------------------------------------------------------------------------------------

    def function(self) -> Function:
        self.scope = {}
        self.expect("func")
        self.expect("@")
        name = self.symbol()
        linear: set[int] = set()
        self.expect("(")
        args = self.arguments(linear)
        self.expect("->")
        header = self.at
        self.skip_parentheses()
        loc = self.location()
        self.expect("{")
        ops = self.operations()
        self.expect("return")
        results = self.uses()
        self.expect("}")
        self.result_types(header, results)
        return Function(name, Block(args, ops, results), frozenset(linear), loc)

    def arguments(self, linear: set[int] | None = None) -> list[Value]:
        """``%a: type, ...`` up to the closing parenthesis; notes positions marked ``lin``."""
        args: list[Value] = []

        def item() -> None:
            v = self.define(self.take("value"))
            self.expect(":")
            if linear is not None and self.accept("lin"):
                linear.add(len(args))
            v.type = self.type()
            args.append(v)

        self.forward = {}
        self.listed(item, ")")
        for token in self.forward.values():
            self.fail(f"{token} is not defined here", token)
        self.forward = None
        return args

    def skip_parentheses(self) -> None:
        """The result types may name values of the body, so they are read after it."""
        self.expect("(")
        while not self.accept(")"):
            if self.token.kind == "end":
                self.fail("expected ')', found the end")
            self.at += 1

    def result_types(self, header: int, results: Sequence[Value]) -> None:
        end, self.at = self.at, header
        self.expect("(")
        starts = []

        def item() -> TensorType:
            starts.append(self.token)
            return self.type()

        types = self.listed(item, ")")
        if len(types) != len(results):
            self.fail(f"{len(types)} result types, but {len(results)} values are returned", self.tokens[header])
        for t, r, start in zip(types, results, starts):
            if t != r.type:
                self.fail(f"expected {r.type}, the type of what is returned", start)
        self.at = end

    def operations(self) -> list[Op]:
        ops = []
        while not self.sees("yield") and not self.sees("return"):
            ops.append(self.op())
        return ops

    def op(self) -> Op:
        names = self.result_names()
        name = self.take("word", "an operation, yield or return").text
        operands = self.uses()
        attrs = self.attributes()
        regions = self.regions(name)
        results = [self.define(n) for n in names]
        if results:
            self.annotation(results)
        loc = self.location()
        return Op(name, operands, results, self.completed(name, attrs, results), regions, loc)

    def result_names(self) -> list[Token]:
        if self.token.kind != "value":
            return []
        names = [self.take("value")]
        while self.accept(","):
            names.append(self.take("value"))
        self.expect("=")
        return names

    def regions(self, name: str) -> list[Block]:
        regions: list[Block] = []
        while self.sees("{") or (regions and self.sees(SECOND_REGION.get(name, "{"))):
            self.accept(SECOND_REGION.get(name, ""))
            regions.append(self.region())
        return regions

    def region(self) -> Block:
        self.expect("{")
        around = dict(self.scope)
        args = self.arguments() if self.accept("(") else []
        ops = self.operations()
        self.expect("yield")
        results = self.uses()
        self.expect("}")
        self.scope = around
        return Block(args, ops, results)

    def annotation(self, results: Sequence[Value]) -> None:
        self.expect(":")
        start = self.token
        types = [self.type()]
        while self.accept(","):
            types.append(self.type())
        if len(types) != len(results):
            self.fail(f"{len(types)} types for {len(results)} results", start)
        for r, t in zip(results, types):
            r.type = t

    def completed(self, name: str, attrs: dict[str, tuple[Any, Token]], results: Sequence[Value]) -> dict[str, Any]:
        """The attributes, with what the annotation says of them."""
        out = {k: a for k, (a, _) in attrs.items()}
        key = ANNOTATED.get(name)
        if key and key not in out:
            types = tuple(r.type for r in results)
            out[key] = types if key == "types" else types[0] if types else None
        if name == "constant" and "value" in attrs and isinstance(out["type"], TensorType):
            out["value"] = self.array(out["value"], out["type"], attrs["value"][1])
        return out

    def location(self) -> Location | None:
        return self.place() if self.accept("@") else None

    def place(self) -> Location:
        file = self.string()
        self.expect(":")
        line, column, end = self.integer(), 0, 0
        if self.accept(":"):
            column = self.integer()
            self.expect(":")
            end = self.integer()
        function = self.string() if self.accept("in") else ""
        return Location(file, line, column, end, function, self.place() if self.accept("from") else None)
