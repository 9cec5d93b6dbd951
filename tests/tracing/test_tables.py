"""Lists, and lists of lists, that loops read and write at positions that only the run knows, against Python itself."""

import copy
import heapq
from collections import Counter, deque

import numpy as np
import pytest

import dflow
from dflow.errors import DflowError

N = 36
X = np.sin(np.arange(1.0, N + 1.0)) * 3.0
TABLE = [[1.0, 2.0], [0.5, 4.0]]


def warped(x):
    """A table of costs, one list a row."""
    cost = [[float("inf")] * (N + 1) for _ in range(8)]
    cost[0][0] = 0.0
    for i in range(1, 8):
        row = cost[i]
        for j in range(1, N + 1):
            row[j] = (x[j - 1] - x[i]) ** 2 + min(cost[i - 1][j], row[j - 1], cost[i - 1][j - 1])
    return cost[-1][-1]


def replaced(x):
    """One list takes the place of another."""
    last, seen = [v for v in x], 0.0
    for k in range(9):
        now = last[:]
        for i in range(1, N - 1):
            now[i] = 0.5 * last[i] + 0.25 * (last[i - 1] + last[i + 1])
        seen += last[(5 * k) % N] * now[k]
        last = now
    return seen + sum(last[::3])


def grids(x):
    """Lists of lists take each other's places; a row with a name of its own is followed, too."""
    field, seen = [[x[(i * j) % N] for j in range(7)] for i in range(6)], 0.0
    row = field[0]
    for k in range(4):
        row[1] += 1.0
        seen += field[0][1] * field[k][2]
        after = [values[:] for values in field]
        for i in range(1, 5):
            for j in range(1, 6):
                after[i][j] = 0.5 * field[i][j] + 0.1 * (field[i - 1][j] + field[i + 1][j] + field[i][j - 1])
        field = after
        row = after[0]
    return seen + sum(sum(values[::2]) for values in field) + row[1]


def rebuilt(x):
    """A list made anew is not the one on entry."""
    items, seen = [v * 1.0 for v in x], 0.0
    for k in range(N):
        seen += items[k] * k
        items = [0.9 * v for v in items]
    return seen


def ordered(x):
    items, found = [v for v in x], 0.0
    for i in range(1, N):
        key, j = items[i], i - 1
        while j >= 0 and items[j] > key:
            items[j + 1] = items[j]
            j -= 1
        items[j + 1] = key
    for i in range(N):
        items[(i * 5) % N] += 1.0
        if i % 9 == 2:
            items.sort()
        found += items[i] * i + items.count(items[0])
    return found


def named_twice(x):
    """Updates reach a list by all its names, and none of its copies."""
    sums, counts = [0.0] * N, [0] * N
    other = {"sums": sums}
    rows = [[0.0, 1.0], [2.0, 3.0]]
    first = rows[0]
    for i in range(N):
        k = int(abs(x[i]) * 7) % N
        sums[k] += x[i] * TABLE[k % 2][i % 2]
        other["sums"][i - 1] += sums[k - 1]
        counts[-k] += 1
        for copied in (list(sums), sums[:], sums.copy(), copy.copy(sums), [*sums], copy.deepcopy(rows)[1]):
            copied[k % 2] = 99.0
        rows[k % 2][i % 2] += sums[k]
        first[1] -= 1.0
    first[0] += 2.0
    return sum(s * c for s, c in zip(sums, counts)) + rows[0][0] * rows[0][1] + rows[1][0] * rows[1][1]


def known(x):
    """What hangs on indices alone is known while tracing, however much there is."""
    offsets = [[i * j for j in range(50)] for i in range(40)]
    return x[offsets[3][4]] + np.zeros(offsets[2][3]).size


@pytest.mark.parametrize("f", [warped, replaced, grids, rebuilt, ordered, named_twice, known])
def test_program(f):
    assert np.isclose(dflow.jit(f)(X), f(X), rtol=1e-13)
    slope, along = dflow.grad(f)(X), np.cos(np.arange(N))
    step = 1e-6 * along
    assert np.isclose(slope @ along, (f(X + step) - f(X - step)) / 2e-6, rtol=1e-6, atol=1e-6)
    assert np.isclose(dflow.jvp(f, (X,), (along,))[1], slope @ along, rtol=1e-12)


def test_no_iterations():
    def f(x, n):
        items = [v for v in x]
        for i in range(n):
            items[i] = items[i + 1]
        return items

    compiled = dflow.jit(f)
    for n in (0, 3):
        assert compiled(X, n) == f(X, n)
    with pytest.raises(IndexError):
        compiled(X, N)


def test_types_are_joined():
    def f(x):
        counts, flags = [0] * N, [False] * N
        for i in range(N):
            k = int(abs(x[i]) * 7) % N
            counts[k] = 0.5 * counts[k] + 1.0
            flags[k] = not flags[k]
        return counts, flags

    counts, flags = dflow.jit(f)(X)
    assert counts == f(X)[0] and flags == f(X)[1] and flags[0].dtype == np.bool_


def test_lists_whose_length_depends_on_the_run_are_compared():
    def f(x):
        found = [v for v in x if v > 2.9]
        last = x[1] * 1.0
        return found == [last], found != [], [last] == found, last in found, 7.0 in found, found.count(last), len(found)

    x = np.array([1.0, 2.95, -1.0])
    for y in (x, -x, x * 3.0):
        assert dflow.jit(f)(y) == f(y)
    both = lambda x: [v for v in x if v > 2.0] == [v for v in x if v > 2.94]  # noqa: E731
    for y in (x, -x, x * 0.8):
        assert dflow.jit(both)(y) == both(y)
    assert dflow.jit(lambda x: [v for v in x if v > 0].index(x[1]))(x) == 1
    with pytest.raises(ValueError, match="not in list"):
        dflow.jit(lambda x: [v for v in x if v > 5].index(x[1]))(x)


def test_what_an_array_would_not_follow_is_refused():
    def swapped(x):
        rows = [[x[i * j], 1.0] for i in range(5) for j in range(2)]
        k = int(x[0])
        rows[0], rows[k] = rows[k], rows[0]
        return rows[0][0]

    def constant(x):
        TABLE[int(x[0])][0] = 5.0
        return x[0]

    def longer(x):
        items = [0.0] * N
        for i in range(2000):
            items[int(x[i % N])] = 1.0
            items.append(x[0])
        return items[0]

    for f in (swapped, constant, longer):
        with pytest.raises(DflowError):
            dflow.jit(f)(X)


def test_python_looks_at_no_table_by_itself(fails):
    def moved(x, look):
        items = [v for v in x]
        for i in range(6):
            items[int(abs(x[i]) * 7) % N] += x[i]
            look(items)
        return items

    def shorter(items):
        del items[0]
        items.insert(0, deque(items)[-1])

    assert dflow.jit(lambda x: moved(x, shorter))(X) == moved(X, shorter)
    for look in (heapq.heapify, Counter):
        fails(lambda x, look=look: moved(x, look), X)


def test_a_table_that_becomes_longer(fails):
    def f(x):
        items = [1.0] * N
        for i in range(int(abs(x[0]) * 2)):
            items[int(abs(x[i]) * 7) % N] += x[i]
            items.append(x[i])
        return sum(items)

    assert "is used in a way that cannot be traced" in fails(f, X)
