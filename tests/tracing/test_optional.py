"""Variables that are None in some runs or iterations: as Python has it, with derivatives, or refused."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

import dflow

ARGS = [np.array(x) for x in ([0.3, -1.0, 2.0, 0.5], [-0.4, -1.1, -2.1, -0.6], [0.8, 1.4, 2.5, 0.9])]


def maybe(v):
    return v if v > 0.4 else None


def pair(v):
    if v < 0:
        return None
    return v * 2, v + 1


@dataclass
class Hit:
    t: float
    k: int


class Node:
    def __init__(self, value):
        self.value = value
        self.next = None


def condition(x):
    s = 0.0
    for v in x:
        m = maybe(v)
        if m:
            s += m
        s += (maybe(v) or 7 * v) * (1.0 if not m else v)
    return s


def equality(x):
    s = 0.0
    for v in x:
        m = maybe(v)
        s += m if m != None else 3 * v  # noqa: E711
        if m == None or m in (None,):  # noqa: E711
            s += 10 * v
    return s


def classes(x):
    s = 0.0
    for v in x:
        m = maybe(v)
        if isinstance(m, float):
            s += m * m
        s += v if isinstance(m, type(None)) else 2.0
    return s


def operators(x):
    s = 0.0
    for v in x:
        if (m := maybe(v)) is not None:
            s += np.sin(m) + math.exp(m) + np.array([m, m * 2]).sum() + max(m, 0.1) + abs(m) + m**2 - 2 - m + (-m) * 3
    return s


def unpacked(x):
    s = 0.0
    for v in x:
        p = pair(v)
        if p is None:
            continue
        a, b = p
        s += a * b
    return s


def objects(x):
    best = None
    for i in range(len(x)):
        h = Hit(x[i] ** 2, i)
        if x[i] > -1.05 and (best is None or h.t < best.t):
            best = h
    return best.t * (best.k + 1) if best is not None else x[0]


def position(x):
    at = None
    for i in range(len(x)):
        if x[i] > 0.4 and (at is None or x[i] > x[at]):
            at = i
    return x[at] * 3 if at is not None else x[0]


def attribute(x):
    a = Node(x[0])
    if x[1] < 0:
        a.next = Node(x[1])
    return a.value if a.next is None else a.next.value * a.value


def items(x):
    found = {"best": None, "n": 0}
    ends = [None, None]
    for v in x:
        if v > 0.4:
            found["best"] = v if found["best"] is None else found["best"] * v
            found["n"] += 1
            ends[0] = v
        else:
            ends[1] = v
    product = 0.5 if found["best"] is None else found["best"]
    return found["n"] * product + sum(e * e for e in ends if e is not None)


def calls(x):
    def root(v):
        return None if v < 0 else math.sqrt(v)

    def more(v):
        r = root(v)
        if r is None:
            return None
        return r + 1

    s = 0.0
    for v in x:
        r = more(v)
        s += v if r is None else r
    return s


def default(x):
    def f(a, b=None):
        if b is None:
            b = a * 2
        return a + b

    return f(x[0]) + f(x[1], maybe(x[2]))


def filtered(x):
    return sum(h * h for h in [maybe(v) for v in x] if h is not None)


def matched(x):
    s = 0.0
    for v in x:
        match maybe(v):
            case None:
                s += v * v
            case m:
                s += m
    return s


def runs(x):
    current, s = None, 0.0
    for v in x:
        if v > 0:
            current = v if current is None else current + v
        else:
            if current is not None:
                s += current * current
            current = None
    return s if current is None else s + current * current


def last_before(x):
    last, i = None, 0
    while i < len(x) and x[i] < 1.5:
        last = x[i]
        i += 1
    return x[0] if last is None else last * last


def first_above(x):
    def find(x):
        for i in range(len(x)):
            if x[i] > 1:
                return i, x[i]
        return None

    found = find(x)
    if found is None:
        return x[0]
    i, v = found
    return v * i


def extent(x):
    low = high = None
    for v in x:
        low = v if low is None else min(low, v)
        high = v if high is None else max(high, v)
    return high - low


def states(x):
    state = (None, 0)
    for v in x:
        if v > 0.4:
            state = (v, state[1] + 1)
    a, n = state
    return x[0] if a is None else a * n


PROGRAMS = [
    *(condition, equality, classes, operators, unpacked, objects, position, attribute, items, calls, default),
    *(filtered, matched, runs, last_before, first_above, extent, states),
]


@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
def test_as_in_python(f):
    value, reverse, forward = dflow.jit(f), dflow.grad(f), dflow.jacfwd(f)
    for x in ARGS:
        np.testing.assert_allclose(value(x), f(x), rtol=1e-12)
        numeric = [(f(x + d) - f(x - d)) / 2e-6 for d in 1e-6 * np.eye(len(x))]
        np.testing.assert_allclose(reverse(x), numeric, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(forward(x), reverse(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dflow.vmap(f)(np.stack(ARGS)), [f(x) for x in ARGS], rtol=1e-12)


def test_a_long_loop_is_one_loop():
    def largest(x):
        best = at = None
        for i in range(len(x)):
            if best is None or x[i] > best:
                best, at = x[i], i
        return best * at

    x = np.random.default_rng(0).normal(size=5000)
    stages = dflow.jit(largest).lower(x)
    assert stages.ir("traced").count(" for ") == 1
    assert stages.ir("traced").count("check") <= 2  # of the product after the loop
    assert dflow.jit(largest)(x) == largest(x)
    assert dflow.grad(largest)(x)[np.argmax(x)] == np.argmax(x)


def test_none_is_not_used():
    def unasked(x):
        return maybe(x[0]) * 2

    def attribute_of_none(x):
        node = None
        if x[0] > 0.4:
            node = Node(x[0])
        return node.value

    for f in (unasked, attribute_of_none):
        assert dflow.jit(f)(ARGS[2]) == f(ARGS[2])
        for run in (dflow.jit(f), dflow.grad(f)):
            with pytest.raises(
                dflow.errors.RunTimeError, match=r"test_optional\.py:\d+: .* may be None after the `if`"
            ):
                run(ARGS[0])
            with pytest.raises(TypeError):
                run(ARGS[0])


@pytest.mark.parametrize(
    "use",
    [lambda y: y == 3, lambda y: y != 3, lambda y: y is None, lambda y: 1 if y else 2, lambda y: y in (3, None),
     lambda y: any([y]), lambda y: max(y, 1), lambda y: 2 + y, lambda y: [10, 20, 30][y - 1], lambda y: sum([y, y]),
     lambda y: not y, lambda y: bool(y), lambda y: -y, lambda y: y < 4, lambda y: math.sqrt(y), lambda y: float(y)],
)  # fmt: skip
def test_every_use_is_that_of_python(use):
    def perhaps(x):
        if x > 5:
            return 3

    compiled = dflow.jit(lambda x: use(perhaps(x)))
    for x in (7.0, 4.0):
        try:
            wanted = use(perhaps(x))
        except TypeError:
            with pytest.raises(TypeError, match=r"may be None|NoneType"):
                compiled(x)
        else:
            assert compiled(x) == wanted
    assert dflow.jit(lambda x: (perhaps(x), 2.0)[1])(4.0) == 2.0


def test_a_list_is_searched_for_none():
    def found(x):
        items = [maybe(v) for v in x]
        return items.count(None), items.index(None) if items.count(None) else -1

    for x in (*ARGS, -ARGS[0], np.abs(ARGS[0])):
        assert dflow.jit(found)(x) == found(x)


def test_a_list_has_items_that_may_be_none():
    def f(x):
        items = [0.0]
        for v in x:
            items.append(v if v > 1 else None)
        return sum(v for v in items if v is not None) + (0.5 if items[1] is None else items[1])

    for x in (np.array([0.5, 2.0, 3.0]), np.array([1.5, 0.25])):
        assert dflow.jit(f)(x) == f(x)


def test_a_result_is_never_none():
    def f(x):
        return maybe(x[0])

    def from_a_loop(x):
        for v in x:
            if v > 1:
                return v

    for g in (f, from_a_loop):
        with pytest.raises(dflow.errors.UndefinedError, match=r"the result may be None(?s:.*)np\.nan"):
            dflow.jit(g)(ARGS[0])


def test_a_loop_that_certainly_runs_leaves_a_value():
    def largest(x):
        best = None
        for v in x:
            best = v if best is None else max(best, v)
        return best

    x = np.random.default_rng(0).normal(size=1000)
    assert dflow.jit(largest)(x) == np.max(x)
    assert dflow.grad(largest)(x)[np.argmax(x)] == 1.0
