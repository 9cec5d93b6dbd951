"""Functions that bring their derivatives along (``dflow.ir.rules``). None of them is left when machine code is made.

- ``custom %x... {rule = @name, linear = k} {(x...) -> y}``: what the region says, which sees its arguments alone. Its
  derivative is the rule's. It is linear in its last ``k`` operands, jointly, and then the rule has its transpose.
- ``reverse_only %x... {rule = @name, linear = k, types}``: the tangents of a function of which only the transposed
  derivative is known. It is linear in its last ``k`` operands. It has no values: forward mode is refused.
"""

from __future__ import annotations

from typing import Any

from dflow.ir.registry import OpDef, define


def _by_region(attrs: Any, types: Any) -> list[Any]:
    raise AssertionError("typed from its region, see dflow.ir.builder.infer")


define(OpDef("custom", "a function with a derivative of its own", _by_region, attributes=("rule", "linear")))
define(
    OpDef(
        "reverse_only",
        "the tangents of a function with a transposed derivative of its own",
        lambda attrs, types: list(attrs["types"]),
        attributes=("rule", "linear", "types"),
    )
)
