"""Matrix products."""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.emit_core import Emitter, emits
from dflow.backends.emit_kernel import fold
from dflow.backends.emit_scalar import emit_scalar
from dflow.ir.core import Op

At = list[ir.Value]


@emits("matmul")
def _matmul(e: Emitter, op: Op) -> None:
    x, y = op.operands

    def element(at: At) -> list[ir.Value]:
        *batch, i, j, k = at
        factors = [e.load(x, [*batch, i, k]), e.load(y, [*batch, k, j])]
        return [emit_scalar(e.builder, "mul", {}, [x.type.dtype] * 2, factors)]

    domain = [*op.result.type.shape, x.type.shape[-1]]
    fold(e, op.results, domain, 1, ("sum",), element, rows=True)
