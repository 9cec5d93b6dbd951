"""The inverses of erf and erfc, as formulas in other operations, right to some units in the last place.

Up to one half, erfinv y = y·P(y²). Beyond, with t = 1 - |y| and s = sqrt(-log t), the result is s·Q(1 / (s + d)), with
one d and Q for s up to 4, t = 1e-7, and others up to 27, where t is the smallest number that there is. The polynomials
were interpolated at Chebyshev nodes, in a variable that goes from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# In 8·y² - 1.
NEAR = (
    0.9174083670522701,
    0.03356743029704947,
    0.0026140273452602484,
    0.0002522747551745645,
    2.6977001015419183e-05,
    3.0637436243944157e-06,
    3.619863812309669e-07,
    4.3982773297839775e-08,
    5.456632770776933e-09,
    6.879441319663008e-10,
    8.772068185412855e-11,
    1.1319201712761551e-11,
    1.5684287601914327e-12,
    2.058034962675998e-13,
)
# d, the middle of 1 / (s + d), and one by half of its width.
MIDDLE, FAR = (2.0, 0.26001177856301533, 10.712933753943217), (6.0, 0.06497005988023952, 28.54700854700855)
BETWEEN = 4.0
MIDDLE_TAIL = (
    0.8161445883902326,
    -0.1739306370285664,
    -0.06243915824545101,
    -0.010339174951659036,
    0.0006968173350213149,
    0.0011871676014188343,
    0.0004256493273829955,
    6.426477989535737e-05,
    -1.713890629609399e-05,
    -1.4920891523445255e-05,
    -4.940580824634358e-06,
    -5.534399235908209e-07,
    3.311831766261013e-07,
    2.2597270921366018e-07,
    6.759175046790883e-08,
    4.453161188698993e-09,
    -6.42569037716816e-09,
    -3.8103509729877075e-09,
    -1.0349550897995327e-09,
    5.82376615598942e-11,
    1.6118820084468407e-10,
    4.176556592130161e-11,
)
FAR_TAIL = (
    0.9839892209496321,
    -0.023357529174041165,
    -0.014032650228151661,
    -0.005643306707333665,
    -0.0020759441130778367,
    -0.0007068211895224656,
    -0.0002314145383817328,
    -7.189530847963427e-05,
    -2.1593422210972867e-05,
    -6.099909631397171e-06,
    -1.645356230693887e-06,
    -3.9558370884137705e-07,
    -8.441465307939294e-08,
    -1.0418001187125377e-08,
    1.2371988159674016e-09,
    2.2023989198035714e-09,
    1.1426173484649736e-09,
    5.682309574198487e-10,
    1.645390028417301e-10,
    5.709573466052546e-11,
    3.4547046399231744e-11,
    1.753503695034102e-11,
)


def erfinv(b: Any, y: Any) -> Any:
    return _joined(b, y, b.sub(1.0, b.abs(y)), y)


def erfcinv(b: Any, y: Any) -> Any:
    signed = b.sub(1.0, y)
    return _joined(b, signed, b.select(b.lt(y, 1.0), y, b.sub(2.0, y)), signed)


def _joined(b: Any, signed: Any, tail: Any, sign: Any) -> Any:
    """Both ways; ``signed`` is y of erf, ``tail`` is 1 - |y|."""
    near = b.le(b.abs(signed), 0.5)
    inside = b.select(near, signed, b.zeros(signed.type))
    inside = b.mul(inside, _polynomial(b, b.sub(b.mul(8.0, b.mul(inside, inside)), 1.0), NEAR))
    proper = b.and_(b.not_(near), b.gt(tail, 0.0))
    outside = _of_tail(b, b.select(proper, tail, b.full(0.25, tail.type)))
    limit = b.select(b.eq(tail, 0.0), b.full(np.inf, tail.type), b.full(np.nan, tail.type))
    return b.select(near, inside, b.copysign(b.select(proper, outside, limit), sign))


def _of_tail(b: Any, t: Any) -> Any:
    """For t in (0, 1/2]."""
    s = b.sqrt(b.neg(b.log(t)))
    far = b.gt(s, BETWEEN)

    def either(a: float, c: float) -> Any:
        return b.select(far, b.full(c, t.type), b.full(a, t.type))

    shift, middle, scale = map(either, MIDDLE, FAR)
    v = b.mul(b.sub(b.div(1.0, b.add(s, shift)), middle), scale)
    return b.mul(s, _polynomial(b, v, [either(*pair) for pair in zip(MIDDLE_TAIL, FAR_TAIL)]))


def _polynomial(b: Any, x: Any, coefficients: Sequence[Any]) -> Any:
    total = coefficients[-1]
    for c in coefficients[-2::-1]:
        total = b.add(c, b.mul(total, x))
    return total
