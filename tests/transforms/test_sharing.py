"""What is compiled once, and what must not be shared: functions that look alike but refer to something else."""

from __future__ import annotations

import functools
import types

import numpy as np
import pytest

import dflow

count = 0
factor = 1.0
table = np.zeros(3)
options = {"power": 2}


def compiled(run):
    """How many programs ``run`` compiles."""
    from dflow.programs.executable import Executable

    made = []
    with pytest.MonkeyPatch.context() as patch:
        original = Executable.__init__
        patch.setattr(Executable, "__init__", lambda *args, **more: (made.append(1), original(*args, **more))[1])
        run()
    return len(made)


def cube(x):
    return x**3


WAYS = {
    "jit": lambda f, x: dflow.jit(f)(x),
    "grad": lambda f, x: dflow.grad(f)(x),
    "grad of grad": lambda f, x: dflow.grad(dflow.grad(f))(x),
    "jvp": lambda f, x: dflow.jvp(f, (x,), (1.0,))[1],
    "vjp": lambda f, x: dflow.vjp(f, x)[1](1.0)[0],
    "linearize": lambda f, x: dflow.linearize(f, x)[1](1.0),
    "jacobian": lambda f, x: dflow.jacobian(f)(x),
    "hessian": lambda f, x: dflow.hessian(f)(x),
}
weights = np.array([1.0, 2.0])
FUNCTIONS = {
    "function": lambda: cube,
    "lambda": lambda: lambda x: cube(x) + 1,
    "closure over an array": lambda: (lambda w: lambda x: cube(x) * w[0])(weights),
    "global array": lambda: lambda x: cube(x) * weights[1],
    "partial": lambda: functools.partial(lambda a, x: a * x**2, 2.0),
    "compiled": lambda: dflow.jit(lambda x: x**2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_transformation_in_a_loop_compiles_once(kind, way):
    made = FUNCTIONS[kind]
    WAYS[way](made(), 2.0)

    def loop():
        for k in range(3):
            WAYS[way](made(), float(k))

    assert compiled(loop) == 0


@pytest.mark.parametrize("way", ["jit", "grad", "jvp", "vjp", "linearize", "jacobian"])
def test_a_lambda_sees_what_its_names_refer_to_now(way):
    global factor
    run = WAYS[way]
    slope = []
    for factor in (2.0, 3.0):
        slope.append(run(lambda x: factor * x, 1.0))  # noqa: B023
    assert slope == [2.0, 3.0]

    slope = []
    table[:] = 0
    for k in range(3):
        table[k] = 1.0
        slope.append(run(lambda x: np.sum(table) * x, 1.0))
    assert slope == [1.0, 2.0, 3.0]

    slope = []
    for k in range(3):
        options["power"] = k
        slope.append(run(lambda x: 2 ** options["power"] * x, 1.0))
    assert slope == [1.0, 2.0, 4.0]


def linear(x):
    return factor * x


def through(x):
    return linear(x) + 0.0


def test_a_function_is_compiled_anew_when_its_names_are_bound_anew():
    global factor, linear
    slopes = []
    for factor in (2.0, 3.0, 3.0, 2.0):  # noqa: B007
        slopes.append((dflow.grad(linear)(1.0), dflow.vjp(through, 1.0)[1](1.0)[0]))
    assert slopes == [(2.0, 2.0), (3.0, 3.0), (3.0, 3.0), (2.0, 2.0)]
    original = linear
    try:
        linear = lambda x: 7 * x  # noqa: E731
        assert dflow.grad(through)(1.0) == 7.0
    finally:
        linear = original
    assert dflow.grad(through)(1.0) == 2.0


def test_nonlocal_variables_are_seen_as_they_are():
    k = 1.0

    def f(x):
        return k * x

    slopes = []
    for k in (2.0, 3.0):  # noqa: B007
        slopes.append(dflow.grad(f)(1.0))
    assert slopes == [2.0, 3.0]


class Model:
    scale = 1.0

    def __init__(self, k):
        self.k = k

    def value(self, x):
        return self.scale * self.k * x

    def __call__(self, x):
        return self.value(x) + 0.0

    def slopes(self):
        found = []
        for self.k in (2.0, 3.0):
            found.append(dflow.grad(lambda x: self.k * x)(1.0))
            found.append(dflow.grad(lambda x: self.value(x))(1.0))
        return found


@pytest.mark.parametrize("way", ["jit", "grad", "jvp", "vjp", "linearize", "jacobian"])
def test_methods_of_two_instances_are_two_functions(way):
    a, b = Model(2.0), Model(5.0)
    run = WAYS[way]
    assert [run(a.value, 1.0), run(b.value, 1.0), run(a, 1.0), run(b, 1.0)] == [2.0, 5.0, 2.0, 5.0]
    a.k = 3.0
    assert [run(a.value, 1.0), run(b.value, 1.0), run(a, 1.0), run(b, 1.0)] == [3.0, 5.0, 3.0, 5.0]


def test_a_closure_over_an_object_sees_its_attributes():
    assert Model(0.0).slopes() == [2.0, 2.0, 3.0, 3.0]


def test_a_closure_sees_the_attributes_of_classes():
    slopes = []
    model = Model(1.0)
    try:
        for k in (2.0, 3.0):
            Model.scale = k
            slopes.append(dflow.grad(lambda x: model.value(x))(1.0))
    finally:
        Model.scale = 1.0
    assert slopes == [2.0, 3.0]


def test_a_module_that_is_loaded_anew():
    module = types.ModuleType("helpers_of_a_test")
    slopes = []
    for k in (2.0, 3.0):
        exec(f"def f(x): return {k} * x", vars(module))
        slopes.append(dflow.grad(lambda x: module.f(x))(1.0))
    assert slopes == [2.0, 3.0]


def test_what_cannot_be_compared_is_compiled_each_time():
    class Sealed:
        __slots__ = ("k",)

    sealed = Sealed()
    slopes = []
    for sealed.k in (2.0, 3.0):
        slopes.append(dflow.grad(lambda x: sealed.k * x)(1.0))
    assert slopes == [2.0, 3.0]


def test_recursive_functions_have_a_meaning():
    def power(x, n):
        return 1.0 if n == 0 else x * power(x, n - 1)

    def run():
        return dflow.grad(lambda x: power(x, 3))(2.0)

    assert run() == 12.0
    assert compiled(run) == 0


def test_a_function_that_changes_what_it_refers_to():
    seen = []

    def run():
        def f(x):
            seen.append(1)
            return len(seen) * x

        return dflow.grad(f)(1.0)

    assert [run(), run()] == [1.0, 2.0]
