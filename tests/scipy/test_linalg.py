"""``scipy.linalg`` compiled, against SciPy, with derivatives."""

import numpy as np
import pytest
import scipy.linalg as sl

import dflow
import dflow.scipy.linalg as ours

rng = np.random.default_rng(2)
A, B = rng.normal(size=(4, 4)), rng.normal(size=(4, 2))
S, V = A @ A.T + np.eye(4), B[:, 0].copy()
Z = rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3))
H, PAIR = Z @ Z.conj().T + np.eye(3), np.stack([Z, Z.T])
STACK = np.stack([A, 2 * A, 0.1 * A])


def assuming(what, **options):
    return lambda a, b: sl.solve(a, b, assume_a=what, **options)


def rebuilt(a, **options):
    w, v = sl.eigh(a, **options)
    return (v * w) @ v.T, w


TABLE = {
    "solve": (sl.solve, A, B),
    "solve transposed": (lambda a, b: sl.solve(a, b, transposed=True), A, V),
    "solve pos": (assuming("pos"), S, V),
    "solve pos by the lower triangle": (assuming("pos", lower=True), S, B),
    "solve sym": (assuming("sym", lower=True), A, V),
    "solve lower": (assuming("lower triangular"), A, V),
    "solve upper": (assuming("upper triangular"), A, V),
    "solve diagonal": (assuming("diagonal"), A, V),
    "solve_triangular": (sl.solve_triangular, A, B),
    "solve_triangular transposed": (lambda a, b: sl.solve_triangular(a, b, "T", lower=True), A, V),
    "solve_triangular unit": (lambda a, b: sl.solve_triangular(a, b, unit_diagonal=True), A, V),
    "inv": (sl.inv, A),
    "inv of a triangle": (lambda a: sl.inv(a, assume_a="sym", lower=True), A),
    "det": (sl.det, A),
    "cholesky": (sl.cholesky, S),
    "cholesky lower": (lambda a: sl.cholesky(a, lower=True), S),
    "cho_solve": (lambda a, b: sl.cho_solve(sl.cho_factor(a), b), S, V),
    "cho_solve lower": (lambda a, b: sl.cho_solve(sl.cho_factor(a, lower=True), b), S, B),
    "lu": (sl.lu, A),
    "lu permuted": (lambda a: sl.lu(a, permute_l=True), A),
    "lu with indices": (lambda a: sl.lu(a, p_indices=True), A),
    "lu_factor": (sl.lu_factor, A),
    "lu_solve": (lambda a, b: sl.lu_solve(sl.lu_factor(a), b), A, B),
    "lu_solve transposed": (lambda a, b: sl.lu_solve(sl.lu_factor(a), b, trans=1), A, V),
    "lu tall": (sl.lu, np.stack([A, 2 * A[::-1]])[:, :, :3]),
    "lu wide": (lambda a: sl.lu(a, permute_l=True), A[:2]),
    "complex lu": (sl.lu, Z),
    "complex lu_solve of a stack": (lambda a, b: sl.lu_solve(sl.lu_factor(a), b, trans=2), np.stack([Z, 2j * Z]), PAIR),
    "complex cho_solve of a stack": (lambda a, b: sl.cho_solve(sl.cho_factor(a), b), np.stack([H, 2 * H]), PAIR),
    "complex solve pos": (assuming("pos", lower=True), H, Z),
    "complex solve her": (assuming("her"), H, Z[0]),
    "complex solve_triangular": (lambda a, b: sl.solve_triangular(a, b, "C", lower=True), Z, Z),
    "complex expm": (sl.expm, Z),
    "complex sqrtm": (sl.sqrtm, H),
    "complex toeplitz": (sl.toeplitz, Z[0]),
    "eig": (lambda a: sl.eig(a)[0], Z),
    "qr": (sl.qr, A),
    "qr economic": (lambda a: sl.qr(a, mode="economic"), A[:, :2].copy()),
    "r of qr": (lambda a: sl.qr(a, mode="r")[0], A),
    "svd": (sl.svd, A),
    "svdvals": (sl.svdvals, A),
    "eigh": (rebuilt, S),
    "eigh by the upper triangle": (lambda a: rebuilt(a, lower=False), A),
    "eigvalsh": (sl.eigvalsh, S),
    "expm": (sl.expm, A),
    "expm of large": (sl.expm, 6 * A),
    "expm of zeros": (sl.expm, np.zeros((3, 3))),
    "expm of a stack": (sl.expm, STACK),
    "sqrtm": (sl.sqrtm, S + 0.1 * A),
    "block_diag": (sl.block_diag, A, B, V),
    "toeplitz": (sl.toeplitz, V),
    "toeplitz with a row": (sl.toeplitz, V, np.arange(3.0)),
}


def parts(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", TABLE)
def test_gives_what_scipy_gives_with_derivatives(name):
    f, *args = TABLE[name]
    for got, wanted in zip(parts(dflow.jit(f)(*args)), parts(f(*args)), strict=True):
        assert np.asarray(got).dtype == np.asarray(wanted).dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-11)
    dflow.check_grads(f, tuple(args), rtol=1e-4)


@pytest.mark.parametrize("name", ["expm", "sqrtm", "solve pos", "lu_solve"])
def test_second_derivatives(name):
    f, *args = TABLE[name]
    dflow.check_grads(f, tuple(args), order=2, rtol=1e-4)


def test_square_root_where_eigenvalues_are_equal():
    """Unlike eigenvectors, the root has a derivative there."""
    np.testing.assert_allclose(dflow.grad(lambda x: np.sum(sl.sqrtm(x)))(4 * np.eye(2)), np.full((2, 2), 0.25))


@pytest.mark.parametrize(
    "f, x, message",
    [
        (sl.sqrtm, -np.eye(2), "no real square root"),
        (lambda a: sl.solve_triangular(a, np.ones(2)), np.diag([1.0, 0.0]), "singular matrix"),
        (lambda a: sl.solve(a, np.ones(2), assume_a="pos"), -np.eye(2), "not positive definite"),
        (sl.inv, np.ones((2, 3)), "must be square"),
    ],
)
def test_errors(f, x, message):
    with pytest.raises(np.linalg.LinAlgError, match=message):
        dflow.jit(f)(x)


def test_refusals():
    with pytest.raises(dflow.errors.DflowError, match="hessenberg"):
        dflow.jit(sl.hessenberg)(A)
    with pytest.raises(dflow.errors.DflowError, match="without pivoting"):
        dflow.jit(lambda a: sl.qr(a, pivoting=True))(A)
    assert (ours.hessenberg(A) == sl.hessenberg(A)).all() and (ours.expm(A) == sl.expm(A)).all()
