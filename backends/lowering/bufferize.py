"""Bufferization: every tensor gets its place in memory, so that updates happen in place.

``Function -> Plan``: values stay values, and each gets a buffer; ``copy`` operations appear where one is needed:

    %y = update(%x, %v, %k)             %x2 = copy(%x)
    %z = add(%x, %y)            ->      %y = update(%x2, %v, %k)      %x2 and %y have one buffer
                                        %z = add(%x, %y)

The method is copy coalescing, as known for leaving SSA form (Sreedhar et al. 1999; Boissinot et al., "Revisiting
Out-of-SSA Translation for Correctness, Code Quality, and Efficiency", 2009), with tensors in place of registers:

1. *Isolate*: put a copy before every update (of its operand) and on every way into and out of a loop or a branch. Now
   the values that the rules of ``plan.py`` want in one buffer can share it: their lives do not overlap.
2. *Coalesce*: try to give the two ends of every copy one buffer, those in the deepest loops first, for a copy left in a
   loop costs the most. Two values may share a buffer when at no time both are alive, or when they are equal (one is,
   by way of copies, a copy of the other). A set of values with one buffer is kept as the disjoint intervals of its
   members' lives, so a test costs a binary search for each interval of the smaller set.
3. *Clean up*: a copy whose ends share a buffer disappears. The others stay; some of those in loops need only exchange
   two addresses (``turning.py``). A copy of unspecified elements (``empty``) becomes ``empty``.
4. *Place* the sets in memory: see ``place``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from math import prod

from dflow.backends.lowering.liveness import LOOPS, WRITES, Interval, Liveness, identity_reads
from dflow.backends.lowering.place import place
from dflow.backends.lowering.plan import CALLED, Buffer, Plan
from dflow.backends.lowering.turning import turning
from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Op, Value, substitute, walk
from dflow.ir.passes.decompose import decompose
from dflow.ir.types import Size, TensorType


def bufferize(f: Function, in_place: Mapping[int, int] | None = None) -> Plan:
    """Gives every tensor of ``f`` its buffer. ``f`` itself is not changed.

    ``in_place`` maps results to arguments of the same type, a tensor of static size, in whose memory they are left.
    """
    f = decompose(f, but=("gemm", *CALLED))
    if not _has_tensors(f):
        return Plan(f)
    in_place = in_place or {}
    g = isolate(f, in_place.values())
    live = Liveness(g)
    sets = coalesce(g, live, in_place)
    moves = turning(g, live, sets)
    dropped: dict[Value, Value] = {}
    _drop_copies(g.body, dropped, sets)
    return place(g, {v: s for v, s in sets.items() if v not in dropped}, in_place, moves)


def _has_tensors(f: Function) -> bool:
    values = [*f.args, *f.results, *(r for op in walk(f.body) for r in op.results)]
    return any(v.type.rank for v in values)


# -- isolation -------------------------------------------------------------------------------------------------------


def isolate(f: Function, written: Collection[int] = ()) -> Function:
    """``f`` with a copy wherever two values must share a buffer. The arguments ``written`` are copied at once."""
    return Function(f.name, _isolate_block(f.body, {}, written=written), f.linear, f.loc)


def _isolate_block(
    block: Block, env: dict[Value, Value], carried: int | None = None, written: Collection[int] = ()
) -> Block:
    """A copy of ``block`` that yields copies. The arguments from position ``carried`` on go round in a loop."""
    b = Builder()
    b.args = tuple(Value(substitute(a.type, env), a.hint) for a in block.args)
    env.update(zip(block.args, b.args))
    for k in written:
        env[block.args[k]] = _copy(b, b.args[k])
    if carried is not None:
        # An argument yielded in the place of another would be alive when that other one is written: `a, b = b, a`.
        for k, v in enumerate(block.results):
            if v in block.args and v is not block.args[k + carried]:
                env[v] = _copy(b, env[v])
    for op in block.ops:
        _isolate_op(b, op, env)
    return b.finish([_copy(b, env.get(v, v)) for v in block.results])


def _isolate_op(b: Builder, op: Op, env: dict[Value, Value]) -> None:
    b.loc = op.loc
    if op.name == "kernel":
        b.clone(op, env)
        return
    operands = [env.get(v, v) for v in op.operands]
    if op.name in LOOPS:
        operands = [_copy(b, v) for v in operands]
    elif op.name in WRITES:
        operands[0] = _copy(b, operands[0])
    first = {"for": 1, "while": 0}.get(op.name)
    regions = [_isolate_block(r, env, first if k == len(op.regions) - 1 else None) for k, r in enumerate(op.regions)]
    results = [Value(r.type, r.hint) for r in op.results]
    env.update(zip(op.results, results))
    for r in results:
        r.type = substitute(r.type, env)
    attrs = {k: substitute(a, env) for k, a in op.attrs.items()}
    b.ops.append(Op(op.name, operands, results, attrs, regions, op.loc))


def _copy(b: Builder, v: Value) -> Value:
    return b.append("copy", [v], hints=[v.hint])[0] if v.type.rank else v


# -- coalescing ------------------------------------------------------------------------------------------------------


class Sharing:
    """A set of values with one buffer: the intervals in which one of them is alive, with the *root* that is then held.

    Values that are copies of each other have one root. ``fixed`` is memory of the caller.
    """

    def __init__(self, v: Value, intervals: list[Interval], root: Value):
        self.values = [v]
        self.memory = _memory(v.type)
        self.starts = [a for a, _ in intervals]
        self.ends = [b for _, b in intervals]
        self.roots = [root] * len(intervals)
        self.fixed: Buffer | None = None
        self.reserved: Interval | None = None  # when nothing else may have its bytes (`turning.py`)

    @property
    def type(self) -> TensorType:
        return self.values[0].type

    @property
    def hull(self) -> Interval:
        first, last = self.reserved or (self.starts[0], self.ends[-1])
        return min(first, self.starts[0]), max(last, self.ends[-1])

    def overlaps(self, start: int, end: int) -> range:
        """Which of the intervals overlap ``[start, end)``."""
        # The ends increase as the starts do, for the intervals are disjoint.
        return range(bisect_left(self.ends, start + 1), bisect_left(self.starts, end))

    def interferes(self, other: Sharing) -> bool:
        """Whether a value of ``other`` is alive while a value of this set with another root is. Walks ``other``."""
        return any(
            self.roots[k] is not root
            for a, b, root in zip(other.starts, other.ends, other.roots)
            for k in self.overlaps(a, b)
        )

    def absorb(self, other: Sharing) -> None:
        """Adds the values of ``other``, which must not interfere."""
        for a, b, root in zip(other.starts, other.ends, other.roots):
            hit = self.overlaps(a, b)
            if len(hit):
                a, b = min(a, self.starts[hit[0]]), max(b, self.ends[hit[-1]])
            self.starts[hit.start : hit.stop] = [a]
            self.ends[hit.start : hit.stop] = [b]
            self.roots[hit.start : hit.stop] = [root]
        self.values += other.values
        self.fixed = self.fixed or other.fixed


def coalesce(g: Function, live: Liveness, in_place: Mapping[int, int]) -> dict[Value, Sharing]:
    """Which tensors of an isolated function share buffers. ``in_place``: see ``bufferize``."""
    roots = _roots(g)
    sets = {v: Sharing(v, intervals, roots.get(v, v)) for v, intervals in live.intervals.items()}
    for k, v in enumerate(g.args):
        if v in sets:
            sets[v].fixed = Buffer(v.type, "argument", k, writable=k in in_place.values())
    for k, v in enumerate(g.results):
        if v in sets and k not in in_place:
            sets[v].fixed = Buffer(v.type, "result", k)
    for group in [*([g.args[i], g.results[k]] for k, i in in_place.items()), *_must_share(g)]:
        for v in group[1:]:
            assert _merge(sets, group[0], v), f"{group[0]} and {v} must share a buffer and cannot"
    for x, y in _may_share(g, live):
        _merge(sets, x, y)
    return sets


def _merge(sets: dict[Value, Sharing], x: Value, y: Value) -> bool:
    """Gives ``x`` and ``y`` one buffer where that is right."""
    large, small = sets[x], sets[y]
    if large is small:
        return True
    if len(large.starts) < len(small.starts):
        large, small = small, large
    if not _fits(large, small) or not _fits(small, large) or large.interferes(small):
        return False
    large.absorb(small)
    for v in small.values:
        sets[v] = large
    return True


def _fits(x: Sharing, y: Sharing) -> bool:
    """Whether ``y`` may live in the memory of ``x``, whatever the lives."""
    if (x.fixed is not None and y.fixed is not None) or x.memory != y.memory:
        return False
    if x.fixed is None or x.fixed.writable:
        return True
    return all(root is x.roots[0] for root in y.roots)  # nothing may be written there


def _memory(t: TensorType) -> object:
    """Equal for types that may share a buffer."""
    return (t.dtype, t.shape) if t.grows else (t.dtype, prod(t.bound))


def _must_share(g: Function) -> list[list[Value]]:
    """The values that invariants 2 and 3 of ``plan.py`` put in one buffer."""
    groups: list[list[Value]] = []
    for op in walk(g.body):
        if op.name in WRITES:
            groups.append([op.operands[0], op.result])
        elif op.name == "if":
            groups += map(list, zip(op.results, *(r.results for r in op.regions)))
        elif op.name == "for":
            (body,) = op.regions
            groups += map(list, zip(op.results, op.operands[1:], body.args[1:], body.results))
        elif op.name == "while":
            condition, body = op.regions
            groups += map(list, zip(op.results, op.operands, condition.args, body.args, body.results))
    return [group for group in groups if group[0].type.rank]


def _may_share(g: Function, live: Liveness) -> list[tuple[Value, Value]]:
    """The pairs that would save a copy, those in the deepest loops first, then large ones before small ones; then those
    that would only save memory."""
    copies, kernels = [], []
    for op in walk(g.body):
        if op not in live.depth:
            continue  # inside of a kernel
        if op.name == "copy" or _is_alias(op):
            if op.result.type.rank:
                copies.append(op)
        else:
            kernels += [(r, v) for v in identity_reads(op) for r in op.results if r.type == v.type]
    copies.sort(key=lambda op: (-live.depth[op], -_bytes(op.result.type)))
    return [(op.result, op.operands[0]) for op in copies] + kernels


def _bytes(t: TensorType) -> int:
    return 1 << 62 if t.grows else prod(t.bound) * t.dtype.itemsize


def _roots(g: Function) -> Mapping[Value, Value]:
    """For every result of a copy (or of a reshape that moves nothing), the value that it equals in memory."""
    roots: dict[Value, Value] = {}
    for op in walk(g.body):
        if op.name == "copy" or _is_alias(op):
            roots[op.result] = roots.get(op.operands[0], op.operands[0])
    return roots


def _is_alias(op: Op) -> bool:
    return op.name == "reshape" and same_layout(op.operands[0].type, op.result.type)


def same_layout(x: TensorType, y: TensorType) -> bool:
    """Whether a reshape between the types leaves every element where it is in memory.

    Rows are as long as the bounds of their sizes say, so an axis of variable size must have as many elements before and
    after it in both types.
    """
    if not x.rank or not y.rank or x.grows or y.grows:
        return x == y
    return _groups(x) == _groups(y)


def _groups(t: TensorType) -> list[object]:
    """The sizes that vary, with the products of the static sizes between them."""
    groups: list[object] = [1]
    for d in t.shape:
        if isinstance(d, int):
            groups[-1] *= d  # type: ignore[operator]
        else:
            assert isinstance(d, Size)
            groups += [d, 1]
    return groups


# -- cleaning up -----------------------------------------------------------------------------------------------------


def _drop_copies(block: Block, env: dict[Value, Value], sets: dict[Value, Sharing]) -> None:
    """Removes the copies within one buffer. The function was made by ``isolate`` for us, so it is edited in place."""
    kept = []
    for op in block.ops:
        op.operands = tuple(env.get(v, v) for v in op.operands)
        if op.name == "copy" and op.result.type.rank:
            (source,) = op.operands
            if sets[op.result] is sets[source]:
                env[op.result] = source
                continue
            if source.op is not None and source.op.name == "empty":
                op = Op("empty", [], op.results, source.op.attrs, loc=op.loc)
        for r in op.regions:
            _drop_copies(r, env, sets)
        kept.append(op)
    block.ops = kept
    block.results = tuple(env.get(v, v) for v in block.results)
