"""Instructions that compute numbers from numbers, as functions of decoded arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx.bits import BITS
from ptx.convert import conversion
from ptx.faults import IllegalInstruction
from ptx.fma import fma
from ptx.values import Array, Type, type_named

Operation = Callable[..., Array]
_PRED, _B32 = type_named("pred"), type_named("b32")


@dataclass(frozen=True)
class Elementwise:
    """``run`` takes numbers of the types ``sources`` and gives numbers of the type ``result``."""

    sources: tuple[Type, ...]
    result: Type
    run: Operation


def elementwise(parts: Sequence[str], operands: int) -> Elementwise | None:
    """What an opcode (split at its dots) computes; None when it is no such instruction."""
    name, modifiers = parts[0], parts[1:]
    if name == "cvt":
        return Elementwise(*conversion(modifiers))
    if name == "setp":
        return _comparison(modifiers, operands)
    if name not in _KNOWN or len(parts) < 2:
        return None
    t = type_named(modifiers[-1])
    if name == "selp":
        return Elementwise((t, t, _PRED), t, lambda a, b, p: np.where(p, a, b))
    if name == "testp":
        return Elementwise((t,), _PRED, _TESTS[modifiers[0]])
    if name in ("mul", "mad") and not t.is_float:
        return _multiplication(name, modifiers[0], t)
    if name in BITS:
        sources, result, run = BITS[name](t, modifiers)
        return Elementwise(sources, result, run)
    count, make = (_FLOAT if t.is_float else _INTEGER).get(name, (0, None))
    if make is None:
        raise IllegalInstruction(".".join(parts))
    return Elementwise((t,) * count, t, _modified(make(t, modifiers), modifiers))


def _modified(run: Operation, modifiers: Sequence[str]) -> Operation:
    if "ftz" in modifiers:
        inner = run

        def run(*xs: Array) -> Array:
            return flushed(inner(*map(flushed, xs)))

    if "sat" in modifiers:
        return lambda *xs: saturated(run(*xs))
    return run


def flushed(x: Array) -> Array:
    """With subnormal numbers replaced by zeros of their sign."""
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), x)


def saturated(x: Array) -> Array:
    """In [0, 1], NaN as 0."""
    return np.where(np.isnan(x), x.dtype.type(0), np.clip(x, x.dtype.type(0), x.dtype.type(1)))


# --- comparisons

_COMPARE: dict[str, Operation] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
_COMBINE: dict[str, Operation] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def _compare(kind: str, is_float: bool) -> Operation:
    if kind == "num":
        return lambda a, b: ~(np.isnan(a) | np.isnan(b))
    if kind == "nan":
        return lambda a, b: np.isnan(a) | np.isnan(b)
    if not is_float:
        return _COMPARE[kind]
    if kind == "ne":  # ordered, unlike that of NumPy
        return lambda a, b: (a < b) | (a > b)
    if kind.endswith("u") and kind[:-1] in _COMPARE:
        run = _COMPARE[kind[:-1]]
        return lambda a, b: run(a, b) | np.isnan(a) | np.isnan(b)
    return _COMPARE[kind]


def _comparison(modifiers: Sequence[str], operands: int) -> Elementwise:
    t = type_named(modifiers[-1])
    run = _compare(modifiers[0], t.is_float)
    if operands == 3:
        return Elementwise((t, t), _PRED, run)
    combine = _COMBINE[modifiers[1]]
    return Elementwise((t, t, _PRED), _PRED, lambda a, b, p: combine(run(a, b), p))


# --- floats


def minimum(low: bool) -> Callable[[Type, Sequence[str]], Operation]:
    def make(t: Type, modifiers: Sequence[str]) -> Operation:
        if "NaN" in modifiers:
            pick: Any = np.minimum if low else np.maximum
        else:
            pick = np.fmin if low else np.fmax
        sign = np.logical_or if low else np.logical_and  # -0 is below +0

        def run(a: Array, b: Array) -> Array:
            found = pick(a, b)
            zeros = (a == 0) & (b == 0)
            if not np.count_nonzero(zeros):
                return np.asarray(found)
            zero = np.where(sign(np.signbit(a), np.signbit(b)), a.dtype.type(-0.0), a.dtype.type(0.0))
            return np.where(zeros, zero, found)

        return run

    return make


def _rounded(exact: Operation) -> Callable[[Type, Sequence[str]], Operation]:
    """For what is rounded to nearest. Other roundings are for intervals, which nobody computes."""

    def make(t: Type, modifiers: Sequence[str]) -> Operation:
        for other in ("rz", "rm", "rp"):
            if other in modifiers:
                raise IllegalInstruction(f"rounding .{other}")
        return exact

    return make


def _plain(run: Operation) -> Callable[[Type, Sequence[str]], Operation]:
    return lambda t, modifiers: run


_FLOAT: dict[str, tuple[int, Callable[[Type, Sequence[str]], Operation]]] = {
    "add": (2, _rounded(np.add)),
    "sub": (2, _rounded(np.subtract)),
    "mul": (2, _rounded(np.multiply)),
    "fma": (3, _rounded(fma)),
    "mad": (3, _rounded(fma)),
    "div": (2, _rounded(np.divide)),
    "rcp": (1, _rounded(lambda a: a.dtype.type(1) / a)),
    "sqrt": (1, _rounded(np.sqrt)),
    "rsqrt": (1, _plain(lambda a: a.dtype.type(1) / np.sqrt(a))),
    "ex2": (1, _plain(np.exp2)),
    "lg2": (1, _plain(np.log2)),
    "sin": (1, _plain(np.sin)),
    "cos": (1, _plain(np.cos)),
    "tanh": (1, _plain(np.tanh)),
    "abs": (1, _plain(np.abs)),
    "neg": (1, _plain(np.negative)),
    "copysign": (2, _plain(lambda a, b: np.copysign(b, a))),
    "min": (2, minimum(True)),
    "max": (2, minimum(False)),
}


def _is_normal(x: Array) -> Array:
    return np.isfinite(x) & (np.abs(x) >= np.finfo(x.dtype).tiny)


_TESTS: dict[str, Operation] = {
    "finite": np.isfinite,
    "infinite": np.isinf,
    "number": lambda x: ~np.isnan(x),
    "notanumber": np.isnan,
    "normal": _is_normal,
    "subnormal": lambda x: np.isfinite(x) & (x != 0) & ~_is_normal(x),
}


# --- integers


def _quotient(a: Array, b: Array) -> Array:
    """Rounded to zero; all bits set for a divisor of zero, as the hardware gives."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        return np.where(b == 0, ~b.dtype.type(0), a // safe)
    least = (safe == -1) & (a == np.iinfo(a.dtype).min)
    safe = np.where(least, a.dtype.type(1), safe)
    return np.where(b == 0, a.dtype.type(-1), (a - np.fmod(a, safe)) // safe)


def _remainder(a: Array, b: Array) -> Array:
    safe = np.where(b == 0, b.dtype.type(1), b)
    if a.dtype.kind == "i":
        safe = np.where(safe == -1, a.dtype.type(1), safe)  # 0, and no overflow
    return np.where(b == 0, a, np.fmod(a, safe))


def _saturating(wide: Operation) -> Callable[[Type, Sequence[str]], Operation]:
    def make(t: Type, modifiers: Sequence[str]) -> Operation:
        if "sat" not in modifiers:
            return wide
        info = np.iinfo(np.int32)
        return lambda a, b: np.clip(wide(a.astype(np.int64), b.astype(np.int64)), info.min, info.max).astype(np.int32)

    return make


_INTEGER: dict[str, tuple[int, Callable[[Type, Sequence[str]], Operation]]] = {
    "add": (2, _saturating(np.add)),
    "sub": (2, _saturating(np.subtract)),
    "div": (2, _plain(_quotient)),
    "rem": (2, _plain(_remainder)),
    "min": (2, _plain(np.minimum)),
    "max": (2, _plain(np.maximum)),
    "abs": (1, _plain(np.abs)),
    "neg": (1, _plain(np.negative)),
    "sad": (3, _plain(lambda a, b, c: c + np.where(a < b, b - a, a - b))),
}


def _high(a: Array, b: Array) -> Array:
    """The upper halves of products."""
    bits = a.dtype.itemsize * 8
    if bits < 64:
        wide = np.int64 if a.dtype.kind == "i" else np.uint64
        return ((a.astype(wide) * b.astype(wide)) >> wide(bits)).astype(a.dtype)
    x, y, half, low = a.view(np.uint64), b.view(np.uint64), np.uint64(32), np.uint64(0xFFFFFFFF)
    middle = (x >> half) * (y & low) + ((x & low) * (y & low) >> half)
    other = (x & low) * (y >> half) + (middle & low)
    high = (x >> half) * (y >> half) + (middle >> half) + (other >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
        return high.view(np.int64)
    return high


def _multiplication(name: str, part: str, t: Type) -> Elementwise:
    if part == "wide":
        result = type_named(f"{t.kind}{2 * t.bits}")
        run: Operation = lambda a, b: a.astype(result.number) * b.astype(result.number)  # noqa: E731
    else:
        result, run = t, {"lo": np.multiply, "hi": _high}[part]
    if name == "mul":
        return Elementwise((t, t), result, run)
    return Elementwise((t, t, result), result, lambda a, b, c: run(a, b) + c)


_KNOWN = {*_FLOAT, *_INTEGER, *BITS, "selp", "testp", "mul", "mad"}
