"""Common subexpression elimination: ``Function -> Function`` that computes equal values once.

    %a = add %x, %y             %a = add %x, %y
    %b = add %y, %x      ->     %c = mul %a, %a
    %c = mul %a, %b

A region sees the expressions of the blocks around it, and takes its own along when it ends. A tensor that is about to
be overwritten is not shared, since a second use would cost a copy. A condition that has been checked is not checked
again.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, substitute
from dflow.ir.passes.rewrite import Env, append_copy, has_effect, open_block, overwritten, rebuild, rename
from dflow.ir.rules import RULED
from dflow.ir.types import TensorType

# `max` and `min` are missing: of 0.0 and -0.0 they may give either.
COMMUTATIVE = frozenset({"add", "mul", "and", "or", "xor", "eq", "ne", "hypot"})
MIRRORED = {"gt": "lt", "ge": "le"}
# Each gives memory of its own.
FRESH = frozenset({"empty", "sequence", "tape", "copy"})
# Tensors of these are as cheap to make as to copy.
REMADE = frozenset({"broadcast", "iota"})


def cse(f: Function) -> Function:
    table = _Table(overwritten(f))
    return rebuild(f, table.fill)


class _Table:
    def __init__(self, overwritten: set[Value]) -> None:
        self.overwritten = overwritten
        self.known: dict[Any, tuple[Value, ...]] = {}
        self.number: dict[Value, int] = {}  # an order of the values, for commutative operations

    def fill(self, b: Builder, block: Block, env: Env) -> None:
        entered: list[Any] = []
        for op in block.ops:
            key = self._key(op, env)
            found = self.known.get(key) if key is not None else None
            if found is not None:
                env.update(zip(op.results, found))
                for old, new in zip(op.results, found):
                    new.hint = new.hint or old.hint
                continue
            copy = append_copy(b, op, env, [self._region(r, env, op.name in RULED) for r in op.regions])
            if key is not None:
                self.known[key] = copy.results
                entered.append(key)
        for key in entered:
            del self.known[key]

    def _region(self, block: Block, env: Env, closed: bool) -> Block:
        """``closed``: the region sees nothing of the blocks around it."""
        known = self.known
        if closed:
            self.known = {}
        b = open_block(block.args, env)
        self.fill(b, block, env)
        self.known = known
        return b.finish(rename(block.results, env))

    def _key(self, op: Op, env: Env) -> Any:
        """What makes two operations equal; None when the operation stays as it is."""
        operands = rename(op.operands, env)
        if op.name == "check":
            return "check", operands[0]
        if op.regions or has_effect(op) or op.name in FRESH:
            return None
        if op.name in REMADE and op.result in self.overwritten:
            return None
        name = op.name
        if name in COMMUTATIVE:
            operands.sort(key=self._number)
        elif name in MIRRORED:
            name = MIRRORED[name]
            operands.reverse()
        if name == "constant":
            return "constant", op.attrs["type"], _bits(op.attrs["value"], op.attrs["type"])
        if not op.attrs:
            return name, tuple(operands)
        attrs = tuple((k, freeze(substitute(op.attrs[k], env))) for k in sorted(op.attrs))
        return name, tuple(operands), attrs

    def _number(self, v: Value) -> int:
        return self.number.setdefault(v, len(self.number))


def _bits(value: Any, type: TensorType) -> bytes:
    return np.asarray(value, type.dtype.numpy).tobytes()


def freeze(attr: Any) -> Any:
    """A hashable stand-in for an attribute that tells apart what Python's ``==`` does not (1, 1.0, True; 0.0, -0.0)."""
    if isinstance(attr, np.ndarray):
        return attr.dtype.str, attr.shape, attr.tobytes()
    if isinstance(attr, float):
        return "float", struct.pack("d", attr)
    if isinstance(attr, bool):
        return "bool", attr
    if isinstance(attr, tuple):
        return tuple(freeze(a) for a in attr)
    if isinstance(attr, list | dict | set):
        return "mutable", id(attr)
    return attr
