"""Python's integers beside NumPy's: compared by value, and refused where they do not fit (NEP 50)."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import dflow
from dflow.errors import RangeError, TraceError

NARROW = ("i1", "u1", "i2", "u2", "i4", "u4")
NUMBERS = (-(2**40), -129, -1, 0, 100, 127, 128, 255, 256, 70000, 2**40)


@pytest.mark.parametrize("compare", [operator.lt, operator.ge, operator.eq, operator.ne])
@pytest.mark.parametrize("dtype", NARROW)
def test_integers_are_compared_by_value(dtype, compare):
    bounds = np.iinfo(dtype)
    x = np.array([bounds.min, 0, 100, bounds.max], dtype)
    given = dflow.jit(lambda x, n: compare(x, n))
    for n in NUMBERS:
        wanted = compare(x, n)
        np.testing.assert_array_equal(given(x, n), wanted)
        np.testing.assert_array_equal(dflow.jit(lambda x, n=n: compare(x, n))(x), wanted)
        np.testing.assert_array_equal(dflow.jit(lambda x, n=n: compare(n, x))(x), compare(n, x))


@pytest.mark.parametrize("dtype", NARROW)
def test_a_number_that_does_not_fit_is_refused(dtype):
    bounds = np.iinfo(dtype)
    x = np.ones(2, dtype)
    for n in (bounds.min - 1, bounds.max + 1):
        with pytest.raises(OverflowError):
            x + n
        with pytest.raises(RangeError, match=f"test_integers.py:.*the Python integer {n} is out of bounds for"):
            dflow.jit(lambda x, n=n: x + n)(x)
    np.testing.assert_array_equal(dflow.jit(lambda x: x - 1 + bounds.max)(x), x - 1 + bounds.max)


def test_numbers_of_64_bits():
    with pytest.raises(RangeError, match="out of bounds for int64"):
        dflow.jit(lambda x: x + 2**63)(2)
    assert dflow.jit(lambda x: x + 2**63)(np.uint64(2)) == np.uint64(2**63 + 2)
    assert dflow.jit(lambda x: x + 2**63)(2.0) == 2.0 + 2**63
    with pytest.raises(RangeError, match=r"(?s)more than 64 bits.*write it as a float: 1\.18059e\+21"):
        dflow.jit(lambda x: x * 2**70)(2.0)
    assert dflow.jit(lambda x: x > 2**63)(np.uint64(2**63 + 1))
    assert dflow.jit(lambda x, n: x > n)(np.uint64(1), -1)


UNSIGNED, SIGNED = np.array([0, 1, 2**63, 2**64 - 1], np.uint64), np.array([-(2**63), -1, 1, 2**63 - 1])


@pytest.mark.parametrize("compare", [np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal])
@pytest.mark.parametrize("n", [-1, 300, np.uint64(2**63), SIGNED, SIGNED[:, None].astype(np.int8)])
def test_integers_are_compared_by_their_values(compare, n):
    for f in (lambda x, n: (compare(x, n), compare(n, x)), lambda x, _: (compare(x, n), compare(n, x))):
        for x in (UNSIGNED, SIGNED):
            for got, wanted in zip(dflow.jit(f)(x, n), f(x, n)):
                np.testing.assert_array_equal(got, wanted)


def test_arrays_with_rules_of_their_own_are_no_constants():
    matrix = np.ones((2, 2)).view(np.matrix)
    with pytest.raises(TraceError, match="a matrix cannot take part in array operations"):
        dflow.jit(lambda x: x * matrix)(np.ones((2, 2)))


def test_lcm_wraps_around_as_numpys():
    x, y = np.array([12, -100, -128, -128], np.int8), np.array([11, 3, 2, -1], np.int8)
    np.testing.assert_array_equal(dflow.jit(np.lcm)(x, y), np.lcm(x, y))
