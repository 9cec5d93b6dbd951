"""Small numerical programs as people write them."""

import math
from typing import NamedTuple

import numpy as np
import pytest

RNG = np.random.default_rng(0)


def floyd_warshall(path):
    n = len(path)
    for k in range(n):
        path[:] = np.minimum(path[:], np.add.outer(path[:, k], path[k, :]))


def jacobi_2d(a, b):
    for _ in range(1, 9):
        b[1:-1, 1:-1] = 0.2 * (a[1:-1, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:] + a[2:, 1:-1] + a[:-2, 1:-1])
        a[1:-1, 1:-1] = 0.2 * (b[1:-1, 1:-1] + b[1:-1, :-2] + b[1:-1, 2:] + b[2:, 1:-1] + b[:-2, 1:-1])


def matrix_product(a, b):
    n, m = a.shape
    c = np.zeros((n, b.shape[1]))
    for i in range(n):
        for j in range(b.shape[1]):
            acc = 0.0
            for k in range(m):
                acc += a[i, k] * b[k, j]
            c[i, j] = acc
    return c


def n_body(pos, vel):
    n = len(pos)
    for _ in range(6):
        for i in range(n):
            force = np.zeros(2)
            for j in range(n):
                if i != j:
                    d = pos[j] - pos[i]
                    r2 = d[0] ** 2 + d[1] ** 2 + 0.1
                    force += d / (r2 * math.sqrt(r2))
            vel[i] += 0.01 * force
        pos += 0.01 * vel
    return pos


def mandelbrot(c):
    counts = np.zeros(len(c), dtype=np.int64)
    for i in range(len(c)):
        x = y = 0.0
        n = 0
        while x * x + y * y < 4 and n < 50:
            x, y = x * x - y * y + c[i, 0], 2 * x * y + c[i, 1]
            n += 1
        counts[i] = n
    return counts


def bisection(lo, hi):
    f = lambda x: x**3 - 2 * x - 5  # noqa: E731
    for _ in range(60):
        mid = (lo + hi) / 2
        if f(lo) * f(mid) <= 0:
            hi = mid
        else:
            lo = mid
        if hi - lo < 1e-12:
            break
    return (lo + hi) / 2


def runge_kutta(y):
    def rhs(t, y):
        return np.array([y[1], -math.sin(y[0]) - 0.1 * t])

    t, h = 0.0, 0.05
    while t < 1.0:
        k1 = rhs(t, y)
        k2 = rhs(t + h / 2, y + h / 2 * k1)
        k3 = rhs(t + h / 2, y + h / 2 * k2)
        k4 = rhs(t + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        t += h
    return y, t


class Layer(NamedTuple):
    w: np.ndarray
    b: np.ndarray


def network(x, w1, w2):
    layers = [Layer(w1, np.zeros(4)), Layer(w2, np.ones(2))]
    for k, layer in enumerate(layers):
        x = x @ layer.w + layer.b
        if k < len(layers) - 1:
            x = np.tanh(x)
    return np.sum(x**2)


def insertion_sort(x):
    y = x.copy()
    for i in range(1, len(y)):
        v = y[i]
        j = i - 1
        while j >= 0 and y[j] > v:
            y[j + 1] = y[j]
            j -= 1
        y[j + 1] = v
    return y


def game_of_life(grid):
    n, m = grid.shape
    out = np.zeros_like(grid)
    for i in range(n):
        for j in range(m):
            alive = 0
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    if di == 0 and dj == 0:
                        continue
                    alive += grid[(i + di) % n, (j + dj) % m]
            if (grid[i, j] == 1 and (alive == 2 or alive == 3)) or (grid[i, j] == 0 and alive == 3):
                out[i, j] = 1
    return out


def sieve(x):
    prime = np.ones(30, dtype=bool)
    prime[:2] = False
    for i in range(2, 6):
        if prime[i]:
            for j in range(i * i, 30, i):
                prime[j] = False
    return prime, x


def power_iteration(a):
    v = np.ones(a.shape[0])
    old = 0.0
    for k in range(100):
        w = a @ v
        size = math.sqrt(np.sum(w * w))
        v = w / size
        if abs(size - old) < 1e-10:
            return size, k
        old = size
    return old, 100


def running_maximum(x):
    best, where = -math.inf, -1
    for i, v in enumerate(x):
        if v > best:
            best, where = v, i
    return best, where


def gauss(a, b):
    a, b = a.copy(), b.copy()
    n = len(b)
    for k in range(n):
        for i in range(k + 1, n):
            f = a[i, k] / a[k, k]
            a[i] -= f * a[k]
            b[i] -= f * b[k]
    x = np.zeros(n)
    for i in reversed(range(n)):
        s = b[i]
        for j in range(i + 1, n):
            s -= a[i, j] * x[j]
        x[i] = s / a[i, i]
    return x


def binary_search(x, v):
    lo, hi = 0, len(x)
    while lo < hi:
        mid = (lo + hi) // 2
        if x[mid] < v:
            lo = mid + 1
        else:
            hi = mid
    return lo


def gcd(a, b):
    while b:
        a, b = b, a % b
    return a


def momentum(w):
    state = {"w": w, "m": np.zeros_like(w)}
    for step in range(20):
        g = 2 * state["w"] - 1
        m = 0.9 * state["m"] + g
        state = {"w": state["w"] - 0.1 * m / (1 + step), "m": m}
    return state


def momentum_in_place(w):
    m = [np.zeros(3), np.zeros(3)]
    p = [w.copy(), w * 2]
    for _ in range(20):
        for k in range(2):
            m[k] *= 0.9
            m[k] += 2 * p[k] - 1
            p[k] -= 0.1 * m[k]
    return p


SPD = np.eye(4) * 4 + RNG.normal(size=(4, 4)) * 0.3
CASES = [
    (floyd_warshall, RNG.uniform(1, 9, (6, 6))),
    (jacobi_2d, RNG.normal(size=(6, 6)), RNG.normal(size=(6, 6))),
    (matrix_product, RNG.normal(size=(5, 6)), RNG.normal(size=(6, 7))),
    (n_body, RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2))),
    (mandelbrot, RNG.uniform(-1, 0.5, (6, 2))),
    (bisection, 1.0, 3.0),
    (runge_kutta, np.array([1.0, 0.0])),
    (network, RNG.normal(size=(5, 3)), RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))),
    (insertion_sort, RNG.normal(size=8)),
    (game_of_life, RNG.integers(0, 2, (6, 6))),
    (sieve, np.ones(2)),
    (power_iteration, SPD),
    (running_maximum, RNG.normal(size=9)),
    (gauss, SPD, np.arange(4.0)),
    (binary_search, np.arange(9.0), 4.5),
    (gcd, 84, 36),
    (momentum, np.array([1.0, 2.0, 3.0])),
    (momentum_in_place, np.array([1.0, 2.0, 3.0])),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0].__name__)
def test_program(check, case):
    check(*case)
