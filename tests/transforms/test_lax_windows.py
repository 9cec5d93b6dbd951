"""Convolutions, padding, reductions and products with the parameters of ``jax.lax``."""

import itertools

import numpy as np
import pytest

import dflow
from dflow import lax

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 5, 3))  # NHWC
K = RNG.normal(size=(2, 3, 3, 2))  # HWIO


def correlated(x, k, strides, apart):
    """Of NHWC and HWIO, by the definition."""
    reach = [d * (w - 1) + 1 for d, w in zip(apart, k.shape)]
    space = [(n - r) // s + 1 for n, r, s in zip(x.shape[1:3], reach, strides)]
    out = np.zeros((x.shape[0], *space, k.shape[3]))
    for i, j in np.ndindex(*space):
        for a, b in np.ndindex(*k.shape[:2]):
            out[:, i, j] += x[:, i * strides[0] + a * apart[0], j * strides[1] + b * apart[1]] @ k[a, b]
    return out


def spread(x, by):
    """Zeros between the elements of NHWC."""
    out = np.zeros((x.shape[0], *((n - 1) * d + 1 for n, d in zip(x.shape[1:3], by)), x.shape[3]))
    out[:, :: by[0], :: by[1]] = x
    return out


def test_convolution():
    def f(x, k):
        return lax.conv_general_dilated(
            x, k, (2, 1), ((1, 2), (-1, 3)), (1, 2), (2, 1), ("NHWC", "HWIO", "NCHW"), precision="highest"
        )

    padded = np.pad(spread(X, (1, 2)), ((0, 0), (1, 2), (0, 3), (0, 0)))[:, :, 1:]
    want = correlated(padded, K, (2, 1), (2, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(dflow.jit(f)(X, K), want, atol=1e-12)
    dflow.check_grads(f, (X, K), order=1)


def test_groups_and_names_of_axes():
    x, k = X.transpose(0, 3, 1, 2), K.transpose(3, 2, 0, 1)
    same = lax.conv(x, k, (1, 1), "SAME")
    want = correlated(np.pad(X, ((0, 0), (0, 1), (1, 1), (0, 0))), K, (1, 1), (1, 1))
    np.testing.assert_allclose(same, want.transpose(0, 3, 1, 2), atol=1e-12)
    in_groups = lax.conv_general_dilated(x, k, (1, 1), "VALID", batch_group_count=2)
    parts = [lax.conv_with_general_padding(x[g : g + 1], k[g : g + 1], (1, 1), [(0, 0)] * 2) for g in (0, 1)]
    np.testing.assert_allclose(in_groups, np.concatenate(parts, 1), atol=1e-12)
    for bad in (("NHWC", "HWIO", "NHW"), ("NHWC", "HWII", "NHWC")):
        with pytest.raises(ValueError, match="do not name the axes"):
            lax.conv_dimension_numbers(X.shape, K.shape, bad)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_transposed_convolution(padding):
    """The transpose of the strided convolution."""
    strides = (2, 1)

    def forward(y):
        return lax.conv_general_dilated(y, K, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    y = np.zeros((2, 8, 5, 3))
    out = forward(y)
    bar = RNG.normal(size=out.shape)
    want = dflow.vjp(forward, y)[1](bar)[0]
    found = lax.conv_transpose(bar, K, strides, padding, transpose_kernel=True)
    np.testing.assert_allclose(found, want, atol=1e-12)


def test_padding():
    found = lax.pad(X[0, 0, :, :2], 7.0, [(1, -1, 1), (-1, 2, 0)])
    want = np.full((9, 4), 7.0)
    want[1::2, :2] = X[0, 0, :4, :2]
    np.testing.assert_array_equal(found[:, :1], want[:, 1:2])
    assert found.shape == (9, 3) and np.all(found[:, 1:] == 7.0)
    dflow.check_grads(lambda x, v: lax.pad(x, v, [(1, -1, 1), (-1, 2, 0)]), (X[0, 0], 7.0))


def windows(x, size, strides):
    counts = [(n - w) // s + 1 for n, w, s in zip(x.shape, size, strides)]
    for at in itertools.product(*map(range, counts)):
        yield at, x[tuple(slice(i * s, i * s + w) for i, s, w in zip(at, strides, size))]


def test_windows():
    x = X[0, :, :, 0]
    found = dflow.jit(lambda x: lax.reduce_window(x, -np.inf, lax.max, (2, 3), (1, 2), ((1, 0), (0, 0))))(x)
    padded = np.pad(x, ((1, 0), (0, 0)), constant_values=-np.inf)
    for at, part in windows(padded, (2, 3), (1, 2)):
        assert found[at] == part.max()

    two = lax.reduce_window((x, -x), (0.0, 0.0), lambda a, b: (a[0] + b[0], a[1] + b[1]), (2, 2))
    np.testing.assert_allclose(two[0], -two[1])

    def f(x):
        return lax.reduce_window(x, 1.0, lambda a, b: a * b, (2, 2), None, "SAME", window_dilation=(2, 1))

    dflow.check_grads(f, (x,))
    np.testing.assert_allclose(f(x)[1, 0], x[0, 0] * x[0, 1] * x[2, 0] * x[2, 1])


def test_reductions():
    np.testing.assert_allclose(lax.reduce(X, 0.5, lax.add, (1, 3)), X.sum((1, 3)) + 0.5)
    assert lax.reduce(np.arange(6, dtype=np.int32), 1, lax.max, (0,)).dtype == np.int32

    def first_largest(a, b):
        (x, i), (y, j) = a, b
        later = y > x
        return np.where(later, y, x), np.where(later, j, i)

    def f(x):
        return lax.reduce((x, lax.broadcasted_iota(np.int64, x.shape, 1)), (-np.inf, -1), first_largest, (1,))

    value, place = dflow.jit(f)(X[0, 0])
    np.testing.assert_array_equal(value, X[0, 0].max(1))
    np.testing.assert_array_equal(place, lax.argmax(X[0, 0], 1, np.int64))
    dflow.check_grads(lambda x: lax.reduce(x, 0.5, lambda a, b: a * b + a + b, (0,)), (X[0, 0],))


def test_products():
    x, y = X[0], RNG.normal(size=(5, 2, 3, 4))
    found = lax.dot_general(x, y, (((2,), (2,)), ((1, 0), (0, 3))))
    np.testing.assert_allclose(found, np.einsum("abc,bdca->bad", x, y), atol=1e-12)
    assert lax.dot_general(x, x.astype(np.float32), (((0,), (0,)), ((), ())), None, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="different sizes"):
        lax.dot_general(x, y, (((2,), (1,)), ((), ())))


def test_parts_and_bits():
    a, b = lax.split(X, (1, 3), axis=1)
    np.testing.assert_array_equal(np.concatenate([a, b], 1), X)
    np.testing.assert_array_equal(lax.bitcast_convert_type(X, np.int64), X.view(np.int64))
    np.testing.assert_allclose(lax.fft(X, "RFFT", (3,)), np.fft.rfft(X), atol=1e-12)
    np.testing.assert_array_equal(lax.tile(X[0, 0, 0], (2,)), np.tile(X[0, 0, 0], 2))
