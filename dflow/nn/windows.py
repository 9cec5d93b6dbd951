"""Convolution and pooling: a sum (or maximum) over the positions of a window, each of them a strided slice.

Images are (batch, channels, *space), kernels (out channels, in channels / groups, *window).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy

from dflow.ir.types import kind_of
from dflow.numpy.dispatch import own
from dflow.tracing.arrays.lift import lift

np: Any = numpy


def _each(value: Any, rank: int, name: str) -> tuple[Any, ...]:
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank:
        raise ValueError(f"{name} must be a number or one for each of the {rank} axes of space, got {value!r}")
    return values


def _widths(padding: Any, sizes: Any, window: Any, strides: Any, dilation: Any) -> list[tuple[int, int]]:
    """The padding before and after each axis. "SAME" keeps sizes (divided by the strides, rounded up)."""
    if padding == "VALID":
        return [(0, 0)] * len(sizes)
    if padding == "SAME":
        reach = [d * (w - 1) + 1 for w, d in zip(window, dilation)]
        missing = [max(0, (-(-n // s) - 1) * s + r - n) for n, s, r in zip(sizes, strides, reach)]
        return [(m // 2, m - m // 2) for m in missing]
    if isinstance(padding, str):
        raise ValueError(f"padding must be 'SAME', 'VALID' or widths, got {padding!r}")
    pairs = _each(padding, len(sizes), "padding")
    return [(p, p) if isinstance(p, int) else tuple(p) for p in pairs]


def _slices(x: Any, window: Any, strides: Any, dilation: Any) -> Any:
    """For each position of the window: the position, and what it sees."""
    sizes = x.shape[x.ndim - len(window) :]
    counts = [(n - d * (w - 1) - 1) // s + 1 for n, w, s, d in zip(sizes, window, strides, dilation)]
    if any(c < 1 for c in counts):
        raise ValueError(f"a window of {tuple(window)} does not fit into {tuple(sizes)}")
    for at in itertools.product(*map(range, window)):
        starts = [d * k for d, k in zip(dilation, at)]
        yield at, x[(..., *(slice(b, b + s * (c - 1) + 1, s) for b, s, c in zip(starts, strides, counts)))]


@own
def conv(
    x: Any, kernel: Any, strides: Any = 1, padding: Any = "VALID", dilation: Any = 1, feature_group_count: int = 1
) -> Any:
    """The cross-correlation of images and kernels, as neural networks have it."""
    x, kernel = lift(x), lift(kernel)
    rank, groups = x.ndim - 2, feature_group_count
    if rank < 1 or kernel.ndim != x.ndim:
        raise ValueError(f"images of shape {x.shape} and kernels of shape {kernel.shape} do not fit")
    window = kernel.shape[2:]
    if x.shape[1] != groups * kernel.shape[1] or kernel.shape[0] % groups:
        raise ValueError(f"{x.shape[1]} channels do not fit kernels of shape {kernel.shape} in {groups} group(s)")
    strides, dilation = _each(strides, rank, "strides"), _each(dilation, rank, "dilation")
    widths = _widths(padding, x.shape[2:], window, strides, dilation)
    x = np.pad(x, [(0, 0), (0, 0), *widths])
    parts = []
    for g in range(groups):
        mine = x[:, g * kernel.shape[1] : (g + 1) * kernel.shape[1]]
        per_group = kernel.shape[0] // groups
        weights = kernel[g * per_group : (g + 1) * per_group]
        parts.append(_correlated(mine, weights, window, strides, dilation))
    return parts[0] if groups == 1 else np.concatenate(parts, 1)


def _correlated(x: Any, weights: Any, window: Any, strides: Any, dilation: Any) -> Any:
    """One matrix product: the slices of all positions of the window beside each other, against the weights."""
    seen = [piece for _, piece in _slices(x, window, strides, dilation)]
    columns = np.stack(seen, 2)  # batch, channels, positions of the window, *space
    batch, space = columns.shape[0], columns.shape[3:]
    columns = columns.reshape((batch, -1, int(np.prod(space))))
    return (weights.reshape((weights.shape[0], -1)) @ columns).reshape((batch, weights.shape[0], *space))


@own
def max_pool(x: Any, window: Any, strides: Any = None, padding: Any = "VALID") -> Any:
    """The largest element of each window; equal ones share the derivative pair by pair."""
    x = lift(x)
    pieces, _ = _pooled(x, window, strides, padding, -np.inf if kind_of(x.dtype) == "f" else np.iinfo(x.dtype).min)
    out = pieces[0]
    for p in pieces[1:]:
        out = np.maximum(out, p)
    return out


@own
def avg_pool(x: Any, window: Any, strides: Any = None, padding: Any = "VALID") -> Any:
    """The mean of each window, of the elements inside the image."""
    x = lift(x) * 1.0
    pieces, inside = _pooled(x, window, strides, padding, 0.0)
    total, count = pieces[0], inside[0]
    for p, i in zip(pieces[1:], inside[1:]):
        total, count = total + p, count + i
    return total / count


def _pooled(x: Any, window: Any, strides: Any, padding: Any, fill: Any) -> tuple[list[Any], list[Any]]:
    """What each position of the windows sees, and whether it is inside the image."""
    rank = x.ndim - 2
    window = _each(window, rank, "window")
    strides = window if strides is None else _each(strides, rank, "strides")
    once = (1,) * rank
    widths = [(0, 0), (0, 0), *_widths(padding, x.shape[2:], window, strides, once)]
    mask = np.pad(np.ones((1, 1, *x.shape[2:]), x.dtype), widths)
    padded = np.pad(x, widths, constant_values=fill)
    pieces = [p for _, p in _slices(padded, window, strides, once)]
    return pieces, [m for _, m in _slices(mask, window, strides, once)]
