"""Fewer collections of cyclic garbage while a program is compiled.

Every operation refers to its results, and they to it, so what one pass leaves behind is garbage in cycles. Compiling
makes a great many objects that live for a few passes: with Python's usual thresholds a third to a half of its time goes
into looking at them again and again.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

THRESHOLDS = (100_000, 20, 100)  # young objects are a few tens of megabytes at most
_LOCK = threading.Lock()
_compiling = 0
_before: tuple[int, int, int] = (0, 0, 0)


@contextlib.contextmanager
def fewer_collections() -> Iterator[None]:
    """Sets the thresholds as long as any thread is inside, unless the collector is off or has higher ones."""
    global _compiling, _before
    with _LOCK:
        if _compiling == 0:
            _before = gc.get_threshold()
            if 0 < _before[0] < THRESHOLDS[0]:
                gc.set_threshold(*THRESHOLDS)
        _compiling += 1
    try:
        yield
    finally:
        with _LOCK:
            _compiling -= 1
            if _compiling == 0 and gc.get_threshold() == THRESHOLDS:
                gc.set_threshold(*_before)
