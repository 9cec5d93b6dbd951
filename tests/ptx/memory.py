"""Memory with a state for every byte: mapped or not, writable or not, written or not.

A ``Space`` is an array of bytes for each of its units: one for global memory, one for each block of shared memory, one
for each thread of local memory and of parameters. Addresses within it count from ``base``.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from ptx.faults import Misaligned, OutOfBounds, PtxFault, Uninitialised

WRITABLE, WRITTEN = 1, 2
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_ALL = {
    flag: {n: np.uint64(int.from_bytes(bytes([flag]) * n)).astype(t) for n, t in _UNSIGNED.items()} for flag in (1, 2)
}


class Space:
    """``units`` times ``size`` bytes. All are mapped, writable and unwritten, or unmapped when ``mapped`` is False.

    With ``garbage`` they count as written, with senseless contents: for memory from which compilers read more than they
    need (six bytes on the stack by a load of eight).
    """

    def __init__(self, name: str, size: int, units: int = 1, base: int = 0, mapped: bool = True, garbage: bool = False):
        self.name, self.size, self.base, self.units = name, size, base, units
        self.stride = -(-max(size, 1) // 16) * 16
        self.data = np.zeros(self.stride * units, np.uint8)
        self.state = np.zeros(self.stride * units, np.uint8)
        if mapped:
            self.rows(self.state)[:, :size] = WRITABLE | WRITTEN if garbage else WRITABLE
        if garbage:
            self.data[:] = 0xCB
        self._data = {n: self.data.view(t) for n, t in _UNSIGNED.items()}
        self._state = {n: self.state.view(t) for n, t in _UNSIGNED.items()}

    def rows(self, bytes_: np.ndarray) -> np.ndarray:
        """``data`` or ``state`` with one row a unit."""
        return bytes_.reshape(self.units, self.stride)

    def load(self, addresses: np.ndarray, width: int, unit: np.ndarray | int) -> np.ndarray:
        """The elements of ``width`` bytes at ``addresses`` (uint64)."""
        at = self.positions(addresses, width, unit)
        wanted = _ALL[WRITTEN][width]
        state = self._state[width][at]
        good = (state & wanted) == wanted
        if np.count_nonzero(good) != len(good):
            self._report(addresses, width, int(np.argmin(good)), "read", int(state[np.argmin(good)]))
        return self._data[width][at]

    def store(self, addresses: np.ndarray, width: int, unit: np.ndarray | int, values: np.ndarray) -> None:
        at = self.positions(addresses, width, unit)
        wanted = _ALL[WRITABLE][width]
        state = self._state[width][at]
        good = (state & wanted) == wanted
        if np.count_nonzero(good) != len(good):
            self._report(addresses, width, int(np.argmin(good)), "write", int(state[np.argmin(good)]))
        self._data[width][at] = values
        self._state[width][at] = state | _ALL[WRITTEN][width]

    def positions(self, addresses: np.ndarray, width: int, unit: np.ndarray | int) -> np.ndarray:
        """Where the elements lie in an array of elements of their width."""
        offsets = (addresses - np.uint64(self.base)).view(np.int64)
        if width > 1 and np.count_nonzero(offsets & (width - 1)):
            k = int(np.argmax((offsets & (width - 1)) != 0))
            raise Misaligned(f"{width} bytes at {self._name(int(addresses[k]))}", k)
        # As unsigned numbers, so that what lies before the space is far behind it.
        if np.count_nonzero(offsets.view(np.uint64) >= np.uint64(max(self.size, 1))):
            k = int(np.argmax(offsets.view(np.uint64) >= np.uint64(max(self.size, 1))))
            raise OutOfBounds(f"{width} bytes at {self._name(int(addresses[k]))}", k)
        return (offsets + unit * self.stride if self.base == 0 else offsets) >> (width.bit_length() - 1)

    def _report(self, addresses: np.ndarray, width: int, k: int, verb: str, state: int) -> None:
        where = self._name(int(addresses[k]))
        flags = [state >> 8 * i & 3 for i in range(width)]
        error: PtxFault
        if 0 in flags:
            error = OutOfBounds(f"{verb} of {width} bytes at {where}", k)
        elif verb == "write":
            error = OutOfBounds(f"write of {width} bytes to constant memory at {where}", k)
        else:
            error = Uninitialised(f"read of {width} bytes that were never written at {where}", k)
        raise error

    def _name(self, address: int) -> str:
        return f"{self.name} address {address - self.base} (of {self.size})"


@dataclass(frozen=True)
class Allocation:
    """A buffer in global memory."""

    address: int
    bytes: int
    name: str


class Heap(Space):
    """Global memory: buffers with gaps between them, so that what runs past an end is seen."""

    BASE = 1 << 40
    ALIGN = 256

    def __init__(self, size: int = 1 << 28):
        super().__init__("global", size, base=self.BASE, mapped=False)
        self.allocations: dict[int, Allocation] = {}
        self._free = [(self.BASE + self.ALIGN, self.BASE + size)]  # in order, apart from each other
        self.high = 0  # bytes from the base to the end of what was ever allocated
        self.used = 0

    def allocate(self, count: int, name: str = "buffer") -> int:
        """The address of ``count`` bytes. Raises MemoryError."""
        room = self._room(count)
        fitting = (k for k, (start, end) in enumerate(self._free) if end - start >= room)
        k = next(fitting, None)
        if k is None:
            raise MemoryError(f"{count} bytes of device memory")
        address, end = self._free[k]
        self._free[k] = (address + room, end)
        self.high = max(self.high, address + room - self.BASE)
        self._set_state(address, count, WRITABLE)
        self.allocations[address] = Allocation(address, count, name)
        self.used += count
        return address

    def free(self, address: int) -> None:
        """Raises KeyError for what is no buffer."""
        gone = self.allocations.pop(address)
        self._set_state(address, gone.bytes, 0)
        self.used -= gone.bytes
        gaps: list[tuple[int, int]] = []
        for start, end in sorted([*self._free, (address, address + self._room(gone.bytes))]):
            if gaps and gaps[-1][1] == start:
                gaps[-1] = (gaps[-1][0], end)
            elif start < end:
                gaps.append((start, end))
        self._free = gaps

    def _room(self, count: int) -> int:
        """What a buffer takes, with the gap behind it."""
        return -(-count // self.ALIGN) * self.ALIGN + self.ALIGN

    def place(self, content: bytes, name: str, constant: bool = False) -> int:
        """A buffer with contents."""
        address = self.allocate(len(content), name)
        self.write(address, content)
        if constant:
            self._set_state(address, len(content), WRITTEN)
        return address

    def write(self, address: int, content: bytes | np.ndarray) -> None:
        new = np.frombuffer(content, np.uint8)
        at = self._range(address, len(new), "write")
        self.data[at] = new
        self.state[at] |= WRITTEN

    def read(self, address: int, count: int, written: bool = True) -> np.ndarray:
        """``count`` bytes. With ``written``, raises Uninitialised when some were never written."""
        at = self._range(address, count, "read")
        if written and not np.all(self.state[at] & WRITTEN):
            first = int(np.argmin(self.state[at] & WRITTEN))
            raise Uninitialised(f"copy of bytes that were never written, from {self._name(address + first)}")
        return self.data[at].copy()

    def copy(self, to: int, source: int, count: int) -> None:
        """Copies bytes, written or not."""
        a, b = self._range(to, count, "write"), self._range(source, count, "read")
        self.data[a], self.state[a] = self.data[b].copy(), self.state[b].copy()

    def forget(self, address: int) -> None:
        """Makes the contents of a buffer unwritten again."""
        found = self.allocations[address]
        self._set_state(address, found.bytes, WRITABLE)

    def _set_state(self, address: int, count: int, flags: int) -> None:
        self.state[address - self.BASE : address - self.BASE + count] = flags

    def _range(self, address: int, count: int, verb: str) -> slice:
        start = address - self.BASE
        if start < 0 or start + count > self.size or not np.all(self.state[start : start + count]):
            raise OutOfBounds(f"{verb} of {count} bytes at {self._name(address)}")
        return slice(start, start + count)

    def _name(self, address: int) -> str:
        starts = sorted(self.allocations)
        k = bisect_right(starts, address)
        if k == 0:
            return f"address {address:#x}, in no buffer"
        found = self.allocations[starts[k - 1]]
        offset = address - found.address
        if offset < found.bytes:
            return f"byte {offset} of the {found.bytes} of {found.name}"
        if offset < found.bytes + 4096:
            return f"byte {offset}, past the {found.bytes} of {found.name}"
        return f"address {address:#x}, in no buffer"
