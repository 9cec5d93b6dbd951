"""Tapes: where a nonlinear part of a program leaves its residuals, iteration by iteration, for the linear part.

``dflow.ir.passes.linearize`` says what they are for. A *frame* is a region of the nonlinear part under construction.
What it updates as it goes (*cells*: tapes and running totals) is made before the outermost loop and threaded through
all regions around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from dflow.ir.builder import Builder
from dflow.ir.core import Value, substitute
from dflow.ir.passes.packing import pack, unpack
from dflow.ir.registry import NoDerivativeError
from dflow.ir.types import GROWS, I64, Size, TensorType, scalar

INDEX = scalar(I64)
LARGEST = 1 << 28  # bytes of the largest tape that is a tensor where not all of it need be used

NO_ROOM = (
    "a derivative of a derivative would have to keep what a `while` loop leaves for each round of the loop around: "
    "write it as `for _ in range(most):` with `if not condition: break`"
)

# Reads a residual back: takes the builder, the position of the iteration, and new names.
Read = Callable[[Builder, Value, dict[Value, Value]], Value]


@dataclass(eq=False)
class Cell:
    """A tape or a running total: something that the nonlinear part updates as it goes, through all regions around.

    ``final`` stands for its value after the outermost loop, which the linear part reads.
    """

    type: TensorType
    final: Value
    capacity: Value | None = None


class Frame:
    """A region of the nonlinear part under construction, with the current values of cells in it."""

    def __init__(
        self,
        parent: Frame | None = None,
        *,
        loop: bool = False,
        trips: int | None = 1,
        exact: bool = True,
        runs: float = 1.0,
    ):
        self.parent = parent
        self.loop = loop
        self.b = Builder()
        self.trips = trips  # how often the region runs in all at most, when that is known
        self.exact = exact  # whether it is just as often
        self.runs: float = runs if parent is None else parent.runs  # how often it is supposed to run in all
        self.begun: float = self.runs if parent is None else parent.begun  # how often its tapes are begun anew
        self.base: Value | None = None  # the position of the first iteration of this loop; None for 0
        self.counter: Value | None = None
        self.offsets: dict[Value, tuple[Value, Read]] = {}
        self.entry: dict[Cell, Value] = {}
        self.current: dict[Cell, Value] = {}

    def get(self, cell: Cell) -> Value:
        if cell not in self.current:
            if self.parent is None:
                self.current[cell] = _create(self.b, cell)
            else:
                outside = self.parent.get(cell)
                if self.loop:
                    self.entry[cell] = outside = Value(cell.type, "tape")
                self.current[cell] = outside
        return self.current[cell]

    def nearest_loop(self) -> Frame | None:
        frame: Frame | None = self
        while frame is not None and not frame.loop:
            frame = frame.parent
        return frame

    def position(self) -> Value | None:
        """The position of the current iteration among all of this loop; None where there is just one, 0."""
        frame = self.nearest_loop()
        if frame is None:
            return None
        assert frame.counter is not None
        return frame.counter if frame.base is None else self.b.add(frame.base, frame.counter)

    def save(self, v: Value, position: Value, capacity: Value | None) -> Read:
        """Writes a residual of this loop's body to a tape of its own; the return value reads it back. Raises
        NoDerivativeError for a sequence, of which a tape has no room for one in each row."""
        if v.type.grows:
            raise NoDerivativeError(NO_ROOM, v.op.loc if v.op else self.b.loc)
        if _fits_behind(v.type, self.trips):
            return self._save_behind(v, position)
        packed = pack(self.b, v)
        room = self.trips is not None and _bytes(packed.type, self.trips) <= LARGEST
        t = packed.type.with_shape((self.trips if room or self.exact else GROWS, *packed.type.shape))  # type: ignore
        tape = Cell(t, Value(t, "tape"), capacity)
        index = ("at", *("all" for _ in v.type.shape))
        self.current[tape] = self.b.update(self.get(tape), packed, position, index=index)

        def read(b: Builder, there: Value, env: dict[Value, Value]) -> Value:
            return unpack(b, b.extract(tape.final, there, index=index), v.type, env)

        return read

    def _save_behind(self, v: Value, position: Value) -> Read:
        """Writes a residual with a leading size behind those of earlier iterations."""
        size, *rest = v.type.shape
        assert isinstance(size, Size) and self.trips is not None
        offset, offset_back = self._offset(size.value, position)
        t = v.type.with_shape((self.trips * size.bound, *rest))
        tape = Cell(t, Value(t, "tape"))
        whole = ("all",) * len(rest)
        self.current[tape] = self.b.update(self.get(tape), v, offset, index=(("slice", size, 1), *whole))

        def read(b: Builder, there: Value, env: dict[Value, Value]) -> Value:
            if offset not in env:
                env[offset] = offset_back(b, there, env)
            part = substitute(v.type, env).shape[0]
            return b.extract(tape.final, env[offset], index=(("slice", part, 1), *whole))

        return read

    def _offset(self, size: Value, position: Value) -> tuple[Value, Read]:
        """Where the rows of this iteration begin in tapes with so many rows an iteration: a residual itself."""
        if size not in self.offsets:
            total = Cell(INDEX, Value(INDEX))
            offset = self.get(total)
            self.current[total] = self.b.add(offset, size)
            self.offsets[size] = offset, self.save(offset, position, None)
        return self.offsets[size]


def _fits_behind(t: TensorType, trips: int | None) -> bool:
    """Whether a residual with a leading size, of each of so many iterations at most, fits a tensor."""
    sized = bool(t.shape) and isinstance(t.shape[0], Size) and t.with_shape(t.shape[1:]).is_static
    return sized and trips is not None and _bytes(t, trips) <= LARGEST


def _bytes(t: TensorType, times: int) -> int:
    return times * t.dtype.itemsize * prod(t.bound)


def _create(b: Builder, cell: Cell) -> Value:
    if cell.type == INDEX:
        return b.index(0)
    if cell.type.grows:
        return b.emit("tape", *([cell.capacity] if cell.capacity else []), type=cell.type)
    return b.emit("empty", type=cell.type)
