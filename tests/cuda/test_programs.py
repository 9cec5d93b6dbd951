"""Programs on the device give what they give on the processor."""

import numpy as np
import pytest
from ml_dtypes import bfloat16
from on_device import compare, numbers

import dflow
from dflow.backends.cuda.kernels import sort as sort_kernel
from dflow.backends.cuda.plan import HostCall, Loop, While
from dflow.backends.cuda.planning import places, work


@pytest.fixture
def small(monkeypatch):
    """Kernels for small arrays too."""
    monkeypatch.setattr(work, "WIDE", 4)
    monkeypatch.setattr(work, "MANY", 4)


# --- tensors


def test_elementwise(gpu):
    assert compare(lambda x, a: np.sin(x) * a + x, numbers(5000), 2.0) == ["kernel"]


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)])
def test_reductions(gpu, axis):
    compare(lambda x: (np.sum(x * x, axis), np.max(x, axis), np.any(x > 2, axis)), numbers(20, 11, 33))


def test_blocks_that_share_a_sum_meet(gpu):
    """Again in every run: the counter is zero at the end."""
    assert compare(lambda x: np.sum(x * x), numbers(20000)) == ["fold"]
    run = dflow.jit(lambda x: (np.sum(x), np.sum(x, 1)), device="cuda")
    for k in range(3):
        x = numbers(3, 9000, seed=k)
        for g, w in zip(run(x), (np.sum(x), np.sum(x, 1))):
            np.testing.assert_allclose(g, w)


@pytest.mark.parametrize(("dtype", "rtol"), [("f2", 3e-3), (bfloat16, 8e-3), ("f4", 1e-5), ("i4", 0), ("c16", 1e-12)])
def test_dtypes(gpu, dtype, rtol):
    x = (10 * numbers(3000)).astype(dtype)
    compare(lambda x: (np.sum(x), x * x + 1), x, rtol=rtol)


def test_single_precision_is_computed_in_it(gpu):
    """But for sines of large numbers, in functions beside."""

    def f(x):
        a, b = np.abs(x), np.tanh(x)
        waves = np.sin(x) + np.cos(x) + np.tan(x) + np.arctan(x) + np.arctan2(x, a + 1) + np.arcsin(b) * np.arccos(b)
        powers = a**1.3 + np.hypot(x, 1.5) + np.cbrt(x) + np.log2(a + 1) + np.log10(a + 2) + np.log1p(a) + np.log(a + 3)
        return waves, powers, np.exp2(b) + np.expm1(x) + np.sinh(x) / np.cosh(x), np.arctanh(0.5 * b) + np.arcsinh(x)

    x = np.append(numbers(60), [1e5, -3e9, 0.0, 60.0]).astype("f4")
    compare(f, x, rtol=3e-6)
    ptx = dflow.jit(f, device="cuda").lower(x).ptx()
    assert ".f64" in ptx and ".f64" not in ptx[ptx.index(".entry") :].split("\n}")[0]


@pytest.mark.parametrize("function", [np.exp, np.exp2])
def test_exponentials_of_single_precision(gpu, function):
    """Also where they overflow, vanish and leave the normal numbers: within two units in the last place."""
    x = np.concatenate([np.linspace(-110, 90, 399), [0.0, -0.0, 1e-30, np.inf, -np.inf, np.nan, 88.7, 1e30]])
    x = np.concatenate([x, np.linspace(-151, 129, 281)]).astype("f4")
    got, ptx = dflow.jit(function, device="cuda")(x), dflow.jit(function, device="cuda").lower(x).ptx()
    with np.errstate(over="ignore"):
        wanted = function(x.astype("f8"))
        rounded = wanted.astype("f4")
        off = np.abs(got.astype("f8") - wanted)[np.isfinite(rounded)] / np.spacing(rounded[np.isfinite(rounded)])
    assert np.max(off) <= 2
    np.testing.assert_array_equal(got[~np.isfinite(rounded)], rounded[~np.isfinite(rounded)])
    assert ptx.count("ex2.approx.ftz.f32") >= 1 and "f64" not in ptx


def test_axes_that_lie_side_by_side_are_summed_as_one(gpu):
    """No remainder is taken for an element."""
    ptx = dflow.jit(lambda x: np.sum(x * x, (1, 2)), device="cuda").lower(np.ones((3, 130, 70))).ptx()
    assert ptx.count("mul.hi") + ptx.count("mul.wide.u32") + ptx.count("rem.") <= 2
    compare(lambda x: np.sum(x * x, (1, 2)), numbers(3, 130, 7))
    compare(lambda x, y: np.sum(x * y[None], (0, 1)), numbers(33, 5, 40), numbers(5, 40))
    compare(lambda x: np.sum(x[:, :-1] * x[:, 1:]), numbers(40, 41))


def test_small_arrays_share_a_block(gpu):
    """One launch: loops inside, sums and updates by all threads together."""

    def f(x, n):
        y, total = np.zeros(64), 0.0
        for k in range(n):
            x = np.cos(x) + np.sum(x) / 300
            y[k : k + 50] += x[:50]
            y[3] = y[k] + 1
            if y[0] > 1:
                total += np.max(y) + y[5]
        return x, y, total, np.argmax(y)

    assert compare(f, numbers(64), 3) == ["steps"]


def test_sizes_that_vary(gpu, small):
    compare(lambda x: (np.sum(x[: np.sum(x > 0)] ** 2), x[x > 1] + 1), numbers(200))


@pytest.mark.parametrize("tile", [16, 32, 256])
def test_sorts(gpu, small, tile, monkeypatch):
    """In one tile, and in several: merged in an odd and an even number of passes."""
    monkeypatch.setattr(sort_kernel, "TILE", tile)
    x = np.round(numbers(2, 130), 1)
    x[0, ::9] = np.nan
    order = lambda x: np.argsort(x, axis=1, kind="stable")  # noqa: E731
    assert compare(order, x) == ["argsort"] * (1 if tile == 256 else 3)
    compare(order, x[:, :50].copy())


def test_sorts_of_other_numbers(gpu, small, monkeypatch):
    monkeypatch.setattr(sort_kernel, "TILE", 16)
    assert compare(lambda x: np.sort(x, 0), numbers(40, 3, dtype=bfloat16))[0] != "steps"
    compare(lambda x, n: (np.argsort(x[:n]), np.argsort(x[:n] > 3)), (5 * numbers(70)).astype("i2"), 61)
    compare(lambda x: np.argsort(x), numbers(20))


def test_transforms_and_sorts_are_made_of_what_many_threads_do(gpu, small):
    """The processor calls a function for each row of these."""
    x = numbers(3, 36)
    assert "argsort" in compare(lambda x: np.sort(x, axis=1), x)
    assert "matmul" in compare(lambda x: np.fft.rfft(x).real, x)


def test_matrices(gpu, small):
    def f(a, b):
        w, v = np.linalg.eigh(a + a.T)
        return a @ b, np.linalg.solve(a, b), w, np.abs(v), np.argsort(b, axis=1), np.argmax(a)

    a = numbers(12, 12)
    compare(f, a + 12 * np.eye(12), numbers(12, 5), rtol=1e-8)
    plan = dflow.jit(f, device="cuda").lower(a, a).launches()
    assert any(isinstance(s, HostCall) for s in plan.steps)


def add_at(x, i):
    y = np.zeros(20)
    np.add.at(y, i, x)
    return y


def put_at(x, i):
    y = np.zeros(20)
    y[i] = x
    return y


INDICES = np.random.default_rng(0).integers(0, 20, 60)


def test_scatters(gpu):
    assert compare(add_at, numbers(60), INDICES) == compare(put_at, numbers(60), INDICES) == ["steps"]


def test_scatters_in_kernels(gpu, small):
    assert "scatter_add" in compare(add_at, numbers(60), INDICES)
    compare(dflow.grad(lambda x: np.sum(x[INDICES] ** 2)), numbers(20))


# --- control flow


def newton(x):
    """The square root of x."""
    y = x
    while abs(y * y - x) > 1e-12 * x:
        y = 0.5 * (y + x / y)
    return y


def oscillate(u, p):
    for _ in range(20):
        u = u + 0.05 * np.stack([u[1], -p[0] * u[0] - p[1] * u[1] ** 3])
    return np.sum(u**2)


def test_loops_of_the_host(gpu, small):
    def f(x, n):
        for k in range(n):
            x = np.sin(x[::-1]) + k
        while np.sum(x * x) > 1.0:
            x = x * 0.5
        if x[0] > x[1]:
            x = x + 1
        return x

    compare(f, numbers(20), 3)
    steps = dflow.jit(f, device="cuda").lower(numbers(20), 3).launches().steps
    assert any(isinstance(s, Loop) for s in steps) and any(isinstance(s, While) for s in steps)


def test_counts_that_are_computed(gpu, small):
    def f(x, n, m):
        for _ in range(n % 5 - m):
            x = np.sin(x)
        return x

    compare(f, numbers(20), 8, 1)
    compare(f, numbers(20), 5, 1)


def test_lanes_with_loops_of_their_own(gpu):
    assert "lanes" in compare(dflow.vmap(newton), np.linspace(0.1, 9, 200))


def test_gradients_of_lanes(gpu):
    xs = np.linspace(0.1, 9, 70)
    what = compare(dflow.grad(lambda xs: np.sum(dflow.vmap(newton)(xs))), xs)
    assert what.count("lanes") == 2  # there and back


def shrink(x):
    """Rounds whose number depends on the numbers, with arrays and a branch."""
    u = np.array([x, 2 * x, 1.0])
    while u[0] > 0.5:
        u = 0.9 * np.sin(u) if u[0] > 1.2 else 0.7 * u + 0.1 * u * u[1]
    return u[0] + u[1] * u[2]


def test_tapes_of_rows(gpu, small, monkeypatch):
    """They lie side by side, need nothing but room, which is asked for once, and grow when there is none."""
    monkeypatch.setattr(places, "FIRST_ROWS", 4)
    slope = dflow.vmap(dflow.grad(shrink))
    xs = np.linspace(0.8, 3.0, 12)
    assert compare(slope, xs) == ["lanes"]
    made = dflow.jit(slope, device="cuda").lower(xs)
    rows = [b.size for b in made.launches().buffers if b.kind == "sequence"]
    assert 8 * 3 * 128 in rows  # a row for each thread of the block
    assert made.ptx().count("atom.") == len(rows), rows  # each may be told of


def first_value(a):
    """The square of the largest eigenvalue, nearly."""
    value, v = 0.0, np.array([1.0, 2.0, 0.5])
    while True:
        w = a @ v
        new = np.sqrt(w @ w)
        v = w / new
        if abs(new - value) < 1e-2 * new:
            return new * new
        value = new


def test_tapes_that_other_kernels_read(gpu, small):
    """Order two reads rows of a sequence whose length another kernel has written down."""
    a = np.eye(3) + 0.3
    compare(lambda a: dflow.jvp(dflow.grad(first_value), (a,), (a,)), a)


def test_rounds_that_read_a_tape_go_together(gpu):
    """Far memory is waited for less often."""

    def f(x):
        for _ in range(300):
            x = 0.9 * x * x
        return x

    slope, xs = dflow.vmap(dflow.grad(f)), np.linspace(0.1, 1.0, 70)
    assert compare(slope, xs) == ["lanes"]
    _, back = dflow.jit(slope, device="cuda").lower(xs).ptx().split("bra", 1)
    assert back.count("ld.global.f64") + back.count("ld.global.b64") >= 4


def test_sums_over_lanes(gpu):
    def loss(us, p):
        return np.sum(dflow.vmap(lambda u: oscillate(u, p))(us))

    what = compare(dflow.value_and_grad(loss, (0, 1)), numbers(100, 2), np.array([1.0, 0.1]))
    assert what.count("lanes") == 2 and "total" in what


def test_additions_to_shared_tensors(gpu):
    def loss(table, i):
        def one(k):
            total = 0.0
            for j in range(3):
                total += table[(k + j) % 10] ** 2
            return total

        return np.sum(dflow.vmap(one)(i))

    compare(dflow.grad(loss), numbers(10), np.arange(80) % 10)


def test_rounds_that_depend_on_each_other_stay_in_order(gpu):
    def f(x):
        y = x.copy()
        for k in range(99):
            y[k + 1] += 0.5 * y[k]
        return y

    assert "lanes" not in compare(f, numbers(100))


# --- derivatives, in any order


def test_transformations_nest(gpu):
    def f(x):
        return np.sum(np.sin(x) * x[::-1])

    x = numbers(300)
    wanted = dflow.grad(f)(x)
    for g in (dflow.grad(dflow.jit(f, device="cuda")), dflow.jit(dflow.grad(f), device="cuda")):
        np.testing.assert_allclose(np.asarray(g(x)), wanted, rtol=1e-12)
    rows = numbers(3, 300)
    mapped = dflow.vmap(dflow.grad(dflow.jit(f, device="cuda")))
    np.testing.assert_allclose(np.asarray(mapped(rows)), dflow.vmap(dflow.grad(f))(rows), rtol=1e-12)


# --- errors


def test_errors_name_the_line(gpu):
    def f(x, k):
        return x[k] * 2

    with pytest.raises(IndexError, match="index 7 is out of bounds") as on_cpu:
        dflow.jit(f)(np.ones(3), 7)
    with pytest.raises(IndexError, match="index 7 is out of bounds") as on_device:
        dflow.jit(f, device="cuda")(np.ones(3), 7)
    assert str(on_cpu.value) == str(on_device.value)


def test_errors_in_lanes(gpu):
    def one(x):
        assert x < 50, "too large"
        return np.sqrt(x)

    with pytest.raises(AssertionError, match="too large"):
        dflow.jit(dflow.vmap(one), device="cuda")(np.arange(100.0))


def test_arguments_are_updated(gpu):
    def f(x):
        x[1:] += x[:-1]

    mine, wanted = numbers(400), numbers(400)
    dflow.jit(f, device="cuda")(mine)
    f(wanted)
    np.testing.assert_allclose(mine, wanted)


def test_devices_are_checked():
    with pytest.raises(ValueError, match="device must be one of cpu, cuda; got 'tpu'"):
        dflow.jit(lambda x: x, device="tpu")
    with pytest.raises(ValueError, match="runs on the CPU; leave out device"):
        dflow.jit(lambda x: x, device="cuda", backend="reference")


# --- bfloat16, which is an f32 in registers


def steps(x):
    """A loop with a branch for each element."""
    total = x[0] * 0
    for k in range(len(x)):
        total = total * 0.5 + x[k]
        if total > 1:
            total -= np.sin(total)
    return total


def test_bfloat16(gpu, small):
    """Every kind of kernel rounds where the processor does."""
    x, i = numbers(6, 24, dtype=bfloat16), INDICES[:24]

    def many(x):
        y = x.T + 1
        y[i] += x.T
        return np.cumsum(x, axis=1), y, np.sort(x, axis=1), np.argmax(x, 1), np.exp(x[0]) @ x[1], x @ x.T, np.max(x, 0)

    assert {"group", "scatter"} <= {*compare(many, x, rtol=8e-3)}  # the sort and the extremes start together
    compare(dflow.vmap(steps), x.T, rtol=8e-3)
    compare(dflow.grad(lambda x: np.sum(dflow.vmap(steps)(x))), x.T, rtol=8e-3)
