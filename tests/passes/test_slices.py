"""Loops over elements that become operations on slices: values, derivatives, and loops that stay."""

from __future__ import annotations

import numpy as np
import pytest

import dflow
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function

N = 40


def shifted(x, y):
    z = np.empty_like(y)
    z[0] = x[0]
    for i in range(1, len(y)):
        z[i] = x[i] * y[i - 1]
    return z


def step(x, y):
    k = shifted(x, y)
    return y + 0.1 * (k + 2 * shifted(x, y + 0.5 * k))


def both_ends(x, y):
    z, w = np.empty(N), np.empty(N)
    z[0], z[N - 1], w[N - 1] = x[1], y[2], 3.0
    for i in range(1, N - 1):
        z[i] = np.sin(x[i]) * i + max(y[i + 1], 0.0)
    for i in range(N - 1):
        w[i] = np.sin(x[i]) + z[i + 1]
    return z * w + x


def rows(x, y):
    table = np.outer(x, y)
    out = 2 * table[3]
    for i in range(N - 2):
        out[i + 1] += table[5, i] * table[i, 7] * x[i + 2]
    return out * y


def added(x, y):
    """Adds to one array in turn, as derivatives do."""
    u, total = x * y, 3 * x
    for i in range(1, N):
        total[i] += u[i - 1]
    v = u * u
    for i in range(1, N):
        total[i] += v[i - 1] * u[i]
    return total


def of_integers(x, y):
    a = np.arange(N) * 3
    z = np.empty(N, dtype=np.int64)
    for i in range(N):
        z[i] = a[i] * i - int(x[i] * 10)
    return z // 2


def next_to_each_other(x, y):
    """Forces between neighbours, in place."""
    force = 0.1 * y
    for i in range(N - 1):
        d = x[i + 1] - x[i]
        force[i] += d * d * y[3]
        force[i + 1] -= d * d * y[3]
    return force


def ahead(x, y):
    """What is read is written only later."""
    u = x.copy()
    for i in range(N - 2):
        u[i + 1] = u[i + 1] + y[i] * u[i + 2]
    return u * u


def matrices(x, y):
    a, b, c = np.outer(x, y), np.zeros((N, N)), np.ones((N, N))
    for i in range(1, N - 1):
        s = y[i] * 2
        for j in range(2, N):
            b[i, j] = a[i - 1, j] * a[i, j - 2] + s * x[j] * i
    for j in range(N):
        for i in range(N - 1):
            c[i + 1, j] -= b[j, i] * y[j]
    for i in range(3):
        for j in range(N):
            c[2 * i, j] = x[j] * i
    return b + c


PROGRAMS = [step, both_ends, rows, added, of_integers, next_to_each_other, ahead, matrices]


def sample():
    rng = np.random.default_rng(5)
    return rng.normal(size=N), rng.normal(size=N)


def optimized(f, *args):
    return parse_function(dflow.jit(f).lower(*args).ir("optimized"))


def loops(f):
    return sum(op.name in ("for", "while") for op in walk(f.body))


@pytest.mark.parametrize("f", PROGRAMS)
def test_values_and_derivatives(f):
    """Nothing is left of the loops, and all stages agree with Python."""
    args = sample()
    program = optimized(f, *args)
    assert not loops(program)
    wanted = f(*args)
    np.testing.assert_allclose(evaluate(program, args)[0], wanted, rtol=1e-13)
    np.testing.assert_allclose(dflow.jit(f)(*args), wanted, rtol=1e-13)
    if f is not of_integers:
        weights = np.cos(np.arange(wanted.size)).reshape(wanted.shape)
        dots = np.sin(args[1]), np.cos(args[0])
        bars = dflow.grad(lambda x, y: np.sum(weights * f(x, y)), argnums=(0, 1))(*args)
        _, slope = dflow.jvp(f, args, dots)
        assert np.isclose(sum(np.sum(b * d) for b, d in zip(bars, dots)), np.sum(weights * slope), rtol=1e-11)
        near = [f(*(a + eps * d for a, d in zip(args, dots))) for eps in (1e-6, -1e-6)]
        np.testing.assert_allclose(slope, (near[0] - near[1]) / 2e-6, rtol=1e-4, atol=1e-6)


def recurrence(x, y):
    z = 2 * x
    for i in range(1, N):
        z[i] = z[i - 1] * y[i]
    return z + y


def read_after(x, y):
    z, w = 2 * x, np.zeros(N)
    for i in range(N - 1):
        z[i + 1] = x[i] * y[i]
        w[i] = z[i] + z[i + 1]
    return z + w


def backwards_in_place(x, y):
    z = 2 * x
    for i in range(N - 2, -1, -1):
        z[i] += z[i + 1] * y[i]
    return z


def to_one_place(x, y):
    z = 2 * x
    for i in range(N):
        z[3] = x[i]
        z[5] += x[i] * y[i]
    return z


def others(x, y):
    """Rows that depend on each other, though what is in a row does not."""
    z = np.outer(x, y)
    for i in range(1, N):
        for j in range(N):
            z[i, j] = 0.5 * z[i - 1, j] + x[j]
    return z


def few_rounds(x, y):
    z, w = np.empty(20), 2 * y
    for i in range(20):
        z[i] = w[i]
    return z + y[:20]


def checked(x, y):
    """A loop that may fail."""
    z = np.zeros(N)
    for i in range(N):
        z[i] = x[int(y[0] * 1e-9) + i]
    return z


@pytest.mark.parametrize("f", [recurrence, read_after, backwards_in_place, to_one_place, others, few_rounds, checked])
def test_loops_that_stay(f):
    args = sample()
    assert loops(optimized(f, *args)) == 1
    np.testing.assert_allclose(dflow.jit(f)(*args), f(*args), rtol=1e-13)


@pytest.mark.parametrize("edge", [0, N - 1])
def test_one_element_that_is_left_is_no_array_to_copy(edge):
    """It would leave the loop around, and each round would begin with it."""

    def f(x, n):
        y = x * 0.5
        for _ in range(n):
            z = np.empty_like(x)
            z[edge] = x[1]
            for i in range(N - 1):
                z[i + (edge == 0)] = x[i] * y[i]
            y = y + z
        return y

    (x, _), compiled = sample(), dflow.jit(f)
    np.testing.assert_allclose(compiled(x, 3), f(x, 3), rtol=1e-13)
    rounds = compiled.lower(x, 3).ir("lowered").split(" = for ")[1]
    assert " update " not in rounds
    assert rounds.count(" copy ") == 1  # of the state


def test_second_derivatives():
    args, dot = sample(), np.cos(np.arange(N))

    def loss(x, y):
        return np.sum(next_to_each_other(ahead(x, y), y) ** 2)

    gradient = dflow.grad(loss)
    got, _ = dflow.hvp(loss, args, (dot, np.zeros(N)))
    want = (gradient(args[0] + 1e-5 * dot, args[1]) - gradient(args[0] - 1e-5 * dot, args[1])) / 2e-5
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.max(np.abs(want)))


def test_what_stands_between_zeros_is_computed_again():
    """A step that is padded costs less than to be kept: one state is, for each round."""

    def f(u, n):
        for _ in range(n):
            k = np.zeros(N)
            k[1:-1] = u[1:-1] * (u[2:] - u[:-2])
            w = u + 0.05 * k
            k = np.zeros(N)
            for i in range(1, N - 1):
                k[i] = w[i] * (w[i + 1] - w[i - 1])
            u = u + 0.1 * k
        return np.sum(u * u)

    x, dot = sample()
    gradient = dflow.grad(f)
    program = parse_function(gradient.lower(x, 3).ir("optimized"))
    assert sum(op.name == "tape" for op in walk(program.body)) == 1
    near = [f(x + eps * dot, 3) for eps in (1e-6, -1e-6)]
    assert np.isclose(gradient(x, 3) @ dot, (near[0] - near[1]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("rest", [slice(1, None), slice(None, -1)])
def test_the_cotangent_of_the_one_element_that_is_left_is_read(rest):
    def f(a, w):
        y = np.full(50, a)
        y[rest] = w[rest] * 2
        return np.sum(y * w * np.sin(y))

    a, w = 0.7, np.linspace(0.1, 1, 50)
    assert "reduce" not in dflow.grad(f).lower(a, w).ir("optimized")
    np.testing.assert_allclose(dflow.grad(f)(a, w), (f(a + 1e-6, w) - f(a - 1e-6, w)) / 2e-6, rtol=1e-6)
