"""Long straight code of small arrays, divided into functions."""

import numpy as np
import pytest

import dflow
from dflow.backends.emit import pieces


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(pieces, "LENGTH", 12)


def steps(x, k):
    """Numbers, bools and complex numbers that go far, arrays of all pieces and of one, slices and updates."""
    first, y, z, total = x[0] > 0.3, x.copy(), x[1] * (1.0 + 2.0j), 0.0
    for _ in (None,) * 12:  # not a loop
        y = np.sin(y) * x + y[::-1]
        y[1:] += 0.5 * y[:-1]
        w = y / (1.0 + np.sum(y * y))
        z = z * 0.5 + w[k]
        total += np.where(first, w[0], w[1]) + np.max(w)
    return total + abs(z), y


X = np.array([0.4, -0.7, 0.9])


def test_pieces_compute_what_the_whole_does(monkeypatch):
    f = dflow.jit(steps)
    assert f.lower(X, 1).compile().compiled.unoptimized.count("call i32") > 10
    for found, wanted in zip(f(X, 1), steps(X, 1)):
        assert np.allclose(found, wanted, rtol=1e-13)


def test_their_gradient_is_that_of_the_whole(monkeypatch):
    def loss(x):
        total, y = steps(x, 2)
        return total * np.sum(y)

    found = dflow.grad(loss)(X)
    moves = 1e-6 * np.eye(3)
    assert np.allclose(found, [(loss(X + d) - loss(X - d)) / 2e-6 for d in moves], rtol=1e-6)
    monkeypatch.setattr(pieces, "LENGTH", 10**6)
    assert np.allclose(found, dflow.grad(lambda x: loss(x))(X), rtol=1e-13)


def test_a_piece_may_fail():
    f = dflow.jit(steps)
    with pytest.raises(IndexError):
        f(X, 3)
    assert np.isclose(f(X, -1)[0], steps(X, -1)[0], rtol=1e-13)


def test_what_is_left_in_an_argument():
    def update(x):
        for _ in (None,) * 20:
            x[1:] += 0.1 * x[:-1] * x[2]
            x[0] = np.sum(x) * 0.3

    found, wanted = X.copy(), X.copy()
    dflow.jit(update)(found)
    update(wanted)
    assert np.allclose(found, wanted, rtol=1e-13)
