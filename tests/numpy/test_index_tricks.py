"""``np.r_`` and ``np.c_``, subscripts of ``einsum`` as lists, tuples as index arrays."""

import numpy as np
import pytest

import dflow

X = np.arange(3.0) + 1
M = np.arange(6.0).reshape(2, 3)

CASES = {
    "r_": (lambda x: (np.r_[x, 0, x], np.r_[x, 1:4, 2.5], np.r_[x[0], x[1]], np.r_[0 : x[2] : 4j]), X),
    "c_": (lambda x: (np.c_[x, x * 2], np.c_[x, np.arange(3)], np.c_[x[0], 1]), X),
    "dtypes": (lambda x: (np.r_[x.astype(np.float32), 1.5], np.r_[x.astype(np.int32), 1]), X),
    "matrices": (lambda m: (np.r_[m, m], np.c_[m, m]), M),
    "directives": (
        lambda m: (np.r_["-1", m, m], np.r_["0,2", m[0], m[1]], np.r_["1,2,0", m[0], m[1]], np.r_["0,3,1", m, m]),
        M,
    ),
    "tuples": (lambda m: (m[(0, 1, 0), (2, 0, 1)], m[[0, 1], (2, 0)], m[(0, 1),]), M),
    "einsum": (
        lambda m: (np.einsum(m, [0, 1], m.T, [1, 2], [0, 2]), np.einsum(m, [0, 1], m.T, [1, 2])),
        M,
    ),
    "einsum_ellipsis": (lambda m: np.einsum(m, [Ellipsis, 1], [1, Ellipsis]), M),
}


@pytest.mark.parametrize("name", CASES)
def test_as_numpy(name):
    f, x = CASES[name]
    wanted, got = f(x), dflow.jit(f)(x)
    for a, b in zip(wanted, got) if isinstance(wanted, tuple) else [(wanted, got)]:
        assert b.dtype == a.dtype
        np.testing.assert_allclose(b, a)


def test_derivative():
    dflow.check_grads(lambda x: np.sin(np.r_[x, 0 : x[0] : 3j, np.c_[x, x][1]]), (X,))


def test_matrices_are_refused():
    with pytest.raises(dflow.errors.TraceError, match="directive 'r' makes a matrix"):
        dflow.jit(lambda x: np.r_["r", x])(X)
