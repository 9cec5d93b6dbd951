"""Arguments that JAX's functions have and NumPy's do not: traced, and outside of traces."""

import sys

import numpy as np
import pytest

import dflow
import dflow.numpy as dnp
from dflow.numpy import keywords

X = np.array([3.0, 0.0, 1.0, 2.0])
A = np.arange(12.0).reshape(3, 4)
AT = np.array([0, 5, -1, -9])
COLUMN = np.array([[0], [7], [-1]])
S = np.float32(A)

CALLS = {
    "take fill": (lambda x: dnp.take(x, AT, mode="fill"), [3, np.nan, 2, np.nan]),
    "take fill_value": (lambda x: dnp.take(x, AT, mode="fill", fill_value=-1.0), [3, -1, 2, -1]),
    "take clip": (lambda x: dnp.take(x, AT, mode="clip"), [3, 2, 3, 3]),
    "take wrap": (lambda x: dnp.take(x, AT, mode="wrap"), [3, 0, 2, 2]),
    "take axis": (lambda x: dnp.take(A + x[1], AT[:2], axis=-1, mode="fill"), np.c_[A[:, 0], np.full(3, np.nan)]),
    "take hints": (lambda x: dnp.take(x, AT[:1], unique_indices=True), [3]),
    "along fill": (lambda x: dnp.take_along_axis(x, AT, 0, mode="fill"), [3, np.nan, 2, np.nan]),
    "along clip": (lambda x: dnp.take_along_axis(x, AT, 0, mode="clip"), [3, 2, 2, 3]),
    "along axis": (
        lambda x: dnp.take_along_axis(A + x[1], COLUMN, axis=1, mode="fill", fill_value=0),
        [[0], [0], [11]],
    ),
    "fill_diagonal": (lambda x: dnp.fill_diagonal(x.reshape(2, 2), 9.0, inplace=False), [[9, 0], [1, 9]]),
    "put_along_axis": (lambda x: dnp.put_along_axis(x, AT[2:3], 9.0, 0, inplace=False), [3, 0, 1, 9]),
    "place": (lambda x: dnp.place(x, x > 1, np.array([9.0]), inplace=False), [9, 0, 1, 9]),
    "put": (lambda x: dnp.put(x, AT[:1], 9.0, inplace=False), [9, 0, 1, 2]),
    "matmul": (lambda x: dnp.matmul(A, x, precision="highest"), A @ X),
    "dot": (lambda x: dnp.dot(x, x, preferred_element_type=np.float32), np.float32(14)),
    "einsum": (lambda x: dnp.einsum("ij,j->i", S, np.float32(x), preferred_element_type=float), A @ X),
    "tensordot": (lambda x: dnp.tensordot(A, x, 1, precision=None), A @ X),
    "sum": (lambda x: dnp.sum(np.float32(x), promote_integers=False, axis=0).astype(float), 6.0),
    "searchsorted": (lambda x: 1.0 * dnp.searchsorted(np.sort(x), x[2], method="scan"), 1.0),
    "convolve": (lambda x: dnp.convolve(x, x, mode="same", precision="high"), np.convolve(X, X, "same")),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name):
    f, expected = CALLS[name]
    x = X.copy()
    for found in (f(x), dflow.jit(f)(x)):
        np.testing.assert_array_equal(found, expected)
        assert np.asarray(found).dtype == (np.float32 if name == "dot" else np.float64)
    np.testing.assert_array_equal(x, X)  # what is written is a copy


def test_derivatives():
    weights = np.arange(1.0, 5.0)
    for take in (
        dnp.take,
        lambda x, i, mode, fill_value: dnp.take_along_axis(x, i, 0, mode=mode, fill_value=fill_value),
    ):
        gradient = dflow.grad(lambda x, take=take: np.sum(weights * take(x, AT, mode="fill", fill_value=0.0) ** 2))
        np.testing.assert_array_equal(gradient(X), [6.0, 0.0, 0.0, 12.0])
    kept = dflow.grad(lambda x: np.sum(weights * dnp.place(x, x > 1, np.array([9.0]), inplace=False)))
    np.testing.assert_array_equal(kept(X), [0.0, 2.0, 3.0, 0.0])


def test_without_mode_an_index_outside_is_an_error():
    with pytest.raises(IndexError):
        dflow.jit(lambda x: dnp.take_along_axis(x, AT, 0, mode=None))(X)


def test_their_names_lead_to_them():
    """What is found by its name can be part of a program that is kept on disk."""
    for name in keywords.KEYWORDS:
        f = getattr(dnp, name)
        assert getattr(sys.modules[f.__module__], f.__qualname__) is f
