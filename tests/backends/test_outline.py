"""Loops of large programs as functions of their own."""

import numpy as np

import dflow

D = 6


def layers(ws, x):
    for w in ws:
        x = x + np.tanh(x @ w) / np.sum(x * x, axis=-1, keepdims=True)
    return x


def test_layers_that_say_the_same_share_functions():
    r = np.random.default_rng(0)
    ws, x = [r.normal(size=(D, D)) for _ in range(5)], r.normal(size=(4, D))
    f = dflow.jit(layers)
    assert np.allclose(f(ws, x), layers(ws, x), rtol=1e-13)
    text = f.lower(ws, x).compile().compiled.unoptimized
    defined, called = (text.count(f'{what} void @"dflow_program.kernel') for what in ("define internal", "call"))
    assert called >= 15 and defined < called / 2


def test_their_gradient():
    r = np.random.default_rng(1)
    ws, x = [r.normal(size=(D, D)) for _ in range(3)], r.normal(size=(4, D))
    found = dflow.grad(lambda ws: np.sum(layers(ws, x) ** 2))(ws)
    k, step = (2, 3), 1e-6
    ends = []
    for sign in (1, -1):
        moved = [w.copy() for w in ws]
        moved[1][k] += sign * step
        ends.append(np.sum(layers(moved, x) ** 2))
    assert np.isclose(found[1][k], (ends[0] - ends[1]) / (2 * step), rtol=1e-6)
