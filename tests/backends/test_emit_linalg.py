"""Matrix products in all the ways that they are computed."""

from __future__ import annotations

import numpy as np
import pytest

import dflow.ir.ops  # noqa: F401
from dflow.backends.emit.core import Options
from dflow.backends.emit.linalg import pieces
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.native.generation import compile_plan
from dflow.ir.builder import Builder
from dflow.ir.evaluator import evaluate
from dflow.ir.types import C64, C128, F16, F32, F64, I32, I64, U8, Size, TensorType, scalar

SIZES = [
    (2, 2, 2),
    (4, 8, 3),
    (5, 7, 9),
    (1, 40, 50),
    (40, 1, 50),
    (13, 29, 31),
    (3, 5, 0),
    (37, 45, 41),
    (9, 11, 600),
    (70, 20, 300),
]


def product(dtype, *shapes):
    b = Builder([TensorType(dtype, s) for s in shapes])
    return b.function("product", [b.matmul(*b.args)])


@pytest.mark.parametrize("blas", [True, False])
@pytest.mark.parametrize("dtype", [F16, F32, F64, I32, U8], ids=str)
@pytest.mark.parametrize("m, n, k", SIZES)
def test_products(m, n, k, dtype, blas):
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-4, 5, s).astype(dtype.numpy) for s in ((m, k), (k, n)))
    f = product(dtype, x.shape, y.shape)
    (got,) = compile_plan(bufferize(f), options=Options(blas=blas))(x, y)
    np.testing.assert_array_equal(got, evaluate(f, [x, y])[0])  # small integers: every order of sums is exact


@pytest.mark.parametrize("dtype", [C64, C128], ids=str)
@pytest.mark.parametrize("m, n, k", [(2, 2, 2), (5, 7, 9), (70, 20, 300)])
def test_complex_products(m, n, k, dtype):
    x, y = (np.random.default_rng(k).integers(-4, 5, (2, *s)).astype(float) for s in ((m, k), (k, n)))
    x, y = ((v[0] + 1j * v[1]).astype(dtype.numpy) for v in (x, y))
    f = product(dtype, x.shape, y.shape)
    (got,) = compile_plan(bufferize(f), options=Options())(x, y)
    np.testing.assert_array_equal(got, evaluate(f, [x, y])[0])


@pytest.mark.parametrize("blas", [True, False])
@pytest.mark.parametrize("m, n, k", [(3, 4, 5), (40, 41, 42)])
def test_batches(m, n, k, blas):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, m, k)), rng.normal(size=(2, 3, k, n))
    (got,) = compile_plan(bufferize(product(F64, x.shape, y.shape)), options=Options(blas=blas))(x, y)
    np.testing.assert_allclose(got, x @ y, 1e-12, 1e-12)


@pytest.mark.parametrize("blas", [True, False])
@pytest.mark.parametrize("n", [0, 1, 20, 50])
def test_sizes_known_at_run_time(n, blas):
    b = Builder([scalar(I64), TensorType(F64, (50, 60))])
    count, x = b.args
    part = b.extract(x, b.index(0), b.index(0), index=(("slice", Size(count, 50), 1), ("slice", Size(count, 60), 1)))
    z = b.matmul(part, b.transpose(part, perm=(1, 0)))
    f = b.function("f", [b.reduce(z, kind="sum", axes=(0, 1))])
    x = np.random.default_rng(0).normal(size=(50, 60))
    (got,) = compile_plan(bufferize(f), options=Options(blas=blas))(np.int64(n), x)
    np.testing.assert_allclose(got, evaluate(f, [np.int64(n), x])[0], 1e-11, 1e-11)


def test_pieces():
    assert pieces(21, 8) == [(0, 16, 8), (16, 20, 4), (20, 21, 1)]
    assert pieces(0, 4) == []
