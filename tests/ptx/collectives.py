"""Instructions at which threads wait for each other: barriers, and those for a whole warp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx.faults import Deadlock, IllegalInstruction
from ptx.frames import Frame, Operands
from ptx.parser import Instruction
from ptx.values import Array, type_named

NAMES = ("bar", "barrier", "shfl", "vote", "redux", "match", "elect")
_B32, _PRED = type_named("b32"), type_named("pred")


@dataclass
class Waiting:
    """The threads that wait at one instruction."""

    lanes: Array


def compiled(i: Instruction, o: Operands, position: int) -> Any:
    """The end of a block of code: threads come here, wait, and go on together."""
    if i.guard is not None:
        raise IllegalInstruction(f"{i.text}: some threads of a block only")
    if i.parts[0] in ("bar", "barrier") and i.parts[1] != "warp":
        return _barrier(i, o, position)
    mask = o.get(i.operands[0] if i.parts[0] in ("bar", "elect") else i.operands[-1], _B32)
    if i.parts[0] == "elect":
        mask = o.get(i.operands[1], _B32)
    act = _warp_instruction(i, o)

    def meet(run: Any, flow: Any, f: Frame) -> None:
        here = _gathered(flow, position, f)
        f.active = None if len(here) == f.count else here
        masks = mask(f)
        masks = np.broadcast_to(masks, here.shape)
        complete = _complete_warps(run.threads, here, masks)
        _split(flow, position, here, complete)
        if np.count_nonzero(complete):
            ready = here[complete]
            f.active = None if len(ready) == f.count else ready
            act(run, f, masks[complete])
            flow.go(position + 1, f.active)

    return meet


def _gathered(flow: Any, position: int, f: Frame) -> Array:
    waiting = flow.waiting.pop(position, None)
    lanes = f.threads()
    return lanes if waiting is None else np.sort(np.concatenate([waiting.lanes, lanes]))


def _split(flow: Any, position: int, here: Array, ready: Array) -> None:
    if np.count_nonzero(ready) < len(here):
        flow.waiting[position] = Waiting(here[~ready])


# --- barriers of a block


def _barrier(i: Instruction, o: Operands, position: int) -> Any:
    reduces = i.parts[1] == "red"
    if (not reduces and len(i.operands) > 1) or len(i.operands) > 3:
        raise IllegalInstruction(f"{i.text}: a barrier of some threads of a block")

    def meet(run: Any, flow: Any, f: Frame) -> None:
        t = run.threads
        here = _gathered(flow, position, f)
        arrived = np.bincount(t.block[here], minlength=len(t.barrier_time))
        complete = (arrived == t.per_block)[t.block[here]]
        _split(flow, position, here, complete)
        ready = here[complete]
        if not len(ready):
            return
        f.active = None if len(ready) == f.count else ready
        t.time += 1
        t.barrier_time[t.block[ready]] = t.time
        if reduces:
            reduce(f)
        flow.go(position + 1, f.active)

    if reduces:
        put = o.put(i.operands[0], type_named(i.parts[-1]))
        get = o.get(i.operands[-1], _PRED)
        kind = i.parts[-2]

        def reduce(f: Frame) -> None:
            t, lanes = f.run.threads, f.threads()
            counts = np.bincount(t.block[lanes], weights=get(f), minlength=len(t.barrier_time)).astype(np.uint32)
            mine = counts[t.block[lanes]]
            put(f, {"popc": mine, "and": mine == t.per_block, "or": mine > 0}[kind])

    return meet


# --- warps


def _complete_warps(t: Any, lanes: Array, masks: Array) -> Array:
    """Whether all threads that the mask of a thread names are here."""
    present = np.zeros(len(t.warp_time), np.uint32)
    np.bitwise_or.at(present, t.warp[lanes], (1 << t.lane[lanes]).astype(np.uint32))
    named = np.minimum(t.per_block - t.within[lanes] // 32 * 32, 32)  # threads that the warp has
    existing = np.where(named == 32, 0xFFFFFFFF, (1 << named) - 1).astype(np.uint32)
    if np.count_nonzero((masks >> t.lane[lanes].astype(np.uint32) & np.uint32(1)) == 0):
        raise Deadlock("a thread is not named by its own mask", 0)
    wanted = masks & existing
    return np.asarray((present[t.warp[lanes]] & wanted) == wanted)


def _warp_instruction(i: Instruction, o: Operands) -> Callable[[Any, Frame, Array], None]:
    name = i.parts[0]
    if name == "bar":
        return _warp_barrier
    return {"shfl": _shuffle, "vote": _vote, "redux": _redux, "match": _match, "elect": _elect}[name](i, o)


def _warp_barrier(run: Any, f: Frame, masks: Array) -> None:
    t = run.threads
    t.time += 1
    t.warp_time[t.warp[f.threads()]] = t.time


def _table(run: Any, f: Frame, values: Array) -> Array:
    """Values by (warp, lane)."""
    t, lanes = run.threads, f.threads()
    out = np.zeros((len(t.warp_time), 32), values.dtype)
    out[t.warp[lanes], t.lane[lanes]] = values
    return out


def _shuffle(i: Instruction, o: Operands) -> Any:
    """shfl.sync: each thread reads a register of another thread of its warp."""
    kind = i.parts[2]
    to, _, flag = i.operands[0].partition("|")
    put = o.put(to, _B32)
    put_flag = o.put(flag, _PRED) if flag else None
    a, b, c = (o.get(x, _B32) for x in i.operands[1:4])

    def act(run: Any, f: Frame, masks: Array) -> None:
        t, lanes = run.threads, f.threads()
        lane = t.lane[lanes]
        by, control = (np.broadcast_to(x(f), lanes.shape).astype(np.int64) for x in (b, c))
        clamp, segment = control & 31, control >> 8 & 31
        by = by & 31
        highest = (lane & segment) | (clamp & ~segment)
        lowest = lane & segment
        if kind == "up":
            source = lane - by
            inside = source >= highest
        elif kind == "down":
            source = lane + by
            inside = source <= highest
        elif kind == "bfly":
            source = lane ^ by
            inside = source <= highest
        else:
            source = lowest | (by & ~segment)
            inside = source <= highest
        source = np.where(inside, source, lane)
        missing = (masks >> source.astype(np.uint32) & np.uint32(1)) == 0
        if np.count_nonzero(missing):
            raise Deadlock("a shuffle reads a thread that its mask does not name", int(np.argmax(missing)))
        put(f, _table(run, f, a(f))[t.warp[lanes], source])
        if put_flag is not None:
            put_flag(f, inside)

    return act


def _vote(i: Instruction, o: Operands) -> Any:
    kind = i.parts[2]
    put = o.put(i.operands[0], _B32 if kind == "ballot" else _PRED)
    get = o.get(i.operands[1], _PRED)

    def act(run: Any, f: Frame, masks: Array) -> None:
        t, lanes = run.threads, f.threads()
        bits = np.broadcast_to(get(f), lanes.shape)
        found = np.zeros(len(t.warp_time), np.uint32)
        np.bitwise_or.at(found, t.warp[lanes], np.where(bits, 1 << t.lane[lanes], 0).astype(np.uint32))
        ballot = found[t.warp[lanes]] & masks
        whole = _existing(run, lanes) & masks
        if kind == "ballot":
            put(f, ballot)
        else:
            put(f, {"all": ballot == whole, "any": ballot != 0, "uni": (ballot == whole) | (ballot == 0)}[kind])

    return act


def _existing(run: Any, lanes: Array) -> Array:
    t = run.threads
    count = np.minimum(t.per_block - t.within[lanes] // 32 * 32, 32)
    return np.where(count == 32, 0xFFFFFFFF, (1 << count) - 1).astype(np.uint32)


def _redux(i: Instruction, o: Operands) -> Any:
    t = type_named(i.parts[-1])
    kind = i.parts[2]
    put, get = o.put(i.operands[0], t), o.get(i.operands[1], t)
    ufunc: Any = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }[kind]

    def act(run: Any, f: Frame, masks: Array) -> None:
        threads, lanes = run.threads, f.threads()
        values = t.decode(np.broadcast_to(get(f), lanes.shape).copy())
        out = np.empty_like(values)
        groups = threads.warp[lanes] << 32 | masks
        for g in np.unique(groups):
            mine = groups == g
            out[mine] = ufunc.reduce(values[mine]).astype(values.dtype)
        put(f, t.encode(out))

    return act


def _match(i: Instruction, o: Operands) -> Any:
    """match.any.sync: the threads that hold the same value."""
    if i.parts[1] != "any":
        raise IllegalInstruction(i.opcode)
    put, get = o.put(i.operands[0], _B32), o.get(i.operands[1], type_named(i.parts[-1]))

    def act(run: Any, f: Frame, masks: Array) -> None:
        t, lanes = run.threads, f.threads()
        values = np.broadcast_to(get(f), lanes.shape)
        same = _table(run, f, values)[t.warp[lanes]] == values[:, None]
        here = _table(run, f, np.ones(len(lanes), bool))[t.warp[lanes]]
        bits = np.where(same & here, np.uint32(1) << np.arange(32, dtype=np.uint32), np.uint32(0))
        put(f, bits.sum(axis=1, dtype=np.uint32) & masks)

    return act


def _elect(i: Instruction, o: Operands) -> Any:
    to, _, flag = i.operands[0].partition("|")
    put, put_flag = o.put(to, _B32), o.put(flag, _PRED)

    def act(run: Any, f: Frame, masks: Array) -> None:
        t, lanes = run.threads, f.threads()
        lowest = (np.bitwise_count((masks & (~masks + np.uint32(1))) - np.uint32(1))).astype(np.uint32)
        put(f, lowest)
        put_flag(f, t.lane[lanes] == lowest)

    return act
