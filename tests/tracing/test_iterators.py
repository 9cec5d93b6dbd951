"""Iterators, containers of the user's own and objects that are not followed: right, or refused."""

import argparse
import functools

import numpy as np
import pytest

import dflow
from dflow.errors import OnceError, TraceError


def drained(x):
    """A loop long enough to be traced anew as one, where that could not give the items back."""
    numbers = (k / 7 % 1 for k in range(30))
    s, k = x, 0
    while k < 20:
        s = s * 0.5 + next(numbers)
        k += 1
    return s


def peeled(x):
    it, best = iter(range(20)), None
    for _ in range(10):
        v = x * next(it)
        best = v if best is None else max(best, v)
    return best


def until_stopped(x):
    it, s = iter((1.0, 2.0, 3.0)), 0.0
    while True:
        try:
            s = s * x + next(it)
        except StopIteration:
            return s


def one_of_each(x):
    it, s = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 0.0
    for _ in range(6):
        for v in it:
            s = s * 0.5 + v * x
            break
    return s


def made_inside(x):
    s = x
    for k in range(30):
        it = iter([s, 2.0, k])
        s = 0.1 * next(it) + next(it) - sum(it)
    return s


@pytest.mark.parametrize("f", [drained, peeled, until_stopped, one_of_each, made_inside])
def test_iterators(f):
    assert np.isclose(dflow.jit(f)(0.75), f(0.75))


def test_iterator_after_a_loop_whose_end_is_traced():
    def f(x):
        it, s = iter([1.0, 2.0, 3.0]), 0.0
        for v in it:
            s += v * x
            if s > 2:
                break
        return s + next(it)

    with pytest.raises(OnceError, match="whose end is known only when the program runs"):
        dflow.jit(f)(0.5)


class Record(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Linked(dict):
    def __init__(self, **items):
        super().__init__(items)
        self.__dict__ = self


@pytest.mark.parametrize("kind", [Record, Linked])
def test_dicts_with_attributes(kind):
    def f(p, x):
        q = kind(s=p.b, k=0)
        for i in range(len(x)):
            q.s = q["s"] + x[i] * p.w[i]
            q.k += 1
        if q.s > 0:
            q["s"] = 1.5 * q.s
        p["b"] = q.s
        return q.s * q.k

    p, x = kind(w=np.ones(6), b=2.0), np.arange(6.0)
    gradient = dflow.grad(f)(p, x)
    assert isinstance(gradient, kind)
    assert np.array_equal(gradient.w, 9 * x)
    assert dflow.jit(f)(p, x) == 153.0
    assert p.b == p["b"] == 25.5


class Counted(list):
    def __init__(self, *items):
        super().__init__(items)
        self.count_of = 0


def test_attributes_of_a_list():
    def f(x, n):
        s = Counted(x)
        for _ in range(n):
            s.count_of += 1
        return s[0] * s.count_of

    with pytest.raises(OnceError, match="a Counted is changed in a loop"):
        dflow.jit(f, static_argnums=())(2.0, 9)
    with pytest.raises(TraceError, match="a Counted is a list and has attributes besides"):
        dflow.jit(lambda s: s[0])(Counted(1.0))


def test_objects_that_are_not_followed():
    def f(x, n):
        p = functools.partial(pow, 2)
        p.calls = 0
        for _ in range(n):
            p.calls += 1
        return x * p.calls

    with pytest.raises(OnceError, match="a partial is changed in a loop"):
        dflow.jit(f)(2.0, 9)


def test_namespace():
    def f(o, n):
        for _ in range(n):
            o.m *= 0.5
            o.n += 1
        return o.m + o.n

    assert dflow.jit(f)(argparse.Namespace(m=4.0, n=0, mode="a"), 2) == 3.0


def test_class_without_a_module():
    space = {"np": np}
    exec("class Node:\n    def __init__(self, w):\n        self.w = w", space)

    def f(x, n):
        node = space["Node"](x)
        for _ in range(n):
            node.w = 0.5 * node.w + 1
        return node.w

    assert dflow.jit(f)(2.0, 4) == f(2.0, 4)
