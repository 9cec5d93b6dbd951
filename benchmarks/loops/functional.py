"""The programs without assignment, for JAX, PyTorch and autograd: loops are ``scan``, updates make new arrays.

``np``, ``scan`` and ``segment_sum`` are those of the library that runs them (`benchmarks.libraries`).
"""

from typing import Any

import numpy as np

scan = segment_sum = None


def total(x: Any) -> Any:
    return np.sum(x)


def pendulum_slope(z: Any) -> Any:
    a, b, v, w = z
    d = a - b
    sin, cos = np.sin(d), np.cos(d)
    below = 2.0 - cos * cos
    dv = (-w * w * sin - 2.0 * 9.81 * np.sin(a) - cos * (v * v * sin - 9.81 * np.sin(b))) / below
    dw = (2.0 * v * v * sin - 2.0 * 9.81 * np.sin(b) + cos * (w * w * sin + 2.0 * 9.81 * np.sin(a))) / below
    return np.array([v, w, dv, dw])


def double_pendulum(z: Any, steps: int) -> Any:
    h = 0.01

    def step(z: Any, _: None) -> Any:
        k1 = pendulum_slope(z)
        k2 = pendulum_slope(z + h / 2 * k1)
        k3 = pendulum_slope(z + h / 2 * k2)
        k4 = pendulum_slope(z + h * k3)
        return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return np.sum(scan(step, z, None, length=steps)[0] ** 2)


def adaptive(z: Any, mu: float, end: float) -> Any:
    """A scan of 1000 tries, more than are needed: after the end they change nothing."""

    def slope(z: Any) -> Any:
        return np.array([z[1], mu * (1.0 - z[0] * z[0]) * z[1] - z[0]])

    def attempt(state: Any, _: None) -> Any:
        z, k1, t, h0 = state
        going = t < end
        h = np.where(going, np.minimum(h0, end - t), 0.01)
        k2 = slope(z + h / 2 * k1)
        k3 = slope(z + 3 * h / 4 * k2)
        new = z + h / 9 * (2 * k1 + 3 * k2 + 4 * k3)
        k4 = slope(new)
        error = np.sqrt(np.sum((h * (-5 / 72 * k1 + k2 / 12 + k3 / 9 - k4 / 8)) ** 2)) + 1e-16
        taken = going & (error < 1e-6)
        z, k1, t = np.where(taken, new, z), np.where(taken, k4, k1), np.where(taken, t + h, t)
        after = h * np.minimum(5.0, np.maximum(0.2, 0.9 * (1e-6 / error) ** (1 / 3)))
        return (z, k1, t, np.where(going, after, h0)), None

    start = z, slope(z), np.array(0.0), np.array(0.01)
    return np.sum(scan(attempt, start, None, length=1000)[0][0] ** 2)


def kalman(theta: Any, seen: Any) -> Any:
    q, r = np.exp(theta[0]), np.exp(theta[1])
    move = np.array([[1.0, 0.0, 0.1, 0.0], [0.0, 1.0, 0.0, 0.1], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])

    def step(state: Any, z: Any) -> Any:
        m, p, total = state
        m = move @ m
        p = move @ p @ move.T + q * np.eye(4)
        s = p[:2, :2] + r * np.eye(2)
        det = s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0]
        inverse = np.array([[s[1, 1], -s[0, 1]], [-s[1, 0], s[0, 0]]]) / det
        v = z - m[:2]
        total -= 0.5 * (v @ inverse @ v + np.log(det))
        gain = p[:, :2] @ inverse
        return (m + gain @ v, p - gain @ p[:2, :], total), None

    return scan(step, (np.zeros(4), np.eye(4), 0.0), seen)[0][2]


def hidden_markov(logits: Any, emission: Any, seen: Any) -> Any:
    weight = np.exp(logits)
    move = weight / np.sum(weight, axis=1)[:, None]

    def step(state: Any, o: Any) -> Any:
        a, total = state
        a = (a @ move) * emission[:, o]
        s = np.sum(a)
        return (a / s, total + np.log(s)), None

    return scan(step, (np.ones(len(logits)) / len(logits), 0.0), seen)[0][1]


def soft_dtw(cost: Any) -> Any:
    m = cost.shape[1]

    def row(above: Any, costs: Any) -> Any:
        def cell(left: Any, x: Any) -> Any:
            a, b, d = x
            least = np.minimum(a, np.minimum(b, left))
            r = d + least - np.log(np.exp(least - a) + np.exp(least - b) + np.exp(least - left))
            return r, r

        _, r = scan(cell, 1e10, (above[:-1], above[1:], costs))
        return np.concatenate([np.array([1e10]), r]), None

    return scan(row, np.concatenate([np.array([0.0]), np.full(m, 1e10)]), cost)[0][m]


def gauss_seidel(f: Any, sweeps: int) -> Any:
    def sweep(u: Any, _: None) -> Any:
        def row(above: Any, x: Any) -> Any:
            here, below, g = x

            def cell(left: Any, x: Any) -> Any:
                up, down, right, g = x
                new = 0.25 * (up + down + left + right - g)
                return new, new

            _, inner = scan(cell, here[0], (above[1:-1], below[1:-1], here[2:], g[1:-1]))
            new = np.concatenate([here[:1], inner, here[-1:]])
            return new, new

        _, inner = scan(row, u[0], (u[1:-1], u[2:], f[1:-1]))
        return np.concatenate([u[:1], inner, u[-1:]]), None

    return np.sum(scan(sweep, np.zeros_like(f), None, length=sweeps)[0] ** 2)


def tridiagonal(b: Any, a: Any, c: Any, d: Any) -> Any:
    def forward(state: Any, x: Any) -> Any:
        p, q = state
        b, a, c, d = x
        m = 1.0 / (b - a * p)
        new = c * m, (d - a * q) * m
        return new, new

    def backward(x: Any, pq: Any) -> Any:
        new = pq[1] - pq[0] * x
        return new, new

    _, factors = scan(forward, (0.0, 0.0), (b, a, c, d))
    return np.sum(scan(backward, 0.0, factors, reverse=True)[1] ** 2)


def particles(x: Any, cut: float) -> Any:
    """All pairs at once, which is what these libraries are good at."""
    i, j = np.tril_indices(len(x), -1)
    d = np.sum((x[i] - x[j]) ** 2, axis=1)
    s = 1.0 / (d * d * d)
    return np.sum(np.where(d < cut * cut, 4.0 * (s * s - s), 0.0))


def lstm(weights: Any, x: Any) -> Any:
    w, v, bias = weights
    n = len(bias) // 4

    def step(state: Any, x: Any) -> Any:
        h, c, total = state
        gates = w @ x + v @ h + bias
        keep, take, give = (1.0 / (1.0 + np.exp(-gates[: 3 * n]))).reshape(3, n)
        c = keep * c + take * np.tanh(gates[3 * n :])
        h = give * np.tanh(c)
        return (h, c, total + np.sum(h**2)), None

    return scan(step, (np.zeros(n), np.zeros(n), 0.0), x)[0][2]


def sparse_product(values: Any, x: Any, columns: Any, starts: Any) -> Any:
    n = len(starts) - 1
    rows = np.searchsorted(starts, np.arange(len(values)), side="right") - 1
    return np.sum(segment_sum(values * x[columns], rows, n) ** 2)


def mandelbrot(centre: Any, width: float, points: int, limit: int) -> Any:
    """All points step together; those that have left stay where they are."""
    offset = width * (np.arange(points) / points - 0.5)
    re, im = centre[0] + offset[:, None], centre[1] + offset[None, :]
    start = re + 0.0 * im, im + 0.0 * re

    def step(z: Any, _: None) -> Any:
        x, y = z
        inside = x * x + y * y < 4.0
        return (np.where(inside, x * x - y * y + re, x), np.where(inside, 2.0 * x * y + im, y)), None

    x, y = scan(step, start, None, length=limit - 1)[0]
    d = x * x + y * y
    return np.sum(np.where(d >= 4.0, (d - 4.0) ** 2, 0.0))
