"""Kernels that join those that they read."""

from __future__ import annotations

import numpy as np

import dflow
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.lowering.check_plan import check_plan
from dflow.backends.lowering.fusion import fuse
from dflow.backends.native.generation import compile_plan
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function
from dflow.ir.verifier import verify

N = 80


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
