"""``np.add.at``: addition at positions that may repeat."""

from __future__ import annotations

from typing import Any

from dflow.ir.core import Value
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import views
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.index import Part
from dflow.tracing.arrays.operators import fitted
from dflow.tracing.context import builder


def add_at(target: Array, part: Part, value: Any) -> None:
    """Adds ``value`` to the part of ``target``, repeated positions as often as they occur."""
    new = fitted(_lift.lift(value, target.dtype), part.shape, target.dtype)
    target.assign(_added(list(part.steps), target.value, new))


def _added(steps: list[views.Step], base: Value, new: Value) -> Value:
    if not steps:
        return builder().add(base, new)
    head, *rest = steps
    b = builder()
    if isinstance(head, views.Gather):
        # The steps after a gather only rearrange, so what is added can be brought back through them.
        return b.scatter_add(base, views.write(b, rest, None, new), *(i.value for i in head.indices))
    return head.put(b, base, _added(rest, head.read(b, base), new))
