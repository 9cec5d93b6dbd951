"""Kernels, copies and updates of large programs as functions of their own.

LLVM asks many questions about a whole function for each loop in it. So a function with all the loops of a large program
would compile in time that grows with the square of its length. A call costs nothing beside a loop over a tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from llvmlite import ir

from dflow.backends.emit_core import Emitter, point_count
from dflow.backends.emit_scopes import disjoint
from dflow.backends.emit_types import PTR, VOID
from dflow.backends.plan import Buffer
from dflow.ir.core import Op, Value, free_values, walk

LARGE = 40  # such operations in a program
SHORT = 64  # points of one that stays where it is
OUTLINED = frozenset({"kernel", "update", "update_add", "copy"})
Emit = Callable[[Emitter, Op], None]


def outlined(emit: Emit) -> Emit:
    """An emitter that writes a function, and a call to it, where that is better."""

    @functools.wraps(emit)
    def write(e: Emitter, op: Op) -> None:
        if _is_outlined(e, op):
            outline(e, op, lambda: emit(e, op))
        else:
            emit(e, op)

    return write


def _is_outlined(e: Emitter, op: Op) -> bool:
    if not e.vectorizes or any(r.type.is_scalar for r in op.results) or _loops(e) <= LARGE:
        return False
    domain = op.attrs["domain"] if op.name == "kernel" else op.operands[-1 if op.name == "copy" else 1].type.shape
    points = point_count(domain)
    return (points is None or points > SHORT) and not any(b.space == "heap" for b in _buffers(e, op))


def outline(e: Emitter, op: Op, write: Callable[[], None]) -> None:
    """Calls a new function, which ``write`` writes."""
    buffers = _buffers(e, op)
    scalars = [v for v in _needs(op) if v.type.is_scalar and not isinstance(e.env[v], ir.Constant)]
    given = [*(e.memory.bases[b] for b in buffers), *(e.env[v] for v in scalars)]
    types = [*(PTR for _ in buffers), *(e.env[v].type for v in scalars)]
    name = e.module.get_unique_name(f"{e.function.name}.kernel")
    function = ir.Function(e.module, ir.FunctionType(VOID, types), name)
    function.linkage = "internal"
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    for b, arg in zip(buffers, function.args):
        arg.add_attribute("captures(none)")
        if all(other is b or disjoint(b, other) for other in buffers):
            arg.add_attribute("noalias")
    e.builder.call(function, given)
    outside = e.builder, e.function, e.entry, e.env, e.memory.bases
    e.function, e.entry = function, function.append_basic_block("entry")
    e.builder = ir.IRBuilder(start := function.append_basic_block("start"))
    e.memory.bases = dict(zip(buffers, function.args))
    e.env = {**e.env, **dict(zip(scalars, function.args[len(buffers) :]))}
    write()
    e.builder.ret_void()
    ir.IRBuilder(e.entry).branch(start)
    e.builder, e.function, e.entry, e.env, e.memory.bases = outside


def _loops(e: Emitter) -> int:
    if e.loops is None:
        e.loops = sum(op.name in OUTLINED for op in walk(e.plan.function.body))
    return e.loops


def _needs(op: Op) -> list[Value]:
    """What an operation uses from around it."""
    return list(dict.fromkeys([*free_values(*op.regions), *op.uses()]))


def _buffers(e: Emitter, op: Op) -> list[Buffer]:
    found = e.memory.buffers
    return list(dict.fromkeys(found[v] for v in (*_needs(op), *op.results) if v in found))
