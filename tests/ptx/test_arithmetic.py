"""Each kind of instruction against plain Python integers and NumPy."""

import math

import numpy as np
import pytest

from ptx.faults import IllegalInstruction
from ptx.snippets import compute

I32 = np.array([0, 1, -1, 7, -7, 2**31 - 1, -(2**31), 123456789], np.int32)
J32 = np.array([3, -2, 5, -3, 2, 2, -1, 1000], np.int32)
U64 = np.array([0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0, 97, 5, 2**40 + 3], np.uint64)
V64 = np.array([1, 2**63 + 5, 3, 2**64 - 1, 0xFEDCBA9876543210, 10, 7, 2**33], np.uint64)
F64 = np.array([0.0, -0.0, 1.5, -2.25, np.inf, -np.inf, np.nan, 1e300])
G64 = np.array([-0.0, 0.0, 0.5, 3.0, -1.0, np.inf, 2.0, -1e300])
with np.errstate(over="ignore"):
    F32, G32 = F64.astype(np.float32), G64.astype(np.float32)


def ints(a):
    return [int(x) for x in a]


def wrapped(values, dtype):
    bits = np.dtype(dtype).itemsize * 8
    return np.array([v % (1 << bits) for v in values], np.uint64).astype(f"u{bits // 8}").view(dtype)


def quotient(x, y):
    return int(math.copysign(1, x) * math.copysign(1, y)) * (abs(x) // abs(y))


@pytest.mark.parametrize(
    "opcode, dtype, exact",
    [
        ("add.s32", np.int32, lambda x, y: x + y),
        ("sub.s32", np.int32, lambda x, y: x - y),
        ("mul.lo.s32", np.int32, lambda x, y: x * y),
        ("mul.hi.s32", np.int32, lambda x, y: x * y >> 32),
        ("mul.wide.s32", np.int64, lambda x, y: x * y),
        ("div.s32", np.int32, quotient),
        ("rem.s32", np.int32, lambda x, y: x - y * quotient(x, y)),
        ("min.s32", np.int32, min),
        ("max.s32", np.int32, max),
        ("and.b32", np.int32, lambda x, y: x & y),
        ("xor.b32", np.int32, lambda x, y: x ^ y),
        ("mul.lo.u64", np.uint64, lambda x, y: x * y),
        ("mul.hi.u64", np.uint64, lambda x, y: x * y >> 64),
        ("div.u64", np.uint64, lambda x, y: x // y),
        ("rem.u64", np.uint64, lambda x, y: x % y),
        ("mul.hi.s64", np.int64, lambda x, y: x * y >> 64),
        ("setp.lt.s32", bool, lambda x, y: x < y),
        ("setp.hs.u64", bool, lambda x, y: x >= y),
    ],
)
def test_integers(opcode, dtype, exact):
    a, b = (I32, J32) if opcode.endswith("32") else (U64, V64)
    if opcode.endswith("s64"):
        a, b = a.view(np.int64), b.view(np.int64)
    wanted = [exact(x, y) for x, y in zip(ints(a), ints(b))]
    wanted = np.array(wanted) if dtype is bool else wrapped(wanted, dtype)
    np.testing.assert_array_equal(compute(opcode, dtype, a, b), wanted)


@pytest.mark.parametrize(
    "opcode, operands, exact",
    [
        ("shl.b64", ["13"], lambda x: x << 13),
        ("shl.b64", ["64"], lambda x: 0),
        ("shr.u64", ["13"], lambda x: x >> 13),
        ("shr.s64", ["70"], lambda x: -(x >> 63)),
        ("not.b64", [], lambda x: ~x),
        ("neg.s64", [], lambda x: -x),
        ("brev.b64", [], lambda x: int(f"{x:064b}"[::-1], 2)),
        ("bfe.u64", ["4", "9"], lambda x: x >> 4 & 511),
        ("bfe.s64", ["4", "3"], lambda x: ((x >> 4 & 7) ^ 4) - 4),
        ("bfi.b64", ["0xF0FF", "4", "8"], lambda x: 0xF00F | (x & 255) << 4),
    ],
)
def test_bits(opcode, operands, exact):
    np.testing.assert_array_equal(
        compute(opcode, np.uint64, U64, *operands), wrapped([exact(x) for x in ints(U64)], np.uint64)
    )


@pytest.mark.parametrize(
    "opcode, exact",
    [
        ("popc.b64", lambda x: x.bit_count()),
        ("clz.b64", lambda x: 64 - x.bit_length()),
        ("bfind.u64", lambda x: x.bit_length() - 1),
        ("cvt.u32.u64", lambda x: x),
    ],
)
def test_counts(opcode, exact):
    np.testing.assert_array_equal(compute(opcode, np.uint32, U64), wrapped(map(exact, ints(U64)), np.uint32))


def test_permutations_and_funnels():
    a, b = np.array([0x33221100, 0xF0E0D0C0], np.uint32), np.array([0x77665544, 1], np.uint32)
    np.testing.assert_array_equal(compute("prmt.b32", np.uint32, a, b, "0x7531"), [0x77553311, 0xF0D0])
    np.testing.assert_array_equal(compute("prmt.b32", np.uint32, a, "0", "0x333B"), [0x33333300, 0xF0F0F0FF])
    np.testing.assert_array_equal(compute("shf.l.wrap.b32", np.uint32, a, b, "36"), [0x76655443, 0x1F])
    np.testing.assert_array_equal(compute("shf.r.clamp.b32", np.uint32, a, b, "40"), b)
    np.testing.assert_array_equal(compute("lop3.b32", np.uint32, a, b, "7", "0x96"), a ^ b ^ np.uint32(7))


def test_numbers_of_several_words():
    low = compute("add.s64", np.uint64, U64, V64)
    carry = compute("addc.s64", np.uint64, U64, V64, before="add.cc.s64 %rd5, %x1, %x2;")
    borrow = compute("subc.s64", np.uint64, U64, V64, before="sub.cc.s64 %rd5, %x1, %x2;")
    for x, y, l, c, b in zip(ints(U64), ints(V64), ints(low), ints(carry), ints(borrow)):
        ones = (1 << 64) + 1
        assert (c << 64 | l) == (x * ones + y * ones) % (1 << 128)
        assert b == (x * ones - y * ones) % (1 << 128) >> 64


@pytest.mark.parametrize("a, b, name", [(F64, G64, "f64"), (F32, G32, "f32")])
def test_floats(a, b, name):
    with np.errstate(all="ignore"):
        for opcode, f in [("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div.rn", np.divide)]:
            np.testing.assert_array_equal(compute(f"{opcode}.{name}", a.dtype, a, b), f(a, b), opcode)
        for opcode, f in [("sqrt.rn", np.sqrt), ("abs", np.abs), ("neg", np.negative), ("rcp.rn", np.reciprocal)]:
            np.testing.assert_array_equal(compute(f"{opcode}.{name}", a.dtype, a), f(a), opcode)
        np.testing.assert_array_equal(compute(f"copysign.{name}", a.dtype, a, b), np.copysign(b, a))
        for opcode, f in [("eq", a == b), ("neu", a != b), ("lt", a < b), ("geu", ~(a < b)), ("ne", (a < b) | (a > b))]:
            np.testing.assert_array_equal(compute(f"setp.{opcode}.{name}", bool, a, b), f, opcode)
        np.testing.assert_array_equal(compute(f"setp.nan.{name}", bool, a, b), np.isnan(a))
        np.testing.assert_array_equal(compute(f"testp.infinite.{name}", bool, a), np.isinf(a))


@pytest.mark.parametrize("name, dtype", [("f64", np.float64), ("f32", np.float32)])
def test_extremes_know_signed_zeros_and_nan(name, dtype):
    a = np.array([0.0, -0.0, 1.0, np.nan, -np.inf], dtype)
    b = np.array([-0.0, 0.0, 2.0, 1.0, np.nan], dtype)
    low, high = compute(f"min.{name}", dtype, a, b), compute(f"max.{name}", dtype, a, b)
    np.testing.assert_array_equal(low, [-0.0, -0.0, 1, 1, -np.inf])
    assert np.signbit(low[:2]).all() and not np.signbit(high[:2]).any()
    np.testing.assert_array_equal(compute(f"max.NaN.{name}", dtype, a, b), [0, 0, 2, np.nan, np.nan])


def test_fused_multiply_add_rounds_once():
    a = np.array([1 + 2**-30, 3.0], np.float64)
    np.testing.assert_array_equal(compute("fma.rn.f64", np.float64, a, a, -a * a), [2.0**-60, 0.0])
    b = np.array([1 + 2**-12, 3.0], np.float32)
    np.testing.assert_array_equal(compute("fma.rn.f32", np.float32, b, b, -b * b), [2.0**-24, 0.0])


def test_halves():
    x = np.array([1.0, 200.0, 0.1, -3.0], np.float16)
    np.testing.assert_array_equal(compute("add.rn.f16", np.float16, x, x), x + x)
    np.testing.assert_array_equal(
        compute("fma.rn.f16", np.float16, x, x, "0x3C00"), (x.astype(float) ** 2 + 1).astype("f2")
    )
    packed = x.view(np.uint32)
    np.testing.assert_array_equal(compute("mul.rn.f16x2", np.uint32, packed, packed).view(np.float16), x * x)
    f = np.array([1.0, 1.00390625, 1.01171875, -2.5, np.nan], np.float32)
    bits = compute("cvt.rn.bf16.f32", np.uint16, f)
    np.testing.assert_array_equal(bits, [0x3F80, 0x3F80, 0x3F82, 0xC020, 0x7FFF])
    np.testing.assert_array_equal(compute("add.rn.bf16", np.uint16, bits[:2], bits[2:4]), [0x4001, 0xBFC0])
    np.testing.assert_array_equal(compute("cvt.rn.f16x2.f32", np.uint32, f[:1], f[3:4]), [0x3C00C100])


def test_conversions():
    x = np.array([1.5, 2.5, -1.5, 1e10, -1e10, np.nan, 3e18, -0.5])
    s32 = [2, 2, -2, 2**31 - 1, -(2**31), -(2**31), 2**31 - 1, 0]
    np.testing.assert_array_equal(compute("cvt.rni.s32.f64", np.int32, x), s32)
    np.testing.assert_array_equal(compute("cvt.rzi.u32.f64", np.uint32, x[:4]), [1, 2, 0, 2**32 - 1])
    np.testing.assert_array_equal(compute("cvt.rmi.s64.f64", np.int64, x[:3]), [1, 2, -2])
    np.testing.assert_array_equal(compute("cvt.rzi.s32.f32", np.int32, x.astype("f4"))[5], 0)
    np.testing.assert_array_equal(compute("cvt.rpi.f64.f64", np.float64, x[:3]), [2, 3, -1])
    np.testing.assert_array_equal(compute("cvt.sat.f64.f64", np.float64, x), [1, 1, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(compute("cvt.rn.f32.f64", np.float32, x + 1e-9), (x + 1e-9).astype(np.float32))
    np.testing.assert_array_equal(compute("cvt.rn.f64.u64", np.float64, U64), U64.astype(float))
    np.testing.assert_array_equal(
        compute("cvt.s32.s8", np.int32, np.array([255, 127, 0x180], np.int32)), [-1, 127, -128]
    )
    np.testing.assert_array_equal(compute("cvt.sat.s8.s32", np.int32, I32), np.clip(I32, -128, 127))
    np.testing.assert_array_equal(compute("cvt.u16.u32", np.uint16, np.array([65537], np.uint32)), [1])


def test_selection_and_packing():
    p = np.array([True, False])
    np.testing.assert_array_equal(
        compute("selp.f64", np.float64, "0d3FF0000000000000", "0d4000000000000000", p), [1, 2]
    )
    np.testing.assert_array_equal(compute("xor.pred", bool, p, ~p), [True, True])
    words = np.array([5, 6], np.uint32)
    np.testing.assert_array_equal(compute("mul.wide.u32", np.uint64, words, words), [25, 36])


def test_what_is_not_known_is_refused():
    with pytest.raises(IllegalInstruction, match="frobnicate"):
        compute("frobnicate.b32", np.int32, I32)
    with pytest.raises(IllegalInstruction, match="rounding"):
        compute("add.rz.f64", np.float64, F64, G64)
