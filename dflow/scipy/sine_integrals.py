"""The sine, cosine and Fresnel integrals of f64 arrays: Chebyshev series near 0, and of the auxiliary functions f and g
of DLMF 6.2 and 7.2 beyond. Their derivatives are rules."""

from __future__ import annotations

import math
from typing import Any

import numpy

from dflow.ir.core import Value
from dflow.ir.ops.bessel import chebyshev
from dflow.scipy.special_rules import full
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import wrap
from dflow.tracing.context import builder
from dflow.transforms.custom import custom_jvp

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way

# fmt: off
# Si(x) / x in x**2 for x in [0, 4].
SI_NEAR = (
    0.684217670090758, -0.2776578526973602, 0.03544140548666592, -0.0025631631447933976, 0.00011623653904970093,
    -3.5904327241606043e-06, 8.023421237057102e-08, -1.3562997692540251e-09, 1.7944072159973677e-11,
    -1.9083873430871455e-13, 1.6669989586824331e-15, -1.2173098836850304e-17,
)
# (Ci(x) - gamma - log(x)) / x**2 in x**2 for x in [0, 4].
CI_NEAR = (
    -0.18537250875454844, 0.058935748963644466, -0.005381896421135691, 0.00029860052841962137,
    -1.09557257532162e-05, 2.840545487734663e-07, -5.469739948753849e-09, 8.124187461318157e-11,
    -9.58685931177066e-13, 9.20266004392351e-15, -7.325887999017895e-17, 4.914372667584291e-19,
)
# x f(x) in (4 / x)**2.
F_FAR = (
    0.9547633884032938, -0.0410699867196166, 0.003510547451979443, -0.0005172175488768527, 0.00010328193778536401,
    -2.5139407613382352e-05, 7.046299766746879e-06, -2.1974483848031207e-06, 7.455004638205959e-07,
    -2.708631114149491e-07, 1.0420323162393677e-07, -4.208421591372028e-08, 1.7724757498225048e-08,
    -7.74422777800052e-09, 3.495140635901326e-09, -1.623758282438595e-09, 7.74252836392633e-10,
    -3.7799091899163956e-10, 1.8854142277512255e-10, -9.59125670597103e-11, 4.9682959803372925e-11,
    -2.617024750846083e-11, 1.4000802549479367e-11, -7.599391900204824e-12, 4.180924280097225e-12,
    -2.329503198590337e-12, 1.3134666655998167e-12, -7.489259710313546e-13, 4.315689215187419e-13,
    -2.5119135629145015e-13, 1.4759641638298183e-13, -8.750963268359437e-14, 5.2330394674571975e-14,
    -3.154964165429148e-14, 1.9169672388843447e-14, -1.1734494113883664e-14, 7.234422373346399e-15,
    -4.490588903332208e-15, 2.805702689774273e-15, -1.7640296400927821e-15, 1.1158099579577155e-15,
    -7.098973954999842e-16, 4.541808575795019e-16, -2.9214760124646424e-16, 1.8890059780076223e-16,
    -1.2275617126742522e-16, 8.015989778731023e-17, -5.25897989691519e-17, 3.465791007428446e-17,
    -2.2939278298749067e-17, 1.5245339224156433e-17, -1.0170427524539818e-17, 6.8071614818369466e-18,
    -4.566831878941186e-18, 3.0654341766816456e-18, -2.0509429042417673e-18, 1.356610094536693e-18,
)
# x**2 g(x) in (4 / x)**2.
G_FAR = (
    0.8841994524524334, -0.10005788518210433, 0.012620432620807134, -0.0023462168947058176, 0.000551332382934603,
    -0.00015195038861323185, 4.7073797699758375e-05, -1.5961270265510487e-05, 5.8179485492273865e-06,
    -2.2508864416686086e-06, 9.156512743606252e-07, -3.888480555539212e-07, 1.7141948800246919e-07,
    -7.809375500314394e-08, 3.6631597833534293e-08, -1.7638490416884897e-08, 8.69617841053991e-09,
    -4.380464863692854e-09, 2.2502675038852148e-09, -1.1770001575850032e-09, 6.259545254121074e-10,
    -3.380666786792257e-10, 1.8521945455689298e-10, -1.0284402466034851e-10, 5.782395348455685e-11,
    -3.2895679509076376e-11, 1.8922183673164776e-11, -1.0998473138591866e-11, 6.456164584098906e-12,
    -3.825356633175376e-12, 2.286744820499592e-12, -1.3785489839059938e-12, 8.37743008950462e-13,
    -5.130059350320718e-13, 3.1645200256038867e-13, -1.965752940399094e-13, 1.2292979353986148e-13,
    -7.737004152531348e-14, 4.899641313369616e-14, -3.121239601602938e-14, 1.9996937193069067e-14,
    -1.2881950320484485e-14, 8.342480598388096e-15, -5.430288109637453e-15, 3.552120171399312e-15,
    -2.3346205180342323e-15, 1.5414816381567078e-15, -1.0223145958929221e-15, 6.809009278866383e-16,
    -4.553632694766174e-16, 3.0570973739492983e-16, -2.0596692526923944e-16, 1.3918442577170058e-16,
    -9.424603621320901e-17, 6.382349372546455e-17, -4.305613924759575e-17, 2.8693663718619154e-17,
    -1.853503232933324e-17, 1.1056755691302704e-17, -5.161315732317024e-18,
)
# S(x) / x**3 in x**4 for x in [0, 2].
S_NEAR = (
    0.19918673864190226, -0.22356648669212584, 0.08202822552969624, -0.016602561737554058, 0.0020382145350386067,
    -0.00016643843000521268, 9.674781743977045e-06, -4.2065853292879686e-07, 1.4200048580250818e-08,
    -3.8304499680234226e-10, 8.448489681753256e-12, -1.5523581348897443e-13, 2.4133399377221522e-15,
    -3.216107060101517e-17, 3.71511779601568e-19,
)
# C(x) / x in x**4 for x in [0, 2].
C_NEAR = (
    0.39740718857599805, -0.3100070983680217, 0.21349075614188737, -0.06678900553022198, 0.011085973995082385,
    -0.0011365259733006202, 7.927825032635591e-05, -4.013934222204706e-06, 1.544413153283575e-07,
    -4.6730963378884215e-09, 1.1418677215891532e-10, -2.301397740065535e-12, 3.8926496918449476e-14,
    -5.605750788138861e-16, 6.957468574802044e-18,
)
# pi x f(x) in (2 / x)**4, of the Fresnel integrals.
FRESNEL_F_FAR = (
    0.991626739680822, -0.008052203424540985, 0.00029454464004463875, -2.3184205711282275e-05,
    2.7816279679823775e-06, -4.380481148872489e-07, 8.361281637108393e-08, -1.8440948293587535e-08,
    4.555365698926041e-09, -1.2335018608278001e-09, 3.604690893785707e-10, -1.1236671586647923e-10,
    3.7028666625184366e-11, -1.2807983295141648e-11, 4.6235762678674735e-12, -1.7337729837334538e-12,
    6.727135138591914e-13, -2.691950871701093e-13, 1.1078763851148124e-13, -4.6780175975540305e-14,
    2.0224469698184788e-14, -8.936143499816187e-15, 4.028923718028703e-15, -1.850896040314612e-15,
    8.653361638543364e-16, -4.1125476559925316e-16, 1.9848293910344497e-16, -9.71912540731187e-17,
    4.824648635288479e-17, -2.426128800748259e-17, 1.2350236991203085e-17, -6.360316366278118e-18,
    3.3118836816234988e-18, -1.7427499134293618e-18,
)
# pi**2 x**3 g(x) in (2 / x)**4.
FRESNEL_G_FAR = (
    0.9615334202175058, -0.036030028653009645, 0.002169175989382814, -0.00022669950819482923, 3.297074653210468e-05,
    -5.994014740738009e-06, 1.2819008953592865e-06, -3.105139099909486e-07, 8.305725385638261e-08,
    -2.4097249079203716e-08, 7.484025285660633e-09, -2.46343859660216e-09, 8.527162860057405e-10,
    -3.0848123057606947e-10, 1.1604518933372687e-10, -4.520605189444535e-11, 1.8173148740166264e-11,
    -7.517158820283856e-12, 3.1913798601385185e-12, -1.3876045530340895e-12, 6.167358909259154e-13,
    -2.7974624414230893e-13, 1.293095898735698e-13, -6.083308136235503e-14, 2.9093314820741875e-14,
    -1.4130071278802637e-14, 6.962917319067006e-15, -3.4783271009708803e-15, 1.7601596078286494e-15,
    -9.016452291865454e-16, 4.672472657353272e-16, -2.4481249714741445e-16, 1.296178210702472e-16,
    -6.931493519857998e-17, 3.7421631143791436e-17, -2.0387769114627914e-17, 1.1204646652265879e-17,
    -6.209408586104064e-18, 3.46879586612257e-18, -1.9527479338013066e-18, 1.1074494069781244e-18,
)
# fmt: on

EULER = 0.57721566490153286


def _apart(b: Any, x: Value, limit: float, power: int) -> tuple[Value, Value, Value, Value, Value]:
    """Where |x| is below a limit; |x| where it is, and where it is not, the limit elsewhere; where the series are
    evaluated in both."""
    size, edge = b.abs(x), full(b, x, limit)
    near = b.lt(size, limit)
    inside, outside = b.select(near, size, edge), b.select(near, edge, size)
    inner, outer = b.div(inside, limit), b.div(limit, outside)
    for _ in range(power):
        inner, outer = b.mul(inner, inner), b.mul(outer, outer)
    return near, inside, outside, b.sub(b.mul(inner, 2.0), 1.0), b.sub(b.mul(outer, 2.0), 1.0)


def _sine_and_cosine(b: Any, x: Value) -> tuple[Value, Value]:
    near, inside, outside, t, u = _apart(b, x, 4.0, 1)
    small = b.select(b.gt(inside, 0.0), inside, full(b, x, 1.0))
    near_si = b.mul(inside, chebyshev(b, t, SI_NEAR))
    near_ci = b.add(b.mul(b.mul(inside, inside), chebyshev(b, t, CI_NEAR)), b.add(b.log(small), EULER))
    near_ci = b.select(b.eq(x, 0.0), full(b, x, -np.inf), near_ci)
    far = b.eq(b.abs(x), np.inf)
    outside = b.select(far, full(b, x, 4.0), outside)
    f, g = b.div(chebyshev(b, u, F_FAR), outside), b.div(chebyshev(b, u, G_FAR), b.mul(outside, outside))
    sin, cos = b.sin(outside), b.cos(outside)
    far_si = b.sub(math.pi / 2, b.add(b.mul(f, cos), b.mul(g, sin)))
    far_ci = b.sub(b.mul(f, sin), b.mul(g, cos))
    far_si = b.select(far, full(b, x, math.pi / 2), far_si)
    si = b.copysign(b.select(near, near_si, far_si), x)
    return si, b.select(near, near_ci, b.select(far, b.zeros(x.type), far_ci))


def _half_square(b: Any, x: Value) -> tuple[Value, Value]:
    """Sine and cosine of pi x^2 / 2, of whose turns only the rest is computed: x is taken apart into two numbers of
    half the digits, whose products are exact."""
    split = b.mul(x, 134217729.0)
    high = b.sub(split, b.sub(split, x))
    low = b.sub(x, high)
    quarter = lambda v: b.sub(v, b.mul(b.floor(b.mul(v, 0.25)), 4.0))  # noqa: E731
    turns = b.add(quarter(b.mul(high, high)), b.add(quarter(b.mul(b.mul(high, low), 2.0)), b.mul(low, low)))
    angle = b.mul(b.sub(turns, b.mul(b.round(b.mul(turns, 0.25)), 4.0)), math.pi / 2)
    return b.sin(angle), b.cos(angle)


def _fresnel(b: Any, x: Value) -> tuple[Value, Value]:
    near, inside, outside, t, u = _apart(b, x, 2.0, 2)
    near_s = b.mul(b.mul(b.mul(inside, inside), inside), chebyshev(b, t, S_NEAR))
    near_c = b.mul(inside, chebyshev(b, t, C_NEAR))
    endless = b.gt(outside, 1e15)
    at = b.select(endless, full(b, x, 2.0), outside)
    f = b.div(chebyshev(b, u, FRESNEL_F_FAR), b.mul(at, math.pi))
    g = b.div(chebyshev(b, u, FRESNEL_G_FAR), b.mul(b.mul(b.mul(at, at), at), math.pi**2))
    sin, cos = _half_square(b, at)
    far_s = b.sub(0.5, b.add(b.mul(f, cos), b.mul(g, sin)))
    far_c = b.add(0.5, b.sub(b.mul(f, sin), b.mul(g, cos)))
    found = ((near_s, far_s), (near_c, far_c))
    half = full(b, x, 0.5)
    first, second = (b.copysign(b.select(near, n, b.select(endless, half, far)), x) for n, far in found)
    return first, second


@custom_jvp
def sici(x: Array) -> tuple[Array, Array]:
    """Si(x) and Ci(x), the integral of (cos t - 1) / t up to x with gamma and log |x|."""
    si, ci = _sine_and_cosine(builder(), x.value)
    return wrap(si), wrap(ci)


@sici.defjvp
def _sici_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    return sici(x), (np.sinc(x / np.pi) * t, np.cos(x) / x * t)


@custom_jvp
def fresnel(x: Array) -> tuple[Array, Array]:
    """S(x) and C(x), the integrals of sin(pi t^2 / 2) and cos(pi t^2 / 2) from 0 on."""
    first, second = _fresnel(builder(), x.value)
    return wrap(first), wrap(second)


@fresnel.defjvp
def _fresnel_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (t,) = primals, tangents
    sin, cos = _half_square(builder(), x.value)
    return fresnel(x), (wrap(sin) * t, wrap(cos) * t)
