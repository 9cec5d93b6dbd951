"""Stand-ins for ``nvmath.bindings.cublas`` and ``nvmath.bindings.cusolverDn``, which compute with NumPy and SciPy in
the memory of a `FakeDriver`.

Parameters have the names and the order of the package (``tests/cuda/test_libraries.py`` compares them where it is
installed). Arguments are checked as the libraries document them: letters, leading dimensions, memory that is there,
workspaces that are large enough. Streams that are captured record products and triangular systems, and refuse the rest.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from dflow.ir.types import bfloat16_dtype

LETTERS = {"s": np.float32, "d": np.float64, "c": np.complex64, "z": np.complex128}
DATA = {2: np.float16, 0: np.float32, 1: np.float64, 4: np.complex64, 5: np.complex128}
BF16 = 14
COMPUTE = {68: (np.float32, np.complex64), 70: (np.float64, np.complex128)}


class CuError(Exception):
    """What the package raises for a status."""


def require(condition: Any, text: str) -> None:
    if not condition:
        raise CuError(f"INVALID_VALUE: {text}")


class _Handles:
    """Handles with a stream each, and matrices in device memory."""

    def __init__(self, driver: Any):
        self.driver, self.streams, self.called = driver, {}, []

    def create(self) -> int:
        if self.driver.libraries == "broken":
            raise RuntimeError("Failed to dlopen libcublas.so.12")
        require(not self.driver._captures, "a stream is being captured")
        handle = 0x500 + len(self.streams)
        self.streams[handle] = 0
        return handle

    def destroy(self, handle: int) -> None:
        del self.streams[handle]

    def set_stream(self, handle: int, stream_id: int) -> None:
        self.streams[handle] = int(stream_id)

    def do(self, handle: int, name: str, step: Callable[[], None]) -> None:
        require(handle in self.streams, "no such handle")
        if self.driver._failures.get(name):
            raise CuError(self.driver._failures[name].pop(0))
        self.called.append(name)
        self.driver._do(self.streams[handle], step)

    # --- memory

    def read(self, address: int, rows: int, columns: int, ld: int, dtype: Any) -> np.ndarray:
        """A matrix that is stored by columns."""
        require(ld >= max(1, rows), f"leading dimension {ld} of {rows} rows")
        size = np.dtype(dtype).itemsize
        require(address % size == 0, "misaligned memory")
        found = np.empty((columns, rows), dtype)
        for j in range(columns):
            raw = self.driver.heap.read(address + j * ld * size, rows * size, written=False)
            found[j] = raw.view(dtype)
        return np.asfortranarray(found.T)

    def write(self, address: int, matrix: np.ndarray, ld: int, dtype: Any) -> None:
        size, columns = np.dtype(dtype).itemsize, np.ascontiguousarray(matrix.T, dtype)
        require(ld >= max(1, columns.shape[1]), f"leading dimension {ld}")
        for j, column in enumerate(columns):
            self.driver.heap.write(address + j * ld * size, column.view(np.uint8))

    def addresses(self, address: int, count: int) -> Callable[[], list[int]]:
        """What an array in device memory leads to, when the work is done."""
        return lambda: self.driver.heap.read(address, 8 * count).view(np.uint64).tolist()

    def info(self, address: int, value: int) -> None:
        self.driver.heap.write(address, np.array([value], np.int32).view(np.uint8))

    def scribble(self, address: int, count: int, least: int, dtype: Any) -> None:
        """Uses a workspace."""
        require(count >= least, f"a workspace of {count} elements, where {least} are needed")
        self.driver.heap.write(address, np.full(least * np.dtype(dtype).itemsize, 0xAB, np.uint8))

    def number(self, address: int, dtype: Any) -> Any:
        heap = self.driver.heap
        require(not heap.BASE <= address < heap.BASE + heap.size, "numbers are passed in the memory of the host")
        return np.frombuffer(ctypes.string_at(address, np.dtype(dtype).itemsize), dtype)[0]


def factorized(x: np.ndarray) -> Any:
    return get_lapack_funcs("getrf", (x,))(x)


def _turn(x: np.ndarray, operation: int) -> np.ndarray:
    require(operation in (0, 1, 2), f"operation {operation}")
    return (x, x.T, x.conj().T)[operation]


class Cublas(_Handles):
    def set_workspace(self, handle: int, workspace: int, workspace_size_in_bytes: int) -> None:
        require(workspace % 256 == 0, "the workspace is not aligned")
        require(self.streams[handle], "setting the stream takes the workspace away again")
        found = self.driver.heap.allocations.get(workspace)
        require(found and found.bytes >= workspace_size_in_bytes, "the workspace is not there")

    def gemm_ex(
        self, handle, transa, transb, m, n, k, alpha, a, atype, lda, b, btype, ldb, beta, c, ctype, ldc, compute_type,
        algo,
    ):  # fmt: skip
        self.gemm_strided_batched_ex(
            *(handle, transa, transb, m, n, k, alpha, a, atype, lda, 0, b, btype, ldb, 0, beta, c, ctype, ldc, 0, 1),
            *(compute_type, algo),
        )

    def gemm_strided_batched_ex(
        self, handle, transa, transb, m, n, k, alpha, a, atype, lda, stride_a, b, btype, ldb, stride_b, beta, c, ctype,
        ldc, stride_c, batch_count, compute_type, algo,
    ):  # fmt: skip
        require(atype == btype == ctype and atype in (*DATA, BF16), "types of the matrices")
        dtype, is_complex = bfloat16_dtype() if atype == BF16 else DATA[atype], atype in (4, 5)
        require(compute_type in COMPUTE and algo == -1, "type of the computation")
        scale = COMPUTE[compute_type][is_complex]
        require(np.dtype(scale) == (np.float32 if np.dtype(dtype).itemsize == 2 else dtype), "types do not go together")
        one, zero = self.number(alpha, scale), self.number(beta, scale)
        size = np.dtype(dtype).itemsize
        require(batch_count == 1 or abs(stride_c) >= m * n, "results overlap")

        def run() -> None:
            for k_ in range(batch_count):
                x = self.read(a + k_ * stride_a * size, *((k, m) if transa else (m, k)), lda, dtype)
                y = self.read(b + k_ * stride_b * size, *((n, k) if transb else (k, n)), ldb, dtype)
                with np.errstate(all="ignore"):
                    z = one * (_turn(x, transa).astype(scale) @ _turn(y, transb).astype(scale))
                    if zero:
                        z = z + zero * self.read(c + k_ * stride_c * size, m, n, ldc, dtype)
                self.write(c + k_ * stride_c * size, z, ldc, dtype)

        self.do(handle, "gemm", run)

    def trsm(self, handle, side, uplo, trans, diag, m, n, alpha, a, lda, b, ldb, *, dtype):
        require(side in (0, 1) and uplo in (0, 1) and trans in (0, 1, 2) and diag in (0, 1), "letters")
        one, order = self.number(alpha, dtype), n if side else m

        def run() -> None:
            at, to = a() if callable(a) else a, b() if callable(b) else b
            x, y = self.read(at, order, order, lda, dtype), self.read(to, m, n, ldb, dtype)
            solve = get_blas_funcs("trsm", (x, y))
            self.write(to, solve(one, x, y, side=side, lower=1 - uplo, trans_a=trans, diag=diag), ldb, dtype)

        self.do(handle, "trsm", run)

    def trsm_batched(self, handle, side, uplo, trans, diag, m, n, alpha, a, lda, b, ldb, batch_count, *, dtype):
        pairs = self.addresses(a, batch_count), self.addresses(b, batch_count)
        for k in range(batch_count):
            one = [lambda which=which, k=k: which()[k] for which in pairs]
            self.trsm(handle, side, uplo, trans, diag, m, n, alpha, one[0], lda, one[1], ldb, dtype=dtype)

    def getrf_batched(self, handle, n, a, lda, p, info, batch_size, *, dtype):
        def run() -> None:
            for k, at in enumerate(self.addresses(a, batch_size)()):
                found, pivots, code = factorized(self.read(at, n, n, lda, dtype))
                self.write(at, found, lda, dtype)
                self.driver.heap.write(p + 4 * n * k, (pivots + 1).astype(np.int32).view(np.uint8))
                self.info(info + 4 * k, code)

        self.do(handle, "getrf_batched", run)


class Cusolver(_Handles):
    def do(self, handle: int, name: str, step: Callable[[], None]) -> None:
        require(self.streams[handle] not in self.driver._captures, "the stream is being captured")
        super().do(handle, name, step)

    def potrf(self, handle, uplo, n, a, lda, workspace, lwork, dev_info, *, dtype):
        require(uplo in (0, 1), "letters")

        def run() -> None:
            self.scribble(workspace, lwork, n, dtype)
            x = self.read(a, n, n, lda, dtype)
            found, info = get_lapack_funcs("potrf", (x,))(x, lower=1 - uplo, clean=False)
            self.write(a, found, lda, dtype)
            self.info(dev_info, info)

        self.do(handle, "potrf", run)

    def potrf_batched(self, handle, uplo, n, aarray, lda, info_array, batch_size, *, dtype):
        require(uplo in (0, 1), "letters")

        def run() -> None:
            for k, at in enumerate(self.addresses(aarray, batch_size)()):
                x = self.read(at, n, n, lda, dtype)
                found, info = get_lapack_funcs("potrf", (x,))(x, lower=1 - uplo, clean=False)
                self.write(at, found, lda, dtype)
                self.info(info_array + 4 * k, info)

        self.do(handle, "potrf_batched", run)

    def potrf_buffer_size(self, handle, uplo, n, a, lda, *, dtype):
        require(lda >= n and uplo in (0, 1), "leading dimension")
        return n

    def getrf(self, handle, m, n, a, lda, workspace, dev_ipiv, dev_info, *, dtype):
        def run() -> None:
            self.scribble(workspace, m, m, dtype)
            x = self.read(a, m, n, lda, dtype)
            found, pivots, info = factorized(x)
            self.write(a, found, lda, dtype)
            self.driver.heap.write(dev_ipiv, (pivots + 1).astype(np.int32).view(np.uint8))
            self.info(dev_info, info)

        self.do(handle, "getrf", run)

    def getrf_buffer_size(self, handle, m, n, a, lda, *, dtype):
        require(lda >= m, "leading dimension")
        return m

    def geqrf(self, handle, m, n, a, lda, tau, workspace, lwork, dev_info, *, dtype):
        def run() -> None:
            self.scribble(workspace, lwork, 2 * n, dtype)
            x = self.read(a, m, n, lda, dtype)
            found, scales, _, info = get_lapack_funcs("geqrf", (x,))(x)
            self.write(a, found, lda, dtype)
            self.write(tau, scales[:, None], len(scales), dtype)
            self.info(dev_info, info)

        self.do(handle, "geqrf", run)

    def geqrf_buffer_size(self, handle, m, n, a, lda, *, dtype):
        require(lda >= m, "leading dimension")
        return 2 * n

    def orgqr(self, handle, m, n, k, a, lda, tau, work, lwork, info, *, dtype):
        require(m >= n >= k >= 0, "sizes")

        def run() -> None:
            self.scribble(work, lwork, n, dtype)
            x = np.zeros((m, n), dtype, order="F")
            x[:, :k] = self.read(a, m, k, lda, dtype)
            name = "ungqr" if np.dtype(dtype).kind == "c" else "orgqr"
            found, _, code = get_lapack_funcs(name, (x,))(x, self.read(tau, k, 1, k, dtype)[:, 0])
            self.write(a, found, lda, dtype)
            self.info(info, code)

        self.do(handle, "orgqr", run)

    def orgqr_buffer_size(self, handle, m, n, k, a, lda, tau, *, dtype):
        require(lda >= m >= n >= k, "sizes")
        return n

    def syevd(self, handle, jobz, uplo, n, a, lda, w, work, lwork, info, *, dtype):
        require(jobz == 1 and uplo in (0, 1), "letters")

        def run() -> None:
            self.scribble(work, lwork, 3 * n, dtype)
            x = self.read(a, n, n, lda, dtype)
            name = "heevd" if np.dtype(dtype).kind == "c" else "syevd"
            values, vectors, code = get_lapack_funcs(name, (x,))(x, lower=1 - uplo)
            self.write(a, vectors, lda, dtype)
            self.write(w, values[:, None], n, values.dtype)
            self.info(info, code)

        self.do(handle, "syevd", run)

    def syevd_buffer_size(self, handle, jobz, uplo, n, a, lda, w, *, dtype):
        require(lda >= n, "leading dimension")
        return 3 * n

    def gesvd(self, handle, jobu, jobvt, m, n, a, lda, s, u, ldu, vt, ldvt, work, lwork, rwork, info, *, dtype):
        require(m >= n, "the routine takes no wide matrices")
        require(jobu == jobvt and chr(jobu) in "AS", "letters")

        def run() -> None:
            self.scribble(work, lwork, 5 * m, dtype)
            x = self.read(a, m, n, lda, dtype)
            left, values, right, code = get_lapack_funcs("gesvd", (x,))(x, full_matrices=chr(jobu) == "A")
            self.write(a, np.zeros_like(x), lda, dtype)
            self.write(u, left, ldu, dtype)
            self.write(vt, right, ldvt, dtype)
            self.write(s, values[:, None], n, values.dtype)
            self.info(info, code)

        self.do(handle, "gesvd", run)

    def gesvd_buffer_size(self, handle, m, n, *, dtype):
        return 5 * m


COMMON = ("create", "destroy", "set_stream")
PLAIN = {Cublas: ("set_workspace", "gemm_ex", "gemm_strided_batched_ex"), Cusolver: ()}
TYPED = {
    Cublas: ("trsm", "trsm_batched", "getrf_batched"),
    Cusolver: tuple(name for name in vars(Cusolver) if name not in ("do", "__module__", "__doc__")),
}


def typed_name(letter: str, name: str) -> str:
    return letter + (name.replace("sy", "he").replace("org", "ung") if letter in "cz" else name)


def modules(driver: Any) -> dict[str, types.ModuleType]:
    """By their names; the objects behind them are in ``driver.cublas`` and ``driver.cusolver``."""
    driver.cublas, driver.cusolver = Cublas(driver), Cusolver(driver)
    made = {name: types.ModuleType(name) for name in ("nvmath", "nvmath.bindings")}
    for thing, name in ((driver.cublas, "cublas"), (driver.cusolver, "cusolverDn")):
        module = made[f"nvmath.bindings.{name}"] = types.ModuleType(f"nvmath.bindings.{name}")
        for plain in (*COMMON, *PLAIN[type(thing)]):
            setattr(module, plain, getattr(thing, plain))
        for kind in TYPED[type(thing)]:
            for letter, dtype in LETTERS.items():
                setattr(module, typed_name(letter, kind), _typed(getattr(thing, kind), dtype))
    return made


def _typed(function: Callable[..., Any], dtype: Any) -> Callable[..., Any]:
    return lambda *args: function(*args, dtype=dtype)
