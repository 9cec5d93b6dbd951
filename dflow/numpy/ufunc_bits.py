"""Ufuncs that look at the bits of a number: neighbours, exponents, counts of bits."""

from __future__ import annotations

from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Value
from dflow.ir.rules import STOP_GRADIENT, apply
from dflow.ir.types import F16, I32, I64, SIGNED, SIGNIFICAND, U8, U64, DType

WIDER = 60  # a power of two that makes subnormal numbers normal


def _bits(b: Any, x: Value) -> Value:
    return b.bitcast(x, dtype=_integer(x.type.dtype))


def _integer(dtype: DType) -> DType:
    return next(d for d in SIGNED if d.bits == dtype.bits)


def _constant(b: Any, x: Value) -> Value:
    """``x``, which is not differentiated."""
    same = Builder([x.type])
    return apply(b, STOP_GRADIENT, [x], same.finish(same.args))[0]


def nextafter(b: Any, x: Value, y: Value) -> Value:
    """The neighbour of ``x`` towards ``y``, by ``x`` of derivative 1: bits of positive floats are in their order."""
    zero = b.zeros(x.type)
    code = _bits(b, x)
    away = b.eq(b.lt(x, y), b.gt(x, zero))
    one = b.full(1, code.type)
    moved = b.bitcast(b.add(code, b.select(away, one, b.neg(one))), dtype=x.type.dtype)
    smallest = b.copysign(b.bitcast(one, dtype=x.type.dtype), y)
    moved = b.select(b.eq(x, zero), smallest, moved)
    moved = b.select(b.isfinite(x), b.add(x, _constant(b, b.sub(moved, x))), moved)
    return b.select(b.or_(b.isnan(x), b.isnan(y)), b.add(x, y), b.select(b.eq(x, y), y, moved))


def spacing(b: Any, x: Value) -> Value:
    """The distance to the neighbour further from 0, with the sign of ``x``; of float16 NumPy takes the larger neighbour
    instead."""
    infinity = b.full(float("inf"), x.type)
    infinity = infinity if x.type.dtype == F16 else b.copysign(infinity, x)
    step = b.sub(nextafter(b, x, infinity), x)
    return b.select(b.isinf(x), b.full(float("nan"), x.type), step)


def frexp(b: Any, x: Value) -> list[Value]:
    """``x`` as mantissa times 2 ** exponent, the mantissa in [1/2, 1); by ``x`` the mantissa has derivative
    2 ** -exponent."""
    dtype = x.type.dtype
    width = SIGNIFICAND[dtype] - 1
    up = 12 if dtype == F16 else WIDER
    special = b.or_(b.eq(x, 0.0), b.not_(b.isfinite(x)))
    tiny = b.lt(b.abs(x), float(2.0 ** (2 - 2 ** (dtype.bits - width - 2))))
    scaled = b.select(tiny, b.mul(x, 2.0**up), x)
    field = b.and_(b.shr(_bits(b, scaled), width), 2 ** (dtype.bits - width - 1) - 1)
    bias = 2 ** (dtype.bits - width - 2) - 2
    exponent = b.sub(b.convert(field, dtype=I64), bias)
    exponent = b.select(tiny, b.sub(exponent, up), exponent)
    exponent = b.select(special, b.zeros(exponent.type), exponent)
    half = b.shr(exponent, 1)
    first, second = (b.exp2(b.neg(b.convert(k, dtype=dtype))) for k in (half, b.sub(exponent, half)))
    mantissa = b.select(special, x, b.mul(b.mul(x, first), second))
    return [mantissa, b.convert(exponent, dtype=I32)]


def bitwise_count(b: Any, x: Value) -> Value:
    """How many bits of |x| are set: sums of neighbouring groups of 1, 2, 4, ... bits."""
    x = b.convert(b.abs(x) if x.type.dtype.kind == "i" else x, dtype=U64)
    if x.type.dtype.bits < 64:
        x = b.and_(x, (1 << x.type.dtype.bits) - 1)
    for shift, mask in (
        (1, 0x5555555555555555),
        (2, 0x3333333333333333),
        (4, 0x0F0F0F0F0F0F0F0F),
        (8, 0x00FF00FF00FF00FF),
        (16, 0x0000FFFF0000FFFF),
        (32, 0x00000000FFFFFFFF),
    ):
        x = b.add(b.and_(x, mask), b.and_(b.shr(x, shift), mask))
    return b.convert(x, dtype=U8)
