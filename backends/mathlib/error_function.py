"""erf and erfc.

erf x = x + x·E(x²) below 1. erfc x = exp(-x²)·R(t)/(1 + 2x) with t = (x - 4)/(x + 4), smooth on all of [0, ∞), after
Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x)exp(x²)erfc x in 0 ≤ x < ∞" (1981); the coefficients are
our own, as polynomials interpolated at Chebyshev nodes.
"""

from __future__ import annotations

from dflow.backends.mathlib import double_double as dd
from dflow.backends.mathlib.exponential import exp_pair
from dflow.backends.mathlib.expr import Expr, copysign, fabs, minimum, polynomial, scale

# erf(x)/x - 1 in x² ≤ 1, to 3.3e-23.
ERF_TAIL = (
    0.1283791670955126,
    -0.37612638903183754,
    0.11283791670955126,
    -0.026866170645131218,
    0.005223977625441674,
    -0.0008548327023403001,
    0.00012055332978879483,
    -1.4925650236967501e-05,
    1.6462110782018636e-06,
    -1.636576864883207e-07,
    1.4806027146128752e-08,
    -1.2277734486795524e-09,
    9.323723518153027e-11,
    -6.1967364287877e-12,
    2.8067128195611264e-13,
)
ERF_TAIL_F32 = (  # to 3.4e-11
    0.12837916706154343,
    -0.3761263846802871,
    0.11283782495236845,
    -0.026865430727670243,
    0.005221031807858023,
    -0.0008484080405535107,
    0.00011265959025606609,
    -9.667044571486996e-06,
)
# (1 + 2x)·exp(x²)·erfc(x) in t, to 1e-17.
SCALED_ERFC = (
    1.2329951186255526,
    -0.13962111684056228,
    0.015379652102619974,
    0.06809705425466839,
    -0.10103906603631811,
    0.09373283499911264,
    -0.06633036581186058,
    0.037167515526338006,
    -0.01619773406293477,
    0.005031970069102256,
    -0.0007577732435942576,
    -0.0001992571524726518,
    0.00015062142608651945,
    -2.4397731143023292e-05,
    -1.1221135665965907e-05,
    5.70657829924074e-06,
    2.9173425573089733e-07,
    -8.210647933297337e-07,
    7.771943241086912e-08,
    1.0631817593818149e-07,
    -2.0725802488181963e-08,
    -1.2338731403798444e-08,
    3.2323973445082033e-09,
    9.297625263709659e-10,
    -2.764120233734578e-10,
)
SCALED_ERFC_F32 = (  # for x ≤ 11, to 1.4e-9
    1.2329951189208188,
    -0.1396211373681427,
    0.015379593787053265,
    0.06809806492463319,
    -0.10103670089378695,
    0.0937201201396605,
    -0.06636484687610326,
    0.03721348327666204,
    -0.016002144964977948,
    0.005092426432461594,
    -0.0011006446361984264,
    -0.0006325814510421089,
)


def erf_near_zero(x: Expr) -> Expr:
    """For |x| ≤ 1."""
    return x + x * polynomial(x * x, x.pick(ERF_TAIL, ERF_TAIL_F32))


def erfc_positive(x: Expr) -> Expr:
    """For x ≥ 0; relative accuracy down to the underflow."""
    bounded = minimum(x, x.pick(28.0, 11.0))
    square = dd.two_product(bounded, bounded)
    mantissa, k = exp_pair(-square)
    t = (bounded - 4.0) / (bounded + 4.0)
    scaled = dd.multiply_float(mantissa, polynomial(t, t.pick(SCALED_ERFC, SCALED_ERFC_F32)))
    ratio = dd.divide(scaled, dd.two_sum(bounded * 2.0, x.const(1.0)))
    return scale(ratio.rounded(), k)


def erf(x: Expr) -> Expr:
    magnitude = fabs(x)
    near = magnitude < 1.0
    inside = erf_near_zero(near.select(x, 0.0))
    result = near.select(inside, copysign(1.0 - erfc_positive(magnitude), x))
    return x.equals(0.0).select(x, result)


def erfc(x: Expr) -> Expr:
    magnitude = fabs(x)
    near = magnitude < 0.5
    inside = 1.0 - erf_near_zero(near.select(x, 0.0))
    outside = erfc_positive(magnitude)
    return near.select(inside, (x < 0.0).select(2.0 - outside, outside))
