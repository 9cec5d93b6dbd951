"""A PTX interpreter on NumPy, for tests: ``Machine(text).launch("kernel", grid, block, args)``.

It runs the PTX that LLVM writes, all threads of a grid in lock-step with active masks, and reports what a GPU would
pass over in silence: accesses out of bounds or misaligned, reads of what was never written, races between threads,
barriers that some threads miss. ``driver`` is a stand-in for ``cuda.bindings.driver`` that runs on it.
"""

from ptx.faults import (
    Deadlock,
    IllegalInstruction,
    Misaligned,
    OutOfBounds,
    PtxFault,
    Race,
    Trap,
    Uninitialised,
)
from ptx.machine import Machine

__all__ = [
    "Deadlock",
    "IllegalInstruction",
    "Machine",
    "Misaligned",
    "OutOfBounds",
    "PtxFault",
    "Race",
    "Trap",
    "Uninitialised",
]
