"""Python's ``math`` and ``cmath`` on traced numbers: a table from its functions to implementations.

Results are Python numbers again (they have no weight in promotion). Where ``math`` raises for an argument outside of a
function's domain, the traced function gives NaN or infinity, as NumPy does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy.dispatch import any_traced, located
from dflow.numpy.elementwise import apply
from dflow.numpy.integer_functions import bit_length, comb, factorial, isqrt, perm, power
from dflow.numpy.norms import norm
from dflow.numpy.reductions import PROD, SUM, reduce
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder
from dflow.tracing.python.calls import call

MATH: dict[Callable[..., Any], Callable[..., Any]] = {}


def number(x: Any) -> Array:
    """A traced scalar as a float64, as ``math`` takes it."""
    x = lift(x)
    if x.size != 1 or x.ndim > 1:
        raise TypeError(
            f"only numbers can be converted to Python floats, got an array of shape {s.show(x.shape)}; "
            "use the function of the same name in np"
        )
    return wrap(s.reshaped(s.cast(x.value, np.float64), ()))


def python(x: Array) -> Array:
    """A result as a Python number."""
    return wrap(x.value, weak=True)


def defines(*functions: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            out = f(*args, **kwargs)
            return tuple(map(python, out)) if isinstance(out, tuple) else python(out)

        MATH.update(dict.fromkeys(functions, located(call)))
        return f

    return register


def call_math(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A function of ``math``: traced where an argument is, Python's own otherwise."""
    if not any_traced(args, kwargs):
        return function(*args, **kwargs)
    found = MATH.get(function)
    if found is None:
        raise TypeError(f"math.{function.__name__} is not supported on traced numbers")
    return found(*args, **kwargs)


_BY_UFUNC = {
    **{name: getattr(np, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{name: getattr(np, name) for name in ("sqrt", "cbrt", "exp", "exp2")},
    **{name: getattr(np, name) for name in ("expm1", "log2", "log10", "log1p", "fabs", "degrees", "radians")},
    **{name: getattr(np, name) for name in ("isnan", "isinf", "isfinite", "copysign", "fmod")},
    **{name: getattr(np, f"arc{name[1:]}") for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2")},
    "pow": np.float_power,
    "modf": np.modf,
    "nextafter": np.nextafter,
}
for _name, _ufunc in _BY_UFUNC.items():
    if hasattr(math, _name):
        defines(getattr(math, _name))(lambda *args, u=_ufunc: apply(u, *map(number, args)))

for _name in ("erf", "erfc", "lgamma"):
    defines(getattr(math, _name))(lambda x, op=_name: wrap(builder().emit(op, number(x).value)))


def _to_integer(ufunc: np.ufunc) -> Callable[..., Any]:
    """Floats are rounded to integers; integers stay what they are."""
    return lambda x: s.as_dtype(apply(ufunc, number(x)) if kind_of(lift(x).dtype) == "f" else lift(x), np.int64)


for _ufunc in (np.floor, np.ceil, np.trunc):
    defines(getattr(math, _ufunc.__name__))(_to_integer(_ufunc))


@defines(math.log)
def log(x: Any, base: Any = None) -> Array:
    top = apply(np.log, number(x))
    return top if base is None else top / apply(np.log, number(base))


@defines(math.gamma)
def gamma(x: Any) -> Array:
    """exp(lgamma), with the sign that alternates between negative integers."""
    b, v = builder(), number(x).value
    odd = b.ne(b.rem(b.floor(v), 2.0), 0.0)
    negative = b.and_(b.lt(v, 0.0), odd)
    size = b.exp(b.lgamma(v))
    return wrap(b.select(negative, b.neg(size), size))


@defines(math.ldexp)
def ldexp(x: Any, i: Any) -> Array:
    return apply(np.ldexp, number(x), lift(i))


@defines(math.frexp)
def frexp(x: Any) -> tuple[Array, ...]:
    mantissa, exponent = apply(np.frexp, number(x))
    return mantissa, wrap(s.cast(exponent.value, np.int64))


@defines(math.ulp)
def ulp(x: Any) -> Array:
    return apply(np.absolute, apply(np.spacing, apply(np.absolute, number(x))))


@defines(math.hypot)
def hypot(*coordinates: Any) -> Array:
    points = [number(x) for x in coordinates]
    return functools.reduce(lambda x, y: apply(np.hypot, x, y), points[1:], apply(np.absolute, points[0]))


@defines(math.dist)
def dist(p: Any, q: Any) -> Array:
    return norm.__wrapped__(apply(np.subtract, _vector(p), _vector(q)))


def _vector(x: Any) -> Array:
    """Several numbers; TypeError where they are arrays."""
    a = lift(x if isinstance(x, Array) else list(x))
    if a.ndim != 1:
        raise TypeError(f"only numbers can be converted to Python floats, got rows of shape {s.show(s.dims(a)[1:])}")
    return a


@defines(math.fsum)
def fsum(seq: Any) -> Array:
    return reduce(SUM, s.as_dtype(_vector(seq), np.float64))


def sumprod(p: Any, q: Any) -> Array:
    pairs = zip(*(x if isinstance(x, Array) else list(x) for x in (p, q)), strict=True)
    return functools.reduce(lambda total, pair: total + pair[0] * pair[1], pairs, lift(0))


def fma(x: Any, y: Any, z: Any) -> Array:
    return number(x) * number(y) + number(z)


for _name, _function in (("sumprod", sumprod), ("fma", fma)):  # of newer Pythons
    if hasattr(math, _name):
        defines(getattr(math, _name))(_function)


def prod(iterable: Any, *, start: Any = 1) -> Array:
    """The product of what may be arrays: of the rows of a matrix, as Python goes over them."""
    if isinstance(iterable, Array):
        return apply(np.multiply, reduce(PROD, iterable, 0), lift(start))
    return functools.reduce(lambda product, x: apply(np.multiply, product, lift(x)), iterable, lift(start))


MATH[math.prod] = located(prod)


@defines(math.remainder)
def remainder(x: Any, y: Any) -> Array:
    """IEEE remainder: from the nearest multiple, ties to the even one."""
    x, y = number(x), number(y)
    nearest = wrap(builder().round(apply(np.divide, x, y).value))
    return apply(np.subtract, x, apply(np.multiply, y, nearest))


@defines(math.isclose)
def isclose(a: Any, b: Any, *, rel_tol: Any = 1e-09, abs_tol: Any = 0.0) -> Array:
    x, y = number(a), number(b)
    size = apply(np.maximum, apply(np.absolute, x), apply(np.absolute, y))
    near = apply(np.absolute, apply(np.subtract, x, y)) <= apply(np.maximum, rel_tol * size, abs_tol)
    infinite = apply(np.isinf, x) | apply(np.isinf, y)
    return (x == y) | (near & ~infinite)


@defines(math.gcd)
def gcd(*integers: Any) -> Array:
    return functools.reduce(lambda x, y: apply(np.gcd, x, y), integers, lift(0))


@defines(math.lcm)
def lcm(*integers: Any) -> Array:
    return functools.reduce(lambda x, y: apply(np.lcm, x, y), integers, lift(1))


def _by_plain_python(plain: Callable[..., Any]) -> Callable[..., Array]:
    """A function of ``integer_functions``, of integers alone."""

    def run(*args: Any) -> Array:
        arrays = [lift(a) for a in args if a is not None]
        if any(a.ndim or a.dtype.kind not in "iub" for a in arrays):
            kinds = ", ".join(str(a.type) for a in arrays)
            raise TypeError(f"{plain.__name__}() takes integers, got {kinds}; convert with int()")
        return lift(call(plain, *(None if a is None else python(s.as_dtype(lift(a), np.int64)) for a in args)))

    return run


for _plain in (factorial, isqrt, comb, perm):
    defines(getattr(math, _plain.__name__))(_by_plain_python(_plain))
defines(pow)(_by_plain_python(power))
defines(int.bit_length)(_by_plain_python(bit_length))
