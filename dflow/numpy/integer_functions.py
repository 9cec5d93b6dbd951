"""Integer functions of ``math``, and ``pow`` with a modulus, in plain Python, which is traced as a user's code is.

Python's integers have no end. Where a result has more than 64 bits, these raise a ValueError.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_FACTORIALS = np.array([math.factorial(n) for n in range(21)])
_LARGEST = 2**63 - 1
_MOST_MODULUS = math.isqrt(2**63)  # the square of a remainder must have no more than 64 bits


def factorial(n: Any) -> Any:
    if n < 0:
        raise ValueError("factorial() not defined for negative values")
    if n > 20:
        raise ValueError("factorial() of more than 20 has more than 64 bits")
    return int(_FACTORIALS[n])


def isqrt(n: Any) -> Any:
    if n < 0:
        raise ValueError("isqrt() argument must be nonnegative")
    root = int(math.sqrt(n))
    while root > 0 and root > n // root:
        root -= 1
    while root + 1 <= n // (root + 1):
        root += 1
    return root


def comb(n: Any, k: Any) -> Any:
    if n < 0 or k < 0:
        raise ValueError("comb() arguments must be non-negative integers")
    found = 1
    for i in range(min(k, n - k)):
        if found > _LARGEST // (n - i):
            raise ValueError("comb() has more than 64 bits")
        found = found * (n - i) // (i + 1)
    return found if k <= n else 0


def perm(n: Any, k: Any = None) -> Any:
    if k is None:
        return factorial(n)
    if n < 0 or k < 0:
        raise ValueError("perm() arguments must be non-negative integers")
    found = 1
    for i in range(min(k, n)):
        if found > _LARGEST // (n - i):
            raise ValueError("perm() has more than 64 bits")
        found *= n - i
    return found if k <= n else 0


def power(x: Any, n: Any, modulus: Any) -> Any:
    """``pow(x, n, modulus)`` by repeated squares."""
    if modulus == 0:
        raise ValueError("pow() 3rd argument cannot be 0")
    if n < 0:
        raise ValueError("pow() of traced integers with a modulus takes no negative exponent")
    if abs(modulus) > _MOST_MODULUS:
        raise ValueError("pow() with a modulus above 2**31.5 has products of more than 64 bits")
    found, factor = 1 % modulus, x % modulus
    while n > 0:
        if n % 2 == 1:
            found = found * factor % modulus
        factor = factor * factor % modulus
        n //= 2
    return found


def bit_length(n: Any) -> Any:
    n, bits = abs(n), 0
    while n > 0:
        n, bits = n // 2, bits + 1
    return bits
