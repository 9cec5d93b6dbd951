"""Results whose sizes are known when the program has run.

Native code fills an array that is as large as the result can become. The sizes are further results, by which the array
is cut afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.ir.types import Size


@dataclass(frozen=True)
class Trimming:
    """For every result its sizes: ints, or the positions of results in ``Position``; None where nothing is cut.

    ``sizes`` is the number of results that are sizes.
    """

    shapes: tuple[tuple[Any, ...] | None, ...]
    sizes: int

    @property
    def cuts(self) -> tuple[tuple[int, tuple[int | None, ...]], ...]:
        """The results that are cut, each with the positions of its sizes; None for those that are static."""
        return tuple(
            (k, tuple(d.at if isinstance(d, Position) else None for d in shape))
            for k, shape in enumerate(self.shapes)
            if shape is not None
        )

    @property
    def hidden(self) -> tuple[int, ...]:
        """The results that are sizes alone."""
        return tuple(range(len(self.shapes), len(self.shapes) + self.sizes))

    def __call__(self, results: Sequence[Any]) -> list[Any]:
        return [x if shape is None else _cut(x, shape, results) for x, shape in zip(results, self.shapes)]


@dataclass(frozen=True)
class Position:
    """A size that is the result at this position."""

    at: int


def _cut(x: Any, shape: Sequence[Any], results: Sequence[Any]) -> Any:
    sizes = tuple(int(results[d.at]) if isinstance(d, Position) else d for d in shape)
    if sizes == x.shape:
        return x
    part = x[tuple(map(slice, sizes))]
    return np.ascontiguousarray(part).copy() if isinstance(part, np.ndarray) else part.copy()


def sizes_of(results: Sequence[Value]) -> tuple[list[Value], Trimming | None]:
    """The results and, behind them, their sizes; None beside them when all are static."""
    if all(v.type.is_static for v in results):
        return list(results), None
    found = list(results)
    shapes = tuple(None if v.type.is_static else tuple(_place(d, found) for d in v.type.shape) for v in results)
    return found, Trimming(shapes, len(found) - len(results))


def _place(d: Any, results: list[Value]) -> Any:
    if not isinstance(d, Size):
        return d
    if d.value not in results:
        results.append(d.value)
    return Position(results.index(d.value))
