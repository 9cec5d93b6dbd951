"""Writes ``docs/operations.md`` from the definitions: ``python -m dflow.ir.ops.document > docs/operations.md``."""

from __future__ import annotations

from importlib import import_module

from dflow.ir.ops import TABLES
from dflow.ir.registry import OPS, OpDef
from dflow.ir.types import ALL, FLOATS, INTEGERS, NUMERIC, REAL, DType

GROUPS: tuple[tuple[tuple[DType, ...], str], ...] = (
    (ALL, "all"),
    (NUMERIC, "numeric"),
    (REAL, "real"),
    (INTEGERS, "integers"),
    (FLOATS, "floats"),
)

HEADER = """\
# Operations

This page is generated from the definitions in `ir/ops` by `python -m dflow.ir.ops.document`.

*Types* are the element types that the operands may have: floats are `f16 bf16 f32 f64`, integers `i8` to `i64` and `u8`
to `u64`, real is both, numeric adds the complex types, all adds `bool`. *Linear in* lists groups of operands, by
position: `(0, 1)` is linear in both together, `(0) (1)` in each while the other is fixed; `(all)` is linear in all
together. In the column *derivative*, "none" comes with the reason, and a transpose makes the operation part of reverse
mode by itself.
"""


def document() -> str:
    """The whole page."""
    return "\n".join([HEADER, *map(_section, TABLES)])


def _section(table: str) -> str:
    """One table: its module's documentation and a row for each operation that it defines."""
    doc = (import_module(f"dflow.ir.ops.{table}").__doc__ or "").strip()
    head = "| operation | meaning | attributes | types | linear in | derivative |\n|---|---|---|---|---|---|"
    rows = "\n".join(_row(OPS[name]) for name in TABLES[table])
    return f"## {table.capitalize()}\n\n{doc}\n\n{head}\n{rows}\n"


def _row(op: OpDef) -> str:
    attributes = ", ".join(f"`{a}`" for a in op.attribute_names)
    cells = [f"`{op.name}`", op.doc.replace("|", "\\|"), attributes, _types(op), _linear(op), _derivative(op)]
    return f"| {' | '.join(cells)} |"


def _types(op: OpDef) -> str:
    for group, name in GROUPS:
        if op.dtypes == group:
            return name
        if op.dtypes and set(op.dtypes) == {*group, ALL[0]}:
            return f"bool, {name}"
    return ", ".join(f"`{d}`" for d in op.dtypes)


def _linear(op: OpDef) -> str:
    if op.linear_groups(2) != op.linear_groups(3):
        return "(all)"
    return " ".join(f"({', '.join(map(str, group))})" for group in op.linear_groups(3))


def _derivative(op: OpDef) -> str:
    if op.jvp:
        return "yes, transpose" if op.transpose else "yes"
    return f"none: {op.no_derivative}" if op.no_derivative else "by its regions"


if __name__ == "__main__":
    print(document(), end="")
