"""Rows of a table side by side, each some rounds behind the one above (`waves.py`).

    for i in 0, 8, ...:
        for t in m + 7 * lag:
            for w in those of 8 for which there is a round:
                j = t - lag * w
                y[i + w, j] = f(...)

The processor begins with a round while it waits for others. Where rounds compute much, those of eight rows are vectors:
LLVM is told that they do not meet, and how wide the vectors are.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from dflow.backends.analysis.waves import ROWS, Waves, found_waves
from dflow.backends.emit.core import Emitter
from dflow.backends.emit.loop_hints import loop_id, vector_loop
from dflow.backends.emit.scalar import emit_scalar
from dflow.backends.emit.types import ZERO, constant, index, storage_type
from dflow.ir.core import Op, Value


def waves(e: Emitter, loop: Op) -> Waves | None:
    """How rows of ``loop`` go side by side, if they do."""
    return found_waves(loop, e.plan) if e.vectorizes else None


def in_waves(
    e: Emitter, loop: Op, found: Waves, count: ir.Value, inits: Sequence[ir.Value], begin: ir.Value
) -> list[ir.Value]:
    """Writes ``count`` rounds of ``loop`` from the one with the number ``begin`` on; the last values of its numbers."""
    made = _Waves(e, loop, found, begin)
    for a, x in zip(found.totals, inits):
        made.begin_total(a, x)
    made.write(count)
    return [made.total(a) for a in found.totals]


class _Waves:
    def __init__(self, e: Emitter, loop: Op, found: Waves, begin: ir.Value):
        self.e, self.found, self.begin, self.lag = e, found, begin, found.lag
        (self.row,), self.k = found.inner.regions, loop.regions[0].args[0]
        self.length = e.env[found.inner.operands[0]]
        carried = zip(self.row.args[1:], found.inner.operands[1:], self.row.results)
        self.carried = [(a, init, r) for a, init, r in carried if a.type.is_scalar]
        self.slots = {a: e.slot(ir.ArrayType(storage_type(a.type.dtype), ROWS)) for a, _, _ in self.carried}
        self.elsewhere = e.slot(ir.ArrayType(ir.DoubleType(), ROWS))
        self.alone = loop_id(e.module, ("llvm.loop.unroll.disable",), ("llvm.loop.vectorize.enable", 0))

    def write(self, count: ir.Value) -> None:
        e, b, length = self.e, self.e.builder, self.length
        ahead = index(self.lag * (ROWS - 1))
        times = b.select(b.icmp_signed(">", length, ZERO), e.add(length, ahead), ZERO)

        def rows(first: ir.Value) -> None:
            height = least(b, e.sub(count, first), index(ROWS))
            if not self.found.vectors:
                e.steps(ZERO, times, 1, lambda t: self.those_that_exist(first, t, height))
                return
            e.steps(ZERO, times, 1, lambda t: self.together(first, t, height))

        e.steps(ZERO, count, ROWS, rows)

    def those_that_exist(self, first: ir.Value, t: ir.Value, height: ir.Value) -> None:
        """The rounds at the time ``t``, of those of ``height`` rows that have one."""
        e, b, lag = self.e, self.e.builder, index(self.lag)
        low = b.udiv(greatest(b, e.add(e.sub(t, self.length), lag), ZERO), lag)
        high = least(b, e.add(b.udiv(t, lag), index(1)), height)

        def one(n: ir.Value) -> None:
            w = e.add(low, n)
            self.round(e.add(first, w), e.sub(t, e.mul(w, lag)), w)

        e.repeat(e.sub(high, low), one, self.alone)

    def together(self, first: ir.Value, t: ir.Value, height: ir.Value) -> None:
        """All rounds at the time ``t``. Where a row has none, it is as if it had its first or last, and what would be
        written goes elsewhere."""
        e, b = self.e, self.e.builder

        def one(w: ir.Value) -> Sequence[ir.Value]:
            j = e.sub(t, e.mul(w, index(self.lag)))
            exists = b.and_(b.icmp_signed("<", w, height), b.icmp_unsigned("<", j, self.length))
            j = least(b, greatest(b, j, ZERO), e.sub(self.length, index(1)))
            self.round(e.add(first, least(b, w, e.sub(height, index(1)))), j, w, exists)
            return ()

        vector_loop(e, ROWS, (), one)

    def round(self, i: ir.Value, j: ir.Value, w: ir.Value, exists: ir.Value | None = None) -> None:
        """Round ``j`` of row ``i``, which is number ``w`` of those that go side by side."""
        e, b = self.e, self.e.builder
        e.env[self.k], e.env[self.row.args[0]] = e.add(self.begin, i), j
        begins = b.icmp_signed("==", j, ZERO)
        for op in self.found.before:
            if op.result.type.is_scalar:
                self._write(op, w)
            elif exists is not None:
                self._write(op, w, b.and_(exists, begins))
            else:
                with b.if_then(begins):
                    self._write(op, w)
        for a, init, _ in self.carried:
            before = e.load_at(a, self._slot(a, w))
            e.env[a] = before if a in self.found.totals else b.select(begins, e.env[init], before)
        for op in self.row.ops:
            self._write(op, w, exists)
        for a, _, r in self.carried:
            counts = exists is None or a not in self.found.totals
            e.store_at(a, self._slot(a, w), e.env[r] if counts else b.select(exists, e.env[r], e.env[a]))

    def _write(self, op: Op, w: ir.Value, exists: ir.Value | None = None) -> None:
        """Writes ``op``; what it stores goes elsewhere unless ``exists``."""
        with self.e.memory.near(op):
            if exists is None or op.result.type.is_scalar:
                self.e.op(op)
            else:
                self._store(op, w, exists)

    def _store(self, op: Op, w: ir.Value, exists: ir.Value) -> None:
        e, (x, v, *at), dtype = self.e, op.operands, op.result.type.dtype
        address, value = e.address(x, [e.env[k] for k in at], write=True), e.env[v]
        if op.name == "update_add":
            value = emit_scalar(e.builder, "add", {}, [dtype, dtype], [e.load_at(x, address), value])
        elsewhere = e.builder.gep(self.elsewhere, [w], source_etype=ir.DoubleType())
        e.store_at(x, e.builder.select(exists, address, elsewhere), value)

    def begin_total(self, a: Value, x: ir.Value) -> None:
        """The first row has what there is before; the others have nothing, or that too if the greatest is wanted."""
        adds = self.found.totals[a].name in ("add", "sub")
        for w in range(ROWS):
            self.e.store_at(a, self._slot(a, index(w)), constant(a.type.dtype, -0.0) if adds and w else x)

    def total(self, a: Value) -> ir.Value:
        """Of all rows."""
        e, dtype, name = self.e, a.type.dtype, self.found.totals[a].name
        total, *others = (e.load_at(a, self._slot(a, index(w))) for w in range(ROWS))
        for x in others:
            total = emit_scalar(e.builder, "add" if name == "sub" else name, {}, [dtype, dtype], [total, x])
        return total

    def _slot(self, a: Value, w: ir.Value) -> ir.Value:
        return self.e.builder.gep(self.slots[a], [w], source_etype=storage_type(a.type.dtype))


def least(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed("<", x, y), x, y)


def greatest(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed(">", x, y), x, y)
