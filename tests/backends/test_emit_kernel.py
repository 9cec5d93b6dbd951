"""Kernels written by hand: loop orders, several results, control flow inside, memory of every kind."""

from __future__ import annotations

import re

import numpy as np
import pytest

import dflow
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.native.generation import compile_plan
from dflow.ir.builder import Builder
from dflow.ir.evaluator import evaluate
from dflow.ir.types import BOOL, F64, GROWS, I64, Size, TensorType, scalar


def kernel(b: Builder, domain, body, combine=None):
    """``body(builder, *indices) -> scalars``; with ``combine``, one axis for each of its letters is reduced."""
    inner = Builder([scalar(I64)] * len(domain))
    block = inner.finish(body(inner, *inner.args))
    reduced, kinds = combine or (0, ("",) * len(block.results))
    return b.append("kernel", (), {"domain": tuple(domain), "reduced": reduced, "combine": kinds}, [block])


def at(b, x, *indices):
    return b.extract(x, *indices, index=("at",) * len(indices))


def assert_agrees(f, *args, tolerance=1e-12):
    compiled = compile_plan(bufferize(f))
    for got, wanted in zip(compiled(*args), evaluate(f, args), strict=True):
        np.testing.assert_allclose(got, wanted, tolerance, tolerance)
    return compiled


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (40,), (7, 11), (2, 0, 3)], ids=str)
def test_several_results(shape):
    b = Builder([TensorType(F64, shape)])
    x = b.args[0]

    def body(b, *i):
        v = at(b, x, *i) if i else x
        return [b.mul(v, v), b.lt(v, 0.5)]

    assert_agrees(b.function("f", kernel(b, shape, body)), normal(*shape))


@pytest.mark.parametrize("shape", [(), (2, 0, 3), (5,), (7, 11), (300, 400)], ids=str)
def test_tensors_and_reductions_in_one_kernel(shape):
    """The largest in parts."""
    b = Builder([TensorType(F64, shape)])
    x = b.args[0]

    def body(b, *i):
        v = at(b, x, *i) if i else x
        return [b.mul(v, v), v, b.cos(v), b.lt(v, 0.5)]

    kinds = ("", "sum", "prod", "") if shape else ("",) * 4
    assert_agrees(b.function("f", kernel(b, shape, body, (len(shape), kinds))), normal(*shape), tolerance=1e-9)


@pytest.mark.parametrize("shape", [(3, 4), (50, 60)], ids=str)
@pytest.mark.parametrize("kinds", [("sum", "max"), ("prod", "min")], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_reductions_in_both_loop_orders(shape, kinds, transposed):
    b = Builder([TensorType(F64, shape)])
    x = b.args[0]
    rows, columns = shape
    domain = (columns, rows) if transposed else (rows, columns)

    def body(b, i, j):
        v = at(b, x, j, i) if transposed else at(b, x, i, j)
        return [v, b.mul(v, v)]

    assert_agrees(b.function("f", kernel(b, domain, body, (1, kinds))), np.abs(normal(*shape)))


@pytest.mark.parametrize("size", [20, 32, 48])
def test_short_sums_are_of_vectors(size):
    b = Builder([TensorType(F64, (size,)), TensorType(F64, (size,))])
    x, y = b.args

    def body(k, i):
        product = k.mul(at(k, x, i), at(k, y, i))
        return [product, k.add(product, at(k, x, i))]

    sums = kernel(b, (size,), body, (1, ("sum", "sum")))
    compiled = assert_agrees(b.function("f", sums), normal(size), normal(size) + 1)
    assert "@llvm.vector.reduce.fadd" in compiled.llvm


def test_matrix_product_as_a_kernel():
    b = Builder([TensorType(F64, (20, 30)), TensorType(F64, (30, 40))])
    x, y = b.args
    out = kernel(b, (20, 40, 30), lambda b, i, j, k: [b.mul(at(b, x, i, k), at(b, y, k, j))], (1, ("sum",)))
    compiled = assert_agrees(b.function("f", out), normal(20, 30), normal(30, 40))
    assert "x double> @llvm.vector.reduce" not in compiled.llvm  # rows are accumulated, not elements


def test_reductions_of_bools_and_integers():
    b = Builder([TensorType(I64, (9, 10))])
    x = b.args[0]

    def body(b, i, j):
        v = at(b, x, i, j)
        return [b.gt(v, 0), b.gt(v, 50), v, v]

    f = b.function("f", kernel(b, (9, 10), body, (1, ("all", "any", "sum", "max"))))
    assert_agrees(f, np.arange(90).reshape(9, 10))


def test_result_in_the_place_of_an_operand():
    b = Builder([TensorType(F64, (100,)), scalar(I64)])

    def body(b, k, x):
        return kernel(b, (100,), lambda b, i: [b.add(at(b, x, i), b.convert(b.mul(i, k), dtype=F64))])

    assert_agrees(b.function("f", b.for_loop(b.args[1], [b.args[0]], body)), normal(100), np.int64(5))


def test_control_flow_inside():
    """Each lane runs a loop of its own."""
    b = Builder([TensorType(F64, (30,))])
    x = b.args[0]

    def body(b, i):
        v = at(b, x, i)
        steps, last = b.while_loop(
            [b.index(0), v],
            lambda b, n, v: b.and_(b.lt(b.abs(v), 10.0), b.lt(n, 100)),
            lambda b, n, v: [b.add(n, 1), b.add(b.mul(v, 1.5), 0.1)],
        )
        (sign,) = b.if_(b.lt(last, 0.0), lambda b: [b.constant(-1.0)], lambda b: [b.constant(1.0)])
        return [steps, b.mul(sign, last)]

    assert_agrees(b.function("f", kernel(b, (30,), body)), normal(30))


@pytest.mark.parametrize("n", [0, 1, 6])
def test_domains_known_at_run_time(n):
    b = Builder([scalar(I64), TensorType(F64, (6, 5))])
    count, x = b.args
    (part,) = kernel(b, (Size(count, 6), 5), lambda b, i, j: [b.mul(at(b, x, i, j), 2.0)])
    sums = kernel(b, (5, Size(count, 6)), lambda b, j, i: [at(b, part, i, j)], (1, ("sum",)))
    total = kernel(b, (Size(count, 6), 5), lambda b, i, j: [at(b, part, i, j)], (2, ("sum",)))
    assert_agrees(b.function("f", [*sums, *total]), np.int64(n), normal(6, 5))


def test_reads_of_a_sequence():
    t = TensorType(F64, (GROWS, 8))
    b = Builder([TensorType(F64, (8,)), scalar(I64)])
    x, n = b.args
    s = b.for_loop(n, [b.sequence(type=t)], lambda b, k, s: [b.update(s, x, k, index=("at", "all"))])[0]
    sums = kernel(b, (8, 5), lambda b, j, k: [at(b, s, k, j)], (1, ("sum",)))
    assert_agrees(b.function("f", sums), normal(8), np.int64(3))


def test_conditions_select_in_kernels():
    b = Builder([TensorType(BOOL, (50,)), TensorType(F64, (50,))])
    p, x = b.args

    def body(b, i):
        v = at(b, x, i)
        return [b.select(b.not_(at(b, p, i)), v, b.neg(v)), b.not_(at(b, p, i))]

    assert_agrees(b.function("f", kernel(b, (50,), body)), np.arange(50) % 3 == 0, normal(50))


@pytest.mark.parametrize("rows", [0, 1, 4, 11, 12])
@pytest.mark.parametrize("varying", [False, True])
def test_rows_are_added_several_at_a_time(rows, varying):
    """Those that are left over are added one by one; products and sums of integers as well."""
    columns = 40
    b = Builder([TensorType(F64, (12, columns)), scalar(I64)])
    x, n = b.args
    size = Size(n, 12) if varying else rows

    def body(b, j, k):
        v = at(b, x, k, j)
        return [v, v, b.emit("convert", v, dtype=I64)]

    f = b.function("f", kernel(b, (columns, size), body, (1, ("sum", "prod", "sum"))))
    assert_agrees(f, 10 * normal(12, columns), rows)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("function", [np.max, np.min])
def test_extremes_of_what_is_infinite_elsewhere_are_made_by_vectors(function, dtype):
    """LLVM would make a loop of it that leaves the extreme alone for some elements, and vectors of none."""
    x = np.random.default_rng(0).standard_normal(1003).astype(dtype)
    away = -np.inf if function is np.max else np.inf
    masked = dflow.jit(lambda x, t: function(np.where(x < t, x, away)))
    for t in (-9.0, 0.0, 9.0):
        assert masked(x, t) == function(np.where(x < t, x, away))
    assert re.search(r"llvm\.(max|min)num\.v\d+f(32|64)", masked.lower(x, 0.0).llvm())
