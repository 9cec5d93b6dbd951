"""Control flow as functions: against Python, derivatives in both modes, memory of checkpointed scans, misuse."""

import numpy as np
import pytest

import dflow
from dflow import lax
from dflow.errors import NeedsStatic, TraceError
from dflow.ir.core import walk

X = np.linspace(-1.0, 1.0, 23)


def step(carry, x):
    carry = 0.9 * carry + np.sin(x)
    return carry, carry**2


def test_cond_and_switch():
    def f(p, x):
        return lax.cond(p, lambda x: {"a": x * 2}, lambda x: {"a": x**2}, x)["a"]

    branches = [lambda x: x, lambda x: x * x, lambda x: np.sin(x), lambda x: 2.0]

    def g(i, x):
        return lax.switch(i, branches, x)

    for p in (True, False):
        assert dflow.jit(f)(p, 3.0) == f(p, 3.0)
        assert dflow.grad(f, 1)(p, 3.0) == (2.0 if p else 6.0)
    for i, want in zip((-1, 0, 1, 2, 3, 9), (1, 1, 6, np.cos(3.0), 0, 0)):
        assert dflow.jit(g)(i, 3.0) == pytest.approx(g(i, 3.0))
        assert dflow.grad(g, 1)(i, 3.0) == pytest.approx(want)


def test_only_the_branch_that_is_taken_runs():
    def f(x):
        return lax.cond(x > 0, np.log, lambda x: 0.0 * x, x)

    assert dflow.grad(f)(0.0) == 0.0
    assert dflow.vmap(dflow.grad(f))(np.array([0.0, 2.0])) == pytest.approx([0.0, 0.5])


def test_while_and_fori_loops():
    def f(x, limit):
        return lax.while_loop(lambda c: np.sum(c["x"]) < limit, lambda c: {"x": c["x"] * 1.5, "n": c["n"] + 1}, x)

    start = {"x": np.array([1.0, 2.0]), "n": 0}
    got, want = dflow.jit(f)(start, 100.0), f(start, 100.0)
    np.testing.assert_allclose(got["x"], want["x"])
    assert got["n"] == want["n"]
    slope = dflow.grad(lambda x: np.sum(f({"x": x, "n": 0}, 100.0)["x"]))(np.array([1.0, 2.0]))
    np.testing.assert_allclose(slope, [1.5 ** want["n"]] * 2)

    def g(x, n):
        return lax.fori_loop(1, n, lambda i, v: v + np.sin(v) / i, x)

    assert dflow.jit(g)(0.5, 20) == pytest.approx(g(0.5, 20))
    dflow.check_grads(lambda x: g(x, 20), (0.5,), order=2)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("checkpoint", [False, 5, 30, (9, 4)])
def test_scan(reverse, checkpoint):
    def f(x):
        return lax.scan(step, 0.5, x, reverse=reverse, checkpoint=checkpoint, unroll=2)

    def loss(x):
        last, all_of_them = f(x)
        return last + np.sum(np.cos(all_of_them) * np.arange(len(x)))

    for got, want in zip(dflow.jit(f)(X), f(X)):
        np.testing.assert_allclose(got, want)

    def plain(x):
        last, all_of_them = lax.scan(step, 0.5, x, reverse=reverse)
        return last + np.sum(np.cos(all_of_them) * np.arange(len(x)))

    np.testing.assert_allclose(dflow.grad(loss)(X), dflow.grad(plain)(X))
    if checkpoint in (False, 5):
        np.testing.assert_allclose(dflow.jvp(loss, (X,), (X,))[1], dflow.grad(plain)(X) @ X)
    if not checkpoint:
        dflow.check_grads(loss, (X,), order=2)


def test_second_derivatives_of_a_checkpointed_scan():
    def f(x):
        return lax.scan(lambda c, _: (np.sin(c) * x, None), x, length=6, checkpoint=3)[0]

    dflow.check_grads(f, (1.3,), order=2)


def test_scan_of_trees():
    def f(carry, x):
        total = carry["total"] + x["a"] @ x["b"]
        return {"total": total, "n": carry["n"] + 1}, (total, {"n": carry["n"], "even": x["k"] % 2 == 0})

    xs = {"a": np.arange(12.0).reshape(6, 2), "b": np.ones((6, 2)), "k": np.arange(6)}

    def whole(xs, start):
        return lax.scan(f, {"total": start, "n": 0}, xs)

    (carry, (totals, rest)), (carry2, (totals2, rest2)) = dflow.jit(whole)(xs, 1.0), whole(xs, 1.0)
    assert carry == carry2
    np.testing.assert_array_equal(totals, totals2)
    np.testing.assert_array_equal(rest["n"], rest2["n"])
    np.testing.assert_array_equal(rest["even"], rest2["even"])
    assert rest["even"].dtype == bool


def test_scan_by_length_and_of_nothing():
    def f(x, n):
        return lax.scan(lambda c, _: (c * x, c), 1.0, length=n)

    powers = dflow.jit(f, static_argnums=1)
    np.testing.assert_array_equal(powers(2.0, 6)[1], [1, 2, 4, 8, 16, 32])
    assert dflow.grad(lambda x: f(x, 6)[0])(2.0) == 6 * 32
    for scan in (lambda x: lax.scan(step, 0.5, x), dflow.jit(lambda x: lax.scan(step, 0.5, x, checkpoint=True))):
        carry, ys = scan(np.zeros(0))
        assert carry == 0.5
        assert ys.shape == (0,)


def test_the_carry_takes_its_final_type():
    """An integer start must not cut off what is added to it, nor what is stored."""

    def f(x):
        return lax.scan(lambda c, v: (c + v, c + v), 0, x)

    x = np.linspace(0.1, 2.0, 9)
    last, sums = dflow.jit(f)(x)
    assert last == pytest.approx(np.sum(x))
    np.testing.assert_allclose(sums, np.cumsum(x))
    assert dflow.jit(f)(x.astype(np.float32))[1].dtype == np.float32


def test_map():
    def f(x):
        return lax.map(lambda v: v * 2 if v > 0 else -v, x)

    np.testing.assert_array_equal(f(X), np.where(X > 0, 2 * X, -X))
    np.testing.assert_array_equal(dflow.jit(f)(X), f(X))
    np.testing.assert_array_equal(dflow.grad(lambda x: np.sum(f(x)))(X + 0.01), np.where(X + 0.01 > 0, 2.0, -1.0))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_associative_scan(axis, reverse):
    a = np.random.default_rng(0).normal(size=(3, 5, 2))

    def f(a):
        return lax.associative_scan(np.add, a, reverse=reverse, axis=axis)

    flip = (lambda x: np.flip(x, axis)) if reverse else (lambda x: x)
    want = flip(np.cumsum(flip(a), axis))
    np.testing.assert_allclose(f(a), want)
    np.testing.assert_allclose(dflow.jit(f)(a), want)
    dflow.check_grads(lambda a: np.sum(np.sin(f(a))), (a,))


def test_associative_scan_of_pairs():
    """A linear recurrence: y[k] = a[k] * y[k-1] + b[k]."""

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    def f(a, b):
        return lax.associative_scan(combine, (a, b))[1]

    a, b = np.linspace(0.5, 1.0, 8), np.arange(8.0)
    want, y = [], 0.0
    for u, v in zip(a, b):
        y = u * y + v
        want.append(y)
    np.testing.assert_allclose(dflow.jit(f)(a, b), want)
    dflow.check_grads(lambda a, b: np.sum(f(a, b) ** 2), (a, b), order=2)


def test_nested_and_mapped():
    def f(x):
        def row(carry, r):
            total, _ = lax.scan(lambda c, v: (c + np.sin(v) * c, None), carry, r)
            return lax.cond(total > 2, lambda t: t / 2, lambda t: t, total), total

        return lax.scan(row, 1.0, x)[0]

    a = np.random.default_rng(1).normal(size=(6, 7))
    assert dflow.jit(f)(a) == pytest.approx(f(a))
    dflow.check_grads(f, (a,))
    batch = np.stack([a, -a, 2 * a])
    np.testing.assert_allclose(dflow.vmap(f)(batch), [f(b) for b in batch])
    np.testing.assert_allclose(dflow.vmap(dflow.grad(f))(batch), [dflow.grad(f)(b) for b in batch])


def kept(checkpoint, n=400):
    """The numbers that the gradient keeps of a scan over ``n`` steps: what its tapes hold."""

    def loss(x):
        return lax.scan(lambda c, _: (np.sin(c) * 1.1 + np.cos(c), None), x, length=n, checkpoint=checkpoint)[0]

    program = dflow.grad(loss).lower(0.5).stages.optimized
    return sum(int(np.prod(op.result.type.bound)) for op in walk(program.body) if op.name == "empty")


def test_checkpointed_scans_keep_less():
    plain, root, levels = kept(False), kept(True), kept((49, 7))
    assert plain >= 2 * 400
    assert root <= 4 * 20 + 10
    assert levels < root


def test_misuse():
    def refused(call, words):
        with pytest.raises(TraceError, match=words):
            call()

    refused(lambda: lax.scan(step, 0.0), "a length")
    refused(lambda: lax.scan(step, 0.0, X, length=3), "arrays of one length")
    refused(lambda: lax.scan(step, 0.0, (X, X[:2])), "arrays of one length")
    refused(lambda: lax.scan(step, 0.0, X, checkpoint=(0,)), "lengths of segments")
    refused(lambda: dflow.jit(lambda x: lax.scan(lambda c, v: c, 0.0, x))(X), "must return a pair")
    refused(lambda: dflow.jit(lambda x: lax.scan(lambda c, v: (x, v), 0.0, x))(X), "structure and shapes")


@pytest.mark.parametrize("option", ["length", "checkpoint", "snapshots"])
def test_options_are_known_while_tracing(option):
    options = {"length": 5} if option != "length" else {}
    with pytest.raises(NeedsStatic, match=f"scan needs a {option} that is known"):
        dflow.jit(lambda x, n: lax.scan(lambda c, _: (c, None), x, **options, **{option: n}))(1.0, np.array(3))


def test_scans_in_branches():
    def f(x):
        return lax.cond(x[0] > 0, lambda x: lax.associative_scan(np.multiply, 1 + x), np.cos, x)

    for x in (X, -X):
        np.testing.assert_allclose(dflow.jit(f)(x), f(x))
