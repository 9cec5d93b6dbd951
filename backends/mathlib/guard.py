"""A rare slow way that leaves loops over the common way vectorisable.

    result = guard(x, short_way(x))        guard(x, y) = y if |x| ≤ BOUND else long_way(x)

The call is unconditional and pure. LLVM vectorises a call when the attribute `vector-function-abi-variant` names a
vector form of the callee; ours asks whether any lane is huge and, if so, takes the lanes one by one. So the common case
pays a call and a comparison per vector, and every argument gets the right answer.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from dflow.backends.emit.types import declare
from dflow.backends.mathlib.expr import F64, Expr, Format

BOUND = 2.0**30

# Lanes of the vector forms: registers of 128, 256 and 512 bits.
LANES = {"f64": (2, 4, 8), "f32": (4, 8, 16)}


def guarded(name: str, x: Expr, short: Expr) -> Expr:
    """`short` where |x| ≤ BOUND or x is NaN, else what the long way of `name` gives."""
    scalar, *forms = declare_guard(x.builder.module, name, x.format)
    call = x.builder.call(scalar, [x.value, short.value])
    mappings = ",".join(f"_ZGV_LLVM_N{n}vv_{scalar.name}({form.name})" for n, form in zip(LANES[x.format.name], forms))
    # On the call, not on the function: the vector forms call it too, and would be made to call themselves.
    add_attribute(call, f'"vector-function-abi-variant"="{mappings}"')
    return Expr(x.builder, call)


def declare_guard(module: ir.Module, name: str, fmt: Format) -> list[ir.Function]:
    """The guard of `name` and its vector forms, without bodies at first."""
    scalar = f"dflow.{name}.guard.{fmt.name}"
    forms = {f"{scalar}.x{lanes}": lanes for lanes in LANES[fmt.name]}
    if scalar not in module.globals:
        new_function(module, scalar, fmt.float_type)
        for form, lanes in forms.items():
            keep(module, new_function(module, form, ir.VectorType(fmt.float_type, lanes)))
    return [module.globals[n] for n in (scalar, *forms)]


def write_guard(scalar: ir.Function) -> ir.Function:
    """Its body; what comes back is the function that it calls where |x| is huge."""
    return call_long_way(*compare_with_bound(scalar))


def write_long_way(function: ir.Function, long_way: Callable[[Expr], Expr]) -> None:
    """The body of a function that a guard calls; `long_way` works in f64."""
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    x = function.args[0]
    result = long_way(Expr(builder, x).to_f64())
    builder.ret((result if x.type == F64.float_type else result.to_f32()).value)


def write_vector_form(form: ir.Function, scalar: ir.Function) -> None:
    builder, is_huge = compare_with_bound(form)
    mask = builder.bitcast(is_huge, ir.IntType(form.args[0].type.count))
    function = call_long_way(builder, builder.icmp_unsigned("!=", mask, mask.type(0)))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    args, before, loop = builder.function.args, builder.block, builder.append_basic_block("lane")
    builder.branch(loop)
    builder.position_at_end(loop)
    lane, vector = builder.phi(ir.IntType(32)), builder.phi(args[1].type)
    one = builder.call(scalar, [builder.extract_element(arg, lane) for arg in args])
    changed, following = builder.insert_element(vector, one, lane), builder.add(lane, lane.type(1))
    for phi, start, step in ((lane, lane.type(0), following), (vector, args[1], changed)):
        phi.add_incoming(start, before)
        phi.add_incoming(step, loop)
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_unsigned("<", following, lane.type(args[0].type.count)), loop, done)
    builder.position_at_end(done)
    builder.ret(changed)


def new_function(module: ir.Module, name: str, value_type: ir.Type) -> ir.Function:
    """A pure function of two values; not inlined, for its branch would then be the loop's."""
    function = ir.Function(module, ir.FunctionType(value_type, [value_type, value_type]), name)
    for attribute in ("noinline", "nounwind", "readnone"):
        function.attributes.add(attribute)
    add_attribute(function, "willreturn")
    return function


def add_attribute(target: ir.Function | ir.Argument | ir.Instruction, text: str) -> None:
    """An attribute that llvmlite does not list; its set writes out whatever string it holds."""
    set.add(target.attributes, text)


def compare_with_bound(function: ir.Function) -> tuple[ir.IRBuilder, ir.Value]:
    """|x| > BOUND, in a new entry block, lane by lane if x is a vector."""
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    x = function.args[0]
    element, lanes = (x.type.element, x.type.count) if isinstance(x.type, ir.VectorType) else (x.type, 0)
    suffix = (f"v{lanes}" if lanes else "") + ("f64" if element == F64.float_type else "f32")
    magnitude = builder.call(declare(function.module, f"llvm.fabs.{suffix}", ir.FunctionType(x.type, [x.type])), [x])
    bound = ir.Constant(x.type, [BOUND] * lanes if lanes else BOUND)
    return builder, builder.fcmp_ordered(">", magnitude, bound)


def call_long_way(builder: ir.IRBuilder, condition: ir.Value) -> ir.Function:
    """Has a guard return its second argument where `condition` fails; where it holds, what a function of its own gives,
    which comes back without a body. So the short way needs neither registers of the long one nor its code."""
    guard = builder.function
    long_block, short_block = (builder.append_basic_block(name) for name in ("long_way", "short_way"))
    builder.cbranch(condition, long_block, short_block)
    builder.position_at_end(short_block)
    builder.ret(guard.args[1])
    builder.position_at_end(long_block)
    function = new_function(guard.module, f"{guard.name}.long", guard.args[0].type)
    builder.ret(builder.call(function, guard.args, tail=True))
    return function


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
