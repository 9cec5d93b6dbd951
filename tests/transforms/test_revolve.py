"""Scans with a budget of states: the binomial schedule, its derivatives of all kinds, and what it keeps."""

from functools import cache

import numpy as np
import pytest

import dflow
from dflow import lax
from dflow.errors import TraceError
from dflow.ir.core import walk
from dflow.transforms.revolve import advance, first_snapshots

X = np.linspace(-1.0, 1.0, 13)
W = np.array([[0.5, -0.3], [0.2, 0.4]])


@cache
def runs(count, states):
    """The fewest iterations that are run again to reverse ``count`` of them, by trying everything."""
    if count == 1:
        return 0
    if states == 1:
        return count * (count - 1) // 2
    return min(m + runs(count - m, states - 1) + runs(m, states) for m in range(1, count))


@pytest.mark.parametrize("states", range(2, 7))
def test_the_schedule_is_the_best(states):
    for count in range(2, 40):
        m = advance(count, states - 1)
        assert 0 < m < count
        assert m + runs(count - m, states - 1) + runs(m, states) == runs(count, states)


def test_the_first_run_fills_the_budget():
    assert first_snapshots(10, 3) == [0, 4, 7]
    assert first_snapshots(4, 9) == [0, 1, 2, 3]


def simulate(w, x, snapshots, reverse=False):
    """A carry with an integer and a vector; slices and results that are trees; a matrix from around."""

    def step(carry, item):
        z = np.tanh(w @ carry["z"] + item["x"])
        if carry["k"] % 3 == 0:
            z = z * item["scale"]
        return {"k": carry["k"] + 1, "z": z}, {"z": z, "k": carry["k"]}

    items = {"x": x, "scale": 1 + np.arange(len(x)) % 2}
    start = {"k": 0, "z": np.stack([x[0], 0.5 * x[1]])}
    carry, ys = lax.scan(step, start, items, reverse=reverse, snapshots=snapshots)
    return np.sum(carry["z"]) + np.sum(ys["z"] ** 2 * (1 + ys["k"])[:, None])


@pytest.mark.parametrize(("snapshots", "reverse"), [(1, False), (3, True), (50, False)])
def test_gradients(snapshots, reverse):
    made = dflow.value_and_grad(lambda w, x: simulate(w, x, snapshots, reverse), (0, 1))(W, X)
    want = dflow.value_and_grad(lambda w, x: simulate(w, x, None, reverse), (0, 1))(W, X)
    np.testing.assert_allclose(made[0], want[0])
    for a, b in zip(made[1], want[1]):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_other_derivatives():
    def f(x):
        return simulate(W, x, 3)

    def plain(x):
        return simulate(W, x, None)

    for transformed in (
        lambda f: dflow.jvp(f, (X,), (X**2,))[1],
        lambda f: dflow.hvp(f, (X,), (X**2,))[0],
        lambda f: dflow.grad(lambda x: np.sum(dflow.grad(f)(x) ** 2))(X),
    ):
        np.testing.assert_allclose(transformed(f), transformed(plain), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "gradient"), [(0, 1.0), (1, 6.0)])
def test_short_loops(n, gradient):
    assert dflow.grad(lambda x: lax.scan(lambda c, _: (c * c, None), x, length=n, snapshots=3)[0])(3.0) == gradient


def test_no_more_than_the_budget_is_kept():
    def loss(x):
        def step(c, _):
            return np.sin(c) * 1.1 + np.cos(c), None

        return np.sum(lax.scan(step, x, length=1000, snapshots=12)[0])

    program = dflow.grad(loss).lower(np.ones(7)).stages.optimized
    sizes = [int(np.prod(r.type.bound)) for op in walk(program.body) for r in op.results]
    assert max(sizes) == 12 * 7
    assert all(r.type.is_static for op in walk(program.body) for r in op.results)


@pytest.mark.parametrize("options", [{"snapshots": 0}, {"snapshots": 2.5}, {"snapshots": 3, "checkpoint": True}])
def test_misuse(options):
    with pytest.raises(TraceError, match="snapshots must be the number"):
        lax.scan(lambda c, _: (c, None), 0.0, length=4, **options)
