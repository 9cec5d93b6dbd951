"""Loops in batches of rounds: which are, and that results are those of one round after the other."""

import numpy as np
import pytest

import dflow
from dflow.backends.emit import control as emit_control

X = np.random.default_rng(0).uniform(0.2, 0.9, size=(19, 5))  # no multiple of a batch


@pytest.fixture
def found(monkeypatch):
    """How many numbers are kept in each batch of the loops that the test compiles."""
    seen, batches = [], emit_control.batches

    def spy(e, loop, totals):
        if made := batches(e, loop, totals):
            seen.append(len(made.kept))
        return made

    monkeypatch.setattr(emit_control, "batches", spy)
    return seen


def volatility(x):
    r, s, total, last = x[:, 0], 0.1, 1.5, 0.0
    for t in range(len(r)):
        s = 0.1 + 0.2 * r[t] * r[t] + 0.7 * s
        total -= np.log(s) + r[t] * r[t] / s
        last = s
    return total + last


def losses(x):
    """An inner loop adds up what each round wants."""
    w, total, count = x[0], 0.0, 0
    for i in range(len(x)):
        s = 0.0
        for j in range(x.shape[1]):
            s += w[j] * x[i, j]
        count += i
        total += np.log1p(np.exp(-s * x[i, 1])) * i
    return total + count


def filled(x):
    """An array with an element for each round, and another that the next round reads."""
    y, z = np.zeros((len(x), 2)), np.ones(len(x) + 1)
    s = 0.5
    for i in range(len(x)):
        s = s * 0.5 + x[i, 0]
        y[i, 1] = np.tanh(s) * z[i]
        z[i + 1] = z[i] * 0.9 + s
    return np.sum(y * y) + np.sum(z)


def rows_read_again(x):
    """What is written is read by the next round: it stays as it is."""
    y, s = np.zeros(len(x) + 1), 0.5
    for i in range(len(x)):
        s = s * 0.5 + x[i, 0]
        y[i + 1] = np.exp(-y[i]) + s
    return np.sum(y)


def arrays_between(x):
    """An array that each round makes anew is read by what is added up."""
    s, total = 0.5, 0.0
    for i in range(len(x)):
        y = x[i] * s
        for j in range(1, x.shape[1]):
            y[j] = y[j] / (1.0 + y[j - 1])
        s = 0.5 * s + y[1]
        total += np.exp(y[4])
    return total


def one_place(x):
    """Rounds write the same element."""
    y, s = np.zeros(3), 0.5
    for i in range(len(x)):
        s = s * 0.5 + x[i, 0]
        y[i % 3] = np.exp(s)
    return np.sum(y)


def checked(x, places):
    s, total = 0.5, 0.0
    for i in range(len(places)):
        s = s * 0.5 + x[places[i], 0]
        total += np.exp(s)
    return total


@pytest.mark.parametrize(
    ("f", "kept"),
    [(volatility, [2]), (losses, [1]), (filled, [2]), (rows_read_again, []), (arrays_between, []), (one_place, [])],
)
def test_values_and_derivatives(f, kept, found):
    np.testing.assert_allclose(dflow.jit(f)(X), f(X), rtol=1e-13)
    assert found == kept
    np.testing.assert_allclose(dflow.jit(f)(X[:7]), f(X[:7]), rtol=1e-13)
    single = X.astype("f4")
    np.testing.assert_allclose(dflow.jit(f)(single), f(single), rtol=1e-5)
    direction = np.random.default_rng(1).normal(size=X.shape)
    wanted = (f(X + 1e-6 * direction) - f(X - 1e-6 * direction)) / 2e-6
    slope = np.sum(dflow.grad(f)(X) * direction)
    np.testing.assert_allclose(slope, wanted, rtol=1e-7)
    np.testing.assert_allclose(dflow.jvp(f, (X,), (direction,))[1], slope, rtol=1e-12)


def test_errors_of_a_batch(found):
    places = np.arange(19) % 7
    compiled = dflow.jit(checked)
    np.testing.assert_allclose(compiled(X, places), checked(X, places), rtol=1e-13)
    assert found == [1]
    places[11] = 40
    with pytest.raises(IndexError, match="40"):
        compiled(X, places)


def test_numbers_of_rounds(found):
    def simulated(n, a):
        s, total = 1.0, 0.0
        for _ in range(n):
            s = a * s * (1.0 - s) + 0.01
            total += np.exp(-s)
        return total, s

    compiled = dflow.jit(simulated)
    for n in (-1, 0, 1, 7, 8, 9, 24):
        np.testing.assert_allclose(compiled(n, 3.5), simulated(n, 3.5), rtol=1e-13)
    assert found == [1]
