"""Conversions of f16 without instructions for it (`backends/native/half_conversions.py`), beside NumPy's."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from dflow.backends.native import half_conversions
from dflow.backends.native.engine import load_for_good

TYPES = {"f32": ("float", np.float32), "f64": ("double", np.float64)}

CALLERS = "".join(
    f"""
define void @from_{dtype}(ptr %x, ptr %y) {{
  %v = load {name}, ptr %x
  %r = call half @__trunc{letter}fhf2({name} %v)
  store half %r, ptr %y
  ret void
}}
"""
    for dtype, (name, _), letter in zip(TYPES, TYPES.values(), "sd")
)
TO_F32 = """
define void @to_f32(ptr %x, ptr %y) {
  %v = load half, ptr %x
  %r = call float @__extendhfsf2(half %v)
  store float %r, ptr %y
  ret void
}
"""


@pytest.fixture(scope="module")
def functions():
    names = ("from_f32", "from_f64", "to_f32")
    made = load_for_good("f16 test", lambda: (half_conversions.TEXT + CALLERS + TO_F32, names), {})
    return {n: ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(a) for n, a in made.items()}


def converted(f, x, dtype):
    found = np.empty(x.shape, dtype)
    for n in range(x.size):
        f(x.ctypes.data + n * x.itemsize, found.ctypes.data + n * found.itemsize)
    return found


def test_every_half_becomes_a_float(functions):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(converted(functions["to_f32"], halves, np.float32), halves.astype(np.float32))


@pytest.mark.parametrize("name", TYPES)
def test_floats_are_rounded_once(functions, name):
    dtype = TYPES[name][1]
    rng = np.random.default_rng(0)
    halves = np.arange(1 << 15, dtype=np.uint16).view(np.float16)[:31744:7].astype(dtype)
    ties = halves[:-1] + np.diff(halves) / 2  # between two neighbours
    near = [np.nextafter(ties, dtype(s)) for s in (-np.inf, np.inf)]
    spread = rng.standard_normal(3000) * 2.0 ** rng.integers(-30, 20, 3000)
    corners = [0.0, np.inf, np.nan, 65504, 65519.996, 65520, 1e30, 1e-30, np.finfo(dtype).tiny, 5e-324]
    x = np.concatenate([halves, ties, *near, spread, corners]).astype(dtype)
    x = np.concatenate([x, -x])
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16)
    found = converted(functions[f"from_{name}"], x, np.float16)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))
