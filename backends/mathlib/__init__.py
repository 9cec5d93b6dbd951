"""Math functions as LLVM IR, one source for every target.

`math_function` gives an internal `alwaysinline` LLVM function free of branches and of calls to libm, so that a loop
over it vectorises once it is inlined. The exceptions: fmod loops, and sin, cos and tan call a guard whose vector forms
LLVM knows (`guard`), and whose body comes from shared code or from `complete`. Targets without fused multiply-add get
calls to `fma` from all but exp, log and fmod.

The largest errors, in units in the last place, as tests/test_mathlib.py holds them:

    f64   0.6  cbrt        0.8  exp, exp2, sin, cos      0.9  log1p, tan
          1    expm1, log, tanh, hypot, pow, erf, tgamma      1.2  asin, acos, cosh
          2    log2, log10, atan, atan2, sinh, asinh, acosh, atanh
          4    lgamma, digamma, erfc                     0    fmod
    f32   0.51 lgamma, tgamma, digamma, computed in f64       0    fmod
          0.6  cbrt        0.8  exp, exp2, hypot              0.9  log1p, pow
          1.2  expm1, log, asin, acos, cosh, erf         4    erfc        2.2  the others
          2    exp, exp2 on a GPU, by NVIDIA's account of the unit that they are left to

Between negative integers lgamma and digamma have zeros, beside which the error is 2^-52 instead.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from dflow.backends.mathlib import (
    error_function,
    exponential,
    gamma,
    inverse_trigonometry,
    logarithm,
    power,
    trigonometry,
)
from dflow.backends.mathlib.expr import F32, F64, FORMATS, Expr

Formula = Callable[..., Expr]

FORMULAS: dict[str, Formula] = {
    "exp": exponential.exp,
    "sin": trigonometry.sin,
    "cos": trigonometry.cos,
    "tan": trigonometry.tan,
    "atan": inverse_trigonometry.atan,
    "atan2": inverse_trigonometry.atan2,
    "asin": inverse_trigonometry.asin,
    "acos": inverse_trigonometry.acos,
    "exp2": exponential.exp2,
    "expm1": exponential.expm1,
    "sinh": exponential.sinh,
    "cosh": exponential.cosh,
    "tanh": exponential.tanh,
    "log": logarithm.log,
    "log2": logarithm.log2,
    "log10": logarithm.log10,
    "log1p": logarithm.log1p,
    "asinh": logarithm.asinh,
    "acosh": logarithm.acosh,
    "atanh": logarithm.atanh,
    "pow": power.pow,
    "cbrt": power.cbrt,
    "hypot": power.hypot,
    "erf": error_function.erf,
    "erfc": error_function.erfc,
    "lgamma": gamma.lgamma,
    "tgamma": gamma.tgamma,
    "digamma": gamma.digamma,
    "fmod": power.fmod,
}

MATH_FUNCTIONS: dict[str, int] = {name: 2 if name in ("pow", "atan2", "hypot", "fmod") else 1 for name in FORMULAS}

# What an f32 is computed by on a GPU.
IN_HARDWARE: dict[str, Formula] = {"exp": exponential.exp_in_hardware, "exp2": exponential.exp2_in_hardware}

# The formulas that compute an f32 result in f64; the others do so in f32.
WITHOUT_SINGLE = {"lgamma", "tgamma", "digamma", "fmod"}


def is_for_gpu(module: ir.Module) -> bool:
    return module.triple.startswith("nvptx")


def in_single_precision(name: str) -> bool:
    """Whether the f32 function needs no f64."""
    return name not in WITHOUT_SINGLE


def math_function(module: ir.Module, name: str, dtype: str) -> ir.Function:
    """The function `dflow.<name>.<dtype>` of `module` for dtype "f64" or "f32", defined on first use."""
    full_name = f"dflow.{name}.{dtype}"
    if full_name in module.globals:
        return module.globals[full_name]
    fmt = {"f64": F64, "f32": F32}[dtype]
    signature = ir.FunctionType(fmt.float_type, [fmt.float_type] * MATH_FUNCTIONS[name])
    function = ir.Function(module, signature, full_name)
    function.linkage = "internal"
    for attribute in ("alwaysinline", "nounwind", "readnone"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    args = [Expr(builder, arg) for arg in function.args]
    if dtype == "f32" and is_for_gpu(module) and name in trigonometry.FROM_REDUCED:
        result = trigonometry.in_single_precision(name, *args)
    elif dtype == "f32" and is_for_gpu(module) and name in IN_HARDWARE:
        result = IN_HARDWARE[name](*args)
    elif dtype == "f32" and name == "pow" and not is_for_gpu(module):
        result = power.pow_of_f32(*args)
    elif dtype == "f64" or in_single_precision(name):
        result = FORMULAS[name](*args)
    else:
        result = FORMULAS[name](*[arg.to_f64() for arg in args]).to_f32()
    builder.ret(result.value)
    return function


def complete(module: ir.Module) -> None:
    """Gives the guards that functions of the module call their bodies, where no other code has them."""
    for name in trigonometry.FROM_REDUCED:
        for dtype in FORMATS:
            guard = module.globals.get(f"dflow.{name}.guard.{dtype}")
            if guard is not None and not guard.blocks:
                made = trigonometry.define_guard(module, name, dtype)
                trigonometry.define_long_way(module, name, dtype)
                for function in made + trigonometry.define_vector_forms(module, name, dtype):
                    function.linkage = "internal"
