"""Objects as arguments and results: gradients in the same structure, updates that reach the caller, marked fields."""

from collections import OrderedDict, deque
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import optree
import pytest

import dflow
from dflow.programs.treecode import Different, extractor
from dflow.records import NAMESPACE


@dataclass
class Vector:
    x: float
    y: float

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)

    def __rmul__(self, scale):
        return Vector(scale * self.x, scale * self.y)


class Plain:
    def __init__(self, x, y, mode="sum"):
        self.x, self.y, self.mode = x, y, mode

    def __add__(self, other):
        return Plain(self.x + other.x, self.y + other.y)

    def __rmul__(self, scale):
        return Plain(scale * self.x, scale * self.y)


@dflow.struct
class Model:
    weights: np.ndarray
    scale: float = dflow.field(differentiable=False, default=2.0)
    order: int = dflow.field(static=True, default=3)

    def loss(self):
        return sum(self.scale * np.sum(self.weights**k) for k in range(1, self.order))


@dflow.struct
class Marked:
    x: float
    facts: object = dflow.field(static=True)


@dflow.struct(frozen=True)
class Nested:
    model: Model
    point: Vector


@pytest.mark.parametrize("cls", [Vector, Plain, SimpleNamespace])
def test_gradient_in_the_structure_of_the_argument(cls):
    slope = dflow.grad(lambda p: p.x * p.x + 3.0 * p.y)(cls(x=2.0, y=5.0))
    assert type(slope) is cls and (slope.x, slope.y) == (4.0, 3.0)


@pytest.mark.parametrize("cls", [Vector, Plain])
def test_descent_with_a_vector_type(cls):
    """Addition and scaling are all that a user's vector needs."""
    p = cls(2.0, 5.0)
    gradient = dflow.grad(lambda p: (p.x - 1.0) ** 2 + (p.y + p.x) ** 2)
    for _ in range(200):
        p = p + -0.1 * gradient(p)
    assert (p.x, p.y) == pytest.approx((1.0, -1.0), abs=1e-6)


def test_results():
    made = dflow.jit(lambda p: p + p)(Plain(1.0, 2.0))
    assert type(made) is Plain and (made.x, made.y, made.mode) == (2.0, 4.0, "sum")


def test_marked_fields():
    m = Model(np.array([1.0, 2.0]))
    slope = dflow.grad(Model.loss)(m)
    np.testing.assert_allclose(slope.weights, [6.0, 10.0])
    assert slope.scale is None and slope.order == 3
    assert dflow.vjp(Model.loss, m)[1](1.0)[0].scale is None
    assert dflow.jvp(Model.loss, (m,), (Model(np.ones(2), 1.0),))[1] == 16.0
    assert dflow.jit(Model.loss)(Model(np.array([1.0, 2.0]), order=2)) == 6.0


def test_nested_and_frozen():
    n = Nested(Model(np.ones(2)), Vector(1.0, 2.0))
    slope = dflow.grad(lambda n: n.model.loss() * n.point.x)(n)
    assert isinstance(slope, Nested) and slope.point.x == 8.0
    with pytest.raises(AttributeError):
        n.point = n.point


def test_static_attributes_are_compared_by_what_is_in_them():
    f = dflow.jit(lambda p: p.x * len(p.mode))
    p = Plain(1.0, 2.0, mode=["a"])
    assert f(p) == 1.0
    p.mode.append("b")
    assert f(p) == 2.0


class Mode:
    def __init__(self, name):
        self.name = name


def renamed(mode):
    mode.name = "b"


FACTS = {
    "an object": (Mode("a"), lambda m: m.name, renamed),
    "an object in a list": ([Mode("a")], lambda m: m[0].name, lambda m: renamed(m[0])),
    "an object of an object": (Mode(Mode("a")), lambda m: m.name.name, lambda m: renamed(m.name)),
    "a dataclass": (Vector("a", None), lambda m: m.x, lambda m: setattr(m, "x", "b")),
    "a deque": (deque("a"), lambda m: m[0], lambda m: m.append(m.popleft() + "b")),
    "an ordered dict": (OrderedDict(k="a"), lambda m: m["k"], lambda m: m.update(k="b")),
    "an array of names": (np.array(["a"]), lambda m: m[0], lambda m: m.fill("b")),
    "an array of objects": (np.array(["a", None]), lambda m: m[0], lambda m: m.fill("b")),
    "an array that is marked": (np.array([np.nan, 0.0]), lambda m: "ab"[int(m[1])], lambda m: m.fill(1.0)),
}


@pytest.mark.parametrize("kind", FACTS)
def test_facts_that_change_where_they_are(kind):
    facts, name, change = FACTS[kind]
    p = Marked(2.0, facts)
    traced = []

    def f(p):
        traced.append(1)
        return p.x if name(p.facts) == "a" else -p.x

    run = dflow.jit(f)
    assert run(p) == run(p) == 2.0
    count = len(traced)
    change(facts)
    assert run(p) == run(p) == -2.0
    assert len(traced) == 2 * count


def test_facts_that_refer_to_each_other():
    first, second = Mode("a"), Mode("b")
    first.other, second.other = second, first
    run = dflow.jit(lambda p: p.x if p.facts.other.name == "b" else -p.x)
    assert run(Marked(2.0, first)) == 2.0
    second.name = "c"
    assert run(Marked(2.0, first)) == -2.0


class Chosen:
    """What is done is chosen when the object is made: its own method, and one of its part."""

    def __init__(self, w, x):
        self.model, self.x = Plain(w, 0.0), x
        self.apply, self.step = self.model.__rmul__, self.shifted

    def shifted(self):
        self.x += 1.0
        return self.apply(self.x).x


def test_methods_as_attributes():
    run, slope = dflow.jit(lambda p: p.step() * p.x), dflow.grad(lambda p: p.step() * p.x)
    p = Chosen(2.0, 3.0)
    assert [run(p), run(p)] == [32.0, 50.0] and p.x == 5.0
    p.model.x = 3.0
    assert run(p) == 108.0
    gradient = slope(p)
    assert gradient.model.x == 49.0 and gradient.x == 42.0
    same = dflow.jit(lambda p: p)(p)
    assert same.step.__self__ is same and same.apply.__self__ is same.model


def test_a_method_of_an_object_elsewhere():
    """Its object is a fact, whose numbers are looked at again in every call."""
    other = Vector(2.0, 1.0)
    run = dflow.jit(lambda p: p.mode(p.x).y)
    for method in (other.__rmul__, partial(Vector.__rmul__, other)):
        p = Plain(3.0, None, method)
        for other.y in (1.0, 5.0):
            assert run(p) == run(p) == 3.0 * other.y


# -- updates of arguments --------------------------------------------------------------------------------------------


@dflow.jit
def advance(p):
    p.x += 1.0
    p.y = p.x * 2


@dflow.jit
def edit(items, table, v):
    items[0] = items[0] * 2
    items.append(v)
    table["new"] = table["old"] + v
    del table["old"]


class Simulation:
    def __init__(self):
        self.time = 0.0
        self.position = np.zeros(2)
        self.count = 0

    @dflow.jit
    def step(self, h):
        self.time += h
        self.position += self.time
        self.count += 1
        return self.time


def test_attributes_are_updated_for_the_caller():
    p = Vector(1.0, 2.0)
    advance(p)
    advance(p)
    assert p == Vector(3.0, 6.0)


def test_items_are_updated_for_the_caller():
    items, table = [1.0, 2.0], {"old": 3.0}
    edit(items, table, 5.0)
    assert items == [2.0, 2.0, 5.0] and table == {"new": 8.0}


def test_state_of_a_method():
    s = Simulation()
    position = s.position
    assert [s.step(0.5) for _ in range(3)] == [0.5, 1.0, 1.5]
    assert s.count == 3 and s.position is position
    np.testing.assert_allclose(position, 3.0)


def test_derivatives_leave_the_callers_objects_alone():
    def f(p):
        p.x = p.x * p.y
        return p.x**2

    p = Vector(2.0, 3.0)
    slope = dflow.grad(f)(p)
    assert p == Vector(2.0, 3.0) and slope == Vector(36.0, 24.0)


def test_one_object_at_two_places():
    @dflow.jit
    def f(a, b):
        a.x += 1.0
        return b.x

    p = Vector(1.0, 2.0)
    with pytest.raises(ValueError, match="one Vector stands at two places in the arguments"):
        f(p, p)
    assert p == Vector(1.0, 2.0) and f(p, Vector(5.0, 6.0)) == 5.0


def test_an_argument_that_another_one_takes_in():
    @dflow.jit
    def f(rows, row):
        rows.append(row)
        rows[0], rows[1] = rows[1], rows[0]
        rows[-1].append(123)
        rows[0][0] = 9

    rows, row = [[0, 1], [2, 3]], [4, 5]
    first, second = rows
    f(rows, row)
    assert rows == [[9, 3], [0, 1], [4, 5, 123]] and rows[0] is second and rows[1] is first and rows[2] is row


class Linked:
    def __init__(self, v):
        self.v = v
        self.itself = self


def test_an_object_that_refers_to_itself():
    with pytest.raises(dflow.errors.TraceError, match="refers to itself"):
        dflow.jit(lambda a: a.v)(Linked(1.0))


class Pair(NamedTuple):
    x: float
    y: float


class Other(NamedTuple):
    y: float
    x: float


def test_a_known_call_meets_another_object():
    """What served the last call looks at the class, the attributes and the facts among them."""

    def f(p):
        return getattr(p, "scale", 1.0) * (p.x - p.y if getattr(p, "mode", "sum") == "sum" else p.x * p.y)

    run = dflow.jit(f)
    other, more = Plain(5.0, 2.0, "product"), Plain(5.0, 2.0)
    more.scale = 3.0
    odd = Plain(5.0, 2.0)
    del odd.mode
    odd.scale = 4.0  # as many attributes as others have
    for p in (Pair(5.0, 2.0), Other(5.0, 2.0), Vector(5.0, 2.0), Plain(5.0, 2.0), other, more, odd):
        for _ in range(2):
            assert run(p) == f(p)
    p = Plain(5.0, 2.0, ["sum"])  # a list can change where it is
    choose = dflow.jit(lambda p: p.x - p.y if p.mode[0] == "sum" else p.x * p.y)
    assert choose(p) == choose(p) == 3.0
    p.mode[0] = "product"
    assert choose(p) == 10.0


OTHER_NAMES = ({"b": "y", "a": "x"}, {"a": "x", "b": "z"}, {"a": "x"}, ("a", "b"), ["a"], {"a"})


def test_known_calls_compare_functions_and_lists_of_facts():
    """An activation of NumPy's and names of layers keep a call as short as numbers alone do."""
    p = Plain(0.5, 2.0, [np.tanh, {"a": "x", "b": "y"}])
    dflow.jit(lambda p: p.x)(p)  # makes the class one that trees know
    extract = extractor(optree.tree_structure(p, namespace=NAMESPACE))
    assert extract is not None and extract(p) == (0.5, 2.0)
    run = dflow.jit(lambda p: p.mode[0](p.x) * len(p.mode[1]))
    for facts in ([np.exp, {"a": "x", "b": "y"}], *([np.tanh, names] for names in OTHER_NAMES)):
        p.mode[:] = facts
        for _ in range(2):
            assert np.isclose(run(p), facts[0](0.5) * len(facts[1]))
        with pytest.raises(Different):
            extract(p)


class Slotted:
    __slots__ = ("mode", "scale", "x")

    def __init__(self, x, mode):
        self.x, self.mode = x, mode


class More(Slotted):
    __slots__ = ("x", "y")


def test_known_calls_read_slots():
    def f(p):
        return getattr(p, "scale", 1.0) * (p.x if p.mode == "sum" else -p.x) + getattr(p, "y", 0.0)

    run = dflow.jit(f)
    scaled, more = Slotted(2.0, "sum"), More(3.0, "sum")
    scaled.scale, more.y = 3.0, 5.0
    for p in (Slotted(2.0, "sum"), Slotted(2.0, "other"), scaled, more, More(4.0, "sum")):
        assert [run(p), run(p)] == [f(p), f(p)]
        extract = extractor(optree.tree_structure(p, namespace=NAMESPACE))
        assert extract is not None and extract(p) == tuple(dflow.tree.leaves(p))
    del more.y
    with pytest.raises(Different):
        extractor(optree.tree_structure(scaled, namespace=NAMESPACE))(more)


def test_known_calls_return_named_tuples_and_objects():
    run = dflow.jit(lambda p, q: (Pair(q.x, p.y), [Plain(p.x, None, "kept")], {"v": Vector(q.y, p.y)}))
    for x in (1.0, 2.0):
        pair, (plain,), rest = run(Pair(x, 3.0), Plain(4.0, 5.0))
        assert type(pair) is Pair and pair == (4.0, 3.0)
        assert vars(plain) == {"x": x, "y": None, "mode": "kept"}
        assert rest == {"v": Vector(5.0, 3.0)}
    assert vars(dflow.grad(lambda p: p.x * p.y)(Plain(2.0, 3.0))) == {"x": 3.0, "y": 2.0, "mode": "sum"}
