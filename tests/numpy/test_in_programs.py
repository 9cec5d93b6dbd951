"""NumPy and math as users write them, in functions whose source is rewritten."""

import math

import numpy as np
import pytest
from traced_numpy import flatten

from dflow.ir.evaluator import evaluate
from dflow.ir.types import type_of_array
from dflow.ir.verifier import verify
from dflow.tracing.trace import ArgSpec, trace


def check(f, *args):
    specs = [ArgSpec(type_of_array(a), isinstance(a, int | float)) for a in args]
    function = trace(f, specs).function
    verify(function)
    results = evaluate(function, [np.array(a) for a in args])
    wanted = flatten(f(*(a.copy() if isinstance(a, np.ndarray) else a for a in args)))
    for g, w in zip(results, wanted):
        assert (g.dtype, g.shape) == (np.asarray(w).dtype, np.shape(w))
        np.testing.assert_allclose(g, w, rtol=1e-12)


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def jacobi(a, b):
    for _ in range(20):
        b[1:-1, 1:-1] = 0.2 * (a[1:-1, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:] + a[2:, 1:-1] + a[:-2, 1:-1])
        a[1:-1, 1:-1] = b[1:-1, 1:-1]
    return a


def cholesky(a):
    n = a.shape[0]
    l = np.zeros_like(a)
    for i in range(n):
        for j in range(i + 1):
            total = a[i, j]
            for k in range(j):
                total -= l[i, k] * l[j, k]
            if i == j:
                l[i, j] = math.sqrt(total)
            else:
                l[i, j] = total / l[j, j]
    return l


def rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]]) @ np.array([1.0, 2.0])


def newton(x):
    y = x
    while abs(y * y - x) > 1e-12:
        y = 0.5 * (y + x / y)
    return y


def kinetic(mass, velocity):
    return 0.5 * np.sum(mass * np.linalg.norm(velocity, axis=1) ** 2)


def histogram(x):
    counts = np.zeros(4)
    np.add.at(counts, np.floor(x).astype(int), 1.0)
    return counts / counts.sum()


def attention(q, k, v):
    return softmax(np.einsum("qd,kd->qk", q, k) / math.sqrt(q.shape[-1])) @ v


def layers(x, w):
    h = x
    for i in range(3):
        h = np.tanh(h @ w[i])
    mean = h.mean(axis=0)
    return (h - mean) / np.sqrt(np.var(h, axis=0) + 1e-5)


def listed(x):
    parts = [x[i] ** 2 for i in range(3)]
    return np.stack(parts), np.array(parts), np.sum(parts), np.max(np.array([x[0], 1.5]))


def outputs(x):
    y = np.empty(3)
    np.multiply(x, 2.0, out=y)
    np.clip(y, 0.0, 3.0, out=y)
    y[0] = math.hypot(x[0], 3.0)
    np.add(y, 1.0, out=y, where=x > 1.0)
    return y


def half(x):
    return math.sin(0.5) * x, math.sqrt(4.0) + np.float32(2) * x


RNG = np.random.default_rng(1)
M = RNG.normal(size=(5, 3))


@pytest.mark.parametrize(
    "f, args",
    [
        (softmax, (M,)),
        (jacobi, (RNG.normal(size=(6, 6)), np.zeros((6, 6)))),
        (cholesky, (M.T @ M + np.eye(3),)),
        (rotation, (0.7,)),
        (newton, (2.0,)),
        (kinetic, (RNG.random(5), M)),
        (histogram, (np.array([0.5, 1.5, 1.7, 3.9]),)),
        (attention, (M, M[:4], M[:4] * 2)),
        (layers, (M, RNG.normal(size=(3, 3, 3)))),
        (listed, (np.array([1.0, 2.0, 3.0]),)),
        (outputs, (np.array([1.0, 2.0, -3.0]),)),
        (half, (np.ones(2, "f4"),)),
    ],
    ids=lambda p: getattr(p, "__name__", ""),
)
def test_program(f, args):
    check(f, *args)
