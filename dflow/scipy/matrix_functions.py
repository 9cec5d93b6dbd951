"""Functions of matrices: the exponential and the square root."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.ir.ops.matrices import all_of, among, identity, is_complex, magnitude, reduced
from dflow.numpy.factorizations import check
from dflow.tracing.context import builder

# The coefficients of the [13/13] Padé approximant of exp, and the norm up to which it is exact in f64: Higham, "The
# scaling and squaring method for the matrix exponential revisited" (2005).
_PADE = tuple(
    math.factorial(26 - k) * math.factorial(13) // (math.factorial(13 - k) * math.factorial(k) * math.factorial(13))
    for k in range(14)
)
_LARGEST = 5.371920351148152
_MOST_SQUARINGS = 2000.0


def exponential(a: Value) -> Value:
    """By scaling and squaring; all matrices of a stack are scaled as the largest one asks for."""
    if 0 in a.type.static_shape:
        return a
    b = builder()
    sums = reduced(b, "max", b.reduce(magnitude(b, a), kind="sum", axes=(a.type.rank - 2,)), 1)
    norm = b.reduce(sums, kind="max", axes=tuple(range(sums.type.rank))) if sums.type.rank else sums
    halvings = b.ceil(b.log2(b.max(b.div(norm, _LARGEST), b.full(1.0, norm.type))))
    halvings = b.min(halvings, b.full(_MOST_SQUARINGS, norm.type))
    halvings = b.select(b.isfinite(norm), halvings, b.zeros(norm.type))
    scaled = b.mul(a, b.broadcast_scalar(among(b, b.exp2(b.neg(halvings)), a), a.type.shape))
    count = b.convert(halvings, dtype=b.index(0).type.dtype)
    (result,) = b.for_loop(count, [_pade(b, scaled)], lambda b, k, x: [b.matmul(x, x)])
    return result


def _pade(b: Any, a: Value) -> Value:
    """(V - U)^-1 (V + U), U the odd and V the even part of the numerator."""
    one = identity(b, a.type)
    c = [float(k) / _PADE[0] for k in _PADE]
    a2 = b.matmul(a, a)
    a4 = b.matmul(a2, a2)
    a6 = b.matmul(a2, a4)

    def part(first: int) -> Value:
        high = _combined(b, (a6, c[first + 12]), (a4, c[first + 10]), (a2, c[first + 8]))
        low = _combined(b, (a6, c[first + 6]), (a4, c[first + 4]), (a2, c[first + 2]), (one, c[first]))
        return b.add(b.matmul(a6, high), low)

    odd, even = b.matmul(a, part(1)), part(0)
    bottom, top = b.sub(even, odd), b.add(even, odd)
    return b.lu_solve(bottom, *b.append("lu", [bottom]), top, transpose=False)


def _combined(b: Any, *terms: tuple[Value, float]) -> Value:
    total = b.mul(terms[0][0], terms[0][1])
    for x, factor in terms[1:]:
        total = b.add(total, b.mul(x, factor))
    return total


def square_root(a: Value) -> Value:
    """The iteration of Denman and Beavers in its product form (Higham, "Functions of Matrices", 2008, 6.29). One more
    step after it has converged makes the derivative converge too."""
    n = a.type.static_shape[-1]
    if 0 in a.type.static_shape:
        return a
    b, limit = builder(), 20 * n * float(np.finfo(a.type.dtype.numpy).eps)
    one = identity(b, a.type)

    def far(b: Any, m: Value) -> Value:
        distance = reduced(b, "max", magnitude(b, b.sub(m, one)), 2)
        return b.not_(all_of(b, b.le(distance, limit)))

    def step(b: Any, k: Value, m: Value, x: Value) -> list[Value]:
        packed, *rest = b.append("lu", [m])
        back = b.lu_solve(m, packed, *rest, one, transpose=False)
        following = b.mul(b.add(one, b.mul(b.add(m, back), 0.5)), 0.5)
        return [b.add(k, 1), following, b.mul(b.matmul(x, b.add(one, back)), 0.5)]

    more = lambda b, k, m, x: b.and_(b.lt(k, 60), far(b, m))  # noqa: E731
    _, m, x = b.while_loop([b.index(0), a, a], more, step)
    kind = "" if is_complex(a) else "real "
    check(b.not_(far(b, m)), f"the matrix has no {kind}square root, or is singular")
    return step(b, b.index(0), m, x)[2]
