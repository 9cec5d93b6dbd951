"""Functions that call code shared by the process."""

from __future__ import annotations

import numpy as np
import pytest

import dflow.ir.ops  # noqa: F401
from dflow.backends.bufferize import bufferize
from dflow.backends.generation import compile_plan
from dflow.ir.builder import Builder
from dflow.ir.types import F32, F64, TensorType


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
