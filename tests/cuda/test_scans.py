"""Running sums, products and extremes: along a line, along an axis, by one block and by several."""

import numpy as np
import pytest
from ml_dtypes import bfloat16
from on_device import compare, numbers

import dflow
from dflow.backends.cuda.kernels import row_scan
from dflow.backends.cuda.kernels import scan as scan_kernel
from dflow.backends.cuda.planning import work


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels for small arrays too."""
    monkeypatch.setattr(work, "WIDE", 4)
    monkeypatch.setattr(work, "MANY", 4)


@pytest.fixture
def shared(monkeypatch):
    """Several blocks for a line of some hundred rounds, each of one warp."""
    monkeypatch.setattr(scan_kernel, "SHARE", 1)
    monkeypatch.setattr(row_scan, "THREADS", 32)


def falling(x):
    y, total = np.zeros(len(x)), 3.0
    for k in range(len(x)):
        total -= x[k]
        y[k] = np.sin(total)
    return y, total, np.cumsum(x)


def test_one_block(gpu):
    assert compare(falling, numbers(200)).count("lanes") == 2
    compare(dflow.grad(lambda x: np.sum(np.cumsum(x) ** 2)), numbers(200), rtol=1e-8)
    compare(np.cumsum, numbers(5))


@pytest.mark.parametrize("dtype", ["i8", "c8"])
def test_several_blocks(gpu, shared, dtype):
    x = (3 * numbers(300)).astype(dtype)
    assert compare(np.cumsum, x, rtol=1e-5) == ["totals", "lanes"]


def test_loops_that_need_several_running_numbers(gpu, shared):
    def f(x, n):
        total, most, product, count = 0.5, -1.0, 1.0, 0
        y, z = np.zeros(len(x)), 0.0
        for k in range(n):
            total -= x[k]
            most = max(most, x[k] * 2)
            product *= 1 + x[k] / 100
            count += 2
            y[k] = total * most + product + count
            z += y[k]
        return y, total, most, product, count, z

    assert {"totals", "lanes", "total"} <= {*compare(f, numbers(450), 433)}


def test_products_and_extremes(gpu, shared):
    x = 1 + numbers(400) / 10
    assert compare(np.cumprod, x) == ["totals", "lanes"]
    x[50] = np.nan
    assert "totals" in compare(np.maximum.accumulate, x)


def test_a_round_that_fails_waits_for_the_others(gpu, shared):
    def f(x):
        total, y = 0.0, np.zeros(len(x))
        for k in range(len(x)):
            total += x[k]
            if total > 300:
                raise ValueError("too much")
            y[k] = total
        return y

    compare(f, np.ones(290))
    with pytest.raises(ValueError, match="too much"):
        dflow.jit(f, device="cuda")(np.ones(400))


# --- along an axis


@pytest.mark.parametrize(("axis", "shape"), [(1, (3, 200)), (0, (200, 3)), (1, (2, 70, 2))])
@pytest.mark.parametrize("several", [False, True])
def test_along_an_axis(gpu, axis, shape, several, request):
    if several:
        request.getfixturevalue("shared")
    x = numbers(*shape)
    assert compare(lambda x: np.cumsum(x, axis), x)[-1] == "rowscan"
    if several and len(shape) == 2:
        slope = dflow.grad(lambda x: np.sum(np.cumsum(np.sin(x), axis) ** 2))
        assert compare(slope, x, rtol=1e-8).count("rowscan") == 2


@pytest.mark.parametrize("dtype", ["f2", bfloat16])
def test_halves_are_added_up_in_single_precision(gpu, shared, dtype):
    x = numbers(2, 150, dtype=dtype)
    assert compare(lambda x: np.cumsum(x, 1), x, rtol=5e-2)[-1] == "rowscan"
    got = dflow.jit(lambda x: np.cumsum(x, 1), device="cuda")(x)
    wanted = np.cumsum(x.astype(float), 1)
    np.testing.assert_allclose(np.asarray(got, float), wanted, rtol=1e-2, atol=0.1)


def test_extremes_along_an_axis(gpu, shared):
    x = numbers(2, 300)
    x[1, 40] = np.nan
    assert compare(lambda x: np.maximum.accumulate(x, 1), x)[-1] == "rowscan"
    assert compare(lambda x: np.minimum.accumulate(x, 0), x.T.copy())[-1] == "rowscan"


def test_several_arrays_and_what_is_left_of_them(gpu, shared):
    """A loop over arrays with two running sums, the one also from a part that is made in the round."""

    def f(x, y):
        a, b, out = np.ones(len(x)), np.zeros(len(x)), np.zeros(x.shape)
        for k in range(x.shape[1]):
            z = np.sin(x[:, k]) * y[k]
            a = a - z
            b = b + z * x[:, k]
            out[:, k] = a * b
        return out, a, b

    assert "rowscan" in compare(f, numbers(3, 150), numbers(150))


def test_arrays_that_depend_on_each_other_stay_in_order(gpu):
    def coupled(x):
        a, b, out = np.zeros(5), np.zeros(5), np.zeros(x.shape)
        for k in range(x.shape[1]):
            a = a + x[:, k]
            b = b + a * 0.5
            out[:, k] = b
        return out

    def decaying(x):
        a, out = np.zeros(5), np.zeros(x.shape)
        for k in range(x.shape[1]):
            a = 0.5 * a + x[:, k]
            out[:, k] = a
        return out

    assert compare(coupled, numbers(5, 90))[-1] == compare(decaying, numbers(5, 90))[-1] == "rows"


def test_many_columns_have_a_thread_each(gpu, monkeypatch):
    monkeypatch.setattr(row_scan, "MANY", 8)
    assert compare(lambda x: np.cumsum(x, 0), numbers(70, 9))[-1] == "rows"
    assert compare(lambda x: np.cumsum(x, 1), numbers(9, 70))[-1] == "rowscan"
    assert compare(lambda x: np.cumsum(x, 1), numbers(9, 12))[-1] == "rows"
