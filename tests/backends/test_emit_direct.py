"""Parts that are computed where they are written, and tapes whose room is made before a loop."""

import numpy as np
import pytest

import dflow

RNG = np.random.default_rng(5)
X = RNG.normal(size=(9, 7))
V = RNG.normal(size=7)


def rows(x, v):
    y = np.zeros((9, 7))
    for i in range(9):
        y[i, :i] += np.sin(x[i, :i]) * 2.0
        y[: i // 2, 1] -= x[: i // 2, 2] * v[0]
    return y


def reads_what_it_writes(x, v):
    y = x.copy()
    for i in range(1, 7):
        y[:, i:] += y[:, : 7 - i] * v[i]
        y[::-1, 0] = y[:, 0] + y[:, 1]
    return y


def overwritten_meanwhile(x, v):
    y, z = x.copy(), x.copy()
    for i in range(1, 6):
        part = z[1:i, :] * v[i]
        z[1:i, :] = 0.5 * y[1:i, :]
        y[1:i, :] += part
    return y + z


def element_by_element(x, v):
    y, z = x.copy(), x.copy()
    for k in range(3):
        y[2:, k:5] = np.sin(y[2:, k:5]) * v[: 5 - k]
        y[::3, 1] += y[::3, 1] * x[:3, k] + y[::3, 2]
        z[k, 1:] *= z[k, 1:] + v[:6]
        y[1:, k:5] = np.cos(y[1:, k:5]) + y[:-1, k:5]
        z[3:, k] = z[3:, k] * z[:-3, 6] + z[3:, k + 1]
    return y + z


def stacked(x, v):
    y = x.copy()
    part = y[1:5] * 2.0
    several = np.stack([y[:4] + v, part, y[2:6] * v, part.copy()], 1).reshape(16, 7)
    y[2:6] = 0.0
    columns = np.stack([v + y[0], np.sin(v), v * several[3]], -1)
    return (y + columns[:, :1].T) @ columns @ np.ones((3, 7)) + several[:9] * 2.0


@pytest.mark.parametrize("f", [rows, reads_what_it_writes, overwritten_meanwhile, element_by_element, stacked])
def test_values_and_gradients(f):
    np.testing.assert_allclose(dflow.jit(f)(X, V), f(X, V), rtol=1e-13)
    w = np.cos(np.arange(63.0)).reshape(9, 7)
    bars = dflow.grad(lambda x, v: np.sum(w * f(x, v) ** 2), argnums=(0, 1))(X, V)
    dots = RNG.normal(size=X.shape), RNG.normal(size=V.shape)
    _, slope = dflow.jvp(lambda x, v: np.sum(w * f(x, v) ** 2), (X, V), dots)
    assert np.isclose(sum(np.sum(b * d) for b, d in zip(bars, dots)), slope, rtol=1e-10)


def test_parts_of_stacks_are_written_once():
    f = dflow.jit(lambda x: np.stack([x[1:] - x[:-1], x[1:] + x[:-1]], 1))
    text = f.lower(X).ir("lowered")
    assert "reshape" not in text
    assert text.count(" = kernel ") == text.count(" = update ") == 2


def test_outer_products_are_added_where_they_go():
    def f(a, g):
        bar = np.zeros((40, 30))
        for k in range(5):
            bar[:, k : k + 20] += np.multiply.outer(a[:, k], g[k, :20])
        return bar

    a, g = RNG.normal(size=(40, 9)), RNG.normal(size=(9, 25))
    np.testing.assert_allclose(dflow.jit(f)(a, g), f(a, g), rtol=1e-12, atol=1e-14)


def test_tapes_of_any_length_are_kept_and_not_cleared():
    def tree(s, n):
        v = np.zeros(40)
        for i in range(n + 1):
            v[i] = max(1.0 - s * 1.1 ** (2 * i - n), 0.0)
        for t in range(n - 1, -1, -1):
            for i in range(t + 1):
                v[i] = max(0.5 * (v[i + 1] * s + v[i]), 1.0 - s * 1.1 ** (2 * i - t))
        return v[0]

    gradient = dflow.grad(tree)
    for n in (5, 30, 3, 31, 12):
        _, slope = dflow.jvp(tree, (0.9, n), (1.0, None))
        assert np.isclose(gradient(0.9, n), slope, rtol=1e-12), n


def test_nested_loops_of_unknown_length_keep_whole_arrays():
    def pairs(x, steps):
        for _ in range(steps):
            a = np.zeros(12)
            for i in range(12):
                for j in range(12):
                    a[i] += np.tanh(x[i] - x[j])
            x = x + 0.01 * a
        return np.sum(x**2)

    x = RNG.normal(size=12)
    text = dflow.jit(dflow.grad(pairs)).lower(x, 3).ir("optimized")
    made = [line.split(" : ")[1] for line in text.splitlines() if " = tape " in line]
    assert made == ["f64[*, 12]"]
    dot = RNG.normal(size=12)
    _, slope = dflow.jvp(lambda x: pairs(x, 3), (x,), (dot,))
    assert np.isclose(dflow.grad(pairs)(x, 3) @ dot, slope, rtol=1e-12)
