"""Functions that call code shared by the process."""

from __future__ import annotations

import numpy as np
import pytest

import dflow.ir.ops  # noqa: F401
from dflow.backends.emit.function import emit
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.lowering.fusion import fuse
from dflow.backends.native import straight
from dflow.backends.native.generation import compile_plan
from dflow.backends.native.straight import is_straight
from dflow.ir.builder import Builder
from dflow.ir.types import F32, F64, I64, TensorType


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_slow_ways_are_called_not_compiled(name, dtype):
    b = Builder([TensorType(dtype, (1000,))])
    compiled = compile_plan(bufferize(b.function("f", [b.emit(name, *b.args)])))
    mentions = [line for line in compiled.llvm.splitlines() if f"@dflow.{name}.guard" in line]
    assert mentions and not any(line.startswith("define") for line in mentions)
    x = np.geomspace(1e-3, 1e30, 1000).astype(dtype.numpy)
    tolerance = 1e-15 if dtype == F64 else 1e-6
    np.testing.assert_allclose(compiled(x)[0], getattr(np, name)(np.float64(x)), tolerance * 4, tolerance)


def test_loops_over_them_are_vectorised():
    b = Builder([TensorType(F64, (1000,))])
    compiled = compile_plan(bufferize(b.function("f", [b.sin(*b.args)])))
    assert "@dflow.sin.guard.f64.x" in compiled.llvm


def test_straight_code_has_what_it_repeats_once():
    b = Builder([TensorType(F64)])
    (x,) = b.args
    compiled = compile_plan(bufferize(b.function("f", [b.sin(b.exp(b.sin(x)))])))
    assert compiled.llvm.count("@dflow.sin.f64(") == 3
    assert "@dflow.exp.f64" not in compiled.llvm
    np.testing.assert_allclose(compiled(0.3)[0], np.sin(np.exp(np.sin(0.3))), 1e-15)


def test_long_straight_code_has_small_arrays():
    b = Builder([TensorType(F64, (3,))])
    (x,) = b.args
    y = x
    for _ in range(40):
        y = b.update(b.mul(b.sin(y), x), b.extract(y, b.index(0), index=("at",)), b.index(1), index=("at",))
    f = bufferize(fuse(b.function("f", [y]))).function
    assert is_straight(f)
    compiled = compile_plan(bufferize(fuse(b.function("f", [y]))))
    defined = [line for line in compiled.llvm.splitlines() if line.startswith("define")]
    assert sum("@dflow.sin.f64(" in line for line in defined) == 1
    start = wanted = np.array([0.3, 0.4, 0.5])
    for _ in range(40):
        first = wanted[0]
        wanted = np.sin(wanted) * start
        wanted[1] = first
    np.testing.assert_allclose(compiled(start)[0], wanted, 1e-13)


def test_long_straight_code_has_no_loops():
    b = Builder([TensorType(F64, (3,))])
    (x,) = b.args
    y = x
    for _ in range(30):  # more in a kernel than is written out elsewhere
        y = b.update(
            b.mul(b.sin(y), b.exp(b.cos(y))), b.extract(y, b.index(0), index=("at",)), b.index(1), index=("at",)
        )
    plan = bufferize(fuse(b.function("f", [y, b.reduce(y, kind="sum", axes=(0,))])))
    assert is_straight(plan.function)
    assert "phi" not in compile_plan(plan).llvm.split("@dflow.f(")[1].split("\n}")[0]


def test_neighbours_are_searched_for_where_loops_are_most_of_a_program(monkeypatch):
    monkeypatch.setattr(straight, "LONG", 50)

    def searched(inside, after):
        """Of a program with so many operations in its loop, and after it."""
        b = Builder([TensorType(F64), TensorType(I64)])
        x, n = b.args
        (y,) = b.for_loop(n, [x], lambda b, k, y: [chain(b, y, x, inside)])
        plan = bufferize(b.function("f", [chain(b, y, x, after)]))
        return straight.vectorizes(plan.function, emit(plan, "f").module)

    def chain(b, y, x, length):
        for _ in range(length):
            y = b.mul(y, x)
        return y

    assert searched(10, 10) and searched(200, 100)
    assert not searched(10, 100)
