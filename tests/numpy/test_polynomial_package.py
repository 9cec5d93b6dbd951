"""``numpy.polynomial`` and ``np.poly1d`` in traced code: NumPy's own Python, traced as it is written."""

import numpy as np
import pytest
from numpy.polynomial import Chebyshev, Legendre, Polynomial, chebyshev, hermite, legendre, polynomial

import dflow
from dflow.errors import TraceError

C, X = np.array([1.0, -2.0, 0.5, 3.0]), np.linspace(-1.0, 1.0, 5)

FUNCTIONS = {
    "polyval": lambda c, x: polynomial.polyval(x, c),
    "chebval": lambda c, x: chebyshev.chebval(x, c),
    "legval": lambda c, x: legendre.legval(x, c),
    "hermval": lambda c, x: hermite.hermval(x, c),
    "polyval2d": lambda c, x: polynomial.polyval2d(x, x**2, c.reshape(2, 2)),
    "legvander": lambda c, x: legendre.legvander(x, 3) @ c,
    "polyfit": lambda c, x: polynomial.polyfit(x, x**2 * c[0], 2),
    "fit": lambda c, x: Polynomial.fit(x, c[0] * x**2 + c[1], 2)(c[2]),
    "polymul": lambda c, x: polynomial.polymul(c, x),
    "chebder": lambda c, x: chebyshev.chebder(c) + chebyshev.chebint(c, lbnd=x[0])[1:4],
    "class": lambda c, x: (Polynomial(c) * 2 + Polynomial(x)).deriv()(x),
    "domain": lambda c, x: Legendre(c, domain=[0.0, 4.0]).integ()(x),
    "gauss": lambda c, x: np.sum(legendre.leggauss(5)[1] * np.exp(c[0] * legendre.leggauss(5)[0])),
    "known": lambda c, x: np.sum(Chebyshev([1.0, 2.0])(x)) + np.poly1d([1.0, 2.0])(c[0]),
    "roots": lambda c, x: np.abs(polynomial.polyroots(c)),
    "chebroots": lambda c, x: np.abs(chebyshev.chebroots(c)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_numpy(name):
    f = FUNCTIONS[name]
    np.testing.assert_allclose(dflow.jit(f)(C, X), f(C, X), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["chebval", "fit", "class", "roots"])
def test_derivatives(name):
    dflow.check_grads(lambda c: FUNCTIONS[name](c, X), (C,), order=1)


def test_a_sum_keeps_its_length():
    """How many trailing zeros a result has shows when the program runs; its length is known before."""
    assert dflow.jit(lambda c: polynomial.polysub(c, c))(C).tolist() == [0.0] * 4


def test_numbers_of_which_the_data_decide_whether_they_are_real():
    with pytest.raises(TraceError, match=r"give it complex numbers: np.sqrt\(x \+ 0j\)"):
        dflow.jit(lambda x: np.emath.sqrt(x))(2.0)
