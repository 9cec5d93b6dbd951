"""From an LLVM module to PTX, for a processor that LLVM knows as ``sm_80`` and the like."""

from __future__ import annotations

import functools
import re

import llvmlite.binding as llvm
from llvmlite import ir

from dflow.backends.mathlib import complete
from dflow.backends.native.machine import COMPILING

TRIPLE = "nvptx64-nvidia-cuda"
OLDEST = 80  # atomics on f64 and f16, warp operations with a mask, asynchronous copies
DEFAULT = "sm_80"  # PTX for it runs on every later processor
# Later processors need a later version of the language.
LANGUAGE = {80: "", 86: "", 89: "+ptx78", 90: "+ptx78", 100: "+ptx86", 120: "+ptx87"}


class TargetError(ValueError):
    """No processor of that name can be compiled for."""


def check_target(name: str) -> str:
    """The name itself, if it is that of a processor new enough."""
    found = re.fullmatch(r"sm_(\d+)", name)
    if not found or int(found[1]) not in LANGUAGE:
        known = ", ".join(f"sm_{n}" for n in LANGUAGE)
        raise TargetError(f"cannot compile for {name!r}; known are {known}")
    return name


def nearest(capability: tuple[int, int]) -> str:
    """The newest known processor that a device of a compute capability such as (8, 6) runs code for."""
    number = 10 * capability[0] + capability[1]
    fitting = [n for n in LANGUAGE if n <= number]
    if not fitting:
        raise TargetError(f"the device has compute capability {capability[0]}.{capability[1]}; 8.0 is needed")
    return f"sm_{max(fitting)}"


@functools.cache
def machine(target: str) -> llvm.TargetMachine:
    """The target machine for a processor."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    features = LANGUAGE[int(check_target(target)[3:])]
    return llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=target, features=features, opt=3)


def to_llvm(module: ir.Module, target: str) -> llvm.ModuleRef:
    """The module optimized for a processor. The caller holds ``COMPILING``."""
    made = machine(target)
    complete(module)
    _drop_vector_forms(module)
    module.triple, module.data_layout = TRIPLE, str(made.target_data)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.loop_interleaving = tuning.slp_vectorization = False  # a thread is one lane
    builder = llvm.create_pass_builder(made, tuning)
    builder.getModulePassManager().run(parsed, builder)
    parsed.verify()
    return parsed


def to_ptx(module: ir.Module, target: str) -> str:
    """PTX of the module, whose kernels have the calling convention ``ptx_kernel``."""
    with COMPILING:
        return str(machine(target).emit_assembly(to_llvm(module, target)))


def _drop_vector_forms(module: ir.Module) -> None:
    """The vector forms of slow ways (`mathlib.guard`) are for processors with vectors."""
    module.globals.pop("llvm.compiler.used", None)
