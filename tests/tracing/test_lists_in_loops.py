"""Short loops that fill lists in branches, and loops over lists that they change."""

import numpy as np
import pytest

import dflow
from dflow.errors import CarriedError

X = np.array([0.5, -1.2, 2.0])
LONG = np.tile(X, 8)


def appended(x):
    found = []
    for v in x:
        if v > 0:
            found.append(v * v)
    return np.array(found)


def before_a_large_one(x):
    found = []
    for v in x:
        if v > 1.5:
            break
        found.append(v)
    return np.array(found)


def in_two_loops(x):
    return np.array([a * b for a in x for b in x if a < b])


def counts(x):
    return np.array([len([b for b in x if b > a]) for a in x])


def twice(x):
    positive = [v for v in x if v > 0]
    small = []
    for v in positive:
        if v < 1:
            small.append(v * v)
    return np.array(small)


def with_updates(x):
    found, y = [], x.copy()
    for i in range(len(y)):
        y[i] += 1.0
        if y[i] > 0:
            found.append(y[i])
    return np.concatenate([y, np.array(found)])


@pytest.mark.parametrize("f", [appended, before_a_large_one, in_two_loops, counts, twice, with_updates])
def test_short_loops_fill_lists_in_branches(f):
    np.testing.assert_allclose(dflow.jit(f)(X), f(X))
    if f is not counts:
        dflow.check_grads(lambda x: np.sum(f(x) ** 2), (X,))


def sets_the_last(x):
    xs, y, total = [v * v for v in x], np.zeros(1), 0.0
    for v in xs:
        xs[-1] = xs[-1] * 0.9
        y[0] += v
        total += v
    return total + y[0]


def sets_in_a_zip(x):
    xs, total = [v * v for v in x], 0.0
    for v, w in zip(xs, reversed(xs)):
        xs[5] = total * 0.1
        total += v * w
    return total


def updates_an_item(x):
    xs, total = [v * x[:2] for v in x], 0.0
    for v in xs:
        xs[3][0] = total * 0.1
        total += v.sum()
    return total


def copies_the_list(x):
    xs = [v * 1.0 for v in x]
    for v in list(xs):
        if v > 1:
            xs.append(v * 0.75)
    return np.sum(np.array(xs))


@pytest.mark.parametrize("f", [sets_the_last, sets_in_a_zip, updates_an_item, copies_the_list])
def test_a_loop_sees_what_it_changes_in_its_list(f):
    np.testing.assert_allclose(dflow.jit(f)(LONG), f(LONG))


def test_a_loop_over_a_list_that_it_makes_longer_is_refused():
    def longer(x):
        xs = [v * 1.0 for v in x]
        for v in xs:
            if v > 1:
                xs.append(v * 0.75)
        return np.sum(np.array(xs))

    with pytest.raises(CarriedError, match="changes a list while it iterates over it"):
        dflow.jit(longer)(LONG)
