"""A stand-in for ``cuda.bindings.driver`` that runs kernels in the interpreter.

    fake = FakeDriver()                # one device
    with fake.installed(): ...         # `from cuda.bindings import driver` gives it

Everything happens at once, in the order of the calls; streams only remember what they capture. Functions return tuples
that begin with a ``CUresult``, as those of the package do. ``fail`` makes a function fail; ``launched`` lists the
kernels that ran. A fault that the interpreter finds is raised as it is, so that a test shows the line; with
``hardware_faults`` it becomes the error that a GPU reports, after which the context is lost.

What may go unnoticed on a GPU, or end the process, is an AssertionError: a stream that is not there (any more), memory
that is given back to a stream while that is captured, copies of pageable memory while it is, and capturing a stream
with which the default stream keeps in step. Threads without a context get errors, as they do from the driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ptx import libraries
from ptx.driver_types import ATTRIBUTES, CUresult, constants
from ptx.faults import IllegalInstruction, Misaligned, OutOfBounds, PtxFault, Trap
from ptx.graphs import Graphs, node_types
from ptx.machine import Machine
from ptx.memory import Heap

OK = CUresult.CUDA_SUCCESS
_MAJOR, _MINOR = (f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{x}" for x in ("MAJOR", "MINOR"))
_STICKY = {
    OutOfBounds: CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
    Misaligned: CUresult.CUDA_ERROR_MISALIGNED_ADDRESS,
    Trap: CUresult.CUDA_ERROR_LAUNCH_FAILED,
    IllegalInstruction: CUresult.CUDA_ERROR_ILLEGAL_INSTRUCTION,
}


class FakeDriver(Graphs):
    """``devices``: how many; ``version`` of the driver; ``memory``: bytes of a device; ``missing``: no driver;
    ``libraries``: whether cuBLAS and cuSOLVER are there (``"broken"``: their package is, and does not find them)."""

    def __init__(
        self,
        devices: int = 1,
        version: int = 13000,
        memory: int = 1 << 26,
        *,
        missing: bool = False,
        hardware_faults: bool = False,
        libraries: bool | str = False,
    ):
        self.libraries = libraries
        self.devices, self.version, self.memory = devices, version, memory
        self.missing, self.hardware_faults = missing, hardware_faults
        self.attributes = dict(ATTRIBUTES)
        self.registers = 32  # that an assembler would give to a thread
        self.calls: list[str] = []
        self.launched: list[str] = []
        self._failures: dict[str, list[CUresult]] = {}
        self._reset()

    def _reset(self) -> None:
        self.heap = Heap(self.memory)
        self._handles: dict[int, Any] = {}
        self._captures: dict[int, list[Callable[[], None]]] = {}
        self._strict: dict[int, int] = {}  # streams that are captured in a way that forbids calls, by their thread
        self._lost: CUresult | None = None
        self._hosts: dict[int, Any] = {}
        self._context = False
        self._current = threading.local()  # the contexts of a thread

    # --- for tests

    def fail(self, function: str, code: str, times: int = 1) -> None:
        """The next calls of ``function`` return this error."""
        self._failures.setdefault(function, []).extend([CUresult[code]] * times)

    @contextlib.contextmanager
    def installed(self) -> Iterator[FakeDriver]:
        """Makes it the module ``cuda.bindings.driver``."""
        module = self.module()
        packages = {"cuda": types.ModuleType("cuda"), "cuda.bindings": types.ModuleType("cuda.bindings")}
        for package in packages.values():
            package.__path__ = []  # type: ignore[attr-defined]
        packages["cuda.bindings"].driver = module  # type: ignore[attr-defined]
        names: dict[str, Any] = {**packages, "cuda.bindings.driver": module, "nvmath": None}
        if self.libraries:
            names |= libraries.modules(self)
        before = {name: sys.modules.get(name) for name in names}
        sys.modules.update(names)
        try:
            yield self
        finally:
            for name, old in before.items():
                if old is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = old

    def module(self) -> types.ModuleType:
        made = types.ModuleType("cuda.bindings.driver")
        vars(made).update(constants() | node_types())
        for name in dir(self):
            if name.startswith("cu"):
                setattr(made, name, self._function(name))
        return made

    def _function(self, name: str) -> Callable[..., Any]:
        function = getattr(self, name)
        count = _RESULTS.get(name, 0)

        def call(*args: Any) -> tuple[Any, ...]:
            if self.missing:
                raise RuntimeError("libcuda.so.1: the driver's library is not there")
            self.calls.append(name)
            code: Any = OK
            if self._failures.get(name):
                code = self._failures[name].pop(0)
            elif self._lost is not None and name not in _AFTER_LOSS:
                code = self._lost
            if code == OK:
                code = self._refused(name)
            if code != OK:
                return (code, *[None] * count)
            found = function(*args)
            if isinstance(found, CUresult):
                return (found, *[None] * count)
            return (OK,) if found is None else (OK, *found) if isinstance(found, tuple) else (OK, found)

        return call

    def _refused(self, name: str) -> CUresult:
        """What a call that may not be made here and now returns."""
        if name in _UNSAFE and threading.get_ident() in self._strict.values():
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        stateless = name.startswith(("cuInit", "cuDriver", "cuGetError", "cuDevice", "cuCtx")) or name in _BY_STREAM
        return OK if stateless or self._contexts else CUresult.CUDA_ERROR_INVALID_CONTEXT

    @property
    def _contexts(self) -> list[int]:
        """Those of this thread, the current one last."""
        if not hasattr(self._current, "stack"):
            self._current.stack = []
        found: list[int] = self._current.stack
        return found

    def stream(self, stream: int, *, captured: bool = True) -> int:
        """A stream, which must be there; with ``captured = False``, one that is not captured."""
        number = int(stream)
        assert number in (0, 1, 2) or self._handles.get(number, ("",))[0] == "stream", "a stream that is not there"
        assert captured or number not in self._captures, "while the stream is captured"
        return number

    # --- devices and contexts

    def cuInit(self, flags: int) -> Any:
        return None if self.devices else CUresult.CUDA_ERROR_NO_DEVICE

    def cuDriverGetVersion(self) -> Any:
        return self.version

    def cuGetErrorName(self, code: int) -> Any:
        return CUresult(code).name.encode()

    def cuGetErrorString(self, code: int) -> Any:
        return CUresult(code).name.removeprefix("CUDA_ERROR_").lower().replace("_", " ").encode()

    def cuDeviceGetCount(self) -> Any:
        return self.devices

    def cuDeviceGet(self, ordinal: int) -> Any:
        return ordinal if ordinal < self.devices else CUresult.CUDA_ERROR_INVALID_DEVICE

    def cuDeviceGetName(self, length: int, device: int) -> Any:
        return b"PTX interpreter\0"

    def cuDeviceGetAttribute(self, attribute: Any, device: int) -> Any:
        return self.attributes[attribute.name]

    def cuDevicePrimaryCtxRetain(self, device: int) -> Any:
        self._context = True
        return 0xC0 + device

    def cuDevicePrimaryCtxRelease(self, device: int) -> Any:
        return None

    def cuDevicePrimaryCtxReset(self, device: int) -> Any:
        self._reset()

    def cuCtxSetCurrent(self, context: int) -> Any:
        self._contexts[-1:] = [context] if context else []
        return None if self._context else CUresult.CUDA_ERROR_INVALID_CONTEXT

    def cuCtxPushCurrent(self, context: int) -> Any:
        self._contexts.append(context)

    def cuCtxPopCurrent(self) -> Any:
        return self._contexts.pop()

    def cuCtxSynchronize(self) -> Any:
        return None

    # --- modules

    def cuModuleLoadDataEx(self, image: bytes, count: int, options: Any, values: Any) -> Any:
        machine = Machine(bytes(image).rstrip(b"\0").decode(), self.heap)
        machine.external["cudaGraphSetConditional"] = self.set_conditional
        if machine.most_shared > self.attributes["CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK"]:
            return CUresult.CUDA_ERROR_INVALID_PTX
        major, minor = map(int, machine.module.version.split("."))
        if 1000 * (major + 4) + 10 * minor > self.version:
            return CUresult.CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        target = int("".join(c for c in machine.module.target if c.isdigit()))
        if target > self.attributes[_MAJOR] * 10 + self.attributes[_MINOR]:
            return CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU
        return self._handle(machine)

    def cuModuleUnload(self, module: int) -> Any:
        self._handles.pop(int(module)).unload()

    def cuModuleGetFunction(self, module: int, name: bytes) -> Any:
        machine = self._handles[int(module)]
        known = machine.module.functions.get(name.decode())
        return self._handle((machine, known.name)) if known else CUresult.CUDA_ERROR_NOT_FOUND

    def cuFuncGetAttribute(self, attribute: Any, function: int) -> Any:
        machine, name = self._handles[int(function)]
        values = {
            "CU_FUNC_ATTRIBUTE_NUM_REGS": len(machine.module.functions[name].registers),
            "CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES": machine.local_bytes,
            "CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES": machine.shared_bytes,
        }
        return values[attribute.name]

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, function: int, block: int, shared: int) -> Any:
        return min(32, 2048 // block, (1 << 16) // (block * self.registers))

    # --- memory

    def cuMemGetInfo(self) -> Any:
        return self.memory - self.heap.used, self.memory

    def cuDeviceGetDefaultMemPool(self, device: int) -> Any:
        return 0xB0

    def cuMemPoolSetAttribute(self, pool: int, attribute: Any, value: Any) -> Any:
        return None

    def cuMemPoolTrimTo(self, pool: int, keep: int) -> Any:
        return None

    def cuMemAlloc(self, count: int) -> Any:
        try:
            return self.heap.allocate(count) if count else CUresult.CUDA_ERROR_INVALID_VALUE
        except MemoryError:
            return CUresult.CUDA_ERROR_OUT_OF_MEMORY

    def cuMemFree(self, address: int) -> Any:
        try:
            self.heap.free(int(address))
        except KeyError:
            return CUresult.CUDA_ERROR_INVALID_VALUE
        return None

    def cuMemAllocAsync(self, count: int, stream: int) -> Any:
        self.stream(stream, captured=False)
        return self.cuMemAlloc(count)

    def cuMemFreeAsync(self, address: int, stream: int) -> Any:
        self.stream(stream, captured=False)
        return self.cuMemFree(address)

    def cuMemHostAlloc(self, count: int, flags: int) -> Any:
        made = ctypes.create_string_buffer(count)
        self._hosts[ctypes.addressof(made)] = made
        return ctypes.addressof(made)

    def cuMemFreeHost(self, address: int) -> Any:
        del self._hosts[int(address)]

    def cuMemcpyHtoDAsync(self, to: int, source: Any, count: int, stream: int) -> Any:
        self.stream(stream, captured=False)
        content = ctypes.string_at(source, count) if isinstance(source, int) else bytes(source)[:count]
        return self._do(stream, lambda: self.heap.write(int(to), content))

    def cuMemcpyDtoHAsync(self, to: int, source: int, count: int, stream: int) -> Any:
        self.stream(stream, captured=False)

        def copy() -> None:
            found = self.heap.read(int(source), count, written=False)
            ctypes.memmove(int(to), found.ctypes.data, count)

        return self._do(stream, copy)

    def cuMemcpyDtoDAsync(self, to: int, source: int, count: int, stream: int) -> Any:
        return self._do(stream, lambda: self.heap.copy(int(to), int(source), count))

    def cuMemsetD8Async(self, to: int, value: int, count: int, stream: int) -> Any:
        return self._do(stream, lambda: self.heap.write(int(to), np.full(count, value, np.uint8)))

    def cuPointerGetAttribute(self, attribute: Any, address: int) -> Any:
        values = {"CU_POINTER_ATTRIBUTE_MEMORY_TYPE": 2, "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL": 0}
        inside = self.heap.BASE <= int(address) < self.heap.BASE + self.heap.size
        return values[attribute.name] if inside else CUresult.CUDA_ERROR_INVALID_VALUE

    # --- streams, events, launches

    def cuStreamCreate(self, flags: int) -> Any:
        return self._handle(("stream", flags))

    def cuStreamDestroy(self, stream: int) -> Any:
        del self._handles[self.stream(stream)]

    def cuStreamSynchronize(self, stream: int) -> Any:
        busy = self.stream(stream) in self._captures
        return CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED if busy else None

    def cuStreamQuery(self, stream: int) -> Any:
        return self.cuStreamSynchronize(stream)

    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> Any:
        self.stream(stream)

    def cuEventCreate(self, flags: int) -> Any:
        return self._handle("event")

    def cuEventDestroy(self, event: int) -> Any:
        self._handles.pop(int(event), None)

    def cuEventRecord(self, event: int, stream: int) -> Any:
        self.stream(stream)

    def cuEventSynchronize(self, event: int) -> Any:
        return None

    def cuEventQuery(self, event: int) -> Any:
        return None

    def cuEventElapsedTime(self, start: int, end: int) -> Any:
        return 0.001

    def cuLaunchKernel(self, *args: Any) -> Any:
        function, gx, gy, gz, bx, by, bz, shared, stream, params, _ = args
        launch = self.kernel(function, (gx, gy, gz), (bx, by, bz), shared, params)
        return launch if isinstance(launch, CUresult) else self._do(stream, launch)

    def kernel(self, function: Any, grid: Any, block: Any, shared: int, params: int) -> Any:
        """A launch with the values that parameters have now."""
        machine, name = self._handles[int(function)]
        if np.prod(block) > self.attributes["CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK"] or not np.prod(grid):
            return CUresult.CUDA_ERROR_INVALID_VALUE
        sizes = [v.bytes for v in machine.module.functions[name].params]
        pointers = (ctypes.c_void_p * len(sizes)).from_address(int(params)) if sizes else []
        values = [ctypes.string_at(p, n) for p, n in zip(pointers, sizes)]

        def launch() -> None:
            self.launched.append(name)
            machine.launch(name, grid, block, values, shared)

        return launch

    # --- inside

    def _handle(self, thing: Any) -> int:
        number = 0x1000 + len(self.calls)
        while number in self._handles:
            number += 1
        self._handles[number] = thing
        return number

    def _do(self, stream: int, step: Callable[[], None]) -> CUresult | None:
        if self.stream(stream) in self._captures:
            self._captures[int(stream)].append(step)
            return None
        try:
            step()
        except PtxFault as e:
            if not self.hardware_faults or type(e) not in _STICKY:
                raise
            self._lost = _STICKY[type(e)]  # a GPU reports it at a later call
        return None


_AFTER_LOSS = {"cuGetErrorName", "cuGetErrorString", "cuDevicePrimaryCtxReset", "cuDriverGetVersion", "cuDeviceGetName"}
_BY_STREAM = {"cuMemAllocAsync", "cuMemFreeAsync"}  # take the context of their stream
# What a thread may not do while it captures, unless it has asked for that.
_UNSAFE = {
    *("cuMemAlloc", "cuMemFree", "cuMemHostAlloc", "cuMemFreeHost", "cuModuleLoadDataEx", "cuModuleUnload"),
    *("cuEventQuery", "cuStreamQuery", "cuStreamSynchronize", "cuCtxSynchronize", "cuMemPoolTrimTo"),
}
# How many values a function returns beside its code.
_RESULTS = dict.fromkeys(
    [
        *("cuDriverGetVersion", "cuGetErrorName", "cuGetErrorString", "cuDeviceGetCount", "cuDeviceGet"),
        *("cuDeviceGetName", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain", "cuModuleLoadDataEx"),
        *("cuModuleGetFunction", "cuFuncGetAttribute", "cuOccupancyMaxActiveBlocksPerMultiprocessor"),
        *("cuDeviceGetDefaultMemPool", "cuMemAlloc", "cuMemAllocAsync", "cuMemHostAlloc", "cuPointerGetAttribute"),
        *("cuStreamCreate", "cuEventCreate", "cuEventElapsedTime", "cuStreamEndCapture", "cuGraphInstantiate"),
        *("cuGraphCreate", "cuGraphAddKernelNode", "cuGraphAddMemsetNode", "cuGraphAddNode"),
        *("cuGraphConditionalHandleCreate", "cuCtxPopCurrent"),
    ],
    1,
) | {"cuMemGetInfo": 2}
