"""``math`` on traced numbers against ``math`` itself."""

import math

import numpy as np
import pytest
from traced_numpy import run, traced

from dflow.numpy.math_functions import MATH, call_math

POINTS = {"acosh": (1.5, 7.0), "gamma": (0.5, 4.5, -1.5, -2.5), "lgamma": (0.5, 4.5, -1.5)}
OTHERS = ("copysign", "fmod", "pow", "atan2", "ldexp", "dist", "fsum", "prod", "remainder", "isclose", "gcd", "lcm")
UNARY = [f for f in MATH if f.__name__ not in OTHERS]


@pytest.mark.parametrize("f", UNARY, ids=lambda f: f.__name__)
def test_one_argument(f):
    for x in POINTS.get(f.__name__, (0.3, 0.9)):
        got = run(lambda x: call_math(f, x), x)
        wanted = f(x)
        assert [g.dtype for g in got] == [np.asarray(w).dtype for w in np.atleast_1d(wanted)]
        np.testing.assert_allclose(np.ravel(got), np.ravel(wanted), rtol=1e-14)


@pytest.mark.parametrize("x, y", [(5.5, 2.0), (-5.5, 2.0), (0.3, -1.0), (7.0, 4.0)])
@pytest.mark.parametrize("name", ["copysign", "fmod", "atan2", "remainder", "hypot", "isclose"])
def test_two_arguments(name, x, y):
    f = getattr(math, name)
    np.testing.assert_allclose(run(lambda x, y: call_math(f, x, y), x, y)[0], f(x, y), rtol=1e-14)


def test_others():
    cases = [
        (lambda m, x: m(math.pow, x, 2.5), 3.0),
        (lambda m, x: m(math.log, x, 2), 10.0),
        (lambda m, x: m(math.log, x, x + 1), 10.0),
        (lambda m, x: m(math.hypot, x, 4, 12), 3.0),
        (lambda m, x: m(math.ldexp, x, 5), 1.5),
        (lambda m, x: m(math.dist, (x, 1.0), (0.0, 5.0)), 3.0),
        (lambda m, x: m(math.fsum, [x, 1.0, 2.5]), 3.0),
        (lambda m, x: m(math.prod, [x, 2.0, x]), 3.0),
        (lambda m, x: m(math.floor, -x), 3.5),
        (lambda m, x: m(math.ceil, x), 3),
        (lambda m, x: m(math.trunc, -x), 3.5),
        (lambda m, x: m(math.gcd, x, 18), 12),
        (lambda m, x: m(math.lcm, x, 18), 12),
        (lambda m, x: m(math.sqrt, x), 16),
    ]
    for f, x in cases:
        wanted = np.asarray(f(lambda g, *args: g(*args), x))
        (got,) = run(lambda x, f=f: f(call_math, x), x)
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-14)


def test_results_are_python_numbers():
    function, _ = traced(lambda x, a: call_math(math.sin, x) * a, 0.5, np.ones(2, "f4"))
    assert str(function.result_types[0]) == "f32[2]"


def test_arrays_are_refused():
    with pytest.raises(TypeError, match="use the function of the same name in np"):
        traced(lambda x: call_math(math.sin, x), np.ones(3))
    with pytest.raises(TypeError, match=r"math\.factorial is not supported"):
        traced(lambda x: call_math(math.factorial, x), 3)


def test_untraced_numbers_are_pythons():
    assert call_math(math.sin, 0.5) == math.sin(0.5)
