"""Reductions, statistics, running sums and norms against NumPy, over axes and dtypes."""

import numpy as np
import pytest
from traced_numpy import agrees, run, traced

import dflow.numpy as dnp

KINDS = ["f8", "f4", "f2", "i8", "i4", "u1", "?"]
AXES = [None, 0, 1, -1, (0, 2), (-1, 0), ()]


def cube(kind):
    return (np.arange(24).reshape(2, 3, 4) * 7 % 5 + (kind == "f8") * 0.25).astype(kind)


REDUCTIONS = [np.sum, np.prod, np.max, np.min, np.any, np.all, np.mean, np.var, np.std]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("f", REDUCTIONS)
def test_axes(f, axis, kind):
    agrees(lambda x: f(x, axis=axis), cube(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("f", REDUCTIONS)
def test_keepdims(f, kind):
    agrees(lambda x: f(x, axis=1, keepdims=True), cube(kind))
    agrees(lambda x: f(x, keepdims=True), cube(kind))


@pytest.mark.parametrize(
    "method", ["sum", "prod", "max", "min", "any", "all", "mean", "var", "std", "argmax", "argmin"]
)
def test_methods(method):
    agrees(lambda x: getattr(x, method)(), cube("f8"))
    agrees(lambda x: getattr(x, method)(axis=-1), cube("i4"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("f", [np.argmax, np.argmin, np.cumsum, np.cumprod, np.count_nonzero])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_positions_and_running(f, axis, kind):
    agrees(lambda x: f(x, axis=axis), cube(kind))


@pytest.mark.parametrize("kind", ["f8", "f4", "i8", "u1"])
def test_arguments(kind):
    x = cube(kind)
    agrees(lambda x: np.sum(x, dtype=np.float64), x)
    agrees(lambda x: np.sum(x, axis=0, initial=5), x)
    agrees(lambda x: np.prod(x, axis=0, initial=2), x)
    agrees(lambda x: np.max(x, axis=2, initial=3), x)
    agrees(lambda x: np.min(x, initial=1), x)
    agrees(lambda x: np.sum(x, axis=1, where=x > 1), x)
    agrees(lambda x: np.max(x, axis=1, where=x > 1, initial=0), x)
    agrees(lambda x: np.mean(x, axis=1, where=x < 4), x)
    agrees(lambda x: np.var(x, ddof=1), x)
    agrees(lambda x: np.std(x, axis=(0, 1), ddof=1, keepdims=True), x)
    agrees(lambda x: np.var(x, axis=0, correction=1), x)
    agrees(lambda x: np.mean(x, dtype=np.float32), x)
    agrees(lambda x: np.ptp(x, axis=1), x)
    agrees(lambda x: np.argmax(x, axis=1, keepdims=True), x)
    agrees(lambda x: np.cumsum(x, axis=1, dtype=np.float64), x)


def test_out():
    def f(x):
        z = np.sum(x, axis=0) * 0
        np.sum(x, axis=0, out=z)
        return z

    agrees(f, cube("f8"))


@pytest.mark.parametrize("kind", ["f8", "f4", "i8"])
def test_average(kind):
    x = cube(kind)
    agrees(np.average, x)
    agrees(lambda x: np.average(x, axis=1, weights=[1.0, 2.0, 3.0]), x)
    agrees(lambda x: np.average(x, axis=-1, weights=[1, 2, 3, 4], returned=True), x)
    agrees(lambda x: np.average(x, weights=x + 1), x)
    agrees(lambda x: np.average(x, axis=0, returned=True, keepdims=True), x)


NAN = np.array([[1.0, np.nan, 3.0], [np.nan, -5.0, 6.0], [7.0, 8.0, 9.0]])


@pytest.mark.parametrize("f", [np.nansum, np.nanprod, np.nanmax, np.nanmin, np.nanmean, np.nanvar, np.nanstd])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_without_nan(f, axis):
    agrees(lambda x: f(x, axis=axis), NAN)
    agrees(lambda x: f(x, axis=axis, keepdims=True), NAN.astype("f4"))
    agrees(lambda x: f(x, axis=axis), cube("i8"))


@pytest.mark.filterwarnings("ignore")
def test_all_nan():
    agrees(lambda x: (np.nanmax(x, 0), np.nanmin(x, 0), np.nanmean(x, 0)), np.array([[np.nan, 1.0], [np.nan, 2.0]]))


def test_nan_wins():
    agrees(lambda x: (np.max(x), np.min(x, axis=1), np.argmax(x, axis=0)), NAN)


@pytest.mark.filterwarnings("ignore")
def test_empty():
    x = np.zeros((0, 3))
    agrees(lambda x: (np.sum(x, axis=0), np.prod(x), np.any(x), np.all(x, axis=0)), x)
    agrees(lambda x: np.max(x, axis=0, initial=2.0), x)
    agrees(lambda x: np.max(x, axis=1), x)
    agrees(lambda x: np.cumsum(x, axis=0), x)
    agrees(lambda x: np.mean(x, axis=0), x)


@pytest.mark.parametrize("order", [None, 2, 1, 0, 3, 0.5, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["f8", "f4", "i8"])
def test_vector_norms(order, kind):
    x = np.array([3.0, -4.0, 12.0]).astype(kind)
    agrees(lambda x: np.linalg.norm(x, order), x)
    agrees(lambda x: np.linalg.norm(x[None] * np.ones((2, 1), kind), order, axis=1), x)
    agrees(lambda x: np.linalg.norm(x[:, None], ord=order, axis=0, keepdims=True), x)


@pytest.mark.parametrize("order", [None, "fro", 1, -1, np.inf, -np.inf])
def test_matrix_norms(order):
    agrees(lambda x: np.linalg.norm(x, order), cube("f8")[0])
    agrees(lambda x: np.linalg.norm(x, order, axis=(2, 1)), cube("f8"))
    agrees(lambda x: np.linalg.norm(x, order, axis=(0, 1), keepdims=True), cube("f8"))


def test_norm_of_a_cube():
    agrees(np.linalg.norm, cube("f4"))


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: np.sum(x, axis=3), "axis 3 is out of bounds for array of dimension 3"),
        (lambda x: np.sum(x, axis=(0, 0)), "repeated axis"),
        (lambda x: np.max(x[:0]), "zero-size array to reduction operation maximum"),
        (lambda x: np.max(x, where=x > 0), "does not have an identity"),
        (lambda x: np.argmax(x[:, :0], axis=1), "attempt to get argmax of an empty sequence"),
        (lambda x: np.quantile(x[:0], 0.5), "quantile of no elements"),
        (lambda x: np.linalg.norm(x[0], 5), "Invalid norm order"),
        (lambda x: np.average(x, weights=[1.0, 2.0], axis=1), "Shape of weights"),
    ],
)
def test_errors_tell(f, message):
    with pytest.raises((TypeError, ValueError), match=message):
        traced(f, cube("f8"))


def test_norm_and_spread_have_derivative_zero_at_zero():
    from dflow.ir.evaluator import evaluate
    from dflow.ir.passes.vjp import vjp

    for f in (np.linalg.norm, np.std, lambda x: np.linalg.norm(x, 3), lambda x: np.linalg.norm(x[None], "fro")):
        function, _ = traced(f, np.zeros(3))
        results = evaluate(vjp(function), [np.zeros(3), np.array(1.0)])
        assert all(np.all(np.isfinite(r)) for r in results)
        assert np.all(results[-1] == 0)


def test_sum_of_traced_scalars():
    assert run(lambda x, y: dnp.sum([x, y]), 2.0, 3.0)[0] == 5.0
