"""``math`` on traced numbers against ``math`` itself."""

import cmath
import math

import numpy as np
import pytest
from traced_numpy import run, traced

import dflow
from dflow.numpy.math_functions import MATH, call_math

POINTS = {"acosh": (1.5, 7.0), "gamma": (0.5, 4.5, -1.5, -2.5), "lgamma": (0.5, 4.5, -1.5)}
OTHERS = ("copysign", "fmod", "pow", "atan2", "ldexp", "dist", "fsum", "prod", "remainder", "isclose", "gcd", "lcm")
OTHERS += ("frexp", "nextafter", "sumprod", "fma", "rect", "factorial", "isqrt", "comb", "perm", "bit_length")
UNARY = [f for f in MATH if f.__name__ not in OTHERS]


@pytest.mark.parametrize("f", UNARY, ids=lambda f: f.__name__)
def test_one_argument(f):
    for x in POINTS.get(f.__name__, (0.3, 0.9)):
        got = run(lambda x: call_math(f, x), x)
        wanted = f(x)
        assert [g.dtype for g in got] == [np.asarray(w).dtype for w in np.atleast_1d(wanted)]
        np.testing.assert_allclose(np.ravel(got), np.ravel(wanted), rtol=1e-14)


INTEGERS = [
    (math.factorial, (0,), (7,), (20,)),
    (math.isqrt, (0,), (15,), (16,), (2**62 - 1,), (2**63 - 1,)),
    (math.comb, (7, 3), (3, 7), (5, 0), (60, 25)),
    (math.perm, (7, 3), (3, 7), (5, 5), (5,)),
    (pow, (3, 5, 7), (-3, 500, 1000003), (2, 0, 1), (5, 3, -7)),
    (int.bit_length, (0,), (-8,), (2**62,)),
    (math.nextafter, (1.0, 2.0), (0.0, -1.0)),
]


@pytest.mark.parametrize("f, cases", [(f, c) for f, *c in INTEGERS], ids=lambda f: getattr(f, "__name__", ""))
def test_integers(f, cases):
    for args in cases:
        (got,) = run(lambda *args: call_math(f, *args), *args)
        assert got == f(*args) and got.dtype == np.asarray(f(*args)).dtype


@pytest.mark.parametrize(
    "f, args, message",
    [
        (math.factorial, (21,), "factorial() of more than 20 has more than 64 bits"),
        (math.factorial, (-1,), "factorial() not defined for negative values"),
        (math.comb, (70, 30), "comb() has more than 64 bits"),
        (math.perm, (30, 20), "perm() has more than 64 bits"),
        (pow, (3, 5, 2**40), "pow() with a modulus above 2**31.5 has products of more than 64 bits"),
        (pow, (3, -1, 7), "pow() of traced integers with a modulus takes no negative exponent"),
        (math.isqrt, (-1,), "isqrt() argument must be nonnegative"),
    ],
)
def test_integers_that_do_not_fit(f, args, message):
    with pytest.raises(ValueError) as e:
        run(lambda *args: call_math(f, *args), *args)
    assert message in str(e.value)


def test_distance_to_the_next_number_is_constant():
    assert dflow.grad(lambda x: call_math(math.nextafter, x, 9.0))(2.0) == 1.0
    assert dflow.grad(lambda x: call_math(math.ulp, x))(2.0) == 0.0


COMPLEX = [f for f in MATH if f.__name__ in vars(cmath) and f not in (getattr(math, f.__name__, None), cmath.rect)]


@pytest.mark.parametrize("f", COMPLEX, ids=lambda f: f.__name__)
def test_cmath(f):
    args = (0.3 + 0.4j, 0.3 + 0.5j) if f is cmath.isclose else (0.3 + 0.4j,)
    got, wanted = run(lambda *args: call_math(f, *args), *args), f(*args)
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
        (lambda m, x: m(math.frexp, x)[0], 6.5),
        (lambda m, x: m(math.frexp, x)[1], 6.5),
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
    with pytest.raises(TypeError, match=r"factorial\(\) takes integers, got f64"):
        traced(lambda x: call_math(math.factorial, x), 3.0)


def test_untraced_numbers_are_pythons():
    assert call_math(math.sin, 0.5) == math.sin(0.5)


def test_products_of_arrays_and_sums_of_rows():
    x = np.arange(1.0, 7.0).reshape(2, 3)
    for f in (lambda m, x: m(math.prod, [x, x, 2.0]), lambda m, x: m(math.prod, x, start=x[0])):
        np.testing.assert_array_equal(run(lambda x, f=f: f(call_math, x), x)[0], f(lambda g, *a, **k: g(*a, **k), x))
    for f in (lambda x: math.fsum(x), lambda x: math.dist(x, x)):
        with pytest.raises(TypeError, match="only numbers"):
            dflow.jit(f)(x)
