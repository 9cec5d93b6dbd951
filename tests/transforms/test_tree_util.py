"""Trees under the names of ``jax.tree_util``."""

import dataclasses

import numpy as np

import dflow
from dflow import tree_util

X = np.array([1.0, 2.0])


@tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layer:
    w: np.ndarray
    power: int = dataclasses.field(metadata={"static": True}, default=1)

    def __call__(self, x):
        for _ in range(self.power):
            x = x * self.w
        return x


class Line:
    def __init__(self, slope, name):
        self.slope, self.name = slope, name

    def tree_flatten(self):
        return (self.slope,), self.name

    @classmethod
    def tree_unflatten(cls, name, children):
        return cls(*children, name)


tree_util.register_pytree_node_class(Line)


def test_dataclass():
    g = dflow.grad(lambda layer, x: np.sum(layer(x)))(Layer(X, 2), X)
    assert isinstance(g, Layer) and g.power == 2
    np.testing.assert_allclose(g.w, 2 * X * X)
    assert tree_util.tree_leaves(Layer(1.0, 3)) == [1.0]


def test_class_with_methods():
    g = dflow.grad(lambda line, x: np.sum(line.slope * x))(Line(2.0, "a"), X)
    assert g.name == "a" and g.slope == 3.0
    assert tree_util.tree_map(lambda v: 2 * v, Line(2.0, "b")).slope == 4.0


def test_partial():
    def scaled(w, x, power=1.0):
        return np.sum(w * x**power)

    f = tree_util.Partial(scaled, X, power=2.0)
    assert f(X) == dflow.jit(lambda f, x: f(x))(f, X) == 9.0
    g = dflow.grad(lambda f, x: f(x))(f, X)
    np.testing.assert_allclose(g.args[0], X**2)
    assert tree_util.tree_structure(f) == tree_util.tree_structure(tree_util.Partial(scaled, 1.0, power=0.5))
