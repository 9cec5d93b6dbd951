"""Traced masks as indices: where they hold, in order. How many positions that are is known when the program runs."""

from __future__ import annotations

import math
from typing import Any

from dflow.errors import NeedsStatic, TraceIndexError, failure
from dflow.ir.core import Value
from dflow.ir.types import I64, Dim, Size, TensorType
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.sizes import Shape
from dflow.tracing.context import builder, region


def fitted(mask: Any, shape: Shape) -> Value:
    """A mask of the leading axes of ``shape``, under their sizes. Raises IndexError when it does not fit."""
    wanted = shape[: mask.ndim]
    own = mask.type.shape
    if len(own) != len(wanted) or any(sizes.agreed(a, b) is None for a, b in zip(own, wanted)):
        raise failure(
            TraceIndexError, f"a mask of shape {sizes.show(own)} does not fit an array of shape {sizes.show(shape)}"
        )
    return sizes.recast(mask.value, wanted)


def nonzero(mask: Value) -> list[Any]:
    """The positions of what holds, one integer array for each axis, all of one size."""
    shape = mask.type.shape
    key = ("nonzero", mask)
    places = region().made.get(key)
    if places is None:
        flat = _flat(mask)
        places = region().made[key] = _places(flat)
    if len(shape) == 1:
        return [_lift.wrap(places)]
    out, b = [], builder()
    for k in range(len(shape)):
        inner = math.prod(mask.type.static_shape[k + 1 :])
        at = b.floordiv(places, inner) if inner > 1 else places
        out.append(_lift.wrap(b.rem(at, mask.type.static_shape[k]) if k else at))
    return out


def inside(positions: list[Any], shape: Shape) -> list[Any]:
    """Notes that positions lie inside of the leading axes of ``shape``; the same positions."""
    for array, size in zip(positions, shape):
        region().made["inside", array.value, size] = array.value
    return positions


def is_inside(positions: Value, size: Dim) -> bool:
    """Whether positions are known to lie inside of an axis."""
    return ("inside", positions, size) in region().made


def _flat(mask: Value) -> Value:
    if mask.type.rank == 1:
        return mask
    if not mask.type.is_static:
        raise failure(
            NeedsStatic,
            "a traced mask of several axes whose sizes depend on the run",
            seen=str(mask.type),
            mend="use np.where, or a mask of one axis",
        )
    return builder().reshape(mask, shape=(math.prod(mask.type.static_shape),))


def _places(mask: Value) -> Value:
    """Every position is written where the next one found belongs, and stays there if it is one."""
    b = builder()
    (size,) = mask.type.shape

    def body(b: Any, k: Value, places: Value, found: Value) -> list[Value]:
        places = b.update(places, k, found, index=("at",))
        return [places, b.add(found, b.convert(b.extract(mask, k, index=("at",)), dtype=I64))]

    places, found = b.for_loop(
        b.size(size), [b.emit("empty", type=TensorType(I64, (size,))), b.index(0)], body, hints=["places", "found"]
    )
    bound = size.bound if isinstance(size, Size) else size
    region().known.define(found, (0, bound))  # type: ignore[arg-type]
    found.hint = "found"
    return b.extract(places, b.index(0), index=(("slice", sizes.dim(found), 1),))
