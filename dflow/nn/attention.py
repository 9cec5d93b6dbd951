"""Attention: for every query a mean of the values, weighted by the softmax of its products with the keys."""

from __future__ import annotations

import math
from typing import Any

import numpy

from dflow.nn.activations import softmax
from dflow.numpy.dispatch import own
from dflow.numpy.limits import finfo
from dflow.tracing.arrays.lift import lift

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


@own
def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: str | None = None,
) -> Any:
    """Attention of queries (batch, T, heads, depth) to keys and values (batch, S, key heads, depth); or without batch.

    ``key heads`` divides ``heads``: neighbouring heads share keys. ``bias`` is added to the products (batch, heads, T,
    S), which ``scale`` (1 / sqrt(depth)) multiplies; only keys where ``mask`` holds count. ``is_causal`` leaves out
    later keys, the lengths what is behind the end of each sequence, ``local_window_size`` (left, right) what is far
    away. Queries behind their end give 0. ``implementation`` changes nothing.
    """
    q, k, v = lift(query), lift(key), lift(value)
    lengths: Any = (query_seq_lengths, key_value_seq_lengths)
    if q.ndim == 4:
        return _attended(q, k, v, bias, mask, scale, is_causal, lengths, local_window_size)
    bias, mask = (None if x is None else lift(x)[None] for x in (bias, mask))
    lengths = tuple(None if x is None else lift(x).reshape((1,)) for x in lengths)
    return _attended(q[None], k[None], v[None], bias, mask, scale, is_causal, lengths, local_window_size)[0]


def _attended(q: Any, k: Any, v: Any, bias: Any, mask: Any, scale: Any, causal: bool, lengths: Any, window: Any) -> Any:
    (_, length, heads, depth), groups = q.shape, k.shape[2]
    if heads % groups or k.shape[3] != depth or k.shape[:3] != v.shape[:3]:
        raise ValueError(
            f"queries of shape {q.shape}, keys of shape {k.shape} and values of shape {v.shape} do not fit"
        )
    queries, keys = lengths
    if heads != groups:
        k, v = (np.repeat(x, heads // groups, axis=2) for x in (k, v))
    products = np.einsum("btnh,bsnh->bnts", q, k) * (1 / math.sqrt(depth) if scale is None else scale)
    if bias is not None:
        products = products + bias
    seen = _seen(length, k.shape[1], mask, causal, queries, keys, window)
    if seen is not None:
        products = np.where(seen, products, np.full((), -0.7 * float(finfo(products.dtype).max), products.dtype))
    out = np.einsum("bnts,bsnh->btnh", softmax.__wrapped__(products).astype(v.dtype), v)
    if queries is not None:
        inside = np.arange(length)[None] < lift(queries)[:, None]
        out = np.where(inside[:, :, None, None], out, np.zeros((), out.dtype))
    return out


def _seen(length: int, count: int, mask: Any, causal: bool, queries: Any, keys: Any, window: Any) -> Any:
    """Which keys each query sees, broadcast to (batch, heads, T, S); None for all."""
    rows, columns = np.arange(length)[:, None], np.arange(count)[None]
    parts = [] if mask is None else [lift(mask).astype(bool)]
    if causal:
        parts.append((columns <= rows)[None, None])
    if window is not None:
        left, right = (window, window) if isinstance(window, int) else window
        parts.append(((rows - columns <= left) & (columns - rows <= right))[None, None])
    if queries is not None:
        parts.append((rows[None] < lift(queries)[:, None, None])[:, None])
    if keys is not None:
        parts.append((columns[None] < lift(keys)[:, None, None])[:, None])
    found = None
    for part in parts:
        found = part if found is None else found & part
    return found
