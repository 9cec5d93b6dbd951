"""Closures, lambdas, methods, nested functions, classes: whatever is called is traced."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest

X = np.array([2.0, -1.0, 3.0])
SCALE = 3.0
TABLE = np.array([1.0, 2.0, 4.0])


def relu(v):
    if v > 0:
        return v
    return 0.0


def calls_nested(x):
    return relu(x[0]) + relu(x[1])


def inner_function(x):
    k = 2.0

    def f(v, scale=1.5):
        nonlocal k
        if v > 0:
            k = k + 1
            return v * scale
        return v - k

    return f(x[0]) + f(x[1]), k


def uses_lambda(x):
    f = lambda v: v if v > 0 else -v  # noqa: E731
    return f(x[1]) + (lambda a, b=2: a * b)(x[0])


def comprehension(x):
    return sum([relu(x[i]) for i in range(3)]) + sum(v * 2 for v in x)


def mapped(x):
    return sum(map(lambda v: v * v, x))


def globals_and_tables(x):
    s = 0.0
    for i in range(5):
        s += TABLE[i % 3] * x[i % 3] * SCALE
    return s


def partial(x):
    return functools.partial(helper, 2.0)(x[0], power=3)


def helper(a, b, power=1):
    for _ in range(power):
        a = a * b
    return a


def recursive(x):
    return power(x[0], 5)


def power(v, n):
    if n == 0:
        return 1.0
    return v * power(v, n - 1)


def keywords(x):
    def f(*args, **kw):
        t = kw.get("start", 0)
        for a in args:
            t = t + a
        return t

    return f(*x, start=x[0])


class Model:
    def __init__(self, w):
        self.w = w
        if w > 1:
            self.kind = 1
        else:
            self.kind = 2

    def step(self, v):
        if v > 0:
            return self.w * v
        return self.__private(v)

    def __private(self, v):
        return -v

    def __call__(self, v):
        return self.step(v) + self.kind

    @staticmethod
    def double(v):
        return v * 2 if v > 0 else v


def uses_class(x):
    m = Model(2.0)
    return m(x[0]) + m.step(x[1]) + Model.double(x[2])


@dataclass
class Point:
    a: float
    b: float

    def norm(self):
        return math.hypot(self.a, self.b)


def uses_dataclass(x):
    p = Point(x[0], x[1])
    if x[0] > 0:
        q = Point(x[1], x[2])
    else:
        q = p
    return p.norm() + q.norm()


def decorated_with(f):
    @functools.wraps(f)
    def wrapper(*a):
        return f(*a) + 1

    return wrapper


@decorated_with
def decorated(x):
    if x[0] > 1:
        return x[0]
    return x[1]


@functools.wraps(np.sin)
def named_as_numpys(x):
    return np.sin(x[0]) if x[1] > 0 else SCALE * x[2]


def mixed_numbers(x):
    return isinstance(x[0], float), isinstance(x, np.ndarray), len(x), x.shape[0], pow(x[0], 2), divmod(7, 2)


def deletes(x):
    y = x[0]
    if x[1] < 0:
        y = y + 1
    z = y
    del y
    return z


def handles(x):
    try:
        d = {"a": x[0]}
        r = d["b"]
    except KeyError:
        r = x[1]
    finally:
        s = 2
    with np.errstate(all="ignore"):
        if x[2] > 0:
            r = r * s
    return r


def matches(x):
    match x.shape:
        case (3,):
            if x[0] > 0:
                return x[0]
            return x[1]
        case _:
            return x[2]


FUNCTIONS = [
    calls_nested, inner_function, uses_lambda, comprehension, mapped, globals_and_tables, partial, recursive, keywords,
    uses_class, decorated, named_as_numpys, deletes, handles, matches,
]  # fmt: skip


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("sign", [1, -1])
def test_function(check, fn, sign):
    check(fn, X * sign)


def test_method(check):
    m = Model(0.5)
    check(lambda x: m.step(x[0]) * 2, X)
    check(m, 2.0)
    check(m.step, -2.0)


def test_closure_cells_are_live(check):
    k = 1.0

    def f(x):
        if x[0] > 0:
            return x * k
        return x

    check(f, X)
    k = 2.0
    check(f, X)


def test_two_lambdas_on_a_line(check):
    f, g = (lambda x: x[0] if x[1] > 0 else x[2]), (lambda x: x[1] if x[0] > 0 else x[2])
    check(f, X)
    check(g, X)


def test_lambda_within_a_lambda_on_one_line(check):
    make = lambda k: lambda x: k * x[0] if x[1] > 0 else -x[0]  # noqa: E731
    check(make(3.0), X)
    check(make(3.0), -X)
