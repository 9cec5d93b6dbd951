"""Fourier transforms along one axis.

One function for each dtype and size does a row, or as many columns as a vector has lanes (`radix_fourier.py`). Threads
share the rows and columns.
"""

from __future__ import annotations

import math

from llvmlite import ir

from dflow.backends.emit.core import Domain, Emitter, emits
from dflow.backends.emit.parts import with_memory
from dflow.backends.emit.radix_fourier import lanes_of, of_columns, of_row, scratch_bytes
from dflow.backends.emit.types import ZERO, index
from dflow.ir.core import Op

At = list[ir.Value]


@emits("fourier")
def _fourier(e: Emitter, op: Op) -> None:
    (x,), y, axis, inverse = op.operands, op.result, op.attrs["axis"], op.attrs["inverse"]
    if 0 in y.type.bound:
        return
    dtype, n = x.type.dtype, int(x.type.shape[axis])
    lead, inner = x.type.shape[:axis], math.prod(x.type.bound[axis + 1 :])
    columns = min(lanes_of(dtype), 1 << (inner.bit_length() - 1))
    if inner == 1:
        function = of_row(e.module, dtype, n, inverse)
    else:
        function = of_columns(e.module, dtype, n, columns, inner, inverse)
    groups = -(-inner // columns)
    ops = 2 * n * max(1, n.bit_length()) * columns

    def all_of_them(domain: Domain, scratch: ir.Value) -> None:
        def one(at: At) -> None:
            *row, group = at
            start = e.mul(group, index(columns))
            if inner % columns:  # the last group begins inside of that before
                far = e.builder.icmp_signed(">", start, index(inner - columns))
                start = e.builder.select(far, index(inner - columns), start)
            here = [*row, *[ZERO] * (x.type.rank - len(row))]
            source, target = e.address(x, here), e.address(y, here, write=True)
            e.builder.call(function, [e.offset(source, x.type, start), e.offset(target, y.type, start), scratch])

        e.nest(domain, one, ops)

    with_memory(e, op, (*lead, groups), ops, scratch_bytes(dtype, n, columns), all_of_them)
