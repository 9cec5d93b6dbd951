"""How to pass what is no number and no array of numbers: the mend for each kind of argument that is refused."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from dflow.records import has


def how_to_pass(x: Any, name: str) -> str:
    """The mend for an argument ``x`` that is called ``name``."""
    if isinstance(x, np.random.Generator | np.random.RandomState):
        return "draw outside and pass the numbers in an array, or draw in it by dflow.random, with a key"
    if isinstance(x, np.ndarray):
        return _of_array(x.dtype, name)
    if isinstance(x, numbers.Number):  # a fraction, a decimal, a long double
        is_complex = isinstance(x, numbers.Complex) and not isinstance(x, numbers.Real)
        return f"pass {'complex' if is_complex else 'float'}({name})"
    if isinstance(x, Iterator | range):
        return f"pass list({name}), or np.array(list({name}))"
    if has(x, "tocsr"):
        return f"pass its arrays, a tree of {name}.data, {name}.indices and {name}.indptr"
    if has(x, "to_numpy"):
        return f"pass {name}.to_numpy(), or a dict of its columns as such arrays"
    return "name it in static_argnums or static_argnames of dflow.jit, or close over it"


def _of_array(dtype: np.dtype[Any], name: str) -> str:
    if dtype.names:
        return f"pass its fields, a dict of arrays: {{k: {name}[k] for k in {name}.dtype.names}}"
    if dtype.kind in "SUT":
        return f"pass numbers that stand for the texts: np.unique({name}, return_inverse=True)[1]"
    if dtype.kind in "mM":
        return f"pass numbers: ({name} - {name}[0]) / np.timedelta64(1, 's')"
    if dtype.kind == "c":
        return f"pass {name}.astype(complex)"
    return f"pass {name}.astype(float), which makes NaN of None"
