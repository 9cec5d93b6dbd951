"""Straight code: programs that compute one number after the other, without loops, branches and arrays.

Each of their operations runs once a call, and what takes time is to compile them. There is nothing to vectorize, and a
math function that is called twice need not be there twice: a call takes a nanosecond of the twenty of a sine.
"""

from __future__ import annotations

from collections import Counter

from llvmlite import ir

from dflow.ir.core import Function


def is_straight(f: Function) -> bool:
    scalar = all(t.is_scalar for t in (*f.arg_types, *f.result_types))
    return scalar and all(not op.regions and all(v.type.is_scalar for v in op.results) for op in f.body.ops)


def call_repeated(module: ir.Module) -> None:
    """Has math functions that are called more than once called, not inlined."""
    calls = Counter(
        i.callee.name for f in module.functions for b in f.blocks for i in b.instructions if isinstance(i, ir.CallInstr)
    )
    for f in module.functions:
        if calls[f.name] > 1 and "alwaysinline" in f.attributes:
            f.attributes.discard("alwaysinline")
            f.attributes.add("noinline")
