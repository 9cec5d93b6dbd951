"""Fused multiply-add with one rounding, which NumPy lacks: the processor's, through LLVM."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np

_LOOP = """
declare {t} @llvm.fma.{n}({t}, {t}, {t})
define void @fma_{n}(ptr noalias %a, ptr noalias %b, ptr noalias %c, ptr noalias %out, i64 %count) {{
entry:
  br label %head
head:
  %k = phi i64 [0, %entry], [%next, %body]
  %more = icmp slt i64 %k, %count
  br i1 %more, label %body, label %done
body:
  %pa = getelementptr {t}, ptr %a, i64 %k
  %pb = getelementptr {t}, ptr %b, i64 %k
  %pc = getelementptr {t}, ptr %c, i64 %k
  %po = getelementptr {t}, ptr %out, i64 %k
  %x = load {t}, ptr %pa
  %y = load {t}, ptr %pb
  %z = load {t}, ptr %pc
  %r = call {t} @llvm.fma.{n}({t} %x, {t} %y, {t} %z)
  store {t} %r, ptr %po
  %next = add i64 %k, 1
  br label %head
done:
  ret void
}}
"""


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a * b + c`` of float16, float32 or float64 arrays."""
    dtype = max(x.dtype for x in (a, b, c))
    if dtype == np.float16:
        # A product of two is exact in float64, and so is the sum but for the smallest of numbers.
        return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float16)
    single, many = _functions(dtype.char)
    if a.size == b.size == c.size == 1:
        return np.array([single(a.item(), b.item(), c.item())], dtype).reshape(a.shape)
    a, b, c = (np.ascontiguousarray(x) for x in np.broadcast_arrays(a, b, c))
    out = np.empty_like(a)
    many(a.ctypes.data, b.ctypes.data, c.ctypes.data, out.ctypes.data, a.size)
    return out


@functools.cache
def _functions(char: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Of one number, by the C library; of arrays."""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    single = {"f": libm.fmaf, "d": libm.fma}[char]
    c_type = {"f": ctypes.c_float, "d": ctypes.c_double}[char]
    single.argtypes, single.restype = [c_type] * 3, c_type
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_int64)
    return single, prototype(_engine().get_function_address(f"fma_{_NAMES[char]}"))


_NAMES = {"f": "f32", "d": "f64"}


@functools.cache
def _engine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    text = _LOOP.format(t="float", n="f32") + _LOOP.format(t="double", n="f64")
    return llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
