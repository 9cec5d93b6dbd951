"""Objects of a user's own classes, dicts and lists: carried, merged, and changed in loops and branches."""

import copy
import dataclasses
import math
import types
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import dflow

X = np.array([0.7, -1.3, 2.1, 0.4])


class Pair(NamedTuple):
    position: Any
    velocity: Any = 0.5

    def energy(self):
        return self.position**2 + self.velocity**2


@dataclass
class Vector:
    x: Any
    y: Any = 1.0

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)

    def __mul__(self, scale):
        return Vector(self.x * scale, self.y * scale)

    __rmul__ = __mul__

    def __sub__(self, other):
        return self + (-1.0) * other

    def __iadd__(self, other):
        self.x += other.x
        self.y += other.y
        return self

    def __lt__(self, other):
        return self.square < other.square

    def __iter__(self):
        yield self.x
        yield self.y

    @property
    def square(self):
        return self.x * self.x + self.y * self.y

    @classmethod
    def of(cls, pair):
        return cls(pair[0], pair[1])


@dataclass(frozen=True)
class Frozen:
    a: Any
    b: Any = 2.0
    name: str = "frozen"

    def step(self, h):
        return dataclasses.replace(self, a=self.a + h * self.b)


class Sum:
    def __init__(self):
        self.total = 0.0
        self.count = 0

    def __call__(self, v):
        self.total += v
        self.count += 1
        return self

    @property
    def mean(self):
        return self.total / self.count


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b


class Spring:
    def __init__(self, k):
        self.k = k

    def force(self, x):
        return -self.k * x


class Damped(Spring):
    def __init__(self, k, friction):
        super().__init__(k)
        self.friction = friction

    def force(self, x):
        return super().force(x) - self.friction


def steps(x):
    return int(x[2]) + 5


def named_tuple(x):
    p = Pair(x[0])
    for _ in range(steps(x)):
        p = Pair(p.position + 0.1 * p.velocity, p.velocity - 0.1 * p.position)
    return p._replace(velocity=p.velocity * x[1]).energy()


def dataclass_replaced(x):
    v, a = Vector(x[0], x[1]), Vector(0.0, 0.0)
    for _ in range(steps(x)):
        a = a + v * 0.1
        v = v - 0.1 * a
    return a.square + math.sqrt(v.square)


def dataclass_updated(x):
    a = Vector(0.0, 0.0)
    for i in range(steps(x)):
        a += Vector.of(x[:2])
        a.x *= x[i % 4]
    return a.square


def attributes_in_branches(x):
    a = Vector(0.0, 0.0)
    if x[0] > 0:
        a.x = x[1]
    else:
        a.y = x[2]
    return a.x + 2 * a.y


def chosen(x):
    a, b = Vector(x[0], x[1]), Vector(x[1], x[2])
    c = a if a < b else b
    return c.x * c.y


def frozen(x):
    f = Frozen(x[0])
    for _ in range(steps(x)):
        f = f.step(0.1 * x[1])
    return f.a**2 + len(f.name)


def callable_object(x):
    total = Sum()
    for i in range(steps(x)):
        total(x[i % 4] ** 2)
    return total.mean


def slots(x):
    p = Slotted(x[0], x[1])
    for _ in range(steps(x)):
        p.a = p.a * 0.5 + p.b
    return p.a


def inheritance(x):
    d = Damped(x[0], x[1])
    s = 0.0
    for i in range(steps(x)):
        s += d.force(x[i % 4])
    return s


def dictionary(x):
    d = {"a": x[0], "b": x[1:] * 1.0, "mode": "fast"}
    for _ in range(steps(x)):
        if d["mode"] == "fast":
            d["a"] += d["b"][0]
        d["b"] = d["b"] * 0.5
    return d["a"] + d["b"].sum()


def dictionary_replaced(x):
    d = {"a": x[0], "b": x[1]}
    while d["a"] < 5:
        d = {"a": d["a"] + 1, "b": d["b"] * 0.9}
    return d["b"]


def item_in_branches(x):
    d = defaultdict(float, {"a": x[0]})
    d["b"] += x[1]
    if x[0] > 0:
        d["a"] = x[2]
    else:
        d["b"] = 0.0
    return d["a"] * d["b"]


def list_items(x):
    items = [x[0], x[1]]
    for _ in range(steps(x)):
        items[0], items[1] = items[1], items[0] + 0.1 * items[1]
    return items[0]


def list_appended(x):
    trail, last = [x[0]], deque(maxlen=2)
    for i in range(40):
        trail.append(trail[-1] * 0.5 + x[i % 4])
        last.append(x[i % 4])
    return np.array(trail).sum() + last[0] * last[1]


def nested(x):
    s = {"points": [Vector(x[0], x[1]), Vector(x[2], x[3])], "t": 0.0}
    for _ in range(steps(x)):
        p, q = s["points"]
        d = q - p
        s = {"points": [p + d * 0.1, q - d * 0.1], "t": s["t"] + 0.1}
    return s["points"][0].square + s["t"]


def particles(x):
    points = [Vector(x[k], 0.0) for k in range(3)]
    for _ in range(steps(x)):
        for p in points:
            p.y += 0.1 * p.x
            if p.y > 0.2:
                p.x = -p.x
    return sum(p.y for p in points)


def state_of_a_function(x):
    state = types.SimpleNamespace(v=Vector(x[0], x[1]), hits=0)

    def step():
        state.v = state.v * 0.9 + Vector(0.1, 0.2)
        if state.v.x > 0.5:
            state.hits += 1

    for _ in range(steps(x)):
        step()
    return state.v.x + state.v.y + state.hits


def best_so_far(x):
    best = Vector(x[0], x[1])
    first = [best]
    for i in range(steps(x)):
        p = Vector(x[i % 4], 1.0)
        if p.x > best.x:
            best = p
    return best.x + first[0].x


def two_names(x):
    p = Vector(x[0], x[1])
    q = p
    for _ in range(steps(x)):
        q.x += 1.0
    return p.x


def list_in_a_tuple(x):
    items = [0.0]
    state = (items, 0.0)
    for _ in range(steps(x)):
        state = (state[0], state[1] + 1)
        state[0][0] += x[0]
    return items[0] + state[1]


def same_object_in_both_branches(x):
    if x[0] > 0:
        t = u = Vector(x[0], 1.0)
    else:
        t = u = Vector(x[1], 2.0)
    t.x = 5.0
    return u.x


def ring(x):
    """Objects that hold each other."""
    a, b = types.SimpleNamespace(v=x[0]), types.SimpleNamespace(v=x[1])
    a.next, b.next = b, a
    first = a if x[0] > x[1] else b
    return first.v - 2 * first.next.v + 3 * first.next.next.next.v


def found_in_a_loop(x):
    points = [Vector(x[k], 1.0) for k in range(4)]

    def first(limit):
        for p in points:
            if p.x > limit:
                return p
        return Vector(0.0, 0.0)

    return first(1.0).x * first(0.0).y


FUNCTIONS = [
    named_tuple, dataclass_replaced, dataclass_updated, attributes_in_branches, chosen, frozen, callable_object, slots,
    inheritance, dictionary, dictionary_replaced, item_in_branches, list_items, list_appended, nested, particles,
    state_of_a_function, best_so_far, two_names, list_in_a_tuple, same_object_in_both_branches, found_in_a_loop, ring,
]  # fmt: skip


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda f: f.__name__)
def test_value(check, fn):
    check(fn, X)
    check(fn, np.array([-0.7, 1.3, 0.3, 2.0]))


@pytest.mark.parametrize(
    "fn", [named_tuple, dataclass_updated, chosen, dictionary, nested, particles, state_of_a_function, ring]
)
def test_derivatives(fn):
    dflow.check_grads(fn, (X,), order=2)


def updates_a_choice(x):
    a, b = Vector(x[0], x[1]), Vector(x[2], x[3])
    c = a if x[0] > 0 else b
    c.x += 1.0
    return a.x


def updates_what_was_chosen_from(x):
    a, b = Vector(x[0], x[1]), Vector(x[2], x[3])
    if x[0] > 0:
        c = a
    else:
        c = b
    a.x += 1.0
    return c.x


def updates_after_no_iteration(x):
    p = Vector(x[0], x[1])
    q = p
    for _ in range(steps(x)):
        p = p * 0.5 + q * 0.5
    p.x = 7.0
    return q.x


def updates_what_equals_another(x):
    """Lists, or tuples of them, with the same in them are still two."""
    p, q, pairs = [1.0], [1.0], ([1.0],)
    for _ in range(steps(x)):
        q, pairs = p, (p,)
    p[0] = 7.0
    return q[0] + pairs[0][0]


def updates_and_replaces(x):
    a, b = Vector(x[0], x[1]), Vector(x[2], x[3])
    for _ in range(steps(x)):
        a, b = b, a
        a.x = a.x * 0.9
    return a.x + 2 * b.x


def renamed(x):
    """After a loop that runs, a name is what the loop has made it."""
    p, q = [x[0], 2.0], [x[0], 2.0]
    for i in range(6):
        q = p
        q[1] *= x[i % 2]
    p[0] = 7.0
    return q[0] * q[1]


def test_another_name_after_a_loop(check):
    check(renamed, X)


def adds_a_key(x):
    d = {"a": x[0]}
    for _ in range(steps(x)):
        d["b"] = x[1]
    return d


REFUSED = {
    updates_a_choice: "may be another name of an object",
    updates_what_was_chosen_from: "may be another name of an object",
    updates_after_no_iteration: "may be another name of an object",
    updates_what_equals_another: "may be another name of an object",
    updates_and_replaces: "an object is updated in place and also replaced in the loop",
    adds_a_key: "a dict from outside grows or shrinks inside a loop",
}


@pytest.mark.parametrize("fn", REFUSED, ids=lambda f: f.__name__)
def test_refused(fails, fn):
    assert REFUSED[fn] in fails(fn, X)


OUTSIDE = {"a": 1.0}
STORE = Vector(1.0, 2.0)


def assigns_an_item(x):
    OUTSIDE["a"] = x[0]


def assigns_an_attribute(x):
    STORE.x = x[0]


def helper(v):
    OUTSIDE["a"] += 1
    return v


def through_a_helper(x):
    s = 0.0
    for i in range(steps(x)):
        s += helper(x[i % 4])
    return s


@pytest.mark.parametrize("fn", [assigns_an_item, assigns_an_attribute, through_a_helper])
def test_objects_from_outside_are_left_alone(fails, fn):
    before = copy.deepcopy((OUTSIDE, STORE))
    assert "from outside, which would happen once, while tracing" in fails(fn, X)
    assert before == (OUTSIDE, STORE)
