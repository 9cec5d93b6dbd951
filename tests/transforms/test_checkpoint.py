"""``checkpoint``: what the reverse pass keeps, and that it changes no value and no derivative."""

import numpy as np
import pytest

import dflow

X = np.array([0.3, -1.2, 0.8])


def deep(x):
    for _ in range(6):
        x = np.sin(x) * 1.1
    return x


def residual_count(f, *args):
    """How many numbers the nonlinear part of a function hands to the linear part."""
    from dflow.ir.passes.linearize import linearize

    traced = dflow.jit(f).lower(*args).stages.traced
    primal, _ = linearize(traced, range(len(traced.args)))
    return sum(np.prod(t.bound, dtype=int) for t in primal.result_types[len(traced.results) :])


def test_checkpoint_keeps_arguments_alone():
    kept = dflow.checkpoint(deep)
    assert residual_count(deep, X) >= 15
    assert residual_count(kept, X) == 3
    np.testing.assert_allclose(dflow.jit(kept)(X), deep(X))
    dflow.check_grads(lambda x: np.sum(kept(x)), (X,), order=3)
    np.testing.assert_allclose(dflow.grad(lambda x: np.sum(kept(x)))(X), dflow.grad(lambda x: np.sum(deep(x)))(X))


@pytest.mark.parametrize("count", [7, "n"])
def test_checkpoint_in_loops(count):
    def loop(step):
        def f(x, n):
            for _ in range(7 if count == 7 else n):
                x = step(x)
            return x

        return f

    plain, kept = loop(deep), loop(dflow.checkpoint(deep))
    assert dflow.grad(kept)(0.7, 7) == pytest.approx(dflow.grad(plain)(0.7, 7))
    assert dflow.jvp(kept, (0.7, 7), (1.0, None))[1] == pytest.approx(dflow.grad(plain)(0.7, 7))
    if count == 7:
        assert residual_count(lambda x: kept(x, 7), 0.7) == 7
        assert residual_count(lambda x: plain(x, 7), 0.7) == 7 * 6


def test_what_is_computed_again_stays_apart():
    """The optimizer must not hand the first computation to the second."""

    def f(x):
        return np.sum(dflow.checkpoint(lambda y: np.tanh(np.tanh(np.tanh(y))))(x))

    text = dflow.grad(f).lower(X).ir()
    assert text.count("= tanh") == 3  # the value is not asked for
    text = dflow.value_and_grad(f).lower(X).ir()
    assert text.count("= tanh") == 6


def test_checkpoint_of_loops_branches_and_updates():
    @dflow.checkpoint
    def f(x, n):
        y = np.zeros(4)
        for i in range(n):
            if x[i % 3] > 0:
                y[i % 4] += np.sin(x[i % 3])
            else:
                y[0] = y[0] * x[i % 3]
        while np.sum(y) < 10:
            y = y * 2
        return y

    def whole(x):
        return np.sum(f(x, 9) ** 2)

    np.testing.assert_allclose(dflow.jit(whole)(X), whole(X))
    dflow.check_grads(whole, (X,), order=2)
    dflow.check_grads(lambda x: whole(dflow.checkpoint(lambda x: np.cos(f(x, 3))[:3])(x)), (X,))


def test_checkpoint_as_a_decorator_with_static_arguments():
    @dflow.checkpoint
    def f(x, *, scale=2.0):
        return x * x * scale

    g = dflow.checkpoint(lambda x, name: x**3 if name == "cube" else x, static_argnums=1)
    assert dflow.grad(lambda x: f(x, scale=3.0))(2.0) == 12.0
    assert dflow.grad(lambda x: g(x, "cube"))(2.0) == 12.0
    assert f(2.0) == 8.0
