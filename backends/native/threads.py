"""How many threads a compiled program may use, and the pool that they come from.

The number is that of the cores which this process may use, or what ``DFLOW_THREADS`` says, or the last `set_threads`.
It is a word of the pool (`thread_pool.py`), so machine code is the same for every number; so is how long a thread looks
for work before it sleeps.
"""

from __future__ import annotations

import ctypes
import operator
import os
from collections.abc import Mapping
from typing import SupportsIndex

from dflow.backends.native.thread_pool import LIMIT, PATIENCE, SYMBOL

MOST = 1024
LOOKS = 50_000, 2_000  # ns, where each thread has a core, and where it has not
_chosen: int | None = None
_words: list[tuple[ctypes.c_int32, ctypes.c_int64]] = []  # of the pool, once it is loaded


def threads() -> int:
    """The number of threads that a call of a compiled function may use on the CPU, that of the caller included.

    It is the number of cores that this process may use, the value of the environment variable ``DFLOW_THREADS``, or
    what `set_threads` was last called with. Raises ValueError when ``DFLOW_THREADS`` is not a number of threads.
    """
    return _chosen if _chosen is not None else _default()


def set_threads(count: SupportsIndex) -> None:
    """Sets the number of threads that a call of a compiled function may use on the CPU, from the next call on.

    ``count`` is an int from 1 (only the calling thread) to 1024; it may exceed the number of cores. It is for the whole
    process; processes forked from it have it too. Results do not depend on it. Raises ValueError for other numbers and
    TypeError for what is no int.
    """
    global _chosen
    number = operator.index(count)
    if not 1 <= number <= MOST:
        raise ValueError(f"the number of threads must be from 1 to {MOST}, got {number}")
    _chosen = number
    _tell()


def symbols(addresses: Mapping[str, int]) -> dict[str, int]:
    """What machine code refers to, where ``addresses`` are those of the pool just loaded, which learns the number."""
    _words[:] = [(ctypes.c_int32.from_address(addresses[LIMIT]), ctypes.c_int64.from_address(addresses[PATIENCE]))]
    _tell()
    return {name: addresses[name] for name in (SYMBOL, LIMIT)}


def _tell() -> None:
    for limit, patience in _words:
        limit.value = threads()
        patience.value = LOOKS[limit.value > _cores()]


def _default() -> int:
    asked = os.environ.get("DFLOW_THREADS", "").strip()
    if not asked:
        return min(MOST, _cores())
    if not asked.isdecimal() or not 1 <= int(asked) <= MOST:
        raise ValueError(f"DFLOW_THREADS must be a number of threads from 1 to {MOST}, or not set; it is {asked!r}")
    return int(asked)


def _cores() -> int:
    """The cores that this process may use: its affinity, and the share that a container gives it (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return cores
