"""Numbers, cases, generators, sorting and texts of Python on traced values, against Python itself."""

import cmath
import functools
import itertools
import math
import operator
import statistics

import numpy as np
import pytest

import dflow

X = np.array([2.0, 1.0, 3.0])


def numbers(x):
    n, f = int(x[2] * 100), float(x[0])
    quotient, rest = divmod(n, 7)
    return (
        *(n.bit_length(), n.bit_count(), n.numerator, n.denominator, n.real, n.imag, f.is_integer(), f.conjugate()),
        *(quotient, rest, pow(n, 5, 7), round(n, -2), round(x[0] * 1.2345, 2), round(x[0] * 1.5)),
        *(math.factorial(int(x[2])), math.isqrt(n), math.comb(n, 2), math.perm(5, int(x[0])), math.gcd(n, 8)),
        *(math.fsum(v * v for v in x), math.prod(v for v in x), math.hypot(*x), math.dist(x, x * 2)),
        *(hasattr(f, "is_integer"), hasattr(x[0], "__len__"), hasattr(x, "sum"), np.isscalar(x[0])),
    )


def complex_numbers(x):
    z = complex(x[0], x[1])
    w = 0j
    for _ in range(20):
        w = w * w * 0.1 + z
    return abs(z), z.real, z.imag, z.conjugate().imag, cmath.exp(z).real, cmath.phase(z), *cmath.polar(z), abs(w)


def choices(x):
    points = [(x[0], 1.0), (x[1], 2.0), (x[2], 3.0)]
    return (
        *(min(x, key=lambda v: (v - 1.6) ** 2), max(points, key=lambda p: p[0])[1], min(points)[1]),
        *(max([], default=x[0]), min(range(3), key=lambda k: x[k]), (x[0], 1) < (x[0], x[1]), [x[0]] == [x[1]]),
        *sorted(x, reverse=True),
        *(p[1] for p in sorted(points, key=lambda p: -p[0])),
    )


def statistical(x):
    s = statistics
    return (
        *(s.mean(x), s.fmean([v * v for v in x], weights=[1.0, 2.0, 3.0]), s.median(list(x)), s.stdev(v for v in x)),
        *(
            s.pstdev(x),
            s.variance([x[0], 1.0, x[2]]),
            s.pvariance(x, 0.5),
            s.harmonic_mean(x * x),
            s.geometric_mean(x * x),
        ),
        *(s.covariance(x, x[::-1]), s.correlation([1.0, 2.0, 4.0], x)),
    )


def searched_by_value(x):
    items, by_size = list(x), sorted(x)
    ranks = [by_size.index(v) for v in x]
    return *ranks, items.count(x[1]), items.count(0.5), (1.0, 2.0, x[2]).index(x[0]) if x[0] == 2 else -1


def sorted_in_place(x):
    a, b = [x[0], x[1], x[2]], [3, 1, 2]
    a.sort()
    b.sort(key=lambda k: -k)
    return (*a, *b)


def higher_functions(x):
    return (
        *(sum(map(lambda v: v * v if v > 1.5 else v, x)), functools.reduce(lambda a, b: a * b if b > 2 else a + b, x)),
        *itertools.accumulate([x[0], x[1], x[2]], max),
        *itertools.starmap(lambda a, b: a if a > b else b, [(x[0], x[1]), (x[1], x[2])]),
        *(functools.reduce(operator.mul, x), sum(x[i] * x[j] for i, j in itertools.combinations(range(3), 2))),
        *(sum([v for v in x if v > 1.5]), min([v * v for v in x])),
    )


def matched(x):
    found = []
    for subject in (int(x[0]), int(x[1]), int(x[2])):
        match subject:
            case 1 | 2:
                y = x[0]
            case 3 if x[0] > 1:
                y = x[1]
            case n if n > 5:
                y = x[2] * n
            case _:
                y = 0.0
        found.append(y)
    return tuple(found)


def matched_structure(x):
    def area(shape):
        match shape:
            case ("square", a):
                return a * a
            case {"radius": r, **rest} if r > 1:
                return r * r + len(rest)
            case [a, *others] if a > 1:
                return a + len(others)
            case None | "nothing":
                return 0.0
        return -1.0

    shapes = ("square", x[0]), {"radius": x[0], "k": 1}, {"radius": x[1]}, [x[0], 1, 2], [x[1]], None, "nothing"
    return tuple(map(area, shapes))


def generated(x):
    def squares(values):
        for k, v in enumerate(values):
            if k > 5:
                continue
            if v > 1.5:
                y = v * v
            else:
                y = v
            s = 0.0
            for k in range(20):
                if k * v > 9:
                    break
                s += y
            yield s
        yield from (2 * v for v in values)

    def first(values):
        for v in values:
            yield v
            if len(values) > 2:
                return
        yield 100.0

    return (*squares([x[0], x[1], x[2]]), *first(x), sum(squares(x)))


def searched(x):
    for k in range(20):
        if x[k % 3] * k > 10:
            found = x[k % 3] * k
            break
    else:
        found = -1.0
    for v in x:
        if v > 2.5:
            last = v
            break
    else:
        last = 0.0
    return found, last


def first_by_itself(x):
    best = None
    for k in range(2000):
        if k == 0:
            s = x[0]
        else:
            s = 0.5 * s + x[k % 3]
        if best is None or s > best:
            best = s
    return s, best


def views_in_short_loops(x):
    u = x[0]
    for k in range(9):
        for _ in range(3):
            part = x[k % 3 :]
            part[0] -= 0.1
            u = u + part[-1]
            if u > 9:
                break
    return u, x


PROGRAMS = [
    *(
        numbers,
        complex_numbers,
        choices,
        sorted_in_place,
        statistical,
        searched_by_value,
        higher_functions,
        matched,
        matched_structure,
        generated,
    ),
    *(searched, first_by_itself, views_in_short_loops),
]


@pytest.mark.parametrize("fn", PROGRAMS, ids=lambda f: f.__name__)
def test_program(check, fn):
    check(fn, X)
    if fn is not numbers:
        check(fn, X[::-1] - 1.25)


@pytest.mark.parametrize("fn", [generated, first_by_itself], ids=lambda f: f.__name__)
def test_gradients(fn):
    dflow.check_grads(lambda x: sum(fn(x)), (X + 0.1,))


# ruff: noqa: UP031
def texts(x, k):
    print("%g %5.1f|%-8.2e|%+d %s %r %%" % (x, x, x, k, x, k), "%(a)s %(b)08.3f" % {"a": k, "b": x}, "%*d" % (4, k))
    print("{} {:.2f} {a!r:>5} {:{w}}".format(x, k, x, a=k, w=7), ", ".join([f"{x:.1f}", "b", str(k)]), "%d" % x)


def test_statistics_of_what_has_none():
    for f in (statistics.geometric_mean, statistics.harmonic_mean, lambda x: statistics.correlation(x, [1, 2])):
        with pytest.raises(statistics.StatisticsError):
            dflow.jit(lambda x, f=f: f(x))(np.array([-1.0, -1.0]))


def test_texts(capfd):
    texts(2.5, 3)
    wanted = capfd.readouterr().out
    dflow.jit(texts)(2.5, 3)
    assert capfd.readouterr().out == wanted


class ConvergenceError(Exception):
    def __init__(self, steps, rest):
        super().__init__(f"no solution after {steps} steps, {rest}")


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_exceptions_of_the_users(backend):
    def root(x, most):
        k = 0
        while abs(x * x - 2) > 1e-12:
            if k == most:
                raise ConvergenceError(k, "sorry")
            x, k = 0.5 * (x + 2 / x), k + 1
        if x < 0:
            raise KeyError(f"root {x:.3f} of {k}, {x > 0}")
        assert k > 3, f"{k} {x!r}"
        return x

    compiled = dflow.jit(root, backend=backend)
    assert compiled(1.0, 9) == pytest.approx(2**0.5)
    with pytest.raises(ConvergenceError, match="no solution after 2 steps, sorry"):
        compiled(1.0, 2)
    with pytest.raises(KeyError, match=r"root -1.414 of 5, False"):
        compiled(-1.0, 9)
    with pytest.raises(AssertionError, match=r": 3 1.41421356237"):
        compiled(1.4, 9)
    with pytest.raises(ConvergenceError):
        dflow.grad(root)(1.0, 2)


def divides(x):
    try:
        return 1.0 / x
    except ZeroDivisionError:
        return 0.0


def halves(x):
    try:
        return x / 2.0
    except ZeroDivisionError:
        return 0.0


def test_a_division_by_zero_is_not_caught():
    with pytest.raises(dflow.errors.DflowError, match="ZeroDivisionError: whether it is raised"):
        dflow.jit(divides)(2.0)
    assert dflow.jit(halves)(2.0) == 1.0
