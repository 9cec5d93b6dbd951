"""Parts of arrays: steps from an array to a part of it, which can be read and written.

A basic index, a transposition and a reshape each are one step. A view is a reference with steps: reading applies them
in order, writing puts the new part back through them. Two indices in a row are one, so that ``A[i][j] = v`` writes one
element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from dflow.ir.builder import Builder
from dflow.ir.core import Value
from dflow.ir.types import Dim, Size

Position = Any  # an int, or a traced scalar array


@dataclass(frozen=True)
class Index:
    """A basic index, in the IR's form; ``starts`` are the positions of its ``at`` and slice entries."""

    entries: tuple[Any, ...]
    starts: tuple[Position, ...]
    covers = False  # whether `put` replaces the whole

    def operands(self, b: Builder) -> list[Value]:
        return [b.index(s) if isinstance(s, int) else s.value for s in self.starts]

    def read(self, b: Builder, base: Value) -> Value:
        return b.extract(base, *self.operands(b), index=self.entries)

    def put(self, b: Builder, base: Value, part: Value) -> Value:
        return b.update(base, part, *self.operands(b), index=self.entries)


@dataclass(frozen=True)
class Transpose:
    perm: tuple[int, ...]
    covers = True

    def read(self, b: Builder, base: Value) -> Value:
        return b.transpose(base, perm=self.perm)

    def put(self, b: Builder, base: Value | None, part: Value) -> Value:
        return b.transpose(part, perm=tuple(self.perm.index(k) for k in range(len(self.perm))))


@dataclass(frozen=True)
class Reshape:
    before: tuple[Dim, ...]
    after: tuple[Dim, ...]
    covers = True

    def read(self, b: Builder, base: Value) -> Value:
        return b.reshape(base, shape=self.after)

    def put(self, b: Builder, base: Value | None, part: Value) -> Value:
        return b.reshape(part, shape=self.before)


@dataclass(frozen=True)
class Gather:
    """Integer arrays for the leading axes. Not a view in NumPy either: reading it copies."""

    indices: tuple[Any, ...]  # traced arrays of one shape
    covers = False

    def read(self, b: Builder, base: Value) -> Value:
        return b.gather(base, *(i.value for i in self.indices))

    def put(self, b: Builder, base: Value, part: Value) -> Value:
        return b.scatter(base, part, *(i.value for i in self.indices))


@dataclass(frozen=True)
class Component:
    """The real or the imaginary parts of complex numbers. It stands behind all other steps."""

    imaginary: bool
    covers = False

    def read(self, b: Builder, base: Value) -> Value:
        return b.imag(base) if self.imaginary else b.real(base)

    def put(self, b: Builder, base: Value, part: Value) -> Value:
        return b.complex(b.real(base), part) if self.imaginary else b.complex(part, b.imag(base))


Step = Index | Transpose | Reshape | Gather | Component


def same_steps(a: Sequence[Step], b: Sequence[Step]) -> bool:
    """Whether two ways lead to the same part for certain: by the same traced positions, where they are traced."""
    return len(a) == len(b) and all(type(x) is type(y) and _parts(x) == _parts(y) for x, y in zip(a, b))


def _parts(step: Step) -> list[Any]:
    if isinstance(step, Component):
        return [step.imaginary]
    found = [getattr(step, f.name) for f in fields(step)]
    return [tuple(("cell", id(p.cell)) if hasattr(p, "cell") else p for p in part) for part in found]


def read(b: Builder, steps: Sequence[Step], base: Value) -> Value:
    """The part of ``base`` to which the steps lead."""
    for step in steps:
        base = step.read(b, base)
    return base


def write(b: Builder, steps: Sequence[Step], base: Value | None, part: Value) -> Value:
    """``base`` with the part to which the steps lead replaced."""
    if not steps:
        return part
    head, *rest = steps
    inner = None if all(s.covers for s in rest) else head.read(b, base)  # type: ignore[arg-type]
    return head.put(b, base, write(b, rest, inner, part))  # type: ignore[arg-type]


def resized(steps: Sequence[Step], size: Callable[[Dim], Dim]) -> tuple[Step, ...]:
    """The steps with other names for sizes."""

    def renamed(step: Step) -> Step:
        if isinstance(step, Index):
            entries = ((e[0], size(e[1]), e[2]) if isinstance(e, tuple) else e for e in step.entries)
            return Index(tuple(entries), step.starts)
        if isinstance(step, Reshape):
            return Reshape(tuple(map(size, step.before)), tuple(map(size, step.after)))
        return step

    return tuple(map(renamed, steps))


def extend(steps: tuple[Step, ...], step: Step) -> tuple[Step, ...]:
    """The steps and one more, an index after an index made one."""
    if steps and isinstance(steps[-1], Component):
        return (*extend(steps[:-1], step), steps[-1])
    if isinstance(step, Index):
        if all(e == "all" for e in step.entries):
            return steps
        if steps and isinstance(steps[-1], Index):
            return (*steps[:-1], _compose(steps[-1], step))
    return (*steps, step)


def is_view(steps: Sequence[Step], base: Sequence[Dim]) -> bool:
    """Whether NumPy gives a view for the steps from a contiguous array (a reshape may have to copy)."""
    return _laid_out(steps, base) is not None


def is_contiguous(steps: Sequence[Step], base: Sequence[Dim], order: str = "C") -> bool:
    """Whether the elements that the steps lead to lie one behind the other, by rows (``"F"``: by columns)."""
    x = _laid_out(steps, base)
    return x is not None and bool(x.flags.c_contiguous if order == "C" else x.flags.f_contiguous)


def order(steps: Sequence[Step], base: Sequence[Dim]) -> str | None:
    """``"C"`` where the elements lie in memory row by row, with gaps or without; ``"F"`` where column by column,
    ``"mixed"`` where otherwise; None where it is not known."""
    x = _laid_out(steps, base)
    if x is None:
        return None
    strides = [abs(s) for s, n in zip(x.strides, x.shape) if n != 1]
    falling = sorted(strides, reverse=True)
    return "C" if strides == falling else "F" if strides == falling[::-1] else "mixed"


def _laid_out(steps: Sequence[Step], base: Sequence[Dim]) -> np.ndarray[Any, Any] | None:
    """An array (of no use as such) with the strides of the view; None where there is none.

    A size that depends on the run is taken at its bound: where it makes a difference (sizes 0 and 1), the reshape is
    that of a copy at worst.
    """
    shape = _bounds(base)
    x = np.lib.stride_tricks.as_strided(np.empty(1), shape, _strides(shape))
    for step in steps:
        if isinstance(step, Transpose):
            x = x.transpose(step.perm)
        elif isinstance(step, Index):
            strides = [s * (e[2] if isinstance(e, tuple) else 1) for s, e in zip(x.strides, step.entries) if e != "at"]
            sizes = [
                _bounds([e[1]])[0] if isinstance(e, tuple) else n for n, e in zip(x.shape, step.entries) if e != "at"
            ]
            x = np.lib.stride_tricks.as_strided(x, sizes, strides)
        elif isinstance(step, Reshape):
            try:
                x = _reshaped(x, _bounds(step.after))
            except (AttributeError, ValueError):
                return None
        elif isinstance(step, Component):
            x = np.lib.stride_tricks.as_strided(x, x.shape, [2 * s for s in x.strides])
        else:
            return None
    return x


def _reshaped(x: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The view of another shape; raises ValueError or AttributeError where there is none."""
    if np.lib.NumpyVersion(np.__version__) < "2.1.0":
        x.shape = shape
        return x
    return x.reshape(shape, copy=False)


def _bounds(shape: Sequence[Dim]) -> tuple[int, ...]:
    return tuple(d.bound if isinstance(d, Size) else d for d in shape)  # type: ignore[misc]


def _strides(shape: tuple[int, ...]) -> list[int]:
    """The strides of a contiguous array, in bytes."""
    strides = [8]
    for n in reversed(shape[1:]):
        strides.insert(0, strides[0] * n)
    return strides[: len(shape)]


def _compose(first: Index, second: Index) -> Index:
    """``x[first][second]`` as one index."""
    entries: list[Any] = []
    starts: list[Position] = []
    outer, inner = iter(first.starts), iter(second.starts)
    rest = iter(second.entries)
    for e in first.entries:
        if e == "at":
            entries.append(e)
            starts.append(next(outer))
            continue
        then = next(rest)
        if e == "all":
            entries.append(then)
            if then != "all":
                starts.append(next(inner))
        elif then == "all":
            entries.append(e)
            starts.append(next(outer))
        else:
            entries.append(then if then == "at" else ("slice", then[1], e[2] * then[2]))
            starts.append(offset(next(outer), e[2], next(inner)))
    return Index(tuple(entries), tuple(starts))


def offset(start: Position, step: int, k: Position) -> Position:
    """``start + step * k``; work is emitted only for what is not known."""
    if isinstance(start, int) and start == 0 and step == 1:
        return k
    return start + (k if step == 1 else step * k)
