"""The native interface of a compiled function, as its callers see it (docs/architecture.md)."""

from __future__ import annotations

from dataclasses import dataclass

from dflow.ir.core import Location
from dflow.ir.types import TensorType

OUT_OF_MEMORY = -1  # the error code


@dataclass(frozen=True)
class Check:
    """What an error code means."""

    error: str
    message: str
    location: Location | None


def by_value(t: TensorType) -> bool:
    """Whether an argument of this type comes by value."""
    return t.is_scalar and t.dtype.kind != "c"
