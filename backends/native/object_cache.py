"""Machine code on disk, from one process to the next.

    found = read(key)                      the bytes that were written under that key, or None
    write(key, data)

Keys are digests of everything that the data follows from (`digest`): the program, and what compiles it (`toolchain`).
An entry is a file of its own, written beside and moved into place, with a checksum; one that is damaged, or that
belongs to another user, counts as missing. When all together grow too large, those unused for the longest time go, a
few at a time: somebody waits for the program that is being compiled.
Whatever goes wrong with the disk, a program is compiled as if there were no cache.

``DFLOW_CACHE`` names the folder, or is ``off``; ``DFLOW_CACHE_SIZE`` is the limit in MiB (256).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import heapq
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from dflow.backends.native.blas import integer_bits

_MAGIC = b"dflow object 1\n"
_SUFFIX = ".dflow"
AT_ONCE = 256  # entries that go at a time, and four times as many as come in between
_written = itertools.count()


def folder() -> Path | None:
    """Where entries are; None when there is no cache."""
    chosen = os.environ.get("DFLOW_CACHE", "")
    if chosen.lower() in ("off", "0", "no", "false"):
        return None
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return Path(base) / "dflow" / "cache" if base else None
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "dflow"
    with contextlib.suppress(RuntimeError):  # no home
        return Path.home() / ".cache" / "dflow"
    return None


def limit() -> int:
    """The most bytes that entries may take together."""
    try:
        return int(float(os.environ.get("DFLOW_CACHE_SIZE", "256")) * 2**20)
    except ValueError:
        return 256 * 2**20


def digest(*parts: str) -> str:
    """The key of what follows from ``parts`` and from the toolchain."""
    h = hashlib.sha256()
    for part in (toolchain(), *parts):
        data = part.encode(errors="surrogatepass")
        h.update(len(data).to_bytes(8, "little") + data)
    return h.hexdigest()


@functools.cache
def toolchain() -> str:
    """What machine code depends on besides its program, as a digest: this compiler, Python, NumPy, BLAS, LLVM and
    the processor."""
    folders = [os.path.dirname(sys.modules[name].__file__ or "") for name in ("dflow", "dflow.ir", "dflow.backends")]
    stamp = sorted({s for folder in folders for s in _stamps(folder)})
    versions = [sys.version, np.__version__, str(integer_bits()), llvmlite.__version__, str(llvm.llvm_version_info)]
    processor = [llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    return hashlib.sha256("\n".join([*stamp, *versions, *processor]).encode()).hexdigest()


def _stamps(folder: str) -> Iterator[str]:
    """Path, size and time of every source file below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and entry.name != "__pycache__":
                yield from _stamps(entry.path)
            elif entry.name.endswith(".py"):
                s = entry.stat()
                yield f"{entry.path}:{s.st_size}:{s.st_mtime_ns}"


def read(key: str) -> bytes | None:
    """What was written under ``key``, if it is there and whole."""
    place = folder()
    if place is None:
        return None
    path = place / f"{key}{_SUFFIX}"
    try:
        with path.open("rb") as file:
            if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            content = file.read()
        head = _head(key, content[len(_MAGIC) + 64 :])
        if content[: len(head)] != head:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used just now
        return content[len(head) :]
    except OSError:
        return None


def write(key: str, data: bytes) -> None:
    """Keeps ``data`` under ``key``, if the disk lets us."""
    place = folder()
    if place is None or len(data) > limit() // 4:
        return
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=place)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_head(key, data) + data)
            os.replace(name, place / f"{key}{_SUFFIX}")
        except BaseException:
            os.unlink(name)
            raise
        if next(_written) % (AT_ONCE // 4) == 0:
            _shrink(place)
    except OSError:
        return


def size() -> tuple[int, int]:
    """The number of entries and their bytes."""
    place = folder()
    entries = _entries(place) if place is not None else []
    return len(entries), sum(bytes_ for _, bytes_, _ in entries)


def _head(key: str, data: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(key.encode() + data).hexdigest().encode()


def _entries(place: Path) -> list[tuple[int, int, str]]:
    """Time of last use, size and path of each entry."""
    found = []
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.endswith(_SUFFIX) or entry.name.startswith(".new-"):
                with contextlib.suppress(OSError):
                    s = entry.stat()
                    found.append((s.st_mtime_ns, s.st_size, entry.path))
    return found


def _shrink(place: Path) -> None:
    """Removes the entries unused for the longest time, down to three quarters of the limit, when there are too many;
    some of them, if that would take long."""
    entries = _entries(place)
    total = sum(bytes_ for _, bytes_, _ in entries)
    if total <= limit():
        return
    for _, bytes_, path in heapq.nsmallest(AT_ONCE, entries):
        if total <= limit() * 3 // 4:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= bytes_
