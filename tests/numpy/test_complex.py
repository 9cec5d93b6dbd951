"""Complex numbers: every ufunc and the usual functions against NumPy, and derivatives by JAX's convention."""

import numpy as np
import pytest
from traced_numpy import agrees, run

import dflow
from dflow.errors import DerivativeError
from dflow.numpy.ufunc_complex import COMPLEX

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(3, 4)) + 1j * RNG.normal(size=(3, 4))
W = RNG.normal(size=(3, 4)) + 1j * RNG.normal(size=(3, 4))
AXES = np.array([1, 0, -1, 2 + 1e-9j, -2, 1j, 1e-9 + 1e-9j, -3j], complex)


@pytest.mark.parametrize("kind", ["c16", "c8"])
@pytest.mark.parametrize("name", COMPLEX)
def test_ufunc(name, kind):
    ufunc, tolerance = getattr(np, name), {"c16": 1e-12, "c8": 2e-5}[kind]
    args = (Z.astype(kind), W.astype(kind))[: ufunc.nin]
    agrees(ufunc, *args, rtol=tolerance)
    if ufunc.nin == 1:
        agrees(ufunc, 3 * args[0], rtol=tolerance)
        agrees(ufunc, AXES, rtol=1e-9)
    else:
        agrees(lambda z: ufunc(z, 2.0), args[0], rtol=tolerance)
        agrees(lambda z: ufunc(1.5 - 1j, z), args[0], rtol=tolerance)


FUNCTIONS = [
    lambda z: (z + 1, 2 * z, z * 1j, 1j - z, z / 2, 1 / z, -z, abs(z), z == z, z != 1),
    lambda z: (z.real, z.imag, z.T, np.conj(z), z.conj(), z.conjugate(), np.angle(z), np.real(z), np.imag(z)),
    lambda z: (z**0, z**2, z**5, z**-3, z**0.5, z ** (1 + 1j)),
    lambda z: (z.sum(), z.mean(0), z.var(), z.std(1), z.prod(0), np.cumsum(z), np.cumprod(z, 1)),
    lambda z: (z @ z.T, np.dot(z, z.T), np.vdot(z, z), np.vecdot(z, z), np.einsum("ij,kj->ik", z, z)),
    lambda z: (np.sort(z), np.argsort(z, axis=0), np.max(z), np.min(z, axis=1)),
    lambda z: (np.argmax(z), np.argmin(z, axis=1), np.correlate(z[0], z[1, :2]), np.linspace(z[0], z[1], 4)),
    lambda z: (np.interp([0.5, 3.0], [0.0, 1.0], z[0, :2], right=1j), np.interp(0.3, np.arange(4.0), z[0], period=5)),
    lambda z: (z.astype(np.complex64), np.where(z.real > 0, z, 0), np.diff(z), np.trace(z), np.outer(z, z)),
    lambda z: (np.isreal(z), np.iscomplex(z), np.isfinite(z), np.allclose(z, z + 1e-12), np.cov(z)),
    lambda z: (np.zeros(2, complex) + z[0, 0], np.stack([z, z]), z[1:, ::2], np.roll(z, 1), np.pad(z, 1)),
]


@pytest.mark.parametrize("f", FUNCTIONS)
def test_functions(f):
    agrees(f, Z, rtol=1e-12)


def test_real_arrays_become_complex():
    agrees(lambda x: x * 1j, RNG.normal(size=3).astype("f4"))
    agrees(lambda x: np.exp(1j * x), RNG.normal(size=3))


def test_division_by_zero():
    agrees(lambda z: z / 0.0, np.array([1 + 1j, -1.0, 0.0, 2j]))


def test_compiled_scalars_and_loops():
    def escape(c):
        z, n = 0j, 0
        while abs(z) < 2 and n < 50:
            z = z * z + c
            n += 1
        return n

    for c in (0.3 + 0.5j, 0.5 + 0.5j):
        assert dflow.jit(escape)(c) == escape(c)

    def update(z):
        y = np.zeros(3, complex)
        for k in range(3):
            y[k] = z[k] ** 2 + 1j * k
            y[k] += z[0]
        return y

    np.testing.assert_allclose(dflow.jit(update)(Z[0]), update(Z[0]))
    assert dflow.jit(lambda z: z * 2)(1j) == 2j
    assert dflow.jit(np.abs)(3 + 4j) == 5.0


def gradient_by_differences(f, z, h=1e-6):
    steps = h * np.eye(z.size).reshape(-1, *z.shape)
    found = [(f(z + e) - f(z - e)) / (2 * h) - 1j * (f(z + 1j * e) - f(z - 1j * e)) / (2 * h) for e in steps]
    return np.reshape(found, z.shape)


@pytest.mark.parametrize("name", [n for n in COMPLEX if getattr(np, n).nin == 1 and not n.startswith(("is", "rint"))])
def test_gradients(name):
    ufunc = getattr(np, name)

    def f(z):
        y = ufunc(z)
        return np.sum(np.real(y) * 0.7 + np.imag(y) * y.real)

    z = Z[0] * 0.8 + 0.3
    np.testing.assert_allclose(dflow.grad(f)(z), gradient_by_differences(f, z), rtol=1e-6, atol=1e-7)


SMOOTH = [n for n in COMPLEX if getattr(np, n).nin == 1 and not n.startswith(("is", "rint", "sign"))]
ON_AXES = np.array([0.5, -0.5, 0.3j, -0.3j, 1 + 2j, -1 - 2j, 2j])  # where a part is 0, but no branch cut


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_on_the_axes(name):
    """The formulas by parts have kinks there, which the functions have not."""
    f = getattr(np, name)
    points = ON_AXES[ON_AXES != -0.5] if name in ("sqrt", "log", "log2", "log10", "arccosh") else ON_AXES
    points = points[points.imag != 0] if name == "arccosh" else points
    points = points[points != 2j] if name in ("arctan", "arcsinh") else points
    for step in (1.0, 1j):
        wanted = (f(points + 1e-6 * step) - f(points - 1e-6 * step)) / 2e-6
        np.testing.assert_allclose(dflow.jvp(f, (points,), (step * np.ones_like(points),))[1], wanted, atol=1e-8)


@pytest.mark.parametrize("name", ["exp", "sinh", "cosh", "tanh", "arccos", "arcsinh", "arccosh", "arctanh", "sqrt"])
def test_infinities_and_nan(name):
    """As NumPy has them, but for signs that C99 leaves open."""
    f, parts = getattr(np, name), [0.0, -0.0, 1.5, np.inf, -np.inf, np.nan]
    z = np.array([complex(x, y) for x in parts for y in parts])
    with np.errstate(all="ignore"):
        wanted = f(z)
    got = dflow.jit(lambda z: f(z))(z)
    open_sign = np.isinf(z.real) & ~np.isfinite(z.imag) | np.isnan(z)
    for g, w in ((got.real, wanted.real), (got.imag, wanted.imag)):
        g, w = (np.where(open_sign, np.abs(p), p) for p in (g, w))
        np.testing.assert_allclose(g, w, rtol=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        lambda z: np.sum(np.abs(z) ** 2),
        lambda z: np.real(np.sum(z / (z[::-1] + 2))),
        lambda z: np.abs(np.prod(z)),
        lambda z: np.sum(np.abs(z @ z.reshape(4, 3)) ** 2),
        lambda z: np.var(z),
        lambda z: np.imag(np.sum(np.cumsum(z) ** 2)),
        lambda z: np.sum(np.real(z ** (0.5 + 1j))),
    ],
)
def test_gradients_of_real_functions(f):
    np.testing.assert_allclose(dflow.grad(f)(Z), gradient_by_differences(f, Z), rtol=2e-6, atol=1e-6)


def test_convention():
    np.testing.assert_allclose(dflow.grad(lambda z: np.abs(z) ** 2)(1 + 2j), 2 - 4j)
    assert dflow.grad(np.abs)(0j) == 0
    np.testing.assert_allclose(dflow.grad(lambda x: np.abs(np.exp(1j * x) + 1) ** 2)(0.3), -2 * np.sin(0.3))
    value, tangent = dflow.jvp(lambda z: z**3, (1 + 2j,), (1j,))
    np.testing.assert_allclose([value, tangent], [(1 + 2j) ** 3, 3j * (1 + 2j) ** 2])


def test_holomorphic():
    derivative = dflow.grad(lambda z: z**3 + np.exp(z), holomorphic=True)
    np.testing.assert_allclose(derivative(1 + 2j), 3 * (1 + 2j) ** 2 + np.exp(1 + 2j))
    second = dflow.grad(derivative, holomorphic=True)
    np.testing.assert_allclose(second(1 + 2j), 6 * (1 + 2j) + np.exp(1 + 2j))
    with pytest.raises(DerivativeError, match="returns a complex number"):
        dflow.grad(lambda z: z**3)(1 + 2j)
    with pytest.raises(DerivativeError, match="takes complex arguments"):
        dflow.grad(lambda z: z**3, holomorphic=True)(2.0)


def test_vmap():
    np.testing.assert_allclose(dflow.vmap(lambda z: np.sum(z * z))(Z), np.sum(Z * Z, 1))


def test_refusals_tell():
    for f in (lambda z: np.floor(z), lambda z: z % 2, lambda z: z // 1, lambda z: np.arctan2(z, z)):
        with pytest.raises(TypeError):
            run(f, Z)


def test_python_numbers():
    """``complex()`` and complex variables of loops, also those that begin as real numbers."""

    def orbit(a, b, n):
        z, total, turned = 0j, 0.0, 1.5
        for _ in range(n):
            z = z * z + complex(a, b)
            turned = turned * 1j
            total = total + z
            if abs(z) > 2:
                break
        return z, total, turned, complex(z, 1.0), complex(b)

    for got, wanted in zip(dflow.jit(orbit)(0.3, 0.4, 9), orbit(0.3, 0.4, 9), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-13)
    dflow.check_grads(lambda a, b: abs(orbit(a, b, 9)[0]), (0.3, 0.4))


NAN = float("nan")
MISSING = np.array([1 + 1j, complex(NAN, 1), complex(1, NAN), complex(NAN, NAN), 2, complex(0, NAN), 1])
ORDERED = {
    "sort": np.sort,
    "median": lambda z: np.median(z),
    "nanmedian": lambda z: np.nanmedian(z.reshape(-1, 1), axis=0, keepdims=True),
    "searchsorted": lambda z: np.searchsorted(np.sort(z), z),
    "from the right": lambda z: np.searchsorted(np.sort(z), z, "right"),
    "isin": lambda z: np.isin(z, z[2:4]),
    "intersect1d": lambda z: np.intersect1d(z, z[:3]),
    "round": lambda z: np.round(z * 1.26, 1),
}


@pytest.mark.parametrize("name", ORDERED)
def test_complex_numbers_have_an_order(name):
    f = ORDERED[name]
    for z in (Z.ravel()[:6].round(), MISSING):
        np.testing.assert_array_equal(dflow.jit(f)(z), f(z))


def test_sinc_of_complex_numbers():
    z = np.array([1 + 2j, 0.1 - 0.2j, 0.01j])
    np.testing.assert_allclose(dflow.jit(np.sinc)(z), np.sinc(z), rtol=1e-12)
    dflow.check_grads(np.sinc, (z,))
