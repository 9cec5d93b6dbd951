"""``template % values``, ``template.format(...)`` and ``separator.join(texts)`` with traced values."""

from __future__ import annotations

import dataclasses
import re
import string
from typing import Any

from dflow.ir.types import kind_of
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.operators import numpy_functions
from dflow.tracing.python.printing import joined, shows_traced


def percent(template: str, values: Any) -> Any:
    """``template % values``."""
    if not shows_traced(values):
        return template % values
    if not isinstance(values, dict | tuple):
        values = (values,)
    rest = iter(values) if isinstance(values, tuple) else None
    parts: list[Any] = []
    done = 0
    for m in _PERCENT.finditer(template):
        parts.append(template[done : m.start()])
        done = m.end()
        if m["kind"] == "%":
            parts.append("%")
            continue
        width, digits = (str(next(rest)) if x == "*" and rest else x for x in m.group("width", "digits"))
        value = values[m["key"]] if rest is None else next(rest)
        kind = {"i": "d", "u": "d", "r": "s", "a": "s"}.get(m["kind"], m["kind"])
        if kind == "d" and isinstance(value, Array) and kind_of(value.dtype) == "f":
            value = numpy_functions().trunc(value).astype(int)
        left = "<" if "-" in m["flags"] else "0" if "0" in m["flags"] and kind != "s" else ">"
        sign = "" if kind == "s" else "+" if "+" in m["flags"] else " " if " " in m["flags"] else ""
        spec = _spec(left, sign, "#" in m["flags"], width or "", f".{digits}" if digits is not None else "", kind)
        parts.append((value, {"s": "s", "r": "r", "a": "a"}.get(m["kind"], ""), spec))
    return joined(*parts, template[done:])


_PERCENT = re.compile(
    r"%(\((?P<key>[^)]*)\))?(?P<flags>[-#0+ ]*)(?P<width>\*|\d+)?(\.(?P<digits>\*|\d*))?[hlL]?(?P<kind>[a-zA-Z%])"
)


def _spec(align: str, sign: str, alternate: bool, width: str, digits: str, kind: str) -> str:
    zero = align == "0"
    aligned = align if width and not zero else ""
    digits = ".0" if digits == "." else digits
    return f"{aligned}{sign}{'#' if alternate else ''}{'0' if zero else ''}{width}{digits}{'' if kind == 's' else kind}"


def formatted(template: str, *args: Any, **kwargs: Any) -> Any:
    """``template.format(...)``."""
    holes: list[Any] = []

    class Marking(string.Formatter):
        """Leaves marks where traced values belong."""

        def convert_field(self, value: Any, conversion: Any) -> Any:
            return (
                _Converted(value, conversion)
                if conversion and shows_traced(value)
                else super().convert_field(value, conversion)
            )

        def format_field(self, value: Any, spec: str) -> str:
            inner, conversion = (value.value, value.conversion) if isinstance(value, _Converted) else (value, "")
            if not shows_traced(inner):
                return super().format_field(value, spec)
            holes.append((inner, conversion, spec))
            return "\0"

    first, *texts = Marking().vformat(template, args, kwargs).split("\0")
    return joined(first, *(part for pair in zip(holes, texts) for part in pair))


@dataclasses.dataclass
class _Converted:
    value: Any
    conversion: str


def join(separator: str, texts: Any) -> Any:
    """``separator.join(texts)``."""
    made: list[Any] = []
    for k, t in enumerate(texts):
        made += [*([separator] if k else []), t if isinstance(t, str) else (t, "", "")]
    return joined(*made)
