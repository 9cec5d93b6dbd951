"""Rows of a table side by side: which go, and that results are those of one row after the other."""

import numpy as np
import pytest

import dflow
from dflow.backends.emit import control as emit_control

COST = np.random.default_rng(0).uniform(size=(11, 13))  # no multiple of what goes side by side


@pytest.fixture
def found(monkeypatch):
    """What is known of the loops that the test compiles, without those that stay as they are."""
    seen, waves = [], emit_control.waves

    def spy(e, loop):
        if made := waves(e, loop):
            seen.append((made.lag, made.vectors))
        return made

    monkeypatch.setattr(emit_control, "waves", spy)
    return seen


def soft_alignment(cost):
    n, m = cost.shape
    r = np.full((n + 1, m + 1), 1e10)
    r[0, 0] = 0.0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            a, b, c = r[i - 1, j - 1], r[i - 1, j], r[i, j - 1]
            r[i, j] = cost[i - 1, j - 1] - np.log(np.exp(-a) + np.exp(-b) + np.exp(-c))
    return r[1:, 1:]


def rows_that_begin(cost):
    """Each row writes its first element, and carries numbers."""
    n, m = cost.shape
    r = np.zeros((n, m))
    r[0] = cost[0]
    for i in range(1, n):
        r[i, 0] = r[i - 1, 0] / (1.0 + cost[i, 0])
        left = r[i, 0]
        for j in range(1, m):
            left = max(left / 3.0, r[i - 1, j]) + cost[i, j]
            r[i, j] = left
    return r


def log_rows_that_begin(cost):
    n, m = cost.shape
    r = np.zeros((n, m))
    r[0] = cost[0]
    for i in range(1, n):
        r[i, 0] = np.log1p(r[i - 1, 0]) + cost[i, 0]
        left = r[i, 0]
        for j in range(1, m):
            left = np.tanh(left) - r[i - 1, j] * cost[i, j]
            r[i, j] = left
    return r


def nine_points(u):
    u = u.copy()
    n, m = u.shape
    for i in range(1, n - 1):
        for j in range(1, m - 1):
            s = u[i - 1, j - 1] + u[i - 1, j] + u[i - 1, j + 1] + u[i, j - 1] + u[i, j + 1]
            u[i, j] = (s + u[i + 1, j - 1] + u[i + 1, j] + u[i + 1, j + 1]) / 8.0
    return u


def backwards(cost):
    n, m = cost.shape
    r = np.ones((n + 1, m + 1))
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            r[i, j] = cost[i, j] / (r[i + 1, j] + r[i, j + 1])
    return r


def in_place(u):
    """The same line again and again."""
    u = u[0].copy()
    for _ in range(11):
        for i in range(1, len(u) - 1):
            u[i] = (u[i - 1] + u[i] + u[i + 1]) / 3.0
    return u


def scored(cost):
    """Numbers that all rounds add to, or of which the greatest is wanted."""
    n, m = cost.shape
    h = np.zeros((n + 1, m + 1))
    best, total, least, count = -1.0, 2.0, 9.0, 0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            s = max(0.0, h[i - 1, j - 1] + cost[i - 1, j - 1] - 0.5, h[i, j - 1] - 0.1, h[i - 1, j] - 0.1)
            h[i, j] = s
            best = max(s, best)
            least = min(least, s - cost[i - 1, j - 1])
            total -= s
            count += int(10 * s)
    return np.array([best, least, total, count])


def soft_scores(cost):
    n, m = cost.shape
    h = np.zeros((n + 1, m + 1))
    best, total = -1.0, 2.0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            s = np.log(np.exp(h[i - 1, j - 1] - cost[i - 1, j - 1]) + np.exp(-h[i, j - 1]))
            h[i, j] = s
            best = max(best, s)
            total += s * s
    return np.array([best, total])


def adding(cost):
    n, m = cost.shape
    r = np.zeros((n + 1, m + 1))
    r[0, 0] = 1.0
    for i in range(n):
        for j in range(m):
            flow = r[i, j] / (1.0 + cost[i, j])
            r[i + 1, j] += flow
            r[i, j + 1] += flow * cost[i, j]
    return r


PROGRAMS = {
    soft_alignment: (1, True),
    rows_that_begin: (1, False),
    log_rows_that_begin: (1, True),
    nine_points: (2, False),
    backwards: (1, False),
    in_place: (2, False),
    scored: (1, False),
    soft_scores: (1, True),
    adding: (2, False),
}


@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
def test_values(f, found):
    np.testing.assert_allclose(dflow.jit(f)(COST), f(COST), rtol=1e-13)
    assert found == [PROGRAMS[f]]
    single = COST.astype("f4")
    np.testing.assert_allclose(dflow.jit(f)(single), f(single), rtol=2e-6)


@pytest.mark.parametrize("f", [soft_alignment, rows_that_begin, adding], ids=lambda f: f.__name__)
def test_derivatives(f, found):
    def total(cost):
        return np.sum(f(cost)[2:] ** 2)

    direction = np.random.default_rng(1).normal(size=COST.shape)
    plus, minus = (total(COST + h * direction) for h in (1e-6, -1e-6))
    slope = np.sum(dflow.grad(total)(COST) * direction)
    assert found
    np.testing.assert_allclose(slope, (plus - minus) / 2e-6, rtol=1e-6)
    np.testing.assert_allclose(dflow.jvp(total, (COST,), (direction,))[1], slope, rtol=1e-12)


def again(u, rounds):
    u = u.copy()
    for _ in range(rounds):
        for i in range(1, len(u) - 1):
            u[i] = np.exp(-u[i - 1]) - u[i + 1] / 3.0
    return u


def test_a_number_of_rows_that_is_known_when_it_runs(found):
    compiled = dflow.jit(again)
    for rounds in (-1, 0, 1, 7, 8, 9, 30):
        np.testing.assert_allclose(compiled(COST[0], rounds), again(COST[0], rounds), rtol=1e-13)
    assert found == [(2, True)]


def three_back(u):
    """What the row above writes later would have to be there."""
    u = u.copy()
    for i in range(1, u.shape[0]):
        for j in range(1, u.shape[1] - 3):
            u[i, j] = np.exp(-u[i, j - 1]) * u[i - 1, j + 3]
    return u


def all_to_one(u):
    """Rows meet at one element."""
    t = np.zeros(3)
    for i in range(u.shape[0]):
        for j in range(u.shape[1]):
            t[0] = np.tanh(t[0]) + u[i, j]
    return t


def of_other_lengths(u):
    u = u.copy()
    for i in range(1, u.shape[0]):
        for j in range(1, i + 2):
            u[i, j] = np.exp(-u[i, j - 1]) + u[i - 1, j]
    return u


def sums_of_rows(u):
    """LLVM makes vectors along the row."""
    t = np.zeros(len(u))
    for i in range(u.shape[0]):
        for j in range(u.shape[1]):
            t[i] += np.exp(u[i, j])
    return t


def later_rounds_read_the_first(u):
    u = u.copy()
    for i in range(1, u.shape[0]):
        first = u[i - 1, 1]
        for j in range(1, u.shape[1]):
            u[i, j] = np.exp(-u[i, j - 1]) * first
    return u


@pytest.mark.parametrize("f", [three_back, all_to_one, of_other_lengths, sums_of_rows, later_rounds_read_the_first])
def test_rows_that_stay_one_after_the_other(f, found):
    np.testing.assert_allclose(dflow.jit(f)(COST), f(COST), rtol=1e-13)
    assert not found
