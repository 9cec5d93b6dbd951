"""The CUDA driver: devices, contexts, modules, and errors that say what was seen and how to mend it.

``device(0)`` is the first device, opened when it is first asked for. The driver is reached through the package
``cuda.bindings``, which is imported then, so that nothing here needs it to be installed.

A fault in a kernel makes the driver refuse all later work of the process on that device. The context is then made
anew (``Device.recover``): the process and the device go on, but arrays that were on the device are lost, and say so.
CUDA does not survive a fork: what a child process inherits cannot be used, and says so too.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Iterator
from typing import Any

OLDEST_DRIVER = 11020  # the first with the stream-ordered allocator
# After these the context accepts no further work.
_LOST = frozenset({214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999})
_NOT_INITIALIZED = frozenset({3, 4})
_OUT_OF_MEMORY, _NO_DEVICE, _INVALID_DEVICE = 2, 100, 101
_NOT_FOR_THIS = frozenset({209, 218, 222})


class DeviceError(RuntimeError):
    """Something went wrong on a device, or on the way to it."""


class DeviceUnavailable(DeviceError):
    """There is no device that can be used: no package, no driver, no device, or an old driver."""


class DeviceOutOfMemory(DeviceError, MemoryError):
    """The device has not enough memory."""


class KernelFault(DeviceError):
    """A kernel stopped with a fault. Arrays that were on the device are lost."""


class Driver:
    """The functions of the driver: ``driver.call("cuMemAlloc", count)`` returns values and raises errors."""

    def __init__(self) -> None:
        self.process = os.getpid()
        try:
            self.cu = importlib.import_module("cuda.bindings.driver")
        except ImportError as e:
            raise DeviceUnavailable(
                f"no GPU can be used: the package cuda.bindings is not installed ({e}); pip install 'dflow[cuda]'"
            ) from None
        try:
            code = self.cu.cuInit(0)[0]
        except Exception as e:  # the package raises various errors when it finds no library
            raise DeviceUnavailable(
                f"no GPU can be used: the NVIDIA driver was not found ({_first_line(e)}); install the driver of the "
                "machine's GPU, or leave out device='cuda'"
            ) from None
        if int(code) == _NO_DEVICE:
            raise DeviceUnavailable(
                "no GPU was found: the NVIDIA driver is there, but it sees no device; look at nvidia-smi and at "
                "CUDA_VISIBLE_DEVICES, or leave out device='cuda'"
            )
        if int(code):
            raise DeviceUnavailable(f"the NVIDIA driver does not start: {self.describe(code)}; look at nvidia-smi")
        self.version = int(self.call("cuDriverGetVersion"))
        if self.version < OLDEST_DRIVER:
            raise DeviceUnavailable(
                f"the NVIDIA driver is too old: it supports CUDA {version_text(self.version)}, and dflow needs "
                f"{version_text(OLDEST_DRIVER)} or later; update the driver"
            )
        self.count = int(self.call("cuDeviceGetCount"))

    def call(self, name: str, *args: Any) -> Any:
        """What a function gives beside its code: nothing, a value, or a tuple. Raises DeviceError."""
        code, *values = getattr(self.cu, name)(*args)
        if code:
            raise self.error(code, name)
        return values[0] if len(values) == 1 else tuple(values) or None

    def error(self, code: Any, what: str) -> DeviceError:
        """The exception for an error code."""
        if int(code) in _NOT_INITIALIZED and self.process != os.getpid():
            return _forked()
        text = f"{what}: {self.describe(code)}"
        if int(code) == _OUT_OF_MEMORY:
            return DeviceOutOfMemory(text)
        if int(code) in _LOST:
            return KernelFault(text)
        return DeviceUnavailable(text) if int(code) == _INVALID_DEVICE else DeviceError(text)

    def describe(self, code: Any) -> str:
        """An error in words."""
        found, text = self.cu.cuGetErrorString(code)
        name = getattr(code, "name", str(code))
        return name if found or not text else f"{text.decode()} ({name})"


def _forked() -> DeviceUnavailable:
    return DeviceUnavailable(
        "no GPU can be used in this process: it was forked from one that had used CUDA, which CUDA does not allow; "
        'start processes with multiprocessing.get_context("spawn"), or use the GPU in the children alone'
    )


def version_text(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _first_line(e: Exception) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0]


class Device:
    """One GPU with its context and the stream on which work is done unless another is asked for.

    ``generation`` counts the contexts that it has had: what belongs to an earlier one is lost.
    """

    def __init__(self, driver: Driver, ordinal: int):
        if not 0 <= ordinal < driver.count:
            plural = "device is" if driver.count == 1 else "devices are"
            raise DeviceUnavailable(f"there is no device cuda:{ordinal}: {driver.count} {plural} there")
        self.driver, self.cu, self.ordinal = driver, driver.cu, ordinal
        self.generation = 0
        self.lock = threading.RLock()
        self.handle = driver.call("cuDeviceGet", ordinal)
        self.name = driver.call("cuDeviceGetName", 100, self.handle).partition(b"\0")[0].decode()
        self.capability = (self.attribute("COMPUTE_CAPABILITY_MAJOR"), self.attribute("COMPUTE_CAPABILITY_MINOR"))
        self.has_pools = bool(self.attribute("MEMORY_POOLS_SUPPORTED"))
        # Copies from the host's memory may then go on after the call, for the device reads that memory itself.
        self.reads_host_pages = bool(self.attribute("PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES"))
        self._open()

    def _open(self) -> None:
        self.context = self.driver.call("cuDevicePrimaryCtxRetain", self.handle)
        self.driver.call("cuCtxSetCurrent", self.context)
        if self.has_pools:  # memory that is given back stays in the pool until somebody needs it
            pool = self.driver.call("cuDeviceGetDefaultMemPool", self.handle)
            attribute = self.cu.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
            self.driver.call("cuMemPoolSetAttribute", pool, attribute, self.cu.cuuint64_t((1 << 64) - 1))
            self.pool = pool
        # A stream that keeps in step with the legacy default stream, where other libraries work.
        self.stream = int(self.driver.call("cuStreamCreate", 0))

    def activate(self) -> None:
        """Makes the context current in this thread."""
        code = self.cu.cuCtxSetCurrent(self.context)[0]
        if code:
            raise self.failed(code, "earlier work")

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context current for a while: for what is done at any time in any thread, such as giving back."""
        self.driver.call("cuCtxPushCurrent", self.context)
        try:
            yield
        finally:
            self.driver.call("cuCtxPopCurrent")

    def call(self, name: str, *args: Any) -> Any:
        """A function of the driver, as ``Driver.call``; after a fault the device is made usable again."""
        code, *values = getattr(self.cu, name)(*args)
        if code:
            raise self.failed(code, "earlier work" if int(code) in _LOST else name)
        return values[0] if len(values) == 1 else tuple(values) or None

    def attribute(self, name: str) -> int:
        key = getattr(self.cu.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self.driver.call("cuDeviceGetAttribute", key, self.handle))

    @property
    def target(self) -> str:
        """The processor, as ``"sm_90"``."""
        return f"sm_{self.capability[0]}{self.capability[1]}"

    def memory(self) -> tuple[int, int]:
        """Free bytes, and all bytes."""
        free, total = self.driver.call("cuMemGetInfo")
        return int(free), int(total)

    def load(self, ptx: str) -> Any:
        """A module. Raises DeviceError with the assembler's message."""
        options = self.cu.CUjit_option
        log = bytearray(8192)
        code, module = self.cu.cuModuleLoadDataEx(
            ptx.encode() + b"\0",
            2,
            [options.CU_JIT_ERROR_LOG_BUFFER, options.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES],
            [log, len(log)],
        )
        if not code:
            return module
        detail = log.partition(b"\0")[0].decode(errors="replace").strip()
        if int(code) in _NOT_FOR_THIS:
            version, target = (line.split()[1] for line in ptx.splitlines() if line.startswith((".version", ".target")))
            raise DeviceError(
                f"{self} does not take the compiled code: {self.driver.describe(code)}. The code is PTX {version} for "
                f"{target}; the device is {self.target}, and its driver supports CUDA "
                f"{version_text(self.driver.version)}; update the driver, or compile for an older target. {detail}"
            )
        raise self.driver.error(code, f"loading compiled code. {detail}")

    def upload(self, to: int, source: int, size: int, stream: int) -> None:
        """Copies from memory of the host that may be changed or given back as soon as this returns."""
        self.call("cuMemcpyHtoDAsync", to, source, size, stream)
        if self.reads_host_pages:
            self.synchronize(stream)

    def give_back(self, generation: int, name: str, handle: Any) -> None:
        """Calls a function that destroys what belongs to a context; it is gone already when the context is."""
        if generation == self.generation:
            getattr(self.cu, name)(handle)

    def synchronize(self, stream: int | None = None) -> None:
        """Waits until all work of a stream is done. Raises KernelFault for a fault in it."""
        code = self.cu.cuStreamSynchronize(self.stream if stream is None else stream)[0]
        if code:
            raise self.failed(code, "earlier work")

    def failed(self, code: Any, what: str) -> DeviceError:
        """The exception for an error of some work; after a fault the device is made usable again first."""
        error = self.driver.error(code, what)
        if not isinstance(error, KernelFault):
            return error
        after = "the device can be used again" if self.recover() else "this process cannot use the device any more"
        return KernelFault(
            f"{what} stopped with a fault on {self}: {self.driver.describe(code)}. All arrays that were on the device "
            f"are lost; {after}"
        )

    def recover(self) -> bool:
        """Makes the context anew after a fault; whether it worked."""
        with self.lock:
            self.generation += 1
            self.cu.cuDevicePrimaryCtxReset(self.handle)  # which may report the fault once more
            try:
                self._open()
                self.driver.call("cuStreamSynchronize", self.stream)
            except DeviceError:
                return False
            return True

    def __repr__(self) -> str:
        return f"cuda:{self.ordinal} ({self.name})"


_devices: dict[int, Device] = {}
_driver: Driver | None = None
_lock = threading.Lock()
_is_forked = False


def _in_child() -> None:
    """After a fork: what the parent has opened is of no use, and another thread may have held the lock."""
    global _driver, _is_forked, _lock
    _is_forked = _driver is not None or _is_forked
    _devices.clear()
    _driver, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def device(ordinal: int = 0) -> Device:
    """The device of this number. Raises DeviceUnavailable."""
    global _driver
    found = _devices.get(ordinal)
    if found is not None:
        return found
    if _is_forked:
        raise _forked()
    with _lock:
        if _driver is None:
            _driver = Driver()
        if ordinal not in _devices:
            _devices[ordinal] = Device(_driver, ordinal)
        return _devices[ordinal]


def available() -> bool:
    """Whether there is a device that can be used."""
    try:
        device()
    except DeviceError:
        return False
    return True


def forget() -> None:
    """Closes nothing, but looks for driver and devices anew when next asked."""
    global _driver
    with _lock:
        _devices.clear()
        _driver = None
