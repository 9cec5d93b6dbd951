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


def test_texts_are_printed_once(capfd):
    @dflow.checkpoint
    def f(x):
        print(f"at {x:.1f}")
        return np.sin(x) * x

    dflow.grad(lambda x: f(x) * 2)(2.0)
    assert capfd.readouterr().out == "at 2.0\n"


def test_policies_choose_what_is_kept_besides_the_arguments():
    policies, name = dflow.checkpoint_policies, dflow.checkpoint_name
    w = np.array([[0.4, -0.3, 0.2], [0.1, 0.5, -0.6], [0.7, 0.2, 0.3]])
    x = np.array([X, 2 * X])

    def f(x):
        h = name(np.tanh(x @ w), "first")
        h = name(np.tanh(np.sin(h) @ w), "second")
        return np.sum(np.exp(h @ w))

    def kept(policy):
        """The numbers, and that the derivative is the same."""
        g = dflow.checkpoint(f, policy=policy)
        np.testing.assert_allclose(dflow.grad(g)(x), dflow.grad(f)(x))
        return residual_count(g, x)

    first, both = policies.save_only_these_names("first"), policies.save_only_these_names("first", "second")
    n = x.size
    assert [kept(p) for p in (None, policies.nothing_saveable, first, both)] == [n, n, 2 * n, 3 * n]
    assert kept(policies.save_any_names_but_these("second")) == 2 * n
    assert kept(policies.dots_saveable) == 4 * n == kept(policies.dots_with_no_batch_dims_saveable)
    assert kept(policies.save_from_both_policies(first, policies.nothing_saveable)) == 2 * n
    everything = residual_count(f, x)
    assert kept(policies.everything_saveable) == everything
    assert kept(policies.save_anything_except_these_names("first")) >= everything
    dflow.check_grads(dflow.checkpoint(f, policy=both), (x,), order=2)


def test_names_of_values_are_the_values():
    assert dflow.checkpoint_name({"a": 2.0}, "n") == {"a": 2.0}
    f = lambda x: dflow.checkpoint_name(np.sin(x), "wave") * 3  # noqa: E731
    dflow.check_grads(f, (X,), order=2)
    np.testing.assert_allclose(dflow.vmap(dflow.grad(f))(X), 3 * np.cos(X))


def test_a_policy_in_a_loop():
    w = np.array([[0.4, -0.3, 0.2], [0.1, 0.5, -0.6], [0.7, 0.2, 0.3]])
    policy = dflow.checkpoint_policies.save_only_these_names("h")

    def loop(x, w, n, layer):
        for _ in range(n):
            x = layer(x, w)
        return np.sum(x**2)

    def layer(x, w):
        return np.sin(dflow.checkpoint_name(np.tanh(x @ w), "h"))

    gradient = dflow.grad(lambda x, w, n: loop(x, w, n, dflow.checkpoint(layer, policy=policy)), argnums=(0, 1))
    for ours, plain in zip(gradient(X, w, 4), dflow.grad(lambda x, w: loop(x, w, 4, layer), argnums=(0, 1))(X, w)):
        np.testing.assert_allclose(ours, plain)
