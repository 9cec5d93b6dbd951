"""``print`` and ``breakpoint``: operations that show values while the program runs, in the order of the program.

- ``print %values... {format, python}``: writes ``format``, a template of ``str.format`` in which ``{0}`` is the first
  value; ``python`` tells for each whether a scalar is shown as a Python number.
- ``breakpoint %values... {names}``: stops in Python's debugger, the values under their names (in the evaluator).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.ir.registry import OpDef, define, require
from dflow.ir.types import TensorType


def _infer(names: str) -> Any:
    def infer(attrs: Any, types: Sequence[TensorType]) -> list[TensorType]:
        require(len(attrs[names]) == len(types), f"{names} has an entry for each operand")
        return []

    return infer


def show(template: str, python: Sequence[bool], values: Sequence[np.ndarray[Any, Any]]) -> None:
    """Writes what a ``print`` operation says."""
    shown = [x if x.ndim else x.item() if p else x[()] for x, p in zip(values, python)]
    sys.stdout.write(template.format(*shown))


def _print(attrs: Any, *values: np.ndarray[Any, Any]) -> tuple[()]:
    show(attrs["format"], attrs["python"], values)
    return ()


def _breakpoint(attrs: Any, *values: np.ndarray[Any, Any]) -> tuple[()]:
    exec(
        compile("breakpoint()", "<dflow.debug>", "exec"),
        {n: v if v.ndim else v[()] for n, v in zip(attrs["names"], values)},
    )
    return ()


for _name, _doc, _reference, _attributes in (
    ("print", "writes a text with values in it to the standard output", _print, ("format", "python")),
    ("breakpoint", "stops in Python's debugger, in the reference evaluator", _breakpoint, ("names",)),
):
    define(
        OpDef(
            _name,
            _doc,
            _infer(_attributes[-1]),
            reference=_reference,
            jvp=lambda b, a, xs, ys, ts: [],
            effect=True,
            attributes=_attributes,
        )
    )
