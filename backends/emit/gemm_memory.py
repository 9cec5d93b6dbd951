"""Memory for the copies that a product of matrices makes (`gemm.py`): too much for the stack of any thread, and kept
for the next product, as fresh pages cost more than a small one takes. In C:

    void *take() {
        for (each of the places) if (block = exchange(place, NULL)) return block;
        return malloc(size);
    }
    void put(block) {
        for (each of the places) if (it is NULL, and now block) return;
        free(block);
    }

Each exchange is atomic, so any thread may do this at any time.
"""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.emit.function_writer import FunctionWriter, internal_function
from dflow.backends.emit.types import I64, PTR, VOID, ZERO, declare, index

PLACES = 16


class Kept:
    """Blocks of ``size`` bytes, for the functions of one module."""

    def __init__(self, module: ir.Module, size: int):
        self.module, self.size = module, size
        t = ir.ArrayType(I64, PLACES)
        self.places = module.globals.get("dflow.gemm.kept") or ir.GlobalVariable(module, t, "dflow.gemm.kept")
        self.places.linkage, self.places.initializer = "internal", t([0] * PLACES)

    def take(self) -> ir.Function:
        """``void take(address of the address)``, which becomes NULL where there is no memory."""
        f, fresh = internal_function(self.module, "dflow.gemm.take", [PTR])
        if fresh:
            w = FunctionWriter(f)

            def look(k: ir.Value) -> None:
                place = w.at(self.places, k)
                with w.b.if_then(w.b.icmp_unsigned("!=", w.b.load_atomic(place, "monotonic", 8, typ=I64), ZERO)):
                    block = w.b.atomic_rmw("xchg", place, ZERO, "acquire")
                    with w.b.if_then(w.b.icmp_unsigned("!=", block, ZERO)):
                        w.b.store(block, f.args[0])
                        w.b.ret_void()

            w.count(ZERO, index(PLACES), look)
            malloc = declare(self.module, "malloc", ir.FunctionType(PTR, [I64]))
            w.b.store(w.b.call(malloc, [index(self.size)]), f.args[0])
            w.b.ret_void()
        return f

    def put(self) -> ir.Function:
        """``void put(address)``"""
        f, fresh = internal_function(self.module, "dflow.gemm.put", [PTR])
        if fresh:
            w = FunctionWriter(f)
            block = w.b.ptrtoint(f.args[0], I64)

            def keep(k: ir.Value) -> None:
                found = w.b.cmpxchg(w.at(self.places, k), ZERO, block, "release", "monotonic")
                with w.b.if_then(w.b.extract_value(found, 1)):
                    w.b.ret_void()

            w.count(ZERO, index(PLACES), keep)
            w.b.call(declare(self.module, "free", ir.FunctionType(VOID, [PTR])), [f.args[0]])
            w.b.ret_void()
        return f
