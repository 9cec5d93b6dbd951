"""vmap over a named axis, whose slices meet: against NumPy on whole arrays, in loops, nested, differentiated."""

import numpy as np
import pytest

import dflow
from dflow import lax
from dflow.errors import TraceError

X = np.random.default_rng(0).normal(size=(4, 3))


def mapped(f, *args, **options):
    return dflow.vmap(f, axis_name="i", **options)(*args)


@dflow.jit
def over_all(x):
    return mapped(
        lambda v: {
            "sum": lax.psum(v, "i"),
            "mean": lax.pmean(v, axis_name="i"),
            "max": lax.pmax(v, "i"),
            "min": lax.pmin(v, "i"),
            "all": lax.all_gather(v, "i", axis=1),
            "behind": lax.all_gather(v, "i", tiled=True),
            "index": lax.axis_index("i"),
            "size": lax.psum(1, "i") + lax.axis_size("i"),
            "part": lax.psum_scatter(lax.all_gather(v, "i"), "i"),
            "sent": lax.ppermute(v, "i", [(0, 1), (1, 3)]),
            "exchanged": lax.all_to_all(lax.all_gather(v, "i") * v[0], "i", 0, 1),
            "exchanged parts": lax.all_to_all(np.tile(v, 4), "i", 0, 0, tiled=True),
        },
        x,
    )


def test_values():
    found = over_all(X)
    ones = np.ones((4, 1))
    want = {
        "sum": ones * X.sum(0),
        "mean": ones * X.mean(0),
        "max": ones * X.max(0),
        "min": ones * X.min(0),
        "all": np.stack([X.T] * 4),
        "behind": np.stack([X.ravel()] * 4),
        "index": np.arange(4),
        "size": [8] * 4,
        "part": 4 * X,
        "sent": [X[0] * 0, X[0], X[0] * 0, X[1]],
        "exchanged": [X[k][:, None] * X[:, 0] for k in range(4)],
        "exchanged parts": np.stack([X.ravel()] * 4),
    }
    for name, expected in want.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-14, err_msg=name)
    np.testing.assert_allclose(mapped(lambda v: lax.psum(v, "i"), X, out_axes=None), X.sum(0))


def recurrent(x):
    """Slices meet in a loop, in a branch and in a `while`, and part in others."""
    total = 0.5
    for v in x:
        total = lax.psum(total * v, "i") / 4 + v
        if lax.pmax(total, "i") > 0.3:
            total = total - lax.pmean(np.sin(total), "i")
    level = abs(total)
    while lax.psum(level, "i") < 10.0:
        level = level * 1.5 + 0.1
    while level < 4.0 + 0 * total:
        level = level * 1.2
    return level * lax.axis_index("i") + total


def recurrent_by_hand(x):
    total = np.full(4, 0.5)
    for v in x.T:
        total = np.sum(total * v) / 4 + v
        if np.max(total) > 0.3:
            total = total - np.mean(np.sin(total))
    level = np.abs(total)
    while np.sum(level) < 10.0:
        level = level * 1.5 + 0.1
    for k in range(4):
        while level[k] < 4.0:
            level[k] *= 1.2
    return level * np.arange(4) + total


def test_control_flow():
    def f(x):
        return mapped(recurrent, x)

    np.testing.assert_allclose(f(X), recurrent_by_hand(X), rtol=1e-12)
    dflow.check_grads(f, (X,), order=1)


def test_derivatives_inside():
    """A cotangent is the sum of those of all slices."""

    def f(x):
        return np.sum(lax.all_gather(x, "i")[1] * x) + lax.psum(np.sum(x**2), "i") * x[0]

    def total(x):
        return np.sum(x[1] * x) + np.sum(np.sum(x**2) * x[:, 0])

    np.testing.assert_allclose(mapped(dflow.grad(f), X), dflow.grad(total)(X), rtol=1e-12)
    w = np.array([1.0, -2.0, 0.5])
    mean = mapped(lambda w, x: lax.pmean(dflow.grad(lambda w: np.mean((x * w) ** 2))(w), "i"), w, X, in_axes=(None, 0))
    np.testing.assert_allclose(mean, np.stack([dflow.grad(lambda w: np.mean((X * w) ** 2))(w)] * 4), rtol=1e-12)


def test_rules():
    again = dflow.checkpoint(lambda x: np.sin(x) * lax.psum(x * x, "i"))
    want = np.sin(X) * (X * X).sum(0)
    np.testing.assert_allclose(mapped(again, X), want, rtol=1e-12)
    dflow.check_grads(lambda x: mapped(again, x), (X,), order=1)

    @dflow.custom_jvp
    def ruled(x):
        return lax.psum(x, "i")

    ruled.defjvps(lambda t, value, x: 2 * t)
    with pytest.raises(TraceError, match="derivative rule of its own"):
        mapped(ruled, X)


def test_nested():
    def f(x):
        def inner(v):
            return lax.psum(v, ("i", "j")) + lax.psum(v, "j") * v + lax.psum(v * v, "i") + lax.axis_index(("i", "j"))

        return mapped(lambda row: dflow.vmap(inner, axis_name="j")(row), x)

    want = X.sum() + X.sum(1, keepdims=True) * X + (X * X).sum(0) + np.arange(12).reshape(4, 3)
    np.testing.assert_allclose(f(X), want, rtol=1e-12)
    dflow.check_grads(f, (X,), order=1)


def test_refusals():
    with pytest.raises(TraceError, match=r"no mapped axis 'j' here[\s\S]*seen: the axes 'i'"):
        mapped(lambda x: lax.psum(x, "j"), X)
    with pytest.raises(TraceError, match="no mapped axis 'i'"):
        lax.psum(X, "i")
    with pytest.raises(TraceError, match="differs from slice to slice, and out_axes"):
        mapped(lambda x: lax.psum(x, "i") * x, X, out_axes=None)

    def parting(x):
        if x[0] > 0:
            x = lax.psum(x, "i")
        return x

    with pytest.raises(TraceError, match=r"branch .* differs from slice to slice[\s\S]*np.where"):
        mapped(parting, X)

    def lasting(x):
        while x[0] < 1:
            x = x + lax.psum(1.0 + 0 * x, "i")
        return x

    with pytest.raises(TraceError, match="`while` whose condition"):
        mapped(lasting, X)
