"""Kernels, products, copies and updates of large programs as functions of their own.

LLVM asks many questions about a whole function for each loop in it. So a function with all the loops of a large program
would compile in time that grows with the square of its length. A call costs nothing beside a loop over a tensor. What
runs once in a call of the program moves already where there are several: the layers of a network say the same, so that
one function serves all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext

from llvmlite import ir

from dflow.backends.emit.core import UNROLL_POINTS, Emitter, point_count
from dflow.backends.emit.rows import held_row, held_rows
from dflow.backends.emit.scopes import disjoint
from dflow.backends.emit.types import NOT_KEPT, PTR, VOID, storage_type
from dflow.backends.lowering.plan import Buffer
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.types import Dim

LARGE = 40  # such operations in a program
SEVERAL = 8  # of which those move that run once
SHORT = 64  # points of one that stays in its loop
VERY_LARGE = 4 * LARGE  # where those alone stay that are no loops
OUTLINED = frozenset({"kernel", "matmul", "update", "update_add", "copy"})
Emit = Callable[[Emitter, Op], None]


def outlined(emit: Emit) -> Emit:
    """An emitter that writes a function, and a call to it, where that is better."""

    @functools.wraps(emit)
    def write(e: Emitter, op: Op) -> None:
        with _rows(e, op) if (wanted := _is_long(e, op)) else nullcontext():
            if not wanted or not can_move(e, op):
                emit(e, op)
                return
            if (key := _facts(e, op)) in e.moved:
                e.builder.call(e.moved[key], [e.memory.bases[b] for b in buffers_of(e, op)])
                return
            scalars = [r for r in op.results if r.type.is_scalar]
            with new_function(e, op, [PTR for _ in scalars]) as (function, given, places):
                emit(e, op)
                for r, place in zip(scalars, places):
                    e.store_at(r, place, e.env[r])
            slots = [e.slot(storage_type(r.type.dtype)) for r in scalars]
            function = _known(e, function)
            if key is not None:
                e.moved[key] = function
            e.builder.call(function, [*slots, *given])
            e.env.update((r, e.load_at(r, slot)) for r, slot in zip(scalars, slots))

    return write


def _facts(e: Emitter, op: Op) -> object:
    """What the function of a product or a copy follows from, where that is told without writing it; else None."""
    values = (*op.operands, *op.results)
    if op.name not in ("matmul", "copy") or not all(v in e.memory.buffers and v.type.is_static for v in values):
        return None
    buffers = buffers_of(e, op)
    if any(b is not x and not disjoint(b, x) for b in buffers for x in buffers):
        return None  # aliasing is told of these very buffers
    places = tuple(buffers.index(e.memory.buffers[v]) for v in values)
    return op.name, tuple(op.attrs.items()), tuple(v.type for v in values), places, e.threads


def _known(e: Emitter, function: ir.Function) -> ir.Function:
    """An earlier function that says the same, if there is one: derivatives compute many things again."""
    text = str(function).replace(function.name, "", 1)
    known = e.outlined.setdefault(text, function)
    if known is not function:
        del e.module.globals[function.name]
    return known


def _is_long(e: Emitter, op: Op) -> bool:
    """Whether the operation is a loop, in a program of many."""
    if op.name not in OUTLINED or not e.vectorizes or op in e.turning:
        return False
    once, loops = op in _once(e), _loops(e)
    turning = _meets_turning(e, op)
    if not turning and loops <= (SEVERAL if once else LARGE):
        return False
    points = point_count(_domain(op))
    if turning:
        return points is None or points > SHORT
    return points is None or points > (UNROLL_POINTS if once or loops > VERY_LARGE else SHORT)


def _meets_turning(e: Emitter, op: Op) -> bool:
    """Whether the operation touches several buffers that change places here, which only a function can tell apart."""
    return e.memory.scopes is not None and len(e.memory.scopes.groups.keys() & buffers_of(e, op)) > 1


def _domain(op: Op) -> Sequence[Dim]:
    if op.name == "matmul":
        return *op.result.type.shape, op.operands[0].type.shape[-1]
    return op.attrs["domain"] if op.name == "kernel" else op.operands[-1 if op.name == "copy" else 1].type.shape


def _rows(e: Emitter, op: Op) -> AbstractContextManager[None]:
    """The rows of sequences that the operation touches are held."""
    if op.regions:
        return held_rows(e, op.regions[0], op.attrs["domain"])
    if op.name != "copy" and op.operands[0].type.grows and op.attrs["index"][0] == "at":
        return held_row(e, op.operands[0], op.operands[2], write=True)
    return nullcontext()


def can_move(e: Emitter, op: Op) -> bool:
    """Whether the operation can be a function of its own: all its tensors have addresses that are known by now."""
    values = [v for v in (*needs(op), *op.results) if v.type.rank]
    if any(v not in e.memory.buffers and (v.op is None or v.op.name != "constant") for v in values):
        return False
    if not any(v.type.grows for v in values):
        return True
    return all(_is_held(e, o) for o in (op, *(o for r in op.regions for o in walk(r))))


def _is_held(e: Emitter, op: Op) -> bool:
    """Whether the rows of sequences that the operation itself touches are held."""
    if not any(v.type.grows for v in (*op.operands, *op.results)):
        return True
    if op.name not in ("extract", "update", "update_add") or op.attrs["index"][0] != "at":
        return False
    start = op.operands[1 if op.name == "extract" else 2]
    return (e.memory.buffers.get(op.operands[0]), e.env.get(start)) in e.memory.held


@contextmanager
def new_function(
    e: Emitter, op: Op, extra: Sequence[ir.Type] = ()
) -> Iterator[tuple[ir.Function, list[ir.Value], Sequence[ir.Value]]]:
    """While this lasts, ``e`` writes a new function for ``op``: its parameters are those of the types ``extra``
    (pointers are to memory of their own), and what the operation needs from around it. Gives the function, what to pass
    for the latter, and the former.

    Of sequences it knows the rows that are held (`emit/rows.py`), and nothing else."""
    buffers = [b for b in buffers_of(e, op) if b.space != "heap"]
    scalars = [v for v in needs(op) if v.type.is_scalar and not isinstance(e.env[v], ir.Constant)]
    held = [key for key in e.memory.held if key[0] in buffers_of(e, op)]
    given = [*(e.memory.bases[b] for b in buffers), *(e.memory.held[key] for key in held), *(e.env[v] for v in scalars)]
    types = [*extra, *(PTR for _ in (*buffers, *held)), *(e.env[v].type for v in scalars)]
    function = _declare(e, types)
    pointers = function.args[len(extra) : len(extra) + len(buffers)]
    rows = function.args[len(extra) + len(buffers) : len(extra) + len(buffers) + len(held)]
    for arg in function.args[: len(extra)]:
        if arg.type == PTR:
            arg.add_attribute("noalias")
    places = [*zip(buffers, pointers), *((b, row) for (b, _), row in zip(held, rows))]
    apart = [all(arg is x or disjoint(b, other) for other, x in places) for b, arg in places]
    for (_, arg), alone in zip(places, apart):
        arg.add_attribute(NOT_KEPT)
        if alone and not (extra and arg in rows):  # what is given beside may be the whole sequence
            arg.add_attribute("noalias")
    outside = e.builder, e.function, e.entry, e.env, e.memory.bases, e.memory.held, e.memory.scopes
    moved = dict(zip(scalars, function.args[len(types) - len(scalars) :]))
    positions = {e.env[v]: arg for v, arg in moved.items()}
    if all(apart) and not extra:
        e.memory.scopes = None  # which would say no more
    e.function, e.entry = function, function.append_basic_block("entry")
    e.builder = ir.IRBuilder(start := function.append_basic_block("start"))
    e.memory.bases = dict(zip(buffers, pointers))
    e.memory.held = {(b, positions.get(at, at)): row for (b, at), row in zip(held, rows)}
    e.env = {v: x for v, x in e.env.items() if isinstance(x, ir.Constant)} | moved  # registers are another function's
    yield function, given, function.args[: len(extra)]
    e.builder.ret_void()
    ir.IRBuilder(e.entry).branch(start)
    e.builder, e.function, e.entry, e.env, e.memory.bases, e.memory.held, e.memory.scopes = outside


def _declare(e: Emitter, types: Sequence[ir.Type]) -> ir.Function:
    name = e.module.get_unique_name(f"{e.function.name}.kernel")
    function = ir.Function(e.module, ir.FunctionType(VOID, types), name)
    function.linkage = "internal"
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    return function


def _loops(e: Emitter) -> int:
    """How many operations may be loops."""
    if e.loops is None:
        e.loops = sum(op.name in OUTLINED for op in walk(e.plan.function.body))
    return e.loops


def _once(e: Emitter) -> Set[Op]:
    """Those that run once in a call of the program, or not at all."""
    if e.once is None:
        e.once = {op for op in _outside_loops(e.plan.function.body) if op.name in OUTLINED}
    return e.once


def _outside_loops(block: Block) -> Iterator[Op]:
    for op in block.ops:
        yield op
        if op.name == "if":
            for r in op.regions:
                yield from _outside_loops(r)


def needs(op: Op) -> list[Value]:
    """What an operation uses from around it, with the sizes of all that."""
    used = dict.fromkeys([*free_values(*op.regions), *op.uses()])
    return list(used | dict.fromkeys(s for v in used for s in v.type.size_values))


def buffers_of(e: Emitter, op: Op) -> list[Buffer]:
    """The buffers that an operation reads or writes."""
    found = e.memory.buffers
    return list(dict.fromkeys(found[v] for v in (*needs(op), *op.results) if v in found))
