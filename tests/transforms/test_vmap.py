"""vmap: against a Python loop over slices, axes and trees, nesting with every other transformation, misuse."""

import numpy as np
import pytest

import dflow
from dflow.errors import DflowError, ShapeError, TraceError
from dflow.ir.core import walk

RNG = np.random.default_rng(3)
X = RNG.normal(size=(5, 3))
W = RNG.normal(size=(4, 3))


def looped(f, *arrays):
    return np.stack([np.asarray(f(*slices)) for slices in zip(*arrays)])


def straight(x):
    return np.sum(np.tanh(W @ x)[1:] * 2.0) + np.concatenate([x[::-1], x])[:4].reshape(2, 2).T


def branching(x):
    y = x.copy()
    for i in range(1, len(y)):
        if y[i] > 0:
            y[i] += y[i - 1]
        else:
            y[i] *= 2.0
    while np.sum(np.abs(y)) < 10:
        y = y * 1.5
    return y


def searching(x):
    for i in range(len(x)):
        if x[i] > 0.3:
            return float(i)
    return -1.0


def powers(x):
    y = np.zeros(4)
    for i in range(4):
        y[i] = x[i % 3] ** i
    return y


FUNCTIONS = [straight, branching, searching, powers, np.sum, np.sin, np.max]
each = pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)


@each
def test_agrees_with_a_loop(f):
    np.testing.assert_allclose(dflow.vmap(f)(X), looped(f, X), rtol=1e-12)
    np.testing.assert_allclose(dflow.vmap(f, in_axes=1)(X.T), looped(f, X), rtol=1e-12)
    want = np.moveaxis(looped(f, X), 0, -1)
    np.testing.assert_allclose(dflow.vmap(f, in_axes=(-1,), out_axes=-1)(X.T), want, rtol=1e-12)


@pytest.mark.parametrize("f", [straight, branching, powers], ids=lambda f: f.__name__)
def test_derivatives(f):
    def whole(x):
        return np.sum(np.sin(dflow.vmap(f)(x)))

    def plain(x):
        total = 0.0
        for k in range(5):
            total += np.sum(np.sin(f(x[k])))
        return total

    np.testing.assert_allclose(dflow.grad(whole)(X), dflow.grad(plain)(X), rtol=1e-10)
    dots = np.ones_like(X)
    np.testing.assert_allclose(dflow.jvp(whole, (X,), (dots,)), dflow.jvp(plain, (X,), (dots,)), rtol=1e-10)
    gradients = dflow.vmap(dflow.grad(lambda x: np.sum(np.sin(f(x)))))(X)
    np.testing.assert_allclose(gradients, dflow.grad(plain)(X), rtol=1e-10)
    np.testing.assert_allclose(
        dflow.hvp(whole, (X,), (dots,))[0], dflow.hvp(plain, (X,), (dots,))[0], rtol=1e-8, atol=1e-10
    )


def test_nested():
    a, b = RNG.normal(size=(4, 2)), RNG.normal(size=(3, 2))

    def kernel(x, y):
        return np.exp(-np.sum((x - y) ** 2))

    table = dflow.vmap(lambda x: dflow.vmap(lambda y: kernel(x, y))(b))(a)
    want = np.array([[kernel(x, y) for y in b] for x in a])
    np.testing.assert_allclose(table, want)
    both = dflow.vmap(dflow.vmap(kernel, (None, 0)), (0, None))
    np.testing.assert_allclose(both(a, b), want)
    np.testing.assert_allclose(dflow.jit(both)(a, b), want)
    np.testing.assert_allclose(dflow.grad(lambda a: np.sum(both(a, b)))(a).shape, a.shape)
    mixed = dflow.vmap(dflow.grad(lambda x, ys: np.sum(dflow.vmap(lambda y: kernel(x, y))(ys))), (0, None))(a, b)
    np.testing.assert_allclose(mixed, dflow.grad(lambda a: np.sum(both(a, b)))(a))


def test_jacobians_and_linear_maps():
    def f(x):
        return np.sin(x) * np.sum(x)

    jacobians = dflow.vmap(dflow.jacrev(f))(X)
    np.testing.assert_allclose(jacobians, looped(dflow.jacfwd(f), X))
    basis = np.eye(3)
    columns = dflow.vmap(lambda t: dflow.jvp(f, (X[0],), (t,))[1], out_axes=1)(basis)
    np.testing.assert_allclose(columns, dflow.jacfwd(f)(X[0]))
    rows = dflow.jit(lambda x: dflow.vmap(lambda t: dflow.vjp(f, x)[1](t)[0])(basis))(X[0])
    np.testing.assert_allclose(rows, columns)


def test_trees_and_axes():
    def f(p, scale, *, shift):
        return {"y": p["w"] @ p["x"] * scale + shift, "scale": scale}

    p = {"w": W, "x": X}
    got = dflow.vmap(f, in_axes=({"w": None, "x": 0}, None), out_axes={"y": 1, "scale": None})(
        p, 2.0, shift=np.arange(5.0)
    )
    want = np.stack([W @ x * 2.0 + k for k, x in enumerate(X)], 1)
    np.testing.assert_allclose(got["y"], want)
    assert got["scale"] == 2.0
    got = dflow.vmap(f, in_axes=(0, None))({"w": np.stack([W] * 5), "x": X}, 2.0, shift=np.zeros(5))
    np.testing.assert_allclose(got["y"], 2 * X @ W.T)
    np.testing.assert_array_equal(got["scale"], np.full(5, 2.0))


def test_axis_size_and_constants():
    np.testing.assert_array_equal(dflow.vmap(lambda: np.arange(3), axis_size=2)(), [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(dflow.vmap(lambda x, n: x[n] + n, (0, None))(X, 2), X[:, 2] + 2)
    for f in (lambda x: None, lambda x: (), lambda x: {}):
        assert dflow.vmap(f)(X) == f(X)
        assert dflow.vmap(f)(2 * X) == f(X)
    assert dflow.vmap(np.sin)(np.zeros((0, 3))).shape == (0, 3)
    assert dflow.vmap(branching)(np.zeros((0, 3))).shape == (0, 3)
    assert dflow.vmap(lambda x: x * 2)(np.arange(3, dtype=np.int32)).dtype == np.int32


def test_one_product_with_one_matrix():
    """W @ x for every x is a single product of matrices, and so is its derivative."""
    for f in (lambda x: W @ x, lambda x: x @ W.T, lambda x: np.tanh(W @ x + 1.0)):
        program = dflow.vmap(f).lower(X).stages.optimized
        names = [op.name for op in walk(program.body)]
        assert "for" not in names
        (product,) = (op for op in walk(program.body) if op.name == "matmul")
        assert [v.type.rank for v in product.operands] == [2, 2]
        np.testing.assert_allclose(dflow.vmap(f)(X), looped(f, X))
    text = dflow.grad(lambda w: np.sum(dflow.vmap(lambda x: np.tanh(w @ x))(X))).lower(W).ir()
    assert "for" not in text


def test_pairs_of_matrices():
    a, b = RNG.normal(size=(4, 2, 3)), RNG.normal(size=(4, 3, 2))
    np.testing.assert_allclose(dflow.vmap(np.matmul)(a, b), a @ b)
    np.testing.assert_allclose(dflow.vmap(lambda x: x @ b[0])(a), a @ b[0])
    np.testing.assert_allclose(dflow.vmap(lambda x: b[0] @ x)(a), b[0] @ a)
    np.testing.assert_allclose(dflow.vmap(lambda x: b @ x, out_axes=2)(a), np.stack([b @ x for x in a], 2))


def test_rules_and_checkpoints():
    @dflow.custom_jvp
    def f(x):
        return np.sin(x)

    f.defjvp(lambda p, t: (f(*p), 100 * t[0]))
    np.testing.assert_allclose(dflow.vmap(dflow.grad(f))(X[:, 0]), np.full(5, 100.0))
    np.testing.assert_allclose(dflow.grad(lambda x: np.sum(dflow.vmap(f)(x)))(X), np.full((5, 3), 100.0))
    kept = dflow.checkpoint(branching)
    got = dflow.grad(lambda x: np.sum(dflow.vmap(kept)(x)))(X)
    np.testing.assert_allclose(got, dflow.grad(lambda x: np.sum(dflow.vmap(branching)(x)))(X))
    got = dflow.grad(dflow.checkpoint(lambda x: np.sum(dflow.vmap(branching)(x))))(X)
    np.testing.assert_allclose(got, dflow.grad(lambda x: np.sum(dflow.vmap(branching)(x)))(X))


def test_inside_loops_with_closures():
    @dflow.jit
    def f(x, n):
        total = np.zeros(5)
        for k in range(n):
            shift = x[0] * k
            total += dflow.vmap(lambda row, shift=shift: np.sum(row * shift) if row[0] > 0 else 0.0)(x)
        return total

    want = sum(np.array([np.sum(r * X[0] * k) if r[0] > 0 else 0.0 for r in X]) for k in range(6))
    np.testing.assert_allclose(f(X, 6), want)


def test_updates_of_arguments_reach_the_caller():
    def f(row):
        for i in range(1, len(row)):
            row[i] += row[i - 1]
        return np.sum(row)

    data = X.copy()
    sums = dflow.vmap(f)(data)
    np.testing.assert_allclose(data, np.cumsum(X, 1))
    np.testing.assert_allclose(sums, np.sum(data, 1))
    data = X.T.copy()
    dflow.vmap(f, in_axes=1)(data)
    np.testing.assert_allclose(data.T, np.cumsum(X, 1))

    def of_all(row, shared):
        shared[0] += row[0]
        return shared[0]

    with pytest.raises(TraceError, match="updates its argument shared, which all slices share"):
        dflow.vmap(of_all, (0, None))(X, np.zeros(2))


def test_methods():
    class Model:
        def __init__(self, w):
            self.w = w

        @dflow.vmap
        def apply(self, x):
            return self.w * x

        def other(self, x, y):
            return self.w * x + y

    m = Model(2.0)
    np.testing.assert_array_equal(dflow.vmap(m.other, (0, None))(X, 1.0), 2 * X + 1)
    m.w = 3.0
    np.testing.assert_array_equal(dflow.vmap(m.other)(X, X), 4 * X)


def test_errors_at_run_time_keep_their_line():
    f = dflow.vmap(lambda x, i: x[i])
    np.testing.assert_array_equal(f(X, np.array([0, 1, 2, 0, 1])), X[np.arange(5), [0, 1, 2, 0, 1]])
    with pytest.raises(IndexError, match="index 7 is out of bounds for axis 0 with size 3"):
        f(X, np.array([0, 1, 7, 0, 1]))


def test_misuse():
    def f(x, y):
        return x + y

    cases = [
        (lambda: dflow.vmap(f)(X, X[:2]), ShapeError, "axes of different sizes"),
        (lambda: dflow.vmap(f, in_axes=(0,))(X, X), TraceError, "in_axes has 1 entries for 2"),
        (lambda: dflow.vmap(f, in_axes=None)(X, X), TraceError, "maps no argument"),
        (lambda: dflow.vmap(f, in_axes=5)(X, X), ShapeError, "along axis 5 of argument x, which has 2 axes"),
        (lambda: dflow.vmap(f)(X, 1.0), ShapeError, "along axis 0 of argument y, which has 0 axes"),
        (lambda: dflow.vmap(f, in_axes=("a", 0))(X, X), TraceError, "must hold ints and None"),
        (lambda: dflow.vmap(f, in_axes=({"a": 0}, 0))(X, X), TraceError, "must have the structure"),
        (lambda: dflow.vmap(f, out_axes=None)(X, X), TraceError, "differs from slice to slice"),
        (lambda: dflow.vmap(f, out_axes=(0, 0))(X, X), TraceError, "out_axes must have the structure"),
        (lambda: dflow.vmap(f, out_axes=3)(X, X), ShapeError, "along axis 3 of the result"),
        (lambda: dflow.vmap(f, axis_size=4)(X, X), ShapeError, "axis_size: 4"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words) as e:
            call()
        assert isinstance(e.value, DflowError)


def test_eval_shape():
    made = dflow.eval_shape(lambda x, n: {"a": W @ x, "b": (n, 2.0)}, X[0], 3)
    assert made["a"] == dflow.ShapeDtypeStruct((4,), float)
    assert made["b"] == (dflow.ShapeDtypeStruct((), int), dflow.ShapeDtypeStruct((), float))
    assert dflow.eval_shape(np.sin, dflow.ShapeDtypeStruct((2, 3), "float32")).dtype == np.float32
    assert dflow.jit(lambda x: x * dflow.eval_shape(np.sum, x).ndim)(X[0]).shape == (3,)
    with pytest.raises(ShapeError):
        dflow.eval_shape(lambda x: x + W, X)


def test_no_slices_and_a_check():
    f = dflow.vmap(lambda x, i: x[i])
    assert f(np.zeros((0, 3)), np.zeros(0, int)).shape == (0,)


def shrunk(x):
    rounds = 0
    while np.abs(x) > 0.1 and rounds < 21:
        x = x * 0.7 + 0.01 * np.sin(x)
        rounds += 1
    return x * rounds


def shrunk_often(x):
    for _ in range(5):
        while x * x > 0.5:
            x = x * 0.8 + 0.01 * np.sin(x)
        x = x + 0.3
    return x * x


@pytest.mark.parametrize("g", [shrunk, shrunk_often])
def test_second_derivatives_of_loops_that_end_when_they_like(g):
    def f(xs):
        return np.sum(dflow.vmap(dflow.grad(g))(xs) ** 2)

    xs, h = np.array([0.7, 3.0, 0.05, 1.3]), 1e-6
    numeric = [(f(xs + h * e) - f(xs - h * e)) / (2 * h) for e in np.eye(4)]
    np.testing.assert_allclose(dflow.grad(f)(xs), numeric, rtol=1e-6, atol=1e-9)
