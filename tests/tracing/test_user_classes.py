"""The special methods of the user's classes are traced through, however Python reaches them."""

import contextlib
import dataclasses
import enum
import functools
import math
import operator
import types
from collections import OrderedDict, defaultdict, deque
from typing import NamedTuple

import numpy as np
import pytest

import dflow

X = np.array([2.0, 1.0, 3.0])


class Vector:
    """Every method branches on what is known only when the program runs."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __add__(self, other):
        if self.x > 0:
            return Vector(self.x + other.x, self.y + other.y)
        return Vector(self.x - other.x, self.y)

    def __mul__(self, k):
        if isinstance(k, Vector):
            return self.x * k.x + self.y * k.y
        return Vector(self.x * k, self.y * k) if k > 2 else Vector(self.x, k * self.y)

    __rmul__ = __mul__

    def __truediv__(self, k):
        if k == 0:
            raise ZeroDivisionError("a vector divided by zero")
        return Vector(self.x / k, self.y / k)

    def __iadd__(self, other):
        if other.x > 0:
            self.x += other.x
        return self

    def __matmul__(self, other):
        return self.x * other.x if other.x > 0 else self.y

    def __neg__(self):
        return Vector(-self.x, -self.y) if self.x > 0 else self

    def __abs__(self):
        s = 0.0
        while s < self.x:
            s += 0.75
        return s * self.x

    def __getitem__(self, k):
        return self.x * k if self.x > 0 else self.y

    def __setitem__(self, k, v):
        if self.x > k:
            self.x = v
        else:
            self.y = v

    def __contains__(self, v):
        for x in (self.x, self.y):  # noqa: SIM110
            if x == v:
                return True
        return False

    def __lt__(self, other):
        return True if self.x < other.x else self.y < other.y

    def __eq__(self, other):
        return self.x == other.x and self.y == other.y

    def __bool__(self):
        return self.x > 0 and self.y > 0

    def __call__(self, t):
        return self.y * t if t > self.x else self.x * t

    def __getattr__(self, name):
        if name == "total":
            return self.x + self.y if self.x > 0 else self.y
        raise AttributeError(name)

    @property
    def norm(self):
        return self.x if self.x > self.y else math.sqrt(self.x**2 + self.y**2)

    @norm.setter
    def norm(self, value):
        if value > self.x:
            self.x = value
        else:
            self.y = value

    @functools.cached_property
    def kept(self):
        return self.x if self.x > self.y else self.y * 3

    @classmethod
    def polar(cls, r, t):
        return cls(r * math.cos(t), r * math.sin(t)) if r > 1 else cls(r, t)

    @staticmethod
    def larger(a, b):
        return a if a > b else b

    def __repr__(self):
        return f"({self.x:.1f}, {self.y:.1f})" if False else f"<{self.x:.1f}>"


def operators(x):
    a, b = Vector(x[0], x[1]), Vector(x[1], x[2])
    s, p, q = a + b, a * x[2], 3.0 * b
    return s.x, s.y, p.x, p.y, q.x, q.y, a * b, a @ b, (-a).x, (a / x[1]).y, abs(a)


def updated_operators(x):
    a = Vector(x[0], x[1])
    same = a
    a += Vector(x[1], x[2])
    a[1.5] = x[2]
    a.norm = x[1]
    a.norm += 1.0
    return same.x, same.y, a.norm, a[2], a.kept, a.total


def conditions(x):
    a, b = Vector(x[0], x[1]), Vector(x[1], x[2])
    first = x[0] if a < b else x[1]
    second = x[0] if a == b else x[1]
    third = x[0] if a != b else x[1]
    fourth = x[0] if x[0] in a else x[1]
    return first, second, third, fourth


def constructors(x):
    a = Vector.polar(x[0], x[1])
    return a.x, a.y, Vector.larger(x[0], x[1]), a(x[2])


def reduced(x):
    parts = [Vector(x[k], 1.0) for k in range(3)]
    total = sum(parts, Vector(0.5, 0.0))
    again = functools.reduce(operator.add, parts)
    return total.x, total.y, again.x, min(parts[0], parts[1]).x, max(parts, key=lambda v: v.y * v.x).x


def carried(x):
    v = Vector(0.5, 0.0)
    for i in range(20):
        v = v + Vector(x[i % 3], 1.0) * 0.25
    return v.x, v.y


class Base:
    def __init__(self, a):
        self.a = a

    def f(self, x):
        return x * self.a if x > self.a else x

    @property
    def twice(self):
        return self.a * 2 if self.a > 0 else self.a


class Derived(Base):
    def __init__(self, a, b):
        super().__init__(a)
        if a > b:
            self.b = b
        else:
            self.b = a

    def f(self, x):
        if x > self.b:
            return super().f(x) * self.b
        return super().f(x)

    def looped(self, x):
        s = 0.0
        for _ in range(20):
            s += super().f(x)
        return s

    @property
    def thrice(self):
        return super().twice * 1.5


def inheritance(x):
    d = Derived(x[0], x[1])
    return d.f(x[2]), d.looped(x[2]), d.thrice, d.b


@dataclasses.dataclass
class Prepared:
    a: float
    b: float = 2.0
    c: float = dataclasses.field(init=False)
    items: list = dataclasses.field(default_factory=list)
    scale: dataclasses.InitVar[float] = 1.0

    def __post_init__(self, scale):
        if self.a > self.b:
            self.c = self.a * scale
        else:
            self.c = self.b
        self.items.append(self.c)


@dataclasses.dataclass(order=True, frozen=True, slots=True)
class Ordered:
    a: float
    b: float

    def __add__(self, other):
        return Ordered(self.a + other.a, self.b + other.b)


def dataclass(x):
    p, o, q = Prepared(x[0], x[1], scale=x[2]), Ordered(x[0], x[1]), Ordered(x[0], x[2])
    order = 1.0 if o < q else 2.0
    return p.c, p.items[0], order, o == Ordered(x[0], x[1] + 0), o >= q, dataclasses.replace(o, b=x[2]).b, (o + q).a


class Pair(NamedTuple):
    a: float
    b: float = 2.0

    @property
    def larger(self):
        return self.a if self.a > self.b else self.b

    def __add__(self, other):
        return Pair(self.a + other.a, self.b) if self.a > 0 else self


class Mode(enum.Enum):
    UP = 1
    DOWN = 2


def containers(x):
    p = Pair(x[0]) + Pair(x[1], x[2])
    n = types.SimpleNamespace(a=x[0])
    if x[0] > x[1]:
        n.b = x[1]
    else:
        n.b = x[2]
    d, o, q = defaultdict(float), OrderedDict(k=x[0]), deque([x[0], x[1]], maxlen=2)
    d["k"] += x[2]
    o["k"] *= 2
    q.append(x[2])
    mode = Mode.UP
    return p.larger, p._replace(a=x[1]).larger, n.a * n.b, d["k"], o["k"], q[0], x[0] if mode is Mode.UP else x[1]


@contextlib.contextmanager
def doubled(x):
    yield x * 2


class Scope:
    def __init__(self, value):
        self.value = value

    def __enter__(self):
        return self.value if self.value > 1 else -self.value

    def __exit__(self, *error):
        self.value = 0.0


def contexts(x):
    scope = Scope(x[0])
    with scope as a, doubled(x[1]) as b, np.errstate(all="ignore"):
        if a > b:
            a = b
    return a, b, scope.value


def appended_either_way(x):
    out, table = [], {}
    for k in range(3):
        if x[k] > 1.5:
            out.append(x[k])
            table[k] = 1.0
        else:
            out.append(0.0)
            table[k] = x[k]
    return sum(out), *table.values()


PROGRAMS = [
    *(operators, updated_operators, conditions, constructors, reduced, carried, inheritance, dataclass, containers),
    *(contexts, appended_either_way),
]


@pytest.mark.parametrize("fn", PROGRAMS, ids=lambda f: f.__name__)
def test_program(check, fn):
    check(fn, X)
    check(fn, X - 1.75)


def test_truth_of_an_object(check):
    def f(x):
        v = Vector(x[0], x[1])
        n = 0
        while v:
            v.x, n = v.x - 0.75, n + 1
        return v.x, n, 0.0 if not v else 1.0, bool(Vector(x[0], x[1]))

    def by_hand(x):
        n = math.ceil(x[0] / 0.75)
        return x[0] - 0.75 * n, n, 0.0, x[0] > 0 and x[1] > 0

    check(f, X, like=by_hand)


def test_gradients_through_operators():
    def energy(v, k):
        total = Vector(0.5, 0.5)
        for _ in range(3):
            total = total + v * k
        return total * total + abs(v)

    v = Vector(2.0, 1.0)
    dflow.check_grads(lambda x, k: energy(Vector(x[0], x[1]), k), (X, 2.5), order=2)
    slope = dflow.grad(energy)(v, 2.5)
    assert isinstance(slope, Vector)
    np.testing.assert_allclose(
        [slope.x, slope.y], dflow.grad(lambda x, k: energy(Vector(x[0], x[1]), k))(X, 2.5)[:2], rtol=1e-12
    )


def test_a_vector_type_needs_addition_and_scaling_alone():
    class Plain:
        def __init__(self, parts):
            self.parts = parts

        def __add__(self, other):
            return Plain([a + b for a, b in zip(self.parts, other.parts)])

        def __rmul__(self, k):
            return Plain([k * a for a in self.parts])

    def f(v):
        w = v + 2.0 * v
        return w.parts[0] * w.parts[1]

    assert dflow.grad(f)(Plain([1.0, 2.0])).parts == [18.0, 9.0]
    value, pull = dflow.vjp(lambda v: 3.0 * v, Plain([1.0, 2.0]))
    assert value.parts == [3.0, 6.0] and pull(Plain([1.0, 0.0]))[0].parts == [3.0, 0.0]


def test_a_field_that_the_class_has_is_differentiated():
    @dataclasses.dataclass
    class Model:
        a: float
        c: float = dataclasses.field(init=False, default=5.0)

    assert dflow.grad(lambda m: m.a * m.c)(Model(2.0)) == dflow.grad(lambda m: m.a * m.c)(Model(2.0))
    assert dflow.grad(lambda m: m.a * m.c)(Model(2.0)).c == 2.0


def test_printed_by_its_own_text(capfd):
    dflow.jit(lambda x: print(Vector(x, 1.0), [Vector(x, 2.0)], Pair(x)))(2.0)
    assert capfd.readouterr().out == "<2.0> [<2.0>] Pair(a=2.0, b=2.0)\n"
