"""Nested loops whose nonlinear part runs again in the reverse pass, instead of keeping tapes for all iterations."""

import numpy as np
import pytest

import dflow.ir.ops  # noqa: F401
import dflow.ir.passes.linearize as pass_
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function
from dflow.ir.passes import optimize
from dflow.ir.passes.jvp import jvp
from dflow.ir.passes.linearize import linearize
from dflow.ir.passes.vjp import value_and_grad
from dflow.ir.verifier import verify

# s = sum over i of (t_i)^2, where t_i follows 6 steps t = sin(t * x[j]) + w from i * w.
INDEPENDENT = """
func @independent(%x: f64[6], %w: f64) -> (f64) {
  %zero = constant {value = 0.0} : f64
  %four = constant {value = 4} : i64
  %six = constant {value = 6} : i64
  %s = for %four, %zero { (%i: i64, %s_1: f64)
    %f = convert %i {dtype = f64} : f64
    %start = mul %f, %w : f64
    %t = for %six, %start { (%j: i64, %t_1: f64)
      %e = extract %x, %j {index = ("at",)} : f64
      %p = mul %t_1, %e : f64
      %q = sin %p : f64
      %t_2 = add %q, %w : f64
      yield %t_2
    } : f64
    %square = mul %t, %t : f64
    %s_2 = add %s_1, %square : f64
    yield %s_2
  } : f64
  return %s
}
"""
# The inner loop goes on from where the one before it has ended, and stands in a branch.
DEPENDENT = INDEPENDENT.replace("%start = mul %f, %w : f64", "%start = add %f, %s_1 : f64")
BRANCH = """
func @branch(%x: f64[6], %w: f64) -> (f64) {
  %four = constant {value = 4} : i64
  %six = constant {value = 6} : i64
  %one = constant {value = 1} : i64
  %s = for %four, %w { (%i: i64, %s_1: f64)
    %first = le %i, %one : bool
    %r = if %first {
      %t = for %six, %s_1 { (%j: i64, %t_1: f64)
        %e = extract %x, %j {index = ("at",)} : f64
        %p = mul %t_1, %e : f64
        %q = sin %p : f64
        yield %q
      } : f64
      yield %t
    } else {
      %u = mul %s_1, %w : f64
      yield %u
    } : f64
    yield %r
  } : f64
  return %s
}
"""
ARGS = (np.linspace(0.5, 1.5, 6), np.float64(0.7))


def differences(f, h=1e-6):
    def at(k, step):
        x, w = ARGS[0].copy(), ARGS[1]
        if k < 6:
            x[k] += step
        return evaluate(f, (x, w + (step if k == 6 else 0.0)))[0]

    return [(at(k, h) - at(k, -h)) / (2 * h) for k in range(7)]


def tapes(f):
    """The largest tape, in elements, of the loops of a function."""
    return max(
        (int(np.prod(v.type.bound)) for op in walk(f.body) if op.name == "for" for v in op.results if v.type.shape),
        default=0,
    )


@pytest.mark.parametrize("text", [INDEPENDENT, DEPENDENT, BRANCH])
def test_gradients_are_those_of_kept_tapes(text, monkeypatch):
    f = parse_function(text)
    kept = evaluate(value_and_grad(f), ARGS)
    monkeypatch.setattr(pass_, "LONG", 1)
    g = value_and_grad(f)
    verify(g)
    for made in (g, optimize(g)):
        for a, b in zip(evaluate(made, ARGS), kept):
            np.testing.assert_allclose(a, b, rtol=1e-13)
    np.testing.assert_allclose(np.append(kept[1], kept[2]), differences(f), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("text", [INDEPENDENT, DEPENDENT, BRANCH])
@pytest.mark.parametrize("direction", [(np.ones(6), 0.0), (np.zeros(6), 1.0)])
def test_second_derivatives(text, direction, monkeypatch):
    f = parse_function(text)
    expected = evaluate(jvp(value_and_grad(f), [0, 1]), (*ARGS, *direction))
    monkeypatch.setattr(pass_, "LONG", 1)
    for made in (value_and_grad(f), optimize(value_and_grad(f))):
        for a, b in zip(evaluate(jvp(made, [0, 1]), (*ARGS, *direction)), expected):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_the_tape_has_room_for_one_iteration_around(monkeypatch):
    f = parse_function(INDEPENDENT)
    assert tapes(optimize(value_and_grad(f))) == 24
    monkeypatch.setattr(pass_, "LONG", 1)
    g = optimize(value_and_grad(f))
    assert tapes(g) == 6
    primal, _ = linearize(f, [0, 1])
    assert all(v.type.is_scalar or v.type.bound[0] <= 6 for v in optimize(primal).results)


def test_short_loops_keep_their_tapes():
    primal, _ = linearize(parse_function(INDEPENDENT), [0, 1])
    assert max(int(np.prod(v.type.bound)) for v in primal.results) == 24
