"""The values that kernels are passed, in one table that the parameters of every launch point into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dflow.backends.cuda.plan import Counter, Launch, LaunchPlan, Pointer, Rows, Scalar

SLOT = 16  # bytes for a value that a kernel is passed


class Table:
    """The values that kernels are passed, one slot each, and for every launch the addresses of its own."""

    def __init__(self, plan: LaunchPlan):
        self.slots: dict[Any, int] = {}
        self._params: dict[int, Any] = {}
        launches = plan.launches
        for launch in launches:
            for a in launch.args:
                self.slots.setdefault(a, len(self.slots))
        self.bytes = np.zeros(max(1, len(self.slots)) * SLOT, np.uint8)
        base = self.bytes.ctypes.data
        for launch in launches:
            addresses = np.array([base + SLOT * self.slots[a] for a in launch.args], np.uint64)
            self._params[id(launch)] = addresses, addresses.ctypes.data
        self._raw = memoryview(self.bytes)  # type: ignore[arg-type]
        self._words = self._raw.cast("q")
        word = SLOT // 8
        self._pointers = [(word * s, a.buffer, a.offset) for a, s in self.slots.items() if isinstance(a, Pointer)]
        self._rows = [(SLOT // 8 * s, a.buffer) for a, s in self.slots.items() if isinstance(a, Rows)]
        self._scalars: dict[int, list[int]] = {}
        for a, s in self.slots.items():
            if isinstance(a, Scalar):
                self._scalars.setdefault(a.index, []).append(SLOT * s)
        self._counters = {a.loop: SLOT // 8 * s for a, s in self.slots.items() if isinstance(a, Counter)}

    def params(self, launch: Launch) -> int:
        """The address of the addresses of a launch's parameters."""
        return int(self._params[id(launch)][1])

    def set_pointers(self, addresses: Sequence[int]) -> None:
        """``addresses`` by the number of the buffer."""
        words = self._words
        for at, buffer, offset in self._pointers:
            words[at] = addresses[buffer] + offset

    def set_rows(self, rows: Mapping[int, int]) -> None:
        for at, buffer in self._rows:
            self._words[at] = rows[buffer]

    def set_scalar(self, index: int, raw: bytes) -> None:
        for at in self._scalars.get(index, ()):
            self._raw[at : at + len(raw)] = raw

    def set_counter(self, loop: int, value: int) -> None:
        if loop in self._counters:
            self._words[self._counters[loop]] = value

    def key(self) -> bytes:
        """What a recorded run depends on."""
        for at in self._counters.values():
            self._words[at] = 0
        return self.bytes.tobytes()
