"""Where programs run and arrays lie: ``device_put`` and ``default_device``."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from dflow import trees
from dflow.devices.array import Array, is_on_device, moved, taken
from dflow.devices.streams import current_device, current_stream, ordinal_of
from dflow.programs.signature import as_array, leaf_type

_default: ContextVar[int | None] = ContextVar("default_device", default=None)
# Objects whose native entries are closed while a default device is set somewhere, for those know nothing of it.
_entered: weakref.WeakSet[Any] = weakref.WeakSet()
_count = 0
_lock = threading.Lock()


def device_put(x: Any, device: str = "cuda") -> Any:
    """The arrays and numbers of a tree on a device: ``"cuda"``, ``"cuda:1"``, or ``"cpu"`` for NumPy arrays.

    Arrays that are there already are passed on; what is no array of numbers stays as it is. Raises DeviceUnavailable
    when there is no such device, DeviceOutOfMemory when it is full, ValueError for another name.
    """
    if device == "cpu":
        return trees.map_leaves(lambda leaf: taken(leaf).numpy() if is_on_device(leaf) else leaf, x)
    target = current_device(ordinal_of(device))
    stream = current_stream(target)

    def put(leaf: Any) -> Any:
        if is_on_device(leaf):
            found = taken(leaf)
            return found if found.memory.device is target else moved(found.numpy(), target, stream)
        if leaf_type(leaf) is None:
            return leaf
        return moved(np.asarray(as_array(leaf)), target, stream)

    return trees.map_leaves(put, x)


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    """Compiled functions that name no device run on this one, and their results stay there.

    with dflow.default_device("cuda"):
        y = f(x)                     # y is a dflow.Array
    """
    global _count
    ordinal = None if device == "cpu" else ordinal_of(device)
    if ordinal is not None:
        current_device(ordinal)
    token = _default.set(ordinal)
    with _lock:
        _count += 1
        for each in list(_entered):
            each.close_entries()
    try:
        yield
    finally:
        _default.reset(token)
        with _lock:
            _count -= 1
            if not _count:
                for each in list(_entered):
                    each.open_entries()


def default_ordinal() -> int | None:
    """The number of the default device, None for the processor."""
    return _default.get()


def entries_are_open(each: Any) -> bool:
    """Whether native entries may be used now. ``each`` has some, and is told by ``close_entries``, ``open_entries``."""
    with _lock:
        _entered.add(each)
        return not _count


def runs_on_device(leaves: Any) -> bool:
    """Whether a call that names no device runs on one: it is the default, or an array is there."""
    return _default.get() is not None or any(isinstance(x, Array) for x in leaves)
