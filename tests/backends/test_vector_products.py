"""Products of a matrix and a vector that compute elements of an operand themselves."""

from __future__ import annotations

import numpy as np
import pytest

from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.lowering.check_plan import check_plan
from dflow.backends.lowering.fusion import fuse
from dflow.backends.native.generation import compile_plan
from dflow.ir.builder import Builder
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.types import C128, F64, I64, Size, TensorType, scalar
from dflow.ir.verifier import verify


def assert_agrees(f, *args):
    verify(f)
    g = fuse(f)
    verify(g, after="fuse")
    plan = bufferize(g)
    check_plan(plan)
    for got, wanted in zip(compile_plan(plan)(*args), evaluate(f, args), strict=True):
        np.testing.assert_allclose(got, wanted, 1e-12, 1e-12)
    return [op.name for op in walk(g.body)]


def whole(rng, t):
    return rng.integers(-9, 9, t.static_shape).astype(t.dtype.numpy)


SHAPES = [
    ((), 1, 5, 7),
    ((), 6, 5, 1),
    ((), 1, 5, 1),
    ((2,), 1, 5, 30),
    ((2, 3), 4, 5, 1),
    ((2,), 1, 3, 1),
    ((), 1, 0, 4),
]


@pytest.mark.parametrize(("batch", "m", "k", "n"), SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [F64, I64, C128], ids=str)
def test_slices_and_sums_are_not_in_memory(batch, m, k, n, dtype):
    rng = np.random.default_rng(0)
    types = [TensorType(dtype, (*batch, m + 1, k + 2)), TensorType(dtype, (*batch, k, n))]
    b = Builder(types)
    index = (*["all"] * len(batch), ("slice", m, 1), ("slice", k, 1))
    x = b.extract(b.args[0], b.index(1), b.index(2), index=index)
    y = b.add(b.args[1], b.args[1])
    names = assert_agrees(b.function("f", [b.matmul(x, y)]), *(whole(rng, t) for t in types))
    assert "matmul" not in names


def test_what_is_taken_often_is_computed_once():
    """The vector of a product, and both matrices of another, are in memory."""
    b = Builder([TensorType(F64, (1, 5)), TensorType(F64, (5, 6)), TensorType(F64, (6, 6))])
    v, x, y = (b.sin(a) for a in b.args)
    f = b.function("f", [b.matmul(v, x), b.matmul(y, y)])
    names = assert_agrees(f, *(np.random.default_rng(0).normal(size=a.type.shape) for a in b.args))
    assert names.count("matmul") == 1 and names.count("sin") == 3


def test_columns_of_a_size_known_at_run_time():
    b = Builder([TensorType(F64, (5, 6)), scalar(I64)])
    x, n = b.args
    row = b.extract(x, b.index(0), b.index(0), index=("at", ("slice", Size(n, 6), 1)))
    part = b.extract(x, b.index(0), index=("all", ("slice", Size(n, 6), 1)))
    y = b.matmul(part, b.reshape(row, shape=(Size(n, 6), 1)))
    f = b.function("f", [y])
    for n in (6, 4, 0):
        assert "matmul" not in assert_agrees(f, np.random.default_rng(0).normal(size=(5, 6)), n)


def test_an_operand_that_is_overwritten_after():
    b = Builder([TensorType(F64, (4, 4))])
    x = b.mul(b.args[0], b.args[0])
    part = b.extract(x, b.index(1), index=(("slice", 3, 1), "all"))
    column = b.extract(x, b.index(0), index=("all", ("slice", 1, 1)))
    y = b.update(
        x,
        b.broadcast(b.constant(1.0, F64), shape=(2, 2), dims=()),
        b.index(0),
        b.index(0),
        index=(("slice", 2, 1), ("slice", 2, 1)),
    )
    assert_agrees(b.function("f", [y, b.matmul(part, column)]), np.random.default_rng(0).normal(size=(4, 4)))


def test_what_is_as_cheap_as_reading_is_computed_again():
    """A multiple of a matrix is no matrix of its own, though two products and a result use it; a sum of two is."""
    b = Builder([TensorType(F64, (5, 6)), TensorType(F64, (6, 1)), TensorType(F64, (1, 5)), scalar(F64)])
    x, column, row, c = b.args
    y = b.mul(x, b.broadcast(c, shape=(5, 6), dims=()))
    z = b.add(x, b.sin(y))
    made = [b.matmul(y, column), b.matmul(row, y), b.sub(y, x), b.matmul(z, column), b.matmul(row, z)]
    args = [np.random.default_rng(0).normal(size=a.type.shape) for a in b.args]
    names = assert_agrees(b.function("f", made), *args)
    assert names.count("matmul") == 2 and names.count("sin") == 1


@pytest.mark.parametrize(("k", "folded"), [(5, False), (70, True)])
def test_large_matrices_are_not_transposed(k, folded):
    b = Builder([TensorType(F64, (60, k)), TensorType(F64, (1, k))])
    x, v = b.args
    made = b.matmul(v, b.transpose(x, perm=(1, 0)))
    rng = np.random.default_rng(0)
    names = assert_agrees(b.function("f", [made]), rng.normal(size=(60, k)), rng.normal(size=(1, k)))
    assert ("matmul" not in names) == folded
