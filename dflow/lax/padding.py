"""Padding around elements and between them, and its widths by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from dflow.numpy.dispatch import own
from dflow.tracing.arrays.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


def padtype_to_pads(
    in_shape: Sequence[int], window_shape: Sequence[int], window_strides: Sequence[int], padding: str
) -> list[tuple[int, int]]:
    """The widths before and after each axis for "SAME" (sizes divided by strides, rounded up), "SAME_LOWER" (the
    larger half first) or "VALID" (none). Raises ValueError for another name."""
    if padding == "VALID":
        return [(0, 0)] * len(in_shape)
    if padding not in ("SAME", "SAME_LOWER"):
        raise ValueError(f"padding must be 'SAME', 'SAME_LOWER', 'VALID' or widths, got {padding!r}")
    missing = [max(0, (-(-n // s) - 1) * s + w - n) for n, w, s in zip(in_shape, window_shape, window_strides)]
    return [(m // 2, m - m // 2) if padding == "SAME" else (m - m // 2, m // 2) for m in missing]


@own
def pad(operand: Any, padding_value: Any, padding_config: Sequence[tuple[int, int, int]]) -> Any:
    """``padding_value`` around and between the elements: widths (before, after, between) for each axis.

    Negative widths before and after take elements away.
    """
    x = lift(operand)
    return padded(x, lift(padding_value).astype(x.dtype), padding_config)


def padded(x: Any, value: Any, config: Sequence[tuple[int, int, int]]) -> Any:
    if len(config) != x.ndim or any(between < 0 for _, _, between in config):
        raise ValueError(f"padding {config} of an array of {x.ndim} axes")
    if not any(any(widths) for widths in config):
        return x
    spans = [n + max(n - 1, 0) * between for n, (_, _, between) in zip(x.shape, config)]
    sizes = tuple(max(low, 0) + span + max(high, 0) for span, (low, high, _) in zip(spans, config))
    places = [slice(max(low, 0), max(low, 0) + span, between + 1) for span, (low, _, between) in zip(spans, config)]
    out = np.broadcast_to(lift(value), sizes).copy()
    out[tuple(places)] = x
    kept = [slice(max(-low, 0), max(n - max(-high, 0), 0)) for n, (low, high, _) in zip(sizes, config)]
    return out[tuple(kept)]
