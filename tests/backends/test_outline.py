"""Loops of large programs as functions of their own."""

import numpy as np

import dflow
from dflow.backends.emit import linalg as emit_linalg

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


def products(ws, y):
    """Products of a matrix with itself, with others on either side, and of another width among them."""
    for w in ws:
        y = 0.3 * (y @ y) + (w @ y) - (y @ w)
        y = y + w[:, :5].copy() @ y[:5].copy()
    return y


def test_products_share_functions_where_they_read_the_same_places(monkeypatch):
    written = []
    tiles = emit_linalg._in_tiles
    monkeypatch.setattr(emit_linalg, "_in_tiles", lambda *given: written.append(given) or tiles(*given))
    r = np.random.default_rng(2)
    ws, y = [r.normal(size=(D, D)) / D for _ in range(6)], r.normal(size=(D, D)) / D
    f = dflow.jit(products)
    assert np.allclose(f(ws, y), products(ws, y), rtol=1e-13)
    assert 3 <= len(written) <= 12  # of 24
