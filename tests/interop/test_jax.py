"""dflow's functions inside JAX programs; runs where JAX is installed."""

import numpy as np
import pytest

import dflow

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)


def simulate(x, n):
    y = x.copy()
    for _ in range(n):
        for i in range(1, len(y)):
            if y[i] > 0:
                y[i] += 0.1 * np.sin(y[i - 1])
    return {"y": y, "n": n}


X = np.array([0.3, -1.2, 0.8])


def test_values_and_gradients():
    import dflow
    from dflow.interop.jax import wrap

    f = wrap(simulate)
    np.testing.assert_allclose(f(X, 4)["y"], simulate(X, 4)["y"])
    np.testing.assert_allclose(jax.jit(f)(X, 4)["y"], simulate(X, 4)["y"])

    def loss(x):
        return jax.numpy.sum(f(x, 4)["y"] ** 2)

    want = dflow.grad(lambda x: np.sum(simulate(x, 4)["y"] ** 2))(X)
    np.testing.assert_allclose(jax.grad(loss)(X), want)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), want)
    batch = np.stack([X, 2 * X])
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(batch)[0], want)


def test_reverse_mode_nests():
    import dflow
    from dflow.interop.jax import wrap

    def loss(p):
        total = 0.0
        for v in p["x"]:
            if v > 0:
                total += p["k"] * v**3
        return total

    p = {"x": X, "k": 2.0}
    made = jax.jit(jax.jacrev(jax.grad(wrap(loss))))(p)
    jax.tree.map(np.testing.assert_allclose, made, dflow.hessian(loss)(p))


def test_bfloat16():
    import dflow
    from dflow.interop.jax import wrap

    x = jax.numpy.array([0.5, 1.0, -2.0], jax.numpy.bfloat16)
    f = wrap(lambda x: np.sin(x) * 2)
    assert dflow.jit(np.sin)(x).dtype == f(x).dtype == x.dtype
    slope = jax.jit(jax.grad(lambda x: jax.numpy.sum(f(x))))(x)
    assert slope.dtype == x.dtype
    np.testing.assert_allclose(slope.astype(float), 2 * np.cos(np.asarray(x, float)), atol=2**-7)


def test_arrays_of_jax_are_arguments_of_everything():
    x = jax.numpy.arange(3.0)
    np.testing.assert_array_equal(dflow.jit(lambda x: 2 * x)(x), [0.0, 2.0, 4.0])
    np.testing.assert_array_equal(dflow.grad(lambda x: np.sum(x * x))(x), [0.0, 2.0, 4.0])
    np.testing.assert_array_equal(dflow.nn.relu(x), [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(dflow.vmap(lambda v: v + 1)(x), [1.0, 2.0, 3.0])
