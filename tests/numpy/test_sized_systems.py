"""Linear systems whose size the run decides: the free nodes of a mesh, the members of a group."""

import numpy as np
import pytest
import scipy.linalg as sl

import dflow

rng = np.random.default_rng(5)
A = rng.random((5, 5)) + 5 * np.eye(5)
B = rng.random(5)
SOME = np.array([True, False, True, True, False])


def picked(a, b, mask):
    at = np.flatnonzero(mask)
    return a[np.ix_(at, at)], b[at]


def spd(k):
    return k @ k.T


def sum_of_growing(a, b, mask):
    total = 0.0
    for n in range(1, np.count_nonzero(mask) + 1):
        total += np.linalg.solve(a[:n, :n], b[:n]).sum()
    return total


def by_factor(k, y):
    low = np.linalg.cholesky(spd(k))
    return np.log(np.diag(low)).sum() + np.sum(np.linalg.solve(low, y) ** 2)


PROGRAMS = {
    "solve": lambda k, y: np.linalg.solve(k, y),
    "several right sides": lambda k, y: np.linalg.solve(k, np.stack([y, y * y], axis=1)),
    "as many as rows": lambda k, y: np.linalg.solve(k, np.eye(len(y))),
    "a stack": lambda k, y: np.linalg.solve(np.stack([k, k + 1.0]), y),
    "inv": lambda k, y: np.linalg.inv(k) @ y,
    "det": lambda k, y: np.linalg.det(k) / 100.0,
    "slogdet": lambda k, y: np.stack(np.linalg.slogdet(-k)),
    "cholesky": by_factor,
    "upper": lambda k, y: np.linalg.cholesky(spd(k), upper=True),
    "cho_solve": lambda k, y: sl.cho_solve(sl.cho_factor(spd(k), lower=True), y),
    "triangular": lambda k, y: sl.solve_triangular(k, y, lower=True),
    "positive": lambda k, y: sl.solve(spd(k), y, assume_a="pos"),
}


def on_picked(name):
    def program(a, b, mask):
        return PROGRAMS[name](*picked(a, b, mask))

    return program


@pytest.mark.parametrize("name", PROGRAMS)
def test_is_what_numpy_gives(name):
    compiled = dflow.jit(on_picked(name))
    for mask in (SOME, ~SOME):
        np.testing.assert_allclose(compiled(A, B, mask), PROGRAMS[name](*picked(A, B, mask)), rtol=1e-12)


@pytest.mark.parametrize("name, order", [("solve", 2), ("slogdet", 1), ("cholesky", 1)])
def test_derivatives(name, order):
    f = on_picked(name)
    dflow.check_grads(lambda a, b: np.sin(f(a, b, SOME)).sum(), (A, B), order)


@pytest.mark.parametrize("name", ["solve", "inv", "det", "cholesky"])
def test_nothing_is_picked(name):
    none, f = np.zeros(5, bool), on_picked(name)
    np.testing.assert_array_equal(dflow.jit(f)(A, B, none), f(A, B, none))
    np.testing.assert_array_equal(dflow.grad(lambda a, b: np.sum(f(a, b, none)))(A, B), 0 * A)


def test_as_many_rows_as_columns():
    """Whether the matrix is square shows when the program runs."""
    f = dflow.jit(lambda a, mask: np.linalg.det(a[np.flatnonzero(mask), :3]) + np.linalg.inv(a[mask, :3])[1, 1])
    expected = np.linalg.det(A[SOME, :3]) + np.linalg.inv(A[SOME, :3])[1, 1]
    np.testing.assert_allclose(f(A, SOME), expected)
    with pytest.raises(ValueError, match="sizes 3 and 2"):
        f(A, ~SOME)


def test_in_a_loop_over_sizes():
    assert np.isclose(dflow.jit(sum_of_growing)(A, B, SOME), sum_of_growing(A, B, SOME))
    dflow.check_grads(lambda a, b: sum_of_growing(a, b, SOME), (A, B), order=1)


def test_vmap():
    masks = np.stack([SOME, ~SOME])
    f = lambda mask: np.sum(np.linalg.solve(*picked(A, B, mask)))  # noqa: E731
    np.testing.assert_allclose(dflow.vmap(f)(masks), [f(m) for m in masks])


def below(x, y, limit):
    itm = x < limit
    return np.vander(x[itm], 2), x[itm], y[itm]


FITS = {
    "lstsq": lambda m, x, y: np.linalg.lstsq(m, y, rcond=None)[0],
    "two at once": lambda m, x, y: np.linalg.lstsq(m, np.stack([y, y * x], axis=1), rcond=None)[0],
    "singular values": lambda m, x, y: np.linalg.lstsq(m, y)[3],
    "polyfit": lambda m, x, y: np.polyfit(x, y, 1),
    "weighted": lambda m, x, y: np.polyfit(x, y, 1, w=x),
    "a design with ones": lambda m, x, y: np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]), y)[0],
}


@pytest.mark.parametrize("name", FITS)
def test_fit_to_chosen_rows(name):
    """The regression of an American option's value on the paths that are in the money."""
    f = lambda x, y, limit: FITS[name](*below(x, y, limit))  # noqa: E731
    x, y = np.array([0.2, 1.0, 0.5, 1.4, 0.9]), B
    for limit in (1.2, 0.6):
        np.testing.assert_allclose(dflow.jit(f)(x, y, limit), f(x, y, limit), rtol=1e-9)
    dflow.check_grads(lambda x, y: np.sin(f(x, y, 1.2)).sum(), (x, y), order=1)


def test_residuals_of_chosen_rows():
    f = dflow.jit(lambda x, y, limit: np.linalg.lstsq(*below(x, y, limit)[::2], rcond=None)[1])
    x, y = np.array([0.2, 1.0, 0.5, 1.4, 0.9]), B
    np.testing.assert_allclose(f(x, y, 1.2), np.linalg.lstsq(*below(x, y, 1.2)[::2], rcond=None)[1])
    with pytest.raises(np.linalg.LinAlgError, match="no more rows than columns"):
        f(x, y, 0.6)


def test_nothing_to_fit():
    with pytest.raises(ValueError, match="non-empty"):
        dflow.jit(lambda x, mask: np.polyfit(x[mask], x[mask], 1))(B, np.zeros(5, bool))


def test_size_of_a_mask():
    """How many are chosen is at most how many there are."""

    def f(x, y):
        chosen = x < 1.0
        return np.linalg.solve(np.eye(chosen.sum()) + np.outer(x[chosen], x[chosen]), y[chosen])

    x = np.array([0.2, 1.0, 0.5, 1.4, 0.9])
    np.testing.assert_allclose(dflow.jit(f)(x, B), f(x, B))


def test_singular():
    with pytest.raises(np.linalg.LinAlgError, match="Singular matrix"):
        dflow.jit(on_picked("solve"))(0 * A, B, SOME)


def test_sizes_that_differ():
    def f(a, b, mask):
        k, _ = picked(a, b, mask)
        return np.linalg.solve(k, b[: len(k) + 1])

    with pytest.raises(ValueError, match="sizes 3 and 4"):
        dflow.jit(f)(A, B, SOME)


def test_diagonals():
    def f(a, b, mask):
        at = np.flatnonzero(mask)
        sums = [np.diag(b[at], k).sum(axis=0).sum() for k in (-1, 0, 2)]
        return np.array([*sums, *(np.diagonal(a[at], k).sum() for k in (-4, -1, 0, 1, 4)), np.trace(a[:, at])])

    for mask in (SOME, ~SOME, np.zeros(5, bool)):
        np.testing.assert_allclose(dflow.jit(f)(A, B, mask), f(A, B, mask))
    dflow.check_grads(lambda a, b: np.sum(f(a, b, SOME) ** 2), (A, B), order=1)
