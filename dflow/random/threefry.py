"""Keys and random bits: the counter-based generator Threefry 2x32 with 20 rounds.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). A key is two words of 32 bits; the
words of a key and a counter are a function of both alone, so a stream needs no state and every element is computed by
itself. The words for element ``i`` are those of the counter ``i``, as in JAX.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dflow.numpy.creation import arange
from dflow.numpy.dispatch import own
from dflow.tracing.arrays.lift import lift

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA  # of the key schedule (Skein's)
ROUNDS = 20


def threefry(key: Any, first: Any, second: Any) -> tuple[Any, Any]:
    """The two words for a key (two words) and a counter (two words), which may be arrays; all of uint32."""
    k0, k1 = key[0], key[1]
    schedule = (k0, k1, k0 ^ k1 ^ np.uint32(PARITY))
    x, y = first + schedule[0], second + schedule[1]
    for group in range(ROUNDS // 4):
        for distance in ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(distance)) | (y >> np.uint32(32 - distance)))
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def words(k: Any, shape: Any) -> tuple[Any, Any]:
    """Two words for each element."""
    shape = shape_of(shape)
    count = math.prod(shape)
    if count >= 2**32:
        raise ValueError(f"at most 2**32 - 1 random numbers come from one key, {count} were asked for")
    low = arange(count).astype(np.uint32)
    x, y = threefry(lift(k), low * np.uint32(0), low)
    return x.reshape(shape), y.reshape(shape)


def shape_of(shape: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in np.atleast_1d(shape)) if not isinstance(shape, tuple) else shape


@own
def key(seed: Any) -> Any:
    """The key of a seed: its upper and its lower 32 bits."""
    s = lift(seed).astype(np.int64).view(np.uint64)
    return np.stack([(s >> np.uint64(32)).astype(np.uint32), (s & np.uint64(0xFFFFFFFF)).astype(np.uint32)])


@own
def split(key: Any, num: Any = 2) -> Any:
    """``num`` (a number or a shape) new keys, the last axis their words. A key that was split is not used again."""
    return np.stack(words(key, num), -1)


@own
def fold_in(key: Any, data: Any) -> Any:
    """The key for a number within a stream, such as that of a step."""
    s = lift(data).astype(np.int64).view(np.uint64)
    parts = (s >> np.uint64(32)).astype(np.uint32), (s & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return np.stack(threefry(lift(key), *parts))


def key_data(keys: Any) -> Any:
    """The words of keys, which are what keys are here; for programs of JAX, as ``wrap_key_data`` and ``clone``."""
    return keys


wrap_key_data = clone = key_data


@own
def bits(key: Any, shape: Any = (), dtype: Any = np.uint32) -> Any:
    """Random bits: uint8, uint16, uint32 or uint64."""
    dtype = np.dtype(dtype)
    if dtype.kind != "u":
        raise TypeError(f"random bits are unsigned integers, not {dtype}")
    x, y = words(key, shape)
    if dtype.itemsize == 8:
        return (x.astype(np.uint64) << np.uint64(32)) | y.astype(np.uint64)
    return (x ^ y).astype(dtype)
