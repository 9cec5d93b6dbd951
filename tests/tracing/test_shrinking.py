"""Variables of loops that become smaller."""

import numpy as np
import pytest

import dflow
from dflow.errors import CarriedError, TraceError

X = np.array([0.9, 0.1, 0.5, 0.7, 0.3, 0.2])


def thinned(x, rounds):
    total = 0.0
    for k in range(rounds):
        total += x.sum() ** 2
        x = x[x > 0.1 * k] * 0.9
        if len(x) == 0:
            break
    return total, k


def sieve(numbers):
    found, count = np.zeros_like(numbers), 0
    while len(numbers):
        found[count] = numbers[0]
        count += 1
        numbers = numbers[numbers % numbers[0] != 0]
    return found[:count]


def pyramid(x, least):
    """The sizes are known, but not how often."""
    while len(x) > least:
        x = (x[:-1:2] + x[1::2])[1:]
    return x


def rows(points, rounds):
    points = points.copy()
    for _ in range(rounds):
        points += 1.0
        points = points[points[:, 0] < 3.5]
        points[0] = 2.0
    return points, len(points)


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (thinned, (X, 9)),
        (sieve, (np.arange(2, 30),)),
        (pyramid, (np.arange(20.0), 3)),
        (pyramid, (np.arange(20.0), 30)),
        (rows, (X.reshape(3, 2), 5)),
    ],
)
def test_values(f, args):
    for got, wanted in zip(dflow.jit(f)(*args), f(*args), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-14)


def test_derivatives():
    dflow.check_grads(lambda x: thinned(x, 9)[0], (X,))


def test_another_name_would_have_to_see_the_update():
    def loop(x):
        other = x
        for _ in range(5):
            x += 1.0
            x = x[x < 5.0]
        return other

    with pytest.raises(TraceError, match="'x' becomes smaller"):
        dflow.jit(lambda x: loop(x.copy()))(X)

    def inside(x, n):
        other = x
        for _ in range(n):
            x += other[0]
            x = x[x < 5.0]
        return x

    with pytest.raises(CarriedError, match="'x' becomes smaller"):
        dflow.jit(lambda x, n: inside(x.copy(), n))(X, np.array(5))


def test_shape_is_assigned():
    def f(x):
        y = 2 * x
        y.shape = (2, -1)
        y[0] += 1.0
        return y

    np.testing.assert_array_equal(dflow.jit(f)(X), f(X))

    def loop(x):
        y = 2 * x
        for _ in range(6):
            y.shape = (2, 3)
        return y

    with pytest.raises(TraceError, match="assigned in a loop"):
        dflow.jit(loop)(X)

    def argument(x):
        x.shape = (2, 3)
        return x

    with pytest.raises(TraceError, match="argument x is assigned"):
        dflow.jit(argument)(X)
    with pytest.raises(TraceError, match="Incompatible shape"):
        dflow.jit(lambda x: setattr(np.outer(x, x)[:, :3], "shape", 18))(X)


def test_a_loop_in_a_branch_keeps_a_tape():
    def f(x, n):
        total = 0.0
        if x > 1.0:
            for k in range(min(n, 2 * n - 1)):
                total += np.sin(x * k)
        return total

    dflow.check_grads(f, (1.5, 7))


def test_short_loops_in_deep_nests_stay_loops():
    def f(x):
        total = 0.0
        for i in range(2):
            for j in range(3):
                for k in range(4):
                    for m in range(2):
                        total += x[i] * x[j] * x[k] * x[m]
        return total

    lowered = dflow.jit(f).lower(X)
    assert lowered.ir("traced").count("mul") < 100
    np.testing.assert_allclose(dflow.jit(f)(X), f(X), rtol=1e-14)
