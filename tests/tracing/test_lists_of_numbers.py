"""Lists whose length depends on the run, used as Python's are: slices, order, concatenation, appends in branches."""

import numpy as np
import pytest

import dflow
from dflow.errors import DflowError

X = np.array([0.5, -1.2, 2.0, 3.1, -0.3, 1.7])


def positive(x):
    found = []
    for v in x:
        if v > 0:
            found.append(v)
    return found


def sliced(x):
    xs = positive(x)
    return np.array(xs[::-1]), sum(v * v for v in xs[1:-1]), xs[:2][1], len(xs[5:]), sum(reversed(xs[1:]))


def ordered(x):
    xs = positive(x)
    ys = sorted(xs, reverse=True)
    xs.sort()
    zs = xs.copy()
    zs.reverse()
    return xs[0], xs[-1], ys[0], zs[1], sorted(x[x > 0])[0]


def joined(x):
    xs = positive(x)
    ys = [1.0] + xs + [x[1]]
    zs = [x[0], *xs, 2.0]
    ys.extend(xs)
    zs += xs[:2]
    return np.array(ys), sum(zs), len(zs), len([1.0, *xs]), ys[1], zs[-1]


def as_a_stack(x):
    xs = positive(x)
    last = xs.pop() * 2
    first = xs.pop(0)
    return first, last, len(xs), sum(xs)


def twice(x):
    xs = [0]  # an integer, as which no float could stand there
    for v in x:
        if v > 0:
            xs.append(v)
        elif v < -1:
            xs.append(1.0)
    xs.append(x[0])
    for v in x:
        if v < 0:
            xs.append(v)
    return np.array(xs), len(xs), xs[-1]


def by_branches(x):
    xs = [x[0]]
    if x[1] > 0:
        xs.append(x[1])
    elif x[2] > 1:
        xs.append(x[2] * x[0])
        xs.append(3.0)
        if x[3] > 3:
            xs.append(x[3])
    k = 0
    if x[4] > 0:
        xs.append(x[4])
        k = 1
    return sum(v * v for v in xs), len(xs), k, xs[-1], np.array(xs)


def by_a_function(x):
    xs = []

    def add(v):
        if v > 0:
            xs.append(v)

    add(x[0])
    add(x[1])
    add(x[2])
    return sum(xs[1:]), len(xs)


PROGRAMS = [sliced, ordered, joined, as_a_stack, twice, by_branches, by_a_function]


@pytest.mark.parametrize("f", PROGRAMS)
@pytest.mark.parametrize("x", [X, -X])
def test_a_list_as_python_has_it(f, x):
    program = dflow.jit(f)
    try:
        wanted = f(x)
    except IndexError as e:
        with pytest.raises(IndexError, match=str(e)):
            program(x)
        return
    for a, b in zip(wanted, program(x), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-14)


@pytest.mark.parametrize("f", PROGRAMS)
def test_derivatives(f):
    def total(x):
        return sum(np.sum(y) * (k + 1) for k, y in enumerate(f(x)))

    h = 1e-6
    wanted = [(total(X + h * e) - total(X - h * e)) / (2 * h) for e in np.eye(X.size)]
    np.testing.assert_allclose(dflow.grad(total)(X), wanted, atol=1e-7)
    _, forward = dflow.jvp(total, (X,), (np.ones_like(X),))
    np.testing.assert_allclose(forward, sum(wanted), atol=1e-6)


def assigned_to_a_part(x):
    xs = [1.0, 2.0]
    xs[1:] = positive(x)
    return len(xs)


def in_a_tuple(x):
    return len((1.0, *positive(x)))


def sorted_in_a_branch(x):
    xs = positive(x)
    if x[0] > 0:
        xs.sort()
    return xs[0]


@pytest.mark.parametrize("f", [assigned_to_a_part, in_a_tuple, sorted_in_a_branch])
def test_other_uses_are_refused(f):
    with pytest.raises(DflowError, match=r"np\.array\(xs\)"):
        dflow.jit(f)(X)


def test_a_list_that_is_an_argument_keeps_its_items():
    def appended(xs, x):
        for v in x:
            if v > 0:
                xs.append(v)
        return sum(xs)

    xs = [1.0, 2.0]
    with pytest.raises(DflowError, match="a list that is an argument longer"):
        dflow.jit(appended)(xs, X)
    assert xs == [1.0, 2.0]
