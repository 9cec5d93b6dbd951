"""Python's ``cmath`` on traced numbers: entries of the table that ``math_functions`` makes."""

from __future__ import annotations

import cmath
from typing import Any

import numpy as np

from dflow.numpy import support as s
from dflow.numpy.elementwise import apply
from dflow.numpy.math_functions import defines, number
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder


def complex_number(x: Any) -> Array:
    """A traced scalar as a complex128, as ``cmath`` takes it."""
    x = lift(x)
    return wrap(s.reshaped(s.cast(x.value, np.complex128), ())) if x.dtype.kind == "c" else number(x) + 0j


_SAME = ("exp", "log10", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "isnan", "isinf", "isfinite")
_INVERSE = ("sin", "cos", "tan", "sinh", "cosh", "tanh")
for _name, _numpy_name in [*((n, n) for n in _SAME), *((f"a{n}", f"arc{n}") for n in _INVERSE)]:
    _ufunc = getattr(np, _numpy_name)
    defines(getattr(cmath, _name))(lambda z, u=_ufunc: apply(u, complex_number(z)))


@defines(cmath.log)
def log(z: Any, base: Any = None) -> Array:
    top = apply(np.log, complex_number(z))
    return top if base is None else top / apply(np.log, complex_number(base))


@defines(cmath.phase)
def phase(z: Any) -> Array:
    z = complex_number(z)
    return apply(np.arctan2, z.imag, z.real)


@defines(cmath.polar)
def polar(z: Any) -> tuple[Array, ...]:
    return apply(np.absolute, complex_number(z)), phase(z)


@defines(cmath.rect)
def rect(r: Any, phi: Any) -> Array:
    r, phi = number(r), number(phi)
    parts = [(r * apply(f, phi)).value for f in (np.cos, np.sin)]
    return wrap(builder().emit("complex", *parts))


@defines(cmath.isclose)
def isclose(a: Any, b: Any, *, rel_tol: Any = 1e-09, abs_tol: Any = 0.0) -> Array:
    x, y = complex_number(a), complex_number(b)
    size = apply(np.maximum, apply(np.absolute, x), apply(np.absolute, y))
    near = apply(np.absolute, x - y) <= apply(np.maximum, rel_tol * size, abs_tol)
    infinite = apply(np.isinf, x) | apply(np.isinf, y)
    return (x == y) | (near & ~infinite)
