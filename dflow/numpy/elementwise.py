"""Ufuncs on traced arrays, and the elementwise functions that NumPy composes from them.

Dtypes are those of NumPy's own inner loops (``ufunc.resolve_dtypes``), so promotion is NumPy's by construction.

Kinks: ``clip``, ``maximum`` and ``minimum`` share the derivative between equal operands; ``abs`` and ``sign`` have 0
at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.ir.types import finfo, kind_of
from dflow.numpy import support as s
from dflow.numpy import ufunc_rules
from dflow.numpy.dispatch import UFUNC_METHODS, UFUNCS, implements, located, name_of, public
from dflow.tracing.arrays import dtypes, masks
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.layouts import in_order
from dflow.tracing.arrays.lift import elementwise, lift, wrap
from dflow.tracing.context import builder


def apply(
    ufunc: np.ufunc,
    *args: Any,
    out: Any = None,
    where: Any = True,
    dtype: Any = None,
    casting: Any = "same_kind",
    order: str = "K",
    subok: bool = True,
    **unknown: Any,
) -> Any:
    """A ufunc on traced arrays; subclasses do not exist there."""
    for name in unknown:
        raise TypeError(f"{name_of(ufunc)} got an unexpected keyword argument {name!r}")
    if len(args) > ufunc.nin:
        args, out = args[: ufunc.nin], args[ufunc.nin :]
    if len(args) < ufunc.nin:
        raise TypeError(f"{name_of(ufunc)} takes {ufunc.nin} arrays, got {len(args)}")
    arrays = [lift(a) for a in args]
    if ufunc in COMPARED and all(a.dtype.kind in "iu" for a in arrays) and dtype is None:
        return _finish(elementwise(COMPARED[ufunc], *arrays).value, out, where)
    loop = loop_dtypes(ufunc, arrays, dtype, casting)
    operands = s.broadcast(*(s.cast_operand(a, d) for a, d in zip(arrays, loop)))
    if where is not True and ufunc.__name__ in REGULAR:
        operands = _regular(operands, where, REGULAR[ufunc.__name__])
    rule = ufunc_rules.rule_for(ufunc.__name__, operands[0].type.dtype)
    if ufunc.__name__ != "ldexp" and any(v.type.dtype != operands[0].type.dtype for v in operands):
        listed = " and ".join(str(v.type.dtype.numpy) for v in operands)
        raise TypeError(f"np.{ufunc.__name__} of {listed} is not supported on traced arrays; convert one with astype")
    results = rule(builder(), *operands)
    results = list(results) if isinstance(results, list | tuple) else [results]
    outs = out if isinstance(out, tuple) else (out,) * 1
    outs = (*outs, *(None,) * (len(results) - len(outs)))
    finished = tuple(_finish(v, o, where) for v, o in zip(results, outs))
    if out is None:
        finished = tuple(in_order(x, order) for x in finished)
    return finished[0] if ufunc.nout == 1 else finished


# Integers are compared by their values, whatever their dtypes.
COMPARED: dict[np.ufunc, str] = {
    **{np.equal: "eq", np.not_equal: "ne", np.less: "lt"},
    **{np.less_equal: "le", np.greater: "gt", np.greater_equal: "ge"},
}
# Functions with places where they have no derivative, and a place where they have one.
REGULAR = {
    **dict.fromkeys(("divide", "power", "float_power", "reciprocal", "hypot", "arctan2"), 1.0),
    **dict.fromkeys(("sqrt", "cbrt", "log", "log2", "log10", "log1p", "arcsin", "arccos", "arctanh"), 0.5),
    "arccosh": 2.0,
}


def _regular(operands: Sequence[Value], where: Any, number: float) -> list[Value]:
    """The operands, with ``number`` for what ``where=`` leaves out, so that nothing of it is in a derivative."""
    mask, *values = s.broadcast(s.cast(lift(where).value, bool), *operands)
    return [builder().select(mask, v, s.full(v.type.shape, number, v.type.dtype.numpy)) for v in values]


def loop_dtypes(ufunc: np.ufunc, arrays: Sequence[Array], dtype: Any, casting: Any) -> Any:
    """The dtypes to compute in, for operands and results: NumPy's, but the logical functions take bools alone."""
    if ufunc.__name__.startswith("logical_"):
        return (np.dtype(bool),) * ufunc.nargs
    return dtypes.loop_dtypes(ufunc, [*map(s.weak_or_dtype, arrays)], dtype, casting)


def _finish(v: Value, out: Any, where: Any) -> Array:
    """Applies ``where=`` (elements that it leaves out stay as they were, or zero in a fresh result) and ``out=``."""
    if where is not True:
        (out,) = out if isinstance(out, tuple) else (out,)
        if out is None:
            old = s.full((), 0, v.type.dtype.numpy)
        else:
            old = lift(out).value
            v = s.cast_to(v, old.type.dtype.numpy)
        v = builder().select(*s.broadcast(s.cast(lift(where).value, bool), v, old))
    return s.result(v, out)


def _ufunc(ufunc: np.ufunc) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return apply(ufunc, *args, **kwargs)

    call.__name__ = call.__qualname__ = ufunc.__name__
    call.__doc__ = f"``np.{ufunc.__name__}`` of traced arrays."
    UFUNCS[ufunc] = located(call)
    UFUNC_METHODS[ufunc, "outer"] = lambda x, y, **kw: apply(ufunc, _column(lift(x), s.dims(y)), y, **kw)
    return public(ufunc, call)


def _column(x: Array, shape: s.Shape) -> Array:
    return wrap(s.reshaped(x.value, (*s.dims(x), *(1,) * len(shape))))


# The public functions by name; the package exports them with NumPy's other names for them.
PUBLIC: dict[str, Any] = {name: _ufunc(getattr(np, name)) for name in ufunc_rules.NAMES}
ALIASES = {
    **{"abs": "absolute", "true_divide": "divide", "mod": "remainder", "conj": "conjugate", "bitwise_not": "invert"},
    **{"pow": "power", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh"},
    **{"atanh": "arctanh", "atan2": "arctan2", "bitwise_left_shift": "left_shift", "bitwise_invert": "invert"},
    **{"bitwise_right_shift": "right_shift"},
}
PUBLIC.update({alias: PUBLIC[name] for alias, name in ALIASES.items()})


def _as_operator(ufunc: np.ufunc) -> Any:
    """The function that Python's operator calls: Python numbers give Python numbers."""

    def call(x: Any, y: Any, **kwargs: Any) -> Any:
        arrays = [lift(x), lift(y)]
        if not all(a.weak for a in arrays):
            return apply(ufunc, x, y, **kwargs)
        arrays = [s.as_dtype(a, np.int64) if a.dtype.kind == "b" else a for a in arrays]
        whole = all(a.dtype.kind in "biu" for a in arrays)
        if ufunc is np.power and whole and (s.constant_of(arrays[1].value) or 0) < 0:
            arrays = [s.as_dtype(a, np.float64) for a in arrays]
        out = apply(ufunc, *arrays, **kwargs)
        return tuple(wrap(o.value, True) for o in out) if isinstance(out, tuple) else wrap(out.value, True)

    call.__name__ = call.__qualname__ = ufunc.__name__
    return public(ufunc, call)


PUBLIC["power"], PUBLIC["divmod"] = _as_operator(np.power), _as_operator(np.divmod)


# -- selection -------------------------------------------------------------------------------------------------------


@implements(np.where)
def where(condition: Any, x: Any = None, y: Any = None, /) -> Any:
    """``x`` where the condition holds, ``y`` elsewhere; the choice that is not taken adds nothing to derivatives."""
    if x is None and y is None:
        return tuple(masks.nonzero(s.cast(lift(condition).value, bool)))
    if x is None or y is None:
        raise ValueError("either both or neither of x and y should be given")
    dtype = s.result_type(lift(x), lift(y))
    return wrap(_choose(lift(condition), s.cast_operand(lift(x), dtype), s.cast_operand(lift(y), dtype)))


def _choose(condition: Array, x: Value, y: Value) -> Value:
    return builder().select(*s.broadcast(s.cast(condition.value, bool), x, y))


@implements(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Array:
    if len(condlist) != len(choicelist):
        raise ValueError("list of cases must be same length as list of conditions")
    for k, condition in enumerate(condlist):
        if lift(condition).dtype.kind != "b":
            raise TypeError(f"invalid entry {k} in condlist: should be boolean ndarray")
    out = lift(default)
    for condition, choice in zip(reversed(list(condlist)), reversed(list(choicelist))):
        out = where.__wrapped__(condition, choice, out)
    dtype = s.result_type(*map(lift, choicelist), lift(default))
    return s.as_dtype(out, dtype)


@implements(np.clip)
def clip(
    a: Any, /, min: Any = None, max: Any = None, out: Any = None, *, a_min: Any = None, a_max: Any = None
) -> Array:
    low, high = a_min if min is None else min, a_max if max is None else max
    if lift(a).dtype.kind in "iu":  # Python integers beyond the dtype bound nothing
        limits = np.iinfo(lift(a).dtype)
        low = None if type(low) is int and low <= limits.min else low
        high = None if type(high) is int and high >= limits.max else high
    bounds = [lift(x) for x in (low, high) if x is not None]
    dtype = s.result_type(lift(a), *bounds)
    v = s.cast_operand(lift(a), dtype)
    for op, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            rule = ufunc_rules.rule_for(op, s.dtype_of(dtype))
            v = rule(builder(), *s.broadcast(v, s.cast_operand(lift(bound), dtype)))
    return s.result(v, out)


@implements(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Array:
    x = lift(x)
    if x.dtype.kind == "c":
        parts = (nan_to_num.__wrapped__(p.__wrapped__(x), True, nan, posinf, neginf).value for p in (real, imag))
        return s.result(builder().emit("complex", *parts), None if copy else x)
    if kind_of(x.dtype) != "f":
        return s.result(x.value, None if copy else x)
    limits, b, v = finfo(x.dtype), builder(), x.value
    high, low = limits.max if posinf is None else posinf, limits.min if neginf is None else neginf
    number, high, low = (s.expand(s.cast(lift(c).value, x.dtype), s.dims(x)) for c in (nan, float(high), float(low)))
    infinite = b.select(b.isinf(v), b.select(b.gt(v, 0.0), high, low), v)
    return s.result(b.select(b.isnan(v), number, infinite), None if copy else x)


# -- rounding, tests, complex parts of real numbers ------------------------------------------------------------------


@implements(np.round, np.around)
def round(a: Any, decimals: int = 0, out: Any = None) -> Array:
    a, decimals = lift(a), s.static_int(decimals, "decimals")
    if a.dtype.kind == "c":
        parts = (round.__wrapped__(part.__wrapped__(a), decimals).value for part in (real, imag))
        return s.result(builder().emit("complex", *parts), out)
    if kind_of(a.dtype) != "f":
        if a.dtype.kind == "b":
            raise TypeError(f"np.round of {a.dtype} to {decimals} decimals is not supported on traced arrays")
        if decimals >= 0:
            return s.result(a.value, out)
        tens = round.__wrapped__(a.astype(np.float64), decimals)  # by way of floats, as NumPy does
        return s.result(tens.astype(a.dtype).value, out)
    b, scale = builder(), 10.0 ** math.fabs(decimals)
    if decimals == 0:
        return s.result(b.round(a.value), out)
    there, back = (b.mul, b.div) if decimals > 0 else (b.div, b.mul)
    scaled = wrap(there(a.value, scale))
    if out is not None and kind_of(out.dtype) == "f":
        scaled = scaled.astype(out.dtype)  # what follows is computed in the array for the result, as in NumPy
    return s.result(back(b.round(scaled.value), scale), out)


@implements(np.fix)
def fix(x: Any, out: Any = None) -> Array:
    return apply(np.trunc, x, out=out)


def _infinite(compare: str) -> Any:
    def test(x: Any, out: Any = None) -> Array:
        x, b = lift(x), builder()
        if x.dtype.kind == "c":
            raise TypeError(f"This operation is not supported for {x.dtype} values because it would be ambiguous.")
        v = b.full(False, x.value.type.with_dtype(s.dtype_of(bool)))
        if kind_of(x.dtype) == "f":
            v = b.and_(b.isinf(x.value), b.emit(compare, x.value, b.zeros(x.value.type)))
        return s.result(v, out)

    return test


isposinf = implements(np.isposinf)(_infinite("gt"))
isneginf = implements(np.isneginf)(_infinite("lt"))


@implements(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> Array:
    x, y = lift(a), lift(b)
    y = wrap(s.cast(y.value, s.result_type(y, 1.0)), y.weak) if y.dtype.kind in "biu" else y
    near = apply(np.less_equal, abs(x - y), atol + rtol * abs(y))
    close = (near & apply(np.isfinite, y)) | (x == y)
    return close | (apply(np.isnan, x) & apply(np.isnan, y)) if equal_nan else close


@implements(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> Array:
    v = isclose.__wrapped__(a, b, rtol, atol, equal_nan).value
    return _of_all(v)


@implements(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Array:
    x, y = lift(a1), lift(a2)
    if s.dims(x) != s.dims(y):
        return lift(False)
    same = x == y
    if equal_nan:
        same = same | (apply(np.isnan, x) & apply(np.isnan, y))
    return _of_all(same.value)


def _of_all(v: Value) -> Array:
    """Whether all elements hold, as a bool of Python's."""
    axes = tuple(range(v.type.rank))
    return wrap(builder().reduce(v, kind="all", axes=axes) if axes else v, weak=True)


@implements(np.sinc)
def sinc(x: Any) -> Array:
    """sin(pi x) / (pi x); near 0 by its Taylor series, whose derivatives stay right there."""
    v, b = apply(np.multiply, np.pi, lift(x)).value, builder()
    small = b.lt(apply(np.absolute, wrap(v)).value, 0.5)
    away = b.select(small, b.full(1.0, v.type), v)
    near = b.select(small, v, b.zeros(v.type))
    square, series = b.mul(near, near), b.full(0.0, v.type)
    for k in range(9, -1, -1):
        series = b.add(b.mul(series, square), (-1.0) ** k / math.factorial(2 * k + 1))
    return wrap(b.select(small, series, apply(np.divide, apply(np.sin, wrap(away)), wrap(away)).value))


@implements(np.real)
def real(val: Any) -> Array:
    x = lift(val)
    if x.dtype.kind != "c":
        return x
    return x.component(imaginary=False) if x.ndim else wrap(builder().real(x.value), x.weak)


@implements(np.imag)
def imag(val: Any) -> Array:
    x = lift(val)
    if x.dtype.kind != "c":
        return wrap(builder().zeros(x.value.type))
    return x.component(imaginary=True) if x.ndim else wrap(builder().imag(x.value), x.weak)


@implements(np.angle)
def angle(z: Any, deg: bool = False) -> Array:
    z = lift(z)
    z = z.astype(np.float64) if z.dtype.kind == "b" else z
    turned = apply(np.arctan2, imag.__wrapped__(z), real.__wrapped__(z))
    return turned * (180 / np.pi) if deg else turned
