"""Loops over elements that become operations on arrays, and kernels that join those that they read."""

from __future__ import annotations

import numpy as np
import pytest

import dflow
from dflow.backends.array_loops import array_loops
from dflow.backends.bufferize import bufferize
from dflow.backends.check_plan import check_plan
from dflow.backends.fusion import fuse
from dflow.backends.generation import compile_plan
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function
from dflow.ir.verifier import verify

N = 80


def shifted(x, y):
    z = np.empty_like(y)
    z[0] = x[0]
    for i in range(1, len(y)):
        z[i] = x[i] * y[i - 1]
    return z


def step(x, y):
    k = shifted(x, y)
    return y + 0.1 * (k + 2 * shifted(x, y + 0.5 * k))


def both_ends(x, y):
    z, w = np.empty(N), np.empty(N)
    z[0], z[N - 1], w[N - 1] = x[1], y[2], 3.0
    for i in range(1, N - 1):
        z[i] = np.sin(x[i]) * i + max(y[i + 1], 0.0)
    for i in range(N - 1):
        w[i] = np.sin(x[i]) + z[i + 1]
    return z * w + x


def rows(x, y):
    table = np.outer(x, y)
    out = 2 * table[3]
    for i in range(N - 2):
        out[i + 1] += table[5, i] * table[i, 7] * x[i + 2]
    return out * y


def added(x, y):
    """Adds to one array in turn, as derivatives do."""
    u, total = x * y, 3 * x
    for i in range(1, N):
        total[i] += u[i - 1]
    v = u * u
    for i in range(1, N):
        total[i] += v[i - 1] * u[i]
    return total


def of_integers(x, y):
    a = np.arange(N) * 3
    z = np.empty(N, dtype=np.int64)
    for i in range(N):
        z[i] = a[i] * i - int(x[i] * 10)
    return z // 2


def loops(f):
    return sum(op.name in ("for", "while") for op in walk(f.body))


def sample():
    rng = np.random.default_rng(5)
    return rng.normal(size=N), rng.normal(size=N)


def optimized(f, *args):
    return parse_function(dflow.jit(f).lower(*args).ir("optimized"))


def assert_agrees(program, *args):
    """Fused, in planned memory and compiled, it gives what the evaluator says."""
    g = fuse(program)
    verify(g, after="fuse")
    plan = bufferize(g)
    check_plan(plan)
    results = compile_plan(plan)(*args)
    for made, wanted in zip(results, evaluate(program, args), strict=True):
        np.testing.assert_allclose(made, wanted, rtol=1e-13)
    return g, results[0]


@pytest.mark.parametrize("f", [step, both_ends, rows, added, of_integers])
def test_values(f):
    """Nothing is left of the loops, and all stages agree with Python."""
    args = sample()
    program = optimized(f, *args)
    arrays = array_loops(program)
    verify(arrays, after="array_loops")
    assert loops(program) and not loops(arrays)
    _, result = assert_agrees(program, *args)
    np.testing.assert_allclose(result, f(*args), rtol=1e-13)


@pytest.mark.parametrize("f", [step, both_ends, rows, added])
def test_derivatives(f):
    dflow.check_grads(f, sample())


IN_THE_LOOP = """\
func @f(%x: f64[80], %t: f64[6, 80]) -> (f64[80]) {{
  %e = empty : f64[80]
  %n = constant {{value = 80}} : i64
  %z = for %n, %e {{ (%k: i64, %u: f64[80])
    {made}
    %a = extract {read}, %k {{index = {index}}} : f64
    %w = update %u, %a, %k {{index = ("at",)}} : f64[80]
    yield %w
  }} : f64[80]
  %r = mul %z, %x : f64[80]
  return %r
}}"""


@pytest.mark.parametrize(
    ("made", "read", "index", "left"),
    [
        ("%c = constant {value = 5} : i64", "%t, %c", '("at", "at")', 0),
        ("%y = mul %x, %x : f64[80]", "%y", '("at",)', 1),
    ],
)
def test_what_is_made_in_the_loop(made, read, index, left):
    """A constant position may stand there; a loop that makes whole arrays stays."""
    program = parse_function(IN_THE_LOOP.format(made=made, read=read, index=index))
    arrays = array_loops(program)
    verify(arrays, after="array_loops")
    assert loops(arrays) == left
    args = np.arange(80.0), np.arange(480.0).reshape(6, 80)
    np.testing.assert_array_equal(evaluate(arrays, args), evaluate(program, args))


def recurrence(x, y):
    z = 2 * x
    for i in range(1, N):
        z[i] = z[i - 1] * y[i]
    return z + y


def written_in_part(x, y):
    z = 2 * x
    for i in range(N // 2 + 30):
        z[i] = x[i] * y[i]
    return z + y


def with_steps(x, y):
    z, w = np.empty(N), 2 * y
    z[0] = z[N - 1] = 1.0
    for i in range(N - 2):
        z[i + 1] = w[N - 1 - i]
    return z + y


def few_rounds(x, y):
    z, w = np.empty(20), 2 * y
    for i in range(20):
        z[i] = w[i]
    return z + y[:20]


def alone(x, y):
    z = np.empty(N)
    for i in range(N):
        z[i] = x[i] * y[i]
    return z


@pytest.mark.parametrize("f", [recurrence, written_in_part, with_steps, few_rounds, alone])
def test_loops_that_stay(f):
    args = sample()
    program = optimized(f, *args)
    assert loops(array_loops(program)) == loops(program) == 1
    _, result = assert_agrees(program, *args)
    np.testing.assert_allclose(result, f(*args), rtol=1e-13)


def test_sums_beside_stay():
    """A loop that carries a number beside the array is one pass as it stands."""

    def f(x, y):
        z, total, w = np.empty(N), 0.0, 2 * x
        for i in range(N):
            z[i] = w[i] * y[i]
            total += z[i]
        return z * total

    program = optimized(f, *sample())
    assert loops(array_loops(program)) == 1
    assert_agrees(program, *sample())


def test_constants_inside():
    """A column that is named inside the loop is the same one outside."""
    program = parse_function("""
    func @f(%m: f64[70, 3]) -> (f64[70]) {
      %n = constant {value = 70} : i64
      %y = empty : f64[70]
      %z = for %n, %y { (%k: i64, %u: f64[70])
        %column = constant {value = 1} : i64
        %v = extract %m, %k, %column {index = ("at", "at")} : f64
        %w = update %u, %v, %k {index = ("at",)} : f64[70]
        yield %w
      } : f64[70]
      %r = sin %z : f64[70]
      return %r
    }""")
    arrays = array_loops(program)
    verify(arrays, after="array_loops")
    assert not loops(arrays)
    m = np.arange(210.0).reshape(70, 3)
    _, result = assert_agrees(program, m)
    np.testing.assert_allclose(result, np.sin(m[:, 1]), rtol=1e-13)


def kernels(f):
    return [op for op in walk(f.body) if op.name == "kernel"]


def test_a_kernel_joins_the_one_that_it_reads():
    """What is wanted in other places too is stored, and what is made of each element stands beside it."""

    def f(x, y):
        u = np.sin(x) * y
        v = u[1:] * y[:-1]
        return v, np.cos(u) + y

    program = optimized(f, *sample())
    g, _ = assert_agrees(program, *sample())
    assert [len(op.results) for op in kernels(g)] == [2, 1]


def test_what_is_carried_stays_apart():
    """The new state can be in the memory of the old one, unless the kernel that reads it elsewhere makes both."""

    def f(x, y):
        for _ in range(5):
            flow = np.zeros(N)
            flow[1:] = np.exp(-x[:-1]) - x[1:]
            y = y + flow[::-1]
            x = x + 0.1 * flow
        return x + y

    program = optimized(f, *sample())
    g, _ = assert_agrees(program, *sample())
    (loop,) = (op for op in bufferize(g).function.body.ops if op.name == "for")
    assert not any(op.name == "copy" for op in walk(loop.regions[0]))


def test_an_element_in_two_places_of_a_kernel_is_computed_once():
    """A tensor that costs more than to read it, and is wanted at two indices of one kernel through other operations."""

    def f(x, y):
        u = np.exp(x)
        return (u * 2 - y)[1:] + (u * y)[:-1]

    g, _ = assert_agrees(optimized(f, *sample()), *sample())
    assert sum(op.name == "exp" for k in kernels(g) for op in k.regions[0].ops) == 1
