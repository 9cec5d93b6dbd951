"""Devices by name, and streams: orders of work on a device."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from dflow.backends.cuda.launch import driver

_stream: ContextVar[Stream | None] = ContextVar("stream", default=None)


class Stream:
    """An order of work of its own: ``with dflow.Stream(): ...``. Arrays may be passed from one to another."""

    def __init__(self, device: str = "cuda"):
        self.device = current_device(ordinal_of(device))
        self._made: tuple[int, int] | None = None
        self._tokens: list[Any] = []

    @property
    def handle(self) -> int:
        """The driver's handle, which is another one after a fault of the device."""
        if self._made is None or self._made[0] != self.device.generation:
            self.device.activate()
            self._made = self.device.generation, int(self.device.call("cuStreamCreate", 0))
        return self._made[1]

    def __enter__(self) -> Stream:
        self._tokens.append(_stream.set(self))
        return self

    def __exit__(self, *error: object) -> None:
        _stream.reset(self._tokens.pop())

    def synchronize(self) -> None:
        """Waits until all its work is done."""
        self.device.activate()
        self.device.synchronize(self.handle)


def current_stream(device: driver.Device) -> int:
    """The stream that work on a device goes to now."""
    found = _stream.get()
    return found.handle if found is not None and found.device is device else device.stream


def current_device(ordinal: int) -> driver.Device:
    found = driver.device(ordinal)
    found.activate()
    return found


def ordinal_of(device: str) -> int:
    """The number in ``"cuda"`` or ``"cuda:1"``. Raises ValueError for another name."""
    name, _, number = device.partition(":")
    if name != "cuda" or not (number.isdigit() or not number):
        raise ValueError(f'device must be "cpu", "cuda" or "cuda:" with a number, got {device!r}')
    return int(number or 0)


def wait(device: driver.Device, later: int, earlier: int) -> None:
    """Lets work on one stream wait for the work that another has so far."""
    device.activate()
    call = device.call
    event = call("cuEventCreate", 2)  # without timing
    call("cuEventRecord", event, earlier)
    call("cuStreamWaitEvent", later, event, 0)
    call("cuEventDestroy", event)
