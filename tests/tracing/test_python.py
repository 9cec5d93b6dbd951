"""Python's own functions and statements on traced values; side effects that would be lost are refused."""

import operator
import random

import numpy as np
import pytest

import dflow

X = np.array([2.0, -1.0, 3.0, 0.5, -4.0, 1.5])
CACHE = {}
RNG = np.random.default_rng(0)


def whole_array(x):
    return sum(x), max(x), min(x), any(v > 2 for v in x), all(v > 2 for v in x), sum(x > 0), sum(x, 1)


def types(x):
    return type(x) is np.ndarray, isinstance(x[0], float), isinstance(x[0], int), isinstance(x[0] > 1, (bool, np.bool_))


def membership(x):
    return 3.0 in x, x[0] in (1.0, 2.0), x[0] not in [5.0]


def chained(x):
    i = 0
    calls = 0.0
    while 0 <= i < len(x) and x[i] > -2:
        calls += x[i]
        i += 1
    return calls, -1 < x[1] <= x[0] < 3


def short_circuit(x):
    i = int(x[0])
    return i < 6 and x[i] > 0, i >= 6 or x[i] > 0


def writes_rows(x):
    a = np.zeros((6, 2))
    for k, row in enumerate(a):
        row[0] = x[k]
        row += 1
    return a


def reshape_copies(x):
    a = x.reshape(2, 3)
    t = a.T.reshape(-1)
    t[0] = 100
    v = a[:, ::2].reshape(-1)
    v[1] = 50
    w = a[1].reshape(3, 1)
    w[0, 0] = 7
    return a, t, v, w


def multiple_targets(x):
    y = np.zeros(4)
    (y[0], y[1]), a = (x[0], x[1]), x[2]
    y[2] = b = a + 1
    y[[0, 3]] = y[[3, 0]]
    y[0], y[1] = y[1], y[0]
    first, *rest = x
    return y, b, first + rest[0] + len(rest)


def builtin_conversions(x):
    return int(x[2]) + 1, float(x[0] > 0), bool(x[1]), round(x[3], 1), divmod(x[0], 2), abs(x), -x, +x, x.item(2)


@pytest.mark.parametrize(
    "fn",
    [whole_array, types, membership, chained, short_circuit, writes_rows, reshape_copies, multiple_targets,
     builtin_conversions],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_python(check, fn):
    check(fn, X)
    if fn is not short_circuit:
        check(fn, X + 0.25)


def cache_in_loop(x):
    for i in range(int(x[0])):
        CACHE[0] = x[i]
    return x


def list_in_branch(x):
    out = []
    if x[0] > 0:
        out.append("positive")
    return x


def next_in_loop(x):
    it = iter([1.0, 2.0, 3.0])
    s = 0.0
    for i in range(int(x[0])):
        s += next(it) * x[i]
    return s


def draws(x):
    return x * random.random()


def draws_array(x):
    return x * RNG.normal(size=6)


def compares_is(x):
    return 1.0 if (x[0] > 0) is True else 2.0


def swallows(x):
    try:
        return np.zeros(int(x[0]))
    except Exception:
        return x


def iterates_memory(x):
    return sum(2 * v for v in np.nditer(x))


REFUSED = {
    cache_in_loop: "changes a dict from outside",
    list_in_branch: "a list from outside grows or shrinks inside a branch",
    next_in_loop: "an item is taken from an iterator in a branch or loop",
    draws: "random() would be drawn once",
    draws_array: "normal() would be drawn once",
    compares_is: "whether two values are one object is not known",
    iterates_memory: "np.nditer goes through arrays as they lie in memory",
    swallows: "nothing says how large it can become",
}


@pytest.mark.parametrize("fn", REFUSED, ids=lambda f: f.__name__)
def test_refused(fails, fn):
    assert REFUSED[fn] in fails(fn, X)
    assert not CACHE


def test_identity_of_numbers_and_arguments(fails):
    assert [dflow.jit(lambda b: True is b)(b) for b in (True, False)] == [True, False]
    assert dflow.jit(lambda x: [x is None, x is x, x.copy() is x, x[1:] is x])(X) == [False, True, False, False]
    assert not dflow.jit(lambda x, y: x is y)(X, X[1:])
    with pytest.raises(dflow.errors.TraceError, match="pass a flag that says it"):
        dflow.jit(lambda x, y: x is y)(X, X)


def elements(x, n):
    total = np.zeros(2)
    for (i, j), v in np.ndenumerate(x):
        total[0] += (i + 10 * j) * v
    for i, j in np.ndindex(n, len(x)):
        total[1] += x[i, j] ** 2
    return total, [i + j for i, j in np.ndindex(2, 3)], np.fromiter((2 * v for v in x[0]), np.float32, 2)


def test_indices_of_arrays():
    x = np.arange(25.0).reshape(5, 5)
    for got, wanted in zip(dflow.jit(elements)(x, 3), elements(x, 3)):
        np.testing.assert_allclose(got, wanted)
    dflow.check_grads(lambda x: elements(x, 3)[0], (x,))


def about_ranges(x, n):
    r, s, few = range(1, n, 2), range(n, 0, -3), range(3, 9, 2)
    k = int(x[0])
    within = [v in q for q in (r, s) for v in (k, 1, 4, 2.0, 2.5, -1, 100, 1j * k, k + 0j, [k])]
    return r.start, r.stop, s.step, r[0], r[-1], s[1], s[k - 2], within, [k + d in few for d in range(8)]


def test_ranges_with_traced_bounds(fails):
    assert dflow.jit(about_ranges)(X, 9) == about_ranges(X, 9)
    with pytest.raises(IndexError, match="range object index out of range"):
        dflow.jit(lambda n, k: range(n)[k])(3, -4)


@pytest.mark.parametrize("x", [np.uint8(3), np.uint8(5), np.int8(-100), np.int8(101), np.uint64(2**64 - 1)])
def test_narrow_integers_in_ranges(x):
    f = lambda x: [x in range(5, 300), x in range(100, 200), x in range(-3, 4)]  # noqa: E731
    assert dflow.jit(f, backend="reference")(x) == f(x)


def test_a_number_is_not_equal_to_what_is_none():
    f = lambda x: (x == "a", x != "a", x == None, x in ("a", {}))  # noqa: E711, E731
    assert dflow.jit(f)(2.0) == f(2.0)


def test_functions_of_operator():
    f = lambda x: (operator.contains((1.0, 2.0), x), operator.contains([3, 4], x), operator.is_(x, None))  # noqa: E731
    assert dflow.jit(f)(2.0) == f(2.0)


def test_products_in_place_need_matrices(fails):
    def f(x, y):
        x @= y
        return x

    m = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert np.array_equal(dflow.jit(f)(m.copy(), m), m @ m)
    with pytest.raises(ValueError, match="needs a matrix y"):
        dflow.jit(f)(m, m[0].copy())


def test_what_a_branch_leaves_without_a_shape_is_named():
    def f(x, cut):
        if cut:
            x = x[:1]
        return np.linalg.slogdet(x)

    with pytest.raises(dflow.errors.UndefinedError, match="variable 'x' has values that cannot be merged"):
        dflow.jit(lambda x, v: f(x, v > 0))(np.eye(2), 1.0)
