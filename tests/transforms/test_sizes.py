"""Slices, masks and arrays whose sizes depend on a loop or on data: compiled as plain Python runs, and derivatives."""

import numpy as np
import pytest

import dflow
from dflow.ir.core import walk

RNG = np.random.default_rng(0)
X = RNG.normal(size=10)
A = RNG.normal(size=(6, 6)) + 5 * np.eye(6)
SPD = A @ A.T

# -- programs ----------------------------------------------------------------------------------------------------------


def cholesky(a):
    l = a.copy()
    n = l.shape[0]
    for i in range(n):
        for j in range(i):
            l[i, j] -= l[i, :j] @ l[j, :j]
            l[i, j] /= l[j, j]
        l[i, i] = np.sqrt(l[i, i] - l[i, :i] @ l[i, :i])
    return np.sum(np.tril(l) ** 3)


def lu(a):
    a = a.copy()
    n = len(a)
    for i in range(n):
        for j in range(i):
            a[i, j] = (a[i, j] - a[i, :j] @ a[:j, j]) / a[j, j]
        for j in range(i, n):
            a[i, j] -= a[i, :i] @ a[:i, j]
    return np.sum(a**2)


def elimination(a, b):
    a, b = a.copy(), b.copy()
    n = len(b)
    for k in range(n):
        for i in range(k + 1, n):
            f = a[i, k] / a[k, k]
            a[i, k + 1 :] -= f * a[k, k + 1 :]
            b[i] -= f * b[k]
    x = np.zeros(n)
    for i in range(n - 1, -1, -1):
        x[i] = (b[i] - a[i, i + 1 :] @ x[i + 1 :]) / a[i, i]
    return np.sum(x**3)


def durbin(r):
    y = np.empty_like(r)
    alpha, beta = -r[0], 1.0
    y[0] = -r[0]
    for k in range(1, len(r)):
        beta *= 1.0 - alpha * alpha
        alpha = -(r[k] + np.dot(np.flip(r[:k]), y[:k])) / beta
        y[:k] += alpha * np.flip(y[:k])
        y[k] = alpha
    return y.sum()


def gram_schmidt(a):
    q = np.zeros_like(a)
    for k in range(a.shape[1]):
        v = a[:, k] - q[:, :k] @ (q[:, :k].T @ a[:, k])
        q[:, k] = v / np.linalg.norm(v)
    return np.sum(q[0] * q[3] * q[2])


def triangular_solve(l, b):
    x = np.zeros(len(b))
    for i in range(len(b)):
        x[i] = (b[i] - l[i, :i] @ x[:i]) / l[i, i]
    return np.sum(x**3)


def sparse_product(data, indices, ptr, x):
    y = np.zeros(len(ptr) - 1)
    for i in range(len(ptr) - 1):
        y[i] = data[ptr[i] : ptr[i + 1]] @ x[indices[ptr[i] : ptr[i + 1]]]
    return np.sum(y**2)


def insertion_sort(x):
    y = x.copy()
    for i in range(1, len(y)):
        v = y[i]
        j = i
        while j > 0 and y[j - 1] > v:
            j -= 1
        y[j + 1 : i + 1] = y[j:i].copy()
        y[j] = v
    return np.sum(y * np.arange(len(y)))


def convolution(x):
    h = np.array([0.5, 0.3, 0.2])
    y = np.zeros(len(x) + 2)
    for k in range(len(x)):
        y[k : k + 3] += x[k] * h
    return np.sum(y**2)


def windows(x):
    w = np.array([1.0, 2.0, 3.0, 4.0])
    t = 0.0
    for k in range(3, len(x) - 1):
        t += w @ x[k - 3 : k + 1]
    return t


def prefixes(x):
    t = 0.0
    for k in range(1, len(x) + 1):
        t += x[:k].mean() * x[:k].max() - np.linalg.norm(x[:k]) + x[:k].std() * len(x[:k])
    return t


def matrix_chain(p):
    """The cheapest order of a product of matrices, by a table over lengths."""
    n = len(p) - 1
    cost = np.zeros((n, n))
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            cost[i, j] = np.min(cost[i, i:j] + cost[i + 1 : j + 1, j] + p[i] * p[i + 1 : j + 1] * p[j + 1])
    return cost[0, n - 1]


def three_loops(a):
    t = 0.0
    for i in range(6):
        for j in range(i):
            for k in range(j + 1):
                t += np.sum(a[k:i, j] * a[k:i, k])
    return t


def mask_mean(x):
    return x[x > 0].mean() * np.sum(x[x < 0] ** 2)


def masked_updates(x):
    y = x.copy()
    m = y > 0
    y[m] = y[m] * 2 + 1
    y[~m] *= 3
    y[m] += y[m]
    return np.sum(y**2)


def loops_over_slices(x, k):
    t = 0.0
    for v in x[:k]:
        t += v * v
    for i, (u, v) in enumerate(zip(x[:k], x[2:])):
        t += i * u * v
    for v in reversed(x[k:]):
        t = t * 0.5 + v
    return t


def _mean_product(u, v):
    return (u * v).sum() / u.shape[0]


def helper(x, k):
    return _mean_product(x[:k], x[:k] + 1) * len(x[k:])


def views_of_views(x, k):
    y = x.copy()
    v = y[2:][:k]
    v[1:] *= 2.0
    v[0] = 5.0
    w = v[::-1]
    w[0] += x[0]
    y[:k] = v[:k] * 3
    return np.sum(y**2)


def sizes_of_branches(x, k):
    if x[0] > 0:
        y = x[:k]
    else:
        y = x[1 : k + 2]
    return np.sum(y**2) * len(y)


def made_arrays(x, k):
    assert k <= 20
    z = np.zeros(k) + x[0]
    points = np.linspace(0.0, x[1], k)
    return np.sum(z * points) + np.ones((k, 3)).sum() + np.arange(k).sum() * x[2] + z.shape[0]


def equal_when_it_runs(x, k):
    return np.sum(x[:k] * x[k : k + 4])


def in_a_while(x, k):
    t = 0.0
    while k > 1:
        t += np.prod(x[:k]) + x[k // 2 : k].sum()
        k -= 2
    return t


PROGRAMS = [
    (cholesky, SPD),
    (lu, A),
    (elimination, A, X[:6]),
    (durbin, X / 10),
    (gram_schmidt, A),
    (triangular_solve, A, X[:6]),
    (sparse_product, X[:7], np.array([0, 2, 1, 0, 3, 2, 1]), np.array([0, 2, 3, 3, 5, 7]), X[6:]),
    (insertion_sort, X),
    (convolution, X),
    (windows, X),
    (prefixes, X),
    (matrix_chain, np.array([3.0, 7.0, 2.0, 5.0, 4.0])),
    (three_loops, A),
    (mask_mean, X),
    (masked_updates, X),
    (loops_over_slices, X, 4),
    (helper, X, 4),
    (views_of_views, X, 4),
    (sizes_of_branches, X, 4),
    (made_arrays, X, 5),
    (equal_when_it_runs, X, 4),
    (in_a_while, X, 7),
]
NAMES = [p[0].__name__ for p in PROGRAMS]


@pytest.mark.parametrize("f, args", [(p[0], p[1:]) for p in PROGRAMS], ids=NAMES)
def test_program(f, args):
    np.testing.assert_allclose(dflow.jit(f)(*args), f(*args), rtol=1e-11)
    dflow.check_grads(f, args, order=1)


@pytest.mark.parametrize("f, args", [(triangular_solve, (A, X[:6])), (durbin, (X / 10,)), (mask_mean, (X,))])
def test_second_order(f, args):
    dflow.check_grads(f, args, order=2)


@pytest.mark.parametrize("f", [cholesky, lu, elimination, gram_schmidt, three_loops])
def test_loops_stay_loops(f):
    def count(n):
        a = np.eye(n)
        args = (a, np.ones(n)) if f is elimination else (a,)
        return sum(1 for _ in walk(dflow.grad(f).lower(*args).stages.traced.body))

    assert count(8) == count(30)


# -- results -----------------------------------------------------------------------------------------------------------


def sieve(n):
    prime = np.ones(101, dtype=bool)
    prime[:2] = False
    for i in range(2, 11):
        if prime[i]:
            prime[i * i :: i] = False
    return np.flatnonzero(prime[: n + 1])


def early(x, k):
    if k > 3:
        return x[:k]
    return x[k:] * 2


RESULTS = [
    (lambda x, a, b: x[a:b], X, 3, 7),
    (lambda x, a, b: (x[a:b], x[b:a], x[b:a:-1], x[a::-1], x[:a:-2], x[a:b:3], x[: a - 1]), X, -3, 20),
    (lambda x, a, b: (x[a:b], x[b:a], x[b:a:-1], x[a::-1], x[:a:-2], x[a:b:3], x[: a - 1]), X, 1, 6),
    (lambda x, a, b: (x[a:b], x[b:a], x[b:a:-1], x[a::-1], x[:a:-2], x[a:b:3], x[b:]), X, -30, -4),
    (lambda x, a, b: (x[b:a:-1], x[0:b:a], x[a::b]), X, 2, 7),
    (lambda x: (x[x > 0], np.nonzero(x > 0), np.flatnonzero(x < 0), np.where(x > 0.5), x[x > 100]), X),
    (lambda a: (np.nonzero(a > 0), a[a > 0], a[a[:, 0] > 0], a[1, a[1] > 0], np.argwhere(a > 1)), A),
    (lambda x: (np.unique(np.round(x)), np.sort(x[x > 0]), np.compress(x > 0, x)), X),
    (lambda x, k: (np.cumsum(x[:k]), np.argmax(x[:k]), np.flip(x[:k]), np.diff(x[:k]), np.outer(x[:k], x[:3])), X, 4),
    (lambda x, k: (np.concatenate([x[:k], x[:2]]), np.append(x[:k], 1.0), np.stack([x[:k], x[:k]])), X, 4),
    (lambda x, k: (x[:k][-1], x[:k][k - 1], x[:k].reshape(1, -1), x[:k, None] * x[:k], x[:k].copy()), X, 4),
    (
        lambda x, k: (x[:k].size, len(x[k:]), np.zeros_like(x[:k]), x[:k].astype(np.float32), np.full(len(x[:k]), 2)),
        X,
        4,
    ),
    (lambda a, k: (a[:k, k:], a[:k].T @ a[:k], a[k:].sum(axis=0), a[:k, 1:3].max(axis=1), np.eye(len(a[:k]))), A, 2),
    (sieve, 60),
    (early, X, 5),
    (early, X, 2),
]


@pytest.mark.parametrize("f, args", [(r[0], r[1:]) for r in RESULTS])
def test_result(f, args):
    expected, got = f(*args), dflow.jit(f)(*args)
    for e, g in zip(_flat(expected), _flat(got), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-13)
        assert np.shape(g) == np.shape(e) and np.asarray(g).dtype == np.asarray(e).dtype


def _flat(x):
    return [y for part in x for y in _flat(part)] if isinstance(x, tuple) else [x]


def test_static_where_it_can_be():
    def f(x):
        t = np.zeros(4)
        for k in range(3, 9):
            t += x[k - 3 : k + 1]
        return t

    assert "<=" not in dflow.jit(f).lower(X).ir("traced")


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f, args, kind, message",
    [
        (lambda x, k: x[:k] + x[1:], (X, 4), ValueError, "sizes 9 and 4|sizes 4 and 9"),
        (lambda x, k: x[:k].max(), (X, 0), ValueError, "zero-size array to reduction operation maximum"),
        (lambda x, k: np.argmin(x[:k]), (X, 0), ValueError, "argmin of an empty sequence"),
        (lambda x, k: x[:k][3], (X, 3), IndexError, "index 3 is out of bounds for axis 0 with size 3"),
        (lambda x, k: x[:k][np.array([0, 5])], (X, 3), IndexError, "index 5 is out of bounds for axis 0 with size 3"),
        (lambda x, k: np.zeros(k), (X, np.array(3)), dflow.errors.NeedsStatic, "assert n <= 1000"),
        (lambda x, k: x[0:9:k], (X, 0), ValueError, "step cannot be zero"),
        (lambda x, k: dflow.vjp(lambda x: x[x > k], x), (X, 0), dflow.errors.DerivativeError, "full size"),
    ],
)
def test_refused(f, args, kind, message):
    with pytest.raises(kind, match=message):
        dflow.jit(f)(*args)


def test_negative_size_is_refused():
    def f(k):
        assert k < 5
        return np.zeros(k)

    assert len(dflow.jit(f)(3)) == 3
    with pytest.raises(ValueError, match="negative dimensions are not allowed, got -1"):
        dflow.jit(f)(-1)


def test_derivatives_inside_a_compiled_function():
    """A derivative is a trace of its own: sizes reach it as arguments, and through what it closes over."""

    def f(x, k):
        y = x[:k]
        z = y * 2

        def h(u):
            return np.sum(u * z[:, None].sum(axis=1) * y[: len(u)])

        return dflow.grad(h)(y).sum() + dflow.jvp(h, (y,), (z,))[1] + dflow.grad(_mean_product)(y, x[1 : k + 1])[0]

    y, z = X[:3], 2 * X[:3]
    expected = (z * y).sum() + (z * y * z).sum() + X[1] / 3
    np.testing.assert_allclose(dflow.jit(f)(X, 3), expected)
    dflow.check_grads(f, (X, 3), order=1)


def test_results_beside_updated_arguments():
    @dflow.jit
    def f(x, k):
        x[:k] *= 2.0
        return {"part": x[:k], "rest": x[k:], "sum": x.sum()}

    x = np.arange(5.0)
    got = f(x, 2)
    np.testing.assert_array_equal(x, [0, 2, 2, 3, 4])
    np.testing.assert_array_equal(got["part"], [0, 2])
    np.testing.assert_array_equal(got["rest"], [2, 3, 4])
    assert got["sum"] == 11
    assert f(x, 0)["part"].shape == (0,)


def test_library(tmp_path):
    _, header = dflow.compile_library(lambda x, k: x[:k], "f64[5], int", tmp_path / "libpart.so", name="part")
    assert "int64_t *size_0" in header.read_text()


def test_tapes_of_triangular_nests_are_compact():
    def cholesky(a):
        a = a.copy()
        for i in range(20):
            for j in range(i):
                a[i, j] -= a[i, :j] @ a[j, :j]
                a[i, j] /= a[j, j]
            a[i, i] = np.sqrt(a[i, i] - a[i, :i] @ a[i, :i])
        return np.log(np.diag(a)).sum()

    m = np.random.default_rng(0).normal(size=(20, 20))
    m = m @ m.T + 20 * np.eye(20)
    slope = dflow.jit(dflow.grad(cholesky))
    text = slope.lower(m).ir()
    assert "sequence" not in text  # the counts have bounds
    assert "f64[380, 19]" not in text  # rows lie one behind the other
    found = slope(m)
    assert np.allclose(found + found.T, np.linalg.inv(m))
