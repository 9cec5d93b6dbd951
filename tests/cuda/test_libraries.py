"""Matrices by cuBLAS and cuSOLVER: results as on the processor, arguments as the libraries want them."""

import importlib
import inspect

import numpy as np
import pytest
import scipy.linalg
from ml_dtypes import bfloat16
from ptx import libraries as fakes

import dflow
from dflow.backends.cuda.launch import driver, libraries
from dflow.backends.cuda.planning import dense as dense_steps

R = np.random.default_rng(3)
slow = lambda *x: pytest.param(*x, marks=pytest.mark.slow)  # noqa: E731
DTYPES = [slow(np.float32), slow(np.float64), slow(np.complex64), np.complex128]


def numbers(*shape, dtype=np.float64):
    x = R.normal(size=shape)
    return (x + 1j * R.normal(size=shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def positive(*shape, dtype=np.float64):
    x = numbers(*shape, dtype=dtype)
    return (x @ np.swapaxes(x.conj(), -1, -2) + shape[-1] * np.eye(shape[-1])).astype(dtype)


def same(f, *args, calls, dense):
    """The result on the device is that of the processor."""
    if dense is not None:
        del dense.cublas.called[:], dense.cusolver.called[:]
    wanted, got = dflow.jit(f)(*args), dflow.jit(f, device="cuda")(*args)
    wanted, got = (x if isinstance(x, tuple) else (x,) for x in (wanted, got))
    for w, g in zip(wanted, got):
        w, g = np.asarray(w), np.asarray(g)
        assert (w.dtype, w.shape) == (g.dtype, g.shape)
        close = {"V2": 8e-3, "f2": 2e-3, "f4": 2e-4, "c8": 2e-4}.get(w.dtype.str[1:], 1e-10)
        g, w = (np.asarray(x, float) if x.dtype == bfloat16 else x for x in (g, w))
        np.testing.assert_allclose(g, w, rtol=close, atol=close * max(1.0, np.nanmax(np.abs(w), initial=0.0)))
    if dense is not None:
        assert {*dense.cublas.called, *dense.cusolver.called} == set(calls.split())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, slow(np.float32), slow(np.complex64), np.complex128])
def test_products(dense, dtype):
    same(lambda x, y: x @ y, numbers(3, 4, dtype=dtype), numbers(4, 5, dtype=dtype), calls="gemm", dense=dense)
    if dtype == np.float64:
        same(np.matmul, numbers(2, 3, 4, 2), numbers(2, 3, 2, 5), calls="gemm", dense=dense)
        same(np.matmul, numbers(3, 0), numbers(0, 5), calls="", dense=dense)


def test_products_of_bfloat16(dense):
    kind = pytest.importorskip("ml_dtypes").bfloat16
    x, y = (numbers(4, 4).astype(kind) for _ in range(2))
    got = dflow.jit(np.matmul, device="cuda")(x, y)
    assert got.dtype == kind and (dense is None or dense.cublas.called == ["gemm"])
    np.testing.assert_allclose(got.astype(float), x.astype(float) @ y.astype(float), rtol=0.01, atol=0.02)


def test_products_of_transposes(dense):
    x, y = numbers(3, 5, 4), numbers(3, 2, 5)
    same(lambda x, y: np.swapaxes(x, 1, 2) @ np.swapaxes(y, 1, 2), x, y, calls="gemm", dense=dense)
    assert dense is None or dense.launched == []  # no copies
    same(lambda x: (np.sin(x.T) @ x, x.T @ x), x[0], calls="gemm", dense=dense)
    loss = dflow.grad(lambda w, x: np.sum((x @ w) ** 3), (0, 1))
    same(loss, numbers(3, 4), numbers(5, 3), calls="gemm", dense=dense)


def test_transposes_without_a_library(fake, monkeypatch):
    for name, size in (("PRODUCT", 1), ("THIN", 1)):
        monkeypatch.setattr(dense_steps, name, size)

    def f(x, w):
        for _ in range(2):
            x = np.sin(x) @ w.T
        return x

    x, w = numbers(4, 4), numbers(4, 4)
    np.testing.assert_allclose(dflow.jit(f, device="cuda")(x, w), f(x, w))


@pytest.mark.parametrize("dtype", DTYPES)
def test_factorizations(dense, dtype):
    def f(x, tall):
        low = np.linalg.cholesky(x)
        w, v = np.linalg.eigh(x)
        q, r = np.linalg.qr(tall)
        return low, w, (v * w) @ np.conj(v.T), q, r, np.linalg.solve(x, tall.T)

    same(
        *(f, positive(3, 3, dtype=dtype), numbers(4, 3, dtype=dtype)),
        calls="potrf syevd geqrf orgqr getrf trsm gemm",
        dense=dense,
    )


def rebuilt(x, full):
    u, s, vh = np.linalg.svd(x, full_matrices=full)
    k = min(x.shape[-2:])
    return (u[..., :k] * s[..., None, :]) @ vh[..., :k, :], s, np.abs(np.swapaxes(u.conj(), -1, -2) @ u)


@pytest.mark.parametrize("shape", [(4, 3), slow((2, 3, 4))])
def test_singular_values(dense, shape):
    def f(x, y):
        return *rebuilt(x, True), *rebuilt(y, False)

    same(f, numbers(*shape), numbers(*shape, dtype=np.complex128), calls="gesvd gemm", dense=dense)


def test_stacks(dense, monkeypatch):
    monkeypatch.setattr(dense_steps, "BATCHED_SIZE", 2)
    same(lambda x: np.linalg.det(x), positive(2, 2, 3, 3), calls="getrf", dense=dense)
    same(lambda x: tuple(np.linalg.qr(x, "complete")), numbers(2, 3, 2), calls="geqrf orgqr", dense=dense)


@pytest.mark.slow
def test_more_stacks(dense):
    x, tall = positive(2, 2, 3, 3), numbers(2, 2, 4, 3)
    same(np.linalg.cholesky, x, calls="potrf_batched", dense=dense)
    same(lambda x: tuple(np.linalg.qr(x)), tall, calls="geqrf orgqr", dense=dense)
    same(lambda x: tuple(scipy.linalg.lu(x)), tall, calls="getrf", dense=dense)
    same(lambda x: tuple(np.linalg.qr(x)), np.swapaxes(tall, -1, -2).copy(), calls="geqrf orgqr", dense=dense)
    same(lambda x: np.linalg.eigh(x).eigenvalues, x, calls="syevd", dense=dense)
    same(np.linalg.det, np.ones((3, 3)), calls="getrf", dense=dense)


def test_stacks_in_one_call(dense):
    def f(x, y):
        return np.linalg.solve(x, y), np.linalg.cholesky(x)

    same(f, positive(2, 3, 3), numbers(2, 3, 2), calls="getrf_batched trsm potrf_batched", dense=dense)


def test_triangular_systems(dense):
    def f(a, y):
        solve = scipy.linalg.solve_triangular
        first = solve(a, y, lower=True, trans=1, unit_diagonal=True), solve(a, y, lower=True)
        return *first, solve(a, y), solve(a, y, trans=1)

    same(f, numbers(3, 3) + 3 * np.eye(3), numbers(3, 2), calls="trsm", dense=dense)


@pytest.mark.parametrize(
    ("f", "calls"),
    [
        (lambda x: np.sum(np.linalg.solve(x, x[:, :2]) ** 2), "getrf trsm gemm"),
        slow(lambda x: np.linalg.slogdet(x).logabsdet, "getrf trsm"),
        slow(lambda x: np.sum(np.linalg.cholesky(x) ** 3), "potrf trsm gemm"),
        slow(lambda x: np.sum(np.linalg.qr(x).R ** 2 * np.arange(3)), "geqrf orgqr trsm gemm"),
        (lambda x: np.sum(np.linalg.eigh(x).eigenvalues ** 3), "syevd gemm"),
        slow(lambda x: np.sum(np.linalg.svd(x[:2]).S ** 3), "gesvd gemm"),
    ],
)
def test_gradients(dense, f, calls):
    same(dflow.value_and_grad(f), positive(3, 3), calls=calls, dense=dense)


def test_what_has_no_factors(dense):
    x = np.array([np.eye(3), -np.eye(3)])
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        dflow.jit(np.linalg.cholesky, device="cuda")(x)
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        dflow.jit(np.linalg.solve, device="cuda")(np.ones((3, 3)), np.ones(3))


def test_products_are_recorded_and_factors_are_not(dense):
    def chain(x, y):
        return np.sin(x @ y) @ y

    def factors(x):
        r = np.linalg.qr(np.cumsum(x, axis=0) @ x).R
        return np.cumsum(r @ r, axis=0)

    x, y = (dflow.device_put(numbers(4, 4)) for _ in range(2))
    run, wanted = dflow.jit(chain, device="cuda"), chain(np.asarray(x), np.asarray(y))
    for _ in range(3):
        np.testing.assert_allclose(np.asarray(run(x, y)), wanted)
    assert dense is None or dense.calls.count("cuGraphInstantiate") == 1
    run = dflow.jit(factors, device="cuda")
    if dense is not None:
        dense.calls.clear()
    for _ in range(3):
        np.testing.assert_allclose(np.abs(np.asarray(run(x))), np.abs(factors(np.asarray(x))))
    if dense is not None:  # before, and after
        assert (dense.calls.count("cuGraphInstantiate"), dense.calls.count("cuGraphLaunch")) == (2, 4)


# --- where they are missing, or fail


def lower(x):
    return np.linalg.cholesky(x)


def test_without_the_package_kernels_do_it(fake, monkeypatch):
    monkeypatch.setattr(dense_steps, "SMALL", 0)
    x = positive(4, 4)
    run = dflow.jit(lower, device="cuda")
    assert "with cuBLAS and cuSOLVER:" in str(run.lower(x).launches())
    np.testing.assert_allclose(run(x), lower(x))
    assert "cuGraphLaunch" not in fake.calls


def test_libraries_that_do_not_load_are_told_of(fake_dense):
    x, fake_dense.libraries = positive(3, 3), "broken"
    with pytest.warns(RuntimeWarning, match=r"cannot be used .*Failed to dlopen.*left to kernels"):
        np.testing.assert_allclose(dflow.jit(lower, device="cuda")(x), lower(x))


def test_a_routine_that_fails(fake_dense):
    run, x = dflow.jit(lower, device="cuda"), positive(3, 3)
    fake_dense.fail("potrf", "CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(driver.DeviceError, match=r"the routine potrf of cuBLAS or cuSOLVER, for f64 and sizes \(3,\)"):
        run(x)
    np.testing.assert_allclose(run(x), lower(x))
    fake_dense.fail("potrf", "CUDA_ERROR_OUT_OF_MEMORY")
    fake_dense.fail("cuStreamQuery", "CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(driver.KernelFault, match="potrf"):
        run(x)
    np.testing.assert_allclose(run(x), lower(x))  # with handles of the new context


@pytest.mark.parametrize(("module", "fake"), [("cublas", fakes.Cublas), ("cusolverDn", fakes.Cusolver)])
def test_the_package_has_these_functions(module, fake):
    real = pytest.importorskip(f"nvmath.bindings.{module}")
    names = {name: name for name in (*fakes.COMMON, *fakes.PLAIN[fake])}
    names |= {fakes.typed_name(letter, kind): kind for kind in fakes.TYPED[fake] for letter in "sdcz"}
    for name, kind in names.items():
        wanted = [p for p in inspect.signature(getattr(fake, kind)).parameters if p not in ("self", "dtype")]
        assert list(inspect.signature(getattr(real, name)).parameters) == wanted, name


def test_the_package_has_these_numbers():
    blas = pytest.importorskip("nvmath.bindings.cublas")
    assert (blas.Operation.N, blas.Operation.T) == (libraries.N, libraries.T)
    assert (blas.FillMode.LOWER, blas.FillMode.UPPER) == (libraries.LOWER, libraries.UPPER)
    assert (blas.SideMode.RIGHT, blas.DiagType.UNIT, blas.DiagType.NON_UNIT) == (libraries.RIGHT_SIDE, 1, 0)
    assert (blas.ComputeType.COMPUTE_32F, blas.ComputeType.COMPUTE_64F) == (
        libraries.COMPUTE_32F,
        libraries.COMPUTE_64F,
    )
    assert blas.GemmAlgo.DFALT == libraries.DEFAULT_ALGORITHM
    assert importlib.import_module("nvmath.bindings.cusolver").EigMode.VECTOR == libraries.WITH_VECTORS
