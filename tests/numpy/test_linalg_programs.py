"""Programs that live on linear algebra, as users write them: results, gradients, and no more work than needed."""

import ctypes
import shutil

import numpy as np
import pytest

import dflow

rng = np.random.default_rng(3)


def log_likelihood(theta, x, y):
    """Of a Gaussian process with a squared exponential kernel."""
    amplitude, length, noise = np.exp(theta)
    k = amplitude * np.exp(-0.5 * ((x[:, None] - x[None, :]) / length) ** 2) + noise * np.eye(len(x))
    low = np.linalg.cholesky(k)
    z = np.linalg.solve(low, y)
    return -0.5 * z @ z - np.sum(np.log(np.diag(low))) - 0.5 * len(x) * np.log(2 * np.pi)


def kalman(q, r, ys):
    """The log likelihood of a local linear trend."""
    f, h = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    m, p, total = np.zeros(2), 10.0 * np.eye(2), 0.0
    for t in range(len(ys)):
        m, p = f @ m, f @ p @ f.T + q * np.eye(2)
        s = h @ p @ h.T + r * np.eye(1)
        e = ys[t] - h @ m
        gain = np.linalg.solve(s, h @ p).T
        total -= 0.5 * (e @ np.linalg.solve(s, e) + np.linalg.slogdet(s)[1])
        m, p = m + gain @ e, p - gain @ s @ gain.T
    return total


def newton(a):
    """The root of a system, by Newton's method until it stands still; its first coordinate."""
    x, size = np.array([1.0, 1.0]), 1.0
    while size > 1e-12:
        residual = np.array([x[0] ** 2 + x[1] - a, x[0] - x[1] ** 3])
        jacobian = np.array([[2 * x[0], 1.0], [1.0, -3 * x[1] ** 2]])
        step = np.linalg.solve(jacobian, residual)
        x = x - step
        size = np.linalg.norm(step)
    return x[0]


def by_qr(a, b):
    q, r = np.linalg.qr(a)
    return np.linalg.solve(r, q.T @ b)


def normal_log_density(x, mean, covariance):
    d = x - mean
    logdet = np.linalg.slogdet(covariance).logabsdet
    return -0.5 * (d @ np.linalg.solve(covariance, d) + logdet + len(x) * np.log(2 * np.pi))


X = np.sort(rng.uniform(0, 5, 20))
LOADINGS = rng.normal(size=(5, 5))
PROGRAMS = {
    "gaussian process": (log_likelihood, np.array([0.1, -0.3, -2.0]), X, np.sin(X)),
    "kalman": (kalman, 0.1, 0.5, np.cumsum(rng.normal(size=15))),
    "newton": (newton, 3.0),
    "least squares by qr": (by_qr, rng.normal(size=(12, 4)), rng.normal(size=12)),
    "least squares": (lambda a, b: np.linalg.lstsq(a, b)[0], rng.normal(size=(12, 4)), rng.normal(size=12)),
    "normal density": (normal_log_density, rng.normal(size=5), np.zeros(5), LOADINGS @ LOADINGS.T + np.eye(5)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name):
    f, *args = PROGRAMS[name]
    np.testing.assert_allclose(dflow.jit(f)(*args), f(*args), rtol=1e-10)
    dflow.check_grads(f, tuple(args), order=2 if name != "kalman" else 1)


def test_least_squares_both_ways():
    f, a, b = PROGRAMS["least squares by qr"]
    np.testing.assert_allclose(dflow.jit(f)(a, b), np.linalg.lstsq(a, b)[0])


def test_an_error_in_a_loop_names_its_line():
    def program(x):
        total = 0.0
        for k in range(3):
            total += np.linalg.inv(x - k * np.eye(2))[0, 0]  # singular for k = 1
        return total

    with pytest.raises(np.linalg.LinAlgError, match="Singular matrix") as caught:
        dflow.jit(program)(np.eye(2))
    assert "total += np.linalg.inv" in str(caught.value)


def test_a_matrix_is_eliminated_once():
    """However often it is used for solving; and the gradient needs no elimination of its own."""

    def program(a, b):
        return np.sum(np.linalg.solve(a, b)) + np.sum(np.linalg.solve(a, b * b)) + np.linalg.slogdet(a)[1]

    a, b = np.eye(20), np.ones(20)
    for f in (dflow.jit(program), dflow.grad(program)):
        text = str(f.lower(a, b).ir("optimized"))
        assert text.count("= lu ") == 1


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_library_needs_no_lapack(tmp_path):
    def program(a, b):
        low = np.linalg.cholesky(a @ a.T + np.eye(12))
        return np.sum(np.linalg.solve(low, b)) + np.linalg.det(a) + np.sum(np.linalg.qr(a)[1] ** 3)

    a, b = rng.normal(size=(12, 12)) / 3, rng.normal(size=12)
    path, _ = dflow.compile_library(program, (a, b), tmp_path / "libp.so", value_and_grad=True, name="p")
    value, slope = ctypes.c_double(), np.zeros((12, 12))
    pointers = (a.ctypes.data, b.ctypes.data, ctypes.byref(value), slope.ctypes.data, None)
    call = ctypes.CDLL(str(path)).p_value_and_grad
    assert call(*(p if not isinstance(p, int) else ctypes.c_void_p(p) for p in pointers)) == 0
    np.testing.assert_allclose(value.value, program(a, b))
    np.testing.assert_allclose(slope, dflow.grad(program)(a, b), rtol=1e-9, atol=1e-9)


def test_a_library_refuses_what_needs_lapack(tmp_path):
    with pytest.raises(dflow.backends.native.library.LibraryError, match=r"test_linalg_programs\.py.*singular values"):
        dflow.compile_library(lambda x: np.linalg.pinv(x), (np.eye(3),), tmp_path / "libp.so", name="p")
