"""Device memory: allocated and given back in the order of a stream.

The driver's own pool does the work: what is freed is used again without a call to the system, and a piece that is
freed while a kernel still uses it is handed out only behind that kernel on the same stream. When memory runs out, what
compiled functions keep between calls is given up (``register_cache``) before the second try.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from dflow.backends.cuda.launch.driver import Device, DeviceError, DeviceOutOfMemory


class Cache(Protocol):
    """Something that keeps device memory which it can do without."""

    def release(self) -> None: ...


_caches: weakref.WeakSet[Any] = weakref.WeakSet()


def register_cache(cache: Cache) -> None:
    """``cache.release()`` is called when memory runs out."""
    _caches.add(cache)


class _Held:
    """What belongs to other libraries, until the work is done that our streams had when it was not needed any more."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Device, int, Any, Any]] = deque()

    def keep(self, owner: Any, device: Device, stream: int) -> None:
        try:
            with device.current():
                event = device.driver.call("cuEventCreate", 2)  # without timing
                device.driver.call("cuEventRecord", event, stream)
                self._waiting.append((device, device.generation, event, owner))
                self.release()
        except Exception:  # the context is gone, and the work with it; or the interpreter goes down
            return

    def release(self) -> None:
        """Lets go of all that is not used any more."""
        while self._waiting:
            try:
                device, generation, event, _ = first = self._waiting.popleft()
            except IndexError:  # another thread took it
                return
            if generation == device.generation:
                if int(device.cu.cuEventQuery(event)[0]) == _NOT_READY:
                    self._waiting.appendleft(first)
                    return
                device.cu.cuEventDestroy(event)


_held = _Held()
_NOT_READY = 600


class Allocation:
    """A piece of device memory, given back when nothing refers to it any more.

    ``owner`` is an object of another library that the memory belongs to; then it is only kept alive, until the work
    that uses the memory is done: that library may have streams which do not wait for ours. ``version`` counts the
    updates in place.
    """

    __slots__ = ("__weakref__", "device", "generation", "owner", "pointer", "size", "stream", "version")

    def __init__(self, device: Device, size: int, stream: int, pointer: int, owner: Any = None):
        self.device, self.size, self.stream, self.pointer, self.owner = device, size, stream, pointer, owner
        self.generation = device.generation
        self.version = 0

    def check(self) -> None:
        """Raises DeviceError when the memory was lost by a fault."""
        if self.generation != self.device.generation:
            raise DeviceError(f"this array was lost when a kernel stopped with a fault on {self.device}; make it anew")

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        device = getattr(self, "device", None)
        if device is None or self.generation != device.generation or is_finalizing():
            return
        if self.owner is not None:
            _held.keep(self.owner, device, self.stream)
            return
        try:  # contextlib.suppress takes half a microsecond more, and this is done in every call
            if device.has_pools:
                device.cu.cuMemFreeAsync(self.pointer, self.stream)
            else:
                device.cu.cuMemFree(self.pointer)
        except Exception:  # the interpreter goes down
            return


def allocate(device: Device, size: int, stream: int | None = None) -> Allocation:
    """``size`` bytes (at least one), aligned to 256. Raises DeviceOutOfMemory."""
    stream = device.stream if stream is None else stream
    size = max(1, size)
    code, pointer = _try(device, size, stream)
    if not code:
        return Allocation(device, size, stream, int(pointer))
    if int(code) == 2:
        release_caches(device)
        code, pointer = _try(device, size, stream)
    if int(code) == 2:
        free, total = device.memory()
        raise DeviceOutOfMemory(
            f"out of memory on {device}: {_bytes(size)} were asked for, {_bytes(free)} of {_bytes(total)} are free; "
            "delete arrays that are not needed, use smaller ones, or dflow.checkpoint for derivatives"
        )
    if code:
        raise device.failed(code, "an allocation")
    return Allocation(device, size, stream, int(pointer))


def _try(device: Device, size: int, stream: int) -> Any:
    if device.has_pools:
        return device.cu.cuMemAllocAsync(size, stream)
    return device.cu.cuMemAlloc(size)


def release_caches(device: Device) -> None:
    """Gives back all memory that nobody uses."""
    for cache in list(_caches):
        cache.release()
    gc.collect()
    device.synchronize()
    _held.release()
    if device.has_pools:
        device.call("cuMemPoolTrimTo", device.pool, 0)


def _bytes(n: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} bytes"
