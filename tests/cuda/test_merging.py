"""Fewer launches: kernels over one domain are one, and small ones that do not depend on each other start together."""

import numpy as np
import pytest
from on_device import compare, numbers

import dflow
from dflow.backends.cuda.kernels import group as group_kernel
from dflow.backends.cuda.kernels import line as line_kernel
from dflow.backends.cuda.planning import work


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels for small arrays too."""
    monkeypatch.setattr(work, "WIDE", 4)


def adam(p, m, v, g):
    m = 0.9 * m + 0.1 * g
    v = 0.99 * v + 0.01 * g * g
    return p - 0.1 * m / (np.sqrt(v) + 1e-8), m, v


def test_steps_that_follow_each_other_at_one_element(gpu):
    args = [np.abs(numbers(300, seed=k)) for k in range(4)]
    assert compare(adam, *args) == ["kernel"]


def test_what_nobody_reads_any_more_is_not_written(gpu):
    def f(x, y):
        a = np.sin(x) + y
        return np.exp(a), a * a - y

    assert compare(f, numbers(50), numbers(50, seed=1)) == ["kernel"]


def test_many_small_operations_start_together(gpu):
    def step(params, means, squares, grads):
        return [adam(*x) for x in zip(params, means, squares, grads)]

    trees = [[np.abs(numbers(*shape, seed=k)) for shape in ((300,), (20, 30), (7,))] for k in range(4)]
    assert compare(step, *trees) == ["group"]


def test_what_depends_on_other_elements_comes_later(gpu):
    def f(x):
        y = np.sin(x)
        z = y[::-1] + x
        return y, z, np.cumsum(x[:5])[-1] + z

    assert compare(f, numbers(50)).count("kernel") == 3
    assert compare(lambda x, i: (np.exp(x), np.exp(x)[i] + x), numbers(50), np.arange(50)[::-1].copy())[-1] == "kernel"


def test_updates_in_place_keep_their_order(gpu):
    def f(x, y):
        z = x[:20] + y[:20]
        x[5:] = y[:45]
        w = x[:10] * 2
        y[:10] += 1
        return z, w

    mine, plain = [numbers(50), numbers(50, seed=1)], [numbers(50), numbers(50, seed=1)]
    got, wanted = dflow.jit(f, device="cuda")(*mine), f(*plain)
    for g, w in zip([*got, *mine], [*wanted, *plain]):
        np.testing.assert_allclose(g, w)


def test_reductions_over_one_domain(gpu):
    x = numbers(300)
    assert compare(lambda x, y: (np.sum(x), np.sum(y), np.dot(x, y)), x, x + 1) == ["fold"]


def test_what_may_lie_outside_waits_for_its_check(gpu):
    def f(x, i):
        y = x[:3] * 2
        return y, x[i] + x[:3]

    assert compare(f, numbers(9), np.array([1, 7, 2]))[0] != "group"
    with pytest.raises(IndexError, match="index 9 is out of bounds"):
        dflow.jit(f, device="cuda")(numbers(9), np.array([1, 9, 2]))


def test_groups_are_small(gpu, monkeypatch):
    monkeypatch.setattr(group_kernel, "MOST_PARTS", 2)
    assert compare(lambda *x: [a * 2 for a in x], *(numbers(10 + k) for k in range(5))) == ["group", "group", "kernel"]
    monkeypatch.setattr(group_kernel, "LARGE", 12)
    assert compare(lambda *x: [a * 2 for a in x], *(numbers(10 + k) for k in range(3))) == ["group", "kernel"]


# --- what is left to do after a reduction


def test_numbers_made_of_sums_need_no_kernel(gpu):
    def f(x, y, a):
        s = np.sum(x)
        return s / len(x), s * np.max(y[:300]) + a, s, np.float32(s)

    assert compare(f, numbers(400), numbers(350), 2.0) == ["fold", "fold"]


def test_numbers_that_are_known_later(gpu):
    """A result that a later kernel has a part in is written behind it."""

    def f(x):
        y = np.cumsum(x)
        return np.sum(x) * y[-1], np.sum(x)

    compare(f, numbers(300))


def test_checks_behind_reductions(gpu):
    def f(x, i):
        y = x[i]
        assert np.sum(y) < 900, "too large"
        return np.sum(y * y)

    x, i = np.abs(numbers(310)), np.arange(300)
    assert {"steps", "check"}.isdisjoint(compare(f, x, i))
    run = dflow.jit(f, device="cuda")
    for bad in (-311, 310):
        i[7] = bad
        with pytest.raises(IndexError, match=f"index {bad} is out of bounds"):
            run(x, i)
    i[7] = -310
    with pytest.raises(AssertionError, match="too large"):
        run(x + 50, i)
    np.testing.assert_allclose(run(x, i), f(x, i))


def test_what_is_sooner_computed_than_read_again(monkeypatch):
    """The exponentials of a large softmax of narrow numbers are in nobody's memory."""

    def softmax(x):
        e = np.exp(x - np.max(x, axis=1)[:, None])
        return e / np.sum(e, axis=1)[:, None]

    monkeypatch.setattr(line_kernel, "FEWEST_LINES", 1 << 20)  # else all of it is one kernel

    def launches(*shape, dtype):
        return len(dflow.jit(softmax, device="cuda").lower(np.ones(shape, dtype)).launches().launches)

    assert launches(512, 512, dtype=np.float32) == 3
    assert launches(512, 512, dtype=np.float64) == launches(256, 512, dtype=np.float32) == 4


def test_random_numbers_are_one_kernel(gpu, monkeypatch):
    """What several operations of one kernel want is computed in it, and does not exist beside."""
    monkeypatch.setattr(work, "WIDE", 4)
    assert compare(lambda seed: dflow.random.uniform(dflow.random.key(seed), (300,)), 3) == ["kernel"]
