"""Instructions on bits: logic, shifts, fields, permutations, counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ptx.values import Array, Type, type_named

_B32, _U32 = type_named("b32"), type_named("u32")
Made = tuple[tuple[Type, ...], Type, Callable[..., Array]]


def _same(count: int, run: Callable[..., Array]) -> Callable[[Type, Sequence[str]], Made]:
    return lambda t, modifiers: ((t,) * count, t, run)


def _not(x: Array) -> Array:
    return ~x


def _shift(left: bool) -> Callable[[Type, Sequence[str]], Made]:
    def make(t: Type, modifiers: Sequence[str]) -> Made:
        def run(x: Array, by: Array) -> Array:
            amount = np.minimum(by, np.uint32(t.bits)).astype(x.dtype)
            # NumPy gives zeros, or the sign, for a shift by all bits.
            return x << amount if left else x >> amount

        return (t, _U32), t, run

    return make


def _funnel(t: Type, modifiers: Sequence[str]) -> Made:
    left, wrap = modifiers[0] == "l", modifiers[1] == "wrap"

    def run(low: Array, high: Array, by: Array) -> Array:
        n = (by & np.uint32(31) if wrap else np.minimum(by, np.uint32(32))).astype(np.uint64)
        both = high.astype(np.uint64) << np.uint64(32) | low
        return (both >> (np.uint64(32) - n) if left else both >> n).astype(np.uint32)

    return (t, t, _U32), t, run


def _field(t: Type, modifiers: Sequence[str]) -> Made:
    """bfe: ``length`` bits from ``position``, extended by their sign or by zeros."""

    def run(x: Array, position: Array, length: Array) -> Array:
        start, count = (position & 255).astype(np.int64), (length & 255).astype(np.int64)
        end = start + count
        if t.kind != "s":
            shifted = np.where(start < t.bits, x >> np.minimum(start, t.bits - 1).astype(x.dtype), x.dtype.type(0))
            return shifted & _ones(count, t.bits).astype(x.dtype)
        # To the top, so that the sign is in place; what lies beyond the top is the sign already.
        up = np.maximum(t.bits - end, 0)
        moved = (x << np.minimum(up, t.bits - 1).astype(x.dtype)) >> np.minimum(up + start, t.bits - 1).astype(x.dtype)
        return np.where(count == 0, x.dtype.type(0), moved)

    return (t, _U32, _U32), t, run


def _insert(t: Type, modifiers: Sequence[str]) -> Made:
    def run(a: Array, b: Array, position: Array, length: Array) -> Array:
        start, count = (position & 255).astype(np.int64), (length & 255).astype(np.int64)
        by = np.minimum(start, t.bits - 1).astype(a.dtype)
        mask = np.where(start < t.bits, _ones(count, t.bits).astype(a.dtype) << by, a.dtype.type(0))
        return (a << by & mask) | (b & ~mask)

    return (t, t, _U32, _U32), t, run


def _ones(count: Array, bits: int) -> Array:
    """As many low bits."""
    full = np.uint64((1 << bits) - 1)
    return np.where(count >= bits, full, (np.uint64(1) << np.minimum(count, 63).astype(np.uint64)) - np.uint64(1))


def _permute(t: Type, modifiers: Sequence[str]) -> Made:
    """prmt: four bytes, each picked from the eight of the operands, or its sign."""

    def run(a: Array, b: Array, control: Array) -> Array:
        both = b.astype(np.uint64) << np.uint64(32) | a
        out = np.zeros(np.broadcast(a, b, control).shape, np.uint32)
        for k in range(4):
            pick = (control >> np.uint32(4 * k)) & np.uint32(15)
            byte = (both >> (np.uint64(8) * (pick & np.uint32(7)).astype(np.uint64))).astype(np.uint32) & np.uint32(255)
            sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
            out |= np.where(pick & np.uint32(8), sign, byte) << np.uint32(8 * k)
        return out

    return (_B32, _B32, _B32), _B32, run


def _leading_zeros(x: Array) -> Array:
    bits = x.dtype.itemsize * 8
    filled = x.copy()
    shift = 1
    while shift < bits:
        filled |= filled >> x.dtype.type(shift)
        shift *= 2
    return (bits - np.bitwise_count(filled)).astype(np.uint32)


def _reversed(x: Array) -> Array:
    bits = x.dtype.itemsize * 8
    planes = np.unpackbits(np.ascontiguousarray(x).view(np.uint8).reshape(-1, bits // 8), axis=1, bitorder="little")
    return np.packbits(planes[:, ::-1], axis=1, bitorder="little").reshape(-1).view(x.dtype)


def _find(t: Type, modifiers: Sequence[str]) -> Made:
    """bfind: the place of the highest bit that differs from the sign, counted from the top with ``.shiftamt``."""
    unsigned = type_named(f"u{t.bits}")

    def run(x: Array) -> Array:
        if t.kind == "s":
            x = np.where(x.view(unsigned.number) >> unsigned.number(t.bits - 1), ~x, x).astype(unsigned.number)
        place = np.uint32(t.bits - 1) - _leading_zeros(x)
        if "shiftamt" in modifiers:
            place = np.uint32(t.bits - 1) - place
        return np.where(x == 0, np.uint32(0xFFFFFFFF), place)

    return (unsigned,), _U32, run


def _lut(t: Type, modifiers: Sequence[str]) -> Made:
    def run(a: Array, b: Array, c: Array, table: Array) -> Array:
        out = np.zeros(np.broadcast(a, b, c).shape, np.uint32)
        for k in range(8):
            term = (a if k & 4 else ~a) & (b if k & 2 else ~b) & (c if k & 1 else ~c)
            out |= np.where(table >> np.uint32(k) & np.uint32(1), term, np.uint32(0))
        return out

    return (_B32,) * 4, _B32, run


BITS: dict[str, Callable[[Type, Sequence[str]], Made]] = {
    "and": _same(2, lambda a, b: a & b),
    "or": _same(2, lambda a, b: a | b),
    "xor": _same(2, lambda a, b: a ^ b),
    "not": _same(1, _not),
    "cnot": _same(1, lambda a: (a == 0).astype(a.dtype)),
    "shl": _shift(True),
    "shr": _shift(False),
    "shf": _funnel,
    "bfe": _field,
    "bfi": _insert,
    "prmt": _permute,
    "popc": lambda t, m: ((t,), _U32, lambda a: np.bitwise_count(a).astype(np.uint32)),
    "clz": lambda t, m: ((t,), _U32, _leading_zeros),
    "brev": _same(1, _reversed),
    "bfind": _find,
    "lop3": _lut,
}
