"""Loops over neighbours, whose rounds hand elements on as numbers."""

import random

import numpy as np
import pytest

import dflow
from dflow.backends.lowering.handed_on import handed_on
from dflow.ir.builder import Builder
from dflow.ir.core import Function
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function
from dflow.ir.types import F64, I64, TensorType, scalar
from dflow.ir.verifier import verify

# The reverse of v[i] = p * v[i] + q * v[i + 1].
SWEEP = """
func @sweep(%x: f64[6], %p: f64, %q: f64, %n: i64) -> (f64[6]) {
  %zero = constant {value = 0.0} : f64
  %one = constant {value = 1} : i64
  %y = for %n, %x { (%k: i64, %u: f64[6])
    %i = add %k, %one : i64
    %a = extract %u, %i {index = ("at",)} : f64
    %u1 = update %u, %zero, %i {index = ("at",)} : f64[6]
    %b = mul %a, %q : f64
    %c = mul %a, %p : f64
    %u2 = update_add %u1, %b, %k {index = ("at",)} : f64[6]
    %u3 = update_add %u2, %c, %i {index = ("at",)} : f64[6]
    yield %u3
  } : f64[6]
  return %y
}
"""
# Each number depends on the one before it: there is nothing to be won.
CHAIN = SWEEP.replace("extract %u, %i", "extract %u, %k")


def carried(f):
    (loop,) = (op for op in f.body.ops if op.name == "for")
    return len(loop.results)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize(("text", "numbers"), [(SWEEP, 1), (CHAIN, 0)])
def test_sweeps(text, numbers, n):
    f = parse_function(text)
    g = handed_on(f)
    verify(g)
    assert carried(g) == 1 + numbers
    args = np.arange(1.0, 7.0), 0.3, 0.6, n
    np.testing.assert_array_equal(evaluate(g, args)[0], evaluate(f, args)[0])


def random_loop(r):
    """A loop that reads, writes and adds at neighbouring places of a matrix or a vector, up or down."""
    rank, sign = r.choice([1, 2]), r.choice([1, -1])
    shape = (9,) if rank == 1 else (3, 9)
    b = Builder([TensorType(F64, shape), scalar(I64), scalar(F64)])
    x, n, p = b.args
    row = [b.index(r.randrange(3))] if rank == 2 else []
    body = Builder([scalar(I64), x.type, scalar(F64)])
    k, u, s = body.args
    place = body.add(k, 2) if sign == 1 else body.sub(6, k)
    known = [p, p]
    for _ in range(r.randint(2, 7)):
        at = [*row, body.add(place, r.randint(-1, 1))]
        index = ("at",) * rank
        kind = r.choice(["extract", "extract", "update", "update_add"])
        if kind == "extract":
            known.append(body.extract(u, *at, index=index))
        else:
            value = body.mul(r.choice(known), r.choice(known))
            known.append(value)
            u = getattr(body, kind)(u, value, *at, index=index)
    region = body.finish([u, body.add(s, r.choice(known)) if r.random() < 0.5 else s])
    results = b.append("for", [n, x, p], regions=[region])
    return Function("f", b.finish(results))


def test_random_loops():
    r, x = random.Random(1), np.random.default_rng(1)
    changed = 0
    for _ in range(150):
        f = random_loop(r)
        g = handed_on(f)
        changed += carried(g) > 2
        for n in (0, 1, 2, 4):
            args = x.normal(size=f.args[0].type.static_shape), np.int64(n), np.float64(0.7)
            for a, b in zip(evaluate(g, args), evaluate(f, args)):
                np.testing.assert_allclose(a, b, rtol=1e-14)
        verify(g)
    assert changed > 20


def test_the_gradient_of_a_sweep_in_place():
    def f(u, c, steps):
        u = u.copy()
        for _ in range(steps):
            for i in range(u.shape[0] - 1, 0, -1):
                u[i] = u[i] - c * (u[i] - u[i - 1])
            u[0] = u[-1]
        return np.sum(u * u)

    u = np.linspace(0.0, 1.0, 37) ** 2
    for steps in (0, 1, 4):
        value, (u_bar, c_bar) = dflow.value_and_grad(f, argnums=(0, 1))(u, 0.3, steps)
        du = np.cos(np.arange(37.0))
        expected, tangent = dflow.jvp(lambda u, c: f(u, c, steps), (u, 0.3), (du, 0.5))  # noqa: B023
        np.testing.assert_allclose([value, u_bar @ du + 0.5 * c_bar], [expected, tangent], rtol=1e-12)
