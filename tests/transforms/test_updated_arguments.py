"""Arguments that a compiled function updates: in place, as in NumPy, or refused."""

import numpy as np
import pytest

import dflow


def scaled(x, y, a):
    """Updates y from x, and x after that."""
    for i in range(len(x)):
        y[i] += a * x[i]
    x[0] = y[-1]


def both_ways(f, *args):
    """The arguments after plain Python and after compiled code, and what both returned."""
    plain, compiled = ([a.copy() if isinstance(a, np.ndarray) else a for a in args] for _ in range(2))
    return (f(*plain), *plain), (dflow.jit(f)(*compiled), *compiled)


@pytest.mark.parametrize("n", [1, 3, 100])
def test_updates_reach_the_caller_in_place(n):
    plain, compiled = both_ways(scaled, np.arange(1.0, n + 1), np.ones(n), 0.5)
    for want, got in zip(plain, compiled):
        np.testing.assert_array_equal(got, want)
    assert compiled[0] is None


def test_updates_with_results():
    def f(x, i):
        old = x.copy()
        x[i] = -1.0
        return old, x.sum(), x

    plain, compiled = both_ways(f, np.arange(4.0), 2)
    for want, got in zip(plain[0], compiled[0]):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(compiled[1], plain[1])
    assert compiled[0][2] is not compiled[1] and not np.shares_memory(compiled[0][2], compiled[1])


def test_arguments_swapped():
    def f(x, y):
        x[:], y[:] = y.copy(), x.copy()

    _, compiled = both_ways(f, np.zeros(70), np.ones(70))
    assert compiled[1].all() and not compiled[2].any()


@pytest.mark.parametrize(
    "make",
    [
        lambda x: np.stack([x, x], 1)[:, 0],  # strides
        lambda x: x[::-1],
        lambda x: np.frombuffer(bytearray(b"0" + x.tobytes()), dtype=float, offset=1),  # not aligned
        lambda x: x.astype(">f8"),
    ],
    ids=["strided", "backwards", "unaligned", "big-endian"],
)
def test_updates_reach_arrays_of_any_layout(make):
    def f(x, a):
        x *= a

    f = dflow.jit(f)
    for _ in range(2):
        x = make(np.arange(5.0))
        want = x * 3.0
        f(x, 3.0)
        np.testing.assert_array_equal(x, want)
        f(np.ones(5), 1.0)


def test_what_cannot_be_updated():
    f = dflow.jit(scaled)
    x, y = np.ones(8), np.ones(8)
    f(x, y, 1.0)
    locked = np.ones(8)
    locked.flags.writeable = False
    both = np.ones(12)
    for args, message in [
        ((x, locked, 1.0), r"argument y is updated.*not a writable.*y\.copy\(\)"),
        ((y, y, 1.0), r"share memory"),
        ((both[:8], both[4:], 1.0), r"share memory"),
    ]:
        before = [np.array(a) for a in args]
        with pytest.raises(ValueError, match=message):
            f(*args)
        for a, b in zip(args, before):
            np.testing.assert_array_equal(a, b)
    f(both[:4].repeat(2), both[4:], 1.0)  # apart


def test_arrays_side_by_side_may_be_updated():
    memory = np.ones(16)
    dflow.jit(scaled)(memory[:8], memory[8:], 2.0)
    np.testing.assert_array_equal(memory, [3.0, *np.ones(7), *np.full(8, 3.0)])


def test_updates_in_trees():
    @dflow.jit
    def step(state, dt):
        state["x"] += dt * state["v"]
        return state["x"].sum()

    state = {"x": np.zeros(3), "v": np.ones(3)}
    for k in range(3):
        assert step(state, 0.5) == 1.5 * (k + 1)
    np.testing.assert_array_equal(state["x"], 1.5)
