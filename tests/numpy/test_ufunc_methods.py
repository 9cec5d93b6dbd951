"""The methods of ufuncs, and those that look at bits, against NumPy."""

import numpy as np
import pytest
from traced_numpy import agrees

RNG = np.random.default_rng(0)
X = np.abs(RNG.normal(size=7).round(1)) + 0.1
M = np.abs(RNG.normal(size=(4, 5)).round(1)) + 0.1
T = RNG.integers(0, 4, (2, 3, 4))
COMMUTATIVE = ["add", "multiply", "maximum", "minimum", "fmax", "hypot", "logaddexp", "logical_and", "logical_xor"]
REPEATED = ["add", "subtract", "multiply", "divide", "maximum", "power", "negative", "exp", "logical_not"]
EXTREMES = np.array([0.0, -0.0, 1, -1, 0.5, 3.7, 1e-310, -5e-324, 1e300, np.inf, -np.inf, np.nan, 2.0**-1022])


@pytest.mark.parametrize("x", [X, M], ids=["vector", "matrix"])
@pytest.mark.parametrize("name", [*COMMUTATIVE, "subtract", "divide"])
def test_methods(name, x):
    ufunc = getattr(np, name)
    agrees(lambda x: ufunc.reduce(x), x)
    agrees(lambda x: ufunc.reduce(x, axis=-1, keepdims=True), x)
    agrees(lambda x: ufunc.accumulate(x), x)
    agrees(lambda x: ufunc.accumulate(x, axis=-1), x)
    agrees(lambda x: ufunc.outer(x, x[:2]), x)
    agrees(lambda x: ufunc.reduceat(x, [0, 2, 1, 3], axis=0), x)
    if name in COMMUTATIVE:
        agrees(lambda x: ufunc.reduce(x, initial=0.5, axis=0), x)
        agrees(lambda x: ufunc.reduce(x, initial=0.5, where=x > 0.3, axis=0), x)


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor", "gcd", "lcm", "left_shift"])
def test_methods_on_integers(name):
    ufunc = getattr(np, name)

    def at(x):
        y = x.copy()
        ufunc.at(y, (0, [1, 1, 2]), 3)
        return y

    agrees(lambda x: ufunc.reduce(x, axis=1), T)
    agrees(lambda x: ufunc.accumulate(x, axis=1), T)
    agrees(at, T)


@pytest.mark.parametrize("x", [X, M], ids=["vector", "matrix"])
@pytest.mark.parametrize("name", REPEATED)
def test_at(name, x):
    ufunc = getattr(np, name)

    def f(x):
        y = x.copy()
        if ufunc.nin == 1:
            ufunc.at(y, [0, 1, 0])
        else:
            ufunc.at(y, [0, 1, 0, -1], 2.0)
            ufunc.at(y, np.array([0, 0]), y[1] + 0.3)
        return y

    agrees(f, x)


@pytest.mark.parametrize("kind", ["f8", "f4", "f2"])
def test_bits_of_floats(kind):
    with np.errstate(over="ignore"):
        x = EXTREMES.astype(kind)
    for f in (np.frexp, np.spacing, lambda x: np.nextafter(x, 1), lambda x: np.nextafter(x, x[::-1])):
        agrees(f, x)
    agrees(lambda x: x.view(f"i{x.dtype.itemsize}"), x)


@pytest.mark.parametrize("kind", ["i1", "i4", "u8", "i8", "u1"])
def test_bitwise_count(kind):
    agrees(np.bitwise_count, RNG.integers(-128, 127, 20).astype(kind))


def test_reduce_of_several_axes():
    agrees(lambda x: np.add.reduce(x, axis=(0, 2)), T)
    agrees(lambda x: np.bitwise_xor.reduce(x, axis=(0, 2)), T)
    agrees(lambda x: np.add.reduce(x, axis=None), T)
