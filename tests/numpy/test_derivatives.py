"""Derivatives of composed functions: against differences, and at their kinks."""

import math

import numpy as np
import pytest
from traced_numpy import traced

import dflow
import dflow.numpy as dnp
from dflow.ir.evaluator import evaluate
from dflow.ir.passes.jvp import jvp
from dflow.ir.passes.vjp import vjp
from dflow.numpy.math_functions import call_math


def gradient(f, *args):
    """The gradient of a function with one number as its result."""
    function, _ = traced(f, *args)
    results = evaluate(vjp(function), [*map(np.array, args), np.array(1.0)])
    return results[-len(args) :]


SMOOTH = {
    "logaddexp": lambda x: np.sum(np.logaddexp(x, x[::-1] * 0.5)),
    "logaddexp2": lambda x: np.sum(np.logaddexp2(x, 0.5)),
    "sinc": lambda x: np.sum(np.sinc(x)),
    "sinc near 0": lambda x: np.sum(np.sinc(x * 0.01)),
    "var": lambda x: np.var(x, ddof=1),
    "std": np.std,
    "nanvar": np.nanvar,
    "average": lambda x: np.average(x, weights=x * x),
    "norm": np.linalg.norm,
    "norm 3": lambda x: np.linalg.norm(x, 3),
    "matrix norm 1": lambda x: np.linalg.norm(x.reshape(2, 2), 1),
    "cumsum": lambda x: np.sum(np.cumsum(x) ** 2),
    "cumprod": lambda x: np.sum(np.cumprod(x)),
    "prod": np.prod,
    "einsum": lambda x: np.einsum("ij,jk,ki->", x.reshape(2, 2), x.reshape(2, 2), x.reshape(2, 2)),
    "einsum diagonal": lambda x: np.einsum("ii,i->", x.reshape(2, 2), x[:2]),
    "kron": lambda x: np.sum(np.kron(x, x) ** 2),
    "cross": lambda x: np.sum(np.cross(x[:3], x[1:]) ** 2),
    "tril": lambda x: np.sum(np.tril(x.reshape(2, 2)) ** 2),
    "diag": lambda x: np.sum((np.diag(x) + x) ** 3),
    "roll": lambda x: np.sum(np.roll(x, 1) * x),
    "flip": lambda x: np.sum(np.flip(x) * x * x),
    "tile": lambda x: np.sum(np.tile(x, (2, 2)) ** 3),
    "repeat": lambda x: np.sum(np.repeat(x, 3) ** 3),
    "pad": lambda x: np.sum(np.pad(x, 2, "reflect") ** 2),
    "take": lambda x: np.sum(np.take(x, [0, 0, 3]) ** 2),
    "where": lambda x: np.sum(np.where(x > 0.6, np.sqrt(x), x * x)),
    "clip": lambda x: np.sum(np.clip(x, 0.5, 1.0) ** 2),
    "power": lambda x: np.sum(x ** x[::-1]),
    "integer power": lambda x: np.sum(x**3 + x**-2),
    "float_power": lambda x: np.sum(np.float_power(x, 2.5)),
    "linspace": lambda x: dnp.sum(dnp.linspace(x[0], x[1], 5) ** 2),
    "gamma": lambda x: call_math(math.gamma, x[0]),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_against_differences(name):
    f, x, h = SMOOTH[name], np.array([0.7, 0.55, 1.3, 0.9]), 1e-6
    numeric = [(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(4)]
    np.testing.assert_allclose(gradient(f, x)[0], numeric, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "f, x, wanted",
    [
        (lambda x: np.linalg.norm(x), [0.0, 0.0], [0.0, 0.0]),
        (lambda x: np.linalg.norm(x, 3), [0.0, 0.0], [0.0, 0.0]),
        (lambda x: np.linalg.norm(x, 1), [0.0, -2.0], [0.0, -1.0]),
        (np.std, [2.0, 2.0], [0.0, 0.0]),
        (np.max, [3.0, 3.0], [0.5, 0.5]),
        (lambda x: np.sum(np.clip(x, 0.0, 1.0)), [0.0, 1.0, 0.5, 2.0], [0.5, 0.5, 1.0, 0.0]),
        (lambda x: np.sum(np.maximum(x, 1.0)), [1.0, 2.0], [0.5, 1.0]),
        (lambda x: np.sum(np.abs(x)), [0.0, -1.0], [0.0, -1.0]),
        (lambda x: np.sum(np.sinc(x)), [0.0, 1.0], [0.0, -1.0]),
        (lambda x: np.logaddexp(x[0], x[1]), [1.0, 1.0], [0.5, 0.5]),
        (lambda x: np.logaddexp(x[0], x[1]), [1000.0, 0.0], [1.0, 0.0]),
        (lambda x: np.logaddexp(x[0], x[1]), [-np.inf, 0.0], [0.0, 1.0]),
        (lambda x: np.nanmean(x), [np.nan, 1.0, 2.0], [0.0, 0.5, 0.5]),
        (lambda x: np.nanvar(x), [np.nan, 1.0, 3.0], [0.0, -1.0, 1.0]),
        (lambda x: np.nansum(x * x), [np.nan, 3.0], [0.0, 6.0]),
        (lambda x: np.sum(np.fmax(x, 1.0)), [np.nan, 3.0], [0.0, 1.0]),
        (lambda x: np.sum(np.nan_to_num(x)), [np.nan, 3.0], [0.0, 1.0]),
        (np.prod, [0.0, 2.0, 3.0], [6.0, 0.0, 0.0]),
        (lambda x: np.sum(np.cumprod(x)), [0.0, 2.0, 3.0], [9.0, 0.0, 0.0]),
        (lambda x: np.sum(np.sum(x, where=x > 1.0)), [0.0, 2.0], [0.0, 1.0]),
        (lambda x: np.sum(x**2), [0.0, -3.0], [0.0, -6.0]),
    ],
)
def test_kinks_and_limits(f, x, wanted):
    np.testing.assert_allclose(gradient(f, np.array(x))[0], wanted, atol=1e-12)


@pytest.mark.parametrize(
    "f, x, wanted",
    [
        (np.sinc, 0.0, -(np.pi**2) / 3),
        (np.sinc, 1e-5, -(np.pi**2) / 3),
        (lambda x: np.logaddexp(x, 0.0), 0.0, 0.25),
        (lambda x: np.logaddexp(0.0, x), 0.0, 0.25),
        (lambda x: x**2, 0.0, 2.0),
    ],
)
def test_second_derivatives_at_seams(f, x, wanted):
    function, _ = traced(f, np.float64(x))
    first = jvp(function)
    second = jvp(first)
    point, one = np.array(x), np.array(1.0)
    results = evaluate(second, [point, one, one, np.array(0.0)][: len(second.args)])
    np.testing.assert_allclose(results[-1], wanted, rtol=1e-8)


def test_what_a_mask_leaves_out_is_in_no_derivative():
    x, y = np.array([3.0, 0.0, 4.0]), np.array([1.0, 0.0, 2.0])

    def f(x, y):
        positive = y > 0
        return np.divide(x, y, where=positive) + np.log(x, where=positive) + np.hypot(x, y)

    by_x, by_y = dflow.grad(lambda x, y: f(x, y).sum(), argnums=(0, 1))(x, y)
    length = np.where(y > 0, np.hypot(x, y), 1)
    np.testing.assert_allclose(by_x, np.array([1 + 1 / 3, 0, 0.75]) + x / length)
    np.testing.assert_allclose(by_y, np.array([-3.0, 0, -1]) + y / length)


def test_a_root_at_zero_that_is_not_used():
    """Distances of a point to itself: their derivative is infinite, and times zero it is nothing."""

    def nearest(x):
        d = np.sqrt(((x[:, None] - x) ** 2).sum(-1))
        np.fill_diagonal(d, np.inf)
        return d.min(axis=1).sum()

    def energy(x):
        d = (((x[:, None] - x) ** 2).sum(-1)) ** 0.5
        d[d > 0] = 1 / d[d > 0]
        return np.triu(d, 1).sum()

    x = np.random.default_rng(0).normal(size=(4, 2))
    dflow.check_grads(nearest, (x,))
    dflow.check_grads(energy, (x,))
    np.testing.assert_array_equal(dflow.grad(lambda x: np.sqrt(x).sum())(np.array([0.0, 4.0])), [np.inf, 0.25])


def test_what_an_extremum_leaves_out_has_no_derivative_however_steep_the_rest():
    x = np.array([-1.0, 4.0])
    for f in (
        lambda x: np.sqrt(np.maximum(x, 0.0)),
        lambda x: 1.0 - np.sqrt(np.clip(x, 0.0, 9.0)),
        lambda x: sum_of_roots(x),
    ):
        forward = dflow.jvp(lambda x, f=f: np.sum(f(x)), (x,), (np.ones(2),))[1]
        gradient = dflow.grad(lambda x, f=f: np.sum(f(x)))(x)
        np.testing.assert_allclose(gradient, [0.0, forward])
        assert np.isfinite(forward)


def sum_of_roots(x):
    total = 0.0
    for v in x:
        total += max(v, 0.0) ** 0.5
    return total


def choice(x):
    return np.log(np.maximum(x, 0.0))


def branch(x):
    y = x if x > 0 else 0.0
    return 2 * np.log(y) + 1


def of_two(x):
    y = np.maximum(x, 0.0)
    return np.log(y * np.sin(y))


@pytest.mark.parametrize("f", [choice, branch, of_two, lambda x: np.arccos(np.where(x > 0, x, -1.0)) ** 0.5])
def test_forward_mode_has_what_reverse_mode_has_beside_a_choice(f):
    def derivatives(x):
        forward, reverse = dflow.jvp(f, (x,), (1.0,))[1], dflow.grad(f)(x)
        pushed, pulled = dflow.linearize(f, x)[1](1.0), dflow.vjp(f, x)[1](1.0)[0]
        second = dflow.jvp(dflow.grad(f), (x,), (1.0,))[1], dflow.grad(lambda x: dflow.jvp(f, (x,), (1.0,))[1])(x)
        return np.array([forward, reverse, pushed, pulled]), np.array(second)

    first, second = dflow.jit(derivatives)(-1.0)
    assert not first.any() and not second.any()
    first, second = dflow.jit(derivatives)(0.5)
    np.testing.assert_allclose(first, first[0])
    np.testing.assert_allclose(second, second[0])
    assert first[0] != 0
    rows = dflow.jacfwd(lambda x: np.stack([f(v) for v in x]))(np.array([-1.0, 0.5]))
    np.testing.assert_allclose(rows, np.diag([0.0, first[0]]))
