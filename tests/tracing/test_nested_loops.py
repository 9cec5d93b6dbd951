"""Nests of loops: what the tracing of one has found out serves the next time that it is met."""

import numpy as np
import pytest

import dflow
from dflow.tracing.control.traced_loop import TracedLoop


def scaled(x, factor, n):
    total = 0
    for i in range(n):
        total += factor * x[i]
    return total


@pytest.fixture
def attempts(monkeypatch):
    seen = []
    attempt = TracedLoop.attempt
    monkeypatch.setattr(TracedLoop, "attempt", lambda self: (seen.append(self), attempt(self))[1])
    return seen


def deep(x):
    total = 0
    for i in range(6):
        for j in range(6):
            for k in range(6):
                for m in range(6):
                    total += x[i] * x[j] * x[k] * x[m]
    return total


def test_attempts_do_not_multiply(attempts):
    x = np.linspace(0.1, 0.6, 6)
    compiled = dflow.jit(deep)
    compiled.lower(x)
    assert len(attempts) <= 14  # by two at each level, one inside the other: 30
    assert compiled(x) == pytest.approx(deep(x))
    assert np.allclose(dflow.grad(deep)(x), 4 * x.sum() ** 3)


def test_calls_of_one_function_share_what_was_found_out(attempts):
    x = np.arange(6.0)
    dflow.jit(lambda x: scaled(x, 1.0, 6) + scaled(2.0 * x, 3.0, 6)).lower(x)
    assert len(attempts) == 4  # other numbers are another state
    attempts.clear()
    dflow.jit(lambda x: scaled(x, 1.0, 6) + scaled(2.0 * x, 1.0, 6)).lower(x)
    assert len(attempts) == 3


def test_each_call_has_its_own_types():
    @dflow.jit
    def f(x, k):
        return scaled(x, 2, 5), scaled(k, 2, 5), scaled(x, k[0], 5), scaled(x.astype(np.float32), 2, 5)

    x, k = np.linspace(0.0, 1.0, 5), np.arange(5)
    got = f(x, k)
    wanted = (scaled(x, 2, 5), scaled(k, 2, 5), scaled(x, k[0], 5), scaled(x.astype(np.float32), 2, 5))
    assert [np.asarray(v).dtype for v in got] == [np.asarray(v).dtype for v in wanted]
    assert got == pytest.approx(wanted)


def test_functions_with_closures():
    def power(p):
        def apply(x, n):
            y = 1
            for _ in range(n):
                y = y * x if p else y + x
            return y

        return apply

    @dflow.jit
    def f(x):
        return power(True)(x, 5), power(False)(x, 5)

    assert f(3) == (243, 16)
    assert f(1.5) == (1.5**5, 8.5)


def test_one_array_under_two_names_in_one_call_only():
    def shift(a, b):
        for i in range(6):
            a[i] = b[5 - i] + 1.0
        return a.sum()

    @dflow.jit
    def f(x):
        y, z = x.copy(), x.copy()
        return shift(y, z), shift(z, z)

    x = np.arange(6.0)
    y, z = x.copy(), x.copy()
    assert f(x) == (shift(y, z), shift(z, z))
