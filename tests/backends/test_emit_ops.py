"""Every operation, for each of its dtypes, on each of its samples: machine code agrees with the reference."""

from __future__ import annotations

import numpy as np
import pytest

import dflow.ir.ops  # noqa: F401
from dflow.backends.bufferize import bufferize
from dflow.backends.engine import compile_plan
from dflow.backends.mathlib import MATH_FUNCTIONS
from dflow.ir.builder import Builder
from dflow.ir.evaluator import evaluate
from dflow.ir.registry import OPS, Sample
from dflow.ir.types import F64, INTEGERS, DType, type_of_array

TOLERANCE = {"f64": 4e-15, "f32": 2e-6, "f16": 2e-3}
MISSING = {"erf", "erfc", "lgamma", "digamma", "asin", "acos", "atan", "atan2"} - set(MATH_FUNCTIONS)


def cases():
    found = []
    for op in OPS.values():
        if op.reference is None:
            continue
        for dtype in [d for d in op.dtypes if d.kind != "c"] or [F64]:
            found.append(pytest.param(op, dtype, id=f"{op.name}-{dtype}"))
    return found


def arrays(sample: Sample, dtype: DType) -> list[np.ndarray]:
    """The operands of a sample as ``dtype``; integers of an index keep theirs."""
    out = []
    for k, x in enumerate(sample.operands):
        a = np.asarray(x)
        if k in sample.integer:
            out.append(a)
        elif dtype in INTEGERS:
            a = np.nan_to_num(a, nan=0, posinf=7, neginf=0)
            out.append((np.abs(a) if dtype.kind == "u" else a).astype(dtype.numpy))
        else:
            out.append(a.astype(dtype.numpy))
    return out


def function(op, dtype, sample, operands):
    b = Builder([type_of_array(a) for a in operands])
    attrs = dict(sample.attrs)
    if "type" in attrs:
        attrs["type"] = attrs["type"].with_dtype(dtype)
    return b.function(f"test_{op.name}", [b.emit(op.name, *b.args, **attrs)])


@pytest.mark.parametrize(("op", "dtype"), cases())
def test_operation_agrees_with_reference(op, dtype):
    if op.name in MISSING:
        pytest.skip("not in the math library")
    for sample in op.samples:
        if sample.attrs.get("kind") in ("max", "min", "sum", "prod") and dtype.kind == "b":
            continue
        operands = arrays(sample, dtype)
        f = function(op, dtype, sample, operands)
        (wanted,) = evaluate(f, operands)
        (got,) = compile_plan(bufferize(f))(*operands)
        assert np.asarray(got).dtype == wanted.dtype
        assert np.shape(got) == wanted.shape
        if wanted.dtype.kind == "f":
            tolerance = TOLERANCE[f"f{8 * wanted.dtype.itemsize}"]
            np.testing.assert_allclose(np.float64(got), np.float64(wanted), tolerance, tolerance / 8)
            zeros = wanted == 0
            np.testing.assert_array_equal(np.signbit(got)[zeros], np.signbit(wanted)[zeros], err_msg=op.name)
        else:
            np.testing.assert_array_equal(got, wanted)
