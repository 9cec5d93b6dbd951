"""Jacobians and Hessians: values, structures, nesting, and programs that do not grow with the sizes."""

from typing import NamedTuple

import numpy as np
import pytest

import dflow
from dflow.errors import DerivativeError
from dflow.ir.core import walk

X = np.array([0.3, -1.2, 0.8])
MATRICES = [dflow.jacfwd, dflow.jacrev, dflow.jacobian]
each = pytest.mark.parametrize("matrix", MATRICES, ids=lambda m: m.__name__)


def numeric(f, x, step=1e-6):
    x = np.asarray(x, float)
    columns = []
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = step
        columns.append((np.asarray(f(x + e)) - np.asarray(f(x - e))) / (2 * step))
    stacked = np.stack(columns, -1)
    return stacked.reshape(*stacked.shape[:-1], *x.shape)


def chain(x):
    """Five results of three inputs, by a loop with updates."""
    y = np.zeros(5)
    y[0] = x[0]
    for i in range(1, len(y)):
        y[i] = np.sin(y[i - 1]) * x[i % 3] + x[2]
    return y


def table(x):
    return np.outer(x, np.exp(x))[:, :2]


@each
@pytest.mark.parametrize("f", [chain, table, np.sin, np.sum], ids=lambda f: f.__name__)
def test_agrees_with_differences(matrix, f):
    got = matrix(f)(X)
    assert got.shape == np.shape(f(X)) + X.shape
    np.testing.assert_allclose(got, numeric(f, X), atol=1e-8)


@each
def test_of_a_matrix_by_a_matrix(matrix):
    def f(a):
        return a @ a.T

    a = np.arange(6.0).reshape(2, 3)
    got = matrix(f)(a)
    assert got.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(got, numeric(f, a), atol=1e-7)


@each
def test_of_scalars(matrix):
    assert matrix(lambda x: x**3)(2.0) == 12.0
    np.testing.assert_allclose(matrix(lambda x: np.array([x, x * x]))(3.0), [1.0, 6.0])


@each
def test_trees(matrix):
    class Point(NamedTuple):
        x: float
        y: float

    def f(p, scale):
        return {"sum": p["at"].x + p["at"].y * scale, "all": [p["w"] * p["at"].x, p["n"] * 2]}

    got = matrix(f)({"at": Point(2.0, 3.0), "w": X, "n": 4}, 10.0)
    assert got["sum"]["at"] == Point(1.0, 10.0)
    np.testing.assert_array_equal(got["sum"]["w"], np.zeros(3))
    assert got["sum"]["n"] is None
    np.testing.assert_allclose(got["all"][0]["w"], 2 * np.eye(3))
    np.testing.assert_allclose(got["all"][0]["at"].x, X)
    assert got["all"][1] is None


@each
def test_argnums(matrix):
    def f(x, y):
        return x * y

    y = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(matrix(f, 1)(X, y), np.diag(X))
    np.testing.assert_allclose(matrix(f, argnums=-1)(X, y), np.diag(X))
    by_x, by_y = matrix(f, (0, 1))(X, y)
    np.testing.assert_allclose(by_x, np.diag(y))
    np.testing.assert_allclose(by_y, np.diag(X))


@each
def test_aux(matrix):
    got, aux = matrix(lambda x: (x * x, {"n": len(x), "first": x[0]}), has_aux=True)(X)
    np.testing.assert_allclose(got, np.diag(2 * X))
    assert aux == {"n": 3, "first": X[0]}
    with pytest.raises(DerivativeError, match="returns a pair"):
        matrix(lambda x: x, has_aux=True)(X)


@each
def test_as_decorator_and_of_methods(matrix):
    class Model:
        def __init__(self):
            self.k = 3.0

        def step(self, x):
            return self.k * x

    assert matrix(Model().step)(2.0) == 3.0

    @matrix
    def f(x):
        return x * x

    np.testing.assert_allclose(f(X), np.diag(2 * X))
    np.testing.assert_allclose(matrix(argnums=1)(lambda x, y: x * y)(2.0, X), 2 * np.eye(3))


def test_jacobian_goes_through_fewer_basis_vectors():
    def trips(f, *args):
        made = dflow.jacobian(f)._stages(dflow.jacobian(f).arguments(args, {}))[1].traced
        return [op.operands[0].op.attrs["value"] for op in walk(made.body) if op.name == "for"]

    assert trips(lambda x: np.concatenate([x, x]), X) == [3]
    assert trips(lambda x: x[:2] * x[1:], X) == [2]
    assert trips(lambda x: np.sum(x * x), X) == []


@each
def test_the_program_does_not_grow_with_the_sizes(matrix):
    def count(n):
        f = matrix(lambda x: np.sin(x) * x)
        return sum(1 for _ in walk(f._stages(f.arguments((np.zeros(n),), {}))[1].traced.body))

    assert count(5) == count(500)


@pytest.mark.parametrize("outer", MATRICES, ids=lambda m: m.__name__)
@pytest.mark.parametrize("inner", MATRICES, ids=lambda m: m.__name__)
def test_nested(outer, inner):
    def f(x):
        total = 0.0
        for v in np.sin(x) * x[0]:
            total += v**3
        return total

    got = outer(inner(f))(X)
    np.testing.assert_allclose(got, numeric(dflow.grad(f), X), atol=1e-7)
    np.testing.assert_allclose(got, dflow.hessian(f)(X), rtol=1e-12, atol=1e-14)


def test_hessian_of_several_arguments_and_results():
    def f(p, x):
        return p["a"] * p["b"] * x, np.sum(p["b"] ** 2)

    p = {"a": 2.0, "b": X}
    first, second = dflow.hessian(f)(p, 3.0)
    np.testing.assert_allclose(first["a"]["b"], 3 * np.eye(3))
    np.testing.assert_allclose(first["b"]["a"], 3 * np.eye(3))
    np.testing.assert_allclose(second["b"]["b"], 2 * np.eye(3))
    both = dflow.hessian(lambda x, y: x * x * y, argnums=(0, 1))(2.0, 3.0)
    assert both == ((6.0, 4.0), (4.0, 0.0))
    got, aux = dflow.hessian(lambda x: (np.sum(x**3), len(x)), has_aux=True)(X)
    np.testing.assert_allclose(got, np.diag(6 * X))
    assert aux == 3


def test_gradient_of_what_uses_a_jacobian():
    def newton_step(x):
        j = dflow.jacobian(table)(x)
        return np.sum(j * j)

    np.testing.assert_allclose(dflow.grad(newton_step)(X), numeric(newton_step, X), atol=1e-5)


def test_inside_jit_loops_and_branches():
    @dflow.jit
    def f(x, n):
        total = np.zeros((3, 3))
        for k in range(n):
            if k % 2 == 0:
                total += dflow.jacrev(lambda v, k=k: np.sin(v * k) * v[0])(x)
            else:
                total -= dflow.jacfwd(lambda v, k=k: v**k)(x)
        return total

    want = sum(
        numeric(lambda v, k=k: np.sin(v * k) * v[0], X) if k % 2 == 0 else -numeric(lambda v, k=k: v**k, X)
        for k in range(4)
    )
    np.testing.assert_allclose(f(X, 4), want, atol=1e-7)


@each
def test_loops_of_unknown_length(matrix):
    def f(x, n):
        y = x.copy()
        for _ in range(n):
            y = np.sin(y) + x[::-1]
        while np.sum(y) > 0.5:
            y = y * 0.9
        return y

    np.testing.assert_allclose(matrix(f)(X, 5), numeric(lambda x: f(x, 5), X), atol=1e-7)


def test_hvp():
    def f(x, n, y):
        return np.sum(x**3) * y * n

    got = dflow.hvp(f, (X, 2, 3.0), (np.ones(3), None, 0.0))
    np.testing.assert_allclose(got[0], 6 * X * 6)
    assert got[1] is None
    np.testing.assert_allclose(got[2], np.sum(3 * X**2) * 2)
    with pytest.raises(DerivativeError, match="returns one float"):
        dflow.hvp(lambda x: x, (X,), (X,))


@each
def test_refusals(matrix):
    with pytest.raises(DerivativeError, match="holds no floats"):
        matrix(lambda x: x * 2)(3)
    with pytest.raises(DerivativeError, match="by argument 2"):
        matrix(lambda x: x, argnums=2)(1.0)


def test_float32_keeps_its_type():
    got = dflow.hessian(lambda x: np.sum(x**3))(X.astype(np.float32))
    assert got.dtype == np.float32


@each
def test_arrays_without_elements(matrix):
    assert matrix(lambda x: x * 2)(np.zeros(0)).shape == (0, 0)


# -- complex numbers ------------------------------------------------------------------------------------------------

Z = np.array([1.0 + 2.0j, 3.0 - 1.0j])


def test_complex_results_of_real_arguments():
    t = np.array([0.3, 0.8])
    wanted = np.diag(1j * np.exp(1j * t))
    for verb in (dflow.jacfwd, dflow.jacobian):
        np.testing.assert_allclose(verb(lambda t: np.exp(1j * t))(t), wanted)
    np.testing.assert_allclose(dflow.jacobian(lambda t: np.sum(np.exp(1j * t)))(t), wanted.diagonal())
    with pytest.raises(dflow.errors.DerivativeError, match="real parts alone"):
        dflow.jacrev(lambda t: np.exp(1j * t))(t)


def test_derivatives_by_complex_arguments_are_two_or_holomorphic():
    for verb in (dflow.jacrev, dflow.jacobian):
        np.testing.assert_allclose(verb(lambda z: np.abs(z) ** 2)(Z), np.diag(2 * Z.conj()))
    for verb in (dflow.jacfwd, dflow.jacrev, dflow.jacobian, dflow.hessian):
        with pytest.raises(dflow.errors.DerivativeError, match="no one derivative"):
            verb(lambda z: z * np.conj(z))(Z)
    for verb in (dflow.jacfwd, dflow.jacrev):
        np.testing.assert_allclose(verb(lambda z: z**2, holomorphic=True)(Z), np.diag(2 * Z))
        with pytest.raises(dflow.errors.DerivativeError, match="takes complex arguments"):
            verb(np.abs, holomorphic=True)(Z)
    np.testing.assert_allclose(dflow.hessian(lambda z: np.sum(z**3), holomorphic=True)(Z), np.diag(6 * Z))
