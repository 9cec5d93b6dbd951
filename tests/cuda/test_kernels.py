"""Kernels that are written in a way of their own: transposes, products, scatters, reductions."""

import re

import numpy as np
import pytest
from ml_dtypes import bfloat16
from on_device import compare, numbers

import dflow
from dflow.backends.cuda.kernels import fold as fold_kernel
from dflow.backends.cuda.kernels import private
from dflow.backends.cuda.kernels import product as product_kernel
from dflow.backends.cuda.kernels import vector as vector_kernel
from dflow.backends.cuda.planning import work


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels for small arrays too."""
    monkeypatch.setattr(work, "WIDE", 4)
    monkeypatch.setattr(work, "MANY", 4)


# --- transposes: tiles of 32 by 32, so that both sides have edges


@pytest.mark.parametrize(
    ("axes", "shape"), [((2, 0, 1), (17, 18, 33)), ((2, 1, 0), (17, 3, 40)), ((0, 2, 1), (2, 33, 70))]
)
def test_transposes(gpu, axes, shape):
    assert compare(lambda x: np.transpose(x, axes).copy(), numbers(*shape)) == ["tiles"]


def test_transposes_that_tiles_are_not_for(gpu):
    assert compare(lambda x: np.transpose(x, (1, 0, 2)).copy(), numbers(17, 3, 40)) == ["kernel"]
    assert compare(lambda x: x.T + 1, numbers(40, 3)) == ["kernel"]


@pytest.mark.parametrize("dtype", ["?", "c16"])
def test_transposed_operands(gpu, dtype):
    """One operand across, one along; parts of them; one that varies in size."""
    x = numbers(34, 45).astype(dtype)
    assert compare(lambda x, y: (y * x.T, (x.T[2:, 1:] + y[2:, 1:])), x, x.T.copy(), rtol=1e-3) == ["tiles", "tiles"]
    assert compare(lambda x, n: x[:n].T * x[0, 0], x, 31)[0] == "tiles"


# --- products


@pytest.mark.parametrize(("dtype", "rtol"), [("f2", 2e-2), ("f8", 1e-12), ("i4", 0), ("c8", 1e-5)])
def test_products(gpu, dtype, rtol):
    """Tiles of 32 by 32 by 16, with edges on all sides."""
    x, y = (3 * numbers(2, 33, 19)).astype(dtype), (3 * numbers(2, 19, 40)).astype(dtype)
    assert compare(np.matmul, x, y, rtol=rtol) == ["matmul"]


def test_products_that_share_the_inner_axis(gpu):
    assert compare(np.matmul, numbers(33, 300), numbers(300, 20)) == ["matmul", "combine"]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_products_in_larger_tiles(gpu, dtype, monkeypatch):
    monkeypatch.setattr(product_kernel, "ENOUGH", 2)
    assert compare(np.matmul, numbers(130, 9, dtype=dtype), numbers(9, 70, dtype=dtype), rtol=1e-4) == ["matmul"]


# --- scatters


def add_at(x, i):
    y = np.ones((20, *x.shape[1:]), x.dtype)
    np.add.at(y, i, x)
    return y


def put_at(x, i):
    y = np.zeros((20, *x.shape[1:]))
    y[i] = x
    return y


def add_both(x, i, j):
    y = np.ones((7, 5))
    np.add.at(y, (i, j), x)
    y[j, i] = x
    return y


ROWS = np.random.default_rng(0).integers(-20, 20, 60)
PLACES = np.random.default_rng(0).integers(0, 5, (2, 6, 10))


@pytest.mark.parametrize("shape", [(60,), (60, 3)])
def test_the_last_write_wins(gpu, shape):
    assert compare(put_at, numbers(*shape), ROWS, rtol=0)[-3:] == ["scatter_clear", "scatter_claim", "scatter"]


def test_numbers_of_odd_places(gpu):
    """Memory for the last writes is followed by a scalar, which must be aligned."""

    def f(x, i):
        y = np.zeros(7)
        y[i] = x
        return y * np.sum(y)

    compare(f, numbers(60), ROWS % 7)


@pytest.mark.parametrize(("dtype", "rtol"), [("f2", 1e-2), ("c16", 1e-12), (bfloat16, 6e-2), ("i2", 0), ("i1", 0)])
def test_additions(gpu, dtype, rtol):
    """Those that memory does not know are exchanges, until nobody has come between; those of bytes are sorted."""
    what = compare(add_at, (9 * numbers(60)).astype(dtype), ROWS, rtol=rtol)
    assert ("argsort" in what) == (dtype == "i1")


def test_additions_of_halves_by_rounds(gpu):
    def f(x, i):
        y = np.ones(5, x.dtype)
        for k in range(len(i)):
            y[i[k]] += x[k] * x[k]
        return y

    assert "lanes" in compare(f, (9 * numbers(60)).astype("i2"), ROWS % 5, rtol=0)
    assert "lanes" in compare(f, numbers(60, dtype=bfloat16), ROWS % 5, rtol=6e-2)


@pytest.mark.parametrize("dtype", ["f2", "c8"])
def test_deterministic_additions(gpu, dtype):
    """In the order of the processor, so that the bits are its own."""
    x = numbers(60, 3).astype(dtype)
    assert "argsort" in compare(add_at, x, ROWS, rtol=0, deterministic=True)


def test_deterministic_additions_at_several_indices(gpu, monkeypatch):
    monkeypatch.setenv("DFLOW_DETERMINISTIC", "1")
    what = compare(add_both, numbers(6, 10), *PLACES, rtol=0)
    assert "argsort" in what and "scatter" in what


def add_by_rounds(x, i, n):
    y = np.ones((5, n), x.dtype)
    for k in range(len(i)):
        for j in range(6):
            y[i[k], j % 3] += np.sin(x[k]).astype(x.dtype)
            y[(i[k] + j) % 5] += x[k]
    return y


@pytest.mark.parametrize(("dtype", "n", "rtol"), [("f8", 3, 1e-12), ("f4", 26, 1e-5), ("f2", 3, 2e-2)])
def test_copies_of_what_rounds_add_to(gpu, dtype, n, rtol):
    """Near the threads, or in memory; where a round adds as much as there is."""
    add = lambda x, i: add_by_rounds(x, i, n)  # noqa: E731
    assert "copies" in compare(add, numbers(70).astype(dtype), np.append(ROWS, ROWS[:10]) % 5, rtol=rtol)


def test_gradients_of_weights_that_all_steps_use(gpu):
    """Each system decides on its own how many steps it takes."""

    def one(w, u):
        while np.sum(u * u) > 0.1:
            u = 0.7 * np.tanh(w @ u)
        return u[0]

    def loss(w, us):
        return np.sum(dflow.vmap(lambda u: one(w, u))(us))

    def in_a_loop(w, us):
        total = 0.0
        for k in range(len(us)):
            total -= one(w, us[k])
        return total

    w, us = 0.5 * numbers(3, 3), numbers(70, 3)
    for f in (loss, in_a_loop):
        assert {"lanes", "copies"} <= {*compare(dflow.grad(f), w, us, rtol=1e-10)}


def test_deterministic_loops(gpu, monkeypatch):
    """By copies where there is memory for them, else one round after the other."""

    def f(x, i):
        y = np.zeros(5)
        for k in range(len(i)):
            y[i[k]] += np.sin(x[k])
        return y

    i = ROWS % 5
    assert compare(f, numbers(60), i)[-1] == "lanes"
    assert compare(f, numbers(60), i, rtol=1e-14, deterministic=True)[-1] == "copies"
    monkeypatch.setattr(private, "LARGEST", 8)
    assert "lanes" not in compare(f, numbers(60), i, rtol=1e-14, deterministic=True)


def test_the_option_is_checked():
    with pytest.raises(ValueError, match="deterministic=True says how to run on a GPU: pass device='cuda' too"):
        dflow.jit(lambda x: x, deterministic=True)


# --- reductions


def extremes(x):
    return np.argmax(x), np.argmin(x), np.argmax(x > 2)


def test_positions_of_extremes(gpu, monkeypatch):
    """The first of several, in two stages; the first NaN."""
    monkeypatch.setattr(fold_kernel, "EACH", 1)
    x = np.round(numbers(600), 1)
    assert compare(extremes, x, rtol=0).count("fold") == 3
    x[77] = x[500] = np.nan
    compare(extremes, x, rtol=0)
    compare(lambda x: np.argmax(x), np.full(300, -np.inf), rtol=0)


@pytest.mark.parametrize("dtype", ["f2", "i2", "?"])
def test_positions_along_axes(gpu, dtype):
    x = (2 * numbers(50, 40)).astype(dtype)
    assert compare(lambda x: (np.argmax(x, 0), np.argmin(x, 1)), x, rtol=0)[-2:] == ["fold", "fold"]


def test_reductions_along_columns(gpu):
    """Threads side by side read elements side by side, of one row or of several."""
    assert compare(lambda x: np.sum(x, 0), numbers(700, 5)) == ["fold"]
    assert compare(lambda x: (np.max(x, 1), np.prod(x, 1)), numbers(3, 50, 40))[0] == "fold"


def test_more_reductions_along_columns_than_a_block_has_memory_for(gpu):
    compare(lambda x: [np.sum(x * (k + 1j), axis=0) for k in range(14)], numbers(300, 16) + 0j)


def test_sums_of_a_block_meet_in_the_same_places(gpu):
    def f(x):
        y = np.cos(x)
        for c in (1.0, 2.0, 3.0):
            y = np.sin(y * np.mean(y + c)) - np.max(y * c) / 8
        return y

    compare(f, numbers(600))


def test_products_with_vectors(gpu):
    assert compare(lambda x, y: (x @ y, y.T @ x), numbers(60), numbers(60, 60))[0] == "fold"
    assert compare(np.matmul, numbers(60, 50), numbers(50, 3)) == ["fold"]


# --- vectors


@pytest.fixture
def vectors(monkeypatch):
    monkeypatch.setattr(vector_kernel, "LEAST", 4)


def widths(f, *args):
    """The accesses to memory in the code for these arguments, as of plain bits: LLVM 20 says what they are."""
    ptx = dflow.jit(f, device="cuda").lower(*args).ptx()
    names = re.findall(r"(?:ld|st)\.global\S*", ptx)
    return {re.sub(r"\.[fu](\d+)$", r".b\1", name.replace("nc.", "")) for name in names}


@pytest.mark.parametrize(("dtype", "wide"), [("f2", "v4.b32"), ("f8", "v2.b64"), ("c8", "v4.b32"), ("c16", "v2.b64")])
def test_vectors(gpu, vectors, dtype, wide):
    """Sixteen bytes at a time, and the elements that are left over."""
    f, x = lambda x, y: x * y, numbers(33, 7).astype(dtype)
    assert compare(f, x, x + 1, rtol=1e-2 if dtype == "f2" else 1e-6) == ["kernel"]
    assert {f"ld.global.{wide}", f"st.global.{wide}"} <= widths(f, x, x)
    assert compare(lambda x: x.reshape(7, 33).copy(), x) == ["copy"]
    assert f"ld.global.{wide}" in widths(lambda x: x.copy(), x)


def test_vectors_of_rows(gpu, vectors):
    """Rows that are read again, numbers that are, every second row, differences of neighbours."""
    x = numbers(12, 8, dtype="f4")
    compare(lambda x, y, z: x * y + z[:, None], x, x[0], x[:, 1].copy(), rtol=1e-6)
    f = lambda x: x[1::2] * x[::2]  # noqa: E731
    compare(f, x)
    assert {"ld.global.v4.b32", "st.global.v4.b32"} <= widths(f, x)
    compare(lambda y: (y[1:] - y[:-1]) * y[2:3], numbers(103))
    assert not any("v4" in name for name in widths(lambda x: x[:, :7] * x[:, 1:], x))


def test_vectors_in_place_and_at_any_address(gpu, vectors):
    def f(x):
        x[:] = x * 2 + 1

    mine = numbers(103, dtype="f4")
    wanted = mine * 2 + 1
    dflow.jit(f, device="cuda")(mine)
    np.testing.assert_allclose(mine, wanted, rtol=1e-6)
    there = dflow.device_put(mine)
    for k in range(4):
        got = dflow.jit(lambda x: x * 2 + 1, device="cuda")(there[k : 99 + k])
        np.testing.assert_allclose(np.asarray(got), mine[k : 99 + k] * 2 + 1, rtol=1e-6)


# --- loops over arrays


def systems(u, v, dt, n):
    """Steps of many systems at once, which share the time; every seventh state."""
    t, states = 0.0, np.zeros((6, len(u)))
    for k in range(6):
        for _ in range(n):
            u = u + dt * v
            v = v - dt * np.sin(u) * np.cos(t)
            t = t + dt
        if k > 3:
            v = v * 0.5
        states[k] = u
    return u, states, t


def test_loops_over_arrays(gpu):
    args = numbers(132), numbers(132, seed=1), 0.1
    assert compare(systems, *args, 3).count("rows") == 1
    slope = dflow.grad(lambda u, v, dt: np.sum(systems(u, v, dt, 3)[1] ** 2), (0, 1))
    assert compare(slope, *args).count("rows") == 2


def test_loops_over_arrays_that_begin_with_numbers(gpu):
    """No memory is filled for what each thread has in a register."""

    def f(x):
        a, b, out = np.zeros(x.shape[1]), np.full(x.shape[1], 2.5), np.full((13, x.shape[1]), 7.0)
        kept = np.full(x.shape[1], 3.0)
        for k in range(12):
            a = a + x[k] * kept
            if k % 2 == 0:
                b = b * 2 + a
            out[k] = a
        return a, b, out, kept

    x = numbers(12, 600)
    assert compare(lambda x: sum(f(x)[:2]), x) == ["rows", "kernel"]
    assert compare(f, x).count("rows") == 1


def test_loops_over_arrays_whose_elements_meet(gpu):
    def mixed(u, n):
        for _ in range(n):
            u = u + 0.1 * u[::-1]
        return u

    def read(u, n):
        for _ in range(n):
            u = u * 0.9 + u[3]
        return u

    def turned(u, n):
        for _ in range(n):
            u = u + 0.1 * u.T
        return u

    assert "rows" not in [*compare(mixed, numbers(50), 5), *compare(read, numbers(50), 5)]
    assert "rows" not in compare(turned, numbers(7, 7), 5)


def test_bfloat16(gpu, vectors):
    """In memory it has half the bytes that it has in registers."""
    x = numbers(34, 20).astype(bfloat16)

    def f(x):
        return np.sin(x.T) + 1, x * x, np.sum(x, 0), np.argmax(x, 1), x @ x.T, np.cumsum(x, 0)

    what = compare(f, x, rtol=2e-2)
    assert {"tiles", "kernel", "fold", "matmul", "rows"} <= set(what)
    compare(lambda x, i: (add_at(x, i), put_at(x, i)), x.reshape(-1)[:60], ROWS, rtol=2e-2)
