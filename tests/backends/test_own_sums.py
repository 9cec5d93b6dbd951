"""Independent runs beside each other: sums of their own, branches, tapes for all of them and tapes of one."""

from __future__ import annotations

import numpy as np
import pytest

import dflow
from dflow.backends.lowering.own_sums import own_sums
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function
from dflow.ir.passes.decompose import decompose
from dflow.ir.passes.forwards import forwards
from dflow.ir.passes.unchecked import unchecked
from dflow.ir.verifier import verify

RANDOM = np.random.default_rng(0)
P = np.array([0.7, 0.4])


def shortfall(p, z):
    """Paths of which some end below: the others add nothing."""
    total = 0.0
    for i in range(z.shape[0]):
        s = p[0]
        for t in range(z.shape[1]):
            s = s + p[1] * (1.0 - s) * 0.1 + s * z[i, t] * 0.3
        if s < 0.7:
            total += np.log(1.7 - s)
    return total


def compounded(p, z):
    """A function of the math library in each step, and a sum that goes through all of them."""
    total = 0.0
    for i in range(z.shape[0]):
        s = p[0]
        for t in range(z.shape[1]):
            s = s * np.exp(0.1 * p[1] * z[i, t]) - 0.01
            total += np.sin(s)
    return total


def clipped(p, z):
    """Branches in each step, of which one is not defined where the other is taken."""
    total = 0.0
    for i in range(z.shape[0]):
        s, n = p[0], 0
        for t in range(z.shape[1]):
            if s > 0.6:
                s = s - p[1] * np.sqrt(s - 0.6) * 0.5
                n += 1
            else:
                s = s + 0.3 * p[1] + 0.1 * z[i, t]
        total += s * n
    return total


def kept(p, z):
    """All states are a result."""
    out = np.zeros(z.shape)
    for i in range(z.shape[0]):
        s = p[0]
        for t in range(z.shape[1]):
            s = p[1] * s + z[i, t]
            out[i, t] = s
    return np.sum(out**2)


PROGRAMS = [shortfall, compounded, clipped, kept]


@pytest.mark.parametrize("f", PROGRAMS)
@pytest.mark.parametrize("most", [1 << 17, 1])
def test_gradients(f, most, monkeypatch):
    """With tapes for all paths, and with those of one, which runs again."""
    monkeypatch.setattr("dflow.ir.passes.linearize.LONG", most)
    z = RANDOM.normal(size=(107, 6))
    np.testing.assert_allclose(dflow.jit(f)(P, z), f(P, z), rtol=1e-12)
    dflow.check_grads(lambda p: f(p, z), (P,), order=2 if f is shortfall and most == 1 else 1)


@pytest.mark.parametrize("f", [shortfall, compounded])
def test_meaning(f):
    z = RANDOM.normal(size=(100, 7))
    program = parse_function(dflow.grad(f).lower(P, z).ir("optimized"))
    program = forwards(unchecked(decompose(program)))
    made = own_sums(program)
    verify(made, after="own_sums")
    assert begun(made) > begun(program)
    for got, wanted in zip(evaluate(made, (P, z)), evaluate(program, (P, z)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


def begun(f):
    """How many sums begin with nothing."""
    return sum(op.name == "constant" and str(op.attrs["value"]) == "-0.0" for op in walk(f.body))


def test_rows_that_meet():
    """The last of those that write an element wins."""

    @dflow.jit
    def windows(z, step):
        out = np.zeros(step * z.shape[0] + z.shape[1])
        for i in range(z.shape[0]):
            s = 0.0
            for t in range(z.shape[1]):
                s = 0.5 * s + z[i, t]
                out[step * i + t] = s
        return out

    z = RANDOM.normal(size=(103, 4))
    for step in (1, 3, 4):
        np.testing.assert_array_equal(windows(z, step), windows.__wrapped__(z, step))


def test_errors_show_what_was_written():
    @dflow.jit
    def fill(out, z, n):
        for i in range(n):
            s = 0.0
            for t in range(z.shape[1]):
                s = 0.5 * s + z[i, t]
                out[i, t] = s

    z = RANDOM.normal(size=(100, 7))
    made, wanted = np.zeros((105, 7)), np.zeros((105, 7))
    for f, out in ((fill, made), (fill.__wrapped__, wanted)):
        with pytest.raises(IndexError):
            f(out, z, 105)
    np.testing.assert_array_equal(made, wanted)


def test_one_after_the_other():
    """What reads what the round before has written."""

    @dflow.jit
    def chained(z):
        out = np.zeros((z.shape[0] + 1, z.shape[1]))
        for i in range(z.shape[0]):
            s = 0.0
            for t in range(z.shape[1]):
                s = 0.5 * s + z[i, t] * out[i, t]
                out[i + 1, t] = s + 1.0
        return out

    z = RANDOM.normal(size=(100, 7))
    np.testing.assert_allclose(chained(z), chained.__wrapped__(z), rtol=1e-14)


def test_reads_that_wait():
    """What is read behind the other rounds is not written before."""

    @dflow.jit
    def read_late(z):
        z, total = z.copy(), 0.0
        for i in range(z.shape[0]):
            s, u = 1.0, total
            for t in range(z.shape[1]):
                s = 0.5 * s + z[i, t]
            for t in range(z.shape[1]):
                u = 0.9 * u + z[i, t] * s
            z[i, 0] = 7.0 * s
            total = u
        return z, total

    z = RANDOM.normal(size=(100, 7))
    for got, wanted in zip(read_late(z), read_late.__wrapped__(z), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_changed_in_place():
    """Rows that are read, added to and written, forwards and backwards."""

    def changed(z, p):
        z = z.copy()
        for i in range(z.shape[0]):
            s = p[0]
            for t in range(1, z.shape[1]):
                z[i, t] += s * z[i, t - 1]
                s = 0.5 * s + p[1] * z[i, t]
            z[i, 0] = s
        return np.sum(z**2)

    z = RANDOM.normal(size=(99, 7))
    np.testing.assert_allclose(dflow.jit(changed)(z, P), changed(z, P), rtol=1e-12)
    dflow.check_grads(changed, (z, P))


def test_branches_read_what_exists():
    """The others would read far beyond the array."""

    @dflow.jit
    def started(a, z):
        total = 0.0
        for i in range(z.shape[0]):
            s = 0.0
            for t in range(z.shape[1]):
                s = 0.5 * s + z[i, t]
            if i < 2:
                for _ in range(z.shape[1]):
                    s = 0.5 * s + a[i * 4_000_000]
            total += s
        return total

    a, z = np.ones(4_000_001), RANDOM.normal(size=(100, 20))
    np.testing.assert_allclose(started(a, z), started.__wrapped__(a, z), rtol=1e-12)


def orbit(x, r, n):
    y = x
    for _ in range(n):
        z = y * (1.7 - y) * r
        if z > 0.4:
            y = z * (1.0 - y)
        else:
            y = z + 0.1 * y * x
    return y


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_tapes_as_long_as_an_argument_says(dtype):
    """One for each of the runs side by side, in the memory of one; too long ones come one after the other."""
    xs = np.linspace(0.1, 0.9, 101, dtype=dtype)
    g = dflow.vmap(dflow.grad(orbit, argnums=(0, 1)), in_axes=(0, None, None))
    one = dflow.jit(lambda x, r, n: dflow.jvp(orbit, (x, r, n), (1.0, 0.0, 0))[1])
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    for n in (3, 0, 1, 17, 5000):
        r = dtype(1.3)
        found, by_r = g(xs, r, n)
        np.testing.assert_allclose(found[::17], [one(x, r, n) for x in xs[::17]], rtol=tolerance, atol=tolerance)
        if n == 17 and dtype == np.float64:
            h = 1e-6
            near = [(orbit(x, r + h, n) - orbit(x, r - h, n)) / (2 * h) for x in xs]
            np.testing.assert_allclose(by_r, near, rtol=1e-6, atol=1e-6)


def test_tapes_of_several_loops_and_of_order_two():
    def f(x, n):
        y, total = x, 0.0
        for i in range(n):
            y = y * np.cos(y) + 0.1
            total += y * i
        for _ in range(n):
            total = total + np.sin(total * y) * 0.3
        return total

    xs = np.linspace(-1, 1, 70)
    second = dflow.vmap(dflow.grad(dflow.grad(f)), in_axes=(0, None))
    h = 1e-5
    near = [(dflow.grad(f)(x + h, 5) - dflow.grad(f)(x - h, 5)) / (2 * h) for x in xs]
    np.testing.assert_allclose(second(xs, 5), near, rtol=1e-5, atol=1e-5)
