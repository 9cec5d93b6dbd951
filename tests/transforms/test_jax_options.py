"""Options and names that programs of JAX use."""

from functools import partial

import numpy as np
import pytest

import dflow
from dflow import lax, tree
from dflow.errors import DerivativeError, TraceError


def with_aux(x):
    return np.sin(x), {"twice": 2 * x}


def test_forward_mode_with_aux():
    value, out, aux = dflow.jvp(with_aux, (1.0,), (3.0,), has_aux=True)
    assert (value, out, aux) == (np.sin(1.0), 3 * np.cos(1.0), {"twice": 2.0})
    value, push, aux = dflow.linearize(with_aux, 1.0, has_aux=True)
    assert (value, push(3.0), aux) == (np.sin(1.0), out, {"twice": 2.0})

    def inside(x):
        _, push, aux = dflow.linearize(with_aux, x, has_aux=True)
        return push(3.0) + dflow.jvp(with_aux, (x,), (3.0,), has_aux=True)[1] + aux["twice"]

    assert dflow.jit(inside)(1.0) == pytest.approx(2 * out + 2)
    with pytest.raises(DerivativeError, match="returns a pair"):
        dflow.jvp(np.sin, (1.0,), (1.0,), has_aux=True)


def test_arguments_without_derivative_by_name():
    @partial(dflow.custom_jvp, nondiff_argnames="n")
    def power(x, n):
        return x**n

    @power.defjvp
    def rule(n, primals, tangents):
        return power(*primals, n), 10 * n * tangents[0]  # ten times too much, to tell it from the derivative

    assert dflow.grad(power)(2.0, 3) == dflow.grad(lambda x: power(x, n=3))(2.0) == 30.0
    with pytest.raises(DerivativeError, match="'m', which f does not take"):
        dflow.custom_vjp(lambda_named_f(), nondiff_argnames=("m",))


def lambda_named_f():
    def f(x):
        return x

    return f


def test_a_policy_of_ones_own_is_refused():
    with pytest.raises(TraceError, match="takes a policy of dflow"):
        dflow.remat(np.sin, policy=np.cos)


def test_trees():
    t = {"a": (1.0, 2.0), "b": [3.0]}
    assert (
        tree.flatten_with_path(t)[0] == tree.leaves_with_path(t) == [(("a", 0), 1.0), (("a", 1), 2.0), (("b", 0), 3.0)]
    )
    assert tree.map_with_path(lambda way, x, y: (way[0], x + y), t, t) == {
        "a": (("a", 2.0), ("a", 4.0)),
        "b": [("b", 6.0)],
    }
    assert tree.all(t)
    assert not tree.all({"a": 0, "b": 1})
    outer, inner = tree.structure([0, 0]), tree.structure({"a": 0, "b": 0})
    assert tree.transpose(outer, inner, [{"a": 1, "b": 2}, {"a": 3, "b": 4}]) == {"a": [1, 3], "b": [2, 4]}
    with pytest.raises(TraceError, match="outer tree"):
        tree.transpose(outer, inner, [1, 2, 3])


X = np.arange(12.0).reshape(3, 4)
ARRAYS = {
    "dynamic_slice": (lambda x, i: lax.dynamic_slice(x, (i, 1), (2, 2)), X[1:, 1:3]),
    "dynamic_slice_in_dim": (lambda x, i: lax.dynamic_slice_in_dim(x, i - 3, 2, 1), X[:, 2:]),
    "dynamic_index_in_dim": (lambda x, i: lax.dynamic_index_in_dim(x, i, 0, False), X[2]),
    "dynamic_update_slice": (lambda x, i: lax.dynamic_update_slice(x, X[:1, :1], (i, -1))[2], [8.0, 9.0, 10.0, 0.0]),
    "dynamic_update_slice_in_dim": (lambda x, i: lax.dynamic_update_slice_in_dim(x, X[:2] * 0, i, 0)[1:], 0 * X[1:]),
    "select": (lambda x, i: lax.select(x > i, x, -x), np.where(X > 2, X, -X)),
    "select_n": (lambda x, i: lax.select_n(x > i, x, -x), np.where(X > 2, -X, X)),
    "clamp": (lambda x, i: lax.clamp(1.0, x, i * 2.5), np.clip(X, 1, 5)),
    "rsqrt": (lambda x, i: lax.rsqrt(x + i), 1 / np.sqrt(X + 2)),
    "integer_pow": (lambda x, i: lax.integer_pow(x, 3), X**3),
    "top_k": (lambda x, i: lax.top_k(x, 2)[0], X[:, :1:-1]),
    "top_k of equal elements": (
        lambda x, i: lax.top_k(np.array([2.0, 1.0, 2.0, 2.0, 1.0]), 4)[1],
        np.array([0, 2, 3, 1]),
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_functions_of_arrays(name):
    f, wanted = ARRAYS[name]
    np.testing.assert_allclose(dflow.jit(f, backend="reference")(X, 2), wanted)


def test_parts_outside_of_traces():
    np.testing.assert_array_equal(lax.dynamic_slice(X, (2, 1), (2, 2)), X[1:, 1:3])
    with pytest.raises(ValueError, match="a part of size 5"):
        lax.dynamic_slice(X, (0, 0), (1, 5))
    assert lax.stop_gradient is dflow.stop_gradient


def test_gradients_by_integers_are_none_where_they_are_allowed():
    def item(x, i):
        return x[i]

    gradient, none = dflow.grad(item, argnums=(0, 1), allow_int=True)(np.ones(3), 1)
    np.testing.assert_array_equal(gradient, [0.0, 1.0, 0.0])
    assert none is None
    assert dflow.value_and_grad(lambda x: 2.0 * x, allow_int=True)(3) == (6.0, None)
    with pytest.raises(DerivativeError, match="allow_int=True"):
        dflow.grad(item, argnums=(0, 1))(np.ones(3), 1)
