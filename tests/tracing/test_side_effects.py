"""What Python does once, late or not at all: operands, iterators, chosen objects; and the classes of values."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

import dflow
from dflow.errors import DflowError


def counted(x, y):
    """Operands that are not evaluated count nothing."""
    calls = [0]

    def call(v):
        calls[0] += 1
        return v

    first = (call(x > 0) or call(x > 5)) and call(y > 9)
    second = call(2.0) < call(x) < call(y)
    return calls[0], first, second


class Ranked:
    def __init__(self, v, log):
        self.v, self.log = v, log

    def __eq__(self, other):
        self.log[0] += 1
        return self.v == other.v

    def __lt__(self, other):
        self.log[0] += 10
        return self.v < other.v


def compared(x, y):
    log = [0]
    p, q = Ranked(x, log), Ranked(y, log)
    best = min(p, q)
    return log[0], (x, p) < (y, q), (x, p) < (x, q), best.v, log[0]


def let_go(x, y):
    log = []

    def doubled():
        try:
            yield x
            yield 2 * x
        finally:
            log.append(y)

    for v in doubled():
        log.append(v)
        break
    log.append(7)
    return sum((k + 1) * v for k, v in enumerate(log))


@functools.singledispatch
def weight(v):
    return 1.0


@weight.register
def _(v: float):
    return 2 * v if v > 0 else v


@weight.register
def _(v: np.ndarray):
    return v.sum()


class Weights:
    @functools.singledispatchmethod
    def of(self, v):
        return 1.0

    @of.register
    def _(self, v: float):
        return 3 * v if v > 0 else v

    @functools.singledispatchmethod
    @classmethod
    def all(cls, v):
        return 5.0

    @all.register
    @classmethod
    def _(cls, v: float):
        return 7 * v


def by_class(x, y):
    both = weight(x) + weight(y) + weight("a") + weight(np.array([x, y]))
    return both, Weights().of(x), Weights().of("a"), Weights.all(y), x.__class__ is float


def matched(x, y):
    def kind(v):
        match v:
            case int(5 | 6):
                return 2 * v
            case int() | str():
                return 1
            case float(a) if a > 0:
                return a
            case np.ndarray():
                return v.sum()
            case (int() as a, float(b)) | [a, b, _]:
                return a * b
            case (float() | int() as a, np.ndarray() as b):
                return a + b[0]
            case {"size": float(a), **rest}:
                return a + len(rest)
        return -1.0

    kept = 3.0
    match (x, y):
        case (int(), kept):
            kept = 1.0
    a = np.array([x, y])
    return (kept, *map(kind, (5, 7, "a", x, -x, a, (2, y), (1.0, 2.0, 3), (y, a), {"size": x, "k": 1}, None)))


@pytest.mark.parametrize("f", [counted, compared, let_go, by_class, matched])
def test_as_in_python(f):
    compiled = dflow.jit(f)
    for x, y in ((1.5, -0.5), (-2.0, 10.0)):
        assert compiled(x, y) == pytest.approx(f(x, y))


def again_after_a_break(x):
    it = iter(x)
    for v in it:
        if v > 1:
            break
    return sum(it)


def twice(x):
    pairs = zip(x, x)
    return sum([a for a, _ in pairs]) + sum([b for _, b in pairs])


def in_a_branch(x):
    it = map(np.sin, [x[0], 1.0])
    total = sum(it) if x[0] > 1 else 0.0
    return total + sum(it)


def noting(x):
    seen = []

    def values():
        for v in x:
            seen.append(v)
            yield v

    for v in values():
        if v > 1:
            break
    return sum(seen)


def counting(x):
    n = 0

    def values():
        nonlocal n
        for v in x:
            n += 1
            yield v

    for v in values():
        if v > 1:
            break
    return n


def filling(x):
    y = np.zeros(3)

    def values():
        for k, v in enumerate(x):
            y[k] = v
            yield v

    for v in values():
        if v > 1:
            break
    return y


def largest(x):
    p, q = SimpleNamespace(v=x[0]), SimpleNamespace(v=x[1])
    max([p, q], key=lambda o: o.v).v = 9.0
    return p.v


def sorted_copy(x):
    p, q = SimpleNamespace(v=x[0]), SimpleNamespace(v=x[1])
    sorted([p, q], key=lambda o: o.v)[0].v = 9.0
    return p.v


def sorted_here(x):
    p, q = SimpleNamespace(v=x[0]), SimpleNamespace(v=x[1])
    both = [p, q]
    both.sort(key=lambda o: o.v)
    both[0].v = 9.0
    return p.v


def sorted_arrays(x):
    p, q = 1.0 * x, 2.0 * x
    both = [p, q]
    both.sort(key=lambda a: a[0])
    both[0][1] = 9.0
    return p


def sorted_in_a_loop(x):
    objects = [SimpleNamespace(v=v) for v in x]
    first = objects[0]
    for _ in range(len(x) + 6):
        objects.sort(key=lambda o: o.v)
        objects[0].v += 1.5
    return first.v


def read_before_it_is_sorted(x):
    objects, total = [SimpleNamespace(v=v) for v in x], 0.0
    first = objects[0]
    for _ in range(len(x) + 6):
        total += first.v
        objects.sort(key=lambda o: o.v)
        objects[0].v += 1.5
    return total


def sorted_in_a_branch(x):
    objects = [SimpleNamespace(v=v) for v in x]
    first = objects[0]
    if x[0] > 0:
        objects.sort(key=lambda o: o.v)
        objects[0].v += 1.5
    return first.v


def sorted_under_another_name(x):
    rows = [[v, 1.0] for v in x]
    first = rows[0]
    for _ in range(len(x) + 6):
        others = list(rows)
        others.sort(key=lambda r: r[0])
        others[0][0] += 1.5
    return first[0]


REFUSED = {
    again_after_a_break: "after a loop over it",
    twice: "are taken again",
    in_a_branch: "would happen once only",
    noting: "an iterator changes something",
    counting: "an iterator changes something",
    filling: "an iterator changes something",
    largest: "another name of an object",
    sorted_copy: "another name of an object",
    **dict.fromkeys(
        (sorted_here, sorted_in_a_loop, read_before_it_is_sorted, sorted_in_a_branch, sorted_under_another_name),
        "sorted by traced numbers",
    ),
    sorted_arrays: "another name of an array",
}


@pytest.mark.parametrize("f", REFUSED)
def test_refused(f):
    with pytest.raises(DflowError, match=REFUSED[f]):
        dflow.jit(f)(np.array([0.5, 2.0, 1.5]))


def test_sorted_objects_are_read_and_changed_through_the_list():
    def f(x):
        objects = [SimpleNamespace(v=v) for v in x]
        for _ in range(6):
            for k, o in enumerate(objects):
                o.v = 0.5 * o.v + k
            objects.sort(key=lambda o: o.v)
        by_size = sorted(objects, key=lambda o: -o.v)
        return by_size[0].v + 2 * objects[0].v

    x = np.array([0.5, 2.0, 1.5])
    assert dflow.jit(f)(x) == pytest.approx(f(x))


def test_functions_of_pieces_see_their_pieces():
    def f(x, scale):
        seen = [0.0]

        def part(v):
            seen[0] += v.sum()
            return v * scale + v.max()

        pieces = np.piecewise(x, [x > 0, x < -1], [part, np.cumsum, lambda v: v * v])
        return np.sum(np.sin(pieces)) + seen[0]

    x, step = np.array([0.5, -1.5, 2.5, -0.25, -2.0]), 1e-6 * np.array([1.0, -2.0, 0.5, 3.0, -1.0])
    assert dflow.jit(f)(x, 1.25) == pytest.approx(f(x, 1.25))
    change = (f(x + step, 1.25) - f(x - step, 1.25)) / 2
    assert dflow.grad(f)(x, 1.25) @ step == pytest.approx(change, rel=1e-6)
