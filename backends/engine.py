"""From a function or a plan to machine code in memory, and to a callable that goes there through ctypes.

    compiled = compile_function(f)
    compiled(x, y)                     a tuple of NumPy results; raises what a failed check asks for
    compiled.llvm, compiled.asm        what became of it, made when asked for

All code of a process shares one linker (ORC), each function being a library of its own, which is unloaded with its
`CompiledFunction`. Code refers to addresses of the process (libc, BLAS, CPython) by symbol, so that the same object
code serves in another process.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import platform
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from dflow.backends import blas, object_cache, result_memory, thread_pool, threads
from dflow.backends.emit import OUT_OF_MEMORY, Check, Emitted, Options, by_value, emit
from dflow.backends.object_code import ObjectCode
from dflow.backends.plan import Plan
from dflow.backends.shared_code import SharedCode, shared_names
from dflow.backends.straight import call_repeated, is_straight, vectorizes
from dflow.ir.core import Function
from dflow.ir.failures import made
from dflow.ir.types import TensorType

COMPILING = threading.RLock()  # LLVM's context and its target machines serve one thread at a time
_NUMBER = itertools.count()


def lower(f: Function) -> Plan:
    """Fusion and bufferization."""
    from dflow.backends.bufferize import bufferize
    from dflow.backends.fusion import fuse

    return bufferize(fuse(f))


@functools.cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


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
def _linker() -> llvm.LLJIT:
    # The linker owns its target machine, so this is not the one that code generation uses.
    return llvm.create_lljit_compiler(machine.__wrapped__())


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
    parsed = _parsed(module, target)
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


def _parsed(module: ir.Module | str, target: llvm.TargetMachine) -> llvm.ModuleRef:
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
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, builder)


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


class CompiledFunction:
    """Machine code of one function. It stays loaded as long as this object lives.

    ``f`` has the types of its arguments and results, ``in_place`` is the plan's; ``generate`` makes what the code was
    made from, when it is asked for.
    """

    def __init__(
        self,
        object: ObjectCode,
        f: Function,
        generate: Callable[[], Generated],
        symbols: Mapping[str, int],
        in_place: Mapping[int, int],
    ):
        self.function, self.checks, self.name = f, object.checks, object.name
        self.in_place = in_place
        self._generate = generate
        self._tracker, self.addresses = _link(object, symbols)
        self.address = self.addresses[self.name]
        if object.release:
            # The finalizer has a reference to the code, so it is still there.
            release = ctypes.CFUNCTYPE(None)(self.addresses[object.release])
            weakref.finalize(self, lambda code, free: free(), self._tracker, release).atexit = False

    @functools.cached_property
    def _generated(self) -> Generated:
        return self._generate()

    @property
    def timings(self) -> Timings:
        return self._generated.timings

    @property
    def unoptimized(self) -> str:
        """LLVM's assembly language as it was emitted."""
        return str(self._generated.emitted.module)

    @property
    def llvm(self) -> str:
        return self._generated.llvm

    @property
    def asm(self) -> str:
        return self._generated.asm

    @functools.cached_property
    def _call(self) -> Callable[..., int]:
        f = self.function
        args = [_scalar_ctype(t) if by_value(t) else ctypes.c_void_p for t in f.arg_types]
        pointers = [ctypes.c_void_p] * (len(f.results) + 1)
        return ctypes.CFUNCTYPE(ctypes.c_int32, *args, *pointers)(self.address)

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """The plain way in: arguments are converted to the types of the function, and stay as they are."""
        f = self.function
        if len(args) != len(f.args):
            raise TypeError(f"{f.name} takes {len(f.args)} arguments, got {len(args)}")
        arrays = [_checked(a, t, k) for k, (a, t) in enumerate(zip(args, f.arg_types))]
        for i in self.in_place.values():
            arrays[i] = arrays[i].copy()
        results = [
            arrays[self.in_place[k]] if k in self.in_place else np.zeros(t.bound, t.dtype.numpy)
            for k, t in enumerate(f.result_types)
        ]
        passed = [_value(a, t) if by_value(t) else a.ctypes.data for a, t in zip(arrays, f.arg_types)]
        error = (ctypes.c_int64 * 4)()
        if self._call(*passed, *(r.ctypes.data for r in results), ctypes.addressof(error)):
            raise_error(self.checks, error[0], tuple(error[1:4]))
        return tuple(r if r.shape else r[()] for r in results)


def raise_error(checks: Sequence[Check], code: int, details: tuple[int, ...]) -> None:
    """Raises what a native function reported; the exception has the check's ``location``."""
    if code == OUT_OF_MEMORY:
        raise MemoryError("native code could not get the memory that it needs")
    check = checks[code]
    error = made(check.error, check.message, details)
    error.location = check.location  # type: ignore[attr-defined]
    if check.location is not None:
        error.add_note(f"at {check.location}")
    raise error


def compile_function(
    f: Function,
    *,
    name: str | None = None,
    optimize_level: int = 2,
    options: Options | None = None,
    extend: Callable[[ir.Module, ir.Function], Sequence[str]] | None = None,
    symbols: Mapping[str, int] | None = None,
) -> CompiledFunction:
    """Lowers, emits, optimizes and loads ``f``; see `compile_plan`."""
    return compile_plan(
        lower(f), name=name, optimize_level=optimize_level, options=options, extend=extend, symbols=symbols
    )


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
    emitted = emit(plan, name, options=options)
    wanted = [name, *(extend(emitted.module, emitted.function) if extend else ())]
    release = emitted.release.name if emitted.release else None
    call_repeated(plan.function, emitted.module)
    vectorize = vectorizes(plan.function, emitted.module)
    clock.append(time.perf_counter())
    with COMPILING:
        target = machine(optimize_level=optimize_level)
        optimized = optimize(emitted.module, target, optimize_level, vectorize, is_straight(plan.function))
        clock.append(time.perf_counter())
        code = target.emit_object(optimized)
        imports = [f.name for f in optimized.functions if f.is_declaration and not f.name.startswith("llvm.")]
    clock.append(time.perf_counter())
    wanted += [release] if release else []
    shared = [name for name in shared_names(emitted.module) if name.encode() + b"\0" in code]
    made = ObjectCode(name, code, emitted.checks, tuple(wanted), tuple(shared), tuple(imports), release)
    return Generated(made, emitted, optimized, Timings(*((b - a) * 1e3 for a, b in itertools.pairwise(clock))))


def _link(object: ObjectCode, symbols: Mapping[str, int]) -> tuple[Any, dict[str, int]]:
    """Loads the code: what keeps it loaded, and its addresses."""
    with COMPILING:
        known = {**_SHARED.addresses(list(object.shared)), **symbols, **_symbols_when_needed(object.imports)}
        tracker = load(object.code, object.wanted, known)
    return tracker, {n: int(tracker[n]) for n in object.wanted}


def load(code: bytes, wanted: Sequence[str], symbols: Mapping[str, int]) -> Any:
    """Links object code into the process; what comes back knows the addresses of ``wanted`` and keeps them alive."""
    builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    for name in wanted:
        builder.export_symbol(name)
    for name, address in symbols.items():
        builder.import_symbol(name, address)
    return builder.link(_linker(), f"dflow{next(_NUMBER)}")


def load_for_good(
    which: str, make: Callable[[], tuple[ir.Module | str, Sequence[str]]], symbols: Mapping[str, int], level: int = 2
) -> dict[str, int]:
    """The addresses of functions that many programs share: those that ``make`` names beside the module that has them.
    ``which`` says which module that is, ``symbols`` are addresses that it refers to.

    Of LLVM's passes none run; ``level`` is asked of code generation. The code stays in the process until it ends, in
    whatever order an interpreter forgets its modules: objects may outlive them, and threads sleep in it.
    """
    key = object_cache.digest("shared", which)
    data = object_cache.read(key)
    if data is None:
        module, wanted = make()
        with COMPILING:
            target = machine(optimize_level=level)
            data = ",".join(wanted).encode() + b"\n" + target.emit_object(_parsed(module, target))
        object_cache.write(key, data)
    listed, _, code = data.partition(b"\n")
    names = listed.decode().split(",")
    with COMPILING:
        tracker = load(code, names, symbols)
    for kept in (_linker(), tracker):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    return {name: int(tracker[name]) for name in names}


@functools.cache
def _pool() -> dict[str, int]:
    """The symbols of the pool of threads."""
    names = (thread_pool.SYMBOL, thread_pool.LIMIT)
    return threads.symbols(load_for_good("thread pool", lambda: (thread_pool.text(), names), {}))


_SHARED = SharedCode(load_for_good)


def _symbols_when_needed(names: Sequence[str]) -> dict[str, int]:
    """Addresses, among ``names``, of what not every process needs: BLAS and LAPACK, memory for large
    results, and threads."""
    found = {name: blas.address(name) for name in names if name.startswith(blas.PREFIXES)}
    if result_memory.SYMBOL in names:
        found[result_memory.SYMBOL] = result_memory.address()
    if thread_pool.SYMBOL in names:
        found |= _pool()
    return found


def _scalar_ctype(t: TensorType) -> Any:
    """f16 has no ctype: a half travels in the low bits of a float's register."""
    if t.dtype.name == "f16":
        return ctypes.c_float
    if t.dtype.name == "bf16":
        return ctypes.c_uint16
    return ctypes.c_uint8 if t.dtype.kind == "b" else np.ctypeslib.as_ctypes_type(t.dtype.numpy)


def _value(a: Any, t: TensorType) -> Any:
    if t.dtype.name == "f16":
        return float(np.array([a, 0], np.float16).view(np.float32)[0])
    return a.view(np.uint16).item() if t.dtype.name == "bf16" else a.item()


def _checked(a: Any, t: TensorType, position: int) -> Any:
    array = np.ascontiguousarray(a, t.dtype.numpy).reshape(np.shape(a))
    if array.shape != t.bound:
        raise TypeError(f"argument {position} must have shape {t.bound}, got {array.shape}")
    return array


__all__ = [
    "CompiledFunction",
    "Generated",
    "Timings",
    "compile_function",
    "compile_plan",
    "generate",
    "load",
    "lower",
    "machine",
    "optimize",
    "raise_error",
]
