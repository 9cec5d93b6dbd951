"""The Bessel functions of the second kind of orders 0 and 1 and their modified kin, of f64 arrays, for x > 0.

Chebyshev series, as those of the first kind (``dflow.ir.ops.bessel``), with which they share the expansion beyond 8.
What computes them is not differentiated: their derivatives are rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from dflow.ir.core import Value
from dflow.ir.ops.bessel import P0_FAR, P1_FAR, Q0_FAR, Q1_FAR, chebyshev
from dflow.scipy.special_rules import full
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import wrap
from dflow.tracing.context import builder
from dflow.transforms.custom import custom_jvp

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

# fmt: off
# Y0(x) - 2/pi log(x/2) J0(x) in x**2 for x in [0, 8].
Y0_NEAR = (
    0.03645469809116044, -0.2783237094075825, 0.2960499990207148, 0.09825508408187864, -0.10755155280627783,
    0.031799074084414514, -0.005161397105810715, 0.0005498525320039012, -4.1996983149420134e-05,
    2.4290361107923793e-06, -1.1049969793472957e-07, 4.06651736597911e-09, -1.2374148898289854e-10,
    3.1685725528945945e-12, -6.926956032431002e-14, 1.3086308625876684e-15, -2.1586201986914482e-17,
    3.136863182479938e-19,
)
# (Y1(x) - 2/pi (log(x/2) J1(x) - 1/x)) / x in x**2 for x in [0, 8].
Y1_NEAR = (
    0.038300769852423776, -0.08182561412732826, -0.0248677076121964, 0.047967452752746984, -0.01852588451089802,
    0.003680607687823511, -0.0004627254060293369, 4.06940026958087e-05, -2.6617695125295625e-06,
    1.350602691325434e-07, -5.483524110336276e-09, 1.8245086841229007e-10, -5.070666636591129e-12,
    1.1956162517587948e-13, -2.423162442712473e-15, 4.268126513072962e-17, -6.596060978723042e-19,
)
# K0(x) + log(x/2) I0(x) in x**2 for x in [0, 2].
K0_NEAR = (
    -0.2676636966169514, 0.3442898999246285, 0.0359799365153615, 0.001264615411446926, 2.286212103119452e-05,
    2.5347910790261494e-07, 1.904516377220209e-09, 1.0349695257633625e-11, 4.2598161427910826e-14,
    1.3744654358807508e-16, 3.5708965285083736e-19,
)
# (K1(x) - log(x/2) I1(x) - 1/x) / x in x**2 for x in [0, 2].
K1_NEAR = (
    -0.06409034516866254, -0.10916919599320105, -0.006636878452817714, -0.00016822792382067343,
    -2.389559180803608e-06, -2.1853569024549695e-08, -1.3982271326113327e-10, -6.618562752976041e-13,
    -2.4134516242987822e-15, -6.990873731242567e-18,
)
# sqrt(x) exp(x) K0(x) in 2 / x.
K0_FAR = (
    1.2201515410329777, -0.0314481013119645, 0.0015698838857300533, -0.00012849549581627802, 1.39498137188765e-05,
    -1.8317555227191195e-06, 2.766813639445015e-07, -4.660489897687948e-08, 8.574034017414225e-09,
    -1.6975345093890614e-09, 3.5773972814003283e-10, -7.957489244477396e-11, 1.8559491149549264e-11,
    -4.514597883374519e-12, 1.1403405882073441e-12, -2.9800969231481784e-13, 8.032890775068375e-14,
    -2.2275133267462965e-14, 6.340076476276646e-15, -1.848593377920907e-15, 5.5120559994043335e-16,
    -1.6782311257549006e-16, 5.2103917776435543e-17, -1.6475805939842632e-17, 5.3004337711773354e-18,
    -1.7331712005820991e-18,
)
# sqrt(x) exp(x) K1(x) in 2 / x.
K1_FAR = (
    1.3603130952422213, 0.10392373657681724, -0.002857816859622779, 0.00019521551847135162, -1.936197974166083e-05,
    2.406484947837217e-06, -3.5019606030878126e-07, 5.7410841254500495e-08, -1.0345762465678097e-08,
    2.0150497551970347e-09, -4.1903547593419254e-10, 9.218315187605315e-11, -2.129967838427791e-11,
    5.139639673482343e-12, -1.2891739609498229e-12, 3.348419666052243e-13, -8.976705182010146e-14,
    2.4771544242195988e-14, -7.0198370892147685e-15, 2.038703166239861e-15, -6.057047270643018e-16,
    1.8380935752430455e-16, -5.689462849193648e-17, 1.7940510478863572e-17, -5.756744482073302e-18,
    1.877865190162326e-18,
)
# fmt: on


def _apart(b: Any, x: Value, limit: float) -> tuple[Value, Value, Value]:
    """Where x is below a limit; x where it is, the limit elsewhere; and the other way round."""
    near, edge = b.lt(x, limit), full(b, x, limit)
    positive = b.select(b.gt(x, 0.0), x, edge)
    return near, b.select(near, positive, edge), b.select(near, edge, positive)


def _in_square(b: Any, x: Value, limit: float, series: tuple[float, ...]) -> Value:
    return chebyshev(b, b.sub(b.mul(b.mul(x, x), 2 / limit**2), 1.0), series)


def _ends(b: Any, x: Value, found: Value, at_zero: float) -> Value:
    """The limits at 0 and at infinity, NaN below 0."""
    found = b.select(b.eq(x, np.inf), b.zeros(x.type), b.select(b.eq(x, 0.0), full(b, x, at_zero), found))
    return b.select(b.ge(x, 0.0), found, full(b, x, np.nan))


def _second_kind(b: Any, x: Value, order: int) -> Value:
    near, inside, outside = _apart(b, x, 8.0)
    series = _in_square(b, inside, 8.0, Y1_NEAR if order else Y0_NEAR)
    logarithm = b.mul(b.log(b.mul(inside, 0.5)), b.emit(f"j{order}", inside))
    if order:
        logarithm, series = b.sub(logarithm, b.div(1.0, inside)), b.mul(series, inside)
    close = b.add(b.mul(logarithm, 2 / math.pi), series)
    ratio = b.div(8.0, outside)
    t = b.sub(b.mul(b.mul(ratio, ratio), 2.0), 1.0)
    p, q = chebyshev(b, t, P1_FAR if order else P0_FAR), chebyshev(b, t, Q1_FAR if order else Q0_FAR)
    sin, cos = b.sin(outside), b.cos(outside)
    # sqrt(2) times sine and cosine of x - pi/4, or x - 3 pi/4
    turned_sin, turned_cos = (b.sub(sin, cos), b.add(sin, cos))
    if order:
        turned_sin, turned_cos = b.neg(turned_cos), turned_sin
    wave = b.add(b.mul(p, turned_sin), b.mul(b.div(q, outside), turned_cos))
    far = b.div(b.mul(wave, 1.0 / math.sqrt(math.pi)), b.sqrt(outside))
    return _ends(b, x, b.select(near, close, far), -np.inf)


def _modified(b: Any, x: Value, order: int, scaled: bool) -> Value:
    near, inside, outside = _apart(b, x, 2.0)
    series = _in_square(b, inside, 2.0, K1_NEAR if order else K0_NEAR)
    logarithm = b.mul(b.log(b.mul(inside, 0.5)), b.emit(f"i{order}", inside))
    if order:
        close = b.add(b.add(b.div(1.0, inside), logarithm), b.mul(series, inside))
    else:
        close = b.sub(series, logarithm)
    far = chebyshev(b, b.sub(b.div(4.0, outside), 1.0), K1_FAR if order else K0_FAR)
    far = b.div(far, b.sqrt(outside))
    close, far = (b.mul(close, b.exp(inside)), far) if scaled else (close, b.mul(far, b.exp(b.neg(outside))))
    return _ends(b, x, b.select(near, close, far), np.inf)


def _function(formula: Callable[[Any, Value], Value], slope: Callable[[Any, Any], Any]) -> Any:
    @custom_jvp
    def of(x: Array) -> Array:
        return wrap(formula(builder(), x.value))

    @of.defjvp
    def of_jvp(primals: Any, tangents: Any) -> Any:
        (x,), (t,) = primals, tangents
        y = of(x)
        return y, slope(x, y) * t

    return of


y0: Any = _function(lambda b, x: _second_kind(b, x, 0), lambda x, y: -y1(x))
y1: Any = _function(lambda b, x: _second_kind(b, x, 1), lambda x, y: y0(x) - y / x)
k0: Any = _function(lambda b, x: _modified(b, x, 0, False), lambda x, y: -k1(x))
k1: Any = _function(lambda b, x: _modified(b, x, 1, False), lambda x, y: -k0(x) - y / x)
k0e: Any = _function(lambda b, x: _modified(b, x, 0, True), lambda x, y: y - k1e(x))
k1e: Any = _function(lambda b, x: _modified(b, x, 1, True), lambda x, y: y - k0e(x) - y / x)

BESSEL: dict[str, Callable[[Array], Array]] = {"y0": y0, "y1": y1, "k0": k0, "k1": k1, "k0e": k0e, "k1e": k1e}
