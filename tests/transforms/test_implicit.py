"""Derivatives by definition: roots, linear systems, fixed points, transposes; differential equations; helpers."""

import numpy as np
import pytest
import scipy.integrate

import dflow
from dflow.errors import DerivativeError, DflowError, ShapeError

RNG = np.random.default_rng(5)
M = RNG.normal(size=(4, 4)) * 0.3 + 2 * np.eye(4)
B = RNG.normal(size=4)


def newton(f, x):
    for _ in range(40):
        x = x - f(x) / dflow.grad(f)(x)
    return x


def square_root(a):
    return dflow.custom_root(lambda x: x**2 - a, 1.0, newton, lambda g, y: y / g(1.0))


def richardson(matvec, b):
    x = b
    while np.max(np.abs(b - matvec(x))) > 1e-13:
        x = x + 0.3 * (b - matvec(x))
    return x


def solved(a, b):
    return dflow.custom_linear_solve(lambda x: a @ x, b, richardson, richardson)


# -- roots ---------------------------------------------------------------------------------------------------------


def test_root():
    assert square_root(9.0) == pytest.approx(3.0)
    assert dflow.jit(square_root)(9.0) == pytest.approx(3.0)
    assert dflow.grad(square_root)(9.0) == pytest.approx(1 / 6)
    assert dflow.jvp(square_root, (9.0,), (2.0,))[1] == pytest.approx(1 / 3)
    assert dflow.grad(dflow.grad(square_root))(9.0) == pytest.approx(-0.25 * 9**-1.5)
    assert dflow.vmap(dflow.grad(square_root))(np.array([4.0, 9.0])) == pytest.approx([1 / 4, 1 / 6])


def test_root_of_a_tree_in_a_loop():
    def pair(a):
        """x + y = a, x - y = a**2."""

        def f(p):
            return {"x": p["x"] + p["y"] - a, "y": p["x"] - p["y"] - a * a}

        def tangent_solve(g, rhs):
            return {"x": 0.5 * (rhs["x"] + rhs["y"]), "y": 0.5 * (rhs["x"] - rhs["y"])}

        def solve(f, p):
            r = f(p)
            step = tangent_solve(None, r)
            return {"x": p["x"] - step["x"], "y": p["y"] - step["y"]}

        return dflow.custom_root(f, {"x": 0.0, "y": 0.0}, solve, tangent_solve)

    def total(a, n):
        s = 0.0
        for k in range(n):
            p = pair(a * (k + 1))
            s += p["x"] * p["y"]
        return s

    def exact(a, n):
        return sum(((a * k) ** 2 - (a * k) ** 4) / 4 for k in range(1, n + 1))

    assert dflow.jit(total)(0.7, 6) == pytest.approx(exact(0.7, 6))
    assert dflow.grad(total)(0.7, 6) == pytest.approx(
        sum((2 * 0.7 * k**2 - 4 * 0.7**3 * k**4) / 4 for k in range(1, 7))
    )


def test_the_way_to_the_root_is_not_differentiated():
    def f(a):
        return dflow.custom_root(lambda x: x - a, a * 100.0, lambda f, x: np.round(x - f(x), 12), lambda g, y: y)

    assert dflow.grad(f)(0.25) == 1.0


def test_roots_refused():
    def wrong(a):
        return dflow.custom_root(lambda x: np.array([x, a]), 1.0, newton, lambda g, y: y)

    with pytest.raises(DerivativeError, match="structure and the shapes of the guess"):
        dflow.grad(wrong)(1.0)


# -- linear systems ------------------------------------------------------------------------------------------------


def test_linear_solve():
    np.testing.assert_allclose(dflow.jit(solved)(M, B), np.linalg.solve(M, B))
    np.testing.assert_allclose(solved(M, B), np.linalg.solve(M, B))
    dflow.check_grads(lambda a, b: np.sum(np.sin(solved(a, b))), (M, B), order=2)
    got = dflow.vmap(lambda b: solved(M, b))(np.stack([B, 2 * B]))
    np.testing.assert_allclose(got[1], 2 * np.linalg.solve(M, B))


def test_symmetric_systems():
    def f(a, b):
        return dflow.custom_linear_solve(lambda x: a @ x + a.T @ x, b, richardson, symmetric=True)

    small = 0.4 * M
    np.testing.assert_allclose(dflow.jit(f)(small, B), np.linalg.solve(small + small.T, B))
    dflow.check_grads(lambda a, b: np.sum(f(a, b) ** 2), (small, B))


def test_linear_solve_without_a_transpose():
    def f(a, b):
        return np.sum(dflow.custom_linear_solve(lambda x: a @ x, b, richardson))

    assert dflow.jvp(f, (M, B), (0 * M, B))[1] == pytest.approx(f(M, B))
    with pytest.raises(DerivativeError, match="there is no transpose_solve"):
        dflow.grad(f)(M, B)


# -- transposes ----------------------------------------------------------------------------------------------------


def test_custom_transpose():
    @dflow.custom_transpose
    def scaled(k, x):
        return k * x

    @scaled.def_transpose
    def rule(k, bar):
        return 100.0 * k * bar

    assert scaled(2.0, 3.0) == 6.0
    f = lambda k, x: np.sin(scaled(k, x * x))  # noqa: E731
    assert dflow.jvp(f, (2.0, 3.0), (0.0, 1.0))[1] == pytest.approx(np.cos(18.0) * 12)
    assert dflow.grad(f, 1)(2.0, 3.0) == pytest.approx(100 * np.cos(18.0) * 12)
    assert dflow.grad(f, 0)(2.0, 3.0) == pytest.approx(np.cos(18.0) * 9)
    assert dflow.linear_transpose(lambda x: scaled(2.0, x), 1.0)(1.0) == (200.0,)
    assert dflow.grad(lambda k: dflow.grad(f, 1)(k, 3.0))(2.0) == pytest.approx(
        600 * np.cos(18.0) - 10800 * np.sin(18.0)
    )


def test_custom_transpose_refused():
    f = dflow.custom_transpose(lambda k, x: k * x)
    with pytest.raises(DerivativeError, match="without a rule"):
        dflow.jit(f)(1.0, 2.0)
    f.def_transpose(lambda k, bar: k * bar)
    with pytest.raises(DerivativeError, match="holds integers"):
        dflow.jit(f)(1.0, 2)


# -- fixed points --------------------------------------------------------------------------------------------------


def test_fixed_point():
    def f(a):
        def step(p):
            return {"x": np.cos(a * p["x"]), "y": 0.5 * np.sin(p["x"] + p["y"])}

        return dflow.fixed_point(step, {"x": 0.5, "y": np.ones(2)})

    eager, compiled = f(0.7), dflow.jit(f)(0.7)
    assert eager["x"] == pytest.approx(np.cos(0.7 * eager["x"]))
    np.testing.assert_allclose(compiled["y"], eager["y"])
    dflow.check_grads(lambda a: np.sum(f(a)["y"]), (0.7,))
    dflow.check_grads(lambda a: dflow.fixed_point(lambda x: np.cos(a * x), 0.5), (0.7,), order=2)


def test_fixed_points_of_loops():
    """Whose steps count as constants."""

    def relaxed(z):
        y, now, h = 1.0, 0.0, dflow.stop_gradient(0.1 + 0.0 * z)
        while now < 1.0:
            y = y + h * (z - y)
            now += h
            h = np.minimum(1.1 * h, 0.3)
        return y

    def settled(a):
        return dflow.fixed_point(lambda z: 0.3 * relaxed(a + z), 0.5)

    want = dflow.grad(lambda z: relaxed(z))(1.2 + settled(1.2))
    assert dflow.grad(settled)(1.2) == pytest.approx(0.3 * want / (1 - 0.3 * want))
    assert dflow.jacfwd(settled)(1.2) == pytest.approx(0.3 * want / (1 - 0.3 * want))


def test_a_linear_function_that_carries_something_else():
    def f(x):
        k, y = 0, 0.0
        for i in range(10):
            y += x[k] * i
            k = (2 * k + 1) % 3
        return y

    with pytest.raises(DerivativeError, match=r"carries a value that does not depend on the arguments(.|\n)*dflow.vjp"):
        dflow.linear_transpose(f, B)(1.0)


def test_a_fixed_point_that_is_not_reached():
    with pytest.raises(ValueError, match="does not converge"):
        dflow.jit(lambda a: dflow.fixed_point(lambda x: x + a, 0.0, max_steps=50))(1.0)


@pytest.mark.parametrize("step", [lambda x: 2 * x + 1, lambda x: np.sqrt(x) - 2])
def test_infinity_and_nan_are_no_fixed_points(step):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="does not converge"):
        dflow.fixed_point(step, 1.0)


# -- differential equations ----------------------------------------------------------------------------------------


def prey(y, t, a):
    return np.array([a * y[0] - y[0] * y[1], y[0] * y[1] - y[1] + 0.1 * np.sin(t)])


TIMES = np.array([0.0, 0.0, 0.3, 0.31, 2.0, 5.0])


def test_odeint_agrees_with_scipy():
    want = scipy.integrate.odeint(prey, [1.0, 2.0], TIMES, args=(1.2,), rtol=1e-11, atol=1e-11)
    y0 = np.array([1.0, 2.0])
    np.testing.assert_allclose(dflow.odeint(prey, y0, TIMES, 1.2), want, atol=1e-7)
    solve = dflow.jit(lambda y, t, a: dflow.odeint(prey, y, t, a))
    np.testing.assert_allclose(solve(y0, TIMES, 1.2), want, atol=1e-7)
    back = solve(want[-1], TIMES[::-1].copy(), 1.2)
    np.testing.assert_allclose(back[-1], y0, atol=1e-6)


def test_odeint_derivatives():
    def f(y, t, a):
        return np.sum(dflow.odeint(prey, y, t, a, rtol=1e-9, atol=1e-9)[-1])

    y0, times = np.array([1.0, 2.0]), np.array([0.0, 0.5, 1.0])
    dflow.check_grads(f, (y0, times, 1.2))


def test_odeint_of_complex_states():
    t = np.array([0.0, 0.5, 1.0])

    def turn(y, t, speed):
        return 1j * speed * y

    np.testing.assert_allclose(dflow.jit(lambda w: dflow.odeint(turn, 1.0 + 0j, t, w))(2.0), np.exp(2j * t), atol=1e-7)
    slope = dflow.grad(lambda w: np.real(dflow.odeint(turn, 1.0 + 0j, t, w)[-1]))(2.0)
    np.testing.assert_allclose(slope, -np.sin(2.0), rtol=1e-6)
    for solve in (dflow.odeint, dflow.jit(dflow.odeint, static_argnums=0)):
        with pytest.raises(DflowError, match="real state whose derivative is complex"):
            solve(turn, 1.0, t, 2.0)


def test_odeint_of_trees():
    def f(state, t):
        return {"x": state["v"], "v": -state["x"]}

    got = dflow.jit(lambda s: dflow.odeint(f, s, np.array([0.0, np.pi])))({"x": np.ones(2), "v": np.zeros(2)})
    np.testing.assert_allclose(got["x"], [[1.0, 1.0], [-1.0, -1.0]], atol=1e-6)
    assert dflow.grad(lambda s: dflow.odeint(lambda y, t: -s * y, 1.0, np.array([0.0, 1.0]))[1])(2.0) == pytest.approx(
        -np.exp(-2.0), rel=1e-6
    )


@pytest.mark.parametrize(
    ("func", "t", "message"),
    [
        (lambda y, t: -y, np.array([0.0, 2.0, 1.0]), "needs times that increase, or that decrease"),
        (lambda y, t: -y, 1.0, "the times in an array of one axis"),
        (lambda t, y: -y, np.array([0.0, 1.0]), "the state as the first argument"),
    ],
)
def test_misuse_of_odeint(func, t, message):
    for solve in (dflow.odeint, dflow.jit(dflow.odeint)):
        with pytest.raises((ShapeError, ValueError), match=message):
            solve(func, np.ones(2), t)


def test_odeint_with_too_many_steps():
    with pytest.raises(ValueError, match="more than mxstep"):
        dflow.jit(lambda y: dflow.odeint(lambda y, t: np.cos(1e4 * t) + y, y, np.array([0.0, 9.0]), mxstep=20))(1.0)


# -- helpers -------------------------------------------------------------------------------------------------------


def test_closure_convert():
    @dflow.jit
    def f(a, x):
        converted, consts = dflow.closure_convert(lambda x: np.sin(a * x), x)
        assert len(consts) == 1
        return converted(x, *consts), converted(x, 2.0), dflow.grad(converted, 1)(x, a)

    assert f(3.0, 0.5) == pytest.approx((np.sin(1.5), np.sin(1.0), 0.5 * np.cos(1.5)))
    g, consts = dflow.closure_convert(np.sin, 1.0)
    assert g(1.0) == np.sin(1.0)
    assert consts == []
    with pytest.raises(DerivativeError, match="shapes that it was converted for"):
        dflow.jit(lambda x: dflow.closure_convert(lambda x: x * 2, x)[0](np.ones(7)))(B)


def test_ravel_pytree():
    tree = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [1.5, 2], "c": ()}
    flat, unravel = dflow.ravel_pytree(tree)
    np.testing.assert_array_equal(flat, [0, 1, 2, 3, 4, 5, 1.5, 2])
    back = unravel(flat * 2)
    assert back["a"].dtype == np.float32
    assert back["b"] == [3.0, 4]
    assert dflow.ravel_pytree({})[0].shape == (0,)

    def norm(tree):
        flat, unravel = dflow.ravel_pytree(tree)
        return np.sum(unravel(flat * 3.0)["a"] ** 2)

    np.testing.assert_array_equal(dflow.grad(norm)(tree)["a"], 18 * tree["a"])


def test_trees():
    p = {"w": np.ones(2), "b": 2.0}

    def shrink(p):
        halved = dflow.tree.map(lambda x, y: x * 0.5 if np.sum(x) > 1.9 else x - y, p, p)
        return dflow.tree.reduce(lambda a, b: a + np.sum(b), halved, 0.0)

    assert shrink(p) == 2.0
    assert dflow.jit(shrink)(p) == 2.0
    leaves, structure = dflow.tree.flatten(p)
    assert dflow.tree.structure(p) == structure
    assert dflow.tree.unflatten(structure, dflow.tree.leaves(p))["b"] == leaves[0] == 2.0


# -- what solvers say besides the solution -----------------------------------------------------------------------------


def test_a_root_with_what_else_the_solver_says():
    def newton(f, x):
        steps = 0
        while abs(f(x)) > 1e-14 and steps < 50:
            x, steps = x - f(x) / dflow.grad(f)(x), steps + 1
        return x, {"steps": steps, "residual": f(x)}

    def root(c, solve=newton):
        return dflow.custom_root(lambda x: x * x - c, 1.0, solve, lambda g, y: y / g(1.0), has_aux=True)

    (x, said), slope = dflow.value_and_grad(root, has_aux=True)(2.0)
    np.testing.assert_allclose([x, slope], [np.sqrt(2), 0.5 / np.sqrt(2)])
    assert said["steps"] == root(2.0)[1]["steps"] == 5
    dflow.check_grads(lambda c: root(c)[0], (2.0,), order=2)
    with pytest.raises(DerivativeError, match="must return a pair"):
        dflow.jit(root, static_argnums=1)(2.0, lambda f, x: x)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_linear_system_with_what_else_the_solver_says(symmetric):
    def solver(matrix, b):
        return np.linalg.solve(dflow.jacobian(matrix)(b), b), {"sum": np.sum(b), "count": 3}

    def solve(a, b):
        matrix = a + a.T if symmetric else a
        back = None if symmetric else solver
        return dflow.custom_linear_solve(lambda x: matrix @ x, b, solver, back, symmetric, has_aux=True)

    a, b = np.array([[2.0, 0.3], [0.1, 1.5]]), np.array([1.0, 2.0])
    x, said = dflow.jit(solve)(a, b)
    np.testing.assert_allclose(x, np.linalg.solve(a + a.T if symmetric else a, b))
    assert said == {"sum": 3.0, "count": 3}
    dflow.check_grads(lambda a, b: solve(a, b)[0], (a, b), order=2)
    assert not dflow.grad(lambda b: solve(a, b)[1]["sum"])(b).any()
    both = dflow.vmap(solve, in_axes=(None, 0))(a, np.stack([b, 2 * b]))
    np.testing.assert_allclose(both[0], [x, 2 * x])
    assert both[1]["count"].tolist() == [3, 3]
