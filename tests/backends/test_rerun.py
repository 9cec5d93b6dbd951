"""Recurrences that run again instead of being kept (`lowering/rerun.py`), with rounds that share what they add to."""

from __future__ import annotations

import numpy as np
import pytest

import dflow
from dflow.backends.lowering.rerun import rerun
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function
from dflow.ir.passes.decompose import decompose
from dflow.ir.passes.forwards import forwards
from dflow.ir.passes.unchecked import unchecked
from dflow.ir.verifier import verify

SIZE = 300  # so many numbers for each point are kept for a point at a time


def least_squares(x, n):
    total = 0.0
    for i in range(n):
        t = -1.0 + i * 2.0 / (n - 1.0)
        error, power = np.sign(t), 1.0
        for j in range(len(x)):
            error -= x[j] * power
            power *= t
        total += error * error
    return total / 2.0


def two_sums(x, n):
    """Two recurrences, of which one begins at another number for each point, and a share beside them."""
    total = 0.0
    for i in range(n):
        t = 0.05 * i - 0.4
        error, power, shrunk = x[0] * t, t, 1.0
        for j in range(len(x)):
            error += x[j] * power - x[j] * x[j] * shrunk
            power = 0.5 - power * t
            shrunk *= 0.5
        total += error * error
    return total


def by_functions(x, n):
    """What is kept costs more than to read it."""
    total = 0.0
    for i in range(n):
        error, state = 0.0, 1.0 * i
        for j in range(len(x)):
            error += x[j] * state
            state = np.sin(state)
        total += error * error
    return total


def optimized_gradient(f, *args):
    """As it comes to fusion."""
    return forwards(unchecked(decompose(parse_function(dflow.grad(f).lower(*args).ir("optimized")))))


def kept(f):
    """How many arrays the loops inside of loops make."""
    return sum(op.name == "empty" for op in walk(f.body))


@pytest.mark.parametrize("n", [1, 15, 16, 53])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gradient(n, dtype):
    x = np.random.default_rng(n).normal(size=SIZE).astype(dtype)
    points = max(n, 2)
    t = -1 + np.arange(points) * 2 / (points - 1)
    powers = t[:, None] ** np.arange(SIZE)
    wanted = -powers.T @ (np.sign(t) - powers @ x)
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(dflow.grad(least_squares)(x, points), wanted, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("f", [least_squares, two_sums])
def test_nothing_is_kept(f):
    x = np.random.default_rng(1).normal(size=SIZE)
    program = optimized_gradient(f, x, 18)
    again = rerun(program)
    verify(again, after="rerun")
    assert kept(again) < kept(program)
    for a, b in zip(evaluate(again, (x, 3)), evaluate(program, (x, 3)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    forward = dflow.jvp(f, (x, 18), (np.cos(x), None))[1]
    np.testing.assert_allclose(dflow.grad(f)(x, 18) @ np.cos(x), forward, rtol=1e-12)


def test_what_costs_more_is_kept():
    x = np.random.default_rng(1).normal(size=SIZE)
    program = optimized_gradient(by_functions, x, 18)
    assert kept(rerun(program)) == kept(program) == 1


def test_threads_share_the_rounds():
    x = np.random.default_rng(2).normal(size=300)
    before, found = dflow.threads(), []
    for threads in (1, 2):
        dflow.set_threads(threads)
        found.append(dflow.grad(least_squares)(x, 3001))
    dflow.set_threads(before)
    np.testing.assert_array_equal(*found)


def test_rounds_that_share_an_array():
    """A recurrence whose numbers are added to elements, by sixteen rounds at a time and those that are left."""

    def powers(y, ts):
        for i in range(len(ts)):
            p = 1.0
            for j in range(len(y)):
                y[j] += 2 * p
                p *= ts[i]
            y[3] += p
        return y

    y, ts = np.random.default_rng(3).normal(size=12), np.linspace(-1, 1, 37)
    np.testing.assert_allclose(dflow.jit(powers)(y.copy(), ts), powers(y.copy(), ts), rtol=1e-12)
    dflow.check_grads(lambda y, ts: powers(y.copy(), ts), (y, ts))
