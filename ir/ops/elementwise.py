"""Arithmetic, comparison, logic and selection, element by element.

Kinks: ``abs`` has derivative 0 at 0; ``max`` and ``min`` share the derivative between equal operands; ``floor`` and the
other step functions have derivative 0 everywhere.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.ir.ops.tables import ZERO, elementwise
from dflow.ir.registry import JvpRule, Linear, OpDef, Sample, define, linear_jvp, require
from dflow.ir.types import ALL, BOOL, FLOATS, INTEGERS, NUMERIC, REAL, SIGNED, TensorType

A = [-2.5, -1.0, 0.75, 1.5, 3.0]
B = [1.5, -2.0, 0.5, -3.0, 2.0]


def _both(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    return [cts[0] if isinstance(x, Linear) else None for x in xs]


def _add_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    t, u = ts
    if t is None or u is None:
        return [u if t is None else t]
    return [b.add(t, u)]


def _sub_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    t, u = ts
    if u is None:
        return [t]
    return [b.neg(u) if t is None else b.sub(t, u)]


def _sub_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    x, y = xs
    return [cts[0] if isinstance(x, Linear) else None, b.neg(cts[0]) if isinstance(y, Linear) else None]


_product_jvp = linear_jvp("mul", lambda n: ((0,), (1,)))


def _mul_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """Of a square it is one product, so that what reverse mode adds up is one number and not the same one twice."""
    if xs[0] is xs[1]:
        return [None if ts[0] is None else b.mul(b.mul(xs[0], 2.0), ts[0])]
    return list(_product_jvp(b, attrs, xs, ys, ts))


def _quotient_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    """(t - z u) / y, by the reciprocal of y: one division for both derivatives, and none where y stands outside of a
    loop. A reciprocal is squared."""
    (x, y), (z,), (t, u) = xs, ys, ts
    if t is None and _is_one(x):
        return [b.mul(b.neg(b.mul(z, z)), u)]
    r = b.div(1.0, y)
    if t is None:
        return [b.mul(b.neg(b.mul(z, r)), u)]
    return [b.mul(r, t if u is None else b.sub(t, b.mul(z, u)))]


def _is_one(x: Value) -> bool:
    op = x.op
    if op is not None and op.name == "broadcast":
        return _is_one(op.operands[0])
    return op is not None and op.name == "constant" and bool(np.all(op.attrs["value"] == 1))


def _mul_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    x, y = xs
    return [b.mul(cts[0], y), None] if isinstance(x, Linear) else [None, b.mul(x, cts[0])]


def _scale_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    x, y = xs
    return [b.scale(cts[0], y), None] if isinstance(x, Linear) else [None, b.scale(x, cts[0])]


elementwise(
    "add",
    "x + y",
    np.add,
    NUMERIC,
    arity=2,
    linear=((0, 1),),
    jvp=_add_jvp,
    transpose=_both,
    samples=(A, B),
    cheap=True,
)
elementwise(
    "sub",
    "x - y",
    np.subtract,
    NUMERIC,
    arity=2,
    linear=((0, 1),),
    jvp=_sub_jvp,
    transpose=_sub_transpose,
    samples=(A, B),
    cheap=True,
)
elementwise(
    "mul",
    "x * y",
    np.multiply,
    NUMERIC,
    arity=2,
    linear=((0,), (1,)),
    jvp=_mul_jvp,
    transpose=_mul_transpose,
    samples=(A, B),
    cheap=True,
)
elementwise(
    "scale",
    "x * y; 0 where one of them is 0, even if the other is infinite or NaN, as a derivative may be",
    lambda x, y: np.where((x == 0) | (y == 0), np.zeros_like(x), x * y),
    FLOATS,
    arity=2,
    linear=((0,), (1,)),
    transpose=_scale_transpose,
    samples=(A, B),
    kinks=([0.0, np.inf, np.nan, 0.0, np.inf], [np.inf, 0.0, 0.0, np.nan, 2.0]),
    cheap=True,
)
elementwise(
    "div",
    "x / y",
    np.divide,
    FLOATS,
    arity=2,
    linear=((0,),),
    jvp=_quotient_jvp,
    transpose=lambda b, attrs, xs, cts: [b.div(cts[0], xs[1]), None],
    samples=(A, B),
    kinks=([1.0, -1.0, 0.0], [0.0, 0.0, 0.0]),
)
elementwise(
    "floordiv",
    "floor(x / y) as Python and NumPy have it; an integer divided by zero gives 0",
    np.floor_divide,
    REAL,
    arity=2,
    partials=(ZERO, ZERO),
    samples=(A, B),
    kinks=([1.0, -7.0, 5.0, 0.0, -1.0], [0.0, 2.0, -2.0, 0.0, 3.0]),
)
elementwise(
    "rem",
    "x - floor(x / y) * y: the remainder with the sign of y; an integer divided by zero gives 0",
    np.remainder,
    REAL,
    arity=2,
    partials=(lambda b, z, x, y: b.full(1, x.type), lambda b, z, x, y: b.neg(b.floor(b.div(x, y)))),
    samples=(A, B),
    kinks=([1.0, -7.0, 5.0, 0.0, -1.0], [0.0, 2.0, -2.0, 0.0, 3.0]),
)
elementwise(
    "neg",
    "-x",
    np.negative,
    NUMERIC,
    linear=((0,),),
    transpose=lambda b, attrs, xs, cts: [b.neg(cts[0])],
    samples=(A,),
    cheap=True,
)
elementwise("sign", "-1, 0 or 1", np.sign, REAL, partials=(ZERO,), samples=(A,), kinks=([0.0],), cheap=True)
elementwise(
    "abs",
    "|x|; derivative sign(x), 0 at 0",
    np.abs,
    REAL,
    partials=(lambda b, y, x: b.sign(x),),
    samples=(A,),
    kinks=([0.0, -0.0],),
    cheap=True,
)


def _extreme_jvp(taken: str) -> JvpRule:
    """The derivative of max and min: that of the operand that is taken, 1/2 of each when they are equal. The other's
    is selected out, not multiplied by 0: the cotangent may be infinite, as that of sqrt(max(x, 0)) is."""

    def jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
        x, y = xs
        first, second = b.emit(taken, x, y), b.emit(taken, y, x)
        share = b.select(b.and_(first, second), b.full(0.5, x.type), b.full(1.0, x.type))
        pairs = [(is_taken, t) for is_taken, t in zip((first, second), ts) if t is not None]
        terms = [b.mul(share, b.select(is_taken, t, b.zeros(t.type))) for is_taken, t in pairs]
        return [functools.reduce(b.add, terms) if terms else None]

    return jvp


elementwise(
    "max",
    "the larger; NaN when either is; equal operands share the derivative",
    np.maximum,
    REAL,
    arity=2,
    jvp=_extreme_jvp("ge"),
    samples=(A, B),
    kinks=([1.0, np.nan], [1.0, 1.0]),
    cheap=True,
)
elementwise(
    "min",
    "the smaller; NaN when either is; equal operands share the derivative",
    np.minimum,
    REAL,
    arity=2,
    jvp=_extreme_jvp("le"),
    samples=(A, B),
    kinks=([1.0, np.nan], [1.0, 1.0]),
    cheap=True,
)
elementwise(
    "copysign",
    "|x| with the sign of y",
    np.copysign,
    FLOATS,
    arity=2,
    partials=(lambda b, z, x, y: b.mul(b.sign(x), b.copysign(b.full(1.0, x.type), y)), ZERO),
    samples=(A, B),
    kinks=([1.0, -1.0], [0.0, -0.0]),
    cheap=True,
)
_reference: Any
for _name, _doc, _reference in (
    ("floor", "the largest integer not above x", np.floor),
    ("ceil", "the smallest integer not below x", np.ceil),
    ("trunc", "x rounded towards zero", np.trunc),
    ("round", "x rounded to the nearest integer, ties to even", np.rint),
):
    elementwise(
        _name,
        _doc,
        _reference,
        FLOATS,
        partials=(ZERO,),
        samples=([-2.4, -1.25, 0.75, 1.4, 3.1],),
        kinks=([0.0, 0.5, 1.5, -0.5, 2.0],),
        cheap=True,
    )

for _name, _doc, _reference in (
    ("eq", "x == y", np.equal),
    ("ne", "x != y", np.not_equal),
    ("lt", "x < y", np.less),
    ("le", "x <= y", np.less_equal),
    ("gt", "x > y", np.greater),
    ("ge", "x >= y", np.greater_equal),
):
    elementwise(
        _name,
        _doc,
        _reference,
        (BOOL, *(NUMERIC if _name in ("eq", "ne") else REAL)),
        arity=2,
        result=BOOL,
        samples=(A, B),
        kinks=([1.0, np.nan], [1.0, 1.0]),
        cheap=True,
    )

for _name, _doc, _reference in (
    ("isnan", "whether x is NaN", np.isnan),
    ("isinf", "whether x is infinite", np.isinf),
    ("isfinite", "whether x is neither infinite nor NaN", np.isfinite),
    ("signbit", "whether the sign bit of x is set", np.signbit),
):
    elementwise(
        _name, _doc, _reference, FLOATS, result=BOOL, samples=([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan],), cheap=True
    )

_INTEGRAL = "it works on bits"
for _name, _doc, _reference, _types in (
    ("and", "x & y", np.bitwise_and, (BOOL, *INTEGERS)),
    ("or", "x | y", np.bitwise_or, (BOOL, *INTEGERS)),
    ("xor", "x ^ y", np.bitwise_xor, (BOOL, *INTEGERS)),
    ("shl", "x << y; 0 when y is not below the width", np.left_shift, INTEGERS),
    ("shr", "x >> y, keeping the sign; all sign bits when y is not below the width", np.right_shift, INTEGERS),
):
    elementwise(
        _name,
        _doc,
        _reference,
        _types,
        arity=2,
        samples=([5, 1, 0, 7], [3, 1, 1, 2]),
        no_derivative=_INTEGRAL,
        cheap=True,
    )
elementwise(
    "not",
    "~x; logical for bool",
    np.invert,
    (BOOL, *INTEGERS),
    samples=([5, 1, 0],),
    no_derivative=_INTEGRAL,
    cheap=True,
)


def _select_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 3, f"takes 3 operands, got {len(types)}")
    c, x, y = types
    require(c.dtype == BOOL, f"the condition must be bool, got {c}")
    require(x == y, f"both choices must have one type, got {x} and {y}")
    require(c.shape == x.shape, f"condition {c} and choices {x} must have one shape")
    return [x]


def _select_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    _, t, u = ts
    if t is None and u is None:
        return [None]
    zero = b.zeros(ys[0].type)
    return [b.select(xs[0], zero if t is None else t, zero if u is None else u)]


def _select_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    c, x, y = xs
    zero = b.zeros(cts[0].type)
    return [
        None,
        b.select(c, cts[0], zero) if isinstance(x, Linear) else None,
        b.select(c, zero, cts[0]) if isinstance(y, Linear) else None,
    ]


define(
    OpDef(
        "select",
        "x where the condition holds, y elsewhere; the choice that is not taken does not touch the derivative",
        _select_infer,
        lambda attrs, c, x, y: np.where(c, x, y),
        _select_jvp,
        _select_transpose,
        ((1, 2), (1,), (2,)),
        ALL,
        elementwise=True,
        cheap=True,
        samples=(Sample(([True, False, True, False, True], A, B), integer=(0,)),),
    )
)


def _convert_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 1, f"takes 1 operand, got {len(types)}")
    return [types[0].with_dtype(attrs["dtype"])]


def _convert_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    return [b.convert(ts[0], dtype=attrs["dtype"]) if ts[0] is not None and attrs["dtype"].is_inexact else None]


def _convert(attrs: Any, x: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(attrs["dtype"].numpy)


define(
    OpDef(
        "convert",
        "x as another dtype, as NumPy's astype; floats to integers towards zero",
        _convert_infer,
        _convert,
        _convert_jvp,
        lambda b, attrs, xs, cts: [b.convert(cts[0], dtype=xs[0].type.dtype)],
        ((0,),),
        ALL,
        elementwise=True,
        cheap=True,
        samples=tuple(Sample(([0.0, 1.0, 2.5, 100.0],), {"dtype": d}) for d in (*FLOATS, *SIGNED, BOOL)),
    )
)


def _bitcast_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 1, f"takes 1 operand, got {len(types)}")
    (x,), dtype = types, attrs["dtype"]
    require(x.dtype in REAL and dtype in REAL, f"takes integers and floats, got {x.dtype} as {dtype}")
    require(x.dtype.bits == dtype.bits, f"{x.dtype} and {dtype} differ in size")
    return [x.with_dtype(dtype)]


define(
    OpDef(
        "bitcast",
        "the bits of x as another dtype of the same size",
        _bitcast_infer,
        lambda attrs, x: np.asarray(x).view(attrs["dtype"].numpy),
        dtypes=REAL,
        elementwise=True,
        cheap=True,
        no_derivative=_INTEGRAL,
        samples=tuple(Sample(([0.0, 1.0, 2.5, 100.0],), {"dtype": d}, smooth=False) for d in REAL),
    )
)
