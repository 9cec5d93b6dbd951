"""When each kernel ran: ``with Timeline() as t: ...`` and then ``print(t)``.

While one is being taken, kernels are launched one by one, never as a recorded graph. Each launch costs two events.
"""

from __future__ import annotations

from collections import defaultdict
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from dflow.backends.cuda.launch.driver import Device

_active: ContextVar[Timeline | None] = ContextVar("timeline", default=None)


@dataclass(frozen=True)
class Launched:
    """One launch: the kernel, what it computes, and microseconds since the first launch began."""

    kernel: str
    what: str
    start: float
    end: float


class Timeline:
    """The launches that were made inside of it, in ``launches`` when it has been left."""

    def __init__(self) -> None:
        self.launches: list[Launched] = []
        self._events: list[tuple[Device, int, str, str, Any, Any]] = []
        self._token: Token[Timeline | None] | None = None

    def __enter__(self) -> Timeline:
        self._token = _active.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._token is not None
        _active.reset(self._token)
        self._collect()

    def begin(self, device: Device, stream: int) -> Any:
        """Marks the time before a launch."""
        return self._mark(device, stream)

    def end(self, device: Device, stream: int, before: Any, kernel: str, what: str) -> None:
        """Marks the time after a launch."""
        self._events.append((device, device.generation, kernel, what, before, self._mark(device, stream)))

    def _mark(self, device: Device, stream: int) -> Any:
        event = device.call("cuEventCreate", 0)
        device.call("cuEventRecord", event, stream)
        return event

    def _collect(self) -> None:
        """Waits for the launches, and reads their times. After a fault, those before it are not known."""
        self._events = [event for event in self._events if event[1] == event[0].generation]
        if not self._events:
            return
        first = self._events[0][4]
        for device, _, kernel, what, before, after in self._events:
            call = device.call
            call("cuEventSynchronize", after)
            start, end = (1e3 * call("cuEventElapsedTime", first, e) for e in (before, after))
            self.launches.append(Launched(kernel, what, start, end))
        for device, _, _, _, *events in self._events:
            for event in events:
                device.call("cuEventDestroy", event)
        self._events = []

    def __str__(self) -> str:
        """The launches in their order, and the kernels by the time that they took."""
        lines = [f"{x.start:12.1f} {x.end - x.start:10.1f} us  {x.kernel}  {x.what}" for x in self.launches]
        total: dict[str, list[float]] = defaultdict(list)
        for x in self.launches:
            total[x.kernel].append(x.end - x.start)
        ranked = sorted(total.items(), key=lambda item: -sum(item[1]))
        lines += [f"{sum(times):12.1f} us in {len(times)} launches of {name}" for name, times in ranked]
        return "\n".join(lines)


def active() -> Timeline | None:
    """The timeline that is being taken."""
    return _active.get()
