"""Calls on concrete arrays: NumPy's own, or compiled when the switch says so."""

import numpy as np
import pytest

import dflow.numpy as dnp

X = np.array([[3.0, 1.0, 2.0], [6.0, 5.0, 4.0]])


@pytest.fixture(params=["", "compile"])
def switch(request, monkeypatch):
    monkeypatch.setenv("DFLOW_EAGER", request.param)


@pytest.mark.parametrize(
    "f, args",
    [
        ("sin", (X,)),
        ("sort", (X,)),
        ("sum", (X, 0)),
        ("concatenate", ([X, X], 1)),
        ("zeros", ((2, 3), np.float32)),
        ("arange", (3, 9, 2)),
        ("matmul", (X, X.T)),
        ("unstack", (X,)),
        ("reshape", (X, (3, 2))),
        ("add", (np.int8(3), X.astype(np.int8))),
    ],
)
def test_results_are_numpys(switch, f, args):
    got, wanted = getattr(dnp, f)(*args), getattr(np, f)(*args)
    for g, w in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, wanted))):
        assert np.asarray(g).dtype == np.asarray(w).dtype
        np.testing.assert_array_equal(g, w)


def test_what_is_not_an_array_is_part_of_the_program(switch):
    for axis in (0, 1, None):
        np.testing.assert_array_equal(dnp.sum(X, axis=axis), X.sum(axis=axis))


def test_arguments_beyond_numpys_are_compiled(switch):
    np.testing.assert_array_equal(dnp.unique(np.array([3, 1, 3]), size=4, fill_value=9), [1, 3, 9, 9])
    values, positions = dnp.topk(X, 2)
    np.testing.assert_array_equal(values, [[3.0, 2.0], [6.0, 5.0]])
    np.testing.assert_array_equal(positions, [[0, 2], [0, 1]])


def test_what_the_standard_asks_for_beyond_numpy(switch):
    assert dnp.finfo(X).eps == float(np.finfo(X.dtype).eps) and type(dnp.finfo(np.float32).max) is float
    assert dnp.iinfo(np.array(1, np.int8)).max == 127
    assert dnp.fft.fftfreq(4, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(dnp.fft.ifftshift(dnp.fft.fftshift(X)), X)
    np.testing.assert_array_equal(dnp.sort(X, descending=True), np.sort(X)[:, ::-1])
    np.testing.assert_array_equal(dnp.argsort(np.array([1, 2, 2, 0]), descending=True), [1, 2, 0, 3])
    np.testing.assert_array_equal(dnp.clip(X, min=2.0, max=4.0), np.clip(X, 2.0, 4.0))
