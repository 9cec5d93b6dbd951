"""``scipy.ndimage.map_coordinates`` on traced arrays: an image at places between its elements."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy
import scipy.ndimage

from dflow.ir.types import kind_of
from dflow.numpy.dispatch import implements, refusing
from dflow.tracing.arrays.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

# Where a place outside of an axis of size n is read. Names are SciPy's.
_MOVED: dict[str, Callable[[Any, int], Any]] = {
    "nearest": lambda i, n: np.clip(i, 0, n - 1),
    "grid-wrap": lambda i, n: np.mod(i, n),
    "reflect": lambda i, n: np.floor_divide(_mirrored(2 * i + 1, 2 * n), 2),
    "grid-mirror": lambda i, n: np.floor_divide(_mirrored(2 * i + 1, 2 * n), 2),
    "mirror": lambda i, n: _mirrored(i, n - 1) if n > 1 else i * 0,
}

# A coordinate that is brought inside before it is rounded: a half is between other elements there.
_FOLDED: dict[str, Callable[[Any, int], Any]] = {
    "reflect": lambda c, n: _mirrored(c + 0.5, n) - 0.5,
    "grid-mirror": lambda c, n: _mirrored(c + 0.5, n) - 0.5,
    "mirror": lambda c, n: _mirrored_late(c, n - 1) if n > 1 else c * 0,
}

MODES = (*_MOVED, "constant", "grid-constant")


def _mirrored(i: Any, n: int) -> Any:
    """In 0 .. n, mirrored at both."""
    return n - np.absolute(np.mod(i, 2 * n) - n)


def _mirrored_late(c: Any, n: int) -> Any:
    """``_mirrored``, but as in SciPy less than 1 behind n stays there: a half is rounded up first."""
    m = np.mod(c, 2 * n)
    return np.where((c >= 0) & (m < n + 1), m, _mirrored(c, n))


@implements(scipy.ndimage.map_coordinates)
def map_coordinates(
    input: Any,
    coordinates: Any,
    output: Any = None,
    order: int = 3,
    mode: str = "constant",
    cval: Any = 0.0,
    prefilter: bool = True,
) -> Any:
    """Of order 0 (nearest) and 1 (linear), with SciPy's modes but "wrap".

    Raises TypeError for splines of higher order, and for booleans.
    """
    if order not in (0, 1) or output is not None:
        raise TypeError(f"map_coordinates of traced arrays takes order 0 or 1 and no output, got order={order}")
    if mode not in MODES:
        raise ValueError(f"the mode is one of {', '.join(MODES)}, got {mode!r}")
    x = lift(input)
    dtype = x.dtype
    if kind_of(dtype) == "b":
        raise TypeError("map_coordinates of traced arrays takes numbers, got booleans")
    given = [_floats(lift(c)) for c in coordinates]
    if len(given) != x.ndim:
        raise ValueError(f"coordinates for {len(given)} axes of an array of {x.ndim}")
    if order == 0 and mode in _FOLDED:
        given = [_FOLDED[mode](c, n) for c, n in zip(given, x.shape)]
    places = [_places(c, order) for c in given]
    total: Any = None
    for corner in itertools.product(*places):
        index, weight, inside = [], 1.0, None
        for (i, w), n in zip(corner, x.shape):
            if mode in _MOVED:
                index.append(_MOVED[mode](i, n))
            else:
                within = (i >= 0) & (i < n)
                inside = within if inside is None else inside & within
                index.append(np.clip(i, 0, n - 1))
            weight = weight * w
        found = x[tuple(index)]
        if inside is not None:
            found = np.where(inside, found, cval)
        total = found * weight if total is None else total + found * weight
    if mode == "constant":
        for c, n in zip(given, x.shape):
            total = np.where((c >= 0) & (c <= n - 1), total, cval)
    return np.rint(total).astype(dtype) if kind_of(dtype) in "iu" else total.astype(dtype)


def _floats(c: Any) -> Any:
    return c if kind_of(c.dtype) == "f" else c.astype(numpy.float64)


def _places(c: Any, order: int) -> list[tuple[Any, Any]]:
    """The elements beside a coordinate, and their weights."""
    if order == 0:
        return [(np.floor(c + 0.5).astype(np.int64), 1.0)]
    low = np.floor(c)
    above = c - low
    return [(low.astype(np.int64), 1.0 - above), (low.astype(np.int64) + 1, above)]


def __getattr__(name: str) -> Any:
    found = getattr(scipy.ndimage, name)
    return refusing(found) if callable(found) and not isinstance(found, type) else found


__all__ = ["map_coordinates"]
