"""Every operation, for each of its dtypes, on each of its samples: machine code agrees with the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from programs_ir import OpCase, Program, one_op, op_cases, random_functions

from dflow.backends.bufferize import bufferize
from dflow.backends.engine import compile_plan, lower
from dflow.ir.builder import Builder
from dflow.ir.core import Function
from dflow.ir.evaluator import evaluate
from dflow.ir.types import BOOL, DTYPES, F16, F32, F64, FLOATS, I8, I64, INTEGERS, SIGNED, U8, U32, U64, TensorType

# Relative to 1: three units in the last place of the math functions, and the order of sums.
TOLERANCE = {"f64": 4e-15, "f32": 2e-6, "f16": 2e-3}


def run(f: Function, *args):
    return compile_plan(bufferize(f))(*args)


def assert_same(got, wanted) -> None:
    assert np.asarray(got).dtype == wanted.dtype
    assert np.shape(got) == wanted.shape
    if wanted.dtype.kind == "c":
        tolerance = TOLERANCE[f"f{4 * wanted.dtype.itemsize}"]
        np.testing.assert_allclose(got, wanted, tolerance, tolerance / 8)
        return
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted)
        return
    tolerance = TOLERANCE[f"f{8 * wanted.dtype.itemsize}"]
    np.testing.assert_allclose(np.float64(got), np.float64(wanted), tolerance, tolerance / 8)
    zeros = wanted == 0
    np.testing.assert_array_equal(np.signbit(got)[zeros], np.signbit(wanted)[zeros], "signs of zeros")


@pytest.mark.parametrize("case", op_cases(), ids=str)
def test_operation_agrees_with_reference(case: OpCase):
    f, args = one_op(case.name, case.sample, case.dtype)
    for got, wanted in zip(run(f, *args), evaluate(f, args), strict=True):
        assert_same(got, wanted)


@pytest.mark.parametrize("prepare", [bufferize, lower], ids=["as-written", "fused"])
@given(program=random_functions(kinks=True))
def test_random_programs(prepare, program: Program):
    """Rounding differs (fused multiply-add), and each program multiplies that as it likes."""
    compiled = compile_plan(prepare(program.function))
    for got, wanted in zip(compiled(*program.args), evaluate(program.function, program.args)):
        np.testing.assert_allclose(got, wanted, 1e-10, 1e-10)


# --- corners that samples do not reach


def binary(name: str, dtype, x, y):
    x, y = (np.asarray(v, dtype.numpy) for v in (x, y))
    b = Builder([TensorType(dtype, x.shape)] * 2)
    f = b.function(name, [b.emit(name, *b.args)])
    (got,), (wanted,) = run(f, x, y), evaluate(f, [x, y])
    return got, wanted


def corners(dtype):
    info = np.iinfo(dtype.numpy)
    values = [info.min, info.min + 1, 0, 1, 3, info.max - 1, info.max, -1 if dtype.kind == "i" else 2]
    return [v.ravel() for v in np.meshgrid(*[np.array(values, dtype.numpy)] * 2)]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "floordiv", "rem", "max", "min", "and", "lt", "ge"])
def test_integer_corners(name, dtype):
    got, wanted = binary(name, dtype, *corners(dtype))
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", (I8, I64, U8, U64), ids=str)
@pytest.mark.parametrize("name", ["shl", "shr"])
def test_shift_by_the_width_and_more(name, dtype):
    got, wanted = binary(name, dtype, [5, 127, 100, 1, 7], [0, 3, dtype.bits - 1, dtype.bits, 100])
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["floordiv", "rem", "fmod", "max", "min", "copysign", "div", "eq", "ne", "lt", "ge"])
def test_float_corners(name, dtype):
    values = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.1, 7.0, np.inf, -np.inf, np.nan])
    x, y = (v.ravel() for v in np.meshgrid(values, values))
    got, wanted = binary(name, dtype, x, y)
    np.testing.assert_array_equal(got, wanted)
    if name in ("rem", "floordiv", "fmod"):
        zeros = wanted == 0
        np.testing.assert_array_equal(np.signbit(got)[zeros], np.signbit(wanted)[zeros])


@pytest.mark.parametrize("target", [d for d in DTYPES.values() if d.kind != "c"], ids=str)
@pytest.mark.parametrize("source", [d for d in DTYPES.values() if d.kind != "c"], ids=str)
def test_conversions(source, target):
    x = np.array([0, 1, 2, 100, 77, 3]).astype(source.numpy)
    if source in SIGNED or (source.is_float and target.kind in "if"):
        x = np.concatenate([x, -x])
    if source.is_float:
        x = np.concatenate([x, (x * 0.77).astype(source.numpy)])
    b = Builder([TensorType(source, x.shape)])
    f = b.function("f", [b.convert(b.args[0], dtype=target)])
    assert_same(run(f, x)[0], evaluate(f, [x])[0])


def test_narrow_floats_are_rounded_once():
    """A tie of f16 that is not one in f64 gets lost in f32."""
    x = np.array(
        [1 + 2.0**-11, 1 + 2.0**-11 + 2.0**-40, 1 - 2.0**-12 - 2.0**-45, 65519.999999, 65520, 1e300, 1e-8, 3e-8]
    )
    x = np.concatenate([x, -x, [np.inf, np.nan, 0.0]])
    b = Builder([TensorType(F64, x.shape)])
    f = b.function("f", [b.convert(b.args[0], dtype=F16)])
    np.testing.assert_array_equal(run(f, x)[0], evaluate(f, [x])[0])


@pytest.mark.parametrize("target", [d for d in INTEGERS if d.bits >= 32], ids=str)
def test_floats_outside_the_range_of_integers_saturate(target):
    x = np.array([1e300, -1e300, np.inf, -np.inf, np.nan])
    b = Builder([TensorType(F64, x.shape)])
    (got,) = run(b.function("f", [b.convert(b.args[0], dtype=target)]), x)
    info = np.iinfo(target.numpy)
    if target == U32:  # through i64
        assert got.tolist() == [info.max, 0, info.max, 0, 0]
    elif target == U64:
        assert got[[0, 2]].tolist() == [info.max, info.max] and got[4] == 0
    else:
        assert got.tolist() == [info.max, info.min, info.max, info.min, 0]


@pytest.mark.parametrize("dtype", (F16, F32, F64), ids=str)
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
def test_reductions_of_larger_tensors(kind, axes, dtype):
    x = np.random.default_rng(0).uniform(0.9, 1.1, (9, 11, 13)).astype(dtype.numpy)
    b = Builder([TensorType(dtype, x.shape)])
    f = b.function("f", [b.reduce(b.args[0], kind=kind, axes=axes)])
    wanted = (
        evaluate(b.function("f", f.results), [x])[0] if dtype == F64 else getattr(np, kind)(np.float64(x), axis=axes)
    )
    np.testing.assert_allclose(np.float64(run(f, x)[0]), wanted, {"f16": 5e-3, "f32": 1e-4, "f64": 1e-12}[dtype.name])


@pytest.mark.parametrize("kind", ["any", "all"])
def test_reductions_of_bools(kind):
    x = np.array([[True, False, True], [True, True, True]])
    b = Builder([TensorType(BOOL, x.shape)])
    f = b.function("f", [b.reduce(b.args[0], kind=kind, axes=a) for a in ((0,), (1,), (0, 1))])
    for got, wanted in zip(run(f, x), evaluate(f, [x])):
        np.testing.assert_array_equal(got, wanted)


def test_extremes_of_nan_and_nothing():
    x = np.array([[1.0, np.nan, 3.0], [-np.inf, -np.inf, -np.inf]])
    b = Builder([TensorType(F64, x.shape), TensorType(F64, (0, 3))])
    x0, empty = b.args
    f = b.function(
        "f",
        [
            *(b.reduce(x0, kind=k, axes=(1,)) for k in ("max", "min")),
            *(b.emit(k, x0, axis=1) for k in ("argmax", "argmin")),
            *(b.reduce(empty, kind=k, axes=(0,)) for k in ("sum", "prod")),
        ],
    )
    args = (x, np.zeros((0, 3)))
    for got, wanted in zip(run(f, *args), evaluate(f, args)):
        np.testing.assert_array_equal(got, wanted)
