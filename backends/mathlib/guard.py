"""A rare slow way that leaves loops over the common way vectorisable.

    result = guard(x, short_way(x))        guard(x, y) = y if |x| ≤ BOUND else long_way(x)

The call is unconditional and pure. LLVM vectorises a call when the attribute `vector-function-abi-variant` names a
vector form of the callee; ours asks whether any lane is huge and, if so, takes the lanes one by one. So the common case
pays a call and a comparison per vector, and every argument gets the right answer.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from dflow.backends.mathlib.expr import F64, Expr, Format, declare

BOUND = 2.0**30

# Lanes of the vector forms: registers of 128, 256 and 512 bits.
LANES = {"f64": (2, 4, 8), "f32": (4, 8, 16)}


def guarded(name: str, x: Expr, short: Expr, long_way: Callable[[Expr], Expr]) -> Expr:
    """`short` where |x| ≤ BOUND or x is NaN, else `long_way(x)`, which works in f64."""
    module = x.builder.module
    full_name = f"dflow.{name}.guard.{x.format.name}"
    function = module.globals.get(full_name) or define(module, full_name, x.format, long_way)
    call = x.builder.call(function, [x.value, short.value])
    mappings = ",".join(f"_ZGV_LLVM_N{n}vv_{full_name}({full_name}.x{n})" for n in LANES[x.format.name])
    # On the call, not on the function: the vector forms call it too, and would be made to call themselves.
    add_attribute(call, f'"vector-function-abi-variant"="{mappings}"')
    return Expr(x.builder, call)


def define(module: ir.Module, name: str, fmt: Format, long_way: Callable[[Expr], Expr]) -> ir.Function:
    scalar = new_function(module, name, fmt.float_type)
    builder, is_huge = compare_with_bound(scalar, fmt.name)
    return_short_unless(builder, is_huge)
    result = long_way(Expr(builder, scalar.args[0]).to_f64())
    builder.ret((result if fmt is F64 else result.to_f32()).value)
    for lanes in LANES[fmt.name]:
        define_vector_form(module, scalar, fmt, lanes)
    return scalar


def define_vector_form(module: ir.Module, scalar: ir.Function, fmt: Format, lanes: int) -> None:
    form = new_function(module, f"{scalar.name}.x{lanes}", ir.VectorType(fmt.float_type, lanes))
    keep(module, form)
    builder, is_huge = compare_with_bound(form, f"v{lanes}{fmt.name}")
    mask = builder.bitcast(is_huge, ir.IntType(lanes))
    return_short_unless(builder, builder.icmp_unsigned("!=", mask, mask.type(0)))
    result: ir.Value = form.args[1]
    for lane in range(lanes):
        index = ir.IntType(32)(lane)
        lane_args = [builder.extract_element(arg, index) for arg in form.args]
        result = builder.insert_element(result, builder.call(scalar, lane_args), index)
    builder.ret(result)


def new_function(module: ir.Module, name: str, value_type: ir.Type) -> ir.Function:
    """A pure function of two values; not inlined, for its branch would then be the loop's."""
    function = ir.Function(module, ir.FunctionType(value_type, [value_type, value_type]), name)
    function.linkage = "internal"
    for attribute in ("noinline", "nounwind", "readnone"):
        function.attributes.add(attribute)
    add_attribute(function, "willreturn")
    return function


def add_attribute(target: ir.Function | ir.Argument | ir.Instruction, text: str) -> None:
    """An attribute that llvmlite does not list; its set writes out whatever string it holds."""
    set.add(target.attributes, text)


def compare_with_bound(function: ir.Function, suffix: str) -> tuple[ir.IRBuilder, ir.Value]:
    """|x| > BOUND, in a new entry block, lane by lane if x is a vector."""
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    x = function.args[0]
    magnitude = builder.call(declare(function.module, f"llvm.fabs.{suffix}", ir.FunctionType(x.type, [x.type])), [x])
    is_vector = isinstance(x.type, ir.VectorType)
    bound = ir.Constant(x.type, [BOUND] * x.type.count if is_vector else BOUND)
    return builder, builder.fcmp_ordered(">", magnitude, bound)


def return_short_unless(builder: ir.IRBuilder, condition: ir.Value) -> None:
    """Returns the second argument where `condition` fails, and goes on building where it holds."""
    long_block = builder.append_basic_block("long_way")
    short_block = builder.append_basic_block("short_way")
    builder.cbranch(condition, long_block, short_block)
    builder.position_at_end(short_block)
    builder.ret(builder.function.args[1])
    builder.position_at_end(long_block)


def keep(module: ir.Module, function: ir.Function) -> None:
    """Lists `function` in `llvm.compiler.used`: only an attribute's string refers to it until loops are vectorised."""
    used = module.globals.get("llvm.compiler.used")
    pointer = ir.IntType(8).as_pointer()
    members = list(used.initializer.constant) if used else []
    members.append(function.bitcast(pointer))
    array = ir.ArrayType(pointer, len(members))
    if used is None:
        used = ir.GlobalVariable(module, array, "llvm.compiler.used")
        used.linkage = "appending"
        used.section = "llvm.metadata"
    used.value_type = array
    used.type = array.as_pointer()
    used.initializer = ir.Constant(array, members)
