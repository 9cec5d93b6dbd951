"""Products of matrices by functions that all programs share, which take transposed matrices as they lie: those of
`gemm.py`, and of BLAS for complex numbers.

%t = transpose %x {perm = (1, 0)}
%z = matmul %t, %y                    ->        %z = gemm %x, %y {transposed = (true, false)}
"""

from __future__ import annotations

from dflow.ir.core import Op, Value
from dflow.ir.types import Dim

GEMM = "dflow_gemm_"  # and a dtype: the names of the functions of `gemm.py`
GENERATED = 256**3  # up to this many multiplications a call is no faster
COPIED = 32**3  # the same for `gemm.py`, unless an axis is NARROW: it copies matrices, to read them again and again
NARROW = 8
NEAR = 512**2  # elements of the second factor, which the caches hold
BLAS = {"c128": "zgemm", "c64": "cgemm"}
OWN = ("f64", "f32")


def inner_size(op: Op) -> Dim:
    """The size of the axes that a product is a sum over."""
    transposed = op.attrs.get("transposed", (False, False))
    return op.operands[0].type.shape[-2 if transposed[0] else -1]


def is_large(op: Op) -> bool:
    """Whether a product is worth a call."""
    dtype, sizes = op.result.type.dtype, (*op.result.type.shape[-2:], inner_size(op))
    if dtype.name not in (*OWN, *BLAS) or 1 in sizes[:2]:
        return False
    m, n, k = sizes
    if not (isinstance(m, int) and isinstance(n, int) and isinstance(k, int)):
        return True
    most = COPIED if dtype.name in OWN and min(m, n, k) > NARROW else GENERATED
    return m * n * k > most or n * k > NEAR


def is_square(op: Op) -> bool:
    """Whether a product is of a matrix by itself transposed, and so symmetric."""
    x, y = op.operands
    turned_x, turned_y = op.attrs.get("transposed", (False, False))
    return x is y and turned_x != turned_y


def turned(v: Value) -> Value | None:
    """The tensor that ``v`` is with its last two axes exchanged, if it is made so."""
    op, n = v.op, v.type.rank
    if op is None or op.name != "transpose" or op.attrs["perm"] != (*range(n - 2), n - 1, n - 2):
        return None
    return op.operands[0]


def takes_turned(op: Op, operand: int) -> bool:
    """Whether an operand is a transposed tensor, which the product takes as it lies."""
    return op.name == "matmul" and is_large(op) and turned(op.operands[operand]) is not None
