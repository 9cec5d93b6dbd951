"""Reshaped arrays, updated: where NumPy makes a view the array sees it, where it makes a copy the array does not."""

import copy

import numpy as np
import pytest

import dflow


def ravel_of_a_reversed_row(x):
    row = x[0, ::-1]
    row.ravel()[0] = 9.0
    return row


def reshape_of_a_reversed_row(x):
    x[0, ::-1].reshape(3, 1)[0] = 9.0


def flat_of_a_transposed_array(x):
    x.T.flat[1] = 9.0


def flat_of_columns(x):
    x[:, ::2].flat[1] = 9.0


def copy_by_rows(x):
    y = x.T.copy()
    y.ravel()[1] = 9.0
    return y


def computed_by_rows(x):
    y = np.tanh(x[::-1]) * 2.0 + x[0]
    y.reshape(-1)[1] = 9.0
    return y


def filled_in_a_loop(x):
    y = np.zeros_like(x)
    for i in range(x.size):
        y.reshape(-1)[i] = i * x.ravel()[i]
        y = y * 0.5
    y.ravel()[0] = 3.0
    return y


def turned_in_a_loop(x, n):
    for _ in range(n):
        x = x[::-1]
    return x * 1.0


def turned_and_updated(x, n):
    y = x * 1.0
    for _ in range(n):
        y = y[:, ::-1]
        y[0, 0] += 1.0
    return y * 1.0


def read_only(x):
    y = 2.0 * x.T
    return y.ravel() + y.reshape(-1)[::-1]


def by_rows_again(x):
    y, z = np.array(x.T, order="C"), np.asarray(x, order="C")
    y.ravel()[1] = 9.0
    z.ravel()[2] = 5.0
    return y


RIGHT = [
    by_rows_again,
    *(ravel_of_a_reversed_row, reshape_of_a_reversed_row, flat_of_a_transposed_array, flat_of_columns),
    *(copy_by_rows, computed_by_rows, filled_in_a_loop, read_only),
]


@pytest.mark.parametrize("f", RIGHT)
def test_reshaped_arrays_are_those_of_numpy(f):
    x, y = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3)
    wanted = f(x)
    found = dflow.jit(f, backend="reference")(y)
    np.testing.assert_array_equal(y, x)
    if wanted is not None:
        np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("f", [turned_in_a_loop, turned_and_updated])
def test_a_view_of_itself(f, n):
    x = np.arange(6.0).reshape(2, 3)
    found = dflow.jit(f, backend="reference")(x.copy(), n)
    np.testing.assert_array_equal(found, f(x.copy(), n))


def by_columns(x):
    y = x.T * 2.0
    y.ravel()[3] = 50.0
    return y


def like_columns(x):
    y = np.zeros_like(x.T)
    y.reshape(-1)[3] = 50.0
    return y


def sums_by_columns(x):
    y = np.cumsum(x.T, axis=0)
    y.ravel()[1] = 7.0
    return y


def turned_by_the_run(x):
    y = x * 1.0
    while y[0, 0] < 1.0:
        y = y[::-1] + 0.0 if y[0, 1] > 100.0 else y[::-1]
    y.reshape(-1)[1] = 7.0
    return y


def gathered(x):
    y = x[:, np.array([1, 0])]
    y.ravel()[1] = 7.0
    return y


def ordered(make):
    def f(x):
        y = make(x)
        y.ravel()[1] = 7.0
        return y

    return f


COLUMNS = [
    *(lambda x: x.copy(order="F"), lambda x: np.copy(x, order="F"), lambda x: np.array(x, order="F")),
    *(lambda x: np.asarray(x, order="F"), lambda x: x.astype(float, order="F"), lambda x: np.add(x, 1, order="F")),
    *(lambda x: np.full((2, 3), x[0, 0], order="F"), lambda x: np.ones_like(x, order="F"), lambda x: copy.copy(x.T)),
    *(lambda x: np.require(x, requirements="F"), lambda x: np.eye(3, order="F") + x[0, 0]),
]


@pytest.mark.parametrize(
    "f", [by_columns, like_columns, sums_by_columns, turned_by_the_run, gathered, *map(ordered, COLUMNS)]
)
def test_what_may_be_a_copy_is_not_updated(f):
    with pytest.raises(dflow.errors.DflowError, match="may be another name"):
        dflow.jit(f, backend="reference")(np.arange(6.0).reshape(2, 3))


def chosen_twice(a, b, k):
    c = 0
    while c < k:
        c += 1
        if a[0] > 0.7:
            b = a * 2.0
        else:
            k = k - 1
    b[1:] = 7.0


def test_a_name_of_a_name():
    with pytest.raises(dflow.errors.DflowError, match="may be another name"):
        dflow.jit(chosen_twice, static_argnums=2)(np.full(3, 0.5), np.ones(3), 2)
