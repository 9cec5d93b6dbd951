"""Kernels, copies and updates of large programs as functions of their own.

LLVM asks many questions about a whole function for each loop in it. So a function with all the loops of a large program
would compile in time that grows with the square of its length. A call costs nothing beside a loop over a tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

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
            with new_function(e, op) as (function, given, _):
                emit(e, op)
            e.builder.call(function, given)
        else:
            emit(e, op)

    return write


def _is_outlined(e: Emitter, op: Op) -> bool:
    if not e.vectorizes or any(r.type.is_scalar for r in op.results) or _loops(e) <= LARGE:
        return False
    domain = op.attrs["domain"] if op.name == "kernel" else op.operands[-1 if op.name == "copy" else 1].type.shape
    points = point_count(domain)
    return (points is None or points > SHORT) and not any(b.space == "heap" for b in buffers_of(e, op))


@contextmanager
def new_function(
    e: Emitter, op: Op, extra: Sequence[ir.Type] = ()
) -> Iterator[tuple[ir.Function, list[ir.Value], Sequence[ir.Value]]]:
    """While this lasts, ``e`` writes a new function for ``op``: its parameters are those of the types ``extra``, and
    what the operation needs from around it. Gives the function, what to pass for the latter, and the former.

    Of sequences it knows the rows that are held (`emit_rows.py`), and nothing else."""
    buffers = [b for b in buffers_of(e, op) if b.space != "heap"]
    scalars = [v for v in needs(op) if v.type.is_scalar and not isinstance(e.env[v], ir.Constant)]
    held = [key for key in e.memory.held if key[0] in buffers_of(e, op)]
    given = [*(e.memory.bases[b] for b in buffers), *(e.memory.held[key] for key in held), *(e.env[v] for v in scalars)]
    types = [*extra, *(PTR for _ in (*buffers, *held)), *(e.env[v].type for v in scalars)]
    function = _declare(e, types)
    pointers = function.args[len(extra) : len(extra) + len(buffers)]
    rows = function.args[len(extra) + len(buffers) : len(extra) + len(buffers) + len(held)]
    for b, arg in zip(buffers, pointers):
        arg.add_attribute("captures(none)")
        if all(other is b or disjoint(b, other) for other in buffers):
            arg.add_attribute("noalias")
    outside = e.builder, e.function, e.entry, e.env, e.memory.bases, e.memory.held
    moved = dict(zip(scalars, function.args[len(types) - len(scalars) :]))
    positions = {e.env[v]: arg for v, arg in moved.items()}
    e.function, e.entry = function, function.append_basic_block("entry")
    e.builder = ir.IRBuilder(start := function.append_basic_block("start"))
    e.memory.bases = dict(zip(buffers, pointers))
    e.memory.held = {(b, positions.get(at, at)): row for (b, at), row in zip(held, rows)}
    e.env = {v: x for v, x in e.env.items() if isinstance(x, ir.Constant)} | moved  # registers are another function's
    yield function, given, function.args[: len(extra)]
    e.builder.ret_void()
    ir.IRBuilder(e.entry).branch(start)
    e.builder, e.function, e.entry, e.env, e.memory.bases, e.memory.held = outside


def _declare(e: Emitter, types: Sequence[ir.Type]) -> ir.Function:
    name = e.module.get_unique_name(f"{e.function.name}.kernel")
    function = ir.Function(e.module, ir.FunctionType(VOID, types), name)
    function.linkage = "internal"
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    return function


def _loops(e: Emitter) -> int:
    if e.loops is None:
        e.loops = sum(op.name in OUTLINED for op in walk(e.plan.function.body))
    return e.loops


def needs(op: Op) -> list[Value]:
    """What an operation uses from around it, with the sizes of all that."""
    used = dict.fromkeys([*free_values(*op.regions), *op.uses()])
    return list(used | dict.fromkeys(s for v in used for s in v.type.size_values))


def buffers_of(e: Emitter, op: Op) -> list[Buffer]:
    """The buffers that an operation reads or writes."""
    found = e.memory.buffers
    return list(dict.fromkeys(found[v] for v in (*needs(op), *op.results) if v in found))
