"""Operations that go line by line, one block a line."""

import numpy as np
import pytest
from on_device import compare, numbers

import dflow
from dflow.backends.cuda.kernels import line as line_kernel
from dflow.backends.cuda.planning import work


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Short lines, and few, too."""
    monkeypatch.setattr(work, "WIDE", 4)
    for name, value in (("FEWEST_LINES", 3), ("SHORTEST", 20), ("THREADS", 32), ("MOST_THREADS", 64)):
        monkeypatch.setattr(line_kernel, name, value)


def softmax(x):
    e = np.exp(x - np.max(x, axis=1)[:, None])
    return e / np.sum(e, axis=1)[:, None]


def layer_norm(x, scale, shift):
    centred = x - np.mean(x, axis=1)[:, None]
    return centred / np.sqrt(np.mean(centred**2, axis=1) + 1e-5)[:, None] * scale + shift


def test_softmax(gpu):
    assert compare(softmax, numbers(8, 140)) == ["lines"]
    slope = dflow.grad(lambda x: np.sum(softmax(x) ** 2))
    assert "lines" in compare(slope, numbers(8, 30, dtype="f4"), rtol=1e-5)


def test_layer_norm(gpu, monkeypatch):
    monkeypatch.setattr(line_kernel, "MOST_BLOCKS", 5)  # several lines for each
    x, scale, shift = numbers(8, 40), numbers(40, seed=1), numbers(40, seed=2)
    assert compare(layer_norm, x, scale, shift) == ["lines"]
    compare(dflow.grad(lambda *x: np.sum(layer_norm(*x) ** 2), (0, 1, 2)), x, scale, shift)


def test_several_axes_in_a_line(gpu):
    def f(x):
        y = np.sin(x)
        y = y - np.max(y, (1, 2))[:, None, None]
        return y * x[:, ::-1, :], np.sum(y * y, (1, 2))

    assert "lines" in compare(f, numbers(4, 5, 30))


def test_folds_of_a_block_share_their_places(gpu, monkeypatch):
    """Wherever the first of them stands."""
    monkeypatch.setattr(work, "WIDE", 1000)
    assert compare(layer_norm, numbers(3, 70), numbers(70), numbers(70)) == ["steps"]


def test_lines_that_read_others_do_not_go_together(gpu):
    def f(x):
        y = np.exp(x - np.max(x, axis=1)[:, None])
        z = y[::-1] + np.sum(y, axis=1)[:, None]
        return z - np.max(z, axis=1)[::-1, None]

    compare(f, numbers(5, 40))


def test_updates_in_place(gpu):
    """Others read what a line overwrites."""

    def f(x):
        x = x * 2
        m = np.max(x, axis=1)
        y = x.T + m
        x -= m[:, None]
        return x, y, np.sum(x, axis=1)

    compare(f, numbers(30, 30))
