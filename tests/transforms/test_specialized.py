"""Numbers that a function cannot be traced without are part of its programs; all others stay traced."""

import warnings

import numpy as np
import pytest

import dflow
from dflow.errors import DerivativeError, NeedsStatic, ShapeError, SpecializationWarning, TraceError

X = np.arange(1.0, 7.0)


def zeros(x, n):
    return np.sum(np.zeros(n) + x)


def table(x, k):
    return {2: np.sin, 3: np.cos}[k](x)


def axis(x, k):
    return np.sum(x.reshape(2, 3), axis=k).sum() * x[0]


def switch(x, flag):
    return np.sum(np.linalg.norm(x.reshape(2, 3), axis=1, keepdims=flag))


def steps(x, stop, step):
    return np.sum(x[0] * np.zeros(int(stop / step)) + stop)


def unrolled(x, n):
    rows = [x * k for k in range(n)]
    return sum(rows, x[0]).sum() / len(rows)


CASES = {
    "a size": (zeros, (2.5, 3), [1]),
    "a size of NumPy's": (zeros, (2.5, np.int64(3)), [1]),
    "a key": (table, (2.5, 3), None),
    "an axis": (axis, (X, 1), [1]),
    "a switch": (switch, (X, True), [1]),
    "only the one that is needed": (lambda x, k, n: zeros(x, n) * k, (2.5, 7, 3), [2]),
    "floats": (steps, (X, 1.0, 0.25), [1, 2]),
    "in a tree": (lambda x, p: zeros(x, p["n"]) * p["m"], (2.5, {"n": 3, "m": 4}), [2]),
    "a list that grows": (unrolled, (X, 3), None),
}


@pytest.mark.parametrize("name", CASES)
def test_as_python(name):
    f, args, known = CASES[name]
    compiled = dflow.jit(f)
    for _ in range(2):
        assert compiled(*args) == pytest.approx(f(*args))
    assert known is None or sorted([*compiled._specialized.known.values()][-1]) == known
    if "float" not in name:
        dflow.check_grads(lambda x: f(x, *args[1:]), args[:1])
        x_bar = dflow.grad(lambda x: f(x, *args[1:]))(args[0])
        np.testing.assert_allclose(dflow.grad(f)(*args), x_bar)
        np.testing.assert_allclose(dflow.jit(dflow.grad(f))(*args), x_bar)
        np.testing.assert_allclose(dflow.value_and_grad(dflow.jit(f))(*args)[1], x_bar)


def test_each_value_has_its_program():
    f = dflow.jit(zeros)
    assert [f(1.5, n) for n in (3, 1, 0, 3)] == [4.5, 1.5, 0.0, 4.5]
    assert [f(x, 3) for x in (1.0, 2.0)] == [3.0, 6.0]


def test_other_transformations():
    assert dflow.vmap(zeros, in_axes=(0, None))(X, 2) == pytest.approx(2 * X)
    assert dflow.jvp(zeros, (2.0, 3), (1.0, None)) == (6.0, 3.0)
    assert dflow.jacfwd(zeros)(2.0, 3) == dflow.jacrev(zeros)(2.0, 3) == 3.0
    assert dflow.hessian(lambda x, n: zeros(x, n) ** 2)(2.0, 3) == 18.0
    assert dflow.grad(dflow.checkpoint(zeros))(2.0, 3) == 3.0
    assert dflow.grad(dflow.jit(zeros, static_argnums=1))(2.0, 3) == 3.0
    assert dflow.jit(dflow.grad(zeros), static_argnums=1)(2.0, 3) == 3.0


def test_linear_maps_and_shapes():
    def spread(x, n):
        return np.zeros(n) + x * x

    value, pull = dflow.vjp(spread, 3.0, 2)
    assert value.tolist() == [9.0, 9.0] and pull(np.ones(2)) == (12.0, None)
    value, push = dflow.linearize(spread, 3.0, 2)
    assert value.tolist() == [9.0, 9.0] and push(1.0, None).tolist() == [6.0, 6.0]
    assert dflow.vjp(spread, 3.0, 3)[0].shape == (3,)
    assert dflow.jit(lambda x: dflow.vjp(spread, x, 2)[1](np.ones(2))[0])(3.0) == 12.0
    assert dflow.eval_shape(spread, 3.0, 4).shape == (4,)
    with pytest.raises(NeedsStatic):
        dflow.vjp(lambda x: np.zeros(int(x)), 3.0)


def test_stages_and_libraries(tmp_path):
    assert "f64[3]" in dflow.jit(zeros).lower(1.0, 3).ir("traced")
    with pytest.raises(TraceError, match="cannot be compiled before n is known"):
        dflow.compile_library(zeros, "float, int", tmp_path / "libzeros.so")


def test_what_known_numbers_do_not_help_keeps_its_message():
    with pytest.raises(NeedsStatic, match=r"known only when the program runs[\s\S]*x\[0\]"):
        dflow.jit(lambda x, n: len([[1.0], [2.0, 3.0]][int(x[0])]) * n)(X, 2)


def test_a_known_number_that_is_wrong_is_what_is_told():
    with pytest.raises(ShapeError, match="negative dimensions"):
        dflow.jit(zeros)(1.0, -3)
    with pytest.raises(ShapeError, match="axis 4 is out of bounds"):
        dflow.grad(axis)(X, 4)
    with pytest.raises(DerivativeError, match=r"no floats[\s\S]*seen: n: int\n"):
        dflow.grad(zeros, argnums=1)(1.0, 3)


def test_many_values_are_told():
    f = dflow.jit(lambda x, n: zeros(x, n))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(40):
            f(1.0, n)
    (told,) = caught
    assert told.category is SpecializationWarning and "each value of n: 32 programs" in str(told.message)


def test_what_was_traced_with_known_numbers_is_the_program():
    """To find out that a number is needed does not take a trace of its own."""
    traced = []

    def f(x, n):
        traced.append(n)
        return zeros(x, n)

    assert dflow.jit(f)(2.5, 3) == 7.5
    assert dflow.grad(f)(2.5, 3) == 3.0
    assert traced == [3, 3]


@pytest.mark.parametrize("action", ["always", "error"])
def test_warnings_are_given_with_known_numbers(action):
    with warnings.catch_warnings():
        warnings.simplefilter(action, dflow.errors.ZeroGradientWarning)
        with pytest.raises(Warning) if action == "error" else pytest.warns(Warning) as given:
            dflow.grad(lambda x, n: zeros(np.floor(x), n) * len(action))(2.5, 3)
    assert action == "error" or len(given) == 1
