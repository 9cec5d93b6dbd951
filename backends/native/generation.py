"""From a `Plan` to machine code: LLVM's assembly language, its passes, object code.

compiled = compile_function(f)         lowered, emitted, optimized and loaded
generate(plan)                         object code alone, and what it was made from
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from dflow.backends.emit.function import Emitted, Options, emit
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.lowering.fusion import fuse
from dflow.backends.lowering.plan import Plan
from dflow.backends.native.engine import CompiledFunction
from dflow.backends.native.machine import COMPILING, has_avx512, has_masks, machine, optimize
from dflow.backends.native.object_code import ObjectCode
from dflow.backends.native.shared_code import shared_names
from dflow.backends.native.straight import call_repeated, is_straight, vectorizes
from dflow.ir.core import Function


def lower(f: Function) -> Plan:
    """Fusion and bufferization."""
    return bufferize(fuse(f))


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each stage of a compilation."""

    emit: float = 0
    optimize: float = 0
    generate: float = 0

    @property
    def total(self) -> float:
        return self.emit + self.optimize + self.generate


@dataclass(frozen=True)
class Generated:
    """What became of a plan."""

    object: ObjectCode
    emitted: Emitted
    optimized: llvm.ModuleRef
    timings: Timings

    @property
    def llvm(self) -> str:
        """LLVM's assembly language after optimization."""
        with COMPILING:
            return str(self.optimized)

    @property
    def asm(self) -> str:
        """The processor's assembly language."""
        with COMPILING:
            return str(machine().emit_assembly(self.optimized))


def compile_function(f: Function, **settings: Any) -> CompiledFunction:
    """Lowers, emits, optimizes and loads ``f``, with the settings of `compile_plan`."""
    return compile_plan(lower(f), **settings)


def compile_plan(
    plan: Plan,
    *,
    name: str | None = None,
    optimize_level: int = 2,
    options: Options | None = None,
    extend: Callable[[ir.Module, ir.Function], Sequence[str]] | None = None,
    symbols: Mapping[str, int] | None = None,
) -> CompiledFunction:
    """Emits, optimizes and loads ``plan``.

    ``extend(module, function)`` may add functions to the module (a native entry); it returns the names whose addresses
    are wanted (`CompiledFunction.addresses`). ``symbols`` are addresses that those functions refer to.
    """
    made = generate(plan, name=name, optimize_level=optimize_level, options=options, extend=extend)
    return CompiledFunction(made.object, plan.function, lambda: made, symbols or {}, plan.in_place)


def for_this_machine() -> Options:
    return Options(masks=has_masks(), avx512=has_avx512())


def generate(
    plan: Plan,
    *,
    name: str | None = None,
    optimize_level: int = 2,
    options: Options | None = None,
    extend: Callable[[ir.Module, ir.Function], Sequence[str]] | None = None,
) -> Generated:
    """Emits and optimizes ``plan``, and generates machine code; see `compile_plan`."""
    name = name or f"dflow.{plan.function.name}"  # "free" would be taken for the one of libc
    clock = [time.perf_counter()]
    emitted = emit(plan, name, options=options or for_this_machine())
    wanted = [name, *(extend(emitted.module, emitted.function) if extend else ())]
    release = emitted.release.name if emitted.release else None
    call_repeated(plan.function, emitted.module)
    vectorize = vectorizes(plan.function, emitted.module)
    clock.append(time.perf_counter())
    straight = is_straight(plan.function)
    with COMPILING:
        # Code generation finds nothing more in straight code at its higher levels.
        target = machine(optimize_level=min(optimize_level, 1) if straight else optimize_level)
        optimized = optimize(emitted.module, target, optimize_level, vectorize, straight)
        clock.append(time.perf_counter())
        code = target.emit_object(optimized)
        imports = [f.name for f in optimized.functions if f.is_declaration and not f.name.startswith("llvm.")]
    clock.append(time.perf_counter())
    wanted += [release] if release else []
    shared = [name for name in shared_names(emitted.module) if name.encode() + b"\0" in code]
    made = ObjectCode(name, code, emitted.checks, tuple(wanted), tuple(shared), tuple(imports), release)
    return Generated(made, emitted, optimized, Timings(*((b - a) * 1e3 for a, b in itertools.pairwise(clock))))
