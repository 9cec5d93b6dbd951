"""Fourier transforms of every kind and size against NumPy, and their derivatives."""

import numpy as np
import pytest
from traced_numpy import agrees

import dflow
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.passes.decompose import decompose
from dflow.numpy import fourier

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(4, 6)) + 1j * RNG.normal(size=(4, 6))
X = RNG.normal(size=(3, 4, 6))


# a point, one pass, several of equal and of other factors, primes in a loop, those of chirps, a product of such
@pytest.mark.parametrize("n", [1, 2, 7, 16, 36, 125, 37, 74, 30 * 77, 1024, 17 * 31, 37 * 41])
def test_sizes(n):
    z = RNG.normal(size=n) + 1j * RNG.normal(size=n)
    agrees(np.fft.fft, z, rtol=1e-11 * max(1, n // 100))
    agrees(np.fft.ifft, z, rtol=1e-12)


@pytest.mark.parametrize("n", [64, 66, 75, 100])
def test_sizes_of_reals(n):
    x = RNG.normal(size=(2, n))
    agrees(np.fft.rfft, x, rtol=1e-11)
    y = np.fft.rfft(x)
    y[:, ::7] *= 1 + 2j  # what should be real is not
    agrees(lambda y: np.fft.irfft(y, n), y, rtol=1e-11)


@pytest.mark.parametrize("norm", [None, "backward", "ortho", "forward"])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_one_axis(name, norm):
    f, x = getattr(np.fft, name), X if name in ("rfft", "ihfft") else Z
    agrees(lambda x: f(x, norm=norm), x, rtol=1e-12)
    agrees(lambda x: f(x, 4, 0, norm), x, rtol=1e-12)
    agrees(lambda x: f(x, 9, -1, norm), x, rtol=1e-12)
    agrees(lambda x: f(x, 3, -1, norm), x, rtol=1e-12)


@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn", "fft2", "ifft2", "rfft2", "irfft2"])
def test_several_axes(name):
    f = getattr(np.fft, name)
    agrees(f, X if "r" not in name or name.startswith("r") else X + 0j, rtol=1e-11)
    agrees(lambda x: f(x, s=(5, 4), axes=(0, 2), norm="ortho"), X, rtol=1e-11)


def test_dtypes_frequencies_and_shifts():
    agrees(np.fft.fft, X.astype("f4"), rtol=1e-5)
    agrees(np.fft.fft, np.arange(5, dtype="i2"))
    agrees(np.fft.rfft, np.arange(70, dtype="i1"))
    agrees(lambda d: np.fft.fftfreq(5, d) if isinstance(d, float) else dflow.numpy.fft.fftfreq(5, d), 0.5)
    agrees(np.fft.fftshift, X)
    agrees(lambda x: np.fft.ifftshift(x, axes=(0, 2)), X)


@pytest.mark.parametrize("n", [5, 37, 66])
def test_derivatives(n):
    x, h = RNG.normal(size=n), 1e-6

    def power(x):
        return np.sum(np.abs(np.fft.rfft(x)) ** 2 * np.arange(n // 2 + 1))

    numeric = [(power(x + h * e) - power(x - h * e)) / (2 * h) for e in np.eye(n)]
    np.testing.assert_allclose(dflow.grad(power)(x), numeric, rtol=1e-5, atol=1e-5)
    z = x + 1j * x[::-1]
    got = dflow.grad(lambda z: np.real(np.fft.fft(z)[1]))(z)
    np.testing.assert_allclose(got, np.exp(-2j * np.pi * np.arange(n) / n), atol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_factors_of_long_transforms_are_made_when_the_program_runs(dtype, monkeypatch):
    """Those of chirps, and of real numbers that are transformed as complex ones."""
    monkeypatch.setattr(fourier, "TABLE", 16)
    x, exact = RNG.normal(size=202).astype(dtype), {"f4": 1e-6, "f8": 1e-14}[dtype]

    def there_and_back(x, n):
        y = np.fft.rfft(x[:n])
        return y, np.fft.irfft(y, n), np.fft.fft(x[:n] * (1 - 2j))

    for n in (101, 202):
        f = dflow.jit(there_and_back, static_argnums=1)
        ops = walk(f.lower(x, n).stages.traced.body)
        assert all(np.size(op.attrs["value"]) <= 32 for op in ops if op.name == "constant")
        for got, want in zip(f(x, n), there_and_back(x.astype("f8"), n)):
            np.testing.assert_allclose(got, want, atol=exact * np.abs(want).max() * 10)
    weights = np.arange(102.0)
    back = dflow.grad(lambda x: np.sum(np.abs(np.fft.rfft(x)) ** 2 * weights))(x.astype("f8"))
    want = 2 * np.fft.irfft(np.fft.rfft(x.astype("f8")) * weights * np.where(weights % 101 == 0, 1, 0.5), 202) * 202
    np.testing.assert_allclose(back, want, atol=1e-11 * np.abs(want).max())


def test_errors_tell():
    with pytest.raises((TypeError, ValueError), match="norm"):
        dflow.jit(lambda x: np.fft.fft(x, norm="best"))(X)
    with pytest.raises((TypeError, ValueError), match="data points"):
        dflow.jit(lambda x: np.fft.fft(x, 0))(X)


@pytest.fixture
def small_caches(monkeypatch):
    monkeypatch.setattr(fourier, "NEAR", 64)
    monkeypatch.setattr(fourier, "FAR", 1024)


def test_a_transform_larger_than_the_caches_is_done_in_blocks(small_caches):
    x, u = np.random.default_rng(0).standard_normal((2, 1280))
    compiled = dflow.value_and_grad(lambda x: (u * np.abs(np.fft.fft(x)) ** 2).sum())
    value, gradient = compiled(x)
    y = np.fft.fft(x)
    np.testing.assert_allclose(value, (u * np.abs(y) ** 2).sum(), rtol=1e-9)
    np.testing.assert_allclose(gradient, 2 * 1280 * np.fft.ifft(u * y).real, rtol=1e-9, atol=1e-7)
    assert " = for " in compiled.lower(x).ir("traced")


@pytest.mark.parametrize("dtype", ["c8", "c16"])
@pytest.mark.parametrize("shape", [(24, 3), (2, 30, 19), (7, 16), (3, 12, 8)])
def test_columns_that_fill_vectors_or_do_not(shape, dtype):
    x = (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(dtype)
    agrees(lambda x: np.fft.fft(x, axis=-2), x, rtol=1e-5 if dtype == "c8" else 1e-11)


def test_many_rows_and_columns_are_shared_among_threads():
    x = RNG.normal(size=(300, 256)) + 1j
    agrees(lambda x: (np.fft.ifft(x), np.fft.fft(x, axis=0)), x, rtol=1e-11)


@pytest.mark.parametrize("shape, axis", [((66,), 0), ((3, 40, 2), 1), ((2, 5, 49), 2)])
def test_as_products_of_matrices(shape, axis):
    z = RNG.normal(size=shape) + 1j * RNG.normal(size=shape)
    traced = dflow.jit(lambda z: np.fft.ifft(z, axis=axis, norm="forward")).lower(z).stages.function("traced")
    apart = decompose(traced)
    assert not any(op.name == "fourier" for op in walk(apart.body))
    np.testing.assert_allclose(
        evaluate(apart, [z])[0], np.fft.ifft(z, axis=axis, norm="forward"), rtol=1e-11, atol=1e-11
    )


def test_as_products_of_matrices_where_the_stack_has_a_size_of_the_run():
    x = RNG.normal(size=(9, 20))
    traced = dflow.jit(lambda x: np.sum(np.abs(np.fft.fft(x[x[:, 0] > 0]))))
    np.testing.assert_allclose(traced(x), np.sum(np.abs(np.fft.fft(x[x[:, 0] > 0]))), rtol=1e-11)
    apart = decompose(traced.lower(x).stages.function("traced"))
    np.testing.assert_allclose(evaluate(apart, [x])[0], traced(x), rtol=1e-11)
