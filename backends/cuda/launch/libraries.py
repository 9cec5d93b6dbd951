"""cuBLAS and cuSOLVER, through nvmath-python: the routines that a plan asks for.

    libraries = Libraries.of(device, stream)      None where they cannot be had
    libraries.bytes(call)                         the memory that a routine works in
    libraries.run(call, addresses, room)

Without the package, kernels do the work. Where it is there and its libraries do not load, a warning says why.

A handle belongs to one stream of one context, and has its workspace from us: so the products and triangular systems can
be recorded in a graph. Numbers of 32 bits are all that the routines take; nothing larger is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from dflow.backends.cuda.launch.driver import Device, DeviceError, DeviceOutOfMemory
from dflow.backends.cuda.launch.memory import allocate, release_caches
from dflow.backends.cuda.plan import Dense
from dflow.ir.types import DType

LETTERS = {"f32": "s", "f64": "d", "c64": "c", "c128": "z"}
DATA = {"f16": 2, "bf16": 14, "f32": 0, "f64": 1, "c64": 4, "c128": 5}  # cudaDataType
COMPUTE_32F, COMPUTE_64F, DEFAULT_ALGORITHM = 68, 70, -1
N, T = 0, 1  # operations
LEFT_SIDE, RIGHT_SIDE = 0, 1
LOWER, UPPER = 0, 1
WITH_VECTORS = 1
# Recorded graphs hold these; cuSOLVER's may wait for the device between their kernels.
RECORDABLE = frozenset({"gemm", "trsm", "trsm_batched", "getrf_batched"})
# What NVIDIA advises, before Hopper and from it on.
WORKSPACE = {False: 4 << 20, True: 32 << 20}

_ONES = {name: np.ones(1, dtype) for name, dtype in (("f32", "f4"), ("f64", "f8"), ("c64", "c8"), ("c128", "c16"))}
_ZEROS = {name: np.zeros_like(one) for name, one in _ONES.items()}


class Libraries:
    """The handles for one stream of a device."""

    _all: ClassVar[weakref.WeakKeyDictionary[Device, tuple[int, dict[int, Libraries | None]]]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, device: Device, stream: int):
        self.device, self.stream, self.generation = device, stream, device.generation
        self.lock = threading.RLock()
        self.blas = importlib.import_module("nvmath.bindings.cublas")
        self.solver = importlib.import_module("nvmath.bindings.cusolverDn")
        self.handle = self.blas.create()
        self.solver_handle = self.solver.create()
        self.room = allocate(device, WORKSPACE[device.capability >= (9, 0)], stream)
        self._work_on(stream)

    def _work_on(self, stream: int) -> None:
        self.blas.set_stream(self.handle, stream)  # which takes away the workspace, so that comes later
        self.blas.set_workspace(self.handle, self.room.pointer, self.room.size)
        self.solver.set_stream(self.solver_handle, stream)

    @contextlib.contextmanager
    def elsewhere(self, stream: int) -> Iterator[None]:
        """Gives the work to another stream for a while, in which other threads wait. What is recorded of it must run on
        the stream of these handles, whose memory it works in."""
        with self.lock:
            self._work_on(stream)
            try:
                yield
            finally:
                if self.generation == self.device.generation:
                    self._work_on(self.stream)

    @classmethod
    def of(cls, device: Device, stream: int) -> Libraries | None:
        """Those of a stream, made when first asked for. The device's context must be current."""
        with device.lock:
            generation, found = cls._all.get(device, (-1, {}))
            if generation != device.generation:
                found = {}
                cls._all[device] = device.generation, found
            if stream not in found:
                found[stream] = cls._open(device, stream)
            return found[stream]

    @classmethod
    def _open(cls, device: Device, stream: int) -> Libraries | None:
        try:
            try:
                return cls(device, stream)
            except ModuleNotFoundError:
                return None
            except Exception:
                release_caches(device)  # it may have been too little memory
                return cls(device, stream)
        except Exception as e:
            reason = (str(e).splitlines() or [type(e).__name__])[0]
            warnings.warn(
                f"cuBLAS and cuSOLVER cannot be used ({type(e).__name__}: {reason}); matrices are left to kernels, "
                "which are slower. See `dflow doctor`",
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    def bytes(self, call: Dense) -> int:
        """How much memory a routine needs to work in."""
        size = _SIZES.get(call.routine)
        if size is None:
            return 0
        with self.lock:
            elements = self._try(call, lambda: size(self, call, call.sizes))
        return int(elements) * call.dtype.itemsize

    def run(self, call: Dense, addresses: Sequence[int], room: int, room_bytes: int) -> None:
        """Starts a routine. Raises DeviceError."""
        work = SimpleNamespace(address=room, count=room_bytes // call.dtype.itemsize)
        with self.lock:
            self._try(call, lambda: _ROUTINES[call.routine](self, call, call.sizes, addresses, work))

    def _try(self, call: Dense, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except Exception as e:
            raise self._error(call, e) from e

    def _error(self, call: Dense, e: Exception) -> DeviceError:
        place = f" at {call.location}" if call.location else ""
        what = f"the routine {call.routine} of cuBLAS or cuSOLVER, for {call.dtype} and sizes {call.sizes[1:]}{place}"
        code = self.device.cu.cuStreamQuery(self.stream)[0]
        if int(code) not in (0, 600):  # neither success nor work that goes on
            return self.device.failed(code, what)
        text = f"{what}: {e}"
        return DeviceOutOfMemory(text) if "ALLOC_FAILED" in str(e) else DeviceError(text)

    def of_type(self, dtype: DType, name: str) -> Any:
        """A routine of cuSOLVER for a type: ``potrf`` is ``dpotrf``; ``syevd`` and ``orgqr`` have other names where
        numbers are complex."""
        if dtype.kind == "c":
            name = name.replace("sy", "he").replace("org", "ung")
        return getattr(self.solver, LETTERS[dtype.name] + name)


Routine = Callable[[Libraries, Dense, Sequence[int], Sequence[int], Any], None]


def _each(count: int, at: Sequence[int], steps: Sequence[int]) -> Any:
    """The addresses for every matrix of a stack, ``steps`` bytes apart."""
    for k in range(count):
        yield [a + k * step for a, step in zip(at, steps)]


def _gemm(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    """z = x y, which by columns is z' = y' x'. What is stored turned is by columns as it should be by rows."""
    count, m, n, k, x_turned, y_turned = sizes
    z, x, y = at
    scale = "f32" if call.dtype.itemsize == 2 else call.dtype.name
    compute = COMPUTE_64F if scale in ("f64", "c128") else COMPUTE_32F
    t, one, zero = DATA[call.dtype.name], _ONES[scale].ctypes.data, _ZEROS[scale].ctypes.data
    how = T if y_turned else N, T if x_turned else N, n, m, k
    of_y, of_x = (y, t, k if y_turned else n), (x, t, m if x_turned else k)
    last = compute, DEFAULT_ALGORITHM
    if count == 1:
        self.blas.gemm_ex(self.handle, *how, one, *of_y, *of_x, zero, z, t, n, *last)
    else:
        stacked = (*of_y, k * n, *of_x, m * k, zero, z, t, n, m * n, count)
        self.blas.gemm_strided_batched_ex(self.handle, *how, one, *stacked, *last)


def _trsm(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    count, n, k, lower, transpose, unit = sizes
    size, one = call.dtype.itemsize, _ONES[call.dtype.name].ctypes.data
    solve = getattr(self.blas, LETTERS[call.dtype.name] + "trsm")
    how = RIGHT_SIDE, UPPER if lower else LOWER, T if transpose else N, unit
    for a, x in _each(count, at, (size * n * n, size * n * k)):
        solve(self.handle, *how, k, n, one, a, n, x, k)


def _trsm_batched(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    """The memory are arrays with the addresses of the matrices."""
    count, n, k, lower, transpose, unit = sizes
    how = RIGHT_SIDE, UPPER if lower else LOWER, T if transpose else N, unit
    solve, one = getattr(self.blas, LETTERS[call.dtype.name] + "trsm_batched"), _ONES[call.dtype.name].ctypes.data
    solve(self.handle, *how, k, n, one, at[0], n, at[1], k, count)


def _potrf_batched(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    count, n = sizes
    self.of_type(call.dtype, "potrf_batched")(self.solver_handle, UPPER, n, at[0], n, at[1], count)


def _getrf_batched(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    count, n = sizes
    factorize = getattr(self.blas, LETTERS[call.dtype.name] + "getrf_batched")
    factorize(self.handle, n, at[0], n, at[1], at[2], count)


def _potrf(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    count, n = sizes
    factorize = self.of_type(call.dtype, "potrf")
    for a, info in _each(count, at, (call.dtype.itemsize * n * n, 4)):
        factorize(self.solver_handle, UPPER, n, a, n, work.address, work.count, info)


def _getrf(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    count, m, n = sizes
    factorize = self.of_type(call.dtype, "getrf")
    for a, pivots, info in _each(count, at, (call.dtype.itemsize * m * n, 4 * min(m, n), 4)):
        factorize(self.solver_handle, m, n, a, m, work.address, pivots, info)


def _geqrf(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    count, m, n, apart = sizes
    factorize, size = self.of_type(call.dtype, "geqrf"), call.dtype.itemsize
    for a, tau, info in _each(count, at, (size * apart, size * min(m, n), 4)):
        factorize(self.solver_handle, m, n, a, m, tau, work.address, work.count, info)


def _orgqr(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    count, m, n, k, apart = sizes
    form, size = self.of_type(call.dtype, "orgqr"), call.dtype.itemsize
    for a, tau, info in _each(count, at, (size * apart, size * k, 4)):
        form(self.solver_handle, m, n, k, a, m, tau, work.address, work.count, info)


def _syevd(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    count, n, lower = sizes
    solve, size = self.of_type(call.dtype, "syevd"), call.dtype.itemsize
    uplo = LOWER if lower else UPPER
    for a, w, info in _each(count, at, (size * n * n, _real_size(call.dtype) * n, 4)):
        solve(self.solver_handle, WITH_VECTORS, uplo, n, a, n, w, work.address, work.count, info)


def _gesvd(self: Libraries, call: Dense, sizes: Sequence[int], at: Sequence[int], work: Any) -> None:
    """For m >= n; the memory is the matrix (which is lost), values, left and right vectors, information."""
    count, m, n, full = sizes
    decompose, size = self.of_type(call.dtype, "gesvd"), call.dtype.itemsize
    job, left = ord("A" if full else "S"), m if full else n
    steps = (size * m * n, _real_size(call.dtype) * n, size * m * left, size * n * n, 4)
    for a, s, u, vh, info in _each(count, at, steps):
        decompose(self.solver_handle, job, job, m, n, a, m, s, u, m, vh, n, work.address, work.count, 0, info)


def _real_size(dtype: DType) -> int:
    return dtype.itemsize // (2 if dtype.kind == "c" else 1)


_ROUTINES: dict[str, Routine] = {
    "gemm": _gemm,
    "trsm": _trsm,
    "trsm_batched": _trsm_batched,
    "potrf_batched": _potrf_batched,
    "getrf_batched": _getrf_batched,
    "potrf": _potrf,
    "getrf": _getrf,
    "geqrf": _geqrf,
    "orgqr": _orgqr,
    "syevd": _syevd,
    "gesvd": _gesvd,
}
# How many elements a routine of cuSOLVER works in. What the addresses lead to is not looked at.
_SIZES: dict[str, Callable[[Libraries, Dense, Sequence[int]], int]] = {
    "potrf": lambda l, c, s: l.of_type(c.dtype, "potrf_buffer_size")(l.solver_handle, UPPER, s[1], 0, s[1]),
    "getrf": lambda l, c, s: l.of_type(c.dtype, "getrf_buffer_size")(l.solver_handle, s[1], s[2], 0, s[1]),
    "geqrf": lambda l, c, s: l.of_type(c.dtype, "geqrf_buffer_size")(l.solver_handle, s[1], s[2], 0, s[1]),
    "orgqr": lambda l, c, s: l.of_type(c.dtype, "orgqr_buffer_size")(l.solver_handle, s[1], s[2], s[3], 0, s[1], 0),
    "syevd": lambda l, c, s: l.of_type(c.dtype, "syevd_buffer_size")(
        l.solver_handle, WITH_VECTORS, LOWER if s[2] else UPPER, s[1], 0, s[1], 0
    ),
    "gesvd": lambda l, c, s: l.of_type(c.dtype, "gesvd_buffer_size")(l.solver_handle, s[1], s[2]),
}
