"""Rules of the user's: what they change, how they nest, and what is refused."""

import numpy as np
import pytest

import dflow
from dflow.errors import DerivativeError, DflowError
from dflow.ir.core import walk

X = np.array([0.3, -1.2, 0.8])


@dflow.custom_jvp
def softplus(x):
    return np.log(1.0 + np.exp(x))


@softplus.defjvp
def _softplus_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return softplus(x), t / (1.0 + np.exp(-x))


@dflow.custom_jvp
def tripled(x):
    """The rule says three times what is true, so it can be told apart."""
    return np.exp(x)


@tripled.defjvp
def _tripled_jvp(primals, tangents):
    y = tripled(*primals)
    return y, 3 * y * tangents[0]


@dflow.custom_vjp
def clipped_gradient(x):
    return x * 1.0


clipped_gradient.defvjp(lambda x: (clipped_gradient(x), None), lambda _, bar: (np.clip(bar, -1.0, 1.0),))


@dflow.custom_vjp
def product(x, y):
    return {"value": x * y, "count": 2}


def _product_fwd(x, y):
    return product(x, y), (x, "a string is kept as it is", {"y": y})


def _product_bwd(residuals, bar):
    x, _, rest = residuals
    return 10 * bar["value"] * rest["y"], 10 * bar["value"] * x


product.defvjp(_product_fwd, _product_bwd)


# -- values and derivatives ----------------------------------------------------------------------------------------


def test_a_true_rule_passes_the_check():
    dflow.check_grads(lambda x: np.sum(softplus(x) ** 2), (X,), order=2)
    assert np.isfinite(dflow.grad(softplus)(800.0))


def test_the_rule_is_used_in_every_order():
    f, e = tripled, np.e
    for order in range(4):
        assert f(1.0) == pytest.approx(3**order * e)
        f = dflow.grad(f)
    assert dflow.jvp(tripled, (1.0,), (2.0,)) == pytest.approx((e, 6 * e))
    assert dflow.linearize(tripled, 1.0)[1](2.0) == pytest.approx(6 * e)
    assert dflow.hessian(lambda x: np.sum(tripled(x)))(X) == pytest.approx(9 * np.diag(np.exp(X)))


def test_in_loops_and_branches():
    def f(x, n):
        total = 0.0
        for i in range(n):
            if i % 2 == 0:
                total += tripled(x * i)
            while total > 100.0:
                total = total / 2
        return total

    def expected(x, n):
        total, slope = 0.0, 0.0
        for i in range(n):
            if i % 2 == 0:
                total, slope = total + np.exp(x * i), slope + 3 * i * np.exp(x * i)
            while total > 100.0:
                total, slope = total / 2, slope / 2
        return slope

    assert dflow.grad(f)(0.7, 9) == pytest.approx(expected(0.7, 9))
    assert dflow.jvp(lambda x: f(x, 9), (0.7,), (1.0,))[1] == pytest.approx(expected(0.7, 9))


def test_reverse_rule():
    def f(x, y):
        return product(x, y)["value"] ** 2

    assert f(2.0, 3.0) == 36.0
    assert dflow.grad(f, (0, 1))(2.0, 3.0) == (360.0, 240.0)
    assert dflow.grad(dflow.grad(f))(2.0, 3.0) == 20 * 10 * 9
    assert dflow.jacrev(lambda v: product(v[0], v[1])["value"])(np.array([2.0, 3.0])) == pytest.approx([30.0, 20.0])
    assert dflow.jit(f)(2.0, 3.0) == 36.0


def test_clipping_a_gradient_in_a_loop():
    def f(x):
        for _ in range(20):
            x = 3.0 * clipped_gradient(x)
        return x

    assert dflow.grad(f)(1.0) == 1.0
    np.testing.assert_array_equal(dflow.vjp(clipped_gradient, X)[1](np.array([5.0, -5.0, 0.5]))[0], [1.0, -1.0, 0.5])


def test_rules_for_each_argument():
    @dflow.custom_jvp
    def f(x, y, z):
        return x * y + z

    f.defjvps(lambda t, value, x, y, z: t * y, None, lambda t, value, x, y, z: 2 * t)
    assert dflow.grad(f, (0, 1, 2))(2.0, 3.0, 4.0) == (3.0, 0.0, 2.0)


def test_trees_integers_and_keywords():
    @dflow.custom_jvp
    def f(p, n):
        return {"sum": p["a"] * p["b"] * n, "n": n}

    @f.defjvp
    def rule(primals, tangents):
        (p, n), (dot, none) = primals, tangents
        assert none is None
        return f(p, n), {"sum": 5 * (dot["a"] * p["b"] + dot["b"] * p["a"]) * n, "n": None}

    gradient = dflow.grad(lambda p, n: f(n=n, p=p)["sum"])({"a": 2.0, "b": 3.0}, 4)
    assert gradient == {"a": 60.0, "b": 40.0}


def test_arguments_that_are_known_while_tracing():
    @dflow.custom_jvp
    def unused(x):
        return x

    def power(n, x):
        return x ** len("x" * n)

    f = dflow.custom_jvp(power, nondiff_argnums=0)
    f.defjvp(lambda n, primals, tangents: (f(n, *primals), n * 100.0 * tangents[0]))
    assert dflow.grad(lambda x: f(3, x))(2.0) == 300.0
    g = dflow.custom_vjp(power, nondiff_argnums=(0,))
    g.defvjp(lambda n, x: (g(n, x), x), lambda n, x, bar: (n * x * bar,))
    assert dflow.grad(lambda x: g(3, x))(2.0) == 6.0


def test_residuals_shared_with_a_constant_closure():
    @dflow.jit
    def outer(a, x):
        @dflow.custom_jvp
        def f(x):
            return a * x

        f.defjvp(lambda primals, tangents: (f(*primals), 7 * a * tangents[0]))
        return dflow.grad(f)(x) + dflow.grad(lambda x: f(f(x)))(x)

    assert outer(2.0, 3.0) == 14.0 + 14.0 * 14.0


def test_rules_see_the_variables_of_their_call():
    """Rules are traced when the loop is over; what they close over is what it was when the function was called."""

    def by_variable(x):
        for k in range(1, 4):

            @dflow.custom_jvp
            def f(v):
                return v * k  # noqa: B023

            f.defjvp(lambda p, t: (f(*p), 10 * k * t[0]))  # noqa: B023
            x = f(x)
        return x

    def by_list(x):
        scale = [0.0]

        @dflow.custom_vjp
        def f(v):
            return v * scale[0]

        f.defvjp(lambda v: (f(v), v), lambda v, bar: (10 * bar * scale[0],))
        for k in range(1, 4):
            scale[0] = float(k)
            x = f(x)
        return x + 0 * scale[0]

    for g in (by_variable, by_list):
        assert g(1.0) == 6.0
        assert dflow.value_and_grad(g)(1.0) == (6.0, 6000.0)


def test_jacobian_takes_the_mode_that_there_is():
    def f(x):
        return np.stack([product(x, x)["value"], x, x * x])

    np.testing.assert_allclose(dflow.jacobian(f)(2.0), [40.0, 1.0, 4.0])
    assert "reverse mode alone" in refused(dflow.jacfwd(f), 2.0)


def test_methods():
    class Model:
        def __init__(self):
            self.scale = 2.0

        @dflow.custom_jvp
        def f(self, x):
            return self.scale * x

        @f.defjvp
        def rule(primals, tangents):
            (self, x), (_, t) = primals, tangents
            return self.f(x), 50.0 * t

    m = Model()
    assert m.f(3.0) == 6.0
    assert dflow.grad(lambda x: m.f(x))(3.0) == 50.0


def test_functions_not_ours():
    from scipy import special

    def ours(x):
        return 2.0 / np.sqrt(np.pi) * (x - x**3 / 3 + x**5 / 10)

    def helper(x):
        return x * x

    dflow.register_jvp(helper, lambda primals, tangents: (helper(*primals), 11.0 * tangents[0]))
    assert dflow.grad(lambda x: helper(x) + helper(2 * x))(1.0) == 33.0
    assert dflow.grad(helper)(1.0) == 11.0
    assert helper(3.0) == 9.0
    dflow.register_vjp(helper, lambda x: (helper(x), x), lambda x, bar: (12.0 * x * bar,))
    assert dflow.grad(lambda x: helper(x) - 0.0)(2.0) == 24.0
    dflow.register_jvp(
        special.dawsn,
        lambda p, t: (special.dawsn(*p), (1 - 2 * p[0] * special.dawsn(*p)) * t[0]),
        primal=lambda x: x - 2 * x**3 / 3 + 4 * x**5 / 15,
    )
    got = dflow.value_and_grad(lambda x: special.dawsn(x) * 1.0)(0.1)
    assert got == pytest.approx((special.dawsn(0.1), 1 - 0.2 * special.dawsn(0.1)), abs=1e-7)


# -- stop_gradient -------------------------------------------------------------------------------------------------


def test_stop_gradient():
    def f(x):
        return dflow.stop_gradient(x) * x**2

    assert f(3.0) == 27.0
    assert dflow.grad(f)(3.0) == 18.0
    assert dflow.grad(dflow.grad(f))(3.0) == 6.0
    assert dflow.jvp(dflow.jit(f), (3.0,), (1.0,))[1] == 18.0
    assert dflow.grad(lambda p: dflow.stop_gradient(p)["a"] * p["b"])({"a": 2.0, "b": 3.0}) == {"a": 0.0, "b": 2.0}
    assert dflow.stop_gradient({"a": 1, "b": None}) == {"a": 1, "b": None}


def test_straight_through():
    def f(x):
        return np.sum(x + dflow.stop_gradient(np.round(x) - x))

    np.testing.assert_array_equal(dflow.grad(f)(X), np.ones(3))


# -- the program ---------------------------------------------------------------------------------------------------


def test_text_reads_back_with_its_rule():
    from dflow.ir.evaluator import evaluate
    from dflow.ir.parser import parse_function
    from dflow.ir.passes.vjp import vjp
    from dflow.ir.verifier import verify

    lowered = dflow.jit(lambda x: tripled(x) * 2.0).lower(1.0)
    f = parse_function(lowered.ir("traced"))
    verify(f)
    assert str(f) == lowered.ir("traced")
    value, bar = evaluate(vjp(f), [1.0, 1.0])
    assert (value, bar) == pytest.approx((2 * np.e, 6 * np.e))
    assert not any(op.name == "custom" for op in walk(lowered.stages.optimized.body))


def test_text_without_its_rule_runs_and_is_not_differentiated():
    from dflow.ir.evaluator import evaluate
    from dflow.ir.parser import parse_function
    from dflow.ir.passes.jvp import jvp
    from dflow.ir.registry import NoDerivativeError

    f = parse_function(
        "func @f(%x: f64) -> (f64) {\n  %y = custom %x {rule = @of_nobody, linear = 0} { (%u: f64)\n"
        "    %v = sin %u : f64\n    yield %v\n  } : f64\n  return %y\n}"
    )
    assert evaluate(f, [0.0]) == (0.0,)
    with pytest.raises(NoDerivativeError, match="@of_nobody is not known"):
        jvp(f)


# -- what is refused -----------------------------------------------------------------------------------------------


def refused(f, *args):
    with pytest.raises(DerivativeError) as e:
        f(*args)
    return str(e.value)


def test_forward_mode_of_a_reverse_rule():
    text = refused(lambda: dflow.jvp(lambda x: clipped_gradient(x) ** 2, (2.0,), (1.0,)))
    assert "test_custom_rules.py" in text
    assert "reverse mode alone" in text
    assert dflow.jvp(lambda x: x + 0 * dflow.stop_gradient(clipped_gradient(x)), (2.0,), (1.0,))[1] == 1.0
    # The derivative by a direction is linear in it, so it can be transposed.
    assert dflow.grad(lambda t: dflow.jvp(clipped_gradient, (2.0,), (t,))[1])(3.0) == 1.0


def test_a_closure_that_varies():
    def f(a, x):
        @dflow.custom_jvp
        def inner(x):
            return a * x

        inner.defjvp(lambda primals, tangents: (inner(*primals), tangents[0]))
        return inner(x)

    assert dflow.grad(f, 1)(2.0, 3.0) == 1.0
    assert "closes over a value that is differentiated" in refused(dflow.grad(f, 0), 2.0, 3.0)


def test_a_rule_that_uses_more_than_its_function():
    @dflow.jit
    def f(a, x):
        @dflow.custom_jvp
        def inner(x):
            return x

        inner.defjvp(lambda primals, tangents: (inner(*primals), a * tangents[0]))
        return dflow.grad(inner)(x)

    assert "make it an argument of inner" in refused(f, 2.0, 3.0)


def test_rules_of_wrong_shape():
    def made(rule):
        f = dflow.custom_jvp(lambda x: 2.0 * x)
        f.defjvp(rule)
        return dflow.grad(lambda x: np.sum(f(x)))

    assert "a pair: the value and its tangent" in refused(made(lambda p, t: p[0]), X)
    assert "a value of the type" in refused(made(lambda p, t: (1.0, t[0])), X)
    assert "a value of the structure" in refused(made(lambda p, t: ((p[0], p[0]), t[0])), X)
    assert "tangents must have the shapes" in refused(made(lambda p, t: (p[0], np.sum(t[0]))), X)
    assert "not linear" in refused(made(lambda p, t: (p[0], t[0] ** 2)), X)


def test_reverse_rules_of_wrong_shape():
    def made(bwd):
        f = dflow.custom_vjp(lambda x: 2.0 * x)
        f.defvjp(lambda x: (2.0 * x, x), bwd)
        return dflow.grad(lambda x: np.sum(f(x)))

    assert "a tuple of 1, the cotangents" in refused(made(lambda x, bar: bar), X)
    assert "cotangents must have the shapes" in refused(made(lambda x, bar: (np.sum(bar),)), X)
    np.testing.assert_array_equal(made(lambda x, bar: (None,))(X), np.zeros(3))


def test_without_a_rule():
    @dflow.custom_jvp
    def f(x):
        return x

    @dflow.custom_vjp
    def g(x):
        return x

    assert "define it by @f.defjvp" in refused(dflow.grad(f), 1.0)
    assert "define it by @g.defvjp" in refused(dflow.grad(g), 1.0)


def test_functions_that_update_their_arguments():
    @dflow.custom_jvp
    def f(x):
        x[0] = 1.0
        return x

    f.defjvp(lambda p, t: (p[0], t[0]))
    with pytest.raises(DflowError, match="updates its argument x"):
        dflow.jit(lambda x: f(x))(X.copy())


# -- with checkpoint ----------------------------------------------------------------------------------------------


def test_checkpoint_of_custom_rules_and_the_other_way_round():
    kept = dflow.checkpoint(lambda x: tripled(np.sin(x)))
    assert dflow.grad(kept)(0.5) == pytest.approx(3 * np.exp(np.sin(0.5)) * np.cos(0.5))
    kept = dflow.checkpoint(lambda x: product(x, x)["value"])
    assert dflow.grad(kept)(2.0) == 40.0
    assert "reverse mode alone" in refused(lambda: dflow.jvp(kept, (2.0,), (1.0,)))
    f = dflow.custom_jvp(lambda x: x)
    f.defjvp(lambda p, t: (p[0], dflow.checkpoint(lambda x, t: np.sin(x) * t)(p[0], t[0])))
    assert dflow.grad(f)(0.5) == pytest.approx(np.sin(0.5))
    assert dflow.grad(dflow.grad(f))(0.5) == pytest.approx(np.cos(0.5))


# -- rules that use the function, or a derivative ------------------------------------------------------------------


def test_a_rule_may_apply_the_function_to_tangents():
    @dflow.custom_jvp
    def divided(x, y):
        return x / y

    divided.defjvp(lambda p, t: (divided(*p), divided(t[0], p[1])))  # as if y were constant
    value, pull = dflow.vjp(lambda x: divided(x, 2.0), 1.0)
    assert (value, pull(1.0)) == (0.5, (0.5,))

    def repeated(x):
        for _ in range(3):
            x = divided(x, 2.0) * 3.0
        return x**2

    dflow.check_grads(repeated, (1.5,), order=2)
    square = dflow.custom_jvp(lambda x: x**2)
    square.defjvp(lambda p, t: (square(p[0]), square(t[0])))
    assert "must be linear in its tangents" in refused(lambda: dflow.vjp(square, 2.0))


def test_none_stands_for_a_whole_part_of_the_cotangents():
    @dflow.custom_vjp
    def f(pair, y):
        return pair["a"] * pair["b"][0] * np.sin(y)

    f.defvjp(lambda pair, y: (f(pair, y), np.cos(y)), lambda cos, bar: (None, 2 * cos * bar))
    assert dflow.grad(lambda x: f({"a": x, "b": [x, x]}, x))(3.0) == pytest.approx(2 * np.cos(3.0))


def test_linear_maps_are_trees():
    def cube(x):
        return x**3

    f = dflow.custom_vjp(cube)
    f.defvjp(lambda x: dflow.vjp(cube, x), lambda pull, bar: pull(bar))
    assert dflow.grad(f)(2.0) == 12.0
    _, pull = dflow.vjp(cube, 2.0)
    assert dflow.jit(lambda pull, bar: pull(bar))(pull, 2.0) == (24.0,)
    assert dflow.jit(lambda x: dflow.linearize(cube, x)[1])(2.0)(1.0) == 12.0
    value, pull = dflow.vjp(lambda x: None, 1.0)
    assert (value, pull(None)) == (None, (0.0,))
