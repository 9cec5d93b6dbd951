"""Texts, functions, members of an Enum and objects of several classes that are chosen when the program runs."""

import enum
import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest

import dflow
from dflow.check import check_grads


class Kind(enum.Enum):
    LOW = "low"
    MIDDLE = "middle"
    HIGH = "high"


class Shape:
    scale = 2.0

    def twice(self):
        return 2 * self.area()


class Circle(Shape):
    def __init__(self, r):
        self.r = r

    def area(self):
        return math.pi * self.r**2


class Square(Shape):
    scale = 3.0

    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side * self.side

    def grow(self):
        self.side *= 2


@dataclass
class Order:
    side: str
    quantity: float


def function(x):
    f = np.sin if x > 0 else np.cos
    return f(x) * f(2 * x)


def functions_of_a_user(x):
    if x > 0:

        def g(t):
            return t * x
    else:

        def g(t):
            return t - x

    h = functools.partial(pow, exp=2) if x > 1 else abs
    return g(3.0) * h(x)


def text(x):
    mode = "up" if x > 0 else "down"
    if x > 1.5:
        mode = "far up"
    table = {"up": 2.0, "down": x, "far up": x * x}
    total = table[mode] * len(mode) + (mode in ("up", "left")) + 3 * mode.startswith("d") + 5 * (mode < "e")
    return total * (2 if f"{mode}!" == "up!" else 3)


def matched(x):
    mode = "a" if x > 0 else "b"
    match mode:
        case "a":
            return x * 4
        case "b":
            return x * 6
    return 0.0


def member(x):
    if x < 0:
        kind = Kind.LOW
    elif x < 1:
        kind = Kind.MIDDLE
    else:
        kind = Kind.HIGH
    weights = {Kind.LOW: 1.0, Kind.MIDDLE: x, Kind.HIGH: x * x}
    return weights[kind] * (2 if kind in (Kind.LOW, Kind.HIGH) else 3) + (kind is Kind.HIGH) + len(kind.name)


def shape(x):
    s = Circle(x) if x > 0 else Square(x * 2)
    total = s.twice() * s.scale
    if isinstance(s, Circle):
        total += s.r
    else:
        s.grow()
        total -= s.side
    other = Square(x) if x < 1 else s
    return total * other.area()


def attribute(x):
    order = Order("none", abs(x))
    if x > 0:
        order.side = "buy"
    elif x < -1:
        order.side = "sell"
    return order.quantity * (1 if order.side == "buy" else -2 if order == Order("sell", abs(x)) else -3)


def or_none(x):
    mode = None
    if x > 1:
        mode = "a"
    elif x > 0:
        mode = "b"
    return x if mode is None else 2 * x if mode == "a" else 3 * x


def helper(x):
    def name_of(values):
        for v in values:
            if v < 0:
                return "negative"
        return "positive"

    return x * (2.0 if name_of([x, 1.0, x + 1]) == "negative" else 3.0)


def machine(x):
    state, rounds = "start", 0
    while state != "done":
        if state == "start":
            state = "run"
        elif state == "run":
            x = x * 0.5
            if abs(x) < 1:
                state = "done"
        rounds += 1
    return x * rounds


def turns(x):
    f = math.sin
    for i in range(30):
        x = f(x) + 0.1 * i
        f = math.cos if x > 0.5 else math.sin
    return f(x)


@functools.singledispatch
def size(s):
    raise TypeError


@size.register
def _(s: Circle):
    return s.r


@size.register
def _(s: Square):
    return 3 * s.side


def dispatched(x):
    s = Circle(x) if x > 0 else Square(x)
    match s:
        case Circle():
            return size(s) * s.r
        case Square():
            return size(s)


FUNCTIONS = [
    *(function, functions_of_a_user, text, matched, member, shape),
    *(attribute, or_none, helper, machine, turns, dispatched),
]


@pytest.mark.parametrize("f", FUNCTIONS)
def test_values_and_derivatives(f):
    compiled = dflow.jit(f)
    for x in (2.2, 0.7, -2.2):
        assert compiled(x) == pytest.approx(f(x), rel=1e-12)
        assert dflow.grad(f)(x) == pytest.approx((f(x + 1e-6) - f(x - 1e-6)) / 2e-6, rel=1e-5, abs=1e-7)
    check_grads(f, (0.7,), order=2 if f is function else 1)


def test_states_of_a_loop_over_data():
    def run(xs):
        state, total = Kind.LOW, 0.0
        for x in xs:
            match state:
                case Kind.LOW:
                    total += x
                    if x > 3:
                        state = Kind.MIDDLE
                case Kind.MIDDLE:
                    total += x * x
                    if x < 0:
                        state = Kind.HIGH
                case Kind.HIGH:
                    total -= x
        return total * (2 if state is Kind.HIGH else 3)

    for xs in (np.arange(40.0) + 0.5, np.array([1.0, 4.0, 2.0, -1.0, *range(30)])):
        assert dflow.jit(run)(xs) == run(xs)
        check_grads(run, (xs,))


def test_lists_of_functions_and_names():
    def chained(ks, x):
        functions, names = [math.sin, math.cos, math.exp], ["a", "b", "c"]
        for k in ks:
            x = functions[k](x) * (2.0 if names[k] == "b" else 1.0)
        return x

    ks = np.array([0, 2, 1, -1])
    assert dflow.jit(chained)(ks, 0.3) == pytest.approx(chained(ks, 0.3))
    check_grads(lambda x: chained(ks, x), (0.3,))
    with pytest.raises(IndexError, match="list index out of range"):
        dflow.jit(chained)(np.array([3]), 0.3)


def test_what_an_option_cannot_do_is_an_error_where_it_is_chosen():
    def looked_up(x):
        key = "a" if x > 0 else "b"
        return {"a": x}[key]

    def asked(x):
        s = Circle(x) if x > 0 else Square(x)
        return s.r

    for f, error in ((looked_up, KeyError), (asked, AttributeError)):
        assert dflow.jit(f)(2.0) == 2.0
        with pytest.raises(error):
            dflow.jit(f)(-2.0)


def test_an_update_must_reach_the_object_that_was_chosen():
    def updated(x):
        a, b = Square(x), Circle(x)
        s = a if x > 0 else b
        a.side = 7.0
        return s.area()

    with pytest.raises(dflow.errors.CarriedError, match="another name of an object chosen"):
        dflow.jit(updated)(2.0)


def test_what_needs_the_choice_while_tracing_is_refused():
    def spelled(x):
        return sum(1.0 for _ in ("abc" if x > 0 else "de"))

    def returned(x):
        return "a" if x > 0 else "b"

    with pytest.raises(dflow.errors.DflowError, match="chosen when the program runs"):
        dflow.grad(spelled)(1.0)
    with pytest.raises(dflow.errors.DflowError, match="chosen when the program runs"):
        dflow.jit(returned)(1.0)


def none_among(x):
    limit = None
    if x > 0:
        limit = x
    match (limit, x):
        case (None, y):
            return y
        case (z, y):
            return y * z


def truth_among(x):
    match (x > 0, x):
        case (True, y):
            return y
        case (_, y):
            return -y


def with_parts(x):
    match Circle(x) if x > 0 else Square(x):
        case Circle(r=r):
            return r
        case Square(side=side):
            return side


@pytest.mark.parametrize("f", [none_among, truth_among, with_parts])
def test_patterns_that_python_would_match_by_itself_are_refused(f):
    with pytest.raises(dflow.errors.TraceError, match="which case of a `match` this is"):
        dflow.jit(f)(1.5)
