"""What code generation hands to the launch layer: one module of PTX, the buffers, and the steps of a run.

    plan = LaunchPlan(...)
    1. give every `Buffer` device memory (see its kinds), zero the one of kind "error";
    2. run ``plan.steps`` in order on one stream;
    3. read the error buffer: see `ErrorRecord` and `LaunchPlan.checks`; hand out the results.

A kernel does nothing once the error buffer holds an error, so launches may go on after one. A step that reads memory
back (`If`, `Loop` with a `Read`, `While`, `HostCall`) must stop the run when an error is set: what it reads would be
meaningless.

All buffers are contiguous, row-major, in the storage of the IR: ``bool`` as one byte, complex as two floats. Arrays of
variable size have the room of their bound. Scalars among the results are arrays of one element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dflow.backends.interface import Check
from dflow.ir.core import Function
from dflow.ir.types import DType, TensorType

Kind = Literal["argument", "result", "constant", "workspace", "sequence", "error"]


@dataclass(frozen=True)
class Buffer:
    """A piece of device memory of ``size`` bytes, aligned to 256.

    ``argument``: number ``index``, with the caller's data; written only if ``writable``, and then it holds the new
    contents after the run. ``result``: number ``index``, unspecified before the run. ``constant``: holds ``data``.
    ``workspace``: unspecified, for one run. ``error``: `ErrorRecord`, zero before a run.
    ``sequence``: unspecified, ``rows`` (a power of two) times ``size``. When a run ends with an error that asks for
    more rows, the launch layer makes it longer and repeats the run from the start, with the arguments as they were.
    Kernels are passed the number of rows (`Rows`), so nothing is compiled again. It may keep the longer one.
    """

    kind: Kind
    size: int
    index: int = 0
    writable: bool = False
    data: bytes = b""
    rows: int = 1


class ErrorRecord:
    """The error buffer: four int64, ``{what, detail, detail, detail}``.

    ``what`` is 0 for no error; ``k + 1`` says that ``checks[k]`` failed (its message is formatted with the details);
    ``-1 - n`` says that the buffer ``n``, a sequence, needs at least ``details[0]`` rows.
    """

    SIZE = 32

    @staticmethod
    def failed_check(what: int) -> int | None:
        """The number of the check that failed."""
        return what - 1 if what > 0 else None

    @staticmethod
    def short_sequence(what: int) -> int | None:
        """The number of the buffer that is too short."""
        return -1 - what if what < 0 else None


# --- what a kernel is passed, in the order of its parameters


@dataclass(frozen=True)
class Pointer:
    """The address of byte ``offset`` of a buffer, by its number in ``LaunchPlan.buffers``: 8 bytes."""

    buffer: int
    offset: int = 0


@dataclass(frozen=True)
class Scalar:
    """The program's argument number ``index``, a scalar, by value in the storage of ``dtype``."""

    index: int
    dtype: DType


@dataclass(frozen=True)
class Counter:
    """The round that the `Loop` number ``loop`` is in, from 0 on: an int64."""

    loop: int


@dataclass(frozen=True)
class Rows:
    """The number of rows that a sequence buffer has room for: an int64."""

    buffer: int


Argument = Pointer | Scalar | Counter | Rows


# --- steps


@dataclass(frozen=True)
class Launch:
    """Starts the kernel ``kernel`` of the module with ``grid`` blocks of ``block`` threads (one dimension each).

    ``shared`` is the dynamic shared memory in bytes. ``is_divisible``: as many threads in smaller blocks do the same.
    """

    kernel: str
    grid: int
    block: int
    args: tuple[Argument, ...]
    shared: int = 0
    is_divisible: bool = False


@dataclass(frozen=True)
class Read:
    """One element in device memory that the host waits for: ``bool`` for conditions, ``i64`` for counts."""

    buffer: int
    offset: int
    dtype: DType


@dataclass(frozen=True)
class If:
    """Runs the one or the other."""

    condition: Read | Scalar
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]


@dataclass(frozen=True)
class Loop:
    """Runs ``body`` ``count`` times (never when it is negative). Its counter is number ``number``."""

    number: int
    count: int | Read | Scalar | Counter
    body: tuple[Step, ...]


@dataclass(frozen=True)
class While:
    """Runs ``before``, then, as long as ``condition`` reads true, ``body`` and ``before`` again."""

    before: tuple[Step, ...]
    condition: Read
    body: tuple[Step, ...]


@dataclass(frozen=True)
class Place:
    """An array (or scalar) in device memory: at byte ``offset`` of a buffer."""

    buffer: int
    offset: int
    type: TensorType


@dataclass(frozen=True)
class HostCall:
    """``function`` run on the host, on copies: what has no device code.

    ``inputs`` are copied to the host (scalars and counters are there), the results to ``outputs``. Types with variable
    sizes have the room of their bound on both sides.
    """

    function: Function
    inputs: tuple[Place | Scalar | Counter, ...]
    outputs: tuple[Place, ...]


@dataclass(frozen=True)
class Dense:
    """A routine of cuBLAS or cuSOLVER on each of a stack of matrices; ``libraries.py`` has the routines, with the
    ``sizes`` and the ``memory`` that each takes."""

    routine: str
    dtype: DType
    sizes: tuple[int, ...]
    memory: tuple[Pointer, ...]
    location: Any = None


@dataclass(frozen=True)
class Choice:
    """Runs ``library`` where cuBLAS and cuSOLVER can be called, else ``otherwise``, which needs nothing."""

    library: tuple[Step, ...]
    otherwise: tuple[Step, ...]


Step = Launch | If | Loop | While | HostCall | Dense | Choice


@dataclass(frozen=True)
class Kernel:
    """What is known of one kernel: ``threads`` is the most that a block may have; ``what`` says what it computes, and
    ``location`` the user's line."""

    name: str
    threads: int
    what: str = ""
    location: Any = None


@dataclass(frozen=True)
class LaunchPlan:
    """A compiled program. ``args`` and ``results`` are its types; ``in_place`` maps results to the (writable) arguments
    whose memory holds them; the other results have a buffer of kind ``result`` each.

    ``target`` is the oldest processor that runs it, such as ``"sm_80"``.
    """

    name: str
    ptx: str
    target: str
    args: tuple[TensorType, ...]
    results: tuple[TensorType, ...]
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    checks: tuple[Check, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    in_place: Mapping[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        from dflow.backends.cuda.describe import describe

        return describe(self)

    @property
    def launches(self) -> list[Launch]:
        """All launches, those in loops once."""
        return [s for s in each_step(self.steps) if isinstance(s, Launch)]


def each_step(steps: Sequence[Step]) -> Iterator[Step]:
    """All steps, those inside of others too."""
    for step in steps:
        yield step
        for name in ("then", "otherwise", "before", "body", "library"):
            yield from each_step(getattr(step, name, ()))


def chosen(steps: Sequence[Step], library: bool) -> tuple[Step, ...]:
    """The steps without any `Choice`: with the libraries, or without."""
    made: list[Step] = []
    for s in steps:
        if isinstance(s, Choice):
            made += chosen(s.library if library else s.otherwise, library)
        elif isinstance(s, If):
            made.append(If(s.condition, chosen(s.then, library), chosen(s.otherwise, library)))
        elif isinstance(s, Loop):
            made.append(Loop(s.number, s.count, chosen(s.body, library)))
        elif isinstance(s, While):
            made.append(While(chosen(s.before, library), s.condition, chosen(s.body, library)))
        else:
            made.append(s)
    return tuple(made)


def buffer_bytes(t: TensorType) -> int:
    """The bytes of an array with the room of its bound; at least one element, so that every address is valid."""
    return max(1, int(np.prod(t.bound, dtype=np.int64))) * t.dtype.itemsize
