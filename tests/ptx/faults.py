"""What the interpreter reports: each fault names the thread, the line of PTX, and what was wrong."""

from __future__ import annotations


class PtxFault(RuntimeError):
    """``lane`` is the number of a thread in the grid (or None); the machine adds the thread's index and the line."""

    def __init__(self, message: str, lane: int | None = None):
        super().__init__(message)
        self.lane = lane
        self.located = False

    def locate(self, where: str) -> PtxFault:
        """The same fault with the place in front."""
        if self.located:
            return self
        made = type(self)(f"{where}: {self}", self.lane)
        made.located = True
        return made


class OutOfBounds(PtxFault):
    """An access outside of every buffer, or a write to constant memory."""


class Misaligned(PtxFault):
    """An address that is no multiple of the size of the access."""


class Uninitialised(PtxFault):
    """A read of memory that was never written."""


class Race(PtxFault):
    """Two threads touch one place, one of them writes, and nothing puts them in order."""


class Deadlock(PtxFault):
    """Threads wait for others that never come, or a kernel does not end."""


class Trap(PtxFault):
    """The ``trap`` instruction."""


class IllegalInstruction(PtxFault):
    """PTX that the interpreter does not know, or that is not legal."""
