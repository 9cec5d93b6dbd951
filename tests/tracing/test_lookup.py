"""Items of lists, tuples and dicts by positions and keys that only the run knows, against Python itself."""

import bisect
from typing import NamedTuple

import numpy as np
import pytest

import dflow
from dflow.errors import DflowError

X = np.array([2.21, 1.53, 0.77])


class Entry(NamedTuple):
    rate: float
    count: int


def tables(x):
    i = int(x[0])
    known = [1.0, 2.0, 4.0][i] * x[1] + (5, 6, 7)[-i] + range(3, 9)[i]
    entry = [Entry(x[0], 1), Entry(x[1], 5), Entry(x[2], 7)][i]
    pair = [(x[k], k) for k in range(3)][i]
    return known + entry.rate * entry.count + pair[0] * pair[1]


def histogram(x):
    sums, counts = [0.0] * 4, [0] * 4
    for i in range(12):
        k = int(x[i % 3] * (i + 1)) % 4
        sums[k] += x[i % 3]
        counts[-k] += 1
    sums[int(x[0])] = 7.0
    return sum(s / (1 + c) * k for k, (s, c) in enumerate(zip(sums, counts), start=1))


def exchanged(x):
    items, i = [v * 2 for v in x], int(x[1])
    other = items
    items[i], items[0] = items[0], items[i]
    return other[0] + 2 * other[1] + 3 * other[2]


def orbit(x):
    follows, p, total = [2, 0, 1], int(x[0]), 0.0
    for _ in range(9):
        p = follows[p]
        total = total * 0.5 + x[p] * [1, 2.5, 4][p]
    return total


def by_key(x):
    k = int(x[0])
    table = {(0, 1): 0.5, (1, 1): 1.5, (2, 1): 2.5, "name": 2.0}
    return table[k, 1] * x[1] + {0: x[0], 1.0: x[1], 2: 2.0 * x[2]}[k]


def interpolated(x):
    """Places in lists in order, and what lies from there on."""
    knots, heights, total = [0.0, 1.0, 2.0, 3.0], [v * v for v in (x[2], x[1], x[0], 1.0)], 0.0
    for v in x:
        k = bisect.bisect_right(knots, v) - 1
        total += heights[k] * (v - knots[k]) + sum(heights[k:]) * len(heights[:k])
    positive = sorted([v for v in x if v > 1.0])
    return total * (1 + bisect.bisect(positive, 1.6)) + bisect.bisect_left(sorted(x), x[0], 1, 3)


def by_several_keys(x):
    pairs = sorted([(int(x[k % 3]), -x[k // 2], k) for k in range(6)], reverse=True)
    first = sorted(range(6), key=lambda k: (int(x[k % 3]), -k))[0]
    return sum(p[1] * k * p[2] for k, p in enumerate(pairs)) + x[0] * (first + 1)


@pytest.mark.parametrize("f", [tables, histogram, exchanged, orbit, by_key, interpolated, by_several_keys])
def test_program(f):
    compiled, slope = dflow.jit(f), dflow.grad(f)
    for x in (X, X[::-1].copy(), np.array([1.27, 0.51, 2.53])):
        assert compiled(x) == pytest.approx(f(x))
        steps = 1e-6 * np.eye(3)
        assert slope(x) == pytest.approx([(f(x + s) - f(x - s)) / 2e-6 for s in steps], rel=1e-6)


def mixed(i):
    items, big, halves = [1, 2, 3], [2**60 + 1, 2, 3], [np.float32(0.5), 0.1]
    items[i] = big[i] = 2.5
    return *items, big[0], items[0] // 2, [1, 2.5][i], {0: 1, 1: 0.5}[i], halves[i] * np.float32(0.1)


def test_integers_stay_integers_among_floats():
    """An array would make them floats; a position that is an argument is known in another try."""
    for i in (0, 1):
        got = dflow.jit(mixed)(i)
        assert [*map(type, got)] == [np.asarray(v).dtype.type for v in mixed(i)] and got == mixed(i)
    with pytest.raises(DflowError, match=r"1\.0, not 1, among floats"):
        dflow.jit(lambda x: [1, 2.5][int(x)])(X[0])


@pytest.mark.parametrize("f", [lambda x: [1.0, 2.0][int(x) + 5], lambda x: {0: 1.0, 1: 2.0}[int(x) + 5]])
def test_what_is_not_there(f):
    with pytest.raises(LookupError):
        dflow.jit(f)(X[0])


def inner_list(x):
    rows = [[1.0, 2.0], [3.0, x[0]], [0.0, 1.0]]
    rows[int(x[0])][0] = 5.0
    return rows[0][0]


def of_two_kinds(x):
    return [1.0, x[:2], 2.0][int(x[0])]


@pytest.mark.parametrize("f", [inner_list, of_two_kinds])
def test_refused(f):
    with pytest.raises(DflowError, match=r"a list (is indexed|that is read or written)"):
        dflow.jit(f)(X)


def updates_what_a_tuple_of_a_dict_holds(x):
    table = {0: ([1.0], 2), 1: ([2.0], 3)}
    table[int(x[1] > 1)][0][0] += 5.0
    return table[1][0][0]


def test_what_is_found_is_another_name():
    with pytest.raises(DflowError, match="another name"):
        dflow.jit(updates_what_a_tuple_of_a_dict_holds)(X)


def test_lists_in_dicts():
    """An update of the list that is found reaches the dict: a key that is an argument is known in another try."""

    def f(k):
        table = {0: [1.0, 2.0], 1: [3.0, 4.0]}
        table[k][0] += 1
        return table[0] + table[1]

    assert [dflow.jit(f)(k) for k in (0, 1)] == [[2.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 4.0]]
    with pytest.raises(DflowError, match="a dict of lists"):
        dflow.jit(lambda x: f(int(x[1])))(X)
