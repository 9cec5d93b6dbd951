"""Factorizations in all the ways that they are computed: by LAPACK, by loops of our own, for empty matrices."""

from __future__ import annotations

import numpy as np
import pytest

import dflow.ir.ops  # noqa: F401
from dflow.backends.emit.core import Options
from dflow.backends.emit.lapack import Unavailable
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.native.generation import compile_plan
from dflow.ir.builder import Builder
from dflow.ir.evaluator import evaluate
from dflow.ir.types import C128, F32, F64, TensorType

SIZES = [(0, 0), (1, 1), (3, 3), (12, 12), (7, 4), (4, 7), (30, 11), (11, 30), (3, 0), (0, 3)]
SQUARE = [size for size in SIZES if size[0] == size[1]]


def compare(name, arrays, dtype, blas, **attrs):
    """Machine code against the reference; vectors whose signs are a convention, multiplied together again."""
    arrays = [np.asarray(a, dtype.numpy) for a in arrays]
    b = Builder([TensorType(dtype, a.shape) for a in arrays])
    f = b.function(name, b.append(name, b.args, attrs))
    got = compile_plan(bufferize(f), options=Options(blas=blas))(*arrays)
    tolerance = 3e-4 if dtype == F32 else 1e-11
    for g, w in zip(products(name, got), products(name, evaluate(f, arrays)), strict=True):
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)
    return got


def products(name, results):
    if name == "eigh":
        w, v = results
        return w, (v * w[..., None, :]) @ np.conj(v.mT), np.conj(v.mT) @ v
    if name == "svd":
        u, s, vh = results
        k = s.shape[-1]
        return s, (u[..., :k] * s[..., None, :]) @ vh[..., :k, :], np.conj(u.mT) @ u, vh @ np.conj(vh.mT)
    return results


def matrix(m, n, batch=(2,), seed=0, dtype=F64):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*batch, m, n))
    return x + 1j * rng.normal(size=x.shape) if dtype.kind == "c" else x


@pytest.mark.parametrize("blas", [True, False])
@pytest.mark.parametrize("dtype", [F32, F64, C128], ids=str)
@pytest.mark.parametrize("m, n", SQUARE)
def test_square_factorizations(m, n, dtype, blas):
    x = matrix(n, n, dtype=dtype)
    compare("lu", [x], dtype, blas)
    compare("cholesky", [x @ np.conj(x.mT) + np.eye(n)], dtype, blas)
    if blas:
        if dtype != F32:  # the order of the eigenvalues hangs on rounding
            compare("eig", [x], dtype, blas)
        compare("eigh", [x], dtype, blas, lower=True)
        compare("eigh", [x], dtype, blas, lower=False)


@pytest.mark.parametrize("blas", [True, False])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("m, n", SIZES)
def test_rectangular_factorizations(m, n, full, blas):
    x = matrix(m, n)
    compare("qr", [x], F64, blas, full=full)
    if full and max(m, n) < 20:
        compare("lu", [x], F64, blas)
        compare("lu", [matrix(m, n, dtype=C128)], C128, blas)
        compare("qr", [matrix(m, n, dtype=C128)], C128, blas, full=full)
        if blas:
            compare("svd", [matrix(m, n, dtype=C128)], C128, blas, full=full)
    if blas:
        compare("svd", [x], F64, blas, full=full)
        compare("svd", [x], F32, blas, full=full)


@pytest.mark.parametrize("blas", [True, False])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("n, k", [(1, 1), (3, 2), (20, 5), (20, 1), (4, 0), (0, 4)])
def test_triangular_systems(n, k, lower, transpose, unit, blas):
    a = matrix(n, n) / 4 + 2 * np.eye(n)
    compare("triangular_solve", [a, matrix(n, k)], F64, blas, lower=lower, transpose=transpose, unit=unit)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("m, n", [(1, 1), (2, 2), (3, 3), (4, 2), (3, 6)])
def test_stacks(m, n, dtype):
    """Eight matrices at a time, and those that are left over: other pivots in each, and none in some."""
    x = matrix(m, n, (2, 131))
    x[0, 3:12:2] = 0
    x[1, ::3, :, 0] = 1
    compare("lu", [x], dtype, True)
    if m == n:
        low = x @ x.mT + np.eye(n) - 40 * np.eye(n) * (np.arange(131) % 5 == 0)[:, None, None]
        (found,) = compare("cholesky", [low], dtype, True)
        assert np.isnan(found).any(axis=(2, 3)).any() and not np.isnan(found).all()


@pytest.mark.parametrize("lower, transpose, unit", [(True, False, True), (False, False, False), (False, True, True)])
@pytest.mark.parametrize("n, k", [(2, 1), (3, 2), (4, 4)])
def test_stacks_of_triangular_systems(n, k, lower, transpose, unit):
    a, y = matrix(n, n, (259,)) / 4 + 2 * np.eye(n), matrix(n, k, (259,))
    compare("triangular_solve", [a, y], F64, True, lower=lower, transpose=transpose, unit=unit)


@pytest.mark.parametrize("blas", [True, False])
@pytest.mark.parametrize("n", [3, 12])
def test_what_cannot_be_factorized_is_nan(n, blas):
    x = -np.eye(n) * np.ones((2, 1, 1))
    x[1] *= -1
    (low,) = compare("cholesky", [x], F64, blas)
    assert np.isnan(low[0]).all() and (low[1] == np.eye(n)).all()
    compare("lu", [np.zeros((n, n))], F64, blas)
    if blas:
        for name, attrs in (("eigh", {"lower": True}), ("svd", {"full": False}), ("eig", {})):
            assert all(np.isnan(r).all() for r in compare(name, [np.full((n, n), np.nan)], F64, blas, **attrs))


@pytest.mark.parametrize("name, attrs", [("eigh", {"lower": True}), ("svd", {"full": False})])
def test_what_needs_a_library_is_refused_without(name, attrs):
    b = Builder([TensorType(F64, (3, 3))])
    f = b.function("f", b.append(name, b.args, attrs))
    with pytest.raises(Unavailable, match="need LAPACK"):
        compile_plan(bufferize(f), options=Options(blas=False))
