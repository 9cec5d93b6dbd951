"""``np.linalg`` compiled: one table over its functions; results, derivatives, dtypes, empty matrices, errors."""

import numpy as np
import pytest

import dflow
import dflow.numpy as dnp

rng = np.random.default_rng(5)
A, M, V = rng.normal(size=(4, 4)), rng.normal(size=(4, 2)), rng.normal(size=4)
TALL, WIDE = rng.normal(size=(5, 3)), rng.normal(size=(3, 5))
S = A @ A.T + 4 * np.eye(4)


def numbers(*shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


C, CM, C_TALL, C_WIDE, C_STACK = numbers(3, 3), numbers(3, 2), numbers(4, 3), numbers(3, 4), numbers(2, 3, 3)
H = C_STACK @ C_STACK.conj().mT + 3 * np.eye(3)
LARGE = numbers(11, 11)
STACK, STACKED_S = rng.normal(size=(2, 4, 4)), np.stack([S, 2 * S + np.eye(4)])
BLOCKS = rng.normal(size=(6, 2, 3))
TURNING = np.array([[1.0, 2.0, 0.0], [-3.0, 1.5, 0.5], [0.25, 0.0, -1.0]])
L = np.linalg


def of_hermitian(f, w, v):
    return (v * f(-w)[..., None, :]) @ np.conj(v.mT)


def of_singular(u, s, vh):
    return (u * np.exp(-s)) @ vh


# name: function, arguments. All are smooth there.
TABLE = {
    "solve": (L.solve, A, M),
    "solve vector": (L.solve, A, V),
    "solve stack": (L.solve, STACK, M),
    "solve one matrix for a stack": (L.solve, A, np.stack([M, 2 * M, M + 1])),
    "inv": (L.inv, A),
    "inv stack": (L.inv, STACK),
    "det": (L.det, A),
    "det stack": (L.det, STACK),
    "slogdet": (L.slogdet, STACK),
    "cholesky": (L.cholesky, STACKED_S),
    "cholesky upper": (lambda x: L.cholesky(x, upper=True), S),
    "qr": (L.qr, TALL),
    "qr wide": (L.qr, WIDE),
    "qr stack": (L.qr, STACK),
    "qr complete": (lambda x: L.qr(x, "complete"), A),
    "r of qr": (lambda x: L.qr(x, mode="r"), TALL),
    "eigh": (L.eigh, STACKED_S),
    "eigh upper": (lambda x: L.eigh(x, UPLO="U"), S),
    "eigvalsh": (L.eigvalsh, S),
    "svd": (lambda x: L.svd(x, full_matrices=False), TALL),
    "svd wide": (lambda x: L.svd(x, full_matrices=False), WIDE),
    "svd square": (L.svd, STACK),
    "singular values": (lambda x: L.svd(x, compute_uv=False), WIDE),
    "svdvals": (L.svdvals, STACK),
    "pinv": (L.pinv, TALL),
    "pinv wide": (lambda x: L.pinv(x, rtol=None), WIDE),
    "pinv stack": (lambda x: L.pinv(x, rcond=1e-10), STACK),
    "lstsq": (L.lstsq, TALL, rng.normal(size=(5, 2))),
    "lstsq vector": (lambda a, b: L.lstsq(a, b, rcond=-1), TALL, rng.normal(size=5)),
    "lstsq wide": (L.lstsq, WIDE, V[:3]),
    "cond": (L.cond, TALL),
    "cond least over largest": (lambda x: L.cond(x, -2), TALL),
    "cond 1": (lambda x: L.cond(x, 1), STACK),
    "cond frobenius": (lambda x: L.cond(x, "fro"), A),
    "norm 2": (lambda x: L.norm(x, 2), TALL),
    "norm -2": (lambda x: L.norm(x, -2, axis=(2, 0)), BLOCKS),
    "norm nuclear": (lambda x: L.norm(x, "nuc", axis=(0, 1), keepdims=True), BLOCKS),
    "matrix_norm 2": (lambda x: L.matrix_norm(x, ord=2), STACK),
    "power 0": (lambda x: L.matrix_power(x, 0), A),
    "power 5": (lambda x: L.matrix_power(x, 5), STACK),
    "power -3": (lambda x: L.matrix_power(x, -3), A),
    "multi_dot": (lambda a, m, v: L.multi_dot([v, a, m, m.T, v]), A, M, V),
    "tensorsolve": (lambda a, b: L.tensorsolve(a, b), BLOCKS, rng.normal(size=6)),
    "tensorsolve axes": (lambda a, b: L.tensorsolve(a, b, axes=(0,)), BLOCKS.transpose(1, 0, 2), V[[0, 1, 2, 3, 0, 1]]),
    "tensorinv": (lambda a: L.tensorinv(a.reshape(2, 3, 6)), BLOCKS),
    "eig": (L.eig, C_STACK),
    "eig of a real matrix": (L.eig, TURNING),
    "eigvals": (L.eigvals, LARGE),
    "complex solve": (L.solve, C_STACK, CM),
    "complex inv": (L.inv, C),
    "complex det": (L.det, C_STACK),
    "complex slogdet": (L.slogdet, C_STACK),
    "complex cholesky": (L.cholesky, H),
    "complex cholesky upper": (lambda x: L.cholesky(x, upper=True), H[0]),
    "complex qr": (L.qr, C_TALL),
    "complex qr wide": (L.qr, C_WIDE),
    "complex eigvalsh": (L.eigvalsh, H),
    "complex eigh, phases cancelled": (lambda x: of_hermitian(np.exp, *L.eigh(x)), H),
    "complex svd, phases cancelled": (lambda x: of_singular(*L.svd(x, full_matrices=False)), C_WIDE),
    "complex svdvals": (L.svdvals, C_TALL),
    "complex pinv": (L.pinv, C_TALL),
    "complex lstsq": (L.lstsq, C_TALL, numbers(4)),
    "complex norm": (L.norm, C),
    "complex norm 1": (lambda x: L.norm(x, 1), C),
    "complex power": (lambda x: L.matrix_power(x, -3), C),
    "large complex solve": (L.solve, LARGE, LARGE[:, :2]),
    "large complex cholesky": (L.cholesky, LARGE @ LARGE.conj().T),
    "large complex qr": (L.qr, LARGE),
    "trace": (L.trace, STACK),
    "diagonal": (lambda x: L.diagonal(x, offset=1), STACK),
}
NOT_DIFFERENTIABLE = {
    "svd full": (L.svd, TALL),
    "qr complete, tall": (lambda x: L.qr(x, "complete"), TALL),
    "matrix_rank": (L.matrix_rank, STACK),
    "matrix_rank of a vector": (L.matrix_rank, np.zeros(3)),
    "matrix_rank with tolerance": (lambda x: L.matrix_rank(x, tol=1.0), TALL),
    "matrix_rank of zeros": (L.matrix_rank, np.zeros((2, 3, 3))),
    "cond singular": (lambda x: L.cond(x, 1), np.ones((2, 2))),
}


def parts(result):
    return result if isinstance(result, tuple) else (result,)


def same(f, *args, tolerance=1e-11):
    got, wanted = dflow.jit(f)(*args), f(*args)
    assert type(got) is type(wanted) or not isinstance(wanted, tuple)
    for g, w in zip(parts(got), parts(wanted), strict=True):
        assert np.asarray(g).dtype == np.asarray(w).dtype
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [*TABLE, *NOT_DIFFERENTIABLE])
def test_gives_what_numpy_gives(name):
    f, *args = (TABLE | NOT_DIFFERENTIABLE)[name]
    same(f, *args)


@pytest.mark.parametrize("name", TABLE)
def test_derivatives(name):
    f, *args = TABLE[name]
    dflow.check_grads(f, tuple(args))


@pytest.mark.parametrize("name", ["solve", "det stack", "slogdet", "cholesky", "qr", "eigh", "svd", "pinv", "lstsq"])
def test_second_derivatives(name):
    f, *args = TABLE[name]
    dflow.check_grads(f, tuple(args), order=2)


@pytest.mark.parametrize("name", ["solve", "inv", "det", "cholesky", "qr", "eigvalsh", "singular values", "pinv"])
def test_single_precision_and_integers(name):
    f, *args = TABLE[name]
    args = [np.float32(a) for a in args]
    same(f, *args, tolerance=2e-4)
    dflow.check_grads(f, tuple(args), rtol=0.1)
    same(f, *(np.int64(np.rint(5 * a)) for a in args))


@pytest.mark.parametrize(
    "f", [L.solve, L.inv, L.det, L.slogdet, L.cholesky, L.qr, L.eigh, L.svd, L.pinv, L.matrix_rank]
)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3, 3), (2, 1, 1)])
def test_empty_and_one_by_one(f, shape):
    x = np.ones(shape)
    args = (x, np.ones((*shape[:-1], 2))) if f is L.solve else (x,)
    same(f, *args)
    if f is not L.matrix_rank:
        dflow.check_grads(f, args)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f, x, message",
    [
        (L.inv, np.ones((2, 2)), "Singular matrix"),
        (lambda x: L.solve(x, np.ones(9)), np.zeros((9, 9)), "Singular matrix"),
        (L.cholesky, -np.eye(2), "not positive definite"),
        (L.cholesky, -np.eye(20), "not positive definite"),
        (L.eigh, np.full((3, 3), np.nan), "did not converge"),
        (L.svd, np.full((3, 3), np.nan), "did not converge"),
        (L.eigvals, np.full((3, 3), np.nan), "infs or NaNs"),
        (lambda x: L.lstsq(x, np.ones(3)), np.ones((3, 2)), "residuals"),
        (L.inv, np.ones((2, 3)), "square"),
        (L.det, np.ones(3), "two-dimensional"),
    ],
)
def test_errors_name_the_line(f, x, message):
    def program(x):
        return f(x)

    with pytest.raises(np.linalg.LinAlgError, match=message) as caught:
        dflow.jit(program)(x)
    assert "test_linalg.py" in str(caught.value)


@pytest.mark.parametrize(
    "f, x, message",
    [
        (L.cholesky, np.eye(3, dtype=np.float16), "float16"),
        (lambda x: L.solve(x, np.ones(3)), A, "do not fit"),
        (lambda x: L.qr(x, "raw"), A, "mode"),
        (lambda x: L.norm(x, 7), A, "Invalid norm order"),
        (lambda x: L.eigh(x, "X"), A, "UPLO"),
    ],
)
def test_refusals(f, x, message):
    with pytest.raises(dflow.errors.DflowError, match=message):
        dflow.jit(f)(x)


# -- degenerate cases: docs/derivatives.md ---------------------------------------------------------------------------


def test_determinant_of_a_singular_matrix():
    for x in (np.array([[1.0, 2.0], [2.0, 4.0]]), np.diag([2.0, 0.0, 3.0]), np.zeros((2, 2)), np.ones((3, 3))):
        dflow.check_grads(L.det, (x,), order=2)
    np.testing.assert_allclose(dflow.grad(L.det)(np.diag([2.0, 0.0, 3.0])), np.diag([0.0, 6.0, 0.0]))


def test_logarithm_of_a_zero_determinant():
    f = lambda x: L.slogdet(x)[1]  # noqa: E731
    assert dflow.jit(f)(np.ones((2, 2))) == -np.inf
    with pytest.raises(np.linalg.LinAlgError, match="logarithm of a determinant"):
        dflow.grad(f)(np.ones((2, 2)))


def test_equal_eigenvalues():
    """Their sum has a derivative; so do they, by the eigenvectors that are found; the eigenvectors have none."""
    one = np.eye(3)
    np.testing.assert_allclose(dflow.grad(lambda x: np.sum(L.eigvalsh(x)))(one), one)
    np.testing.assert_allclose(dflow.grad(lambda x: np.sum(L.eigh(x)[0] ** 2))(one), 2 * one)
    with pytest.raises(np.linalg.LinAlgError, match="eigenvalues are equal"):
        dflow.grad(lambda x: np.sum(L.eigh(x)[1] ** 3))(one)
    with pytest.raises(np.linalg.LinAlgError, match="eigenvalues are equal"):
        dflow.jvp(dflow.grad(lambda x: np.sum(L.eigvalsh(x) ** 3)), (one,), (one,))


def test_equal_and_zero_singular_values():
    one = np.eye(3)
    np.testing.assert_allclose(dflow.grad(lambda x: L.norm(x, "nuc"))(one), one)
    np.testing.assert_allclose(dflow.grad(lambda x: L.norm(x, "nuc"))(np.zeros((2, 3))), np.zeros((2, 3)))
    np.testing.assert_allclose(dflow.grad(lambda x: np.sum(L.pinv(x)))(one), -np.ones((3, 3)))
    with pytest.raises(np.linalg.LinAlgError, match="singular values are equal"):
        dflow.grad(lambda x: np.sum(L.svd(x)[0] ** 3))(one)
    with pytest.raises(np.linalg.LinAlgError, match="singular value"):
        dflow.grad(lambda x: np.sum(L.svd(x, full_matrices=False)[0] ** 3))(np.ones((3, 2)))


def test_vectors_that_are_no_function_of_the_matrix():
    with pytest.raises(np.linalg.LinAlgError, match="full_matrices=False"):
        dflow.grad(lambda x: np.sum(L.svd(x)[0] ** 3))(TALL)
    dflow.check_grads(lambda x: L.svd(x)[1], (TALL,))
    with pytest.raises(np.linalg.LinAlgError, match="mode='reduced'"):
        dflow.grad(lambda x: np.sum(L.qr(x, "complete")[0] ** 3))(TALL)
    with pytest.raises(np.linalg.LinAlgError, match="linearly dependent"):
        dflow.grad(lambda x: np.sum(L.qr(x)[0] ** 3))(np.ones((3, 2)))


def test_eigenvalues_of_general_matrices_that_are_equal():
    one = np.eye(2)
    np.testing.assert_allclose(dflow.grad(lambda x: np.sum(L.eigvals(x)).real)(one), one)
    with pytest.raises(np.linalg.LinAlgError, match="eigenvalues are equal"):
        dflow.grad(lambda x: L.eig(x)[1][0, 0].real)(one)
    with pytest.raises(np.linalg.LinAlgError, match="too few eigenvectors"):
        dflow.grad(lambda x: L.eigvals(x)[0].real)(np.array([[1.0, 1.0], [0.0, 1.0]]))


def test_singular_vectors_of_singular_complex_matrices():
    with pytest.raises(np.linalg.LinAlgError, match="singular value"):
        dflow.grad(lambda x: L.svd(x)[0][0, 0].real)(np.diag([1.0 + 1j, 0.0]))


MAPPED = {
    "solve": (L.solve, STACK, rng.normal(size=(2, 4))),
    "slogdet": (L.slogdet, STACK),
    "cholesky": (L.cholesky, STACKED_S),
    "lstsq": (L.lstsq, rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5))),
    "eig": (L.eig, STACK),
    "gradient of logdet": (dflow.grad(lambda x: L.slogdet(x)[1]), STACK),
    "gradient of eigh": (dflow.grad(lambda x: np.sum(np.abs(L.eigh(x)[1][:, 0]))), STACKED_S),
}


@pytest.mark.parametrize("name", MAPPED)
def test_vmap_makes_stacks(name):
    """No loop over the slices, whatever is checked in them."""
    f, *args = MAPPED[name]
    mapped = dflow.vmap(f)
    for got, *wanted in zip(parts(mapped(*args)), *(parts(f(*slices)) for slices in zip(*args))):
        np.testing.assert_allclose(got, np.stack(wanted), rtol=1e-10, atol=1e-10)
    assert " = for " not in mapped.lower(*args).ir("traced")


def test_vmap_of_what_has_no_inverse():
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        dflow.vmap(L.inv)(np.stack([A, np.zeros((4, 4))]))
    np.testing.assert_allclose(dflow.vmap(L.solve, in_axes=(None, 0))(A, M.T), L.solve(A, M).T)


def test_plain_arrays_are_numpys_affair():
    assert dnp.linalg.eig(A)[0].dtype == np.complex128
    assert type(dnp.linalg.svd(A)) is type(L.svd(A))
    np.testing.assert_array_equal(dnp.linalg.solve(A, V), L.solve(A, V))


def test_complex_systems():
    z, w = A + 1j * A[::-1].T, M - 0.5j * M[::-1]
    for f, args in ((L.solve, (z, V)), (L.solve, (A, w)), (L.inv, (z.astype(np.complex64),))):
        wanted, got = f(*args), dflow.jit(f)(*args)
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-4 if wanted.dtype == np.complex64 else 1e-10)
    dflow.check_grads(lambda a, b: np.abs(L.solve(a + 1j * a.T, b)), (A[:2, :2], V[:2]))
