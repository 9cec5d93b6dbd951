"""Error records on the host: page-locked memory that the device copies to while the host goes on."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any, ClassVar

from dflow.backends.cuda.launch.driver import Device
from dflow.backends.cuda.plan import ErrorRecord

_COUNT = 256  # records that are made at once


class Records:
    """The records of one device (and of one of its contexts)."""

    _all: ClassVar[weakref.WeakKeyDictionary[Device, Records]] = weakref.WeakKeyDictionary()

    def __init__(self, device: Device):
        self.device, self.generation = device, device.generation
        self._free: dict[int, list[int]] = {}  # by stream: copies of one stream do not overtake each other

    @classmethod
    def of(cls, device: Device) -> Records:
        found = cls._all.get(device)
        if found is None or found.generation != device.generation:
            found = cls._all[device] = cls(device)
        return found

    def take(self, stream: int) -> Record:
        """One record, for a copy on ``stream``."""
        with self.device.lock:
            free = self._free.setdefault(stream, [])
            if not free:
                size = ErrorRecord.SIZE
                start = int(self.device.call("cuMemHostAlloc", _COUNT * size, 0))
                free += [start + k * size for k in range(_COUNT)]
            return Record(self, free.pop(), stream)


class Record:
    """A place for an error record, which goes back when nothing refers to it."""

    def __init__(self, records: Records, address: int, stream: int):
        self.records, self.address, self.stream = records, address, stream

    def wait(self) -> tuple[int, ...]:
        """The record, when it has come."""
        if self.records.generation != self.records.device.generation:
            return (0, 0, 0, 0)  # lost with everything else, which says so itself
        self.records.device.synchronize(self.stream)
        words: Any = (ctypes.c_int64 * 4).from_address(self.address)
        return tuple(words)

    def __del__(self) -> None:
        self.records._free[self.stream].append(self.address)
