"""``cvt``: conversions between numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ptx.values import Array, Type, type_named

_ROUND: dict[str, Callable[[Array], Array]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}


def conversion(modifiers: Sequence[str]) -> tuple[tuple[Type, ...], Type, Callable[..., Array]]:
    """The types of the sources and of the result, and what computes it."""
    result, source = type_named(modifiers[-2]), type_named(modifiers[-1])
    options = modifiers[:-2]
    if result.packed:  # the first operand goes to the upper half
        half = type_named(result.name.removesuffix("x2"))
        run = _conversion(half, source, options)
        return (source, source), result, lambda a, b: np.stack([run(b), run(a)], axis=-1)
    return (source,), result, _conversion(result, source, options)


def _conversion(result: Type, source: Type, options: Sequence[str]) -> Callable[[Array], Array]:
    rounding = next((_ROUND[o] for o in options if o in _ROUND), None)
    if source.is_float and not result.is_float:
        return lambda x: _to_integer((rounding or np.trunc)(x), result, source)
    if not source.is_float and not result.is_float:
        return lambda x: _between_integers(x, result, "sat" in options)
    towards_zero = "rz" in options

    def to_float(x: Array) -> Array:
        y = rounding(x) if rounding else x
        if "relu" in options:
            y = np.where(y > 0, y, y.dtype.type(0))
        if "sat" in options:
            y = np.where(np.isnan(y), y.dtype.type(0), np.clip(y, 0, 1))
        made = y.astype(result.number)
        return _cut(made, y) if towards_zero and made.dtype != y.dtype else made

    return to_float


def _cut(rounded: Array, exact: Array) -> Array:
    """The neighbour towards zero of what was rounded away from it."""
    away = np.abs(rounded.astype(np.float64)) > np.abs(exact.astype(np.float64))
    return np.where(away, np.nextafter(rounded, rounded.dtype.type(0)), rounded)


def _to_integer(x: Array, result: Type, source: Type) -> Array:
    """Clamped to the range. NaN is 0, but when 64 bits are involved the number with the top bit alone."""
    info = np.iinfo(result.number)
    wide = x.astype(np.float64)
    high, low = wide >= float(info.max) + (result.bits < 64), wide < float(info.min)
    inside = np.where(np.isnan(wide) | high | low, 0.0, wide)
    made = inside.astype(result.number)
    made = np.where(high, result.number(info.max), np.where(low, result.number(info.min), made))
    top = 0 if result.bits < 64 and source.bits < 64 else info.min or 1 << (result.bits - 1)
    return np.where(np.isnan(wide), result.number(top), made)


def _between_integers(x: Array, result: Type, saturate: bool) -> Array:
    if not saturate:
        return x.astype(result.number)
    info = np.iinfo(result.number)
    low, high = max(info.min, int(np.iinfo(x.dtype).min)), min(info.max, int(np.iinfo(x.dtype).max))
    return np.clip(x, x.dtype.type(low), x.dtype.type(high)).astype(result.number)
