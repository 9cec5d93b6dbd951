"""Activations, convolution and pooling against what defines them, and their derivatives."""

import math

import numpy as np
import pytest

import dflow
import dflow.nn as nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4)) * 3
SMOOTH = {
    "sigmoid": (nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "log_sigmoid": (nn.log_sigmoid, lambda x: -np.log1p(np.exp(-x))),
    "softplus": (nn.softplus, lambda x: np.log1p(np.exp(x))),
    "silu": (nn.silu, lambda x: x / (1 + np.exp(-x))),
    "gelu": (lambda x: nn.gelu(x, False), np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))))),
    "elu": (nn.elu, lambda x: np.where(x > 0, x, np.expm1(x))),
    "leaky_relu": (nn.leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x)),
    "celu": (lambda x: nn.celu(x, 2.0), lambda x: np.where(x > 0, x, 2 * np.expm1(x / 2))),
    "selu": (nn.selu, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
    "mish": (nn.mish, lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "soft_sign": (nn.soft_sign, lambda x: x / (1 + np.abs(x))),
    "squareplus": (nn.squareplus, lambda x: (x + np.sqrt(x * x + 4)) / 2),
    "hard_tanh": (nn.hard_tanh, lambda x: np.clip(x, -1, 1)),
    "relu6": (nn.relu6, lambda x: np.clip(x, 0, 6)),
    "hard_silu": (nn.hard_silu, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "glu with itself": (lambda x: nn.glu(np.concatenate([x, x], -1)), lambda x: x / (1 + np.exp(-x))),
    "standardize": (
        lambda x: nn.standardize(x, 0),
        lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5),
    ),
    "relu": (nn.relu, lambda x: np.maximum(x, 0)),
    "softmax": (nn.softmax, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    "log_softmax": (nn.log_softmax, lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_activation(name):
    f, plain = SMOOTH[name]
    np.testing.assert_allclose(f(X), plain(X), rtol=1e-12)
    weights, h = RNG.normal(size=X.shape), 1e-6
    steps = h * np.eye(X.size).reshape(-1, *X.shape)
    numeric = [np.sum(weights * (plain(X + e) - plain(X - e))) / (2 * h) for e in steps]
    got = dflow.grad(lambda x: np.sum(weights * f(x)))(X)
    np.testing.assert_allclose(got.ravel(), numeric, rtol=1e-6, atol=1e-7)


def test_smooth_functions_are_smooth_where_their_formulas_change():
    """In particular at 0, where parameters start."""
    zero = np.zeros(2)
    for f in (nn.sigmoid, nn.silu, nn.softplus, nn.log_sigmoid, nn.gelu, nn.mish, np.tanh, np.i0):
        dflow.check_grads(f, (zero,), order=2)
    assert dflow.grad(nn.sigmoid)(0.0) == 0.25 and dflow.grad(dflow.grad(nn.silu))(0.0) == 0.5
    slope = dflow.vmap(dflow.grad(nn.sparse_plus))(np.array([-1.5, -1.0, 0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(slope, [0.0, 0.0, 0.5, 1.0, 1.0])
    assert np.isnan(dflow.jit(nn.sparse_plus)(np.nan))


def test_gelu_by_tanh_is_close():
    np.testing.assert_allclose(nn.gelu(X), nn.gelu(X, False), atol=1e-3)


def test_large_arguments():
    x = np.array([-1e4, 1e4])
    np.testing.assert_array_equal(nn.sigmoid(x), [0.0, 1.0])
    np.testing.assert_array_equal(nn.softplus(x), [0.0, 1e4])
    np.testing.assert_array_equal(nn.softmax(x), [0.0, 1.0])
    np.testing.assert_array_equal(dflow.grad(lambda x: np.sum(nn.elu(x)))(x), [0.0, 1.0])


def test_one_hot():
    np.testing.assert_array_equal(nn.one_hot(np.array([1, 0, 5]), 3), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert nn.one_hot(np.array([[1, 0]]), 3, dtype=np.float32, axis=0).shape == (3, 1, 2)


def direct(x, k, strides, widths, dilation=(1, 1)):
    x = np.pad(x, [(0, 0), (0, 0), *widths])
    sizes = [(n - d * (w - 1) - 1) // s + 1 for n, w, s, d in zip(x.shape[2:], k.shape[2:], strides, dilation)]
    out = np.zeros((x.shape[0], k.shape[0], *sizes))
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            rows = i * strides[0] + dilation[0] * np.arange(k.shape[2])
            columns = j * strides[1] + dilation[1] * np.arange(k.shape[3])
            out[:, :, i, j] = np.einsum("ncab,ocab->no", x[:, :, rows[:, None], columns], k)
    return out


@pytest.mark.parametrize(
    "strides, padding, widths, dilation",
    [
        (1, "VALID", [(0, 0), (0, 0)], 1),
        (2, "SAME", [(0, 1), (1, 1)], 1),
        ((1, 2), 1, [(1, 1), (1, 1)], 1),
        (1, [(2, 0), (0, 1)], [(2, 0), (0, 1)], 2),
    ],
)
def test_conv(strides, padding, widths, dilation):
    x, k = RNG.normal(size=(2, 3, 6, 7)), RNG.normal(size=(4, 3, 3, 3))
    both = (strides, strides) if isinstance(strides, int) else strides
    wanted = direct(x, k, both, widths, (dilation, dilation))
    np.testing.assert_allclose(nn.conv(x, k, strides, padding, dilation), wanted, rtol=1e-11, atol=1e-12)


def test_conv_in_groups_and_its_derivative():
    x, k = RNG.normal(size=(1, 4, 5)), RNG.normal(size=(6, 2, 3))
    parts = [nn.conv(x[:, :2], k[:3]), nn.conv(x[:, 2:], k[3:])]
    np.testing.assert_allclose(nn.conv(x, k, feature_group_count=2), np.concatenate(parts, 1))
    dflow.check_grads(lambda x, k: np.sum(np.sin(nn.conv(x, k, feature_group_count=2))), (x, k))


def test_pooling():
    x = RNG.normal(size=(2, 3, 4, 6))
    blocks = x.reshape(2, 3, 2, 2, 3, 2)
    np.testing.assert_array_equal(nn.max_pool(x, 2), blocks.max((3, 5)))
    np.testing.assert_allclose(nn.avg_pool(x, (2, 2)), blocks.mean((3, 5)))
    ones = np.ones((1, 1, 3, 3))
    np.testing.assert_array_equal(nn.avg_pool(ones, 3, 1, "SAME"), ones)
    np.testing.assert_array_equal(nn.max_pool(-ones, 3, 1, "SAME"), -ones)


def test_errors_tell():
    with pytest.raises(ValueError, match="does not fit"):
        nn.max_pool(np.ones((1, 1, 2, 2)), 3)
    with pytest.raises(ValueError, match="channels do not fit"):
        nn.conv(np.ones((1, 2, 4)), np.ones((1, 3, 2)))


def test_parts_of_rows():
    x, some = np.array([[1.0, 2.0, 3.0], [0.0, 5.0, 1.0]]), np.array([[True, False, True], [False, False, False]])
    e = np.exp([1.0, 3.0]) / np.exp([1.0, 3.0]).sum()
    np.testing.assert_allclose(nn.softmax(x, where=some), [[e[0], 0, e[1]], [0, 0, 0]])
    np.testing.assert_allclose(nn.log_softmax(x, where=some)[0, [0, 2]], np.log(e))
    assert np.isneginf(nn.log_softmax(x, where=some)).sum() == 4
    slope = e[0] * e[1]
    gradient = dflow.grad(lambda x: nn.softmax(x, where=some)[0, 0])(x)
    np.testing.assert_allclose(gradient, [[slope, 0, -slope], [0, 0, 0]], rtol=1e-12)
    gradient = dflow.grad(lambda x: nn.log_softmax(x, where=some)[0, 0])(x)
    np.testing.assert_allclose(gradient, [[e[1], 0, -e[1]], [0, 0, 0]], rtol=1e-12)
    np.testing.assert_allclose(
        nn.standardize(x, where=some[0]), (x - x[:, ::2].mean(1)[:, None]) / np.sqrt([[1 + 1e-5], [0.25 + 1e-5]])
    )
    assert nn.softmax(np.zeros((2, 0))).shape == nn.log_softmax(np.zeros((2, 0))).shape == (2, 0)
