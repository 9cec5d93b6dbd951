"""Loops of which each round is followed by its own transpose."""

import numpy as np
import pytest

import dflow.ir.ops  # noqa: F401
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function
from dflow.ir.passes import optimize
from dflow.ir.passes.jvp import jvp
from dflow.ir.passes.together import _Together
from dflow.ir.passes.vjp import value_and_grad
from dflow.ir.verifier import verify

# total = w + sum over i of (t_i)^2 + the t on the way, where t_i follows n steps t = sin(t * w) from x[i].
SUM = """
func @total(%x: f64[4], %w: f64, %n: i64) -> (f64) {
  %four = constant {value = 4} : i64
  %sum = for %four, %w { (%i: i64, %a: f64)
    %start = extract %x, %i {index = ("at",)} : f64
    %t, %b = for %n, %start, %a { (%j: i64, %u: f64, %c: f64)
      %p = mul %u, %w : f64
      %q = sin %p : f64
      %d = add %c, %q : f64
      yield %q, %d
    } : f64, f64
    %square = mul %t, %t : f64
    %e = add %b, %square : f64
    yield %e
  } : f64
  return %sum
}
"""
HEAD, _ = SUM.rsplit("return", 1)
# What comes behind: the cotangent of the sum is that of a number, or depends on the sum; and w is used again, with a
# cotangent that depends on the sum.
SCALED = HEAD + "%m = div %sum, %w : f64\n  return %m\n}\n"
ROOT = HEAD + "%y = exp %sum : f64\n  return %y\n}\n"
BEHIND = HEAD + "%v = floor %sum : f64\n  %m = mul %v, %w : f64\n  %y = add %m, %sum : f64\n  return %y\n}\n"
# Where rounds begin with what the one before has left, they wait for each other in reverse, too.
CHAIN = SUM.replace("%e = add %b, %square", "%e = mul %b, %square")
# A number that changes from round to round, without a derivative.
COUNTED = """
func @total(%x: f64[4], %w: f64, %n: i64) -> (f64) {
  %four = constant {value = 4} : i64
  %sum, %last = for %four, %w, %n { (%i: i64, %a: f64, %g: i64)
    %start = extract %x, %i {index = ("at",)} : f64
    %t = for %n, %start { (%j: i64, %u: f64)
      %p = mul %u, %w : f64
      %q = sin %p : f64
      yield %q
    } : f64
    %f = convert %g {dtype = f64} : f64
    %square = mul %t, %t : f64
    %part = mul %square, %f : f64
    %e = add %a, %part : f64
    %h = mul %g, %four : i64
    yield %e, %h
  } : f64, i64
  return %sum
}
"""
TOGETHER = (SUM, SCALED, BEHIND, COUNTED)
APART = (ROOT, CHAIN)
X, W = np.array([0.3, -0.6, 1.2, 0.9]), np.float64(0.8)


def loops(f):
    return [op for op in f.body.ops if op.name == "for"]


@pytest.mark.parametrize("text", TOGETHER)
def test_one_loop_does_both(text):
    g = optimize(value_and_grad(parse_function(text), [0, 1]))
    (loop,) = loops(g)
    assert sum(op.name == "for" for op in walk(loop.regions[0])) == 2


@pytest.mark.parametrize("text", APART)
def test_a_cotangent_that_is_not_known_before(text):
    g = optimize(value_and_grad(parse_function(text), [0, 1]))
    assert len(loops(g)) == 2


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("text", [*TOGETHER, *APART])
def test_gradients_are_those_of_two_loops(text, n, monkeypatch):
    f = parse_function(text)
    args = X, W, np.int64(n)
    g = value_and_grad(f, [0, 1])
    verify(g)
    forward = jvp(f, [0, 1])
    directions = [(row, 0.0) for row in np.eye(4)] + [(np.zeros(4), 1.0)]
    tangents = [evaluate(forward, (*args, *d))[len(f.results)] for d in directions]
    with monkeypatch.context() as m:
        m.setattr(_Together, "join", lambda *_: False)
        two = value_and_grad(f, [0, 1])
    for made in (g, two, optimize(g)):
        *values, x_bar, w_bar = evaluate(made, args)
        np.testing.assert_allclose(values, evaluate(f, args), rtol=1e-13)
        np.testing.assert_allclose(np.append(x_bar, w_bar), tangents, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("text", [SUM, SCALED, COUNTED])
def test_second_derivatives(text):
    f = parse_function(text)
    args, direction = (X, W, np.int64(3)), (np.ones(4), 0.5)
    both = jvp(value_and_grad(f, [0, 1]), [0, 1])
    bars = [np.append(*evaluate(both, (*args, *direction))[-2:])]
    h = 1e-6
    ends = []
    for step in (h, -h):
        moved = (X + step * direction[0], W + step * direction[1], np.int64(3))
        ends.append(np.append(*evaluate(value_and_grad(f, [0, 1]), moved)[-2:]))
    np.testing.assert_allclose(bars[0], (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-8)
