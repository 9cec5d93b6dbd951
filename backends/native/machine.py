"""Target machines, and LLVM's passes for them."""

from __future__ import annotations

import functools
import platform
import threading

import llvmlite.binding as llvm
from llvmlite import ir

COMPILING = threading.RLock()  # LLVM's context and its target machines serve one thread at a time


@functools.cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    # Whether two rows overlap is asked before each loop over them. Asked once for all rounds of the loop around, as
    # LLVM prefers, they would: the rows of a triangular system pass each other.
    llvm.set_option("dflow", "-hoist-runtime-checks=false")
    # How many accesses to memory are put in one order at once: beyond that the time grows with the square, for
    # thousands of accesses in a row (from 32 on fifty times as long for 2000).
    llvm.set_option("dflow", "-combiner-tokenfactor-inline-limit=8")


def _tuning() -> str:
    """Loops that read or write in strides are vectorized without instructions for it, which are slower than single
    loads and stores: otherwise LLVM prefers vectors across rows to those along them."""
    return ",+prefer-no-gather,+prefer-no-scatter" if platform.machine().lower() in ("x86_64", "amd64") else ""


@functools.cache
def machine(
    cpu: str = "host", triple: str | None = None, optimize_level: int = 2, position_independent: bool = True
) -> llvm.TargetMachine:
    """A target machine. ``cpu``: ``"host"`` for this one with all its features, or a name that LLVM knows."""
    _initialize()
    target = llvm.Target.from_triple(triple or llvm.get_process_triple())
    features = llvm.get_host_cpu_features().flatten() + _tuning() if cpu == "host" else ""
    name = llvm.get_host_cpu_name() if cpu == "host" else cpu
    return target.create_target_machine(
        cpu=name, features=features, opt=optimize_level, reloc="pic" if position_independent else "default"
    )


@functools.cache
def has_masks() -> bool:
    """Whether this processor reads vectors under masks."""
    return bool(llvm.get_host_cpu_features().get("avx2"))


@functools.cache
def has_avx512() -> bool:
    """Whether this processor compares into masks, and compresses vectors of any length by them."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512f") and features.get("avx512vl"))


def optimize(
    module: ir.Module | str,
    target: llvm.TargetMachine,
    level: int = 2,
    vectorize: bool = True,
    straight: bool = False,
) -> llvm.ModuleRef:
    """The module (or its text), checked by LLVM's verifier and optimized; to vectors of neighbouring numbers too, if
    ``vectorize``. Of what is ``straight``, passes of ours have left little to do.

    The result is checked too: LLVM 22's vectorizer of straight-line code (SLP) makes invalid code of some large
    functions, on which code generation would abort the process. Such a module is optimized without it.
    """
    parsed = parsed_module(module, target)
    if straight and level:
        _simplify(parsed, target)
        return parsed
    slp = vectorize and level > 1
    _run(parsed, target, level, slp)
    try:
        parsed.verify()
    except RuntimeError:
        if not slp:
            raise
        return optimize(module, target, level, vectorize=False)
    return parsed


def parsed_module(module: ir.Module | str, target: llvm.TargetMachine) -> llvm.ModuleRef:
    if isinstance(module, str):
        text = f'target triple = "{target.triple}"\ntarget datalayout = "{target.target_data}"\n{module}'
    else:
        module.triple, module.data_layout = target.triple, str(target.target_data)
        text = str(module)
    parsed = llvm.parse_assembly(text)
    parsed.verify()
    return parsed


def _run(module: llvm.ModuleRef, target: llvm.TargetMachine, level: int, slp: bool) -> None:
    """LLVM's own list of passes."""
    tuning = llvm.create_pipeline_tuning_options(speed_level=level)
    tuning.loop_vectorization = tuning.loop_interleaving = level > 1
    tuning.slp_vectorization = slp
    builder = llvm.create_pass_builder(target, tuning)
    builder.getModulePassManager().run(module, builder)


def _simplify(module: llvm.ModuleRef, target: llvm.TargetMachine) -> None:
    """Of LLVM's list, what straight code wants: a fifth of the time, and code as fast."""
    builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=2))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, builder)
