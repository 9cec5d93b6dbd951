"""The registers of a function's threads, and how operands are read and written.

A register is an array with one number for each thread of the launch. While a block of instructions runs, ``active``
holds the numbers of the threads that run it, or None when all do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ptx.faults import IllegalInstruction
from ptx.memory import Space
from ptx.parser import Function
from ptx.values import Array, Type, immediate, type_named, widened

Get = Callable[["Frame"], Array]
Put = Callable[["Frame", Array], None]
_GARBAGE = 0xDEADBEEFDEADBEEF  # in registers that were never written: undefined values may be moved about


class Frame:
    """The state of one call of a function: by all threads that call it together."""

    __slots__ = ("active", "carry", "count", "params", "registers", "run")

    def __init__(self, code: Any, run: Any, lanes: Array | None):
        self.run = run
        self.count = run.threads.count
        self.registers: list[Array] = [run.garbage(t) for t in code.register_types]
        self.params = Space(
            "parameter", code.param_bytes, self.count if code.is_caller or not code.function.is_entry else 1
        )
        self.active = lanes
        self.carry = run.garbage("pred")

    def threads(self) -> Array:
        """The numbers of the active threads."""
        return self.run.all_lanes if self.active is None else self.active

    def put(self, k: int, value: Array) -> None:
        """Writes a register of the active threads. Arrays of registers are never changed: others may hold them."""
        if self.active is None:
            self.registers[k] = value if len(value) == self.count else np.repeat(value, self.count)
        else:
            made = self.registers[k].copy()
            made[self.active] = value
            self.registers[k] = made


def garbage(count: int, kind: str) -> Array:
    raw = type_named(kind).raw
    return np.full(count, raw(_GARBAGE & ((1 << 8 * raw().itemsize) - 1)) if raw is not np.bool_ else False)


class Operands:
    """Compiles the operands of one function's instructions to functions of a frame."""

    def __init__(self, function: Function, symbols: dict[str, int]):
        self.function, self.symbols = function, symbols
        self.slots = {name: k for k, name in enumerate(function.registers)}
        self.types = [type_named(t) for t in function.registers.values()]

    def get(self, text: str, t: Type) -> Get:
        """Reads an operand as raw bits of the width of ``t``."""
        if text.startswith("!"):
            inner = self.get(text[1:], t)
            return lambda f: ~inner(f)
        slot = self.slots.get(text)
        if slot is not None:
            return _register(slot, t if self.types[slot].bits != t.bits else None)
        if text.startswith("%"):
            return _special(text)
        if text in self.symbols:
            value = np.array([self.symbols[text]], np.uint64).astype(t.raw)
        else:
            try:
                value = immediate(text, t)
            except ValueError:
                raise IllegalInstruction(f"operand {text}") from None
        return lambda f: value

    def number(self, text: str, t: Type) -> Get:
        """Reads an operand as numbers."""
        get = self.get(text, t)
        if t.kind in ("b", "u", "pred"):
            return get
        if t.kind in ("f", "s") and not t.packed:
            number = np.dtype(t.number)
            return lambda f: get(f).view(number)
        decode = t.decode
        return lambda f: decode(get(f))

    def put(self, text: str, t: Type) -> Put:
        """Writes raw bits of ``t``, extended to the width of the register."""
        if text == "_":
            return lambda f, value: None
        slot = self.slots.get(text)
        if slot is None:
            raise IllegalInstruction(f"{text} is no register of {self.function.name}")
        bits = self.types[slot].bits
        if bits == t.bits or t.kind == "pred":
            return lambda f, value: f.put(slot, value)
        return lambda f, value: f.put(slot, widened(value, t, bits))

    def address(self, text: str) -> tuple[str | None, Get]:
        """Of ``[register+offset]`` or ``[name+offset]``: the name, if any, and the addresses."""
        m = re.fullmatch(r"\[\s*([^\s+\]]+)\s*(?:\+\s*(-?\w+))?\s*\]", text)
        if m is None:
            raise IllegalInstruction(f"address {text}")
        name, offset = m[1], int(m[2] or "0", 0)
        u64 = type_named("u64")
        if name in self.slots:
            base = self.get(name, u64)
            if not offset:
                return None, base
            step = np.uint64(offset % (1 << 64))
            return None, lambda f: base(f) + step
        if name not in self.symbols and not name.lstrip("-").isdigit():
            raise IllegalInstruction(f"address {text}")
        start = self.symbols[name] if name in self.symbols else int(name)
        fixed = np.array([(start + offset) % (1 << 64)], np.uint64)
        return name, lambda f: fixed


def _register(slot: int, cut: Type | None) -> Get:
    if cut is None:

        def get(f: Frame) -> Array:
            r = f.registers[slot]
            return r if f.active is None else r[f.active]
    else:
        raw = cut.raw

        def get(f: Frame) -> Array:
            r = f.registers[slot]
            return (r if f.active is None else r[f.active]).astype(raw)

    return get


def _special(text: str) -> Get:
    def of(values: Callable[[Any], Array]) -> Get:
        def get(f: Frame) -> Array:
            found = values(f.run)
            return found if f.active is None else found[f.active]

        return get

    m = re.fullmatch(r"%(tid|ntid|ctaid|nctaid)\.([xyz])", text)
    if m:
        axis = "xyz".index(m[2])
        if m[1] in ("tid", "ctaid"):
            return of(lambda run: getattr(run.threads, m[1])[axis].astype(np.uint32))
        name = "block_shape" if m[1] == "ntid" else "grid"
        return lambda f: np.full(len(f.threads()), getattr(f.run.threads, name)[axis], np.uint32)
    if text == "%laneid":
        return of(lambda run: run.threads.lane.astype(np.uint32))
    if text == "%warpid":
        return of(lambda run: (run.threads.within // 32).astype(np.uint32))
    if text == "%lanemask_lt":
        return of(lambda run: ((1 << run.threads.lane) - 1).astype(np.uint32))
    if text in ("%clock", "%clock64", "%globaltimer"):
        width = np.uint32 if text == "%clock" else np.uint64
        return lambda f: np.full(len(f.threads()), f.run.threads.time, width)
    raise IllegalInstruction(f"special register {text}")
