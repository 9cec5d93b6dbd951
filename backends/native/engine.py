"""Machine code in memory, and callables that go there through ctypes.

    compiled(x, y)                     a tuple of NumPy results; raises what a failed check asks for
    compiled.llvm, compiled.asm        what it was made from, made when asked for

All code of a process shares one linker (ORC), each function being a library of its own, which is unloaded with its
`CompiledFunction`. Code refers to addresses of the process (libc, BLAS, CPython) by symbol, so that the same object
code serves in another process. What generates code (`generation.py`) is not imported where all is found on disk.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import platform
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm
import numpy as np

from dflow.backends.interface import OUT_OF_MEMORY, Check, by_value
from dflow.backends.lowering.large_products import GEMM
from dflow.backends.native import blas, half_conversions, object_cache, result_memory, thread_pool, threads
from dflow.backends.native.machine import COMPILING, machine, optimize, parsed_module
from dflow.backends.native.object_code import ObjectCode
from dflow.backends.native.shared_code import SharedCode
from dflow.ir.core import Function
from dflow.ir.failures import made
from dflow.ir.types import TensorType

if TYPE_CHECKING:
    from llvmlite import ir

    from dflow.backends.native.generation import Generated, Timings

_NUMBER = itertools.count()


@functools.cache
def _linker() -> llvm.LLJIT:
    # The linker owns its target machine, so this is not the one that code generation uses. ARM's addresses reach some
    # GiB: LLVM's older linker puts code and constants anywhere, and aborts the process where they are too far apart.
    reaches_far = platform.machine().lower() not in ("arm64", "aarch64")
    return llvm.create_lljit_compiler(machine.__wrapped__(), use_jit_link=not reaches_far)


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

    def forget(self, generate: Callable[[], Generated]) -> None:
        """Keeps nothing of what the code was made from, which ``generate`` makes again."""
        self.__dict__.pop("_generated", None)
        self._generate = generate

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


def _link(object: ObjectCode, symbols: Mapping[str, int]) -> tuple[Any, dict[str, int]]:
    """Loads the code: what keeps it loaded, and its addresses."""
    with COMPILING:
        known = {**_SHARED.addresses(list(object.shared)), **symbols, **_symbols_when_needed(object.imports)}
        if any(name.encode() in object.code for name in half_conversions.NAMES):
            known |= _half_conversions()
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
    which: str,
    make: Callable[[], tuple[ir.Module | str, Sequence[str]]],
    symbols: Mapping[str, int],
    level: int = 2,
    has_variables: bool = False,
) -> dict[str, int]:
    """The addresses of functions that many programs share: those that ``make`` names beside the module that has them.
    ``which`` says which module that is, ``symbols`` are addresses that it refers to.

    Of LLVM's passes none run, but those that make registers of what ``has_variables``; ``level`` is asked of code
    generation. The code stays in the process until it ends, in
    whatever order an interpreter forgets its modules: objects may outlive them, and threads sleep in it.
    """
    key = object_cache.digest("shared", which)
    data = object_cache.read(key)
    if data is None:
        module, wanted = make()
        with COMPILING:
            target = machine(optimize_level=level)
            made = optimize(module, target, straight=True) if has_variables else parsed_module(module, target)
            data = ",".join(wanted).encode() + b"\n" + target.emit_object(made)
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
    names = (thread_pool.SYMBOL, thread_pool.LIMIT, thread_pool.PATIENCE)
    return threads.symbols(load_for_good("thread pool", lambda: (thread_pool.text(), names), {}))


@functools.cache
def _gemm(name: str) -> int:
    """The address of a function that multiplies matrices."""

    def make() -> tuple[ir.Module, list[str]]:
        from dflow.backends.emit import gemm  # where it is not found on disk

        return gemm.module(name, gemm.Tile.of(llvm.get_host_cpu_features())), [name]

    return load_for_good(name, make, _pool(), has_variables=True)[name]


@functools.cache
def _half_conversions() -> dict[str, int]:
    """What code generation calls where the processor converts no f16; IR does not show it."""
    return load_for_good("f16", lambda: (half_conversions.TEXT, half_conversions.NAMES), {})


_SHARED = SharedCode(load_for_good)


def _symbols_when_needed(names: Sequence[str]) -> dict[str, int]:
    """Addresses, among ``names``, of what not every process needs: products of matrices, BLAS and LAPACK, memory for
    large results, and threads."""
    found = {name: blas.address(name) for name in names if name.startswith(blas.PREFIXES)}
    found |= {name: _gemm(name) for name in names if name.startswith(GEMM)}
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


__all__ = ["CompiledFunction", "load", "load_for_good", "raise_error"]
