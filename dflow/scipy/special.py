"""``scipy.special`` on traced arrays, with derivatives of every order: ufuncs by name, and the functions made of them.

SciPy's own ufuncs come here too when they meet a traced array.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.special

from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy import ufunc_rules
from dflow.numpy.dispatch import UFUNCS, implements, located, public, refusing
from dflow.numpy.elementwise import apply
from dflow.numpy.reductions import MAX, SUM, reduce
from dflow.scipy import bessel, sine_integrals
from dflow.scipy import exponential_integrals as integrals
from dflow.scipy.beta_rules import BETA_RULES, incomplete
from dflow.scipy.composed_rules import COMPOSED_RULES
from dflow.scipy.gamma_quotients import QUOTIENTS
from dflow.scipy.incomplete_gamma import GAMMA_RULES
from dflow.scipy.special_rules import RULES, wide
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

RULE_TABLES = {**QUOTIENTS, **BETA_RULES, **GAMMA_RULES, **COMPOSED_RULES}
RULES.update((name, wide(rule)) for name, rule in RULE_TABLES.items())
ufunc_rules.FLOAT.update({name: rule for name, rule in RULES.items() if name not in ufunc_rules.FLOAT})


def _ufunc(ufunc: np.ufunc) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return apply(ufunc, *args, **kwargs)

    call.__name__ = call.__qualname__ = ufunc.__name__
    call.__doc__ = f"``scipy.special.{ufunc.__name__}`` of traced arrays."
    UFUNCS[ufunc] = located(call)
    return public(ufunc, call)


_PUBLIC = {name: _ufunc(getattr(scipy.special, name)) for name in RULES}
globals().update(_PUBLIC)
digamma = _PUBLIC["psi"]


def floats(*args: Any) -> list[Array]:
    """The arguments in their common floating dtype, broadcast."""
    arrays = [lift(a) for a in args]
    dtype = s.result_type(*arrays, 1.0)
    return [wrap(v) for v in s.broadcast(*(s.cast(a.value, dtype) for a in arrays))]


def incomplete_beta(p: Any, q: Any, x: Any, upper: Any) -> Array:
    """``betaincc`` where ``upper`` holds, elsewhere ``betainc``: one computation for both."""
    values = (v.value for v in floats(p, q, x, np.where(upper, 1.0, 0.0)))
    return wrap(wide(incomplete)(builder(), *values))


def _static_order(n: Any, name: str) -> int:
    if not isinstance(n, Array):
        n = np.asarray(n)
        if n.ndim or n != int(n):
            raise TypeError(f"{name} must be an integer here, got {n!r}")
    return s.static_int(int(n) if not isinstance(n, Array) else n, name)


@implements(scipy.special.polygamma)
def polygamma(n: Any, x: Any) -> Array:
    order = _static_order(n, "the order n of polygamma")
    if order < 0:
        raise ValueError(f"the order n of polygamma must not be negative, got {order}")
    (x,) = floats(s.as_dtype(x, np.float64))
    b = builder()
    return wrap(b.digamma(x.value) if order == 0 else b.polygamma(x.value, order=order))


# The first Bernoulli numbers of even index over (2k)!.
_BERNOULLI = tuple(
    v / math.factorial(2 * k + 2)
    for k, v in enumerate((1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798))
)
_DIRECT = 12  # terms that are summed one by one


@implements(scipy.special.zeta)
def zeta(x: Any, q: Any = None, out: Any = None) -> Array:
    """Hurwitz' zeta function for x > 1 and q > 0 (Riemann's, q = 1), by the Euler-Maclaurin formula (DLMF 25.11.28);
    NaN for x < 1 and for q < 0."""
    x, q = floats(x, 1.0 if q is None else q)
    b, v, w = builder(), x.value, q.value
    outside = b.or_(b.le(v, 1.0), b.le(w, 0.0))
    power, base = b.select(outside, b.full(2.0, v.type), v), b.select(outside, b.full(1.0, w.type), w)
    total, minus = b.zeros(v.type), b.neg(power)
    for k in range(_DIRECT):
        total = b.add(total, b.pow(b.add(base, float(k)), minus))
    end = b.add(base, float(_DIRECT))
    last = b.pow(end, minus)
    total = b.add(total, b.mul(last, b.add(b.div(end, b.sub(power, 1.0)), 0.5)))
    square, factor = b.mul(end, end), b.div(power, end)
    for k, bernoulli in enumerate(_BERNOULLI):
        total = b.add(total, b.mul(b.mul(last, factor), bernoulli))
        rising = b.mul(b.add(power, float(2 * k + 1)), b.add(power, float(2 * k + 2)))
        factor = b.div(b.mul(factor, rising), square)
    pole = b.or_(b.eq(v, 1.0), b.and_(b.gt(v, 1.0), b.eq(w, 0.0)))
    limit = b.select(pole, b.full(np.inf, v.type), b.full(np.nan, v.type))
    return s.result(b.select(outside, limit, total), out)


def _of_doubles(f: Any, x: Any, name: str) -> Array:
    (x,) = floats(x)
    if kind_of(x.dtype) == "c":
        raise TypeError(f"scipy.special.{name} takes real numbers here")
    found: Array = f(x.astype(np.float64)).astype(x.dtype)
    return found


@implements(scipy.special.exp1)
def exp1(x: Any, out: Any = None) -> Array:
    return s.result(_of_doubles(integrals.exp1, x, "exp1").value, out)


@implements(scipy.special.expi)
def expi(x: Any, out: Any = None) -> Array:
    return s.result(_of_doubles(integrals.expi, x, "expi").value, out)


@implements(scipy.special.expn)
def expn(n: Any, x: Any, out: Any = None) -> Array:
    order = _static_order(n, "the order n of expn")
    if order < 0:
        raise ValueError(f"the order n of expn must not be negative, got {order}")
    return s.result(_of_doubles(lambda x: integrals.expn(order, x), x, "expn").value, out)


def _bessel(name: str) -> Any:
    def call(x: Any, out: Any = None) -> Array:
        return s.result(_of_doubles(bessel.BESSEL[name], x, name).value, out)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``scipy.special.{name}`` of traced arrays."
    return implements(getattr(scipy.special, name))(call)


_BESSEL = {name: _bessel(name) for name in bessel.BESSEL}
globals().update(_BESSEL)


def _pair_of_doubles(f: Any, x: Any, name: str) -> tuple[Array, Array]:
    (x,) = floats(x)
    if kind_of(x.dtype) == "c":
        raise TypeError(f"scipy.special.{name} takes real numbers here")
    first, second = f(x.astype(np.float64))
    return first.astype(x.dtype), second.astype(x.dtype)


@implements(scipy.special.sici)
def sici(x: Any) -> tuple[Array, Array]:
    return _pair_of_doubles(sine_integrals.sici, x, "sici")


@implements(scipy.special.fresnel)
def fresnel(x: Any) -> tuple[Array, Array]:
    return _pair_of_doubles(sine_integrals.fresnel, x, "fresnel")


@implements(scipy.special.multigammaln)
def multigammaln(a: Any, d: Any) -> Array:
    x, d = s.as_dtype(a, np.float64), _static_order(d, "the dimension d")  # as SciPy's, whatever that of a
    total = lift(d * (d - 1) * 0.25 * math.log(math.pi)) + apply(scipy.special.gammaln, x)
    for k in range(1, d):
        total = total + apply(scipy.special.gammaln, x - 0.5 * k)
    return total


@implements(scipy.special.comb)
def comb(N: Any, k: Any, *, exact: bool = False, repetition: bool = False) -> Array:
    if exact:
        raise TypeError("scipy.special.comb with exact=True gives Python's integers, which are not traced")
    n, m = floats(N, k)
    if repetition:  # one way to choose nothing, from nothing too
        return wrap(_ones_where((m == 0) & (n >= 0), apply(scipy.special.binom, n + m - 1, m)))
    inside = (m <= n) & (n >= 0) & (m >= 0)
    one = wrap(builder().full(1.0, n.value.type))
    b = builder()
    kept = [wrap(b.select(inside.value, v.value, one.value)) for v in (n, m)]
    return wrap(b.select(inside.value, apply(scipy.special.binom, *kept).value, b.zeros(n.value.type)))


def _ones_where(condition: Array, x: Array) -> Any:
    b = builder()
    return b.select(condition.value, b.full(1.0, x.value.type), x.value)


@implements(scipy.special.factorial)
def factorial(n: Any, exact: bool = False, extend: str = "zero") -> Array:
    if exact or extend != "zero":
        raise TypeError("scipy.special.factorial of a traced array takes exact=False and extend='zero'")
    (x,) = floats(n)
    b, v = builder(), x.value
    negative = b.lt(v, 0.0)
    value = b.tgamma(b.add(b.select(negative, b.zeros(v.type), v), 1.0))
    return wrap(b.select(negative, b.zeros(v.type), value))


# -- along axes --------------------------------------------------------------------------------------------------------


def _largest(x: Array, axis: Any) -> Array:
    """The largest elements (of complex numbers: real parts), as numbers to subtract: finite always."""
    top = reduce(MAX, x.real, axis, keepdims=True).value
    b = builder()
    return wrap(b.select(b.isfinite(top), top, b.zeros(top.type)))


@implements(scipy.special.logsumexp, extra=("where",))
def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False, *, where: Any = None
) -> Any:
    """``where`` chooses elements, as in JAX."""
    if where is not None:
        (a,) = floats(a)
        a = _where(wrap(s.expand(s.as_dtype(where, bool).value, a.value.type.shape)), a, -np.inf)
    x, weight = (floats(a)[0], None) if b is None else floats(a, b)
    shift = _largest(x if weight is None else _where(apply(np.not_equal, weight, 0), x, -np.inf), axis)
    terms = apply(np.exp, x - shift)
    if weight is not None:
        terms = _where(apply(np.not_equal, weight, 0), terms * weight, 0.0)
    total = reduce(SUM, terms, axis, keepdims=keepdims)
    sign = apply(np.sign, total)
    size = apply(np.absolute, total) if return_sign else total
    rest = shift if keepdims else wrap(s.reshaped(shift.value, s.dims(total)))
    found = apply(np.log, size) + rest
    return (found, sign) if return_sign else found


def _where(condition: Array, x: Array, number: float) -> Array:
    b = builder()
    return wrap(b.select(condition.value, x.value, b.full(number, x.value.type)))


@implements(scipy.special.softmax)
def softmax(x: Any, axis: Any = None) -> Array:
    (x,) = floats(x)
    terms = apply(np.exp, x - _largest(x, axis))
    return terms / reduce(SUM, terms, axis, keepdims=True)


@implements(scipy.special.log_softmax)
def log_softmax(x: Any, axis: Any = None) -> Array:
    (x,) = floats(x)
    if kind_of(x.dtype) == "c":
        raise TypeError("scipy.special.log_softmax takes real numbers here; of complex ones, x - logsumexp(x)")
    rest = x - _largest(x, axis)
    return rest - apply(np.log, reduce(SUM, apply(np.exp, rest), axis, keepdims=True))


_FUNCTIONS = (
    "comb",
    "exp1",
    "expi",
    "expn",
    "factorial",
    "fresnel",
    "log_softmax",
    "logsumexp",
    "multigammaln",
    "polygamma",
    "sici",
    "softmax",
    "zeta",
)


def __getattr__(name: str) -> Any:
    found = getattr(scipy.special, name)
    return refusing(found) if callable(found) and not isinstance(found, type) else found


def __dir__() -> list[str]:
    return sorted((*_PUBLIC, *_BESSEL, "digamma", *_FUNCTIONS))


__all__ = [*_PUBLIC, *_BESSEL, "digamma", *_FUNCTIONS]
