"""Sparse Jacobians and Hessians: equal to the dense ones, patterns that hold for every input, few products."""

import numpy as np
import pytest
from hypothesis import given, settings
from programs_ir import random_functions
from scipy import sparse

import dflow
from dflow.errors import DerivativeError
from dflow.ir.passes.jvp import jvp
from dflow.ir.passes.sparsity import sparsity
from dflow.transforms.sparse import colored

X = np.linspace(-1.0, 1.0, 30)
ORDER = np.random.default_rng(0).permutation(30)


def stencil(x):
    y = np.zeros(len(x))
    for i in range(1, len(x) - 1):
        y[i] = np.sin(x[i - 1]) * x[i] + x[i + 1] ** 2
    return y


def whole_arrays(x):
    return np.concatenate([x[1:] * x[:-1], np.tanh(x[::2])])


def shuffled(x):
    return x[ORDER] * np.where(np.arange(30) % 2 == 0, x, 1.0)


def first_in_all(x):
    return x * x[0]


def all_in_first(x):
    y = x.copy()
    y[0] = np.sum(x * x)
    return y


def branches(x):
    y = np.zeros(30)
    for i in range(30):
        if x[i] > 0:
            y[i] = x[29 - i]
        else:
            y[i] = x[i] ** 2
    return y


def waiting(x):
    y = x.copy()
    while np.sum(np.abs(y)) > 0.1:
        y[:15] = 0.5 * y[:15] * x[15:]
        y[15:] = 0.5 * y[15:]
    return y


def searching(x):
    """A position that depends on the input: everything may depend on everything."""
    y = np.zeros(30)
    k = 0
    for i in range(30):
        if x[i] > 0.2:
            k = i
        y[i] = x[k]
    return y


def linear(x):
    return np.diag(np.arange(30.0)) @ x + np.eye(30)[::-1] @ np.sin(x)


EVERY = [
    stencil,
    whole_arrays,
    shuffled,
    first_in_all,
    all_in_first,
    branches,
    waiting,
    searching,
    linear,
    np.sum,
    np.sin,
]


@pytest.mark.parametrize("f", EVERY, ids=lambda f: f.__name__)
def test_equals_the_dense_one(f):
    jacobian = dflow.sparse_jacobian(f)
    for x in (X, np.cos(3 * X)):
        got = jacobian(x)
        assert isinstance(got, sparse.csr_array)
        dense = np.atleast_2d(dflow.jacobian(f)(x))
        np.testing.assert_allclose(got.toarray(), dense, atol=1e-14)


@pytest.mark.parametrize(
    ("f", "products", "forward"),
    [(stencil, 3, True), (whole_arrays, 2, None), (first_in_all, 2, True), (all_in_first, 2, False), (linear, 2, None)],
)
def test_needs_few_products(f, products, forward):
    plan = dflow.sparse_jacobian(f).plan((X,))
    assert len(plan.seeds) == products
    assert forward is None or plan.forward == forward


def test_hessian():
    def chain(x):
        total = 0.0
        for i in range(len(x) - 1):
            total += 100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2
        return total

    def arrays(x):
        return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    want = dflow.hessian(arrays)(X)
    for f in (chain, arrays):
        hessian = dflow.sparse_hessian(f)
        np.testing.assert_allclose(hessian(X).toarray(), want, atol=1e-10)
        assert hessian(X).nnz == 30 + 2 * 29
        assert len(hessian.plan((X,)).seeds) == 3


def test_trees_and_other_arguments():
    def f(p, n, scale):
        y = np.zeros(4)
        for i in range(n):
            y[i] = p["a"][i] * p["b"] * scale
        return {"y": y, "b": p["b"] ** 2}

    jacobian = dflow.sparse_jacobian(f)
    p = {"a": np.arange(1.0, 5.0), "b": 3.0}
    got = jacobian(p, 2, 10.0)
    assert got.shape == (5, 5)
    assert got.nnz == 1 + 2 * 2
    assert jacobian(p, 4, 10.0).nnz == 1 + 2 * 4
    np.testing.assert_allclose(got.toarray()[1], [30.0, 0, 0, 0, 10.0])
    assert dflow.sparse_jacobian(lambda s, x: x * s, argnums=1)(2.0, X).nnz == 30


def test_given_patterns():
    pattern = sparse.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(30, 30))
    got = dflow.sparse_jacobian(stencil, pattern=pattern)(X)
    np.testing.assert_allclose(got.toarray(), dflow.jacobian(stencil)(X), atol=1e-14)
    with pytest.raises(DerivativeError, match="results by inputs"):
        dflow.sparse_jacobian(stencil, pattern=np.eye(7))(X)


def test_refused():
    with pytest.raises(DerivativeError, match="traced program"):
        dflow.jit(lambda x: dflow.sparse_jacobian(stencil)(x))(X)
    with pytest.raises(DerivativeError, match="too large to be detected"):
        dflow.sparse_jacobian(np.sin)(np.zeros(30_000))


def test_colors_differ_in_every_row():
    rng = np.random.default_rng(2)
    pattern = rng.random((40, 60)) < 0.05
    colors = colored(sparse.csr_array(pattern))
    for row in pattern:
        used = colors[row]
        assert len(set(used)) == len(used)


@settings(max_examples=25)
@given(random_functions(sizes=False))
def test_patterns_of_random_programs_hold(program):
    """Whatever the tangent of one input element moves is in the pattern."""
    f, args = program.function, [np.asarray(a) for a in program.args]
    from dflow.ir.evaluator import evaluate

    floats = [i for i, a in enumerate(f.args) if a.type.dtype.name == "f64"]
    wrt = floats[0]
    patterns = sparsity(f, wrt)
    forward = jvp(f, [wrt])
    inexact = [i for i, r in enumerate(f.results) if r.type.dtype.is_inexact]
    for k in range(args[wrt].size):
        e = np.zeros(args[wrt].size)
        e[k] = 1.0
        outs = evaluate(forward, [*args, e.reshape(args[wrt].shape)])
        for i, moved in zip(inexact, outs[len(f.results) :]):
            assert not np.any((np.ravel(moved) != 0) & ~patterns[i][:, k])


def test_complex_numbers_are_refused():
    for x in (np.ones(3), 1j * np.ones(3)):
        with pytest.raises(dflow.errors.DerivativeError, match="complex"):
            dflow.sparse_jacobian(lambda x: x * np.exp(1j * x))(x)
