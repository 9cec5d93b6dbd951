"""A plain C function beside the native one: numbers in, a number out.

``double NAME(double, ...)``, or ``double NAME(int, double *)`` with the numbers in an array; with a ``void *`` at the
end, which is not looked at, where the caller passes one. It returns NaN where the native function reports an error.
"""

from __future__ import annotations

from llvmlite import ir

from dflow.backends.emit.types import F64, I32, PTR


def add_c_entry(module: ir.Module, kernel: ir.Function, count: int, packed: bool, user_data: bool, name: str) -> None:
    """Adds the function ``name``, which calls ``kernel`` with ``count`` numbers."""
    parameters = [I32, PTR] if packed else [F64] * count
    f = ir.Function(module, ir.FunctionType(F64, [*parameters, *[PTR] * user_data]), name)
    b = ir.IRBuilder(f.append_basic_block("entry"))
    result = b.alloca(F64)
    values = list(f.args[:count])
    if packed:
        places = (b.gep(f.args[1], [I32(k)], source_etype=F64) for k in range(count))
        values = [b.load(p, typ=F64) for p in places]
    status = b.call(kernel, [*values, result, ir.Constant(PTR, None)])
    failed = b.icmp_signed("!=", status, I32(0))
    b.ret(b.select(failed, F64(float("nan")), b.load(result, typ=F64)))
