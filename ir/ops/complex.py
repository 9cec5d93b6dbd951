"""Complex numbers and their parts.

Besides sums, products and selections these three operations are all that there is; other functions of complex numbers
are written with their parts. All three are linear over the reals. A cotangent of ``z = x + iy`` is the complex number
``c`` such that the real part of ``c * z`` is the contribution to the result, so the gradient of a real function is
``d/dx - i d/dy``, as in JAX.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from dflow.ir.registry import Linear, OpDef, Sample, define, linear_jvp, require
from dflow.ir.types import COMPLEXES, DTYPES, F32, F64, DType, TensorType

Z = [1.5 - 2.0j, -0.5 + 0.25j, 3.0j, 2.0 + 0.0j]


def part_type(dtype: DType) -> DType:
    """The type of the real part."""
    return DTYPES[f"f{dtype.bits // 2}"]


def complex_type(dtype: DType) -> DType:
    return DTYPES[f"c{dtype.bits * 2}"]


def _part_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 1 and types[0].dtype in COMPLEXES, f"takes one complex operand, got {types}")
    return [types[0].with_dtype(part_type(types[0].dtype))]


def _with_zero(b: Any, ct: Any) -> Any:
    return b.emit("complex", ct, b.zeros(ct.type))


def _with_zero_real(b: Any, ct: Any) -> Any:
    return b.emit("complex", b.zeros(ct.type), b.neg(ct))


def _part(part: Any, attrs: Any, z: Any) -> Any:
    return np.array(part(z))


def _part_transpose(rule: Any, b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    return [rule(b, cts[0])]


for _name, _doc, _reference, _transpose in (
    ("real", "the real part", np.real, _with_zero),
    ("imag", "the imaginary part", np.imag, _with_zero_real),
):
    define(
        OpDef(
            _name,
            _doc,
            _part_infer,
            partial(_part, _reference),
            linear_jvp(_name, lambda n: ((0,),)),
            partial(_part_transpose, _transpose),
            ((0,),),
            COMPLEXES,
            elementwise=True,
            cheap=True,
            samples=(Sample((Z,), smooth=False),),
        )
    )


def _complex_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 2 and types[0] == types[1], f"takes two operands of one type, got {types}")
    require(types[0].dtype in (F32, F64), f"takes f32 or f64, got {types[0]}")
    return [types[0].with_dtype(complex_type(types[0].dtype))]


def _complex_transpose(b: Any, attrs: Any, xs: Any, cts: Any) -> list[Any]:
    x, y = xs
    (ct,) = cts
    return [
        b.real(ct) if isinstance(x, Linear) else None,
        b.neg(b.imag(ct)) if isinstance(y, Linear) else None,
    ]


def _complex(attrs: Any, x: Any, y: Any) -> Any:
    z = np.empty(np.shape(x), np.result_type(x, np.complex64))
    z.real, z.imag = x, y
    return z


define(
    OpDef(
        "complex",
        "the complex number with these real and imaginary parts",
        _complex_infer,
        _complex,
        linear_jvp("complex", lambda n: ((0, 1),)),
        _complex_transpose,
        ((0, 1),),
        (F32, F64),
        elementwise=True,
        cheap=True,
        samples=(Sample(([1.5, -0.5, 0.0], [-2.0, 0.25, 3.0]), smooth=False),),
    )
)
