"""Rules for every operation: computing on constants, and computing on the scalar that a tensor repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.ir.passes.rewrite import elements, splat_source
from dflow.ir.passes.simplifier import Simplifier
from dflow.ir.registry import OPS, OpTypeError
from dflow.ir.types import dtype_of

LARGEST = 64  # elements of a folded result
# Constants already, or (a repeated scalar) better than a table of numbers.
_KEPT = frozenset({"constant", "empty", "sequence", "tape", "iota", "broadcast", "copy", "check", "call"})


def fold_constants(b: Simplifier, name: str, attrs: Mapping[str, Any], operands: Sequence[Value]) -> Value | None:
    """The operation on constants, computed by its reference."""
    if not operands or name in _KEPT or not all(v.op is not None and v.op.name == "constant" for v in operands):
        return None
    definition = OPS[name]
    if definition.reference is None or definition.effect:
        return None
    try:
        (type,) = definition.infer(attrs, [v.type for v in operands])
        count = elements(type.shape)
        if count is None or count > LARGEST:
            return None
        with np.errstate(all="ignore"):
            value = np.asarray(definition.reference(attrs, *(constant_array(v) for v in operands)))
    except (OpTypeError, IndexError, ValueError, ArithmeticError):
        return None  # left for the run to meet
    if value.shape != type.shape or dtype_of(value.dtype) != type.dtype:
        return None
    return b.constant(value)


def constant_array(v: Value) -> Any:
    assert v.op is not None
    return np.asarray(v.op.attrs["value"], v.type.dtype.numpy)


def lift_broadcast(b: Simplifier, name: str, attrs: Mapping[str, Any], operands: Sequence[Value]) -> Value | None:
    """An elementwise operation on repeated scalars is that on the scalars, repeated."""
    if not operands or not operands[0].type.shape or not OPS[name].elementwise:
        return None
    if len(operands) == 1:
        op = operands[0].op
        if op is None or op.name != "broadcast":
            return None
        return b.emit("broadcast", b.emit(name, op.operands[0], **attrs), **op.attrs)
    sources = [splat_source(v) for v in operands]
    if any(s is None for s in sources):
        return None
    return b.broadcast_scalar(b.emit(name, *sources, **attrs), operands[0].type.shape)


EVERY = (fold_constants, lift_broadcast)
