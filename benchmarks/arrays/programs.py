"""Operations of whole arrays, on functions written once: for NumPy, and for all that come with a NumPy of their own."""

import numpy as np


def chain(x, y, z):
    """Seven operations for each 32 bytes: bound by memory."""
    return (x * 2.0 + y) * z - x * y + (z - 1.0)


def copy(x):
    return x + 0.0


def transcendental(x):
    """Bound by arithmetic."""
    return np.exp(-(np.sin(x) ** 2)) * np.tanh(x) + np.log(1.0 + x * x)


def sum_all(x):
    return np.sum(x * x)


def sum_first(x):
    return np.sum(x * x, axis=0)


def sum_middle(x):
    return np.sum(x * x, axis=1)


def sum_last(x):
    return np.sum(x * x, axis=2)


def softmax(x):
    e = np.exp(x - np.max(x, axis=1)[:, None])
    return e / np.sum(e, axis=1)[:, None]


def layer_norm(x, scale, shift):
    centred = x - np.mean(x, axis=1)[:, None]
    return centred / np.sqrt(np.mean(centred**2, axis=1) + 1e-5)[:, None] * scale + shift


def stencil(u):
    return u[1:-1, 1:-1] + 0.1 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:] - 4.0 * u[1:-1, 1:-1])


def transposed(x):
    return x.T + x


def gather(x, i):
    return x[i] * 2.0


def monte_carlo(shocks):
    """The price of an Asian option: the mean of a path in ten steps."""
    price, total = np.ones_like(shocks[0]), np.zeros_like(shocks[0])
    for k in range(10):
        price = price * np.exp(-0.005 + 0.1 * shocks[k])
        total = total + price
    return np.mean(np.maximum(total / 10.0 - 1.0, 0.0))


def product(a, b):
    return a @ b


def attention(q, k, v):
    """Of one head: ``q``, ``k``, ``v`` are [positions, channels]."""
    scores = q @ k.T / 8.0
    e = np.exp(scores - np.max(scores, axis=1)[:, None])
    return (e / np.sum(e, axis=1)[:, None]) @ v


def filtered(x, w):
    """The correlation of a picture with a small one, without its border."""
    n, m = x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1
    total = x[:n, :m] * w[0, 0]
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            if i + j > 0:
                total = total + x[i : i + n, j : j + m] * w[i, j]
    return total


def convolution(x, w):
    """A layer: ``x`` [channels, height, width], ``w`` [3, 3, channels out, channels in]."""
    n, m = x.shape[1] - 2, x.shape[2] - 2
    total = np.zeros((w.shape[2], n * m))
    for i in range(3):
        for j in range(3):
            total = total + w[i, j] @ x[:, i : i + n, j : j + m].reshape(-1, n * m)
    return total


def products(a, b):
    return a @ b


def solutions(a, b):
    return np.linalg.solve(a, b)


def determinants(a):
    return np.linalg.det(a)


def gaussian_elimination(a, b):
    """Of systems of three equations, [3, 3, systems] and [3, systems], without pivots."""
    m = a[1, 0] / a[0, 0]
    c11, c12, c1 = a[1, 1] - m * a[0, 1], a[1, 2] - m * a[0, 2], b[1] - m * b[0]
    m = a[2, 0] / a[0, 0]
    c21, c22, c2 = a[2, 1] - m * a[0, 1], a[2, 2] - m * a[0, 2], b[2] - m * b[0]
    m = c21 / c11
    z = (c2 - m * c1) / (c22 - m * c12)
    y = (c1 - c12 * z) / c11
    x = (b[0] - a[0, 1] * y - a[0, 2] * z) / a[0, 0]
    return x + y + z
