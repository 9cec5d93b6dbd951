"""``dflow.debug.print``: texts by ``str.format``, when the program runs."""

import numpy as np
import pytest

import dflow


@pytest.mark.parametrize("make", [lambda f: f, dflow.jit])
def test_formats(make, capsys):
    @make
    def f(x, n):
        dflow.debug.print("{x} {n:03d} {{}}", x=x, n=n)
        dflow.debug.print("{} {:.3f} {y[1]}", n, x[0], y=x, ordered=True)
        dflow.debug.print("{1} {0:{width}}", n, "known", width=4)
        return x

    f(np.array([1.5, 2.0]), 7)
    assert capsys.readouterr().out.splitlines() == ["[1.5 2. ] 007 {}", "7 1.500 2.0", "known    7"]


def test_in_derivatives(capsys):
    def f(x):
        dflow.debug.print("x = {}", x)
        return x * x

    assert dflow.grad(f)(3.0) == 6.0
    assert capsys.readouterr().out == "x = 3.0\n"
