"""Types of PTX, and numbers of them in raw bits.

Registers hold unsigned integers of their width (predicates: bool). An instruction decodes them by its own type,
computes, and encodes the result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx.faults import IllegalInstruction

Array = np.ndarray
_UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
_SIGNED = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
_FLOAT = {16: np.float16, 32: np.float32, 64: np.float64}


@dataclass(frozen=True)
class Type:
    """``kind``: ``b`` and ``u`` (unsigned), ``s``, ``f``, ``bf`` (bfloat16, computed as float32), ``pred``.

    ``packed``: two numbers in one register, which decode to the last axis. ``bits`` counts all.
    """

    name: str
    kind: str
    bits: int
    packed: bool = False

    @property
    def element_bits(self) -> int:
        return self.bits // 2 if self.packed else self.bits

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind in ("f", "bf")

    @property
    def raw(self) -> Any:
        return np.bool_ if self.kind == "pred" else _UNSIGNED[self.bits]

    @property
    def number(self) -> Any:
        """The NumPy type that numbers are computed in."""
        if self.kind == "pred":
            return np.bool_
        if self.kind == "bf":
            return np.float32
        table = {"s": _SIGNED, "f": _FLOAT}.get(self.kind, _UNSIGNED)
        return table[self.element_bits]

    def decode(self, raw: Array) -> Array:
        """Numbers from raw bits of this width."""
        if self.kind in ("b", "u", "pred"):
            return raw
        if self.packed:
            raw = raw.view(_UNSIGNED[self.element_bits]).reshape(-1, 2)
        if self.kind == "bf":
            return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw.view(self.number)

    def encode(self, numbers: Array) -> Array:
        """Raw bits of numbers of ``number``, which are rounded to nearest where the type is narrower."""
        if self.kind in ("b", "u", "pred"):
            return numbers
        raw = to_bfloat(numbers) if self.kind == "bf" else numbers.view(_UNSIGNED[self.element_bits])
        if self.packed:
            return np.ascontiguousarray(raw).view(_UNSIGNED[self.bits]).reshape(-1)
        return raw


def to_bfloat(x: Array) -> Array:
    """The upper halves of float32 numbers, rounded to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), rounded).astype(np.uint16)


def type_named(name: str) -> Type:
    if name == "pred":
        return Type(name, "pred", 8)
    m = re.fullmatch(r"(b|u|s|f|bf)(8|16|32|64)(x2)?", name)
    if m is None:
        raise IllegalInstruction(f"type .{name}")
    kind, bits = m[1], int(m[2])
    return Type(name, kind, 2 * bits if m[3] else bits, bool(m[3]))


def widened(raw: Array, t: Type, bits: int) -> Array:
    """Raw bits in a register of ``bits``: extended by the sign for signed types, by zeros for others; or cut."""
    if t.bits == bits:
        return raw
    if t.kind == "s" and bits > t.bits:
        return raw.view(_SIGNED[t.bits]).astype(_SIGNED[bits]).view(_UNSIGNED[bits])
    return raw.astype(_UNSIGNED[bits])


def immediate(text: str, t: Type) -> Array:
    """One number as raw bits. Raises ValueError for what is none."""
    if t.kind == "pred":
        return np.array([int(text, 0) != 0])
    if m := re.fullmatch(r"0[dD]([0-9A-Fa-f]{16})", text):
        number = np.array([int(m[1], 16)], np.uint64)
        return number if t.bits == 64 else t.encode(number.view(np.float64).astype(t.number))
    if m := re.fullmatch(r"0[fF]([0-9A-Fa-f]{8})", text):
        number = np.array([int(m[1], 16)], np.uint32)
        return number if t.bits == 32 else t.encode(number.view(np.float32).astype(t.number))
    if m := re.fullmatch(r"0x([0-9A-Fa-f]+)U?", text):
        value = int(m[1], 16)
    elif re.fullmatch(r"-?\d+U?", text):
        value = int(text.rstrip("U"))
    else:
        value = None
    if value is None:
        return t.encode(np.array([float(text)]).astype(t.number))
    return np.array([value % (1 << t.bits)], np.uint64).astype(t.raw)
