"""Products of matrices by BLAS: transposed operands are taken as they lie."""

import numpy as np
import pytest

import dflow

A, B = np.random.default_rng(3).normal(size=(2, 530, 520))


@pytest.mark.parametrize(
    ("f", "gemms"),
    [
        (lambda a, b: a.T @ b, 1),
        (lambda a, b: a @ b.T + 1.0, 1),
        (lambda a, b: (a.T @ b) @ (b.T @ a).T, 3),
        (lambda a, b: (2.0 * a).T @ b, 1),
        (lambda a, b: np.stack([a, b]).mT @ np.stack([b, a]), 1),
    ],
)
def test_transposed_operands_are_not_copied(f, gemms):
    lowered = dflow.jit(f).lower(A, B)
    assert lowered.ir("lowered").count("gemm") == gemms
    np.testing.assert_allclose(dflow.jit(f)(A, B), f(A, B), rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("dtype", ["f8", "c16"])
def test_a_matrix_by_itself_transposed(dtype):
    x = (A * (1 if dtype == "f8" else 1 - 2j))[:, :301].copy()
    for f in (lambda x: x.T @ x, lambda x: x @ x.T):
        found = dflow.jit(f)(x)
        np.testing.assert_allclose(found, f(x), rtol=1e-9, atol=1e-7)
        np.testing.assert_array_equal(found, found.T)


def test_what_is_overwritten_is_copied_before():
    def f(a, b):
        c = a.copy()
        turned = c.T * 1.0
        c[0] = 5.0
        return turned @ b + c.T @ b

    np.testing.assert_allclose(dflow.jit(f)(A, B), f(A, B), rtol=1e-9, atol=1e-9)


def test_gradient():
    got = dflow.grad(lambda a, b: np.sum((a @ b.T) ** 2))(A, B)
    np.testing.assert_allclose(got, 2.0 * A @ B.T @ B, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("m", [128, 100, 131, 7])
def test_products_of_middle_size_need_no_library(m):
    x, y = A[:m, :90], B[:90, :130]
    lowered = dflow.jit(np.matmul).lower(x, y)
    assert "blas" not in lowered.llvm()
    np.testing.assert_allclose(dflow.jit(np.matmul)(x, y), x @ y, rtol=1e-9, atol=1e-12)
