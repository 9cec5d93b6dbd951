"""Loops that keep what passes a test: vectors at a time where the processor can, and the last rounds one by one."""

import numpy as np
import pytest

import dflow
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.native.generation import compile_plan
from dflow.backends.native.machine import has_avx512
from dflow.ir.builder import Builder
from dflow.ir.evaluator import evaluate
from dflow.ir.types import F64, I32, I64, TensorType

SIZES = (1, 2, 255, 256, 257, 513, 1000)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_positions_of_what_holds(share):
    rng = np.random.default_rng(0)
    places = dflow.jit(lambda mask: np.nonzero(mask)[0])
    for n in SIZES:
        mask = rng.random(n) < share
        np.testing.assert_array_equal(places(mask), np.nonzero(mask)[0])


def kept(size):
    """Twice the numbers above zero from place 1 on, and where they were. What the last round writes behind the last one
    found stays there, and what was there before stays behind that."""
    b = Builder([TensorType(F64, (size,)), TensorType(F64, (size + 9,)), TensorType(I32, (size + 9,))])
    x, *given = b.args

    def body(b, k, out, where, count):
        v = b.extract(x, k, index=("at",))
        out = b.update(out, b.mul(v, 2.0), count, index=("at",))
        where = b.update(where, b.convert(k, dtype=I32), count, index=("at",))
        return [out, where, b.add(count, b.convert(b.gt(v, 0.0), dtype=I64))]

    return b.function("kept", b.for_loop(b.index(size), [*given, b.index(1)], body))


@pytest.mark.parametrize("size", [1, 256, 257, 600])
def test_numbers_of_two_sizes_and_what_is_behind_them(size):
    f = kept(size)
    compiled = compile_plan(bufferize(f))
    assert ("vector.compress" in compiled.unoptimized) == has_avx512()
    for shift in (-9.0, -1.0, 0.0, 9.0):
        x = np.random.default_rng(size).standard_normal(size) + shift
        args = x, np.full(size + 9, -1.0), np.full(size + 9, -1, np.int32)
        for got, wanted in zip(compiled(*args), evaluate(f, args), strict=True):
            np.testing.assert_array_equal(got, wanted)


def in_place(x):
    count = 0
    for k in range(len(x)):
        x[count] = x[k]
        count += x[k] > 0.5
    return count


def test_a_filter_of_its_own_array_goes_round_by_round():
    x = np.random.default_rng(0).random(1000)
    given, wanted = x.copy(), x.copy()
    assert dflow.jit(in_place)(given) == in_place(wanted)
    np.testing.assert_array_equal(given, wanted)


def test_gradient_of_what_is_kept():
    x = np.random.default_rng(0).standard_normal(600)
    np.testing.assert_allclose(dflow.grad(lambda x: (x[x > 0] ** 3).sum())(x), np.where(x > 0, 3 * x**2, 0))
