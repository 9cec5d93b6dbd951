"""A plan as one LLVM function with the native interface.

    i32 NAME(args..., results..., ptr error)

Scalars come by value (``bool`` as a byte; complex ones by pointer), arrays as pointers to contiguous row-major data,
results as pointers to memory of the caller, which overlaps neither the arguments nor other results. An array with a
size that is known at run time has the room of its bound: strides follow the bounds, and elements beyond the size are
left alone.

The function returns 0, or 1 after an error. Then the record behind ``error`` (which may be NULL) holds the number of
the failed check and its details: ``{i64 code, i64 details[3]}``; code -1 says that memory ran out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from dflow.backends.emit import control as emit_control  # noqa: F401
from dflow.backends.emit import extremes as emit_extremes  # noqa: F401
from dflow.backends.emit import fourier as emit_fourier  # noqa: F401
from dflow.backends.emit import indexing as emit_indexing  # noqa: F401
from dflow.backends.emit import kernel as emit_kernel  # noqa: F401
from dflow.backends.emit import lapack as emit_lapack  # noqa: F401
from dflow.backends.emit import linalg as emit_linalg  # noqa: F401
from dflow.backends.emit import pointwise as emit_pointwise  # noqa: F401
from dflow.backends.emit import print as emit_print  # noqa: F401
from dflow.backends.emit import sort as emit_sort  # noqa: F401
from dflow.backends.emit import spectra as emit_spectra  # noqa: F401
from dflow.backends.emit.core import Emitter, Options
from dflow.backends.emit.memory import Memory
from dflow.backends.emit.pieces import in_pieces, is_long
from dflow.backends.emit.types import I32, NOT_KEPT, PTR, from_storage, storage_type, to_storage
from dflow.backends.interface import Check, by_value
from dflow.backends.lowering.plan import Plan
from dflow.backends.native.straight import is_straight
from dflow.ir.types import TensorType


@dataclass(frozen=True)
class Emitted:
    """``checks[code]`` is what an error code means. ``release``, if any, is a function without arguments that gives
    back the memory kept between calls; it is for the time when no call will follow."""

    module: ir.Module
    function: ir.Function
    checks: tuple[Check, ...]
    release: ir.Function | None = None


def signature(args: Sequence[TensorType], results: Sequence[TensorType]) -> ir.FunctionType:
    values = [storage_type(t.dtype) if by_value(t) else PTR for t in args]
    return ir.FunctionType(I32, [*values, *(PTR for _ in results), PTR])


def emit(plan: Plan, name: str, module: ir.Module | None = None, options: Options | None = None) -> Emitted:
    """Adds ``plan`` to ``module`` (or a new one) as the function ``name``."""
    f = plan.function
    module = module or ir.Module(name)
    function = ir.Function(module, signature(f.arg_types, f.result_types), name)
    _describe_arguments(function, plan)
    e = Emitter(plan, function, options or Options())
    e.straight = is_straight(f)
    for value, arg in zip(f.args, function.args):
        t = value.type
        if t.is_scalar:
            stored = arg if by_value(t) else e.builder.load(arg, typ=storage_type(t.dtype))
            e.env[value] = from_storage(e.builder, t.dtype, stored)
    long = is_long(e)
    e.memory = Memory(e, stack=not long)
    found = in_pieces(e) if long else e.block(f.body)
    for k, (value, register) in enumerate(zip(f.results, found)):
        if register is not None:
            e.builder.store(to_storage(e.builder, value.type.dtype, register), function.args[len(f.args) + k])
    e.end(e.memory.leave)
    return Emitted(module, function, tuple(e.checks), e.memory.release_function())


def _describe_arguments(function: ir.Function, plan: Plan) -> None:
    """Arguments may overlap each other, but nobody writes them, and of memory that is only read ``noalias`` says
    nothing."""
    f = plan.function
    for arg, t in zip(function.args, [*f.arg_types, *f.result_types]):
        if isinstance(arg.type, ir.PointerType):
            arg.add_attribute("noalias")
            arg.add_attribute(NOT_KEPT)
            if t.is_static:
                count = 1
                for size in t.static_shape:
                    count *= size
                arg.attributes.dereferenceable = count * t.dtype.itemsize
    function.attributes.add("nounwind")


__all__ = ["Emitted", "Options", "emit", "signature"]
