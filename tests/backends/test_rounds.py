"""Loops with independent rounds in parts: which are, and that parts change nothing."""

from __future__ import annotations

import numpy as np
import pytest

import dflow
from dflow.backends.emit import parts as emit_parts
from dflow.backends.emit import rounds as emit_rounds
from dflow.backends.native import threads

random = np.random.default_rng(0).normal
X = random(size=(37, 5))


@pytest.fixture(autouse=True)
def short_loops_too(monkeypatch):
    for module in (emit_parts, emit_rounds):
        monkeypatch.setattr(module, "LEAST", 64)
        monkeypatch.setattr(module, "GRAIN", 16)
    monkeypatch.setattr(emit_parts, "ALIGNED", 1 << 40)  # loops over arrays stay whole
    monkeypatch.setattr(emit_rounds, "LONG", 4)
    before = threads.threads()
    yield
    threads.set_threads(before)


def sums(x):
    total, count, largest = 1.5, 0, 3
    for i in range(len(x)):
        for j in range(x.shape[1]):
            if x[i, j] > 0:
                total += x[i, j] * i
                count += 1
        largest += 2
    return total, count, largest


def sums_of_unknown_length(x, n):
    total = 0.0
    for i in range(n):
        part = 1.0
        for j in range(x.shape[1]):
            part *= x[i % len(x), j]
        total -= part
    return total


def tapes_of_unknown_length(x, n):
    total = 0.0
    for i in range(n):
        s = x[i % len(x), 0]
        for j in range(4):
            s = np.sin(s) * x[i % len(x), j]
        total += s
    return total


def rows(x):
    y = np.zeros((len(x), 2))
    for i in range(len(x)):
        s = 0.0
        for j in range(x.shape[1]):
            s = np.tanh(s + x[i, j])
        y[i, 0] = s
        y[i, 1] = s * s
    return y


def backwards(x):
    y = x.copy()
    for i in range(len(x)):
        for j in range(x.shape[1]):
            y[len(x) - 1 - i, j] *= x[i, j]
    return y


def added(x):
    y = np.ones(x.shape[1])
    for i in range(len(x)):
        for j in range(x.shape[1]):
            y[j] += np.sin(x[i, j])
    return y


def scratch(x):
    y, total = np.empty(x.shape[1]), 0.0
    for i in range(len(x)):
        for j in range(x.shape[1]):
            y[j] = x[i, j] * x[i, 0]
        for j in range(1, x.shape[1]):
            y[j] += y[j - 1]
        total += np.sum(y * y)
    return total


def large_scratch(x):
    out = np.empty(len(x))
    for i in range(len(x)):
        y = np.ones(4000)
        for j in range(1, 4000):
            y[j] = np.cos(y[j - 1] * x[i, 0])
        out[i] = y[-1]
    return out


def checked(x, at):
    total = 0.0
    for i in range(len(x)):
        for j in range(x.shape[1]):
            total += x[i, at[i] + j - j]
    return total


AT = np.arange(37) % 5
INDEPENDENT = {
    "sums": (sums, X),
    "unknown length": (sums_of_unknown_length, X, 50),
    "no round": (sums_of_unknown_length, X, 0),
    "rows": (rows, X),
    "backwards": (backwards, X),
    "added": (added, X),
    "scratch": (scratch, X),
    "large scratch": (large_scratch, X),
    "checked": (checked, X, AT),
    "gradient of sums": (dflow.grad(lambda x: (added(x) ** 2).sum()), X),
    "gradient of rows": (dflow.grad(lambda x: (rows(x) ** 2).sum()), X),
    "gradient of scratch": (dflow.grad(scratch), X),
    "gradient of unknown length": (dflow.grad(sums_of_unknown_length), X, 50),
    "tapes of unknown length": (dflow.grad(tapes_of_unknown_length), X, 50),
    "gradient of checked": (dflow.grad(checked), X, AT),
}


def results(found):
    return found if isinstance(found, tuple) else (found,)


def parts(f, *args):
    return dflow.jit(f).lower(*args).llvm().count("call void @dflow_parallel(")


@pytest.mark.parametrize("name", INDEPENDENT)
def test_parts_change_nothing(name):
    f, *args = INDEPENDENT[name]
    compiled = dflow.jit(f)
    assert parts(f, *args)
    found = []
    for count in (1, 2, 3, 5):
        threads.set_threads(count)
        found.append(compiled(*args))
    expected = dflow.jit(f, backend="reference")(*args) if hasattr(f, "lower") else f(*args)
    for first, *others, exact in zip(*map(results, [*found, expected])):
        for other in others:
            np.testing.assert_array_equal(other, first)
        np.testing.assert_allclose(first, exact, 1e-12, 1e-12)


def test_the_first_error_is_that_of_one_thread():
    compiled, at = dflow.jit(checked), AT.copy()
    assert parts(checked, X, AT)
    at[[11, 12, 30]] = 70, 80, 90
    for count in (1, 2, 5):
        threads.set_threads(count)
        with pytest.raises(IndexError, match="70"):
            compiled(X, at)
        np.testing.assert_allclose(compiled(X, AT), checked(X, AT), 1e-12)


# --- loops whose rounds need each other


def recurrence(x):
    y = x[:, 0].copy()
    for i in range(1, len(x)):
        for j in range(x.shape[1]):
            y[i] += 0.5 * y[i - 1] * x[i, j]
    return y


def neighbours(x):
    y = x.copy()
    for i in range(len(x) - 1):
        for j in range(x.shape[1]):
            y[i, j] = y[i + 1, j] * 2
    return y


def seen_sums(x):
    y, total = np.empty(len(x)), 0.0
    for i in range(len(x)):
        for j in range(x.shape[1]):
            total += x[i, j]
        y[i] = total
    return y


def scratch_that_remembers(x):
    y, total = np.zeros(x.shape[1]), 0.0
    for i in range(len(x)):
        for j in range(1, x.shape[1]):
            y[j] = x[i, j] + y[j - 1]
        total += y[0] + np.sum(y)
        y[0] = x[i, 1]
    return total


def scratch_that_is_returned(x):
    y, total = np.empty(x.shape[1]), 0.0
    for i in range(len(x)):
        for j in range(x.shape[1]):
            y[j] = x[i, j] * 2
        total += np.sum(y)
    return total, y


def products(x):
    total = 1.0
    for i in range(len(x)):
        for j in range(x.shape[1]):
            total *= 1.0 + 0.1 * x[i, j]
    return total


def found_by_data(x, at):
    y = np.zeros(len(x))
    for i in range(len(x)):
        for j in range(x.shape[1]):
            y[at[i]] = x[i, j]
    return y


@pytest.mark.parametrize(
    "f, args",
    [
        (recurrence, (X,)),
        (neighbours, (X,)),
        (seen_sums, (X,)),
        (scratch_that_remembers, (X,)),
        (scratch_that_is_returned, (X,)),
        (products, (X,)),
        (found_by_data, (X, AT)),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_rounds_that_need_each_other_stay_in_order(f, args):
    threads.set_threads(3)
    for found, expected in zip(results(dflow.jit(f)(*args)), results(f(*args))):
        np.testing.assert_allclose(found, expected, 1e-12)
