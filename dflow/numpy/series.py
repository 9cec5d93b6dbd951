"""``numpy.polynomial``: coefficients, the lowest power first.

It needs little here: it is plain Python on NumPy's functions, and traced as it is.
"""

from __future__ import annotations

from typing import Any

import numpy

from dflow.numpy.dispatch import FUNCTIONS, implements
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift

np: Any = numpy


def trimseq(seq: Any) -> Any:
    """The sequence itself: how many trailing zeros it has shows when the program runs, but its length is known now."""
    return seq


FUNCTIONS[np.polynomial.polyutils.trimseq] = trimseq


@implements(np.polynomial.polynomial.polyroots)
def polyroots(c: Any) -> Array:
    """All roots, sorted; as ``np.roots``, it refuses a leading coefficient of 0 when it runs."""
    return np.sort(np.roots(np.atleast_1d(lift(c))[::-1]))
