"""Loops with independent rounds (`independent.py`) in parts, which threads share.

Each part has its own private buffers, totals of its own for what the rounds add up, and a record of its own of the
first check that fails: the error of the loop is that of the first part that has one, as it would be of a single thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from dflow.backends.analysis.independent import Rounds, prove
from dflow.backends.emit.core import Emitter, cost
from dflow.backends.emit.memory import Heap
from dflow.backends.emit.outline import new_function
from dflow.backends.emit.parts import GRAIN, LEAST, MOST, lengths, run_parts
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import I8, I32, I64, PTR, constant, index, storage_type
from dflow.backends.lowering.plan import Buffer
from dflow.ir.core import Block, Op, Value, walk
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.types import DType, Size

LONG = 512  # operations of a round that make a loop of unknown length worth it
ON_STACK = 1 << 14  # bytes of private buffers
COPIED = 16  # operations of a part, at least, for each byte of its totals, which are cleared and added up
MOST_ADDED = 1 << 21  # bytes of all totals
RECORD = 32  # bytes of an error
# (count, values that go round, index of the first round) -> the values after the last
Run = Callable[[ir.Value, Sequence[ir.Value], ir.Value], list[ir.Value]]


def rounds_in_parts(e: Emitter, op: Op, run: Run, unit: int) -> bool:
    """Writes a ``for`` in parts, if that is right and worth it; ``run`` writes a part of the rounds, of which ``unit``
    go together."""
    count, work = constant_of(op.operands[0]), _cost(op.regions[0])
    if not e.threads or (work < LONG if count is None else count * work < LEAST):
        return False
    rounds = prove(op, e.plan, e.used, e.memory.certain)
    if rounds is None or any(e.memory.heaps[b].is_large for b in rounds.uncertain):
        return False
    added = sum(b.bytes for b in rounds.added)
    most = min(MOST, MOST_ADDED // max(1, added), MOST if count is None else count)
    most = most if count is None else min(most, count * work // max(GRAIN, COPIED * added))
    if most < 2:
        return False
    _Parts(e, op, rounds).write(run, work, most, unit)
    return True


def _cost(block: Block) -> int:
    """About how many operations a block is, at least."""
    total = cost(block.ops)
    for op in block.ops:
        if op.name == "kernel":
            total += math.prod(_least(d) for d in op.attrs["domain"]) * cost(walk(op.regions[0]))
        elif op.name == "matmul":
            total += math.prod(op.result.type.bound) * op.operands[0].type.bound[-1]
        elif op.name == "for":
            trips = constant_of(op.operands[0])
            total += (1 if trips is None else int(trips)) * _cost(op.regions[0])
        elif op.regions:
            total += max(map(_cost, op.regions))
    return total


def _least(d: Any) -> int:
    """A size; one that depends on the run counts as little as a loop of unknown length, for it may be far from its
    bound: rows of a sparse matrix are."""
    return 1 if isinstance(d, Size) else int(d)


class _Parts:
    def __init__(self, e: Emitter, op: Op, rounds: Rounds):
        self.e, self.op, self.rounds = e, op, rounds
        self.carried = op.regions[0].args[1:]
        self.totals = [self.carried[i].type.dtype for i in rounds.sums]

    def write(self, run: Run, work: int, most: int, unit: int) -> None:
        e, op, b = self.e, self.op, self.e.builder
        count = e.env[op.operands[0]]
        inits = [e.env[v] if v.type.is_scalar else None for v in op.operands[1:]]
        parts, length = lengths(e, count, e.mul(count, index(work)), most, unit)
        sums = [e.slot(ir.ArrayType(storage_type(d), most)) for d in self.totals]
        statuses, records = e.slot(ir.ArrayType(I32, most)), e.slot(ir.ArrayType(I64, most * RECORD // 8))
        added = [e.memory.borrow(most * buffer.bytes) for buffer in self.rounds.added]
        heaps = [e.memory.heaps[buffer] for buffer in self.rounds.sequences]
        rows = [b.load(h.pointer, typ=PTR) for h in heaps]
        capacities = [b.load(h.capacity, typ=I64) for h in heaps]
        lent = [statuses, records, *sums, *added, *rows, *capacities]
        with new_function(e, op, [I64, I64, I64, *(v.type for v in lent)]) as (function, given, own):
            can_fail = self._part(run, own)
        run_parts(e, function, [*lent, *given], count, length, parts)
        for buffer, place in zip(self.rounds.added, added):
            self._add_up(buffer, place, parts)
        for place in added:
            e.memory.give_back(place)
        if can_fail:
            self._leave_with_first(statuses, records, parts)
        for i, step in self.rounds.steps.items():
            if (init := inits[i]) is not None:
                e.env[op.results[i]] = _stepped(e, self.carried[i], init, step, count)
        for i, d, place in zip(self.rounds.sums, self.totals, sums):
            e.env[op.results[i]] = self._total(d, place, parts, inits[i])

    # --- within a part

    def _part(self, run: Run, own: Sequence[ir.Value]) -> bool:
        """Writes the function of a part; whether it can fail."""
        e, rounds = self.e, self.rounds
        begin, count, k, statuses, records, *rest = own
        sums, rest = rest[: len(rounds.sums)], rest[len(rounds.sums) :]
        added, rest = rest[: len(rounds.added)], rest[len(rounds.added) :]
        rows, capacities = rest[: len(rounds.sequences)], rest[len(rounds.sequences) :]
        outside = e.threads, e.exit, e.status, e.error, e.memory.heaps
        e.threads, e.exit = False, e.new_block("exit")
        with e.builder.goto_block(e.exit):
            e.status = e.builder.phi(I32, "status")
        e.error = e.builder.gep(records, [e.mul(k, index(RECORD // 8))], source_etype=I64)
        e.memory.heaps = {b: self._sequence(b, *at) for b, *at in zip(rounds.sequences, rows, capacities)}
        freed = self._private()
        for buffer, place in zip(rounds.added, added):
            e.memory.bases[buffer] = e.builder.gep(place, [e.mul(k, index(buffer.bytes))], source_etype=I8)
            self._clear(buffer)
        inits = [self._init(i, v, begin) for i, v in enumerate(self.carried) if v.type.is_scalar]
        found = iter(run(count, inits, begin))
        ends = {i: next(found) for i, v in enumerate(self.carried) if v.type.is_scalar}
        for i, d, place in zip(rounds.sums, self.totals, sums):
            e.builder.store(ends[i], e.builder.gep(place, [k], source_etype=storage_type(d)))
        e.branch_out(0)
        e.builder.position_at_end(e.exit)
        if freed is not None:
            e.memory.give_back(e.builder.load(freed, typ=PTR))
        e.builder.store(e.status, e.builder.gep(statuses, [k], source_etype=I32))
        can_fail = len(e.status.incomings) > 1
        e.threads, e.exit, e.status, e.error, e.memory.heaps = outside
        return can_fail

    def _sequence(self, b: Buffer, pointer: ir.Value, capacity: ir.Value) -> Heap:
        """A sequence, which does not grow, as it is when the loop begins."""
        e, outer = self.e, self.e.memory.heaps[b]
        made = Heap(e.slot(PTR), e.slot(I64), outer.row_bytes, outer.kept, outer.is_tape)
        e.builder.store(pointer, made.pointer)
        e.builder.store(capacity, made.capacity)
        return made

    def _private(self) -> ir.Value | None:
        """Gives the private buffers their places: on the stack, or in memory that the slot that comes back holds."""
        e, sizes = self.e, [-(-b.bytes // 64) * 64 for b in self.rounds.private]
        freed = None
        if sum(sizes) > ON_STACK:
            freed = e.slot(PTR)
            with e.builder.goto_block(e.entry):
                e.builder.store(PTR(None), freed)
            base = e.memory.borrow(sum(sizes))
            e.builder.store(base, freed)
        for k, b in enumerate(self.rounds.private):
            if freed is None:
                count = max(1, math.prod(b.type.bound))
                e.memory.bases[b] = slot = e.slot(ir.ArrayType(storage_type(b.type.dtype), count))
                slot.align = 64
            else:
                e.memory.bases[b] = e.builder.gep(base, [index(sum(sizes[:k]))], source_etype=I8)
        return freed

    def _clear(self, buffer: Buffer) -> None:
        e, t = self.e, buffer.type
        zero = _zero(t.dtype)
        at = e.memory.bases[buffer]
        e.repeat(
            index(math.prod(t.bound)),
            lambda i: e.builder.store(zero, e.builder.gep(at, [i], source_etype=storage_type(t.dtype))),
        )

    def _init(self, i: int, v: Value, begin: ir.Value) -> ir.Value:
        if i in self.rounds.sums:
            return _zero(v.type.dtype)
        return _stepped(self.e, v, self.e.env[self.op.operands[1 + i]], self.rounds.steps[i], begin)

    # --- after the parts

    def _add_up(self, buffer: Buffer, place: ir.Value, parts: ir.Value) -> None:
        """Adds the totals of all parts to a buffer, in their order."""
        e, dtype, n = self.e, buffer.type.dtype, math.prod(buffer.type.bound)
        base, t = e.memory.bases[buffer], storage_type(buffer.type.dtype)

        def add(k: ir.Value, i: ir.Value) -> None:
            target = e.builder.gep(base, [i], source_etype=t)
            value = e.builder.load(e.builder.gep(place, [e.add(e.mul(k, index(n)), i)], source_etype=t), typ=t)
            e.builder.store(_add(e, dtype, e.builder.load(target, typ=t), value), target)

        e.repeat(parts, lambda k: e.repeat(index(n), lambda i: add(k, i)))

    def _total(self, dtype: DType, place: ir.Value, parts: ir.Value, init: ir.Value) -> ir.Value:
        e, t = self.e, storage_type(dtype)

        def step(k: ir.Value, total: ir.Value) -> list[ir.Value]:
            return [_add(e, dtype, total, e.builder.load(e.builder.gep(place, [k], source_etype=t), typ=t))]

        return e.loop(parts, [init], step)[0]

    def _leave_with_first(self, statuses: ir.Value, records: ir.Value, parts: ir.Value) -> None:
        e, b = self.e, self.e.builder

        def step(k: ir.Value) -> None:
            status = b.load(b.gep(statuses, [k], source_etype=I32), typ=I32)
            with b.if_then(b.icmp_signed("!=", status, I32(0)), likely=False):
                with b.if_then(b.icmp_unsigned("!=", e.error, PTR(None))):
                    for i in range(RECORD // 8):
                        at = b.gep(records, [e.add(e.mul(k, index(RECORD // 8)), index(i))], source_etype=I64)
                        b.store(b.load(at, typ=I64), b.gep(e.error, [index(i)], source_etype=I64))
                e.branch_out(1)

        e.repeat(parts, step)


def _stepped(e: Emitter, v: Value, init: ir.Value, step: int, rounds: ir.Value) -> ir.Value:
    """What a carried scalar is after some rounds."""
    if not step:
        return init
    t = init.type
    many = rounds if t == I64 else e.builder.trunc(rounds, t)
    return e.builder.add(init, e.builder.mul(many, t(step)))


def _zero(dtype: DType) -> ir.Constant:
    """What can be added to any number and leaves it as it is, the sign of a zero too."""
    return constant(dtype, complex(-0.0, -0.0) if dtype.kind == "c" else -0.0 if dtype.is_float else 0)


def _add(e: Emitter, dtype: DType, x: ir.Value, y: ir.Value) -> ir.Value:
    return emit_scalar(e.builder, "add", {}, [dtype, dtype], [x, y])
