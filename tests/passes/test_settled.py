"""Reads that the reverse pass repeats in what a loop has left: none that is overwritten, and those that should be."""

import itertools
import math
import re

import numpy as np
import pytest

import dflow
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function
from dflow.ir.passes.jvp import jvp
from dflow.ir.passes.linearize import linearize
from dflow.ir.passes.settled import settled
from dflow.ir.passes.vjp import value_and_grad
from dflow.ir.verifier import verify

# Row i, then columns j of it: `reads` and `writes` say where, from i, j and i's mirror image r.
TABLE = """
func @table(%x: f64[7, 7]) -> (f64) {{
  %one = constant {{value = 1}} : i64
  %two = constant {{value = 2}} : i64
  %three = constant {{value = 3}} : i64
  %six = constant {{value = 6}} : i64
  %t = for %three, %x {{ (%i: i64, %t_1: f64[7, 7])
    %r = sub %three, %i : i64
    %n = {count} : i64
    %t_2 = for %n, %t_1 {{ (%j: i64, %u: f64[7, 7])
      %a = {read[0]} : i64
      %b = {read[1]} : i64
      %c = {write[0]} : i64
      %d = {write[1]} : i64
      %e = extract %u, %a, %b {{index = ("at", "at")}} : f64
      %f = extract %x, %i, %j {{index = ("at", "at")}} : f64
      %g = mul %e, %f : f64
      %h = sin %g : f64
      %w = update %u, %h, %c, %d {{index = ("at", "at")}} : f64[7, 7]
      yield %w
    }} : f64[7, 7]
    yield %t_2
  }} : f64[7, 7]
  %y = reduce %t {{kind = "sum", axes = (0, 1)}} : f64
  return %y
}}
"""
PLACES = {
    "add %i, %one": lambda i, j: i + 1,
    "add %i, %two": lambda i, j: i + 2,
    "add %r, %one": lambda i, j: 4 - i,
    "add %j, %one": lambda i, j: j + 1,
    "add %j, %two": lambda i, j: j + 2,
    "sub %six, %j": lambda i, j: 6 - j,
    "add %i, %j": lambda i, j: i + j,
}
COUNTS = {"add %one, %two": lambda i: 3, "add %i, %one": lambda i: i + 1}
PREVIOUS_ROW = {"read": ("add %i, %one", "add %j, %one"), "write": ("add %i, %two", "add %j, %one")}


def lasts(read, write, count):
    """Whether no later iteration writes what an earlier one has read, by trying them all."""
    times = [(i, j) for i in range(3) for j in range(count(i))]
    at = [tuple(PLACES[p](*t) for p in read) for t in times]
    to = [tuple(PLACES[p](*t) for p in write) for t in times]
    return all(at[k] not in to[k:] for k in range(len(times)))


def reads_of(f):
    return [op for op in walk(f.body) if op.name == "extract" and op.operands[0] is not f.args[0]]


def test_no_read_is_repeated_that_is_overwritten():
    found = expected = 0
    every = itertools.product(COUNTS, itertools.product(PLACES, repeat=4))
    for count, (r0, r1, w0, w1) in itertools.islice(every, 0, None, 11):
        f = parse_function(TABLE.format(count=count, read=(r0, r1), write=(w0, w1)))
        last = lasts((r0, r1), (w0, w1), COUNTS[count])
        (read,) = reads_of(f)
        repeated = read in settled(f.body, ())
        assert last or not repeated, (count, r0, r1, w0, w1)
        found += repeated
        expected += last
    assert found > expected / 5


@pytest.mark.parametrize(
    ("count", "read", "write"),
    [
        ("add %one, %two", *PREVIOUS_ROW.values()),
        ("add %i, %one", ("add %i, %one", "add %j, %one"), ("add %i, %one", "add %j, %two")),  # the column before
        ("add %one, %two", ("add %r, %one", "sub %six, %j"), ("add %i, %one", "add %j, %one")),  # overwritten
        ("add %i, %one", ("add %i, %one", "add %j, %one"), ("add %i, %two", "add %i, %one")),
    ],
)
def test_derivatives_with_repeated_reads(count, read, write):
    f = parse_function(TABLE.format(count=count, read=read, write=write))
    x = np.random.default_rng(3).uniform(0.5, 1.5, (7, 7))
    dot = np.random.default_rng(4).normal(size=(7, 7))
    primal, linear = linearize(f, [0])
    verify(primal)
    verify(linear)
    gradient = value_and_grad(f)
    slope = evaluate(jvp(f, [0]), [x, dot])[1]
    np.testing.assert_allclose(np.sum(evaluate(gradient, [x])[1] * dot), slope, rtol=1e-12)
    curve = evaluate(jvp(gradient, [0]), [x, dot])[-1]  # order two
    high, low = (evaluate(gradient, [x + s * 1e-6 * dot])[1] for s in (1, -1))
    np.testing.assert_allclose(curve, (high - low) / 2e-6, rtol=1e-6, atol=1e-7)


# Forward substitution: x[k] = (b[k] - a[k, :k] @ x[:k]) / a[k, k], with a slice of what is there by then.
TRIANGLE = """
func @solve(%a: f64[6, 6], %b: f64[6]) -> (f64) {
  %zero = constant {value = 0} : i64
  %six = constant {value = 6} : i64
  %x = for %six, %b { (%k: i64, %u: f64[6])
    %row = extract %a, %k, %zero {index = ("at", ("slice", %k<=5, 1))} : f64[%k<=5]
    %before = extract %u, %zero {index = (("slice", %k<=5, 1),)} : f64[%k<=5]
    %p = mul %row, %before : f64[%k<=5]
    %s = reduce %p {kind = "sum", axes = (0,)} : f64
    %d = extract %a, %k, %k {index = ("at", "at")} : f64
    %e = extract %b, %k {index = ("at",)} : f64
    %n = sub %e, %s : f64
    %q = div %n, %d : f64
    %v = update %u, %q, %k {index = ("at",)} : f64[6]
    yield %v
  } : f64[6]
  %y = reduce %x {kind = "max", axes = (0,)} : f64
  return %y
}
"""


def test_slices_of_what_is_there_are_not_saved():
    f = parse_function(TRIANGLE)
    primal, _ = linearize(f, [0, 1])
    loops = [op for op in walk(primal.body) if op.name == "for"]
    assert all(r.type.shape[0] <= 6 for loop in loops for r in loop.results if r.type.shape)
    r = np.random.default_rng(5)
    a, b = r.normal(size=(6, 6)) + 4 * np.eye(6), r.normal(size=6)
    dots = r.normal(size=(6, 6)), r.normal(size=6)
    _, a_bar, b_bar = evaluate(value_and_grad(f, [0, 1]), [a, b])
    forward = evaluate(jvp(f, [0, 1]), [a, b, *dots])[1]
    np.testing.assert_allclose(np.sum(a_bar * dots[0]) + np.sum(b_bar * dots[1]), forward, rtol=1e-12)


def test_few_reads_of_a_large_tensor_are_saved():
    f = parse_function(TABLE.replace("7, 7", "70, 70").format(count="constant {value = 3}", **PREVIOUS_ROW))
    primal, _ = linearize(f, [0])
    left = [r for r in primal.body.results[1:] if r.op is not None and r.op.name == "for"]
    assert left and all(r.type.static_shape == (9,) for r in left)


# -- functions as users write them -------------------------------------------------------------------------------------


def cholesky(a):
    n = a.shape[0]
    low = np.zeros_like(a)
    for j in range(n):
        s = a[j, j]
        for k in range(j):
            s -= low[j, k] ** 2
        low[j, j] = math.sqrt(s)
        for i in range(j + 1, n):
            s = a[i, j]
            for k in range(j):
                s -= low[i, k] * low[j, k]
            low[i, j] = s / low[j, j]
    return low


def orthogonal(a):
    n = a.shape[0]
    q = a.copy()
    for j in range(n):
        for i in range(j):
            r = 0.0
            for k in range(n):
                r += q[k, i] * q[k, j]
            for k in range(n):
                q[k, j] -= r * q[k, i]
        s = 0.0
        for k in range(n):
            s += q[k, j] ** 2
        for k in range(n):
            q[k, j] /= math.sqrt(s)
    return q


def paths(a):
    d = np.abs(a)
    n = len(d)
    for k in range(n):
        for i in range(n):
            for j in range(n):
                if d[i, k] * d[k, j] < d[i, j]:
                    d[i, j] = d[i, k] * d[k, j]
    return d


def relaxed(a):
    u = a.copy()
    for _ in range(3):
        for i in range(1, len(u) - 1):
            if u[i, 0] > 0:
                for j in range(1, len(u) - 1):
                    u[i, j] = np.sin(u[i - 1, j]) * u[i, j + 1] + u[i, j]
    return u


N = 14


@pytest.mark.parametrize(
    ("function", "most"), [(cholesky, N * N), (orthogonal, N**3), (paths, N**3), (relaxed, 3 * N * N)]
)
def test_tapes_are_as_long_as_the_work(function, most):
    a = np.random.default_rng(0).uniform(0.5, 1.5, (N, N)) + 4 * np.eye(N)
    dot = np.random.default_rng(1).normal(size=(N, N))
    weights = np.cos(np.arange(N * N)).reshape(N, N)

    def f(x):
        return np.sum(function(x) * weights)

    gradient = dflow.grad(f)
    _, slope = dflow.jvp(f, (a,), (dot,))
    np.testing.assert_allclose(np.sum(gradient(a) * dot), slope, rtol=1e-11)
    tapes = re.findall(r"= empty : \w+\[([\d, ]+)\]", gradient.lower(a).ir("lowered"))
    assert all(math.prod(map(int, shape.split(","))) <= most for shape in tapes)
