"""How much there is to do in an operation, and which way of doing it fits."""

from __future__ import annotations

from typing import Literal

from dflow.backends.cuda.context import Context
from dflow.backends.cuda.kernels.fold import is_shared
from dflow.backends.cuda.kernels.folds import as_fold, count
from dflow.backends.cuda.kernels.ops import adds_atomically
from dflow.backends.cuda.kernels.product import is_tiled
from dflow.backends.cuda.kernels.row import find_fills, find_rows
from dflow.backends.cuda.kernels.row_scan import find_row_scan
from dflow.backends.cuda.kernels.scatter import can_be_sorted
from dflow.backends.cuda.kernels.sort import is_parallel_sort
from dflow.backends.cuda.kernels.tile import find_tiles
from dflow.backends.cuda.kernels.vector import find_vectors
from dflow.backends.cuda.planning.dense import is_dense, spared
from dflow.backends.cuda.planning.lanes import Lanes, overwritten, prove, rounds
from dflow.backends.lowering.plan import Plan
from dflow.ir.core import Block, Op, walk
from dflow.ir.passes.rewrite import SEQUENCES
from dflow.ir.registry import OPS

WIDE = 4096  # elements from which an operation is a kernel of its own; one block does less than that as fast
LOOP_FACTOR = 4  # so many times more in a loop, where the host would have to wait for conditions
SORT_FACTOR = 4  # so much more than computing an element is it to sort one
MATMUL_FACTOR = 8  # multiplications for one element
FEWEST_ROWS = 4  # threads of a loop over arrays; with fewer there is nothing to share
MANY = 64  # rounds from which a parallel loop is a kernel
ON_HOST = frozenset({"eigh", "eig", "svd", "print", "warn"})
# Operations whose elements are computed each on its own, or added up atomically.
BATCHED = frozenset({"cholesky", "lu", "triangular_solve", "qr"})
MOVING = frozenset(
    {"copy", "reshape", "concatenate", "extract", "broadcast", "transpose", "gather", "update", "scatter"}
)
ADDING = frozenset({"update_add", "scatter_add", "reduce", "matmul"})
SPREAD = BATCHED | MOVING | ADDING | {"kernel", "constant", "iota", "argsort", "argmax", "argmin"}

Way = Literal[
    "one", "grid", "vectors", "tiles", "rows", "rowscan", "product", "fold", "sort", "scatter", "ordered", "host"
]


def points(op: Op, context: Context) -> int:
    """How many threads an operation has something to do for."""
    if op.name in SEQUENCES:
        return context.places.lanes(context.plan.buffers[op.result])
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


def decide(block: Block, context: Context) -> None:
    """Decides on the way of every operation of a block, and inside of loops and branches that the host runs."""
    for op in block.ops:
        way = context.ways[op] = way_of(op, context)
        if isinstance(way, Lanes):
            for b in way.split:
                context.places.split(b, rounds(op))
            context.dead.update(overwritten(op, context))
        elif way in ("rows", "rowscan"):
            context.dead.update(overwritten(op, context))
            if way == "rows":
                context.dead.update(v.op for v in find_fills(op, context) if v.op is not None)
        elif way == "host":
            for r in op.regions:
                decide(r, context)
    context.spared.update(spared(block, context))
    for op in block.ops:  # the loops that split sequences come after the operations that make them
        if op.name in SEQUENCES and context.places.lanes(context.plan.buffers[op.result]) >= WIDE:
            context.ways[op] = "grid"


def way_of(op: Op, context: Context) -> Way | Lanes:
    """The way to do an operation that does not stand inside of a kernel."""
    lanes = find_lanes(op, context)
    if lanes is not None:
        return lanes
    if is_wide_in_rows(op, context):
        return "rows" if find_row_scan(op, context) is None else "rowscan"
    if op.name in ("for", "while", "if"):
        return "host" if needs_host(op) or any(_leaves_block(o, context) for o in walk_op(op)[1:]) else "one"
    if op.name in ON_HOST:
        return "host"
    if is_parallel_sort(op) and count(op.result.type.shape) >= WIDE // SORT_FACTOR:
        return "sort"
    if not is_wide(op, context, WIDE):
        return "one"
    if is_tiled(op):
        return "product"
    if is_shared(op):
        return "fold"
    if op.name == "scatter":
        return "scatter"
    if op.name == "scatter_add" and not adds_atomically(op, context):
        return "ordered"
    if find_tiles(op, context) is not None:
        return "tiles"
    return "vectors" if find_vectors(op, context) is not None else "grid"


def _leaves_block(op: Op, context: Context) -> bool:
    """Whether an operation in a loop is worth a kernel in each round."""
    if is_parallel_sort(op) and count(op.result.type.shape) >= WIDE:
        return True
    if is_dense(op) or find_lanes(op, context) is not None or is_wide(op, context, LOOP_FACTOR * WIDE):
        return True
    if op.name != "for" or not is_wide_in_rows(op, context):
        return False
    return count(find_rows(op, context) or ()) >= WIDE or find_row_scan(op, context) is not None


def is_wide_in_rows(op: Op, context: Context) -> bool:
    """Whether an operation is a loop with a thread for every element, and worth a kernel of its own."""
    shape = find_rows(op, context)
    if shape is None or count(shape) * rounds(op) < WIDE:
        return False
    return count(shape) >= FEWEST_ROWS or find_row_scan(op, context) is not None


def find_lanes(op: Op, context: Context) -> Lanes | None:
    """What is known of a parallel loop with many rounds."""
    if op.name != "for" or rounds(op) < MANY:
        return None
    if op not in context.lanes:
        context.lanes[op] = prove(op, context)
    return context.lanes[op]


def is_wide(op: Op, context: Context, least: int) -> bool:
    """Whether an operation is worth a kernel of its own, being as much as ``least`` elements."""
    fold = as_fold(op)
    if fold is not None and is_shared(op):
        return count(fold.kept) * count(fold.inner) >= least * (MATMUL_FACTOR if op.name == "matmul" else 1)
    if is_nothing(op, context.plan) or any(r.type.is_scalar for r in op.results):
        return False
    if op.name == "scatter_add" and not adds_atomically(op, context) and not can_be_sorted(op):
        return False
    elementwise = op.name in OPS and OPS[op.name].elementwise
    if any(v.type.grows for v in (*op.operands, *op.results)):
        return False
    if fold is not None and op.name == "matmul" and count(fold.kept) * count(fold.inner) >= MATMUL_FACTOR * least:
        return True
    return (op.name in SPREAD or elementwise) and points(op, context) >= least
