"""Rounds of a loop side by side: results and errors are those of one round after the other."""

import threading

import numpy as np
import pytest

import dflow
from dflow.backends.analysis.side_by_side import found_lanes

A = np.random.default_rng(0).uniform(0.5, 0.9, 45)


def logistic(a, n):
    """The carried array is only written."""
    out = np.empty(len(a))
    for i in range(len(a)):
        x = 0.3
        for _ in range(n):
            x = 3.9 * a[i] * x * (1.0 - x)
        out[i] = x
    return out


def nested(a, n):
    """What comes behind depends on the round before."""
    out, total, last = np.zeros(len(a)), 0, -1.0
    for i in range(len(a)):
        s, p = 0.0, 1.0
        for j in range(n):
            q = 1.0
            for _ in range(j):
                q = q * a[i] + 0.1
            s += q * p
            p *= a[i]
        if s > 1.0:
            total += i
        out[i] += s * last
        last = s
    return out, total, last


def reads_what_it_wrote(a, n):
    a = a.copy()
    for i in range(1, len(a)):
        p = 1.0
        for _ in range(n):
            p = p * a[i - 1] + 0.5
        a[i] = 1.0 / p
    return a


def of_integers(a, n):
    total = 0
    for i in range(7 * n):
        s = i
        for _ in range(5):
            s = (s * 1103515245 + 12345) % 2147483648
        total ^= s
    return total


def ragged(a, n):
    """Rounds of different lengths."""
    total = 0.0
    for i in range(len(a)):
        p = 1.0
        for _ in range(i % (n + 1)):
            p = p * a[i] + 0.5
        total += p
    return total


@pytest.mark.parametrize("f", [logistic, nested, reads_what_it_wrote, of_integers, ragged])
@pytest.mark.parametrize("n", [6, 0])
def test_rounds(f, n):
    results, expected = dflow.jit(f)(A, n), f(A, n)
    for got, wanted in zip(results, expected) if f is nested else [(results, expected)]:
        np.testing.assert_allclose(got, wanted, rtol=1e-9)


def nearest(points, centres):
    """Registers hold a point of each round while the loop goes over all centres."""
    total, last = 0.0, np.zeros(len(points))
    for i in range(len(points)):
        least = np.inf
        for j in range(len(centres)):
            d = 0.0
            for k in range(points.shape[1]):
                d += (points[i, k] - centres[j, k]) ** 2
            least = np.minimum(least, d)
        total += least
        last[i] = least
    return total, last


@pytest.mark.parametrize("points", [A.reshape(15, 3), np.tile(A, 3).reshape(27, 5)])
def test_a_sum_of_a_few_for_each_of_many(points):
    centres = np.random.default_rng(1).normal(size=(6, points.shape[1]))
    centres[3, 0] = np.nan
    for got, wanted in zip(dflow.jit(nearest)(points, centres), nearest(points, centres), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
    centres[3, 0] = 0.5
    for got, wanted in zip(dflow.jit(nearest)(points, centres), nearest(points, centres), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


@dflow.jit
def beyond(a, n):
    total = 0.0
    for i in range(n):
        p = 1.0
        for _ in range(3):
            p = p * a[i] + 0.5
        total += p
    return total


@pytest.mark.parametrize("n", [-1, 0, 1, 7, 8, 15, 16, 17, 40, 45])
def test_counts(n):
    powers = ((A[:n] + 0.5) * A[:n] + 0.5) * A[:n] + 0.5
    np.testing.assert_allclose(beyond(A, n), powers.sum() if n > 0 else 0.0)


def test_errors_come_as_they_would():
    with pytest.raises(IndexError, match="index 45 is out of bounds"):
        beyond(A, 60)


def test_gradient():
    dflow.check_grads(lambda a: np.sum(logistic(a, 4)), (A,))


def paths(s0, z, n):
    """Each round asks the same of ``n``, once for all."""
    total, last = 0.0, np.zeros(len(z))
    for p in range(len(z)):
        s = s0
        for i in range(n):
            s = s + s * z[p, i]
        last[p] = s
        total += max(s - 1.0, 0.0) * s
    return total, last


@pytest.mark.parametrize("n", [0, 1, 7, 9])
def test_runs_as_long_as_an_argument_says(n):
    z = np.random.default_rng(1).normal(size=(37, 9)) * 0.1
    total, last = dflow.jit(paths)(1.1, z, n)
    wanted, lasts = paths(1.1, z, n)
    assert total == pytest.approx(wanted, rel=1e-13)
    np.testing.assert_allclose(last, lasts, rtol=1e-13)
    d, dz = dflow.grad(lambda s0, z, n: paths(s0, z, n)[0], argnums=(0, 1))(1.1, z, n)
    h = 1e-6
    assert d == pytest.approx((paths(1.1 + h, z, n)[0] - paths(1.1 - h, z, n)[0]) / (2 * h), rel=1e-7)
    e = np.random.default_rng(2).normal(size=z.shape)
    near = (paths(1.1, z + h * e, n)[0] - paths(1.1, z - h * e, n)[0]) / (2 * h)
    assert np.sum(dz * e) == pytest.approx(near, rel=1e-7, abs=1e-9)


def test_runs_that_are_too_long_say_so():
    with pytest.raises(IndexError, match="index 9 is out of bounds for axis 1 with size 9"):
        dflow.jit(paths)(1.1, np.zeros((37, 9)), 10)
    total, last = dflow.jit(paths)(1.1, np.zeros((0, 9)), 10)
    assert total == 0 and last.shape == (0,)


def back_and_forth(a, at):
    """Each round has an array of its own, which is too large for the stack of a thread."""
    total = 0.0
    for i in range(len(at)):
        own, s = np.empty(900), 0.5
        for t in range(900):
            s = 0.3 * s + a[i % len(a)]
            own[t] = s
        for t in range(900):
            s = 0.5 * s + own[899 - t] * own[t]
        total = 0.9 * total + s + a[at[i]]
    return total


def test_arrays_of_rounds_are_not_on_the_stack():
    at, found = np.arange(120) % len(A), []
    f = dflow.jit(back_and_forth)
    before = threading.stack_size(1 << 17)
    try:
        thread = threading.Thread(target=lambda: found.append(f(A, at)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    np.testing.assert_allclose(found, back_and_forth(A, at), rtol=1e-12)
    at[70] = len(A)
    with pytest.raises(IndexError, match=f"index {len(A)} is out of bounds"):
        f(A, at)


def orbits(p, starts, n):
    """Many numbers go round, and more in the gradient."""
    total = 0.0
    for i in range(len(starts)):
        x, y, z, u, v, w = 1.0, starts[i], 0.1, 0.2, 1.0, 0.3
        for _ in range(n):
            r = p / (1.0 + np.sqrt(x * x + y * y + z * z)) + 0.1 * np.sin(u) * np.cos(v) * np.sin(w) * np.exp(-u * u)
            x, y, z = x + 0.1 * u, y + 0.1 * v, z + 0.1 * w
            u, v, w = u - 0.1 * r * x, v - 0.1 * r * y, w - 0.1 * r * z
        total += x * y + w * z
    return total


@pytest.mark.parametrize("n", [0, 5])
def test_rounds_of_many_numbers(n):
    (loop,) = (op for op in dflow.jit(orbits).lower(1.5, A, n).stages.optimized.body.ops if op.name == "for")
    assert found_lanes(loop, loop.regions[0])
    value, (p_bar, a_bar) = dflow.value_and_grad(orbits, argnums=(0, 1))(1.5, A, n)
    da = np.cos(np.arange(45.0))
    expected, tangent = dflow.jvp(lambda p, a: orbits(p, a, n), (1.5, A), (0.4, da))
    assert value == pytest.approx(orbits(1.5, A, n), rel=1e-12)
    np.testing.assert_allclose([value, p_bar * 0.4 + a_bar @ da], [expected, tangent], rtol=1e-11)
