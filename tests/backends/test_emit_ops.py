"""Every operation, for each of its dtypes, on each of its samples: machine code agrees with the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from programs_ir import OpCase, Program, one_op, op_cases, random_functions

from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.native.generation import compile_plan, lower
from dflow.ir.builder import Builder
from dflow.ir.core import Function
from dflow.ir.evaluator import evaluate
from dflow.ir.ops import TABLES
from dflow.ir.types import (
    BF16,
    BOOL,
    DTYPES,
    F16,
    F32,
    F64,
    FLOATS,
    HALVES,
    I8,
    I64,
    INTEGERS,
    SIGNED,
    U8,
    U16,
    U32,
    U64,
    TensorType,
    dtype_of,
    type_of_array,
)

# Relative to 1: three units in the last place of the math functions, and the order of sums.
TOLERANCE = {"f64": 4e-15, "f32": 2e-6, "f16": 2e-3, "bf16": 8e-3}


def run(f: Function, *args):
    return compile_plan(bufferize(f))(*args)


def assert_same(got, wanted) -> None:
    assert np.asarray(got).dtype == wanted.dtype
    assert np.shape(got) == wanted.shape
    if dtype_of(wanted.dtype).kind == "c":
        tolerance = TOLERANCE[f"f{4 * wanted.dtype.itemsize}"]
        np.testing.assert_allclose(got, wanted, tolerance, tolerance / 8)
        return
    if not dtype_of(wanted.dtype).is_float:
        np.testing.assert_array_equal(got, wanted)
        return
    tolerance = TOLERANCE[dtype_of(wanted.dtype).name]
    np.testing.assert_allclose(np.float64(got), np.float64(wanted), tolerance, tolerance / 8)
    zeros = wanted == 0
    np.testing.assert_array_equal(np.signbit(got)[zeros], np.signbit(wanted)[zeros], "signs of zeros")


# What the special functions do for halves, rounding results of f64, others do as well, and compile faster.
CASES = [c for c in op_cases() if not (c.dtype in HALVES and c.name in TABLES["special"])]


@pytest.mark.parametrize("case", CASES, ids=str)
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


@settings(max_examples=8)
@given(program=random_functions(dtype=BF16, kinks=True))
def test_random_programs_of_bfloat16(program: Program):
    """No product is fused with a sum, so that all but math functions and the order of sums is exact."""
    compiled = compile_plan(lower(program.function))
    for got, wanted in zip(compiled(*program.args), evaluate(program.function, program.args)):
        assert got.dtype == wanted.dtype == BF16.numpy
        np.testing.assert_allclose(np.float64(got), np.float64(wanted), 0.05, 0.05)


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
    np.testing.assert_array_equal(*(np.asarray(v, np.float64) for v in (got, wanted)))
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


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
def test_reductions_of_larger_tensors(kind, axes, dtype):
    x = np.random.default_rng(0).uniform(0.9, 1.1, (9, 11, 13)).astype(dtype.numpy)
    b = Builder([TensorType(dtype, x.shape)])
    f = b.function("f", [b.reduce(b.args[0], kind=kind, axes=axes)])
    wanted = (
        evaluate(b.function("f", f.results), [x])[0] if dtype == F64 else getattr(np, kind)(np.float64(x), axis=axes)
    )
    tolerance = {"f16": 5e-3, "bf16": 2e-2, "f32": 1e-4, "f64": 1e-12}[dtype.name]
    np.testing.assert_allclose(np.float64(run(f, x)[0]), wanted, tolerance)


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


# --- bfloat16: what has no operation of LLVM


def converted(x, target):
    b = Builder([type_of_array(x)])
    return run(b.function("f", [b.convert(b.args[0], dtype=target)]), x)[0]


def patterns() -> np.ndarray:
    """Every bfloat16."""
    return np.arange(1 << 16, dtype=np.uint16).view(BF16.numpy)


@pytest.mark.parametrize("target", [F16, F32, F64, I64, BOOL], ids=str)
def test_every_bfloat16_is_converted_as_numpy_does(target):
    x = patterns()
    with np.errstate(all="ignore"):
        if target == I64:
            x = x[np.abs(x.astype(np.float64)) < 2.0**63]
        wanted = x.astype(target.numpy)
    np.testing.assert_array_equal(converted(x, target), wanted)


@pytest.mark.parametrize("source", [F16, F32, F64, I64, U8], ids=str)
def test_rounding_to_bfloat16_is_that_of_numpy(source):
    """Ties and their neighbours, NaN with either sign, infinities, subnormals."""
    if source == F16:
        x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    elif source.is_float:
        halves = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
        with np.errstate(all="ignore"):
            x = ((np.arange(1 << 16, dtype=np.uint32) << 16)[:, None] | halves).view(np.float32).astype(source.numpy)
    else:
        x = np.arange(-5000, 5000).astype(source.numpy) * source.numpy.type(7)
    with np.errstate(all="ignore"):
        wanted = x.astype(BF16.numpy)
    np.testing.assert_array_equal(converted(x, BF16).view(np.uint16), wanted.view(np.uint16))


def test_bits_of_bfloat16_pass_unchanged():
    """Signalling NaNs too, through memory, registers and bitcasts."""
    x = patterns()
    b = Builder([type_of_array(x)])
    bits = b.bitcast(b.args[0], dtype=U16)
    f = b.function("f", [b.select(b.eq(bits, b.full(0, bits.type)), b.args[0], b.bitcast(bits, dtype=BF16))])
    np.testing.assert_array_equal(run(f, x)[0].view(np.uint16), x.view(np.uint16))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "sqrt"])
def test_arithmetic_of_bfloat16_is_rounded_exactly(name):
    bits = np.random.default_rng(3).integers(0, 1 << 16, (2, 20000), np.uint16)
    operands = list(bits.view(BF16.numpy))[: 1 if name == "sqrt" else 2]
    b = Builder([type_of_array(x) for x in operands])
    f = b.function("f", [b.emit(name, *b.args)])
    got, wanted = (np.asarray(r[0], np.float64) for r in (run(f, *operands), evaluate(f, operands)))
    np.testing.assert_array_equal(got, wanted)


def test_a_product_and_a_sum_of_bfloat16_are_both_rounded():
    x = np.array([1.0078125, 3.140625], BF16.numpy)
    b = Builder([type_of_array(x)] * 2)
    f = b.function("f", [b.sub(b.mul(b.args[0], b.args[0]), b.args[1])])
    y = (x * x).astype(BF16.numpy)
    np.testing.assert_array_equal(run(f, x, y)[0].astype(np.float32), 0)


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.name)
def test_arithmetic_of_constants(dtype):
    """Positions in nests that are written out; what is out of range comes round."""
    ends = np.iinfo(dtype.numpy)
    b = Builder()
    x, y = (b.constant(v, dtype) for v in (ends.max - 1, ends.min + 3))
    found = [b.emit(name, *pair) for name in ("add", "sub", "mul", "lt", "ge", "max") for pair in ((x, y), (y, x))]
    found += [b.emit("select", test, x, y) for test in found if test.type.dtype == BOOL]
    f = b.function("f", found)
    for got, wanted in zip(run(f), evaluate(f, [])):
        assert_same(got, wanted)
