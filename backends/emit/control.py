"""Control flow: regions become branches. Carried scalars become phis; carried tensors stay in their buffer (the plan
gives one to all their names), so they need nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from llvmlite import ir

from dflow.backends.analysis.loop_sums import reassociate, sums
from dflow.backends.emit.batches import batches, in_batches
from dflow.backends.emit.choices import choices
from dflow.backends.emit.core import Emitter, emits
from dflow.backends.emit.filter import filter_of, filtered
from dflow.backends.emit.held import held_array, in_registers
from dflow.backends.emit.lanes import in_lanes, lanes
from dflow.backends.emit.loop_hints import hints
from dflow.backends.emit.rounds import rounds_in_parts
from dflow.backends.emit.rows import held_rows, reserved_rows
from dflow.backends.emit.turning import Places, places
from dflow.backends.emit.types import ZERO
from dflow.backends.emit.waves import in_waves, waves
from dflow.backends.interface import Check
from dflow.ir.core import Block, Op, Value

Carried = list[ir.Value | None]


def scalars(values: Sequence[Value]) -> list[Value]:
    return [v for v in values if v.type.is_scalar]


def registers(e: Emitter, values: Sequence[Value]) -> list[ir.Value]:
    return [e.env[v] for v in scalars(values)]


def bind(e: Emitter, values: Sequence[Value], found: Sequence[ir.Value]) -> None:
    e.env.update(zip(scalars(values), found))


@emits("for")
def _for(e: Emitter, op: Op) -> None:
    side_by_side = lanes(e, op)
    together = side_by_side.count if side_by_side else 1
    if not rounds_in_parts(e, op, partial(_rounds, e, op), together):
        moves = e.plan.moves.get(op, ())
        bind(e, op.results, _rounds(e, op, e.env[op.operands[0]], registers(e, op.operands[1:]), ZERO, moves))


def _rounds(
    e: Emitter, op: Op, count: ir.Value, inits: Sequence[ir.Value], begin: ir.Value, moves: Sequence[Op] = ()
) -> list[ir.Value]:
    """``count`` rounds of a ``for``, from the one with the number ``begin`` on; the scalars that it yields. ``moves``:
    copies at which buffers may change places."""
    (body,) = op.regions
    k, *carried = body.args
    if found := lanes(e, op):
        return in_lanes(e, op, found, count, inits, begin)
    if in_diagonals := waves(e, op):
        return in_waves(e, op, in_diagonals, count, inits, begin)

    totals = sums(body, carried)
    if in_groups := batches(e, op, totals):
        return in_batches(e, op, in_groups, count, inits, begin)

    def run(i: ir.Value, *values: ir.Value) -> list[ir.Value]:
        e.env[k] = e.add(begin, i)
        bind(e, carried, turning.enter(values))
        e.block(body)
        yields = registers(e, body.results)
        for total in totals:
            reassociate(e.env[total])
        return turning.leave(yields)

    if chosen := filter_of(e, op):
        done, inits = filtered(e, body, chosen, count, inits, begin)
        count, begin = e.sub(count, done), e.add(begin, done)
    with held_rows(e, body, [count]), reserved_rows(e, body, begin, count):
        if held := held_array(e, op):
            return in_registers(e, op, held, count, inits, begin)
        with places(e, op, moves) as turning:
            return turning.end(e.loop(count, turning.begin(inits), run, hints=hints(e, body, count, totals)))


@emits("while")
def _while(e: Emitter, op: Op) -> None:
    condition, body = op.regions
    with places(e, op, e.plan.moves.get(op, ())) as turning:
        last = _while_rounds(e, condition, body, turning, turning.begin(registers(e, op.operands)))
        bind(e, op.results, turning.end(last))


def _while_rounds(
    e: Emitter, condition: Block, body: Block, turning: Places, inits: Sequence[ir.Value]
) -> list[ir.Value]:
    """The rounds; what goes round, in the end."""
    b, before = e.builder, e.builder.block
    head, inside, done = (e.new_block(name) for name in ("while", "do", "done"))
    b.branch(head)
    b.position_at_end(head)
    phis = [b.phi(v.type) for v in inits]
    for phi, v in zip(phis, inits):
        phi.add_incoming(v, before)
    values = turning.enter(phis)
    bind(e, condition.args, values)
    bind(e, body.args, values)
    (goes_on,) = e.block(condition)
    b.cbranch(goes_on, inside, done)
    b.position_at_end(inside)
    if e.options.avx512:
        e.choices.update(choices(body))
    e.block(body)
    for phi, v in zip(phis, turning.leave(registers(e, body.results))):
        phi.add_incoming(v, b.block)
    b.branch(head)
    b.position_at_end(done)
    return phis


@emits("if")
def _if(e: Emitter, op: Op) -> None:
    def run(region: Block) -> list[ir.Value]:
        e.block(region)
        return registers(e, region.results)

    then, otherwise = op.regions
    bind(e, op.results, e.either(e.env[op.operands[0]], lambda: run(then), lambda: run(otherwise)))


@emits("check")
def _check(e: Emitter, op: Op) -> None:
    ok, *details = op.operands
    check(e, op, e.env[ok], [e.env[d] for d in details])


def check(e: Emitter, op: Op, ok: ir.Value, details: Sequence[ir.Value]) -> None:
    """Leaves the function with the error of ``op`` unless ``ok``."""
    code = len(e.checks)
    e.checks.append(Check(op.attrs["error"], op.attrs["message"], op.loc))
    b = e.builder
    with b.if_then(b.not_(ok), likely=False):
        e.memory.report(code, details)
        e.branch_out(1)


@emits("guard")
def _guard(e: Emitter, op: Op) -> None:
    x, ok = op.operands
    check(e, op, e.env[ok], [])
    e.fill(op, lambda e, op, at: e.load(x, at))
