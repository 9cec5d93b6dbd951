"""Operations that follow each other line by line, in one kernel: a block goes through all of them for its line.

    %m = kernel {reduced = 1, combine = ("max",)} ...          a softmax along the last axis
    %e = kernel { ... exp(x[i, j] - m[i]) }                    reads of %m only its own line,
    %s = kernel {reduced = 1, combine = ("sum",)} ...          and so on
    %y = kernel { ... e[i, j] / s[i] }

Each alone would read all lines from memory, and write them; the block finds its line in the cache again. What one of
them writes, no other may read, or have in the same memory, but in the line with the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dflow.backends.cuda.context import Context, Needs
from dflow.backends.cuda.kernels.cooperative import WARP, Line, barrier, block_totals
from dflow.backends.cuda.kernels.fold import AHEAD, Sharing
from dflow.backends.cuda.kernels.folds import as_fold, count
from dflow.backends.cuda.kernels.kernel import KernelEmitter
from dflow.backends.cuda.plan import Pointer
from dflow.backends.cuda.planning.work import is_nothing
from dflow.backends.emit.kernel import write
from dflow.backends.emit.types import ZERO, index
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Block, Op, Value, walk
from dflow.ir.passes.rewrite import has_effect

if TYPE_CHECKING:
    from dflow.backends.cuda.planning.schedule import Scheduler

WAYS = frozenset({"fold", "grid", "vectors"})
FEWEST_LINES = 256  # about two for each processor
SHORTEST, LONGEST = 256, 1 << 15  # elements of a line: below, a warp is enough for one; beyond, a block is not
THREADS, MOST_THREADS = 64, 512  # of a block: one for about `AHEAD` elements
MOST_BLOCKS = 1 << 16


@dataclass
class Lines:
    """Operations over ``number`` lines, and the memory that they touch: line by line, or (``across``) elsewhere."""

    number: int
    ops: list[Op] = field(default_factory=list)
    written: set[tensors.Buffer] = field(default_factory=set)
    by_line: set[tensors.Buffer] = field(default_factory=set)
    across: set[tensors.Buffer] = field(default_factory=set)

    @property
    def longest(self) -> int:
        return max(_length(op) for op in self.ops)

    def with_op(self, op: Op, context: Context) -> Lines | None:
        """These and another operation; None where they do not go together."""
        buffers = context.plan.buffers
        if number_of_lines(op, context) != self.number or any(v not in buffers for v in op.results):
            return None
        written, by_line, across = _touched(op, context)
        made = Lines(
            self.number,
            [*self.ops, op],
            self.written | written,
            self.by_line | by_line | written,
            self.across | across,
        )
        apart = all(not _meet(w, b) for w in made.written for b in made.across)
        alike = all(b is w or not _meet(w, b) or _is_alike(w, b) for w in made.written for b in made.by_line)
        return made if apart and alike else None


def number_of_lines(op: Op, context: Context) -> int:
    """Over how many lines an operation goes that such a kernel may do; 0 for others."""
    if op.name not in ("kernel", "reduce") or op in context.tails or has_effect(op):
        return 0
    if any(has_effect(o) or o.regions for r in op.regions for o in walk(r)):
        return 0
    fold = as_fold(op)
    shape = [*fold.kept, *fold.inner] if fold else list(op.attrs.get("domain", ()))
    number = shape[0] if shape else 0
    if not isinstance(number, int) or not all(isinstance(d, int) and d > 0 for d in shape) or _length(op) > LONGEST:
        return 0
    if fold is not None and (len(fold.kept) != 1 or _length(op) < SHORTEST):
        return 0
    if op.name == "kernel" and not all(r.type.shape[:1] == (number,) for r in op.results):
        return 0
    is_large = _length(op) == 1 or context.ways.get(op) in WAYS
    return number if is_large and number >= FEWEST_LINES else 0


def _length(op: Op) -> int:
    """The elements of a line."""
    fold = as_fold(op)
    return count(fold.inner) if fold else count(op.attrs["domain"][1:])


def _touched(op: Op, context: Context) -> tuple[set[tensors.Buffer], set[tensors.Buffer], set[tensors.Buffer]]:
    """The memory that an operation writes, that it reads line by line, and the other that it reads."""
    buffers, by_line, across = context.plan.buffers, set[tensors.Buffer](), set[tensors.Buffer]()
    if op.name == "reduce":  # the first axis stays
        by_line |= {buffers[v] for v in op.operands if v in buffers}
    for r in op.regions:
        for o in walk(r):
            for v in o.operands:
                if v.type.rank and v in buffers:
                    (by_line if _reads_line(o, v, r) else across).add(buffers[v])
    return {buffers[v] for v in op.results if v in buffers}, by_line, across


def _reads_line(op: Op, v: Value, region: Block) -> bool:
    if op.name != "extract" or op.operands[0] is not v or v in op.operands[1:] or v.type.grows:
        return False
    return op.attrs["index"][0] == "at" and op.operands[1] is region.args[0]


def _meet(a: tensors.Buffer, b: tensors.Buffer) -> bool:
    """Whether two buffers have memory in common."""
    if a is b:
        return True
    if a.space != b.space or a.space not in ("arena", "argument", "result"):
        return False
    if a.space == "arena":
        return a.offset < b.offset + b.bytes and b.offset < a.offset + a.bytes
    return a.index == b.index


def _is_alike(a: tensors.Buffer, b: tensors.Buffer) -> bool:
    """Whether lines with the same number have the same memory in both."""
    return (a.offset, a.bytes, a.type.shape[:1]) == (b.offset, b.bytes, b.type.shape[:1])


def find_lines(block: Block, context: Context, is_left_out: Callable[[Op], bool]) -> dict[Op, Lines | None]:
    """What goes together in a block, by its first operation; None for the others."""
    found: dict[Op, Lines | None] = {}
    lines: Lines | None = None

    def end() -> None:
        if lines is not None and len(lines.ops) > 1 and lines.longest >= SHORTEST and any(map(as_fold, lines.ops)):
            found.update(dict.fromkeys(lines.ops))
            found[lines.ops[0]] = lines

    for op in block.ops:
        if is_left_out(op) or is_nothing(op, context.plan):
            continue
        longer = lines.with_op(op, context) if lines is not None else None
        if longer is None:
            end()
            number = number_of_lines(op, context)
            longer = Lines(number).with_op(op, context) if number else None
        lines = longer
    end()
    return found


class LineEmitter(KernelEmitter):
    """Writes such a kernel. While a line is written, the threads are those of the block."""

    stays_together = True

    def __init__(self, context: Context, lines: Lines, needs: Needs, blocks: int, threads: int):
        self.lines = lines
        super().__init__(context, "lines", "grid", needs, blocks, threads, is_divisible=False)
        self.thread = self.register("tid.x")
        self.places: dict[tuple[Any, ...], Line] = {}

    def is_apart(self, a: Pointer) -> bool:
        """What other threads of the block write is read behind a barrier."""
        return not any(
            p == a and isinstance(k, tensors.Buffer) and any(_meet(k, w) for w in self.lines.written)
            for k, p in self.pointers.items()
        )

    def line(self, op: Op, i: Any) -> None:
        """An operation on line ``i``."""
        fold = as_fold(op)
        if fold is not None:
            sharing, key = Sharing(self, fold), tuple(fold.dtypes)
            if key not in self.places:
                self.places[key] = Line(self, fold.dtypes, self.block_size // WARP)
            sharing.begin()
            sharing.sweep(self.thread, self.block_size, fold.element(self), [i])
            totals = block_totals(self, sharing.join, fold.dtypes, sharing.values(), self.places[key])
            self._first(lambda: write(self, op.results, [i], fold.given(self.builder, totals)))
        elif len(op.attrs["domain"]) == 1:
            self._first(lambda: write(self, op.results, [i], self._element(op, [i])))
        else:
            self._elements(op, i)
        barrier(self)

    def _element(self, op: Op, at: list[Any]) -> list[Any]:
        (region,) = op.regions
        self.env.update(zip(region.args, at))
        self.block(region)
        return [self.env[v] for v in region.results]

    def _elements(self, op: Op, i: Any) -> None:
        inner, step = op.attrs["domain"][1:], self.block_size

        def some(k: Any, many: int) -> None:
            at = [[i, *self.positions(self.add(k, index(step * j)), inner)] for j in range(many)]
            for here, values in zip(at, [self._element(op, here) for here in at]):
                write(self, op.results, here, values)

        total = self.product(inner)
        first = self.stride_from(
            self.thread, AHEAD * step, self.add(total, index((1 - AHEAD) * step)), lambda k: some(k, AHEAD)
        )
        self.stride_from(first, step, total, lambda k: some(k, 1))

    def _first(self, do: Callable[[], None]) -> None:
        with self.builder.if_then(self.builder.icmp_unsigned("==", self.thread, ZERO)):
            do()


def emit_lines(s: Scheduler, lines: Lines) -> None:
    """Adds the kernel to the steps of the scheduler."""
    needs = Needs(s.context, lines.ops)
    threads = min(MOST_THREADS, max(THREADS, 1 << max(0, (lines.longest // AHEAD).bit_length() - 1)))
    blocks = min(lines.number, MOST_BLOCKS)
    e = LineEmitter(s.context, lines, needs, blocks, threads)
    e.loc = next((op.loc for op in lines.ops if op.loc), None)
    e.recall(lines.ops)

    def each(i: Any) -> None:
        for op in lines.ops:
            e.line(op, i)

    e.stride_from(e.register("ctaid.x"), blocks, index(lines.number), each)
    s.steps.append(e.finish())


__all__: Sequence[str] = ["Lines", "emit_lines", "find_lines"]
