"""``sum``, ``min``, ``max``, ``any``, ``all`` of generator expressions, over ranges of any length."""

import numpy as np
import pytest

import dflow

X = np.array([0.7, -1.3, 2.1, 0.4])
Y = np.array([-0.7, 1.3, 0.3, 2.0])


def total(x, n):
    return sum(x[i % 4] ** 2 for i in range(n))


def total_where(x, n):
    return sum((v * w for v in x if v > 0 for w in x[1:] if w < v), 1.0)


def extremes(x, n):
    return max(x[i % 4] * i for i in range(1, n)), min(abs(v) for v in x), max(i * i for i in range(n))


def quantifiers(x, n):
    return any(x[i % 4] > 2 for i in range(n)), all(x[i % 4] > -5 for i in range(n)), any(v > 9 for v in x)


def stops_at_the_first(x, n):
    return any(x[i] > 2 for i in range(100))  # would be out of bounds without the short circuit


def within_other_things(x, n):
    s = 0.0
    for i in range(n):
        if all(x[j] > -2 for j in range(i % 4)):
            s += sum(x[j] * x[i % 4] for j in range(i % 4 + 1))
    return s


def of_pairs(x, n):
    return sum((i + 1) * a * b for i, (a, b) in enumerate(zip(x, reversed(x)))), sum(len(k) for k in ("a", "bc"))


FUNCTIONS = [total, total_where, extremes, quantifiers, within_other_things, of_pairs]


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("x", [X, Y], ids=["X", "Y"])
def test_value(check, fn, x):
    check(fn, x, 7)


def test_short_circuit(check):
    check(stops_at_the_first, X, 0)


def test_derivatives():
    dflow.check_grads(lambda x: total(x, 9) + total_where(x, 9) + extremes(x, 9)[0], (X,), order=2)


def test_long_ones_are_loops(ops):
    names = ops(lambda x: sum(x[i % 4] * i for i in range(1_000_000)), X)
    assert names.count("for") == 1 and len(names) < 40


def test_of_nothing(check):
    check(total, X, 0)
    for f in (lambda n: max(i for i in range(n)), lambda n: min(float(i) for i in range(n))):
        with pytest.raises(ValueError, match="arg is an empty sequence"):
            dflow.jit(f)(0)
