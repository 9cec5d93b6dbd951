"""New arrays: fresh and writable while tracing, NumPy's values and dtypes."""

import numpy as np
import pytest
from traced_numpy import agrees, flatten, is_traced, run, traced

import dflow
import dflow.numpy as dnp

NEW = [
    lambda m: m.zeros(3),
    lambda m: m.zeros((2, 3), dtype=np.float32),
    lambda m: m.zeros((2, 0), dtype=int),
    lambda m: m.ones((2,), bool),
    lambda m: m.full((2, 2), 7),
    lambda m: m.full(2, 7, dtype="f4"),
    lambda m: m.full((2, 3), [1, 2, 3]),
    lambda m: m.eye(3),
    lambda m: m.eye(2, 4, 1, dtype=int),
    lambda m: m.eye(3, k=-1),
    lambda m: m.identity(2),
    lambda m: m.tri(3, 4, 1),
    lambda m: m.arange(5),
    lambda m: m.arange(2, 9, 3),
    lambda m: m.arange(9, 2, -2),
    lambda m: m.arange(0.0, 1.0, 0.1),
    lambda m: m.arange(3, dtype="f4"),
    lambda m: m.arange(5, 2),
    lambda m: m.linspace(0, 1, 5),
    lambda m: m.linspace(0, 1, 5, endpoint=False),
    lambda m: m.linspace(2, 3, 1),
    lambda m: m.linspace(0, 10, 4, dtype=int),
    lambda m: m.linspace([0, 1], [2, 5], 3, axis=1),
    lambda m: m.linspace(0, 1, 5, retstep=True),
    lambda m: m.logspace(0, 2, 3),
    lambda m: m.array([1, 2, 3]),
    lambda m: m.array([[1, 2.5], [3, 4]], dtype=np.float32),
    lambda m: m.array(5, ndmin=2),
    lambda m: m.asarray([True, False]),
    lambda m: m.zeros_like(np.arange(3)),
    lambda m: m.ones_like(np.ones((2, 2), "f4"), dtype=int),
    lambda m: m.full_like(np.arange(3), 2.7),
]


@pytest.mark.parametrize("make", NEW)
def test_from_nothing(make):
    wanted = make(np)

    def compare(x):
        out = make(dnp)
        assert all(map(is_traced, flatten(out)))
        return out

    for g, w in zip(run(compare, 1.0), flatten(wanted)):
        assert (g.dtype, g.shape) == (np.asarray(w).dtype, np.shape(w))
        np.testing.assert_allclose(g, w, rtol=1e-15)
    assert all(not is_traced(x) for x in flatten(make(dnp)))


FROM_TRACED = [
    lambda m, x: m.zeros_like(x),
    lambda m, x: m.ones_like(x, dtype="f4"),
    lambda m, x: m.full_like(x, 3),
    lambda m, x: m.full((2,), x[0]),
    lambda m, x: m.zeros_like(x, shape=(2, 2)),
    lambda m, x: m.empty_like(x) * 0,
    lambda m, x: m.array([x[0], 2, x[1]]),
    lambda m, x: m.array([[x[0], 1.5], [2, x[1]]]),
    lambda m, x: m.array([x, x]),
    lambda m, x: m.array(x, dtype="f4"),
    lambda m, x: m.asarray(x),
    lambda m, x: m.copy(x),
    lambda m, x: m.linspace(x[0], x[1], 4),
    lambda m, x: m.linspace(x, x + 1, 4),
    lambda m, x: m.linspace(x, 10, 3, endpoint=False, axis=-1),
]


@pytest.mark.parametrize("kind", ["f8", "f4", "i8"])
@pytest.mark.parametrize("make", FROM_TRACED)
def test_from_traced(make, kind):
    agrees(lambda x: make(dnp if is_traced(x) else np, x), np.array([1, 3]).astype(kind))


def test_fresh_arrays_are_written():
    def f(x):
        m = dnp if is_traced(x) else np
        y = m.zeros(4)
        y[1] = x
        z = m.array([1.0, 2.0])
        z[0] = x
        a = m.asarray(y)
        a[2] = 5.0
        c = m.copy(y)
        c[0] = -1.0
        return y, z, c

    agrees(f, 3.0)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: dnp.zeros(x), "known when the function is compiled"),
        (lambda x: dnp.zeros(-1), "negative dimensions"),
        (lambda x: dnp.arange(x), "known when the function is compiled"),
        (lambda x: dnp.array([x, [x, x]]), "must have the same shape"),
    ],
)
def test_errors_tell(f, message):
    with pytest.raises((TypeError, ValueError), match=message):
        traced(f, 3)


def test_grids():
    """``mgrid``, ``ogrid``, ``r_``, ``c_``: new arrays, of traced parts too."""

    def f(x):
        grid = np.mgrid[0:3, 1 : len(x)]
        grid[0] += 1
        xs, ys = np.ogrid[0 : x[1] : 4j, 0:2:0.5]
        joined = np.r_[0.5, x, x[-1] * 2, 1:3]
        return grid, xs * ys, np.mgrid[:3], joined, np.c_[x, x**2], np.c_[x[0], 1], np.r_[x.astype(np.float32), 2.0]

    x = np.array([1.0, 2.0, 4.0])
    for got, wanted in zip(dflow.jit(f)(x), f(x), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)
    dflow.check_grads(lambda x: f(x)[1].sum() * f(x)[3][2] + f(x)[4].sum(), (x,), order=2)
