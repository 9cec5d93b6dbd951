"""How much there is to do in an operation, and which way of doing it fits."""

from __future__ import annotations

import math
from typing import Literal

from dflow.backends.cuda.context import Context
from dflow.backends.cuda.device_ops import ATOMIC
from dflow.backends.plan import Plan
from dflow.ir.core import Op, walk
from dflow.ir.registry import OPS
from dflow.ir.types import Dim, Size

WIDE = 256  # points from which an operation is a kernel of its own
ON_HOST = frozenset({"eigh", "svd", "print"})
# Operations whose elements are computed each on its own, or added up atomically.
BATCHED = frozenset({"cholesky", "lu", "triangular_solve", "qr"})
MOVING = frozenset({"copy", "reshape", "concatenate", "extract", "broadcast", "transpose", "gather", "update"})
ADDING = frozenset({"update_add", "scatter_add", "reduce", "matmul"})
SPREAD = BATCHED | MOVING | ADDING | {"kernel", "constant", "iota", "argsort", "argmax", "argmin"}

Way = Literal["one", "grid", "host"]


def count(shape: tuple[Dim, ...] | list[Dim]) -> int:
    """The number of points, sizes being at their bounds."""
    return math.prod(d.bound if isinstance(d, Size) else d for d in shape if isinstance(d, int | Size))


def points(op: Op) -> int:
    """How many threads an operation has something to do for."""
    if op.name == "kernel":
        domain = op.attrs["domain"]
        return count(domain[: len(domain) - op.attrs["reduced"]])
    if op.name in ("update", "update_add", "scatter", "scatter_add"):
        return count(op.operands[1].type.shape)
    if op.name in BATCHED:
        return count(op.operands[0].type.shape[:-2])
    if op.name == "argsort":
        return count(op.result.type.shape[:-1])
    if op.name == "concatenate":
        return max(count(x.type.shape) for x in op.operands)
    if len(op.results) != 1 or op.result.type.grows:
        return 1
    return count(op.result.type.shape)


def needs_host(op: Op) -> bool:
    """Whether there is something in it that only the host can do."""
    return any(inner.name in ON_HOST for inner in walk_op(op))


def walk_op(op: Op) -> list[Op]:
    return [op, *(inner for r in op.regions for inner in walk(r))]


def is_nothing(op: Op, plan: Plan) -> bool:
    """Whether an operation of tensors has no work: its memory is there, or holds the result already."""
    if op.name == "empty":
        return op.result.type.rank > 0
    if op.name in ("copy", "reshape") and op.operands[0].type.rank:
        (x,) = op.operands
        return x in plan.buffers and plan.buffers[x] is plan.buffers.get(op.result)
    if op.name == "constant":
        return op.result.type.rank > 0 and op.result not in plan.buffers
    return False


def way_of(op: Op, context: Context) -> Way:
    if op.name in ("for", "while", "if"):
        inner = walk_op(op)[1:]
        return "host" if needs_host(op) or any(_is_wide(o, context) for o in inner) else "one"
    if op.name in ON_HOST:
        return "host"
    return "grid" if _is_wide(op, context) else "one"


def _is_wide(op: Op, context: Context) -> bool:
    if is_nothing(op, context.plan) or any(r.type.is_scalar for r in op.results):
        return False
    if op.name == "scatter_add" and op.result.type.dtype.name not in ATOMIC:
        return False
    elementwise = op.name in OPS and OPS[op.name].elementwise
    if any(v.type.grows for v in (*op.operands, *op.results)):
        return False
    return (op.name in SPREAD or elementwise) and points(op) >= WIDE
