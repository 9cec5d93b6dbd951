"""The transformations as a user calls them: results, structures, nesting, caching."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

import dflow
from dflow.errors import DerivativeError, DflowError


def energy(x):
    total = 0.0
    for i in range(len(x) - 1):
        d = x[i + 1] - x[i]
        total += 0.5 * d * d + np.cos(x[i])
    return total


X = np.array([0.3, -1.2, 0.8, 2.0, 0.1, 0.9])


def numeric(f, x, step=1e-6):
    x = np.asarray(x, float)
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        high, low = x.copy(), x.copy()
        high[i] += step
        low[i] -= step
        out[i] = (f(high) - f(low)) / (2 * step)
    return out


# -- jit ---------------------------------------------------------------------------------------------------------------


def test_jit_returns_what_python_returns():
    got = dflow.jit(energy)(X)
    assert isinstance(got, np.float64)
    np.testing.assert_allclose(got, energy(X), rtol=1e-14)


def test_decorators_with_and_without_arguments():
    @dflow.jit
    def f(x):
        """Doubles."""
        return x * 2

    @dflow.jit(static_argnums=1)
    def power(x, n):
        y = x
        for _ in range(n - 1):
            y = y * x
        return y

    assert f.__name__ == "f"
    assert f.__doc__ == "Doubles."
    assert f(3.0) == 6.0
    assert power(2.0, 3) == 8.0
    assert power(2.0, 5) == 32.0


def test_static_argnames():
    @dflow.jit(static_argnames="mode")
    def f(x, mode="sin"):
        return np.sin(x) if mode == "sin" else np.cos(x)

    assert f(1.0, mode="sin") == pytest.approx(np.sin(1.0))
    assert f(1.0, mode="cos") == pytest.approx(np.cos(1.0))
    assert f(1.0) == pytest.approx(np.sin(1.0))


def test_static_arguments_are_found_by_number_and_by_name():
    def f(x, n):
        return np.zeros(n) + x

    for made in (dflow.jit(f, static_argnames="n"), dflow.jit(f, static_argnums=-1)):
        assert made(1.0, 2).shape == (2,)
        assert made(1.0, n=3).shape == (3,)
        assert made(n=4, x=1.0).shape == (4,)


def test_static_values_that_are_equal_but_differ_make_their_own_programs():
    f = dflow.jit(lambda x, n: x * 0 + n, static_argnums=1)
    assert [f(1, n).dtype.kind for n in (1, 1.0)] == ["i", "f"]
    assert [np.signbit(dflow.jit(lambda x, n: x * n, static_argnums=1)(1.0, z)) for z in (0.0, -0.0)] == [False, True]


def test_strings_and_functions_among_the_arguments_are_static():
    f = dflow.jit(lambda g, x, how: g(x) if how == "once" else g(g(x)))
    assert f(np.sin, 1.0, "once") == pytest.approx(np.sin(1.0))
    assert f(np.sin, 1.0, "twice") == pytest.approx(np.sin(np.sin(1.0)))


def test_lambda_method_and_default_arguments():
    class Model:
        def __init__(self, k):
            self.k = k

        @dflow.jit
        def value(self, x, shift=1.0):
            return self.k * x + shift

    m = Model(3.0)
    assert m.value(2.0) == 7.0
    m.k = 5.0  # attributes are arguments, not constants
    assert m.value(2.0) == 11.0
    assert m.value(2.0, shift=0.0) == 10.0
    assert Model(1.0).value(2.0) == 3.0


def test_signatures_compile_once_each():
    seen = []

    @dflow.jit
    def f(x):
        seen.append(1)
        return x + 1

    for _ in range(3):
        f(1.0), f(np.ones(3)), f(np.ones((2, 2), np.float32))
    assert len(seen) == 3
    assert f(np.ones(2, np.float32)).dtype == np.float32
    assert f(1).dtype == np.int64


def test_arrays_that_are_not_contiguous_or_of_other_byte_order():
    f = dflow.jit(lambda x: x * 2.0)
    x = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(f(x.T), x.T * 2)
    np.testing.assert_array_equal(f(x[::2, ::-1]), x[::2, ::-1] * 2)
    np.testing.assert_array_equal(f(x.astype(">f8")), x * 2)


def test_updates_of_arguments_reach_the_caller():
    @dflow.jit
    def smooth(y, n):
        for _ in range(n):
            for i in range(1, len(y) - 1):
                y[i] = (y[i - 1] + y[i] + y[i + 1]) / 3

    def plain(y, n):
        for _ in range(n):
            for i in range(1, len(y) - 1):
                y[i] = (y[i - 1] + y[i] + y[i + 1]) / 3

    a, b = X.copy(), X.copy()
    assert smooth(a, 3) is None
    plain(b, 3)
    np.testing.assert_allclose(a, b)
    c = X.copy()
    c.flags.writeable = False
    with pytest.raises(ValueError, match="argument y"):
        smooth(c, 3)


def test_trees():
    class Point(NamedTuple):
        x: float
        y: float

    @dataclasses.dataclass
    class Layer:
        w: np.ndarray
        b: np.ndarray
        name: str = "dense"

    @dflow.jit
    def f(p, layers, options):
        h = np.array([p.x, p.y])
        for layer in layers:
            h = np.tanh(layer.w @ h + layer.b)
        return {"h": h, "point": Point(p.x * options["scale"], p.y)}

    layers = [Layer(np.eye(2), np.ones(2)), Layer(np.ones((2, 2)), np.zeros(2))]
    out = f(Point(1.0, 2.0), layers, {"scale": 3.0})
    h = np.tanh(np.ones((2, 2)) @ np.tanh(np.array([2.0, 3.0])))
    np.testing.assert_allclose(out["h"], h)
    assert isinstance(out["point"], Point)
    assert out["point"].x == 3.0
    g = dflow.grad(lambda ls: f(Point(1.0, 2.0), ls, {"scale": 3.0})["h"].sum())(layers)
    assert isinstance(g[0], Layer)
    assert g[0].name == "dense"
    assert g[1].w.shape == (2, 2)


def test_threads_share_a_compiled_function():
    from concurrent.futures import ThreadPoolExecutor

    f = dflow.jit(energy)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda k: f(X * k), range(20)))
    np.testing.assert_allclose(got, [energy(X * k) for k in range(20)])


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_grad_and_value_and_grad():
    np.testing.assert_allclose(dflow.grad(energy)(X), numeric(energy, X), rtol=1e-6, atol=1e-8)
    value, gradient = dflow.value_and_grad(energy)(X)
    assert value == pytest.approx(energy(X))
    np.testing.assert_allclose(gradient, dflow.grad(energy)(X))
    assert dflow.grad(np.sin)(1.0) == pytest.approx(np.cos(1.0))


def test_argnums_argnames_and_aux():
    def f(a, b, *, c=1.0):
        return a * b * c

    assert dflow.grad(f, argnums=1)(2.0, 3.0) == 2.0
    assert dflow.grad(f, argnums=-1)(2.0, 3.0) == 2.0
    assert dflow.grad(f, argnums=(0, 1))(2.0, 3.0) == (3.0, 2.0)
    assert dflow.grad(f, argnames="c")(2.0, 3.0, c=1.0) == (6.0,)

    @dflow.grad(has_aux=True)
    def g(x):
        return x * x, {"cube": x**3}

    slope, aux = g(2.0)
    assert slope == 4.0
    assert aux["cube"] == 8.0
    (value, aux), slope = dflow.value_and_grad(lambda x: (x * x, x + 1), has_aux=True)(3.0)
    assert (value, aux, slope) == (9.0, 4.0, 6.0)


def test_gradient_by_a_tree_with_integers():
    g = dflow.grad(lambda p: p["a"] ** 2 * p["n"])({"a": 3.0, "n": 2})
    assert g == {"a": 12.0, "n": None}


def test_nesting():
    f = lambda x: np.sin(x) * x  # noqa: E731
    assert dflow.grad(dflow.grad(f))(0.7) == pytest.approx(2 * np.cos(0.7) - 0.7 * np.sin(0.7))
    third = dflow.grad(dflow.grad(dflow.grad(f)))(0.7)
    assert third == pytest.approx(-3 * np.sin(0.7) - 0.7 * np.cos(0.7))
    assert dflow.jit(dflow.grad(dflow.jit(f)))(0.7) == pytest.approx(dflow.grad(f)(0.7))
    _, dot = dflow.jvp(dflow.grad(energy), (X,), (np.ones_like(X),))
    hessian = np.stack([dflow.grad(lambda x, i=i: dflow.grad(energy)(x)[i])(X) for i in range(len(X))])
    np.testing.assert_allclose(dot, hessian @ np.ones_like(X), atol=1e-12)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)


def test_gradient_inside_a_compiled_loop_with_a_closure():
    @dflow.jit
    def newton(a, steps):
        x = 1.0
        for _ in range(steps):
            f = lambda t: t * t * t - a  # noqa: E731
            x = x - f(x) / dflow.grad(f)(x)
        return x

    assert newton(8.0, 20) == pytest.approx(2.0)
    assert dflow.grad(newton)(8.0, 20) == pytest.approx(8.0 ** (-2 / 3) / 3)


def test_transformations_in_a_loop_compile_once():
    traced = []

    def f(x):
        traced.append(1)
        return x * x

    for k in range(5):
        assert dflow.grad(f)(float(k)) == 2.0 * k
    assert len(traced) == 1
    a, seen = 3.0, []
    for k in range(5):
        assert dflow.grad(lambda x: (seen.append(1), x * x * a)[1])(float(k)) == 6.0 * k
    assert dflow.grad(lambda x: x * x * a)(1.0) == 6.0


def test_closures_over_different_values_do_not_share():
    gradients = [dflow.grad(lambda x, a=a: x * a)(1.0) for a in (1.0, 2.0, 3)]
    assert gradients == [1.0, 2.0, 3.0]

    def make(a):
        return dflow.jit(lambda x: x * a)

    assert [make(a)(2.0) for a in (1.0, 2.0, 4.0)] == [2.0, 4.0, 8.0]


def test_derivatives_leave_arguments_alone():
    def f(y):
        y[0] = y[0] * 2.0
        return y.sum()

    x = np.ones(3)
    np.testing.assert_array_equal(dflow.grad(f)(x), [2.0, 1.0, 1.0])
    np.testing.assert_array_equal(x, np.ones(3))


# -- forward and linear maps -------------------------------------------------------------------------------------------


def collatz_like(x, n):
    steps = 0
    while x < 10.0:
        x = x * 1.5 + np.sin(x)
        steps += 1
    return x, steps * n


def test_jvp():
    (y, steps), (y_dot, no_dot) = dflow.jvp(collatz_like, (1.0, 2), (1.0, None))
    assert y == pytest.approx(collatz_like(1.0, 2)[0])
    assert steps == collatz_like(1.0, 2)[1]
    assert no_dot is None
    slope = (collatz_like(1.0 + 1e-6, 2)[0] - collatz_like(1.0 - 1e-6, 2)[0]) / 2e-6
    assert y_dot == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("static", [True, False])
def test_vjp_and_linearize(static):
    def f(x, w):
        if static:
            return {"y": np.tanh(w @ x), "s": x.sum()}
        s = 0.0
        while s < 2.0:  # a trip count that is data: the residuals have no static size
            s += x[0] * x[0] + 0.5
        return {"y": np.tanh(w @ x) * s, "s": s}

    w = np.arange(6.0).reshape(2, 3) / 5
    x = np.array([0.5, -0.2, 0.3])
    value, pull = dflow.vjp(f, x, w)
    expected = dflow.jit(f)(x, w)
    np.testing.assert_allclose(value["y"], expected["y"])
    bar = {"y": np.array([1.0, 2.0]), "s": 0.5}
    x_bar, w_bar = pull(bar)
    same, push = dflow.linearize(f, x, w)
    np.testing.assert_allclose(same["y"], expected["y"])
    dx, dw = np.array([1.0, 0.5, -1.0]), np.ones((2, 3))
    out = push(dx, dw)
    forward = dflow.jvp(f, (x, w), (dx, dw))[1]
    np.testing.assert_allclose(out["y"], forward["y"])
    inner = out["y"] @ bar["y"] + out["s"] * bar["s"]
    assert inner == pytest.approx(x_bar @ dx + np.sum(w_bar * dw))


def test_vjp_inside_jit_and_with_aux():
    @dflow.jit
    def f(x):
        y, pull = dflow.vjp(lambda t: t**3, x)
        return y + pull(1.0)[0]

    assert f(2.0) == pytest.approx(8.0 + 12.0)
    assert dflow.grad(f)(2.0) == pytest.approx(12.0 + 12.0)
    y, pull, aux = dflow.vjp(lambda t: (t * t, t + 1), 3.0, has_aux=True)
    assert (y, aux, pull(1.0)[0]) == (9.0, 4.0, 6.0)


def test_linear_transpose():
    a = np.arange(6.0).reshape(2, 3)
    (bar,) = dflow.linear_transpose(lambda x: a @ x, np.zeros(3))(np.array([1.0, 2.0]))
    np.testing.assert_allclose(bar, a.T @ [1.0, 2.0])

    def cumulative(x):
        y = np.zeros(3)
        s = 0.0
        for i in range(3):
            s += x[i]
            y[i] = s
        return y

    (bar,) = dflow.linear_transpose(cumulative, np.zeros(3))(np.ones(3))
    np.testing.assert_allclose(bar, [3.0, 2.0, 1.0])
    for bad in (lambda x: x * x, lambda x: x + 1.0, np.sin):
        with pytest.raises(DerivativeError, match=r"linear|adds"):
            dflow.linear_transpose(bad, 1.0)(1.0)


def test_check_grads():
    dflow.check_grads(energy, (X,), order=2)
    dflow.check_grads(lambda p: {"a": p["x"] ** 2, "b": np.sin(p["y"])}, ({"x": 2.0, "y": X},), order=2)
    dflow.check_grads(collatz_like, (1.0, 2), order=2)


# -- errors ------------------------------------------------------------------------------------------------------------


def error_of(call):
    with pytest.raises(DflowError) as caught:
        call()
    return str(caught.value)


def test_errors_name_the_line_and_the_mend():
    text = error_of(lambda: dflow.grad(lambda x: x * 2)(np.ones(3)))
    assert __file__ in text
    assert "one float" in text
    assert "f64[3]" in text
    text = error_of(lambda: dflow.grad(lambda x: x.sum())(np.arange(3)))
    assert __file__ in text
    assert "holds no floats" in text
    assert "astype(float)" in text
    text = error_of(lambda: dflow.grad(lambda x: x.sum())(3))
    assert "3.0 for 3" in text
    text = error_of(lambda: dflow.grad(lambda x: x)(1.0, 2.0) if False else dflow.grad(energy, argnums=3)(X))
    assert "argument 3" in text
    text = error_of(lambda: dflow.jit(lambda x: x)(np.array(["a"])))
    assert "not a number" in text
    text = error_of(lambda: dflow.jvp(np.sin, (np.ones(3),), (np.ones(2),)))
    assert "shape (2,)" in text


def test_run_time_checks_name_the_line():
    @dflow.jit
    def f(x, i):
        return x[i]

    assert f(X, 2) == X[2]
    assert f(X, -1) == X[-1]
    with pytest.raises(IndexError, match="index 17 is out of bounds for axis 0 with size 6") as caught:
        f(X, 17)
    assert __file__ in str(caught.value)
    assert "x[i]" in str(caught.value)
    with pytest.raises(IndexError):
        dflow.grad(f)(X, -7)


# -- stages ------------------------------------------------------------------------------------------------------------


def test_stages_can_be_read(tmp_path, monkeypatch):
    lowered = dflow.jit(energy).lower(X)
    assert "for" in lowered.ir("traced")
    assert "cos" in lowered.ir("optimized")
    assert "func" in lowered.ir("lowered")
    assert "define" in lowered.llvm()
    assert "ret" in lowered.asm()
    (value,) = lowered.compile()(X)
    assert value == pytest.approx(energy(X))
    with pytest.raises(ValueError, match="stage must be one of"):
        lowered.ir("other")
    monkeypatch.setenv("DFLOW_DUMP", str(tmp_path))
    dflow.grad(lambda x: x * np.sin(x))(1.0)
    names = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert any("traced" in n for n in names)
    assert any(n.endswith(".ll") for n in names)
    assert any("before" in n for n in names)


def test_an_updated_argument_must_not_be_part_of_another():
    @dflow.jit
    def f(x, y):
        x[0] = 5.0
        return y[0]

    a = np.zeros(4)
    with pytest.raises(ValueError, match=r"arguments x and y share memory.*pass y\.copy\(\)"):
        f(a, a)
    assert a[0] == 0.0
    assert f(a[::2], a[1::2]) == 0.0
    assert a[0] == 5.0


def speculated(x):
    y = 0.0
    if x < 1e300:
        y = x * x
    return y


def computed_before(x):
    y = 1.0 / x
    z = y * y
    return z if x > 0 else 0.0


@pytest.mark.parametrize(
    "f, x",
    [
        (lambda x: np.where(x > 0, np.log(x), 0.0), 0.0),
        (lambda x: np.where(x > 0, np.sqrt(x) / x, 0.0), 0.0),
        (lambda x: np.where(x <= 0, 0.0, np.where(x < 1, x**0.5, x)), 0.0),
        (lambda x: np.where(x > 0, (1 / x) ** 2 + 1 / x, 0.0), 0.0),
        (speculated, np.inf),
        (computed_before, 0.0),
    ],
)
def test_what_is_not_chosen_does_not_touch_the_derivative(f, x):
    assert dflow.grad(f)(x) == 0.0
    assert dflow.jvp(f, (x,), (1.0,))[1] == 0.0
    assert dflow.grad(dflow.grad(f))(x) == 0.0


@dataclasses.dataclass
class Counted:
    x: float
    n: int


def test_tangents_of_integers_in_a_dataclass_are_none():
    value, dot = dflow.jvp(lambda c: c.x * c.n, (Counted(2.0, 3),), (Counted(1.0, None),))
    assert (value, dot) == (6.0, 3.0)
    assert (
        dflow.jvp(lambda c: c.x * c.n, (Counted(2.0, 3),), (dflow.grad(lambda c: c.x**2)(Counted(2.0, 3)),))[1] == 12.0
    )
