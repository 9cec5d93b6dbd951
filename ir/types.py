"""Types of the IR: a dtype and a shape.

A size in a shape is one of three things:

- an ``int``;
- a ``Size``: an index value of the program with a known upper bound, written ``%n<=21``;
- ``GROWS`` (leading position only), written ``*``: the tensor is a *sequence*, without end; its elements are zero until
  written. Residuals of loops whose trip count is not known in advance are kept in one.

``bf16`` is bfloat16, the upper half of an f32. NumPy has no such dtype: it is that of the package ml_dtypes, which is
imported when a program first has a bfloat16. Numbers are rounded to it from f32, so those of f64 twice, as ml_dtypes
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dflow.ir.core import Value


@dataclass(frozen=True)
class DType:
    """A scalar type. ``kind`` is NumPy's: ``b`` bool, ``i`` int, ``u`` unsigned, ``f`` float, ``c`` complex."""

    name: str
    kind: str
    bits: int

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, DType) and self.name == other.name)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def numpy(self) -> np.dtype[Any]:
        found = _NUMPY.get(self.name)
        return bfloat16_dtype() if found is None else found

    @property
    def itemsize(self) -> int:
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def is_inexact(self) -> bool:
        """Whether values of this type can be differentiated."""
        return self.kind in "fc"

    def __repr__(self) -> str:
        return self.name


BOOL = DType("bool", "b", 1)
I8, I16, I32, I64 = (DType(f"i{n}", "i", n) for n in (8, 16, 32, 64))
U8, U16, U32, U64 = (DType(f"u{n}", "u", n) for n in (8, 16, 32, 64))
F16, F32, F64 = (DType(f"f{n}", "f", n) for n in (16, 32, 64))
BF16 = DType("bf16", "f", 16)
C64, C128 = (DType(f"c{n}", "c", n) for n in (64, 128))

DTYPES: dict[str, DType] = {
    d.name: d for d in (BOOL, I8, I16, I32, I64, U8, U16, U32, U64, F16, BF16, F32, F64, C64, C128)
}
SIGNIFICAND = {BF16: 8, F16: 11, F32: 24, F64: 53}  # bits, the leading one included
SIGNED = (I8, I16, I32, I64)
UNSIGNED = (U8, U16, U32, U64)
INTEGERS = SIGNED + UNSIGNED
HALVES = (F16, BF16)
FLOATS = (*HALVES, F32, F64)
COMPLEXES = (C64, C128)
NUMERIC = INTEGERS + FLOATS + COMPLEXES
REAL = INTEGERS + FLOATS
ALL = (BOOL, *NUMERIC)

_NUMPY = {
    d.name: np.dtype(np.bool_ if d is BOOL else f"{d.kind}{d.bits // 8}") for d in DTYPES.values() if d is not BF16
}
_FROM_NUMPY = {v: DTYPES[k] for k, v in _NUMPY.items()}


def bfloat16_dtype() -> np.dtype[Any]:
    """The NumPy dtype of bfloat16; ImportError without the package ml_dtypes."""
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("bfloat16 needs the package ml_dtypes; install it: pip install 'dflow[bf16]'") from None
    dtype = _NUMPY["bf16"] = np.dtype(ml_dtypes.bfloat16)
    _FROM_NUMPY[dtype] = BF16
    return dtype


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "V" and dtype.name == "bfloat16"


def finfo(dtype: Any) -> Any:
    """``np.finfo``, which refuses bfloat16."""
    if not (isinstance(dtype, np.dtype | type) and is_bfloat16(np.dtype(dtype))):
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


def kind_of(dtype: Any) -> str:
    """The kind of a NumPy dtype, as `DType` has it: NumPy takes bfloat16 for a structure of two bytes."""
    return "f" if is_bfloat16(dtype) else dtype.kind


def dtype_of(dtype: Any) -> DType:
    """The ``DType`` of a NumPy dtype (or anything ``np.dtype`` takes); TypeError when the IR has none."""
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, np.dtype) and dtype in _FROM_NUMPY:
        return _FROM_NUMPY[dtype]
    if isinstance(dtype, str) and dtype == "bfloat16":
        dtype = bfloat16_dtype()
    found = _FROM_NUMPY.get(np.dtype(dtype).newbyteorder("="))
    if found is None:
        if is_bfloat16(np.dtype(dtype)):
            return BF16
        raise TypeError(f"dtype {np.dtype(dtype)} is not supported; supported are {', '.join(DTYPES)}")
    return found


@dataclass(frozen=True)
class Size:
    """A size known when the program runs: the index ``value`` (an ``i64`` scalar), never above ``bound``."""

    value: Value
    bound: int

    def __repr__(self) -> str:
        return f"%{self.value.hint or '?'}<={self.bound}"


class _Grows:
    def __repr__(self) -> str:
        return "*"


GROWS = _Grows()
Dim = int | Size | _Grows


@dataclass(frozen=True)
class TensorType:
    """An immutable tensor; rank 0 is a scalar.

    Passes ask most of all for what is kept here once it is known; values share their types.
    """

    dtype: DType
    shape: tuple[Dim, ...] = ()

    @cached_property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_scalar(self) -> bool:
        return not self.shape

    @cached_property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    @property
    def grows(self) -> bool:
        return bool(self.shape) and self.shape[0] is GROWS

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints; only for static types."""
        assert self.is_static, f"{self} has no static shape"
        return self.shape  # type: ignore[return-value]

    @property
    def bound(self) -> tuple[int, ...]:
        """The shape with every size replaced by its upper bound (not for sequences)."""
        return tuple(d.bound if isinstance(d, Size) else d for d in self.shape)  # type: ignore[misc]

    @cached_property
    def size_values(self) -> tuple[Value, ...]:
        """The index values that the shape depends on; an occurrence of the type is a use of them."""
        return tuple(d.value for d in self.shape if isinstance(d, Size))

    def with_shape(self, shape: tuple[Dim, ...]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __repr__(self) -> str:
        if not self.shape:
            return self.dtype.name
        return f"{self.dtype.name}[{', '.join(map(repr, self.shape))}]"


def scalar(dtype: DType) -> TensorType:
    return TensorType(dtype)


def type_of_array(array: Any) -> TensorType:
    a = np.asarray(array)
    return TensorType(dtype_of(a.dtype), a.shape)
