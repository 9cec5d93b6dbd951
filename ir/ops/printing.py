"""``print``, ``warn`` and ``breakpoint``: operations that show values while the program runs, in its order.

- ``print %values... {format, python}``: writes ``format``, a template of ``str.format`` in which ``{0}`` is the first
  value; ``python`` tells for each whether a scalar is shown as a Python number.
- ``warn %values... {format, python, category, place}``: such a text as a Python warning of the class ``module:name``
  at ``file:line``.
- ``breakpoint %values... {names}``: stops in Python's debugger, the values under their names (in the evaluator).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dflow.ir.registry import OpDef, define, require
from dflow.ir.types import TensorType

WRITING = frozenset({"print", "warn"})


def _infer(names: str) -> Any:
    def infer(attrs: Any, types: Sequence[TensorType]) -> list[TensorType]:
        require(len(attrs[names]) == len(types), f"{names} has an entry for each operand")
        return []

    return infer


def show(attrs: Mapping[str, Any], values: Sequence[np.ndarray[Any, Any]]) -> None:
    """Writes what a ``print`` operation says, or warns of what a ``warn`` says."""
    shown = [x if x.ndim else x.item() if p else x[()] for x, p in zip(values, attrs["python"])]
    text = attrs["format"].format(*shown)
    if "category" not in attrs:
        sys.stdout.write(text)
        return
    module, _, name = attrs["category"].partition(":")
    category = getattr(sys.modules.get(module), name, UserWarning)  # a class made in a function has no such name
    file, _, line = attrs["place"].rpartition(":")
    warnings.warn_explicit(text, category, file, int(line))


def _print(attrs: Any, *values: np.ndarray[Any, Any]) -> tuple[()]:
    show(attrs, values)
    return ()


def _breakpoint(attrs: Any, *values: np.ndarray[Any, Any]) -> tuple[()]:
    exec(
        compile("breakpoint()", "<dflow.debug>", "exec"),
        {n: v if v.ndim else v[()] for n, v in zip(attrs["names"], values)},
    )
    return ()


for _name, _doc, _reference, _attributes in (
    ("print", "writes a text with values in it to the standard output", _print, ("format", "python")),
    ("warn", "gives a Python warning, with values in its text", _print, ("format", "python", "category", "place")),
    ("breakpoint", "stops in Python's debugger, in the reference evaluator", _breakpoint, ("names",)),
):
    define(
        OpDef(
            _name,
            _doc,
            _infer("names" if "names" in _attributes else "python"),
            reference=_reference,
            jvp=lambda b, a, xs, ys, ts: [],
            effect=True,
            attributes=_attributes,
        )
    )
