"""Every program of ``tests/programs``: as plain Python, compiled, differentiated forward, reverse and numerically."""

import numpy as np
import pytest
from programs import PROGRAMS

import dflow
from dflow import trees


@pytest.fixture(autouse=True)
def verifier_after_the_last_pass(monkeypatch):
    """After each pass it takes a fifth of the time."""
    monkeypatch.setenv("DFLOW_CHECK", "last")


every = pytest.mark.parametrize("p", PROGRAMS, ids=lambda p: p.name)
differentiable = pytest.mark.parametrize("p", [p for p in PROGRAMS if p.wrt], ids=lambda p: p.name)
twice = pytest.mark.parametrize("p", [p for p in PROGRAMS if p.order > 1], ids=lambda p: p.name)


def compare(got, wanted, rtol, what):
    """Two trees of numbers: the same structure, equal integers, floats within ``rtol`` of the largest among them."""
    (got, structure), (wanted, other) = trees.flatten(got), trees.flatten(wanted)
    assert structure == other, what
    for g, w in zip(got, map(as_numpy, wanted)):
        if not isinstance(w, int | float | np.ndarray | np.generic):
            assert g == w, what
            continue
        g, w = np.asarray(g), np.asarray(w)
        assert (g.dtype, g.shape) == (w.dtype, w.shape), what
        if w.dtype.kind in "iub":
            np.testing.assert_array_equal(g, w, what)
        else:
            scale = np.max(np.abs(w), initial=0.0, where=np.isfinite(w))
            np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol * scale, err_msg=what)


def whole(p):
    """The program as a function of what it is differentiated by, with the arguments that it updates as results."""
    trees.flatten(p.args)  # from now on dataclasses are trees

    def run(*moving):
        args = p.fresh()
        for k, x in zip(p.wrt, moving):
            args[k] = x
        result = p.function(*args)
        return (result, [args[k] for k in p.updates]) if p.updates else result

    return run


def moved(tree, dots, step):
    def one(x, d):
        if d is None:
            return x
        a = np.asarray(x)
        new = a + (step * d).astype(a.dtype)
        return new if isinstance(x, np.ndarray) else type(x)(new)

    return trees.map_leaves(one, tree, dots)


def varies(x):
    return isinstance(x, float | np.ndarray | np.generic) and np.asarray(x).dtype.kind == "f"


def direction(tree, rng):
    """A random tangent for every float of a tree."""
    return trees.map_leaves(
        lambda x: rng.normal(size=np.shape(x)).astype(np.asarray(x).dtype) if varies(x) else None, tree
    )


def floats(tree):
    return [np.asarray(x, float) for x in trees.flatten(tree)[0] if varies(x)]


def inner(a, b):
    return float(sum(np.sum(x * y) for x, y in zip(floats(a), floats(b), strict=True)))


def check_derivative(f, plain, primals, p, rtol, what):
    """Forward mode against central differences of ``plain``, and reverse mode against forward mode."""
    rng = np.random.default_rng(0)
    dots = direction(primals, rng)
    high, low = (plain(*moved(primals, dots, s * p.step)) for s in (1, -1))
    bars = direction(high, rng)

    def both(*xs):
        return dflow.jvp(f, xs, dots)[1], dflow.vjp(f, *xs)[1](bars)

    dot, back = dflow.jit(both)(*primals)  # one program: less to compile
    for got, h, l in zip(floats(dot), floats(high), floats(low), strict=True):
        wanted = (h - l) / (2 * p.step)
        scale = max(1e-3, np.max(np.abs(wanted), initial=0.0))
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol * scale, err_msg=f"{what}forward, numeric")
    forward = inner([x for x in trees.flatten(dot)[0] if x is not None], bars)
    tolerance = 1e-4 if any(x.dtype == np.float32 for x in map(np.asarray, trees.flatten(primals)[0])) else 1e-9
    assert inner(back, dots) == pytest.approx(forward, rel=tolerance, abs=tolerance), f"{what}reverse, forward"


@every
def test_value(p):
    plain, mine = p.fresh(), p.fresh()
    with np.errstate(all="ignore"):
        wanted = p.function(*plain)
    got = dflow.jit(p.function, static_argnames=p.static)(*mine)
    compare(got, wanted, p.rtol, "results")
    compare(mine, plain, p.rtol, "arguments after the call")


def as_numpy(x):
    """Results are NumPy's."""
    return np.asarray(x)[()] if isinstance(x, int | float) else x


@differentiable
def test_derivatives(p):
    f = whole(p)
    check_derivative(f, f, tuple(p.fresh()[k] for k in p.wrt), p, p.derivative_rtol, "")


@twice
def test_second_derivatives(p):
    """The derivative of a gradient; differences are of the compiled gradient."""
    f = whole(p)
    primals = tuple(p.fresh()[k] for k in p.wrt)
    rng = np.random.default_rng(1)
    bars = direction(f(*primals), rng)

    def reverse(*xs):
        return dflow.vjp(f, *xs)[1](bars)

    check_derivative(reverse, dflow.jit(reverse), primals, p, 1e-4, "of the gradient: ")
