"""Instructions on memory: loads, stores, atomic updates, addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptx.arithmetic import minimum
from ptx.faults import IllegalInstruction, Misaligned
from ptx.frames import Frame, Operands
from ptx.memory import Heap
from ptx.parser import Instruction
from ptx.values import Array, Type, type_named

# Where shared and local memory lie among generic addresses.
SHARED, LOCAL = 1 << 56, 1 << 57
WINDOWS = {"shared": SHARED, "local": LOCAL}
_SPACES = ("global", "shared", "local", "param", "const")
Run = Callable[[Frame], None]


def space_of(parts: Sequence[str]) -> str:
    return next((s for p in parts for s in _SPACES if p == s or p.startswith(s + "_")), "generic")


def _vector(operand: str) -> list[str]:
    return [x.strip() for x in operand.strip("{}").split(",")]


def load(i: Instruction, o: Operands) -> Run:
    t, space = type_named(i.parts[-1]), space_of(i.parts)
    puts = [o.put(name, t) for name in _vector(i.operands[0])]
    _, address = o.address(i.operands[1])
    width, constant = t.bytes, "nc" in i.parts
    if len(puts) == 1:
        put = puts[0]
        return lambda f: put(f, f.run.load(f, space, address(f), width, constant))
    steps = [np.uint64(k * width) for k in range(len(puts))]

    def run(f: Frame) -> None:
        start = address(f)
        f.run.check_vector(start, width * len(puts))
        found = [f.run.load(f, space, start + step, width, constant) for step in steps]
        for put, values in zip(puts, found):
            put(f, values)

    return run


def store(i: Instruction, o: Operands) -> Run:
    t, space = type_named(i.parts[-1]), space_of(i.parts)
    gets = [o.get(name, t) for name in _vector(i.operands[1])]
    _, address = o.address(i.operands[0])
    width = t.bytes
    if len(gets) == 1:
        get = gets[0]
        return lambda f: f.run.store(f, space, address(f), width, get(f))

    def run(f: Frame) -> None:
        start = address(f)
        f.run.check_vector(start, width * len(gets))
        for k, get in enumerate(gets):
            f.run.store(f, space, start + np.uint64(k * width), width, get(f))

    return run


# --- atomic updates: the new contents from the old and the operands

_UPDATES: dict[str, Callable[[Type], Callable[..., Array]]] = {
    "add": lambda t: np.add,
    "and": lambda t: np.bitwise_and,
    "or": lambda t: np.bitwise_or,
    "xor": lambda t: np.bitwise_xor,
    "exch": lambda t: lambda old, new: new,
    "cas": lambda t: lambda old, wanted, new: np.where(old == wanted, new, old),
    "min": lambda t: minimum(True)(t, ()) if t.is_float else np.minimum,
    "max": lambda t: minimum(False)(t, ()) if t.is_float else np.maximum,
    "inc": lambda t: lambda old, top: np.where(old >= top, np.uint32(0), old + np.uint32(1)),
    "dec": lambda t: lambda old, top: np.where((old == 0) | (old > top), top, old - np.uint32(1)),
}


def atomic(i: Instruction, o: Operands) -> Run:
    name = next((p for p in i.parts[1:] if p in _UPDATES), None)
    if name is None:
        raise IllegalInstruction(i.opcode)
    t, space = type_named(i.parts[-1]), space_of(i.parts)
    update = _UPDATES[name](t)
    returns = i.parts[0] == "atom"
    put = o.put(i.operands[0], t) if returns else None
    _, address = o.address(i.operands[1 if returns else 0])
    gets = [o.get(x, t) for x in i.operands[2 if returns else 1 :]]

    def change(old: Array, *values: Array) -> Array:
        return t.encode(np.asarray(update(t.decode(old), *map(t.decode, values))))

    def run(f: Frame) -> None:
        count = len(f.threads())
        where = _full(address(f), count)
        old = f.run.update(f, space, where, t.bytes, change, [_full(get(f), count) for get in gets])
        if put is not None:
            put(f, old)

    return run


def _full(x: Array, count: int) -> Array:
    return x if len(x) == count else np.repeat(x, count)


# --- addresses


def convert_address(i: Instruction, o: Operands) -> Run:
    """cvta: between a space and generic addresses."""
    t = type_named(i.parts[-1])
    window = np.uint64(WINDOWS.get(space_of(i.parts), 0))
    get, put = o.get(i.operands[1], t), o.put(i.operands[0], t)
    if "to" in i.parts:
        return lambda f: put(f, get(f) - window)
    return lambda f: put(f, get(f) + window)


def is_in_space(i: Instruction, o: Operands) -> Run:
    pred, u64 = type_named("pred"), type_named("u64")
    wanted = space_of(i.parts)
    put, get = o.put(i.operands[0], pred), o.get(i.operands[1], u64)
    return lambda f: put(f, windows_of(get(f)) == wanted)


def windows_of(addresses: Array) -> Array:
    """The space that each generic address is in."""
    return np.where(addresses >= LOCAL, "local", np.where(addresses >= SHARED, "shared", "global"))


class MemoryOfThreads:
    """How the threads of a run reach memory; see ``Run`` in ``machine.py``, whose part it is."""

    heap: Heap
    threads: Any
    races: dict[str, Any]
    shared: Any
    local: Any

    def load(self, f: Frame, space: str, addresses: Array, width: int, constant: bool = False) -> Array:
        if space == "param":
            return f.params.load(addresses, width, 0 if f.params.units == 1 else f.threads())
        addresses, space, parts = self._resolve(f, space, addresses)
        if parts is not None:
            out = np.zeros(len(addresses), type_named(f"u{8 * width}").raw)
            for name, mask in parts:
                out[mask] = self._within(
                    f, mask, lambda name=name, mask=mask: self.load(f, name, addresses[mask], width)
                )
            return out
        memory, unit = self._memory(f, space)
        found = memory.load(addresses, width, unit)
        if space in self.races:
            self.threads.time += 1
            at = memory.positions(addresses, width, unit)
            race = self.races[space]
            (race.load_constant if constant else race.load)(*self._places(f, at, width, space))
        return found

    def store(self, f: Frame, space: str, addresses: Array, width: int, values: Array) -> None:
        if space == "param":
            f.params.store(_full(addresses, len(f.threads())), width, f.threads(), values)
            return
        addresses, space, parts = self._resolve(f, space, addresses)
        if parts is not None:
            for name, mask in parts:
                mine = values[mask] if len(values) == len(addresses) else values
                self._within(f, mask, lambda n=name, m=mask, v=mine: self.store(f, n, addresses[m], width, v))
            return
        memory, unit = self._memory(f, space)
        memory.store(addresses, width, unit, values)
        if space in self.races:
            self.threads.time += 1
            at = memory.positions(addresses, width, unit)
            self.races[space].store(*self._places(f, at, width, space))

    def update(
        self, f: Frame, space: str, addresses: Array, width: int, change: Callable[..., Array], values: list[Array]
    ) -> Array:
        """Changes places one thread after the other; what was there before each."""
        addresses, space, parts = self._resolve(f, space, addresses)
        if parts is not None:
            raise IllegalInstruction("an atomic update in several spaces at once")
        memory, unit = self._memory(f, space)
        at = memory.positions(addresses, width, unit)
        if space in self.races:
            self.threads.time += 1
            self.races[space].update(*self._places(f, at, width, space))
        old = np.zeros(len(at), type_named(f"u{8 * width}").raw)
        left = np.arange(len(at))
        while len(left):
            _, first = np.unique(at[left], return_index=True)
            now = left[first]
            units = unit if isinstance(unit, int) else unit[now]
            old[now] = memory.load(addresses[now], width, units)
            memory.store(addresses[now], width, units, change(old[now], *(v[now] for v in values)))
            left = np.delete(left, first)
        return old

    def check_vector(self, addresses: Array, width: int) -> None:
        bad = (addresses & np.uint64(width - 1)) != 0
        if np.count_nonzero(bad):
            k = int(np.argmax(bad))
            raise Misaligned(f"{width} bytes at {self.heap._name(int(addresses[k]))}", k)

    def _memory(self, f: Frame, space: str) -> tuple[Any, Any]:
        if space in ("global", "const"):
            return self.heap, 0
        if space == "shared":
            return self.shared, self.threads.block[f.threads()]
        return self.local, f.threads()

    def _resolve(self, f: Frame, space: str, addresses: Array) -> tuple[Array, str, list[tuple[str, Array]] | None]:
        """Addresses in one space; or, for generic ones of several, which threads use which."""
        if len(addresses) == 1:
            addresses = _full(addresses, len(f.threads()))
        if space != "generic":
            return addresses, space, None
        if not np.count_nonzero(addresses >= np.uint64(SHARED)):
            return addresses, "global", None
        kinds = windows_of(addresses)
        found = list(np.unique(kinds))
        base = np.where(
            kinds == "local", np.uint64(LOCAL), np.where(kinds == "shared", np.uint64(SHARED), np.uint64(0))
        )
        if len(found) == 1:
            return addresses - base, str(found[0]), None
        return addresses - base, "generic", [(str(name), kinds == name) for name in found]

    def _within(self, f: Frame, mask: Array, run: Callable[[], Any]) -> Any:
        before = f.active
        f.active = f.threads()[mask]
        try:
            return run()
        finally:
            f.active = before

    def _places(self, f: Frame, at: Array, width: int, space: str) -> tuple[Array, Array]:
        """Every place that an access touches, with the thread."""
        lanes = f.threads()
        per = width // self.races[space].granule
        if per == 1:
            return at, lanes
        return (at[:, None] * per + np.arange(per)).reshape(-1), np.repeat(lanes, per)
