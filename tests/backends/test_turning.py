"""Loops whose buffers change places: every number of rounds, several buffers, and all that may stand beside."""

import numpy as np
import pytest
from programs_aliasing import run_plan

import dflow
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.lowering.check_plan import PlanError, check_plan
from dflow.backends.lowering.fusion import fuse
from dflow.ir.builder import Builder
from dflow.ir.core import walk
from dflow.ir.types import F64, I64, TensorType

N = 80  # numbers: more than are kept on the stack
X = np.cos(np.arange(N) * 0.7)


def relaxed(u, n):
    for _ in range(n):
        v = u.copy()
        v[1:-1] = u[1:-1] + 0.3 * np.sin(u[2:] - 2 * u[1:-1] + u[:-2])
        u = v
    return u


def waves(u, n):
    before, now = u.copy(), 0.9 * u
    for _ in range(n):
        new = np.zeros(N)
        new[1:-1] = 2 * now[1:-1] - before[1:-1] + 0.3 * now[1:-1] * (now[2:] - 2 * now[1:-1] + now[:-2])
        before = now
        now = new
    return now + 2.0 * before


def rotated(u, n):
    a, b, c = u.copy(), 2.0 * u, np.sin(u)
    for _ in range(n):
        a, b, c = b, c, 0.5 * a + 0.1 * b[::-1] * c
    return a + 10.0 * b + 100.0 * c


def exchanged(u, n):
    a, b = u.copy(), np.sin(u)
    for k in range(n):
        a, b = b, a
        a[k] += 1.0
    return a + 10.0 * b * b


def two_fields(u, n):
    v = np.cos(u)
    for _ in range(n):
        a, b = u.copy(), v.copy()
        for i in range(1, N - 1):
            lu = u[i + 1] - u[i - 1]
            a[i] = u[i] + 0.1 * lu * v[i]
            b[i] = v[i] + 0.1 * (v[i + 1] - v[i - 1]) - 0.1 * a[i]
        u, v = a, b
    return u * v


def inner_loops(u, n):
    w = u.copy()
    for k in range(n):
        for _ in range(k % 3):
            w = 0.5 * w[::-1] + 0.25 * np.roll(w, 1)
        u = u + 0.1 * w[::-1] * u[::-1]
        if k == 2:
            u = u[::-1] * 0.9
    return u + w


def until(u, n):
    k = 0
    while np.sum(u * u) > 1e-3 and k < n:
        u = 0.7 * u[::-1] + 0.1 * np.roll(u, 1)
        k += 1
    return u


def left_early(u, n):
    kept = u
    for k in range(n):
        new = 0.7 * u[::-1] + 0.1 * np.roll(u, 1)
        if new[3] > 5.0:
            break
        kept = u
        u = new * new[5]
        if k == 3:
            continue
        u = u - kept[::-1] * 0.5
    return u + kept


def looked_at_later(u, n):
    old = u
    seen = np.zeros((9, N))
    for k in range(n):
        v = 0.5 * u[::-1] + 0.1 * np.roll(u, 2)
        seen[k] = v + old
        old = u
        u = v
        u[k] = seen[k, 0] * old[k]
    return u + old + np.sum(seen * seen, axis=0)


def in_parts(u, n):
    """A part of the new state is computed late, from the old one."""
    w = np.zeros(N)
    for _ in range(n):
        late = u[1:-1] * u[2:]
        u = np.sin(u[::-1])
        w[1:-1] += late
    return u + w


PROGRAMS = [
    relaxed, waves, rotated, exchanged, two_fields, inner_loops, until, left_early, looked_at_later, in_parts
]  # fmt: skip


@pytest.mark.parametrize("f", PROGRAMS)
def test_values_and_derivatives(f):
    value = dflow.jit(f)
    for n in range(6):
        np.testing.assert_allclose(value(X, n), f(X.copy(), n), rtol=1e-12, atol=1e-14)

    def loss(x, n):
        return np.sum(np.cos(np.arange(N)) * f(x, n) ** 2)

    gradient, dot = dflow.grad(loss), np.sin(np.arange(N) * 1.3)
    for n in (1, 4, 5):
        along = [loss(X + eps * dot, n) for eps in (1e-6, -1e-6)]
        assert np.isclose(gradient(X, n) @ dot, (along[0] - along[1]) / 2e-6, rtol=1e-5)


def test_forward_mode_and_second_derivatives():
    def loss(x, n):
        return np.sum(waves(x, n) ** 2)

    dot = np.sin(np.arange(N) * 1.3)
    gradient = dflow.grad(loss)
    _, slope = dflow.jvp(lambda x: loss(x, 5), (X,), (dot,))
    assert np.isclose(gradient(X, 5) @ dot, slope, rtol=1e-10)
    want = (gradient(X + 1e-6 * dot, 5) - gradient(X - 1e-6 * dot, 5)) / 2e-6
    (got,) = dflow.hvp(lambda x: loss(x, 5), (X,), (dot,))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)


def smoothing(rounds=None):
    """A loop around a kernel that reads elements beside that which it writes."""
    x = TensorType(F64, (N,))
    b = Builder([x, TensorType(I64)])
    body = Builder([TensorType(I64), x])
    yields = [body.sin(body.extract(body.args[1], body.index(N - 1), index=(("slice", N, -1),)))]
    count = b.index(rounds) if rounds is not None else b.args[1]
    (y,) = b.append("for", [count, b.args[0]], regions=[body.finish(yields)])
    return fuse(b.function("f", [y]))


def test_no_copy_is_left_in_the_plan_but_moves():
    plan = bufferize(smoothing())
    (loop,) = plan.moves
    (copy,) = plan.moves[loop]
    assert [op for op in walk(loop.regions[0]) if op.name == "copy"] == [copy]
    check_plan(plan)
    for n in range(4):
        want = X
        for _ in range(n):
            want = np.sin(want[::-1])
        np.testing.assert_allclose(run_plan(plan, [X, n])[0], want)


def test_checker_sees_a_buffer_that_is_read_after_it_has_moved():
    plan = bufferize(smoothing())
    ((loop, (copy,)),) = plan.moves.items()
    body = loop.regions[0]
    late = Builder()
    late.sin(copy.operands[0])
    plan.buffers[late.ops[0].result] = plan.buffers[body.args[1]]
    body.ops.append(late.ops[0])
    body.results = (late.ops[0].result,)
    with pytest.raises(PlanError):
        check_plan(plan)
