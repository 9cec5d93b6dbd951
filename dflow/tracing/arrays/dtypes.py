"""NumPy's rules for dtypes, which leave out bfloat16: promotion, casting and limits with it among the others.

Beside floats bfloat16 stands where float16 does, and the two of them together give float32. It stays bfloat16 beside
integers, bools and Python's numbers; with a Python complex number it is complex64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.ir.types import bfloat16_dtype, is_bfloat16, kind_of

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
_WHOLE = "biu"


def result_type(*kinds: Any) -> np.dtype[Any]:
    """``np.result_type`` of dtypes and of Python's numbers."""
    kinds = tuple(np.dtype(k) if isinstance(k, type) else k for k in kinds)
    if not any(map(_is_bfloat16, kinds)):
        return np.dtype(np.result_type(*kinds))
    others = [k for k in kinds if not _is_bfloat16(k)]
    if all(_is_narrower(k) for k in others):
        return bfloat16_dtype()
    return np.dtype(np.result_type(SINGLE if HALF in others else HALF, *others))


def _is_bfloat16(x: Any) -> bool:
    return isinstance(x, np.dtype) and is_bfloat16(x)


def _is_narrower(x: Any) -> bool:
    """Whether a number is taken for a bfloat16 beside one."""
    return x.kind in _WHOLE if isinstance(x, np.dtype) else isinstance(x, int | float)


def loop_dtypes(ufunc: np.ufunc, kinds: Sequence[Any], dtype: Any, casting: Any) -> tuple[np.dtype[Any], ...]:
    """``ufunc.resolve_dtypes``: the dtypes of the operands and results of a ufunc's loop, for dtypes or the types of
    Python's numbers; ``dtype`` is that of the results, where it is given."""
    wanted = None if dtype is None else np.dtype(dtype)
    if not any(_is_bfloat16(k) for k in (*kinds, wanted)):
        return _resolved(ufunc, kinds, wanted, casting)
    examples = [k if isinstance(k, np.dtype) else k() for k in kinds]
    common = result_type(*examples) if wanted is None else wanted
    if not is_bfloat16(common):
        return _resolved(ufunc, [common if _is_bfloat16(k) else k for k in kinds], wanted, casting)
    whole = ufunc is np.ldexp  # which keeps its integers
    given = [k if whole and isinstance(k, np.dtype) and k.kind in _WHOLE else HALF for k in kinds]
    found = _resolved(ufunc, given, None if wanted is None else HALF, casting)
    return tuple(common if d == HALF else d for d in found)


def _resolved(ufunc: np.ufunc, kinds: Sequence[Any], dtype: Any, casting: Any) -> tuple[np.dtype[Any], ...]:
    nothing = (None,) * ufunc.nout
    if dtype is None:
        return ufunc.resolve_dtypes((*kinds, *nothing), casting=casting)
    signature = (*(None,) * ufunc.nin, *(dtype,) * ufunc.nout)
    return ufunc.resolve_dtypes((*kinds, *nothing), signature=signature, casting=casting)


def can_cast(source: Any, target: Any, casting: Any = "safe") -> bool:
    """``np.can_cast`` of a dtype to another."""
    source, target = np.dtype(source), np.dtype(target)
    if not (is_bfloat16(source) or is_bfloat16(target)) or source == target:
        return np.can_cast(source, target, casting)
    if {kind_of(d) for d in (source, target)} == {"f"} and source.itemsize == target.itemsize:
        return casting in ("same_kind", "unsafe")
    source, target = (HALF if is_bfloat16(d) else d for d in (source, target))
    return np.can_cast(source, target, casting)
