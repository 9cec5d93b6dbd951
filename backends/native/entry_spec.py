"""What an entry of compiled code takes and returns (`entry.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from llvmlite import ir

from dflow.backends.native import pyabi
from dflow.backends.native.pyabi import ELEMENTS

# Python's own objects for rank-0 leaves, each exactly one type.
PYTHON_DTYPES = ("f64", "i64", "bool", "c128")


@dataclass(frozen=True)
class Leaf:
    """One argument or result. ``python``: a Python float, int, bool or complex; otherwise an ndarray, or at rank 0 a
    NumPy scalar (as an argument also a rank-0 ndarray)."""

    dtype: str
    shape: tuple[int, ...] = ()
    python: bool = False

    def __post_init__(self) -> None:
        if pyabi.element(self.dtype) is None:
            raise ValueError(f"no element type {self.dtype!r}; known are {', '.join(ELEMENTS)}")
        if self.python and (self.shape or self.dtype not in PYTHON_DTYPES):
            raise ValueError(
                f"a Python object has rank 0 and dtype f64, i64, bool or c128, not {self.dtype}{self.shape}"
            )
        if not self.shape and self.llvm is None:
            raise ValueError(f"{self.dtype} has no rank-0 form in the kernel ABI")

    @property
    def llvm(self) -> ir.Type | None:
        return ELEMENTS[self.dtype].llvm

    @property
    def by_value(self) -> bool:
        """Whether a kernel gets the value, and not a pointer to it."""
        return not self.shape and not self.dtype.startswith("c")

    @property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(ELEMENTS[self.dtype].scalar).itemsize

    @property
    def symbol(self) -> str:
        """The symbol of the NumPy scalar type; with ``_descr`` its dtype, with ``_alloc`` its allocator."""
        return f"dflow_np_{ELEMENTS[self.dtype].name}"


@dataclass(frozen=True)
class EntrySpec:
    """What an entry takes and returns. ``single``: the one result itself instead of a tuple of it.

    ``in_place`` lists (result, argument): the kernel leaves that result in the argument's memory. It is not returned.

    ``cuts`` lists (result, sizes) for arrays that are made as large as they can become: for every axis the result that
    is its size, or None where the axis is as long as it was made. ``hidden`` results are such sizes alone, and not
    returned.

    ``release_gil`` lets other threads run while the kernel does: 50 ns, worth it for kernels of some microseconds.
    """

    args: tuple[Leaf, ...]
    results: tuple[Leaf, ...]
    single: bool = False
    release_gil: bool = False
    in_place: tuple[tuple[int, int], ...] = ()
    cuts: tuple[tuple[int, tuple[int | None, ...]], ...] = ()
    hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.single and len(self.returned) != 1:
            raise ValueError(f"a single result was asked for, but there are {len(self.returned)}")

    @property
    def returned(self) -> tuple[int, ...]:
        """The results that the entry returns, by their positions."""
        others = {k for k, _ in self.in_place} | set(self.hidden)
        return tuple(k for k in range(len(self.results)) if k not in others)
