"""A gradient that is zero for all arguments warns, and names the place where the dependence is lost."""

import warnings

import numpy as np
import pytest

import dflow
from dflow.errors import ZeroGradientWarning


def floors(x):
    k = np.floor(x[0] * 2)
    return k * 3.0


def counts(x):
    n = 0.0
    for i in range(10):
        if x[i % 3] > 0:
            n += 1.0
    return n


def casts(x):
    return float(int(x[0])) + 1


def selects(x):
    return np.arange(3.0)[np.argmax(x)]


def waits(x):
    n = 0.0
    while n < x[0]:
        n += 1.0
    return n


def length(x):
    return float(len(x))


def smooth(x):
    n = 0.0
    for i in range(10):
        if x[0] > 0:
            n += x[i % 3]
    return n * np.floor(x[0])


STEPS = {
    floors: ("floor", "k = np.floor(x[0] * 2)"),
    counts: ("gt", "if x[i % 3] > 0:"),
    casts: ("convert to i64", "return float(int(x[0])) + 1"),
    selects: ("argmax", "return np.arange(3.0)[np.argmax(x)]"),
    waits: ("lt", "while n < x[0]:"),
}


@pytest.mark.parametrize("fn", STEPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("transform", [dflow.grad, dflow.value_and_grad])
def test_steps(fn, transform):
    with pytest.warns(ZeroGradientWarning) as caught:
        transform(fn)(np.ones(3))
    (warning,) = caught
    first, line, caret, mend = str(warning.message).splitlines()
    what, source = STEPS[fn]
    assert first.endswith(f"is zero: the result depends on x only in steps ({what})")
    assert line.strip() == source and set(caret.strip()) == {"^"} and mend.startswith("mend: use a smooth function")
    assert warning.filename == __file__


def test_no_dependence():
    with pytest.warns(ZeroGradientWarning, match="gradient of length by x is zero: the result does not depend on x"):
        dflow.grad(length)(np.ones(3))
    with pytest.warns(ZeroGradientWarning, match=r"by p\['b'\] is zero"):
        dflow.grad(lambda p: p["a"] ** 2)({"a": 1.0, "b": 2.0})
    with pytest.warns(ZeroGradientWarning, match="by y is zero"):
        dflow.grad(lambda x, y: x * x, argnums=(0, 1))(1.0, 2.0)


def test_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dflow.grad(smooth)(np.ones(3))
        dflow.grad(lambda x: dflow.stop_gradient(x) * 2.0)(1.0)
        dflow.hessian(lambda x: np.sum(x))(np.ones(3))
