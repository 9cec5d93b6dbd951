"""Which accesses to a place are in order, and which race.

For every place (of as many bytes as the smallest access of the module) the last thread to write it and the last to read
it are kept, with the time. An access races with an earlier one by another thread, when one of both writes, and none
is atomic or just one that writes and the other writes too, unless in between

- the threads are of one block, and the block passed a barrier (or their warp, if they are of one warp);
- or they are of different blocks, and the other's block made its writes visible by a fence.
"""

from __future__ import annotations

import numpy as np

from ptx.faults import Race

_MANY = -1  # read by several threads


class Races:
    """The accesses of one launch to one space."""

    def __init__(self, name: str, places: int, threads: Threads, granule: int = 1):
        self.name, self.threads, self.granule = name, threads, granule
        self.writer, self.reader = np.zeros(places, np.int32), np.zeros(places, np.int32)  # thread + 1
        self.written, self.read = np.zeros(places, np.int32), np.zeros(places, np.int32)  # times
        self.atomic = np.zeros(places, bool)

    def load(self, at: np.ndarray, lanes: np.ndarray) -> None:
        # Compilers begin a loop of compare-and-swap with a plain read.
        self._check(at, lanes, self.writer[at], self.written[at], "reads", "wrote", self.atomic[at])
        self._note_read(at, lanes)

    def load_constant(self, at: np.ndarray, lanes: np.ndarray) -> None:
        """A read that may come from a cache which no write of the launch reaches."""
        written = self.writer[at] != 0
        if np.count_nonzero(written):
            k = int(np.argmax(written))
            other = self.threads.name(int(self.writer[at[k]]) - 1)
            raise Race(f"reads {self.name} memory as constant that {other} wrote in the same launch", k)
        self._note_read(at, lanes)

    def store(self, at: np.ndarray, lanes: np.ndarray) -> None:
        self._check(at, lanes, self.writer[at], self.written[at], "writes", "wrote", None)
        self._check(at, lanes, self.reader[at], self.read[at], "writes", "read", None)
        self.writer[at] = lanes + 1
        self.written[at] = self.threads.time
        self.atomic[at] = False
        lost = self.writer[at] != lanes + 1
        if np.count_nonzero(lost):
            k = int(np.argmax(lost))
            raise Race(self._message(at[k], lanes[k], self.writer[at[k]] - 1, "writes", "writes"), k)

    def update(self, at: np.ndarray, lanes: np.ndarray) -> None:
        """An atomic access."""
        self._check(at, lanes, self.writer[at], self.written[at], "updates", "wrote", self.atomic[at])
        self.writer[at] = lanes + 1
        self.written[at] = self.threads.time
        self.atomic[at] = True

    def _note_read(self, at: np.ndarray, lanes: np.ndarray) -> None:
        before, when = self.reader[at], self.read[at]
        fresh = (before == 0) | (before == lanes + 1) | self._ordered(before, when, lanes)
        self.reader[at] = np.where(fresh, lanes + 1, _MANY)
        together = self.reader[at] != lanes + 1
        if np.count_nonzero(together):
            self.reader[at[together]] = _MANY
        self.read[at] = self.threads.time

    def _check(self, at, lanes, other, when, verb, earlier, atomic) -> None:  # type: ignore[no-untyped-def]
        touched = (other != 0) & (other != lanes + 1)
        if not np.count_nonzero(touched):
            return
        bad = touched & ~self._ordered(other, when, lanes)
        if atomic is not None:
            bad &= ~atomic
        if np.count_nonzero(bad):
            k = int(np.argmax(bad))
            raise Race(self._message(at[k], lanes[k], other[k] - 1, verb, earlier), k)

    def _ordered(self, other: np.ndarray, when: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """Whether what ``other`` (thread + 1, or _MANY) did at a time comes before what ``lanes`` do now."""
        t = self.threads
        known = np.maximum(other - 1, 0)
        mine = t.barrier_time[t.block[lanes]]
        same_block = t.block[known] == t.block[lanes]
        same_warp = t.warp[known] == t.warp[lanes]
        since = np.where(same_warp, np.maximum(mine, t.warp_time[t.warp[lanes]]), mine)
        since = np.where(same_block, since, t.fence_time[t.block[known]])
        # Of many readers nothing is known but that they were there.
        since = np.where(other == _MANY, mine, since)
        return np.asarray(since > when)

    def _message(self, place: int, lane: int, other: int, verb: str, earlier: str) -> str:
        who = self.threads.name(int(other)) if other >= 0 else "another thread"
        return f"{verb} {self.name} memory that {who} {earlier} with nothing to order them"


class Threads:
    """The threads of a launch: where each is in the grid, and when its block and its warp were last in step."""

    def __init__(self, grid: tuple[int, int, int], block: tuple[int, int, int], blocks: np.ndarray):
        self.grid, self.block_shape = grid, block
        per_block = int(np.prod(block))
        self.per_block, self.count = per_block, per_block * len(blocks)
        within = np.tile(np.arange(per_block), len(blocks))
        self.within = within
        self.block = np.repeat(np.arange(len(blocks)), per_block)  # among those that run together
        number = np.repeat(blocks, per_block)
        self.tid = _coordinates(within, block)
        self.ctaid = _coordinates(number, grid)
        self.warps_per_block = -(-per_block // 32)
        self.lane = within % 32
        self.warp = self.block * self.warps_per_block + within // 32
        self.time = 0
        self.barrier_time = np.zeros(len(blocks), np.int64)
        self.fence_time = np.zeros(len(blocks), np.int64)
        self.warp_time = np.zeros(len(blocks) * self.warps_per_block, np.int64)

    def name(self, lane: int) -> str:
        def plain(t: list[np.ndarray]) -> str:
            numbers = [int(x[lane]) for x in t]
            return str(numbers[0]) if not any(numbers[1:]) else f"({', '.join(map(str, numbers))})"

        return f"thread {plain(self.tid)} of block {plain(self.ctaid)}"


def _coordinates(number: np.ndarray, shape: tuple[int, int, int]) -> list[np.ndarray]:
    x, y, _ = shape
    return [number % x, number // x % y, number // (x * y)]
