"""Python's ``round`` to decimals, which is not NumPy's."""

import math
import random

import numpy as np
import pytest

import dflow

RANDOM = random.Random(3)
SPECIAL = [0.0, -0.0, 2.675, 1.005, 0.145, 2.5, -2.5, 125.0, 135.0, 1e22, 2.0**52 + 0.5, 4.1003853974735816e16]
HALVES = [(RANDOM.randint(-(10**6), 10**6) * 10 + 5) / 10 ** RANDOM.randint(1, 12) for _ in range(200)]
WIDE = [RANDOM.uniform(-10, 10) * 10.0 ** RANDOM.randint(-20, 25) for _ in range(200)]


def to_two(x):
    return round(x, 2)


def to_nine(x):
    return round(x, 9)


def to_tens(x):
    return round(x, -1)


@pytest.mark.parametrize("f", [to_two, to_nine, to_tens])
def test_round_is_pythons(f):
    compiled = dflow.jit(f)
    for x in (*SPECIAL, *HALVES, *WIDE, math.inf, -math.inf, 5e-324, 1.7e308):
        found, wanted = float(compiled(x)), f(x)
        assert (found, math.copysign(1, found)) == (wanted, math.copysign(1, wanted))
    assert math.isnan(compiled(math.nan))


@pytest.mark.filterwarnings("ignore::dflow.errors.ZeroGradientWarning")
def test_derivative_is_zero():
    assert [dflow.grad(to_two)(x) for x in (2.3, 1e20)] == [0.0, 0.0]


def test_numbers_of_numpy_are_rounded_as_it_does():
    x = np.array([2.675, 1.005, 0.145])
    np.testing.assert_array_equal(dflow.jit(lambda x: np.array([round(v, 2) for v in x]))(x), [round(v, 2) for v in x])
